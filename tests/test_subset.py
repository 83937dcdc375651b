"""Weighted rows that stand for all rows of a table."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from oracles import CHANCE, density_of, random_mixture, seed
from scipy import optimize, stats

import bayesgmm as bg
from bayesgmm.bayes.chains import Chains
from bayesgmm.bayes.laplace import hessian
from bayesgmm.bayes.many_rows import LargeTable, modes_of, of_memory
from bayesgmm.bayes.subset import calibrated, check_subset, subset

N = 30_000


@pytest.fixture(scope="module")
def two():
    """Rows of two overlapping components, and their fit."""
    mixture = bg.GaussianMixture([0.6, 0.4], [[0.0], [1.8]], [[[1.0]], [[0.6]]])
    X = mixture.sample(N, rng=1)[0]
    return X, bg.fit_em(X, 2, rng=0)


@pytest.mark.parametrize("far", [1.0, 6.0])
def test_calibrated_weights_are_the_nearest_that_meet_the_totals(far):
    """Against a general optimiser; far from the first weights, some stay at a tenth of what they were."""
    rng = np.random.default_rng(0)
    terms, weight = rng.normal(size=(30, 2)), rng.uniform(1, 3, size=30)
    totals = weight @ terms + far * np.array([5.0, -3.0])
    found = calibrated(terms, totals, weight)
    nearest = optimize.minimize(
        lambda w: ((w - weight) ** 2 / weight).sum(),
        weight,
        jac=lambda w: 2 * (w - weight) / weight,
        bounds=list(zip(0.1 * weight, [None] * 30, strict=True)),
        constraints={"type": "eq", "fun": lambda w: w @ terms - totals, "jac": lambda w: terms.T},
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )
    np.testing.assert_allclose(found @ terms, totals, atol=0.02)
    np.testing.assert_allclose(found, nearest.x, atol=0.02)
    assert (found < 0.11 * weight).any() == (far > 1)


def test_totals_that_no_weights_meet_are_approached_by_moderate_ones():
    rng = np.random.default_rng(0)
    terms, weight = rng.normal(size=(30, 40)), rng.uniform(1, 3, size=30)
    totals = weight @ terms + 0.2 * np.sqrt(weight @ terms**2) * rng.normal(size=40)
    found = calibrated(terms, totals, weight)
    before, after = (np.linalg.norm(w @ terms - totals) for w in (weight, found))
    assert after < 0.7 * before
    assert (found / weight).max() < 3
    assert (found / weight).min() > 0.0999


@pytest.mark.parametrize("name", ["VVV", "EEE", "VVI", "EII"])
def test_weighted_rows_have_slope_and_curvature_of_all_rows_at_the_mode(name):
    """By difference quotients, in standard deviations; the inverse of the rows' chances alone does worse."""
    mixture = random_mixture(np.random.default_rng(2), 2, 2)
    near = bg.GaussianMixture(mixture.weights, 0.5 * mixture.means, mixture.covariances)
    X = near.sample(N, rng=1)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bg.ConvergenceWarning)
        fit = bg.fit_em(X, 2, name, rng=0)
    density = density_of(X, fit, bg.Priors.weakly_informative(X, 2))
    rows = of_memory(density, seed())
    mode = modes_of(rows, fit)[0]
    weighted = subset(rows, mode, seed())
    assert weighted.table.n_observations < N / 3
    assert weighted.table.sample_weight.min() > 0
    n = density.n_dim
    one, other = (each.whitened(mode.origin, mode.factor) for each in (density, weighted))
    np.testing.assert_allclose(other(np.zeros(n))[1], one(np.zeros(n))[1], atol=0.01)
    step = np.full(n, 1e-3)
    np.testing.assert_allclose(hessian(other, np.zeros(n), step), hessian(one, np.zeros(n), step), atol=0.01)


def test_weighted_rows_are_the_tables_own_and_their_weights_add_up_to_it(two):
    X, fit = two
    rows = of_memory(density_of(X, fit, bg.Priors.weakly_informative(X, 2)), seed())
    table = subset(rows, modes_of(rows, fit)[0], seed()).table
    assert np.isin(table.values[:, 0], X[:, 0]).all()
    assert table.sample_weight.sum() == pytest.approx(N, rel=1e-4)


def test_weighted_rows_are_the_same_wherever_rows_are(two):
    X, fit = two
    sources = lambda: iter([X]), lambda: iter([X[:7000], X[7000:7001], X[7001:]])
    found = []
    for source in sources:
        rows = LargeTable.of(bg.open_table(source), fit, seed(), None).posterior(fit, None)
        found.append(subset(rows, modes_of(rows, fit)[0], seed()).table)
    np.testing.assert_array_equal(found[0].values, found[1].values)
    np.testing.assert_array_equal(found[0].sample_weight, found[1].sample_weight)


def test_draws_move_to_the_mean_of_the_posterior_of_all_rows():
    """Of two normal densities, 0.2 apart: the shift's standard error is 0.2 over the root of 200 draws."""
    rng = np.random.default_rng(seed())
    rows = SimpleNamespace(
        values=lambda thetas: -((thetas[:, 0] - 0.2) ** 2) / 2, parts=SimpleNamespace(n_observations=100)
    )
    weighted = SimpleNamespace(
        n_dim=1,
        log_densities=lambda thetas: -(thetas[:, 0] ** 2) / 2,
        table=SimpleNamespace(n_observations=10),
    )
    chains = Chains(rng.normal(size=(4, 500, 1)), {})
    moved, verdict = check_subset(rows, weighted, chains)
    assert verdict.good, verdict.text
    assert verdict.text.startswith("NUTS on 10 weighted rows in place of all 100 is good")
    shift = float((moved.thetas - chains.thetas).mean())
    assert abs(shift - 0.2) < 1.5 * stats.norm.isf(CHANCE) * 0.2 / np.sqrt(200)
    _, verdict = check_subset(SimpleNamespace(values=lambda t: 9 * t[:, 0], parts=rows.parts), weighted, chains)
    assert not verdict.good


@pytest.mark.slow
@pytest.mark.statistical
def test_the_posterior_of_weighted_rows_is_that_of_all_rows(two):
    """Means within a tenth of an sd and three sds of draws' errors, which are below a twentieth at 400 draws."""
    X, fit = two
    drawn = {
        method: bg.posterior(bg.sample_posterior(X, fit, method=method, sampler="nutpie", rng=seed()))
        for method in ("nuts", "subset")
    }
    assert drawn["subset"].verdict.good, drawn["subset"].verdict.text
    for name in ("weights", "means", "covariances"):
        ours, exact = (getattr(drawn[method].draws, name) for method in ("subset", "nuts"))
        sd = exact.std(axis=(0, 1))
        allowed = 0.1 + stats.norm.isf(CHANCE) * np.sqrt(2 / 400)
        np.testing.assert_array_less(np.abs(ours.mean(axis=(0, 1)) - exact.mean(axis=(0, 1))), allowed * sd)
        np.testing.assert_allclose(ours.std(axis=(0, 1)), sd, rtol=0.3)


def test_what_weighted_rows_cannot_stand_for_is_refused(two):
    X, fit = two
    holes = np.column_stack([X[:500, 0], X[500:1000, 0]])
    holes[0, 0] = np.nan
    for table, own, sampler in ((holes, bg.fit_em(holes, 1), "auto"), (X, fit, "gibbs"), (X, fit, "pymc")):
        with pytest.raises(bg.InputError, match="complete and exact rows"):
            bg.sample_posterior(table, own, method="subset", sampler=sampler)
    wide = np.random.default_rng(0).normal(size=(300, 10))
    with pytest.raises(bg.InputError, match="at most 50 free parameters, and these are 65"):
        bg.sample_posterior(wide, bg.fit_em(wide, 1), method="subset")
