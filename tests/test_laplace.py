"""The mode of the posterior and the curvature there."""

from dataclasses import replace

import numpy as np
import pytest
from oracles import density_of, seed, table

import bayesgmm as bg
from bayesgmm.bayes.density import Density
from bayesgmm.bayes.laplace import find_mode, hessian, start_near
from bayesgmm.covariance import CovarianceModel
from bayesgmm.em.initialize import mean_and_covariance
from bayesgmm.observations import observations


def test_mode_is_a_maximum_with_negative_curvature(faithful_fit):
    X, fit = table("old_faithful"), faithful_fit
    density = density_of(X, fit, bg.Priors.weakly_informative(X, 2))
    mode = find_mode(density, density.pack(fit.mixture))
    value, gradient = density(mode.origin)
    assert value >= density(density.pack(fit.mixture))[0]
    assert np.abs(mode.factor.T @ gradient).max() < 0.02
    H = hessian(density.whitened(mode.origin, mode.factor), np.zeros(density.n_dim), np.full(density.n_dim, 1e-3))
    np.testing.assert_allclose(H, -np.eye(density.n_dim), atol=0.05)


def test_the_mode_without_some_rows_is_where_the_slope_ends(faithful_fit, monkeypatch):
    monkeypatch.setattr("bayesgmm.bayes.laplace._EXACT_PAYS", 0.0)
    X = table("old_faithful")
    whole = density_of(X, faithful_fit, bg.Priors.weakly_informative(X, 2))
    density = replace(whole, left_out=np.array([269, 3]), log_odds=np.array([0.0, -1.0]))
    mode = find_mode(density, density.pack(faithful_fit.mixture))
    assert np.abs(mode.factor.T @ density(mode.origin)[1]).max() < 0.02


@pytest.mark.parametrize("name", ["VVV", "EEV", "VEE", "VVI", "EII"])
def test_the_mode_is_found_from_a_fit_that_is_flat_beside_the_errors(name):
    """Where EM ends at the border the density has no curvature to speak of; a little inside it has."""
    rng, sd = np.random.default_rng(0), np.array([0.3, 0.3, 1.0])
    mixture = bg.GaussianMixture([0.5, 0.5], [[0.0, 0.0, 0.0], [4.0, 4.0, 0.0]], [np.diag([1.0, 1.0, 1e-4])] * 2)
    rows = observations(mixture.sample(60, rng=rng)[0] + sd * rng.normal(size=(60, 3)), error_sd=sd)
    priors, model = bg.Priors.weakly_informative(rows, 2), CovarianceModel.named(name)
    density = Density(rows, mean_and_covariance(rows)[0], priors, model)
    flat = 1e-12 * np.eye(3) if name == "EII" else np.diag([1.0, 1.0, 1e-12])
    border = bg.GaussianMixture(mixture.weights, mixture.means, [flat] * 2)
    start = start_near(density, border)
    np.testing.assert_array_less(0.01, np.linalg.eigvalsh(density.unpack(start).covariances))
    mode = find_mode(density, start)
    assert np.abs(mode.factor.T @ density(mode.origin)[1]).max() < 0.02
    inside = density.unpack(mode.origin)
    np.testing.assert_array_equal(start_near(density, inside), density.pack(inside))


@pytest.mark.statistical
def test_laplace_draws_are_near_nuts(laplace_posterior, faithful_posterior):
    """Within 0.2 sds; the four differences have errors of about 0.02 sds, and after correction of 0.03."""
    laplace = laplace_posterior
    assert set(laplace.children) == set(faithful_posterior.children)
    a, b = (tree["posterior"]["means"] for tree in (laplace, faithful_posterior))
    sd = b.std(("chain", "draw"))
    assert float((np.abs(a.mean(("chain", "draw")) - b.mean(("chain", "draw"))) / sd).max()) < 0.2
    weight = np.exp(laplace["sample_stats"]["log_importance_weight"].values)
    corrected = (weight[..., None, None] * a.values).sum(axis=(0, 1)) / weight.sum()
    assert float((np.abs(corrected - b.mean(("chain", "draw"))) / sd).max()) < 0.2


@pytest.mark.statistical
def test_laplace_says_whether_it_is_good():
    """Of many rows, and of few: their Pareto k are 0.2 and 2.2, more than six of their sds from the bound of 0.7."""
    many = np.tile(table("old_faithful"), (8, 1))
    tree = bg.sample_posterior(many, bg.fit_em(many, 2, rng=0), method="laplace", rng=seed())
    assert tree.attrs["convergence"].startswith("Laplace's approximation is good")
    few = np.array([-2.1, -1.4, -1.0, -0.2, 0.3, 1.2, 1.9, 2.2])[:, None]
    priors = bg.Priors(1.0, bg.NormalMeans([0.0], [4.3]), bg.InverseWishart(3, [[1.0]]))
    with pytest.warns(bg.ConvergenceWarning, match="not to be trusted"):
        bg.sample_posterior(few, bg.fit_em(few, 2, "V", priors=priors), priors, method="laplace", rng=seed())
