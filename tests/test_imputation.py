"""Laws of imputation: conditionals of the mixture, their average over draws, and intervals that hold what they say."""

import numpy as np
import pytest
from oracles import CHANCE, deviation_allowed, random_mixture, seed
from scipy import stats

import bayesgmm as bg
from bayesgmm.observations import any_rows


def with_holes(rng, X, share=0.35):
    return np.where(rng.random(X.shape) < share, np.nan, X)


def augmented(mixture, E):
    """The mixture of true values and, after them, of what is measured of them with errors of the covariance E."""
    S, D = mixture.covariances, mixture.n_features
    return bg.GaussianMixture(
        weights=mixture.weights,
        means=np.concatenate((mixture.means, mixture.means), axis=-1),
        covariances=np.block([[S, S], [S, S + E + 1e-12 * np.eye(D)]]),
    )


@pytest.mark.parametrize(("K", "D"), [(1, 2), (3, 2), (2, 6)])
def test_missing_values_have_the_mixtures_conditional_distribution(K, D):
    rng = np.random.default_rng(D)
    m, X = random_mixture(rng, K, D), with_holes(rng, rng.normal(size=(40, D)))
    imputed = bg.impute(m, X, 0.8)
    for row, x in enumerate(X):
        observed = np.flatnonzero(~np.isnan(x))
        if observed.size == D:
            continue
        given = m.conditional({int(j): x[j] for j in observed}) if observed.size else m
        unknown = np.isnan(x)
        np.testing.assert_allclose(imputed.values[row, unknown], given.mean, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(imputed.sd[row, unknown], np.sqrt(np.diag(given.covariance)), rtol=1e-9)
        for i, j in enumerate(np.flatnonzero(unknown)):
            ends = imputed.lower[row, j], imputed.upper[row, j]
            np.testing.assert_allclose(given.marginal([i]).cdf(ends), [0.1, 0.9], rtol=1e-10)
    np.testing.assert_array_equal(imputed.missing, np.isnan(X))


@pytest.mark.parametrize("errors", ["small", "of its size", "large"])
def test_true_values_are_conditioned_on_the_measured_ones(errors):
    rng = np.random.default_rng(3)
    m, X = random_mixture(rng, 2, 3), with_holes(rng, rng.normal(size=(20, 3)))
    A = rng.normal(size=(20, 3, 3)) * {"small": 1e-2, "of its size": 1, "large": 1e2}[errors]
    E = A @ np.swapaxes(A, 1, 2)
    imputed = bg.impute(m, X, error_covariance=E)
    for row, x in enumerate(X):
        observed = np.flatnonzero(~np.isnan(x))
        if observed.size:
            both = augmented(m, E[row]).marginal([0, 1, 2, *(3 + observed)])
            given = both.conditional({3 + i: x[j] for i, j in enumerate(observed)})
            np.testing.assert_allclose(imputed.values[row], given.mean, rtol=1e-6, atol=1e-6)
            np.testing.assert_allclose(imputed.sd[row], np.sqrt(np.diag(given.covariance)), rtol=1e-6)


def test_a_posterior_averages_the_conditionals_of_its_draws():
    rng = np.random.default_rng(4)
    draws, X = random_mixture(rng, 2, 3, batch=(2, 11)), with_holes(rng, rng.normal(size=(15, 3)))
    X[0] = 0.5, np.nan, 0.5
    imputed = bg.impute(draws, X, 0.5)
    each = [bg.impute(draws[c, s], X) for c in range(2) for s in range(11)]
    np.testing.assert_allclose(imputed.values, np.mean([one.values for one in each], axis=0), rtol=1e-9)
    second = np.mean([one.sd**2 + one.values**2 for one in each], axis=0)
    np.testing.assert_allclose(imputed.sd**2, second - imputed.values**2, atol=1e-12)
    given = draws.conditional({0: 0.5, 2: 0.5})
    ends = [imputed.lower[0, 1], imputed.upper[0, 1]]
    np.testing.assert_allclose(given.cdf(ends).mean(axis=(0, 1)), [0.25, 0.75], rtol=1e-10)
    own = bg.impute(bg.Posterior(draws, table=any_rows(X)), ci_prob=0.5)
    np.testing.assert_array_equal(own.values, imputed.values)


def test_many_draws_are_thinned_evenly():
    rng = np.random.default_rng(5)
    draws, X = random_mixture(rng, 2, 2, batch=(1, 2500)), [[0.3, np.nan]]
    np.testing.assert_array_equal(bg.impute(draws, X).values, bg.impute(draws[:, ::3], X).values)


def test_observed_values_stay_where_they_have_no_error():
    rng = np.random.default_rng(6)
    m, X = random_mixture(rng, 2, 3), rng.normal(size=(9, 3))
    imputed = bg.impute(m, X)
    for part in (imputed.values, imputed.lower, imputed.upper, *imputed.draws(3, rng=0)):
        np.testing.assert_array_equal(part, X)
    assert not imputed.sd.any()
    assert len(imputed.to_dataframe()) == 0
    some = bg.impute(m, X, error_sd=[0.0, 0.3, 0.0])
    np.testing.assert_array_equal(some.values[:, [0, 2]], X[:, [0, 2]])
    np.testing.assert_array_less(0, some.sd[:, 1])
    assert set(some.to_dataframe()["column"]) == {"x1"}


def test_a_value_with_an_error_without_bound_is_imputed_as_a_missing_one():
    rng = np.random.default_rng(7)
    m, X = random_mixture(rng, 2, 3), rng.normal(size=(12, 3))
    gone = rng.random(X.shape) < 0.4
    vague, missing = bg.impute(m, X, error_sd=np.where(gone, 1e7, 0.0)), bg.impute(m, np.where(gone, np.nan, X))
    for name in ("values", "sd", "lower", "upper"):
        np.testing.assert_allclose(getattr(vague, name), getattr(missing, name), rtol=1e-4, atol=1e-4)


def test_columns_in_other_units_and_another_order_are_imputed_alike():
    rng = np.random.default_rng(8)
    m, X, sd = random_mixture(rng, 3, 4), with_holes(rng, rng.normal(size=(30, 4))), rng.random((30, 4))
    units, order = np.array([1e-6, 1.0, 7.0, 1e5]), [2, 0, 3, 1]
    scaled = bg.GaussianMixture(m.weights, m.means * units, m.covariances * units[:, None] * units).marginal(order)
    plain = bg.impute(m, X, error_sd=sd)
    other = bg.impute(scaled, (X * units)[:, order], error_sd=(sd * units)[:, order])
    for name in ("values", "sd", "lower", "upper"):
        expected = (getattr(plain, name) * units)[:, order]
        np.testing.assert_allclose(getattr(other, name), expected, rtol=1e-7, atol=1e-9 * units[order].max())


def test_one_component_makes_measured_values_surer_and_draws_them_to_its_mean():
    m = bg.GaussianMixture([1.0], [[2.0]], [[[3.0]]])
    one = bg.impute(m, [[6.0], [-1.0]], error_sd=[1.0])
    np.testing.assert_allclose(one.values, [[5.0], [-0.25]])  # a quarter of the way, as 1 is of 1 + 3
    np.testing.assert_allclose(one.sd, np.sqrt(0.75))


@pytest.mark.statistical
def test_intervals_hold_the_values_that_were_lost_as_often_as_they_say():
    rng = np.random.default_rng(seed())
    m, n = random_mixture(np.random.default_rng(9), 3, 2), 4000
    X, _ = m.sample(n, rng=rng)
    gone = np.arange(n) % 2  # one value of each row, so that they are independent
    holes = X.copy()
    holes[np.arange(n), gone] = np.nan
    imputed, cells = bg.impute(m, holes, 0.7), (np.arange(n), gone)
    inside = (imputed.lower <= X) & (imputed.upper >= X)
    assert abs(inside[cells].mean() - 0.7) < deviation_allowed(0.7, n)


@pytest.mark.statistical
def test_drawn_tables_have_the_distribution_that_the_intervals_are_of():
    m, X = random_mixture(np.random.default_rng(10), 3, 3), [[0.4, np.nan, np.nan], [np.nan, np.nan, np.nan]]
    X, n, p = np.array([*X, [0.1, 0.2, -0.3]]), 4000, np.linspace(0.1, 0.9, 9)
    batch = bg.GaussianMixture(*(np.stack([part] * 5) for part in (m.weights, m.means, m.covariances)))
    for sd in (None, [0.5, 0.0, 1.0]):
        imputed = bg.impute(batch, X, error_sd=sd)
        drawn = imputed.draws(n, rng=seed())
        known = imputed.sd == 0
        np.testing.assert_array_equal(drawn[:, known], np.broadcast_to(X[known], (n, known.sum())))
        for level in p:
            below = bg.impute(m, X, level, error_sd=sd)
            for end, expected in ((below.lower, (1 - level) / 2), (below.upper, (1 + level) / 2)):
                off = np.abs((drawn <= end).mean(axis=0) - expected)[~known]
                allowed = deviation_allowed(expected, n, comparisons=2 * len(p) * known.size)
                np.testing.assert_array_less(off, allowed)


@pytest.mark.statistical
def test_unknown_values_of_a_row_are_drawn_together():
    m = bg.GaussianMixture([1.0], [[0.0, 0.0, 0.0]], [[[1.0, 0.5, 0.5], [0.5, 1.0, 0.9], [0.5, 0.9, 1.0]]])
    drawn = bg.impute(m, [[1.0, np.nan, np.nan]]).draws(4000, rng=seed())[:, 0, 1:]
    given = m.conditional({0: 1.0}).covariances[0]
    rho = given[0, 1] / np.sqrt(given[0, 0] * given[1, 1])
    z = (np.arctanh(np.corrcoef(drawn.T)[0, 1]) - np.arctanh(rho)) * np.sqrt(4000 - 3)  # Fisher's: standard normal
    assert abs(z) < 1.1 * stats.norm.isf(CHANCE / 2)


def test_what_cannot_be_imputed_is_refused():
    m = random_mixture(np.random.default_rng(11), 2, 2)
    for call, what in (
        (lambda: bg.impute(m), "no rows of its own"),
        (lambda: bg.impute(m, [[0.0, np.inf]]), "infinite"),
        (lambda: bg.impute(m, [[0.0]]), "1 columns"),
        (lambda: bg.impute(m, [[0.0, np.nan]], 89), "ci_prob"),
        (lambda: bg.impute(m, [[0.0, np.nan]]).draws(0), "m must be"),
        (lambda: bg.impute(3, [[0.0, np.nan]]), "not int"),
    ):
        with pytest.raises(bg.InputError, match=what):
            call()
