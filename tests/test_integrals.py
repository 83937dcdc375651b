"""What the estimates of the evidence are made of."""

import numpy as np
from oracles import seed

import bayesgmm as bg
from bayesgmm.bayes import integrals

APART = np.array([-3.0, -2.5, -2.0, -2.2, 2.0, 2.3, 2.9, 3.1, 2.5])[:, None]


def drawn(X, K, covariance, priors, rng=0, **options):
    fit = bg.fit_em(X, K, covariance, priors=priors, rng=0)
    return bg.sample_posterior(X, fit, priors, rng=seed(rng), **options)


def test_tiny_weights_keep_their_coordinates():
    priors = bg.Priors([0.02, 0.02], bg.NormalMeans([0.2], [2.0]), bg.InverseWishart(3, [[1.0]]))
    density = bg.posterior(drawn(APART, 2, "V", priors, draws=20, tune=100, chains=1)).density
    theta = density.pack(bg.GaussianMixture([0.5, 0.5], [[0.0], [1.0]], [[[1.0]], [[1.0]]]))
    theta[0] = -40.0
    np.testing.assert_allclose(integrals.coordinates(density, density.unpack(theta)), theta)
