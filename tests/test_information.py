"""Laws of the standard errors that the observed information gives."""

import numpy as np
import pytest
from oracles import random_mixture, table

import bayesgmm as bg
from bayesgmm.covariance import NAMES


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
