"""Laws of the log posterior density and of its coordinates."""

import numpy as np
import pytest
from oracles import density_of, table
from scipy import stats

import bayesgmm as bg
from bayesgmm.bayes.density import Density
from bayesgmm.covariance import CovarianceModel
from bayesgmm.observations import observations


def test_inverse_wishart_has_scipys_density():
    """With one component, differences of the density are those of likelihood times prior times Jacobian."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 2))
    fit = bg.fit_em(X, 1)
    prior = bg.Priors(
        np.ones(1), bg.NormalMeans([0.0, 1.0], [2.0, 3.0]), bg.InverseWishart(5.0, [[2.0, 0.5], [0.5, 1.0]])
    )
    density = density_of(X, fit, prior)

    def direct(theta):
        m = density.unpack(theta)
        mean, covariance = m.means[0], m.covariances[0]
        value = stats.multivariate_normal(mean, covariance).logpdf(X).sum()
        value += stats.norm(prior.means.location, prior.means.scale).logpdf(mean).sum()
        value += stats.invwishart(5.0, prior.covariances.scale).logpdf(covariance)
        entries = np.triu_indices(2)
        J = [
            (
                density.unpack(theta + 1e-6 * e).covariances[0][entries]
                - density.unpack(theta - 1e-6 * e).covariances[0][entries]
            )
            / 2e-6
            for e in np.eye(5)[2:]
        ]
        return value + np.linalg.slogdet(np.array(J))[1]

    points = [density.pack(fit.mixture) + 0.2 * rng.normal(size=5) for _ in range(4)]
    offsets = [direct(p) - density(p)[0] for p in points]
    assert np.ptp(offsets) < 1e-6


@pytest.mark.parametrize("name", ["VVV", "EEE", "VEE", "VVI", "EVI", "VII"])  # EVV's shapes depend on the axes
def test_other_axes_and_units_change_the_default_posterior_by_the_jacobian_only(name):
    """After X A + b the density at the mapped mixture is |det A|^-N times the old one, over the Jacobian."""
    X, rng = table("iris")[:, :3], np.random.default_rng(3)
    model, b = CovarianceModel.named(name), np.array([5.0, 0.0, -1.0])
    A = (
        rng.normal(size=(3, 3))
        if not model.diagonal
        else np.diag([10.0, -0.2, 3.0])
        if name != "VII"
        else 7 * np.eye(3)
    )
    one, other = (
        Density(observations(rows), rows.mean(axis=0), bg.Priors.weakly_informative(rows, 3), model)
        for rows in (X, X @ A + b)
    )

    def mapped(theta):
        m = one.unpack(theta)
        return other.pack(bg.GaussianMixture(m.weights, m.means @ A + b, A.T @ m.covariances @ A))

    theta = one.pack(bg.fit_em(X, 3, name, rng=0).mixture)
    theta = theta + 0.1 * rng.normal(size=theta.size)
    h = 1e-5
    J = [(mapped(theta + h * e) - mapped(theta - h * e)) / (2 * h) for e in np.eye(theta.size)]
    expected = one(theta)[0] + one.log_constant - len(X) * np.linalg.slogdet(A)[1] - np.linalg.slogdet(np.array(J))[1]
    assert abs(other(mapped(theta))[0] + other.log_constant - expected) < 1e-5


def test_densities_of_many_points_are_those_of_each(faithful_fit):
    X = table("old_faithful")
    density = density_of(X, faithful_fit, bg.Priors.weakly_informative(X, 2))
    thetas = density.pack(faithful_fit.mixture) + 0.1 * np.random.default_rng(0).normal(size=(3, 7, density.n_dim))
    each = [[density(theta)[0] for theta in row] for row in thetas]
    np.testing.assert_array_equal(density.log_densities(thetas), each)
    assert density.log_densities(thetas[:, :0]).shape == (3, 0)
