"""Laws of the search for maxima: what it finds, when it ends, and what it says of itself."""

import math
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from oracles import random_mixture, table

import bayesgmm as bg
from bayesgmm.em.result import chance_of_better


def lumps():
    """Eight clusters for three components: the best maximum is met by one start in ten."""
    rng = np.random.default_rng([99, 4])
    centers = rng.normal(0, 8, (8, 3))
    return np.concatenate([rng.normal(center, 1, (11, 3)) for center in centers])


@pytest.mark.parametrize(("K", "best"), [(3, -1114.440), (4, -1106.030)])
def test_old_faithfuls_best_maxima_are_found(K, best):
    for seed in range(5):
        assert bg.fit_em(table("old_faithful"), K, rng=seed).log_likelihood >= best - 1e-3


def test_more_starts_never_give_a_lower_maximum():
    for X, K, model in ((lumps(), 3, "full"), (table("iris"), 5, "full"), (table("old_faithful"), 3, "EEI")):
        found = [bg.fit_em(X, K, model, n_starts=n, rng=7).log_likelihood for n in (1, 2, 3, 5, 9, 20, 21, 30, 47, 90)]
        np.testing.assert_array_less(-1e-3, np.diff(found))


def test_further_starts_leave_the_first_ones_as_they_are():
    X = table("iris")
    few, many = (bg.fit_em(X, 4, n_starts=n, rng=0).starts for n in (33, 50))
    assert many[:33] == few


def test_select_finds_the_same_maximum():
    X = table("old_faithful")
    chosen = bg.select(X, (2, 3, 4), "full", ("bic",), n_replicates=0, rng=1)
    for fit in chosen.fits.values():
        alone = bg.fit_em(X, fit.n_components, "full", rng=2)
        assert fit.log_likelihood == pytest.approx(alone.log_likelihood, abs=1e-3)


def test_an_affine_map_changes_no_maximum():
    X, rng = table("old_faithful"), np.random.default_rng(0)
    A = rng.normal(size=(2, 2))
    fit, mapped = bg.fit_em(X, 3, rng=0), bg.fit_em(X @ A + 5, 3, rng=0)
    jacobian = len(X) * np.log(abs(np.linalg.det(A)))
    assert mapped.log_likelihood + jacobian == pytest.approx(fit.log_likelihood, abs=1e-3)


def test_a_plain_maximum_needs_no_more_than_the_first_starts():
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(center, 1, (60, 2)) for center in (0, 20, 40)])
    fit = bg.fit_em(X, 3, rng=0)
    assert fit.search_end is bg.SearchEnd.ENOUGH
    assert len(fit.starts) == 20
    assert fit.chance_of_better < 0.02


def test_a_search_goes_on_until_a_better_maximum_is_unlikely():
    X = table("old_faithful")
    fit = bg.fit_em(X, 3, rng=0)
    assert fit.search_end is bg.SearchEnd.ENOUGH
    assert fit.chance_of_better < 0.02
    assert bg.fit_em(X, 3, n_starts=20, rng=0).chance_of_better > 0.02
    kinds = {start.kind for start in fit.starts}
    assert kinds == {"hierarchical", "k-means++", "random partition", "reseeded", "divided"}


def test_a_search_without_end_says_so():
    fit = bg.fit_em(table("iris"), 7, "full", rng=0)
    assert fit.search_end is bg.SearchEnd.BUDGET
    assert fit.chance_of_better > 0.02
    assert len(fit.starts) == 200


def test_the_chance_falls_with_hits_and_rises_with_rivals_met_once():
    chances = np.array([[chance_of_better([hits, *[1] * rivals]) for hits in range(2, 50)] for rivals in range(20)])
    assert ((chances > 0) & (chances < 1)).all()
    assert (np.diff(chances, axis=0) > 0).all()
    assert (np.diff(chances, axis=1) < 0).all()
    assert chance_of_better([12, 8]) < chance_of_better([12, *[1] * 8])  # the same number of climbs
    assert chance_of_better([20]) < 0.02 < chance_of_better([10])


def test_a_fit_says_how_sure_it_is():
    X = table("old_faithful")
    fit = bg.fit_em(X, 3, rng=0)
    hits, climbs = fit.maxima[0].hits, sum(maximum.hits for maximum in fit.maxima)
    assert fit.search.startswith(f"found in {hits} of {climbs} climbs; chance of a better maximum about ")
    assert fit.search in repr(fit)
    one = bg.fit_em(X, 1)
    assert (one.chance_of_better, one.search_end, one.search) == (0.0, bg.SearchEnd.ONLY, "found in 1 of 1 climb")
    given = bg.fit_em(X, 3, starts=[fit.mixture])
    assert given.search_end is bg.SearchEnd.GIVEN
    assert math.isnan(given.chance_of_better)
    assert bg.fit_em(X, 3, n_starts=20, rng=0).search_end is bg.SearchEnd.FIXED
    assert math.isnan(bg.fit_em(X, 3, n_starts=5, rng=0).chance_of_better)
    labelled = bg.fit_em(X, 2, labels=(X[:, 0] > 3).astype(int))
    assert labelled.search_end is bg.SearchEnd.ONLY


def test_a_long_table_is_searched_by_a_sample():
    rng = np.random.default_rng(0)
    X = random_mixture(rng, 3, 2).sample(5000, rng=rng)[0]
    fit = bg.fit_em(X, 3, rng=0)
    assert fit.search_end is bg.SearchEnd.SAMPLE
    assert len(fit.starts) == 20


def test_the_highest_maxima_have_their_parameters():
    X = table("iris")
    fit = bg.fit_em(X, 5, "full", rng=0)
    assert len(fit.maxima) > 20
    for maximum in fit.maxima[:20]:
        assert maximum.mixture.log_likelihood(X) == pytest.approx(maximum.log_likelihood, abs=1e-6)
    assert all(maximum.mixture is None for maximum in fit.maxima[20:] if maximum.log_likelihood != fit.log_likelihood)


@pytest.mark.parametrize("concentration", [(1, 5, 60), (60, 5, 1), (3, 200, 3)])
def test_a_fit_under_priors_that_tell_components_apart_is_their_maximum(concentration):
    """From its own parameters nothing is gained, and in no other order of the components."""
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(center, 1, (n, 2)) for center, n in ((0, 20), (6, 90), (12, 45))])
    priors = replace(bg.Priors.weakly_informative(X, 3), concentration=np.array(concentration, dtype=float))
    fit = bg.fit_em(X, 3, priors=priors, rng=0)
    height = fit.log_likelihood_path[-1]
    for order in permutations(range(3)):
        again = bg.fit_em(X, 3, priors=priors, starts=[fit.mixture.permute(list(order))])
        assert again.log_likelihood_path[-1] <= height + 1e-5
        if order == (0, 1, 2):
            np.testing.assert_allclose(again.mixture.weights, fit.mixture.weights, atol=1e-5)
            np.testing.assert_allclose(again.mixture.means, fit.mixture.means, atol=1e-4)
    largest = int(np.argmax(concentration))
    assert fit.mixture.weights.argmax() == largest
    with pytest.raises(bg.InputError, match="align_to cannot order"):
        bg.fit_em(X, 3, priors=priors, align_to=fit)


@pytest.mark.parametrize("covariance", ["tied", "spherical", "EEI", "EEV", "full"])
def test_no_climb_ends_on_the_saddle_of_equal_components(covariance):
    """Random partitions of a table start beside it: all components are nearly the whole table."""
    X = table("old_faithful")
    one = bg.fit_em(X, 1, covariance).log_likelihood
    rng = np.random.default_rng(0)
    partitions = [rng.integers(2, size=len(X)) for _ in range(6)]
    equal = bg.GaussianMixture(
        [0.5, 0.5], np.repeat(X.mean(axis=0)[None], 2, axis=0), np.repeat(np.cov(X.T, bias=True)[None], 2, axis=0)
    )
    fit = bg.fit_em(X, 2, covariance, starts=[equal, *partitions], rng=0)
    assert min(maximum.log_likelihood for maximum in fit.maxima) > one + 1
    assert min(start.log_likelihood for start in fit.starts if start.status is bg.Status.CONVERGED) > one + 1
