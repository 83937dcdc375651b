"""The log posterior without rows, and its Hessian from what rows add up to."""

import numpy as np
import pytest
from oracles import density_of, random_mixture, table

import bayesgmm as bg
from bayesgmm.bayes.expected import expected, hessian_of, prior_of, stand_ins
from bayesgmm.bayes.laplace import find_mode, hessian
from bayesgmm.covariance import NAMES
from bayesgmm.em.information import request_of, second_order
from bayesgmm.expectation import expected_statistics
from bayesgmm.passes import InMemory


def fitted(name, priors=None):
    rng = np.random.default_rng(4)
    X = random_mixture(rng, 3, 3).sample(300, rng=rng)[0]
    fit = bg.fit_em(X, 3, name, rng=0, max_iterations=5, tolerance=1e-3)
    density = density_of(X, fit, priors or bg.Priors.weakly_informative(X, 3))
    return density, fit, InMemory(density.table.rows(density.center))


def test_stand_ins_have_the_statistics():
    density, fit, passes = fitted("VVV")
    statistics = passes.totals([request_of(fit.mixture, density.center)])[0].statistics
    rows = stand_ins(fit.mixture.means, statistics, density.table.features)
    again = expected_statistics(rows.rows(density.center), request_of(fit.mixture, density.center).parameters)[2]
    for one, other in zip(again, statistics, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-10 * np.abs(other).max())


@pytest.mark.parametrize("name", NAMES)
def test_expected_density_has_the_gradient_of_the_real_one(name):
    density, fit, passes = fitted(name)
    statistics = passes.totals([request_of(fit.mixture, density.center)])[0].statistics
    theta = density.pack(fit.mixture)
    gradient = density(theta)[1]
    own = expected(density, fit.mixture, statistics)(theta)[1]
    np.testing.assert_allclose(own, gradient, rtol=1e-7, atol=1e-9 * np.abs(gradient).max())


def test_likelihood_and_prior_make_the_density():
    density, fit, passes = fitted("VVV")
    height = passes.totals([request_of(fit.mixture, density.center)])[0].log_likelihood
    theta = density.pack(fit.mixture)
    assert prior_of(density)(theta)[0] + height == pytest.approx(density(theta)[0], rel=1e-12)


LKJ = bg.Priors(1.0, bg.NormalMeans(np.zeros(3), 5 * np.ones(3)), bg.LKJ(2.0, bg.HalfNormal(2 * np.ones(3))))


@pytest.mark.parametrize(("name", "priors"), [*((name, None) for name in NAMES), ("VVV", LKJ), ("EEI", LKJ)])
def test_hessian_is_the_derivative_of_the_gradient(name, priors):
    """Central differences, extrapolated to a step of zero, in units of the curvatures."""
    density, fit, passes = fitted(name, priors and priors.for_components(3))
    theta = density.pack(fit.mixture)
    unit = np.sqrt((find_mode(density, theta).factor ** 2).sum(axis=1))
    coarse, fine = (hessian(density, theta, h * unit) for h in (1e-2, 5e-3))
    totals = second_order(passes, fit.mixture, density.model, density.center)
    in_units = (hessian_of(density, theta, totals) - (4 * fine - coarse) / 3) * unit * unit[:, None]
    np.testing.assert_allclose(in_units, np.zeros_like(in_units), atol=1e-6)


def test_mode_is_the_same_by_the_exact_curvature_and_by_differences(monkeypatch):
    X = table("iris")
    density = density_of(X, bg.fit_em(X, 3, rng=0), bg.Priors.weakly_informative(X, 3))
    theta = density.pack(bg.fit_em(X, 3, rng=0).mixture)
    by_differences = find_mode(density, theta, tolerance=1e-12)
    monkeypatch.setattr("bayesgmm.bayes.laplace._EXACT_PAYS", 0.0)
    exact = find_mode(density, theta, tolerance=1e-12)
    away = np.linalg.solve(exact.factor, exact.origin - by_differences.origin)
    np.testing.assert_allclose(away, np.zeros_like(away), atol=1e-5)
    np.testing.assert_allclose(exact.factor, by_differences.factor, atol=1e-4 * np.abs(exact.factor).max())
