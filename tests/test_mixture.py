"""Laws of `GaussianMixture`, single and batched."""

import pickle

import numpy as np
import pandas as pd
import pytest
from oracles import direct_log_joint, direct_log_prob, random_mixture
from scipy import stats

import bayesgmm as bg


@pytest.fixture
def rng():
    return np.random.default_rng(42)


def test_densities_equal_scipys(rng):
    m, X = random_mixture(rng, 3, 4), rng.normal(size=(30, 4))
    np.testing.assert_allclose(m.log_joint(X), direct_log_joint(m, X), rtol=1e-10)
    np.testing.assert_allclose(m.log_prob(X), direct_log_prob(m, X), rtol=1e-10)
    np.testing.assert_allclose(m.log_likelihood(X), direct_log_prob(m, X).sum(), rtol=1e-10)


def test_a_batch_is_its_elements(rng):
    batch, X = random_mixture(rng, 2, 3, batch=(2, 4)), rng.normal(size=(20, 3))
    for method in ("log_joint", "log_prob", "responsibilities", "predict"):
        together = getattr(batch, method)(X)
        for i, j in np.ndindex(2, 4):
            one = bg.GaussianMixture(batch.weights[i, j], batch.means[i, j], batch.covariances[i, j])
            np.testing.assert_allclose(together[i, j], getattr(one, method)(X), rtol=1e-12)


def test_responsibilities_are_normalised_joint_densities(rng):
    m, X = random_mixture(rng, 3, 2), rng.normal(size=(25, 2))
    R = np.exp(direct_log_joint(m, X) - direct_log_prob(m, X)[:, None])
    np.testing.assert_allclose(m.responsibilities(X), R, atol=1e-12)
    np.testing.assert_array_equal(m.predict(X), R.argmax(axis=1))


def test_permuting_components_changes_no_density(rng):
    m, X = random_mixture(rng, 4, 2), rng.normal(size=(25, 2))
    p = m.permute([2, 0, 3, 1])
    np.testing.assert_allclose(p.log_prob(X), m.log_prob(X), rtol=1e-12)
    np.testing.assert_array_equal(p.means, m.means[[2, 0, 3, 1]])


def test_samples_have_the_mixtures_moments(rng):
    m = random_mixture(rng, 3, 2)
    X, labels = m.sample(200_000, rng=1)
    se = np.sqrt(np.diag(m.covariance) / len(X))
    np.testing.assert_array_less(np.abs(X.mean(axis=0) - m.mean), 4 * se)
    np.testing.assert_allclose(np.cov(X.T), m.covariance, rtol=0.03)
    share = np.bincount(labels) / len(X)
    np.testing.assert_array_less(np.abs(share - m.weights), 4 * np.sqrt(m.weights * (1 - m.weights) / len(X)))


def test_batched_samples_come_from_their_own_element(rng):
    batch = random_mixture(rng, 2, 2, batch=(3,))
    X, labels = batch.sample(50_000, rng=2)
    assert X.shape == (3, 50_000, 2)
    assert labels.shape == (3, 50_000)
    se = np.sqrt(np.einsum("bii->bi", batch.covariance) / 50_000)
    np.testing.assert_array_less(np.abs(X.mean(axis=1) - batch.mean), 4.5 * se)


def test_the_margin_of_samples_is_the_marginal(rng):
    m = random_mixture(rng, 3, 3)
    margin = m.marginal([2, 0])
    np.testing.assert_array_equal(margin.mean, m.mean[[2, 0]])
    np.testing.assert_allclose(margin.covariance, m.covariance[np.ix_([2, 0], [2, 0])])


def test_arrays_are_frozen_and_pickled_whole(rng):
    m = random_mixture(rng, 2, 2)
    with pytest.raises(ValueError, match="read-only"):
        m.means[0, 0] = 1.0
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(m)).covariances, m.covariances)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": [0.5, 0.6]}, "sum to one"),
        ({"weights": [-0.5, 1.5]}, "not negative"),
        ({"weights": [0.5, 0.25, 0.25]}, "must have shapes"),
        ({"means": [[0.0, np.nan], [1.0, 1.0]]}, "mean of component 0"),
        ({"covariances": [np.eye(2), [[1.0, 2.0], [2.0, 1.0]]]}, "component 1 is not positive definite"),
        ({"covariances": [[[1.0, 0.5], [0.0, 1.0]], np.eye(2)]}, "component 0 is not symmetric"),
    ],
)
def test_what_is_no_mixture_is_refused(change, message):
    good = {"weights": [0.5, 0.5], "means": np.zeros((2, 2)), "covariances": [np.eye(2), np.eye(2)]}
    with pytest.raises(bg.InputError, match=message):
        bg.GaussianMixture(**good | change)


def test_rows_of_another_width_are_refused(rng):
    with pytest.raises(bg.InputError, match="3 columns, the mixture 2 features"):
        random_mixture(rng, 2, 2).responsibilities(np.zeros((4, 3)))


def test_columns_in_another_order_are_refused(rng):
    X = pd.DataFrame(rng.normal(size=(60, 3)), columns=["a", "b", "c"])
    mixture = bg.fit_em(X, 2, rng=0).mixture
    assert mixture.features == ("a", "b", "c")
    expected = mixture.log_prob(X.to_numpy())
    for m in (mixture, mixture.permute([1, 0]), pickle.loads(pickle.dumps(mixture))):
        np.testing.assert_allclose(m.log_prob(X), expected)
        for method in ("predict", "log_joint", "responsibilities", "log_likelihood", "tail_probability"):
            with pytest.raises(
                bg.InputError, match=r"\['a', 'c', 'b'\] are in another order .* give X\[\['a', 'b', 'c'"
            ):
                getattr(m, method)(X[["a", "c", "b"]])
        with pytest.raises(bg.InputError, match=r"\['a', 'b', 'd'\] are not those that were fitted"):
            m.predict(X.rename(columns={"c": "d"}))
    assert mixture.marginal([2, 0]).features == ("c", "a")
    np.testing.assert_allclose(
        mixture.marginal([2, 0]).log_prob(X[["c", "a"]]), mixture.marginal([2, 0]).log_prob(X.to_numpy()[:, [2, 0]])
    )
    assert mixture.conditional({1: 0.0}).features == ("a", "c")


def test_where_there_are_no_names_none_are_compared(rng):
    X = rng.normal(size=(60, 2))
    mixture = bg.fit_em(X, 2, rng=0).mixture
    assert mixture.features is None
    assert mixture.marginal([1]).features is None
    np.testing.assert_array_equal(mixture.predict(pd.DataFrame(X, columns=["x1", "x0"])), mixture.predict(X))


def test_names_are_as_many_as_features_and_differ(rng):
    m = random_mixture(rng, 2, 2)
    for names in (["a"], ["a", "a"]):
        with pytest.raises(bg.InputError, match="features must be 2 different names"):
            bg.GaussianMixture(m.weights, m.means, m.covariances, names)


def test_conditional_times_marginal_is_the_joint_density(rng):
    for batch in ((), (2, 3)):
        m = random_mixture(rng, 3, 4, batch=batch)
        x = rng.normal(size=4)
        conditional, marginal = m.conditional({2: x[2], 0: x[0]}), m.marginal([2, 0])
        product = conditional.log_prob([x[[1, 3]]]) + marginal.log_prob([x[[2, 0]]])
        np.testing.assert_allclose(product, m.log_prob([x]), rtol=1e-10)


def test_distribution_function_is_the_integral_of_the_density(rng):
    m = random_mixture(rng, 3, 1, batch=(2,))
    x = np.linspace(-30, 30, 200_001)
    integral = np.cumsum(np.exp(m.log_prob(x[:, None])), axis=-1) * (x[1] - x[0])
    np.testing.assert_allclose(m.cdf(x[::1000]), integral[:, ::1000], atol=2e-4)


def test_highest_density_intervals_hold_their_probability_at_equal_density():
    m = bg.GaussianMixture([0.3, 0.7], [[0.0], [8.0]], [[[1.0]], [[2.0]]])
    intervals = m.highest_density_intervals(0.9)
    assert intervals.shape == (2, 2)
    assert np.diff(m.cdf(intervals.ravel()).reshape(2, 2)).sum() == pytest.approx(0.9, abs=1e-8)
    assert np.ptp(m.log_prob(intervals.reshape(-1, 1))) < 1e-8
    assert m.highest_density_intervals(0.2).shape == (1, 2)
    assert m.density_level(0.9, rng=0) == pytest.approx(m.log_prob(intervals[:1, :1])[0], abs=0.02)


def test_tail_probability_of_a_row_with_a_gap_is_that_of_the_marginal(rng):
    """Within six standard errors of the difference of two estimates, even of the only row that lacks these values."""
    m, x = random_mixture(rng, 2, 3), rng.normal(size=(1, 3)) * 2
    p = m.tail_probability(np.where([False, True, False], np.nan, x), n_samples=50_000, rng=1)
    of_marginal = m.marginal([0, 2]).tail_probability(x[:, [0, 2]], n_samples=50_000, rng=2)
    np.testing.assert_allclose(p, of_marginal, atol=6 * np.sqrt(0.5 / 50_000))


def test_tail_probability_of_a_normal_is_chi_squares(rng):
    """Within four standard errors of the Monte Carlo estimate."""
    m = random_mixture(rng, 1, 3, batch=(2,))
    X = rng.normal(size=(15, 3)) * 2
    p = m.tail_probability(X, n_samples=50_000, rng=1)
    for b in range(2):
        d = X - m.means[b, 0]
        exact = stats.chi2(3).sf(np.einsum("ni,ij,nj->n", d, np.linalg.inv(m.covariances[b, 0]), d))
        np.testing.assert_array_less(np.abs(p[b] - exact), 4 * np.sqrt(exact * (1 - exact) / 50_000) + 4e-5)


def test_features_that_are_not_there_are_refused(rng):
    m = random_mixture(rng, 2, 3)
    for call in (lambda: m.marginal([3]), lambda: m.marginal([0, 0]), lambda: m.conditional({-1: 0.0})):
        with pytest.raises(bg.InputError, match="features"):
            call()
    with pytest.raises(bg.InputError, match="one must be left"):
        m.conditional({0: 1.0, 1: 1.0, 2: 1.0})
    with pytest.raises(bg.InputError, match="one feature"):
        m.cdf([0.0])
    with pytest.raises(bg.InputError, match="density_level"):
        m.highest_density_intervals(0.5)


def test_the_log_scale_is_the_joint_density_at_a_components_own_mean(rng):
    m = random_mixture(rng, 3, 2, batch=(4,))
    for b in range(4):
        own = np.diagonal(m[b].log_joint(m.means[b]))
        np.testing.assert_allclose(m.log_scale[b], own, rtol=1e-12)
    empty = bg.GaussianMixture([1.0, 0.0], np.zeros((2, 1)), np.ones((2, 1, 1)))
    assert empty.log_scale[1] == -1e300
