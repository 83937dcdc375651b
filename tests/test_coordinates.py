"""The free coordinates of weights and covariances: there and back."""

import numpy as np
import pytest
from oracles import COORDINATE_CASES, covariance_prior

import bayesgmm as bg
from bayesgmm.bayes.coordinates import log_ratios, proportions
from bayesgmm.bayes.density import Density
from bayesgmm.covariance import CovarianceModel
from bayesgmm.observations import observations


@pytest.mark.parametrize(("name", "K", "D", "kind"), COORDINATE_CASES)
def test_coordinates_go_there_and_back(name, K, D, kind):
    """And so they do for draws from the prior, which are of the covariance model."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, D))
    priors = bg.Priors(1.0, bg.NormalMeans(np.zeros(D), np.ones(D)), covariance_prior(kind, np.eye(D) + 0.5))
    drawn = priors.sample(5, K, name, rng=rng)
    density = Density(observations(X), np.zeros(D), priors.for_components(K), CovarianceModel.named(name))
    thetas = density.pack(drawn)
    assert thetas.shape == (5, density.n_dim)
    assert np.isfinite(density.log_densities(thetas)).all()
    back = density.unpack(thetas)
    np.testing.assert_allclose(back.covariances, drawn.covariances, rtol=1e-6)
    np.testing.assert_allclose(back.weights, drawn.weights, rtol=1e-8)


def test_log_ratios_go_there_and_back():
    weights = np.random.default_rng(0).dirichlet([0.5, 1.0, 2.0, 3.0], size=(3, 5))
    ratios = log_ratios(weights)
    assert ratios.shape == (3, 5, 3)
    np.testing.assert_allclose(proportions(ratios), weights, rtol=1e-12)
    assert np.isfinite(log_ratios(np.array([1.0, 0.0]))).all()
