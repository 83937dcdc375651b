"""Losses between partitions and the search for the best of all, held against direct sums and enumeration."""

import numpy as np
import pytest
from oracles import direct_loss, random_mixture

import bayesgmm as bg
from bayesgmm.clusters.rows_under_draws import rows_under_draws
from bayesgmm.clusters.salso import by_appearance, drawn_partitions, grouped, linkage_cuts, matched, ordered

LOSSES = ("vi", "binder")


def all_partitions(n):
    """Every partition of n rows, as labels by first appearance."""

    def grow(labels, used):
        if len(labels) == n:
            yield labels
            return
        for a in range(used + 1):
            yield from grow([*labels, a], max(used, a + 1))

    return np.array(list(grow([0], 1)))


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_equal_the_direct_computation(overlapping_draws, loss):
    m, X = overlapping_draws
    drawn = drawn_partitions(rows_under_draws(m, X), loss, np.random.default_rng(0))
    a = np.random.default_rng(1).integers(0, 4, len(X))
    fast = drawn.distances(a)
    slow = [direct_loss(a, labels, loss) for labels in drawn.labels.T.astype(int)]
    np.testing.assert_allclose(fast, slow, atol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_search_finds_the_best_of_all_partitions(loss):
    candidates = all_partitions(8)
    assert len(candidates) == 4140  # Bell's number
    for case in range(12):
        rng = np.random.default_rng(case)
        m, X = random_mixture(rng, 3, 2, batch=(25,)), rng.normal(size=(8, 2)) * 2
        best = bg.partition(m, X, loss=loss, rng=case)
        drawn = drawn_partitions(rows_under_draws(m, X), loss, np.random.default_rng(case))
        losses = [drawn.distances(c).mean() for c in candidates]
        assert best.expected_loss == pytest.approx(min(losses), abs=1e-12)
        assert best.expected_loss == pytest.approx(
            np.mean([direct_loss(best.labels, c, loss) for c in drawn.labels.T.astype(int)])
        )


@pytest.mark.parametrize("loss", LOSSES)
def test_moving_equal_rows_as_one_loses_nothing(loss):
    m, X = random_mixture(np.random.default_rng(3), 3, 2, batch=(20,)), np.zeros((8, 2))
    labels = np.random.default_rng(3).integers(0, 3, size=(4, 20)).astype(np.uint8)[[0, 0, 1, 2, 2, 2, 3, 3]]
    drawn = drawn_partitions(rows_under_draws(m, X), loss, np.random.default_rng(0))._replace(labels=labels)
    items, item = grouped(drawn)
    np.testing.assert_array_equal(items.labels[item], labels)
    best = np.full(len(items.labels), -1)
    items.minimise(best, len(best), 10, np.random.default_rng(0))
    least = min(drawn.distances(c).mean() for c in all_partitions(8))
    assert items.distances(best).mean() == pytest.approx(least, abs=1e-12)


def test_labels_by_first_appearance_are_the_same_partition():
    np.testing.assert_array_equal(by_appearance(np.array([7, 7, 2, 9, 2])), [0, 0, 1, 2, 1])


def test_clusters_take_the_label_of_those_they_share_most_rows_with():
    target = np.array([0, 0, 0, 1, 1, 2])
    labels, match = matched(np.array([5, 5, 5, 3, 3, 8]), target)
    np.testing.assert_array_equal(labels, target)
    assert match.tolist() == [0, 1, 2]
    labels, match = matched(np.array([0, 1, 2, 3, 3, 3]), np.array([0, 0, 0, 1, 1, 1]))
    assert sorted(match.tolist()) == [-1, -1, 0, 1]
    assert labels[3:].tolist() == [1, 1, 1]
    assert set(labels[:3]) == {0, 2, 3}  # what has no match gets a label that the target does not use


def test_clusters_are_in_the_order_of_the_components_that_they_match():
    labels, components = ordered(np.array([4, 4, 1, 1, 0]), np.array([2, 2, 0, 0, 0]))
    assert labels.tolist() == [1, 1, 0, 0, 2]
    assert components.tolist() == [0, 2, -1]
    labels, components = ordered(np.array([4, 4, 1]), None)
    assert (labels.tolist(), components.tolist()) == ([0, 0, 1], [-1, -1])


def test_cuts_of_the_linkage_tree_have_one_cluster_more_each():
    labels = np.repeat(np.random.default_rng(0).integers(0, 3, size=(5, 40)), [1, 2, 3, 1, 1], axis=0)
    cuts = linkage_cuts(labels, 4)
    assert [len(np.unique(cut)) for cut in cuts] == [1, 2, 3, 4]
    assert len(np.unique(cuts[2][3:6])) == 1  # rows that are always together are cut last
    assert [cut.tolist() for cut in linkage_cuts(labels[:1], 4)] == [[0]]
