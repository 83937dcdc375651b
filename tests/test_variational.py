"""The mean-field approximation: against closed forms, another library's fixed point, and NUTS."""

import numpy as np
import pytest
from oracles import deviation_allowed, errors_allowed, seed, table
from scipy import stats

import bayesgmm as bg
from bayesgmm.bayes.density import Density
from bayesgmm.bayes.gibbs import DIAGONAL, FULL, SPHERICAL
from bayesgmm.bayes.variational import PrecisionFactor, mean_field
from bayesgmm.em.initialize import mean_and_covariance
from bayesgmm.observations import observations

MODELS = ("EII", "VII", "EEI", "VVI", "EEE", "VVV")


def density_of(X, fit, priors=None):
    rows = observations(X)
    priors = priors or bg.Priors.weakly_informative(X, fit.n_components)
    return Density(rows, mean_and_covariance(rows)[0], priors, fit.covariance_model)


@pytest.mark.parametrize("model", MODELS)
def test_the_fixed_point_is_one(model):
    """Going round again from where it ended changes nothing, though the first responsibilities are others."""
    X = table("old_faithful")
    fit = bg.fit_em(X, 2, model, rng=0)
    density = density_of(X, fit)
    found = mean_field(density, fit.mixture)
    other = bg.GaussianMixture([0.5, 0.5], fit.mixture.means + 0.1, 1.3 * fit.mixture.covariances)
    again = mean_field(density, other)
    assert found.settled
    assert again.settled
    np.testing.assert_allclose(found.means, again.means, rtol=1e-5)
    np.testing.assert_allclose(found.precisions.mean, again.precisions.mean, rtol=1e-4, atol=1e-8)
    assert found.concentration.sum() == pytest.approx(len(X) + 2)


def test_one_component_of_known_scale_has_the_fixed_point_of_its_two_factors():
    """With one component: q(mean) and q(precision) given each other (Bishop 2006, section 10.1.3), solved directly."""
    rng = np.random.default_rng(3)
    X = rng.normal(2.0, 1.5, size=(9, 1))
    priors = bg.Priors(1.0, bg.NormalMeans([0.0], [3.0]), bg.InverseWishart(3.0, [[2.0]]))
    fit = bg.fit_em(X, 1, "V")
    found = mean_field(density_of(X, fit, priors), fit.mixture)
    expected = 1.0
    for _ in range(500):
        precision = 1 / 9 + len(X) * expected
        mean = expected * X.sum() / precision
        expected = (3.0 + len(X)) / (2.0 + ((X - mean) ** 2).sum() + len(X) / precision)
    assert found.means[0, 0] == pytest.approx(mean, rel=1e-6)
    assert found.mean_covariances[0, 0, 0] == pytest.approx(1 / precision, rel=1e-6)
    assert found.precisions.mean[0, 0, 0] == pytest.approx(expected, rel=1e-6)


def test_one_component_of_an_imperfect_column_has_the_fixed_point_of_its_factors():
    """As above, with a factor of the true values: normal, given the errors and the other two factors."""
    rng = np.random.default_rng(3)
    X, sd = rng.normal(2.0, 1.5, size=(9, 1)), rng.uniform(0.1, 1.0, size=(9, 1))
    priors = bg.Priors(1.0, bg.NormalMeans([0.0], [3.0]), bg.InverseWishart(3.0, [[2.0]]))
    rows = observations(np.append(X, [[np.nan]], axis=0), error_sd=np.append(sd, [[1.0]], axis=0))
    fit = bg.fit_em(rows, 1, "V")
    found = mean_field(Density(rows, np.zeros(1), priors, fit.covariance_model), fit.mixture)
    mean, expected = 0.0, 1.0
    for _ in range(5000):
        spread = 1 / (expected + 1 / sd**2)
        true = spread * (expected * mean + X / sd**2)
        precision = 1 / 9 + len(X) * expected
        mean = expected * true.sum() / precision
        expected = (3.0 + len(X)) / (2.0 + ((true - mean) ** 2 + spread).sum() + len(X) / precision)
    assert found.means[0, 0] == pytest.approx(mean, rel=1e-5)
    assert found.mean_covariances[0, 0, 0] == pytest.approx(1 / precision, rel=1e-5)
    assert found.precisions.mean[0, 0, 0] == pytest.approx(expected, rel=1e-5)


def test_a_missing_value_is_one_with_an_error_without_bound():
    """Of the approximation, too, in which what is missing has a factor of its own."""
    rng = np.random.default_rng(5)
    X = table("old_faithful")
    gone = rng.random(X.shape) < 0.1
    gone[gone.all(axis=1)] = False
    missing = observations(np.where(gone, np.nan, X))
    vague = observations(X, error_sd=np.where(gone, 1e7, 0.0))
    fit = bg.fit_em(missing, 2, rng=0)
    priors, center = bg.Priors.weakly_informative(missing, 2), mean_and_covariance(missing)[0]
    one, other = (
        mean_field(Density(rows, center, priors, fit.covariance_model), fit.mixture) for rows in (missing, vague)
    )
    np.testing.assert_allclose(one.means, other.means, rtol=1e-6)
    np.testing.assert_allclose(one.concentration, other.concentration, rtol=1e-6)
    np.testing.assert_allclose(one.precisions.scatter, other.precisions.scatter, rtol=1e-4)


@pytest.mark.parametrize("structure", [FULL, DIAGONAL, SPHERICAL])
def test_log_densities_are_those_of_the_wishart_in_these_coordinates(structure):
    """Differences between two points, by scipy's density times the Jacobian by finite differences."""
    rng = np.random.default_rng(1)
    D, df = 3, 7.0
    A = rng.normal(size=(D, D))
    scatter = A @ A.T + np.eye(D)
    if structure == DIAGONAL:
        scatter = np.diag(np.diag(scatter))
    elif structure == SPHERICAL:
        scatter = np.diag([2.5, 0.0, 0.0])
    factor = PrecisionFactor(structure, np.array([df]), scatter[None])

    def matrix(theta):
        """The factor P of coordinates: log squares, then entries above the diagonal."""
        P = np.diag(np.exp(theta[:D] / 2)) if structure != SPHERICAL else np.exp(theta[0] / 2) * np.eye(D)
        if structure == FULL:
            P[np.triu_indices(D, 1)] = theta[D:]
        return P

    n = {FULL: D + D * (D - 1) // 2, DIAGONAL: D, SPHERICAL: 1}[structure]

    def reference(theta):
        if structure != FULL:
            sizes = factor.sizes[0, :n]
            squares = np.exp(theta)
            return (stats.chi2.logpdf(squares * sizes, df) + np.log(sizes) + theta).sum()
        P = matrix(theta)
        step, rows = 1e-6, np.triu_indices(D)
        jacobian = [((matrix(theta + step * e) @ matrix(theta + step * e).T - P @ P.T) / step)[rows] for e in np.eye(n)]
        return stats.wishart.logpdf(P @ P.T, df, np.linalg.inv(scatter)) + np.linalg.slogdet(jacobian)[1]

    points = rng.normal(scale=0.4, size=(5, n))
    found = factor.log_density(np.stack([matrix(theta) for theta in points])[:, None])
    expected = np.array([reference(theta) for theta in points])
    np.testing.assert_allclose(found - found[0], expected - expected[0], atol=1e-4)


@pytest.mark.statistical
@pytest.mark.parametrize("structure", [FULL, DIAGONAL, SPHERICAL])
def test_drawn_precisions_have_their_expectation(structure):
    scatter = np.array([[[2.0, 0.6], [0.6, 1.0]]])
    if structure != FULL:
        scatter = np.array([[[2.0, 0.0], [0.0, 1.0 if structure == DIAGONAL else 0.0]]])
    factor = PrecisionFactor(structure, np.array([6.0]), scatter)
    P = factor.draw((20_000,), np.random.default_rng(seed()))[:, 0]
    precisions = P @ np.swapaxes(P, -1, -2)
    error = precisions.std(axis=0) / np.sqrt(len(P))
    off = np.abs(precisions.mean(axis=0) - factor.mean[0])
    assert (off <= errors_allowed(comparisons=4) * error + 1e-12).all(), (off, error)
    log_det = np.linalg.slogdet(precisions)[1]
    allowed = errors_allowed() * log_det.std() / np.sqrt(len(P))
    assert abs(log_det.mean() - factor.mean_log_determinant[0]) < allowed


@pytest.mark.statistical
def test_draws_that_are_trusted_are_those_of_the_posterior(faithful_fit, faithful_posterior):
    """The mean-field means alone are 4 % too narrow here; means within 0.15 sds, shares of intervals as they should."""
    X = table("old_faithful")
    tree = bg.sample_posterior(X, faithful_fit, method="variational", rng=seed())
    assert bg.posterior(tree).verdict.convergence is bg.Convergence.APPROXIMATION_GOOD, tree.attrs["convergence"]
    a, b = bg.as_mixture(tree), bg.as_mixture(faithful_posterior)
    for name in ("weights", "means"):
        drawn, exact = (getattr(m, name).reshape(4000, -1) for m in (a, b))
        assert (np.abs(drawn.mean(axis=0) - exact.mean(axis=0)) / exact.std(axis=0)).max() < 0.15, name
        below = (drawn < np.quantile(exact, 0.9, axis=0)).mean(axis=0)
        # both samples are worth a thousand independent draws at least
        assert np.abs(below - 0.9).max() < 2 * deviation_allowed(0.9, 1000, comparisons=12), (name, below)


def test_where_modes_overlap_it_says_that_it_is_not_to_be_trusted():
    """Three components of iris: its sds of the means would be half of NUTS'."""
    X = table("iris")
    with pytest.warns(bg.ConvergenceWarning, match="The variational approximation is not to be trusted"):
        tree = bg.sample_posterior(X, bg.fit_em(X, 3, rng=0), method="variational", rng=0)
    assert bg.posterior(tree).sampling.approximate
    assert "log_importance_weight" in tree["sample_stats"]
    with pytest.raises(bg.InputError, match="which these are not: The variational approximation is not to be trusted"):
        bg.loo(tree)


def test_what_has_no_conjugate_factors_is_refused(faithful_fit):
    X = table("old_faithful")
    with pytest.raises(bg.InputError, match="covariance EII, VII, EEI, VVI, EEE, VVV, not VEI"):
        bg.sample_posterior(X, bg.fit_em(X, 2, "VEI", rng=0), method="variational", rng=0)
    lkj = bg.Priors(1.0, bg.NormalMeans([3.5, 70.0], [5.0, 60.0]), bg.LKJ(2.0, bg.HalfNormal([1.0, 10.0])))
    with pytest.raises(bg.InputError, match="needs inverse-Wishart covariances, known or hierarchical, not LKJ"):
        bg.sample_posterior(X, faithful_fit, lkj, method="variational", rng=0)
