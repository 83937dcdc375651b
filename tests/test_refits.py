"""Fits to other rows: without a fold, and to rows drawn with replacement."""

import numpy as np
import pytest
from oracles import errors_allowed, seed, table

import bayesgmm as bg
from bayesgmm.covariance import CovarianceModel
from bayesgmm.em.grid import Grid
from bayesgmm.em.refits import held_out_log_density, replicates
from bayesgmm.observations import observations


def test_held_out_density_is_brute_forces():
    """With one component, the density of each fold under the mean and covariance of the others."""
    X = table("iris")
    out = held_out_log_density(
        Grid(observations(X), (CovarianceModel.named("full"),), (1,), n_starts=1),
        5,
        np.random.default_rng(3),
        lambda part, make: make(),
        lambda *of: None,
    )["VVV", 1]
    fold = np.random.default_rng(3).permutation(np.arange(len(X)) % 5)
    for f in range(5):
        others = X[fold != f]
        one = bg.GaussianMixture([1.0], others.mean(axis=0)[None], np.cov(others.T, bias=True)[None])
        np.testing.assert_allclose(out[fold == f], one.log_prob(X[fold == f]), rtol=1e-9)


def test_a_replicate_is_a_fit_to_its_rows():
    X = table("old_faithful")
    fit = bg.fit_em(X, 2, rng=0)
    drawn = replicates(fit, observations(X), 5, seed=7)
    weights = np.random.default_rng(7).multinomial(len(X), np.full(len(X), 1 / len(X)), size=5)
    for b in range(5):
        rows_drawn = np.repeat(X, weights[b], axis=0)
        again = bg.fit_em(rows_drawn, 2, starts=[fit.mixture])
        assert drawn.log_likelihood[b] == pytest.approx(again.log_likelihood, abs=1e-3)
        assert drawn.map_log_responsibility[b] == pytest.approx(again.map_log_responsibility, abs=1e-2)
        assert drawn.unfitted_log_likelihood[b] == pytest.approx(fit.mixture.log_likelihood(rows_drawn))
        largest = fit.mixture.responsibilities(rows_drawn).max(axis=1)
        assert drawn.unfitted_map_log_responsibility[b] == pytest.approx(np.log(largest).sum())


@pytest.mark.statistical
def test_replicates_overshoot_by_half_a_nat_per_parameter_and_are_centred():
    X = np.random.default_rng(0).normal(size=(2000, 3))
    fit = bg.fit_em(X, 1)
    drawn = replicates(fit, observations(X), 1000, seed=seed())
    excess = drawn.log_likelihood - drawn.unfitted_log_likelihood
    assert abs(excess.mean() - fit.n_parameters / 2) < errors_allowed(df=999) * excess.std() / np.sqrt(1000)
    centred, map_log_responsibility = drawn.centred(fit)
    assert centred.mean() == pytest.approx(fit.log_likelihood)
    assert not map_log_responsibility.any()
    lost = drawn._replace(log_likelihood=np.full(1000, np.nan))
    np.testing.assert_array_equal(lost.centred(fit)[0], drawn.unfitted_log_likelihood)
