"""Laws of a posterior by the clusters of a partition: nothing depends on the components' labels."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from oracles import random_mixture
from scipy.special import entr

import bayesgmm as bg
from bayesgmm.clusters import shares


@pytest.fixture(scope="module")
def case():
    """Draws of three components whose numbers mean nothing, rows, and a partition of them."""
    rng = np.random.default_rng(0)
    draws, X = random_mixture(rng, 3, 2, batch=(2, 13)), rng.normal(size=(30, 2)) * 2
    return draws, X, bg.partition(draws, X, rng=0)


def two_blobs(n=40):
    rng = np.random.default_rng(1)
    return rng.normal(size=(n, 2)) * 0.1 + 50 * np.repeat([[0], [1]], n // 2, axis=0)


def labelled(found, labels):
    return replace(found, labels=np.asarray(labels), components=np.full(max(labels) + 1, -1))


def test_no_renumbering_of_the_components_changes_anything(case):
    draws, X, found = case
    order = np.random.default_rng(2).permuted(np.tile(np.arange(3), (2, 13, 1)), axis=2)
    ours, theirs = (bg.cluster_mixture(d, found, X) for d in (draws, draws.permute(order)))
    for name in ("weights", "means", "covariances"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-9, atol=1e-12)
    a, b = (bg.assign(d, X, partition=found) for d in (draws, draws.permute(order)))
    for name in ("probabilities", "lower", "upper", "overlap", "mutual_information"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rows", [7, 4096])
def test_clusters_and_probabilities_equal_the_direct_computation(case, monkeypatch, rows):
    monkeypatch.setattr(shares, "_ROWS", rows)
    monkeypatch.setattr(shares, "_BLOCK_BYTES", 1)
    draws, X, _ = case
    found = labelled(case[2], [0, 1, 2] * 10)
    got, a = bg.cluster_mixture(draws, found, X), bg.assign(draws, X, 0.8, partition=found)
    inside = np.eye(3)[found.labels]
    every = np.empty((26, 30, 3))
    for s, (w, m, c) in enumerate(
        zip(
            *(
                getattr(draws, n).reshape(26, 3, *getattr(draws, n).shape[3:])
                for n in ("weights", "means", "covariances")
            ),
            strict=True,
        )
    ):
        R = bg.GaussianMixture(w, m, c).responsibilities(X)
        N = R.T @ inside  # component, cluster
        every[s] = R @ (N / N.sum(axis=1, keepdims=True))
        at = divmod(s, 13)
        np.testing.assert_allclose(got.weights[at], w @ (N / N.sum(axis=1, keepdims=True)))
        for k in range(3):
            q = N[:, k] / 10
            np.testing.assert_allclose(got.means[at][k], q @ m)
            second = np.einsum("k,kij->ij", q, c + np.einsum("ki,kj->kij", m, m))
            np.testing.assert_allclose(got.covariances[at][k], second - np.outer(q @ m, q @ m), atol=1e-10)
    np.testing.assert_allclose(a.probabilities, every.mean(axis=0))
    np.testing.assert_allclose(a.lower, np.quantile(every, 0.1, axis=0), atol=1e-12)
    np.testing.assert_allclose(a.upper, np.quantile(every, 0.9, axis=0), atol=1e-12)
    np.testing.assert_allclose(a.overlap, entr(every).sum(axis=2).mean(axis=0))
    np.testing.assert_array_equal(a.labels, found.labels)
    assert (a.group, a.partition) == ("cluster", found)


def test_clusters_that_are_components_are_described_as_components():
    X = two_blobs()
    near = bg.GaussianMixture([0.3, 0.7], [[0, 0], [50, 50]], np.tile(np.eye(2), (2, 1, 1)))
    draws = bg.GaussianMixture(*(np.stack([getattr(near, n)] * 9) for n in ("weights", "means", "covariances")))
    found = bg.partition(draws, X, rng=0)
    clusters = bg.cluster_mixture(draws, found, X)
    for name in ("weights", "means", "covariances"):
        np.testing.assert_allclose(getattr(clusters, name), getattr(draws, name), atol=1e-12)
    a, b = bg.assign(draws, X, partition=found), bg.assign(draws, X)
    np.testing.assert_allclose(a.probabilities, b.probabilities, atol=1e-12)
    np.testing.assert_array_equal(a.labels, b.labels)


def test_a_component_without_rows_adds_nothing_to_a_cluster():
    X = two_blobs()
    draws = bg.GaussianMixture(
        np.tile([0.5, 0.49, 0.01], (9, 1)),
        np.tile([[0, 0], [50, 50], [1e6, 1e6]], (9, 1, 1)),
        np.tile(np.eye(2), (9, 3, 1, 1)),
    )
    clusters = bg.cluster_mixture(draws, labelled(bg.partition(draws, X, rng=0), [0] * 20 + [1] * 20), X)
    np.testing.assert_allclose(clusters.means, draws.means[:, :2], atol=1e-9)
    np.testing.assert_allclose(clusters.covariances, draws.covariances[:, :2], atol=1e-9)
    np.testing.assert_allclose(clusters.weights.sum(axis=1), 1)


def test_one_cluster_holds_every_row_for_certain(case):
    draws, X, found = case
    one = labelled(found, [0] * len(X))
    np.testing.assert_allclose(bg.assign(draws, X, partition=one).probabilities, 1)
    np.testing.assert_allclose(bg.cluster_mixture(draws, one, X).weights, 1)


def tree_of(draws, X):
    dims = ("chain", "draw", "component", "feature", "feature_bis")
    values = {name: getattr(draws, name) for name in ("weights", "means", "covariances")}
    posterior = xr.Dataset({name: (dims[: v.ndim], v) for name, v in values.items()}, coords={"feature": ["x0", "x1"]})
    observed = xr.Dataset({"observations": (("observation", "feature"), X)})
    return xr.DataTree.from_dict({"posterior": posterior, "observed_data": observed})


@pytest.fixture(scope="module")
def apart():
    """Rows in two places, and draws of two components that stay there."""
    X, rng = two_blobs(), np.random.default_rng(3)
    means = np.array([[0, 0], [50, 50]]) + rng.normal(size=(2, 60, 2, 2)) * 0.1
    draws = bg.GaussianMixture(np.full((2, 60, 2), 0.5), means, np.tile(np.eye(2), (2, 60, 2, 1, 1)))
    return X, draws, tree_of(draws, X)


def test_components_stray_where_their_numbers_are_shuffled(apart):
    X, draws, tree = apart
    labels = bg.assign(tree).labels
    assert shares.stray_rate(tree, labels) == 0
    order = np.tile(np.arange(2), (2, 60, 1))
    order[:, :15] = [1, 0]
    shuffled = tree_of(draws.permute(order), X)
    assert shares.stray_rate(shuffled, labels) == 0.25
    assert shares.stray_rate(shuffled, 1 - labels) == 0.75


def test_a_component_that_labels_no_row_does_not_stray(case):
    draws, X, _ = case
    holder = draws.responsibilities(X).reshape(26, 30, 3).sum(axis=1).argmax(axis=1)
    assert shares.stray_rate(tree_of(draws, X), np.zeros(30, int)) == pytest.approx((holder != 0).mean())


def test_rows_beyond_those_partitioned_join_their_likeliest_cluster(apart):
    X, _, tree = apart
    some, every = shares.partition_from_some(tree, 25, rng=0), bg.partition(tree, rng=0)
    assert len(some.labels) == len(X)
    assert some.n_clusters == 2
    assert bg.adjusted_rand(some.labels, every.labels) == 1


def test_new_rows_are_assigned_to_the_clusters_of_the_fitted_ones(apart):
    found = bg.partition(apart[2], rng=0)
    a = bg.assign(apart[2], [[0.0, 0.0], [50.0, 50.0], [0.1, -0.1]], partition=found)
    assert a.labels.tolist() == [found.labels[0], found.labels[-1], found.labels[0]]


def test_a_partition_of_other_rows_is_refused(case, apart):
    _, _, found = case
    with pytest.raises(bg.InputError, match="the partition is of 30 rows, the posterior of 40"):
        bg.assign(apart[2], partition=found)
    with pytest.raises(bg.InputError, match=r"result of bg\.partition, not ndarray"):
        bg.cluster_mixture(apart[2], found.labels)
