"""Laws of where chains start: the search for the posterior's modes, what it knows of itself, and the verdict on it."""

import math
import warnings
from itertools import pairwise

import numpy as np
import pytest
from arviz_stats.base import array_stats
from oracles import errors_allowed, hits, quiet, seed, table

import bayesgmm as bg
from bayesgmm.bayes.density import Density
from bayesgmm.bayes.modes import Searched, candidates, find_modes, search_modes
from bayesgmm.em.result import chance_of_better
from bayesgmm.observations import observations


def eight_clusters():
    """Eight clusters for three components: which share one is a matter of the start; the best is seldom reached."""
    rng = np.random.default_rng([99, 4])
    D, L = rng.integers(2, 4), rng.integers(4, 9)
    rng.integers(3, 6)
    n, gap = rng.integers(8, 25), rng.choice([3, 4, 6, 8])
    centers = rng.normal(0, gap, (L, D))
    return np.concatenate([rng.normal(center, 1, (n, D)) for center in centers])


def density_of(X, fit):
    priors = bg.Priors.weakly_informative(X, fit.n_components)
    return Density(observations(X), np.nanmean(X, axis=0), priors, fit.covariance_model)


@pytest.fixture(scope="module")
def low_and_high():
    """Fits of the eight clusters: at a lower maximum of the likelihood, and at the highest."""
    X = eight_clusters()
    high = bg.fit_em(X, 3, n_starts=400, rng=0)
    lower = (m for m in bg.fit_em(X, 3, rng=0).maxima if high.log_likelihood - m.log_likelihood > 2)
    return X, bg.fit_em(X, 3, starts=[next(lower).mixture]), high


def test_the_search_finds_what_the_fit_has_missed(low_and_high):
    X, low, high = low_and_high
    density = density_of(X, low)
    best = find_modes(density, [high.mixture])[0]
    for s in range(3):
        searched = search_modes(density, low, np.random.default_rng(s))
        assert searched.log_likelihood == pytest.approx(high.log_likelihood, abs=1e-3)
        modes = find_modes(density, candidates(low, searched, 8))
        assert modes[0].log_integral == pytest.approx(best.log_integral, abs=0.01)
        assert all(a.log_integral >= b.log_integral for a, b in pairwise(modes))
        assert modes[-1].log_integral > modes[0].log_integral - 7


@pytest.mark.statistical
def test_a_single_gaussian_with_holes_may_have_two_modes():
    """Murray (1977): nothing tells correlations of one half and of minus one half apart, and chains are in both."""
    there = [[1, 1], [1, -1], [-1, 1], [-1, -1]]
    X = np.array([*there, *[[s, np.nan] for s in (2, 2, -2, -2)], *[[np.nan, s] for s in (2, 2, -2, -2)]])
    fit = bg.fit_em(X, 1, rng=0)
    assert search_modes(density_of(X, fit), fit, np.random.default_rng(0)).climbs > 0
    S = bg.as_mixture(quiet(bg.sample_posterior, X, fit, rng=seed())).covariances[..., 0, :, :]
    r = S[..., 0, 1] / np.sqrt(S[..., 0, 0] * S[..., 1, 1])
    error = r.std() / np.sqrt(array_stats.ess(r, chain_axis=0, draw_axis=1))
    assert abs(r.mean()) < errors_allowed() * error
    assert min((r > 0.3).mean(), (r < -0.3).mean()) > 0.2


def test_chains_start_at_the_best_mode_whichever_maximum_was_fitted(low_and_high):
    X, low, high = low_and_high
    density = density_of(X, low)
    best = find_modes(density, [high.mixture])[0].log_integral + density.log_constant + math.log(6)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        tree = bg.sample_posterior(X, low, draws=20, tune=100, rng=0)
    assert str(said[0].message) == tree.attrs["better_fit"]
    assert "not the highest maximum of the likelihood" in tree.attrs["better_fit"]
    assert f"{high.log_likelihood:.1f} was found, and it has {low.log_likelihood:.1f}" in tree.attrs["better_fit"]
    assert float(tree.attrs["maxima"].partition(": ")[2].split(", ")[0]) == pytest.approx(best, abs=0.06)
    assert "climbs" in tree.attrs["search"]


def test_the_search_ends_where_one_maximum_is_all_there_is():
    X = table("old_faithful")
    fit = bg.fit_em(X, 2, rng=0)
    searched = search_modes(density_of(X, fit), fit, np.random.default_rng(0))
    assert len(searched.maxima) == 1
    assert searched.chance < 0.03
    assert searched.climbs <= 30
    assert searched.log_likelihood == pytest.approx(fit.log_likelihood, abs=1e-5)
    assert len(find_modes(density_of(X, fit), candidates(fit, searched, 8))) == 1


def test_one_component_needs_no_search():
    X = table("galaxies")
    fit = bg.fit_em(X, 1)
    assert search_modes(density_of(X, fit), fit, np.random.default_rng(0)) == Searched()
    assert candidates(fit, Searched(), 4) == [fit.mixture]


def test_priors_that_em_does_not_know_are_searched_without():
    X = table("galaxies")
    fit = bg.fit_em(X, 2, "V", rng=0)
    weak = bg.Priors.weakly_informative(X, 2)
    priors = bg.Priors(weak.concentration, weak.means, bg.LKJ(1.0, bg.HalfNormal(5.0)))
    searched = search_modes(
        Density(observations(X), X.mean(axis=0), priors, fit.covariance_model), fit, np.random.default_rng(0)
    )
    assert searched.maxima[0].log_likelihood == pytest.approx(fit.log_likelihood, abs=1e-3)


def test_the_chance_of_a_higher_maximum_is_that_of_a_fit():
    assert hits(30).chance == chance_of_better([30])
    assert hits(6, 1, 2, 1).chance == chance_of_better([6, 1, 2, 1])
    assert math.isnan(hits(2).chance)
    assert Searched().chance == 0
    assert hits(30).text == "The highest maximum was reached by 30 of 30 climbs."
    assert hits(6, 1, 2, 1).text == (
        "The highest maximum, one of 4 within 10 nats, was reached by 6 of 10 climbs; the chance that there is a "
        "higher one is about 41%."
    )
