"""The mode of the posterior and the curvature there."""

import numpy as np
from oracles import density_of, table

import bayesgmm as bg
from bayesgmm.bayes.laplace import find_mode, hessian


def test_mode_is_a_maximum_with_negative_curvature(faithful_fit):
    X, fit = table("old_faithful"), faithful_fit
    density = density_of(X, fit, bg.Priors.weakly_informative(X, 2))
    mode = find_mode(density, density.pack(fit.mixture))
    value, gradient = density(mode.origin)
    assert value >= density(density.pack(fit.mixture))[0]
    assert np.abs(mode.factor.T @ gradient).max() < 0.02
    H = hessian(density.whitened(mode.origin, mode.factor), np.zeros(density.n_dim), np.full(density.n_dim, 1e-3))
    np.testing.assert_allclose(H, -np.eye(density.n_dim), atol=0.05)
