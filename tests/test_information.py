"""Laws of the standard errors that the observed information gives."""

import numpy as np
import pytest
from oracles import random_mixture, table

import bayesgmm as bg
from bayesgmm.covariance import NAMES
from bayesgmm.em.information import FreeParameters, curvature, request_of
from bayesgmm.observations import observations
from bayesgmm.passes import InMemory


def test_one_component_has_the_closed_form():
    X = table("iris")
    fit = bg.fit_em(X, 1)
    errors = fit.standard_errors(X)
    S, N = np.cov(X.T, bias=True), len(X)
    np.testing.assert_allclose(errors.means[0], np.sqrt(np.diag(S) / N), rtol=1e-6)
    variances = np.outer(np.diag(S), np.diag(S)) + S**2
    np.testing.assert_allclose(errors.covariances[0], np.sqrt(variances / N), rtol=1e-5)
    assert errors.weights == pytest.approx(0)


@pytest.mark.parametrize("name", NAMES)
def test_information_agrees_with_the_parametric_bootstrap(name):
    """On a large table drawn from the model; 300 replicates know an sd to 4 %, 15 % are nearly four of these."""
    rng = np.random.default_rng(1)
    X, _ = random_mixture(rng, 2, 3).sample(500, rng=rng)
    X = bg.fit_em(X, 2, name, rng=0).mixture.sample(2000, rng=2)[0]
    fit = bg.fit_em(X, 2, name, rng=0, tolerance=1e-9)
    errors = fit.standard_errors(X)
    replicates = bg.bootstrap(X, fit, method="parametric", n_replicates=300, rng=3).standard_errors()
    for part in ("weights", "means", "covariances"):
        ours, theirs = getattr(errors, part), getattr(replicates, part)
        np.testing.assert_allclose(ours, theirs, rtol=0.16, atol=0.03 * theirs.max())


def test_weights_in_the_information_are_duplicated_rows():
    X = table("old_faithful")
    weight = np.random.default_rng(0).integers(0, 3, size=len(X))
    weighted = bg.fit_em(X, 2, sample_weight=weight, rng=0, tolerance=1e-10)
    repeated = np.repeat(X, weight, axis=0)
    again = bg.fit_em(repeated, 2, starts=[weighted.mixture], tolerance=1e-10)
    a, b = weighted.standard_errors(X, weight), again.standard_errors(repeated)
    np.testing.assert_allclose(a.means, b.means, rtol=1e-4)
    np.testing.assert_allclose(a.covariances, b.covariances, rtol=1e-4)


def test_standard_errors_are_the_roots_of_the_covariance_matrix():
    X = table("old_faithful")
    fit = bg.fit_em(X, 2, rng=0)
    for errors in (fit.standard_errors(X), bg.bootstrap(X, fit, n_replicates=50, rng=0).standard_errors()):
        flat = np.concatenate([errors.weights, errors.means.ravel(), errors.covariances.ravel()])
        np.testing.assert_allclose(np.sqrt(np.diag(errors.covariance_matrix)), flat, rtol=1e-12)
        np.testing.assert_allclose(errors.covariance_matrix[:2, :2].sum(), 0, atol=1e-12)  # the weights sum to one


def test_a_fit_that_is_not_at_a_maximum_has_no_standard_errors():
    X = table("old_faithful")
    fit = bg.fit_em(X, 3, starts=[np.arange(len(X)) % 3], max_iterations=1)  # near a saddle
    with pytest.raises(bg.InputError, match="not positive definite"):
        fit.standard_errors(X)
    with pytest.raises(bg.InputError, match="4 columns"):
        fit.standard_errors(table("iris"))


@pytest.mark.parametrize("name", NAMES)
def test_information_of_one_pass_is_the_derivative_of_the_score(name):
    """Central differences of the kernel's score, extrapolated to a step of zero; at a maximum and away from it."""
    rng = np.random.default_rng(4)
    X = observations(random_mixture(rng, 3, 3).sample(400, rng=rng)[0])
    fit = bg.fit_em(X, 3, name, rng=0, max_iterations=4, tolerance=1e-3)
    free, center = FreeParameters(fit.mixture, fit.covariance_model), fit.mixture.mean
    passes = InMemory(X.rows(center))

    def score(phi):
        statistics = passes.totals([request_of(free.mixture(phi), center)])[0].statistics
        return free.gradient(phi, statistics, X.total_weight)

    def quotient(h):
        return np.array([(score(h * e) - score(-h * e)) / (2 * h) for e in np.eye(free.size)])

    expected = -(4 * quotient(1e-5) - quotient(2e-5)) / 3
    np.testing.assert_allclose(curvature(free, center, X), expected, rtol=1e-5, atol=1e-8 * np.abs(expected).max())


@pytest.mark.parametrize("weighted", [False, True])
def test_products_of_scores_are_those_of_each_row(weighted):
    X = table("iris")
    weight = np.random.default_rng(0).integers(0, 3, size=len(X)) if weighted else np.ones(len(X))
    fit = bg.fit_em(X, 2, sample_weight=weight, rng=0, tolerance=1e-10)
    free, center = FreeParameters(fit.mixture, fit.covariance_model), fit.mixture.mean
    scores = []
    for row in X:
        alone = InMemory(observations(np.tile(row, (2, 1)), may_be_constant=True).rows(center))
        statistics = alone.totals([request_of(fit.mixture, center)])[0].statistics
        scores.append(free.gradient(np.zeros(free.size), statistics, 2.0) / 2)
    J, H = (np.array(scores).T * weight) @ scores, curvature(free, center, observations(X, weight))
    root = np.linalg.solve(H, free.jacobian.T)
    errors = fit.standard_errors(X, weight, robust=True)
    np.testing.assert_allclose(errors.covariance_matrix, root.T @ J @ root, rtol=1e-6, atol=1e-9)


def test_robust_errors_of_one_component_have_the_closed_form():
    """Those of the mean are any distribution's; those of the variance need its fourth moment."""
    X = np.random.default_rng(0).standard_t(6, size=(500, 1))
    errors, normal = (bg.fit_em(X, 1).standard_errors(X, robust=robust) for robust in (True, False))
    x = X[:, 0] - X.mean()
    assert errors.means[0, 0] == pytest.approx(x.std() / np.sqrt(500), rel=1e-10)
    assert errors.covariances[0, 0, 0] == pytest.approx((x**2).std() / np.sqrt(500), rel=1e-10)
    assert normal.covariances[0, 0, 0] == pytest.approx(np.sqrt(2 / 500) * x.var(), rel=1e-10)


@pytest.mark.parametrize("robust", [False, True])
def test_standard_errors_of_a_file_are_those_of_its_rows_in_memory(tmp_path, robust):
    X = random_mixture(np.random.default_rng(3), 3, 2).sample(20_000, rng=3)[0]
    np.save(tmp_path / "rows.npy", X)
    np.save(tmp_path / "others.npy", X + 1)
    fit = bg.fit_em(tmp_path / "rows.npy", 3, rng=0)
    of_file = fit.standard_errors(tmp_path / "rows.npy", robust=robust)
    in_memory = fit.standard_errors(X, robust=robust)
    for part in ("weights", "means", "covariances"):
        np.testing.assert_array_equal(getattr(of_file, part), getattr(in_memory, part))
    with pytest.raises(bg.InputError, match="another table than was fitted"):
        fit.standard_errors(tmp_path / "others.npy", robust=robust)
    with pytest.raises(bg.InputError, match="sample_weight cannot be given"):
        fit.standard_errors(tmp_path / "rows.npy", np.ones(20_000), robust=robust)


def test_robust_errors_need_complete_rows():
    X = table("old_faithful").copy()
    X[3, 0] = np.nan
    with pytest.raises(bg.InputError, match=r"robust .* bootstrap"):
        bg.fit_em(X, 2, rng=0).standard_errors(X, robust=True)
