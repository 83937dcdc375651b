"""Laws of the log posterior density and of its coordinates."""

from dataclasses import replace

import numpy as np
import pytest
from oracles import IMPERFECTIONS, covariance_prior, density_of, imperfect, random_mixture, table
from scipy import stats

import bayesgmm as bg
from bayesgmm.bayes.density import Density
from bayesgmm.covariance import CovarianceModel
from bayesgmm.em.initialize import mean_and_covariance
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

    theta = one.pack(bg.fit_em(X, 3, name, starts=[np.arange(150) // 50]).mixture)
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


def density_of_table(rows, name="VVV", K=2, kind="hierarchical"):
    center, spread = mean_and_covariance(rows)
    priors = bg.Priors(
        np.linspace(1, 2, K), bg.NormalMeans(center, covariance=9 * spread), covariance_prior(kind, spread)
    )
    return Density(rows, center, priors, CovarianceModel.named(name))


def near(density, mixture, rng, size=0.1):
    """Coordinates near those of a mixture that has the covariances of one component only."""
    S = np.broadcast_to(mixture.covariances[0] * np.eye(density.priors.n_features), mixture.covariances.shape)
    theta = density.pack(bg.GaussianMixture(mixture.weights, mixture.means, S))
    return theta + size * rng.normal(size=theta.size)


@pytest.mark.parametrize("left_out", [False, True])
@pytest.mark.parametrize("kind", IMPERFECTIONS)
@pytest.mark.parametrize("name", ["VVV", "EEE", "VVI", "VEV"])
def test_gradient_of_an_imperfect_table_equals_finite_differences(name, kind, left_out):
    rng = np.random.default_rng(len(name + kind))
    mixture = random_mixture(rng, 2, 3)
    rows = imperfect(mixture.sample(30, rng=rng)[0], kind, rng)
    density = density_of_table(rows, name)
    if left_out:
        density = replace(density, left_out=np.array([7, 3, 12]), log_odds=np.array([-6.0, -1.0, -5.0]))
    theta, h = near(density, mixture, rng), 1e-6
    numeric = [(density(theta + h * e)[0] - density(theta - h * e)[0]) / (2 * h) for e in np.eye(theta.size)]
    gradient = density(theta)[1]
    np.testing.assert_allclose(gradient, numeric, rtol=1e-6, atol=1e-7 * np.abs(gradient).max())


@pytest.mark.parametrize("kind", IMPERFECTIONS)
@pytest.mark.parametrize("name", ["VVV", "VII"])
def test_between_tables_the_density_differs_by_their_likelihoods(name, kind):
    """So the prior and the constant know nothing of holes and errors; the likelihood is that of the marginals."""
    rng = np.random.default_rng(1)
    mixture = random_mixture(rng, 2, 3)
    X = mixture.sample(40, rng=rng)[0]
    plain = density_of_table(observations(X), name)
    rows = imperfect(X, kind, rng)
    density = replace(plain, table=rows)
    assert density.log_constant == plain.log_constant
    for _ in range(3):
        theta = near(density, mixture, rng)
        at = density.unpack(theta)
        difference = at.log_likelihood(rows) - at.log_likelihood(X)
        assert density(theta)[0] - plain(theta)[0] == pytest.approx(difference, rel=1e-10, abs=1e-9)


def test_leaving_imperfect_rows_out_multiplies_by_the_sum_of_their_odds():
    rng = np.random.default_rng(2)
    mixture = random_mixture(rng, 2, 3)
    rows = imperfect(mixture.sample(40, rng=rng)[0], "holes and correlated errors", rng)
    plain, some, log_odds = density_of_table(rows), np.array([20, 3, 5]), rng.normal(-5.0, 1.0, 3)
    density = replace(plain, left_out=some, log_odds=log_odds)
    theta = near(plain, mixture, rng)
    factor = np.exp(log_odds - plain.unpack(theta).log_prob(rows)[some]).sum()
    assert density(theta)[0] - plain(theta)[0] == pytest.approx(np.log(factor), rel=1e-10)


def test_a_constant_error_is_a_wider_component():
    """The likelihood of exact rows under covariances + S, at each point; priors are of the true values."""
    rng, S = np.random.default_rng(3), np.diag([0.3, 0.1, 0.5])
    mixture = random_mixture(rng, 2, 3)
    X = mixture.sample(50, rng=rng)[0]
    plain = density_of_table(observations(X))
    density = replace(plain, table=observations(X, error_covariance=S))
    theta = near(plain, mixture, rng)
    at = plain.unpack(theta)
    wider = bg.GaussianMixture(at.weights, at.means, at.covariances + S)
    difference = wider.log_likelihood(X) - at.log_likelihood(X)
    assert density(theta)[0] - plain(theta)[0] == pytest.approx(difference, rel=1e-10)


@pytest.mark.parametrize("name", ["VVV", "EEI"])
def test_a_hole_is_an_error_without_bound(name):
    """But for the density of what was measured, which no longer depends on the mixture."""
    rng, sd = np.random.default_rng(4), 1e7
    mixture = random_mixture(rng, 2, 3)
    X = mixture.sample(50, rng=rng)[0]
    rows = imperfect(X, "holes", rng)
    missing = density_of_table(rows, name)
    vague = replace(missing, table=observations(X, error_sd=np.where(rows.missing, sd, 0.0)))
    of_measured = -rows.missing.sum() * (np.log(sd) + 0.5 * np.log(2 * np.pi))
    for _ in range(3):
        theta = near(missing, mixture, rng)
        (value, gradient), (other, other_gradient) = missing(theta), vague(theta)
        assert other - of_measured == pytest.approx(value, abs=1e-7)
        np.testing.assert_allclose(other_gradient, gradient, atol=1e-5)


def test_rows_without_values_change_nothing():
    rng = np.random.default_rng(5)
    mixture = random_mixture(rng, 2, 3)
    rows = imperfect(mixture.sample(40, rng=rng)[0], "holes", rng)
    density = density_of_table(rows)
    more = observations(np.insert(rows.values, [0, 7, 40], np.nan, axis=0))
    theta = near(density, mixture, rng)
    for part, other in zip(density(theta), replace(density, table=more)(theta), strict=True):
        np.testing.assert_array_equal(part, other)
