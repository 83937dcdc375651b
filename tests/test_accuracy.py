"""How exact EM is: against 50 digits on a benign table, and with stated bounds on hard ones."""

from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from oracles import random_mixture, table

import bayesgmm as bg


def decimal(value):
    return Decimal(value.numerator) / Decimal(value.denominator)


def exact_log_likelihood(mixture, X):
    """Log-likelihood of two features to 50 digits: exact quadratic forms, decimal logarithms and exponentials."""
    two_pi = Decimal("6.28318530717958647692528676655900576839433879875021164194989")
    components = []
    for w, mean, S in zip(mixture.weights.tolist(), mixture.means.tolist(), mixture.covariances.tolist(), strict=True):
        a, b, d = Fraction(S[0][0]), Fraction(S[0][1]), Fraction(S[1][1])
        determinant = a * d - b * b
        scale = Decimal(w) / (two_pi * decimal(determinant).sqrt())
        components.append((scale, [Fraction(m) for m in mean], a, b, d, determinant))
    total = Decimal(0)
    for row in X.tolist():
        density = Decimal(0)
        for scale, mean, a, b, d, determinant in components:
            u, v = Fraction(row[0]) - mean[0], Fraction(row[1]) - mean[1]
            density += scale * (-decimal((d * u * u - 2 * b * u * v + a * v * v) / (2 * determinant))).exp()
        total += density.ln()
    return total


def test_log_likelihood_agrees_with_fifty_digits():
    X = table("old_faithful")
    fit = bg.fit_em(X, 3, "tied", rng=0)
    with localcontext() as context:
        context.prec = 50
        exact = exact_log_likelihood(fit.mixture, X)
    assert abs(float((Decimal(fit.log_likelihood) - exact) / exact)) < 1e-13


@pytest.fixture(scope="module")
def plain():
    """A table on a binary grid, so that shifting and scaling it by powers of two is exact; and its fit."""
    rng = np.random.default_rng(0)
    X = np.round(random_mixture(rng, 2, 3).sample(500, rng=rng)[0] * 2**10) / 2**10
    return X, bg.fit_em(X, 2, rng=0, tolerance=1e-10)


def same_clustering(fit, other, X, Y, jacobian=0.0, rtol=1e-9):
    assert other.log_likelihood + jacobian == pytest.approx(fit.log_likelihood, rel=rtol)
    np.testing.assert_allclose(other.mixture.responsibilities(Y), fit.mixture.responsibilities(X), atol=1e-5)


def test_data_shifted_by_1e8_lose_nothing_but_their_own_digits(plain):
    X, fit = plain
    shift = 2.0**27  # 1.3e8, where float64 still resolves 2^-25
    start = bg.GaussianMixture(fit.mixture.weights, fit.mixture.means + shift, fit.mixture.covariances)
    same_clustering(fit, bg.fit_em(X + shift, 2, starts=[start], tolerance=1e-10), X, X + shift, rtol=1e-8)


def test_features_whose_scales_differ_by_1e12_change_nothing(plain):
    X, fit = plain
    scale = 2.0 ** np.array([-20, 0, 20])
    other = bg.fit_em(X * scale, 2, rng=0, tolerance=1e-10)
    same_clustering(fit, other, X, X * scale, len(X) * np.log(scale).sum(), rtol=1e-10)


def test_covariances_of_condition_1e9_keep_eight_digits(plain):
    X, fit = plain
    A = np.array([[1.0, 0, 0], [1.0, 2.0**-15, 0], [1.0, 2.0**-15, 2.0**-15]])
    Y = X @ A.T
    assert np.linalg.cond(np.cov(Y.T)) > 1e9
    start = bg.GaussianMixture(fit.mixture.weights, fit.mixture.means @ A.T, A @ fit.mixture.covariances @ A.T)
    other = bg.fit_em(Y, 2, starts=[start], tolerance=1e-10)
    same_clustering(fit, other, X, Y, len(X) * np.linalg.slogdet(A)[1], rtol=1e-8)


def test_clusters_1e6_standard_deviations_apart_are_each_their_closed_form():
    rng = np.random.default_rng(1)
    halves = rng.normal(size=(2, 300, 2))
    X = np.r_[halves[0], halves[1] + 1e6]
    fit = bg.fit_em(X, 2, rng=0)
    np.testing.assert_allclose(fit.mixture.weights, 0.5, rtol=1e-12)
    for k in range(2):
        np.testing.assert_allclose(fit.mixture.covariances[k], np.cov(halves[k].T, bias=True), rtol=1e-8)


def test_small_number_types_are_their_float64_values():
    X = np.round(table("old_faithful") * 2)
    fit = bg.fit_em(X, 2, rng=0)
    for kind in (np.float32, np.int16):
        assert bg.fit_em(X.astype(kind), 2, rng=0).log_likelihood == fit.log_likelihood
