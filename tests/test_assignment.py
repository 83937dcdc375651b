"""Laws of the assignment of rows to components."""

import numpy as np
import pandas as pd
import pytest
from oracles import deviation_allowed, random_mixture, seed, table
from scipy.stats import chi2

import bayesgmm as bg
from bayesgmm.clusters.assignment import equal_tailed
from bayesgmm.observations import any_rows


@pytest.mark.parametrize("ci_prob", [0.01, 0.5, 0.89, 0.999])
def test_interval_ends_are_numpys_quantiles(ci_prob):
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 4, 5, 10, 101, 1000):
        values = rng.beta(0.3, 2, size=(5, 3, n))
        expected = np.quantile(values, [(1 - ci_prob) / 2, (1 + ci_prob) / 2], axis=-1)
        np.testing.assert_allclose(equal_tailed(values, ci_prob), expected, rtol=1e-12)


def test_tail_probability_is_the_share_of_new_rows_with_no_higher_density():
    one = bg.GaussianMixture([[1.0]], [[[0.0]]], [[[[1.0]]]])  # density falls with |x|: the tail is 2 (1 - Phi(|x|))
    a = bg.assign(one, [[0.0], [1.0], [-1.959964], [2.575829], [9.0]], rng=0)
    expected = np.array([1.0, 0.317311, 0.05, 0.01, 0.0])  # of 10 000 rows
    np.testing.assert_array_less(
        np.abs(a.tail_probability - expected), deviation_allowed(expected, 10_000, comparisons=5)
    )
    np.testing.assert_array_equal(
        a.tail_probability, bg.assign(one, [[0.0], [1], [-1.959964], [2.575829], [9]], rng=0).tail_probability
    )


@pytest.mark.statistical
@pytest.mark.parametrize("n", [1, 60])
def test_tails_of_rows_with_holes_or_errors_are_those_of_such_new_rows(n):
    """Whatever is known of a row of one Gaussian: its squared distance is chi-square, in so many dimensions."""
    rng = np.random.default_rng(0)
    A = rng.normal(size=(3, 3))
    one = bg.GaussianMixture([[1.0]], [[[1.0, 2.0, 3.0]]], [[A @ A.T]])
    X, sd = rng.normal(size=(7 * n, 3)) * 3, rng.random((7 * n, 3)) * 3
    X[::2, 1] = X[::3, 2] = X[4] = np.nan
    by_draws = bg.assign(one, X, error_sd=sd, rng=seed()).tail_probability
    by_mixture = one[0].tail_probability(X, error_sd=sd, rng=seed())
    expected = np.ones(len(X))
    for i in range(len(X)):
        there = np.flatnonzero(~np.isnan(X[i]))
        covariance = (A @ A.T + np.diag(sd[i] ** 2))[np.ix_(there, there)]
        d = X[i, there] - one.means[0, 0, there]
        if there.size:
            expected[i] = chi2.sf(d @ np.linalg.solve(covariance, d), there.size)
    allowed = deviation_allowed(expected, 1000, comparisons=2 * len(X)) + 1e-3
    for tail in (by_draws, by_mixture):
        assert tail[4] == 1.0
        np.testing.assert_array_less(np.abs(tail - expected), allowed)


def test_a_value_with_an_error_without_bound_counts_no_more_than_a_missing_one(overlapping_draws):
    m, X = overlapping_draws
    gone = np.random.default_rng(0).random(X.shape) < 0.3
    vague = bg.assign(m, X, error_sd=np.where(gone, 1e8, 0.0))
    missing = bg.assign(m, np.where(gone, np.nan, X))
    for name in ("probabilities", "lower", "upper", "overlap"):
        np.testing.assert_allclose(getattr(vague, name), getattr(missing, name), rtol=1e-5, atol=1e-6)


def test_errors_are_given_with_their_rows(overlapping_draws):
    m, X = overlapping_draws
    posterior = bg.Posterior(m.reshape(1, -1), table=any_rows(X))
    with pytest.raises(bg.InputError, match="errors are of rows that are given with them"):
        bg.assign(posterior, error_sd=np.ones(X.shape[1]))


def test_labels_come_with_their_probability_and_interval(overlapping_draws):
    m, X = overlapping_draws
    a = bg.assign(m, X)
    rows = np.arange(len(X))
    np.testing.assert_array_equal(a.label_probability, a.probabilities.max(axis=1))
    np.testing.assert_array_equal(a.label_lower, a.lower[rows, a.labels])
    np.testing.assert_array_equal(a.label_upper, a.upper[rows, a.labels])
    np.testing.assert_allclose(a.overlap + a.mutual_information, a.entropy)
    rows_of = a.to_dataframe()
    assert len(rows_of) == len(X)
    np.testing.assert_array_equal(rows_of["probability_2"], a.probabilities[:, 2])


@pytest.fixture(scope="module")
def fitted(faithful_fit, faithful_posterior):
    return table("old_faithful"), faithful_fit, faithful_posterior


@pytest.mark.parametrize("K", [1, 2, 3])
def test_assignments_equal_the_direct_computation_over_all_draws(K):
    rng = np.random.default_rng(0)
    draws, X = random_mixture(rng, K, 2, batch=(2, 15)), rng.normal(size=(23, 2)) * 2
    a = bg.assign(draws, X, ci_prob=0.8)
    R = draws.responsibilities(X).reshape(30, 23, K)
    p = R.mean(axis=0)
    np.testing.assert_allclose(a.probabilities, p, rtol=1e-12)
    np.testing.assert_allclose(a.lower, np.quantile(R, 0.1, axis=0), rtol=1e-10, atol=1e-15)
    np.testing.assert_allclose(a.upper, np.quantile(R, 0.9, axis=0), rtol=1e-10, atol=1e-15)
    np.testing.assert_array_equal(a.labels, p.argmax(axis=1))
    entropy = -(p * np.log(p)).sum(axis=1)
    np.testing.assert_allclose(a.entropy, entropy, rtol=1e-10, atol=1e-15)
    np.testing.assert_allclose(a.mutual_information, entropy + (R * np.log(R)).sum(axis=2).mean(axis=0), atol=1e-12)


def test_doubt_of_a_single_draw_is_all_overlap():
    rng = np.random.default_rng(1)
    m, X = random_mixture(rng, 2, 2, batch=(1,)), rng.normal(size=(10, 2))
    a = bg.assign(m, X)
    np.testing.assert_allclose(a.mutual_information, 0, atol=1e-12)
    np.testing.assert_allclose(a.lower, a.upper)


def test_training_rows_are_the_default(fitted):
    X, _, tree = fitted
    own, given = bg.assign(tree), bg.assign(tree, X)
    np.testing.assert_array_equal(own.probabilities, given.probabilities)
    assert ((own.lower <= own.upper) & (own.probabilities >= 0)).all()
    np.testing.assert_allclose(own.probabilities.sum(axis=1), 1)
    np.testing.assert_array_less(own.mutual_information, own.entropy + 1e-12)


def test_rows_with_other_columns_are_refused(fitted):
    X, fit, tree = fitted
    names = ["eruptions", "waiting"]
    named = bg.GaussianMixture(fit.mixture.weights, fit.mixture.means, fit.mixture.covariances, names)[None]
    assert len(bg.assign(named, pd.DataFrame(X, columns=names)).labels) == len(X)
    with pytest.raises(bg.InputError, match="in another order"):
        bg.assign(named, pd.DataFrame(X[:, ::-1], columns=names[::-1]))
    with pytest.raises(bg.InputError, match="ci_prob"):
        bg.assign(tree, X, ci_prob=89)
    with pytest.raises(bg.InputError, match="give the rows"):
        bg.assign(bg.as_mixture(tree))
