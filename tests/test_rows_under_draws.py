"""The kernel whose lanes are the draws."""

import numpy as np
import pytest
from oracles import deviation_allowed, random_mixture, seed

import bayesgmm as bg
from bayesgmm.clusters import rows_under_draws as rows_module
from bayesgmm.clusters.rows_under_draws import rows_under_draws
from bayesgmm.observations import any_rows


@pytest.mark.parametrize(("K", "D", "S"), [(1, 1, 3), (2, 3, 8), (3, 2, 30), (5, 7, 17)])
def test_the_kernel_under_all_draws_equals_the_mixtures_one_by_one(K, D, S):
    rng = np.random.default_rng(K)
    m, X = random_mixture(rng, K, D, batch=(S,)), rng.normal(size=(37, D)) * 3
    X[3] = 1e4  # far from everything
    draws = rows_under_draws(m, X)
    block = draws.block()
    R = np.moveaxis(m.responsibilities(X), 0, -1)
    np.testing.assert_allclose(block.responsibilities, R, rtol=1e-7, atol=1e-13)
    np.testing.assert_allclose(block.log_prob, m.log_prob(X).T, rtol=1e-12)
    entropy = -(R * np.log(np.maximum(R, 1e-300))).sum(axis=1)
    np.testing.assert_allclose(block.entropy, entropy, atol=1e-12)
    predictive = np.log(np.exp(m.log_prob(X[:3])).mean(axis=0))
    np.testing.assert_allclose(draws.log_predictive()[:3], predictive, rtol=1e-12)
    np.testing.assert_array_equal(draws.block(draws=slice(0, 3)).log_prob, block.log_prob[:, :3])
    np.testing.assert_array_equal(draws.block([5, 3, 3]).responsibilities, block.responsibilities[[5, 3, 3]])


@pytest.fixture
def unfinished(request):
    """Draws, and rows with errors of a kind, missing values, and among them a complete and an empty row."""
    K, D, S, errors = request.param
    rng = np.random.default_rng(K)
    m, X = random_mixture(rng, K, D, batch=(S,)), rng.normal(size=(43, D)) * 3
    X[rng.random(X.shape) < 0.3] = np.nan
    X[4], X[6:9] = 1.0, np.nan
    A = rng.normal(size=(43, D, D))
    given = {"none": {}, "shared": {"error_sd": A[0, 0] ** 2}, "own": {"error_covariance": A @ np.swapaxes(A, 1, 2)}}
    return m, any_rows(X, **given[errors])


@pytest.mark.parametrize(
    "unfinished",
    [
        (1, 1, 3, "none"),
        (2, 3, 8, "own"),
        (3, 2, 30, "shared"),
        (5, 7, 17, "own"),
        (2, 10, 9, "own"),
        (2, 12, 9, "none"),
        (3, 14, 17, "own"),
    ],
    indirect=True,
)
@pytest.mark.usefixtures("level")
def test_rows_with_holes_and_errors_are_what_they_are_under_each_mixture(unfinished, monkeypatch):
    m, table = unfinished
    draws = rows_under_draws(m, table)
    R, log_prob = np.moveaxis(m.responsibilities(table), 0, -1), m.log_prob(table).T
    block = draws.block()
    np.testing.assert_allclose(block.responsibilities, R, rtol=1e-7, atol=1e-13)
    np.testing.assert_allclose(block.log_prob, log_prob, rtol=1e-11, atol=1e-12)
    entropy = -(R * np.log(np.maximum(R, 1e-300))).sum(axis=1)
    np.testing.assert_allclose(block.entropy, entropy, atol=1e-12)
    monkeypatch.setattr(rows_module, "_BLOCK_BYTES", 1.0)
    np.testing.assert_allclose(draws.log_predictive(), np.log(np.exp(log_prob).mean(axis=1)), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(draws.mean_responsibilities(), R.mean(axis=-1), rtol=1e-7, atol=1e-13)
    some = [40, 3, 7, 3]
    np.testing.assert_allclose(draws.block(some).log_prob, log_prob[some], rtol=1e-11, atol=1e-12)
    later = slice(8 * ((draws.n_draws - 1) // 8), None)
    np.testing.assert_array_equal(draws.block(draws=later).responsibilities, block.responsibilities[:, :, later])


@pytest.mark.parametrize("unfinished", [(3, 3, 40, "none"), (3, 3, 40, "own")], indirect=True)
def test_nothing_depends_on_the_order_of_rows_with_holes(unfinished):
    m, table = unfinished
    order = np.random.default_rng(0).permutation(table.n_observations)
    other = table.take(order)
    one, two = bg.assign(m, table, rng=0), bg.assign(m, other, rng=0)
    for name in ("probabilities", "lower", "upper", "entropy", "overlap", "log_prob"):
        np.testing.assert_allclose(getattr(two, name), getattr(one, name)[order], rtol=1e-9, atol=1e-12)
    together = bg.posterior_similarity(m, table)[np.ix_(order, order)]
    np.testing.assert_allclose(bg.posterior_similarity(m, other), together, rtol=1e-9)
    np.testing.assert_allclose(bg.posterior_similarity(m, table, rows=order[:9]), together[:9, :9], rtol=1e-9)
    np.testing.assert_allclose(bg.merge_components(m, other).entropy_mean, bg.merge_components(m, table).entropy_mean)


def test_rows_without_values_change_no_partition(overlapping_draws):
    m, X = overlapping_draws
    more = np.insert(X, [0, 7, 7], np.nan, axis=0)
    plain, padded = bg.partition(m, X, rng=0), bg.partition(m, more, rng=0)
    known = ~np.isnan(more[:, 0])
    np.testing.assert_array_equal(padded.labels[known], plain.labels)
    assert set(padded.labels[~known]) == {np.bincount(plain.labels).argmax()}
    assert padded.expected_loss == plain.expected_loss
    balls = bg.credible_ball(m, plain, X, rng=0), bg.credible_ball(m, padded, more, rng=0)
    assert balls[0].radius == balls[1].radius
    np.testing.assert_array_equal(balls[1].horizontal[known], balls[0].horizontal)


def test_a_posterior_brings_its_own_rows_with_their_holes_and_errors():
    rng = np.random.default_rng(9)
    draws, X = random_mixture(rng, 2, 3, batch=(2, 20)), rng.normal(size=(30, 3))
    X[rng.random(X.shape) < 0.2] = np.nan
    table = any_rows(X, error_sd=rng.random(X.shape))
    own = bg.Posterior(draws, table=table)
    labels = np.arange(30) % 2
    part = bg.partition(own, rng=0)
    for function in (
        lambda *rows: bg.assign(*rows, rng=0).tail_probability,
        lambda *rows: bg.assign(*rows, partition=part, rng=0).probabilities,
        lambda *rows: bg.posterior_similarity(*rows),
        lambda *rows: bg.partition(*rows, rng=0).labels,
        lambda *rows: bg.filled_components(*rows, rng=0),
        lambda *rows: bg.merge_components(*rows).entropy_mean,
        lambda posterior, *X: bg.partition_scores(posterior, labels, *X, rng=0).adjusted_rand.mean,
        lambda posterior, *X: bg.credible_ball(posterior, part, *X, rng=0).radius,
        lambda posterior, *X: bg.cluster_mixture(posterior, part, *X).means,
        lambda *rows: bg.impute(*rows).upper,
    ):
        np.testing.assert_array_equal(function(own), function(draws, table))


@pytest.mark.statistical
def test_components_of_rows_with_holes_are_drawn_as_often_as_probable():
    K, S = 3, 4000
    m = random_mixture(np.random.default_rng(8), K, 2)
    X = np.array([[0.3, np.nan], [np.nan, -0.2], [np.nan, np.nan], [0.5, 0.5]])
    batch = bg.GaussianMixture(*(np.broadcast_to(a, (S, *a.shape)) for a in (m.weights, m.means, m.covariances)))
    drawn = rows_under_draws(batch, X).assignments(np.random.default_rng(seed()))
    shares, expected = (drawn[:, :, None] == np.arange(K)).mean(axis=1), m.responsibilities(X)
    np.testing.assert_array_less(np.abs(shares - expected), deviation_allowed(expected, S, comparisons=expected.size))


def test_results_do_not_depend_on_the_blocks(overlapping_draws, monkeypatch):
    m, X = overlapping_draws
    whole = bg.assign(m, X)
    for size in (1.0, 8 * 120 * 3 * 5):  # one row at a time, and a few
        monkeypatch.setattr(rows_module, "_BLOCK_BYTES", size)
        small = bg.assign(m, X)
        for name in ("probabilities", "lower", "upper", "overlap", "log_prob"):
            np.testing.assert_allclose(getattr(small, name), getattr(whole, name), rtol=1e-12)


def test_thinned_draws_are_every_so_many(overlapping_draws):
    m, X = overlapping_draws
    draws = rows_under_draws(m, X)
    some = draws.thinned(7)
    np.testing.assert_array_equal(some.mixture.means, draws.mixture.means[::7])
    assert some.n_draws == len(range(0, 120, 7))


def test_more_components_than_labels_have_bits_for_are_refused():
    K = 256
    m = bg.GaussianMixture(np.full((1, K), 1 / K), np.arange(K)[None, :, None], np.ones((1, K, 1, 1)))
    with pytest.raises(bg.InputError, match=r"at most \d+ components can be looked at row by row, not 256"):
        bg.assign(m, [[0.0], [1.0]])


def test_mean_responsibilities_are_those_of_the_draws_averaged(overlapping_draws):
    batch, X = overlapping_draws
    expected = batch.responsibilities(X).mean(axis=(0, 1))
    np.testing.assert_allclose(rows_under_draws(batch, X).mean_responsibilities(), expected, rtol=1e-10)
