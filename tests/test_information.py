"""Laws of the standard errors and the bootstrap of an EM fit."""

import numpy as np
import pytest
from oracles import random_mixture, reference, table

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
    replicates = bg.bootstrap(fit, X, method="parametric", n_replicates=300, rng=3).standard_errors()
    for part in ("weights", "means", "covariances"):
        ours, theirs = getattr(errors, part), replicates[part]
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


def test_diabetes_bootstrap_is_mclusts():
    """mclust's 999 replicates, to 15 %."""
    X, theirs = table("diabetes_fixed"), reference("diabetes_bootstrap.json")["bootstrap_se"]
    ours = bg.bootstrap(bg.fit_em(X, 3, rng=0), X, rng=0)
    assert ours.mixture.batch_shape == (999 - ours.n_collapsed,)
    np.testing.assert_allclose(ours.standard_errors()["weights"], theirs["weights"], rtol=0.15)
    np.testing.assert_allclose(ours.standard_errors()["means"], theirs["means"], rtol=0.15)


@pytest.mark.parametrize("method", ["nonparametric", "weighted", "parametric"])
def test_every_method_estimates_the_same_error(method):
    """Of the means of Old Faithful, to 15 % of the information's."""
    X = table("old_faithful")
    fit = bg.fit_em(X, 2, rng=0)
    calls = []
    result = bg.bootstrap(fit, X, method=method, n_replicates=400, rng=1, progress=lambda *a: calls.append(a))
    np.testing.assert_allclose(result.standard_errors()["means"], fit.standard_errors(X).means, rtol=0.15)
    lower, upper = result.intervals()["means"]
    assert ((lower < fit.mixture.means) & (fit.mixture.means < upper)).all()
    assert calls[-1] == (400, 400)


def test_likelihood_ratio_test_finds_two_eruption_types():
    X = table("old_faithful")
    test = bg.bootstrap_lrt(X, 1, n_replicates=39, rng=0)
    gain = bg.fit_em(X, 2, rng=0).log_likelihood - bg.fit_em(X, 1).log_likelihood
    assert test.statistic == pytest.approx(2 * gain, abs=1e-3)
    assert test.p_value == pytest.approx(1 / 40)
    assert (test.replicates > 0).all()


def test_p_values_of_a_single_normal_are_uniform():
    """Their mean over 20 tables, to three standard errors of a uniform variable's."""
    rng = np.random.default_rng(5)
    p = [
        bg.bootstrap_lrt(rng.normal(size=(60, 2)), 1, "tied", n_replicates=19, n_starts=6, rng=rng).p_value
        for _ in range(20)
    ]
    assert abs(np.mean(p) - 0.525) < 3 / np.sqrt(12 * 20)


def test_what_cannot_be_computed_is_refused():
    X = table("old_faithful")
    fit = bg.fit_em(X, 3, rng=0, max_iterations=1)
    with pytest.raises(bg.InputError, match="not positive definite"):
        fit.standard_errors(X)
    with pytest.raises(bg.InputError, match="unknown method"):
        bg.bootstrap(fit, X, method="jackknife")
    with pytest.raises(bg.InputError, match="4 columns"):
        fit.standard_errors(table("iris"))
    with pytest.raises(bg.InputError, match="100 rows, the fit 272"):
        bg.bootstrap(fit, X[:100])
    for given in ({"labels": np.full(272, -1)}, {"fixed": {"weights": [0.5, 0.5]}}):
        partial = bg.fit_em(X, 2, rng=0, **given)
        for use in (lambda f: f.standard_errors(X), lambda f: bg.bootstrap(f, X), lambda f: bg.sample_posterior(X, f)):
            with pytest.raises(bg.InputError, match="cannot take account of"):
                use(partial)
