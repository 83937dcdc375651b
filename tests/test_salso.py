"""Losses between partitions and the search for the best of all, held against direct sums and enumeration."""

import numpy as np
import pytest
from oracles import direct_loss, random_mixture

import bayesgmm as bg
from bayesgmm.clusters.rows_under_draws import rows_under_draws
from bayesgmm.clusters.salso import drawn_partitions, grouped

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
