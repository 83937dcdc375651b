"""The search for partitions of small expected loss, and losses between partitions (Dahl, Johnson & Müller 2022).

Partitions are drawn from the posterior, one for each draw, as labels (N, S); their contingency tables with another
partition give both losses. Rows with the same labels in every draw are one item with a weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import c_double
from typing import NamedTuple

import numpy as np

from bayesgmm import native
from bayesgmm.clusters.rows_under_draws import RowsUnderDraws
from bayesgmm.expectation import in_threads
from bayesgmm.native import address

_MOST_ENTRIES = 2e8  # of the table of drawn assignments; beyond it the draws are thinned
_MOST_LINKED = 2000  # rows with distinct assignments that hierarchical clustering starts from


class DrawnPartitions(NamedTuple):
    """Partitions of items drawn from the posterior, and the function phi of cluster sizes that makes the loss.

    The loss between two partitions is the sum of phi over the clusters' sizes in each, less twice that over the sizes
    of their intersections.
    """

    labels: np.ndarray  # (U, S), of each item in each partition
    weight: np.ndarray  # (U,), rows that an item stands for
    phi: np.ndarray  # (N + 1,), of sizes 0, ..., N

    @property
    def compiled(self) -> native.Partitions:
        """As compiled code takes it, while this is kept."""
        arrays = address(self.labels, np.uint8), address(self.weight, np.int64), address(self.phi)
        return native.Partitions(*self.labels.shape, int(self.labels.max()) + 1, *arrays)

    def distances(self, labels: np.ndarray) -> np.ndarray:
        """Loss between labels (U,) and each drawn partition, (S,)."""
        labels, out = np.ascontiguousarray(labels, dtype=np.int64), np.empty(self.labels.shape[1])
        native.losses(self.compiled, address(labels, np.int64), int(labels.max()) + 1, address(out))
        return out

    def minimise(self, labels: np.ndarray, max_clusters: int, n_dissolved: int, rng: np.random.Generator) -> float:
        """Improve labels (U,) in place; the loss reached, less a constant.

        Items with the label -1 are allocated first. At the end ``n_dissolved`` clusters are dissolved and built anew.
        """
        loss = c_double()
        to = address(labels, np.int64)
        native.minimise(self.compiled, max_clusters, n_dissolved, native.random(rng), to, loss)
        return loss.value

    def descend(
        self, starts: Sequence[np.ndarray], max_clusters: int, n_dissolved: int, rng: np.random.Generator
    ) -> dict[bytes, float]:
        """Distinct local minima from the starts, labels by first appearance as bytes, and their losses."""
        seeds = rng.integers(2**63, size=len(starts)).tolist()

        def task(i: int) -> tuple[np.ndarray, float]:
            labels = starts[i].copy()
            loss = self.minimise(labels, max_clusters, n_dissolved, np.random.default_rng(seeds[i]))
            return by_appearance(labels), loss

        return {labels.tobytes(): loss for labels, loss in in_threads(task, range(len(starts)))}


def drawn_partitions(draws: RowsUnderDraws, loss: str, rng: np.random.Generator) -> DrawnPartitions:
    """One partition of all rows for each draw, of draws thinned to the budget of memory; each row an item."""
    step = int(np.ceil(draws.n_rows * draws.n_draws / _MOST_ENTRIES))
    labels = (draws if step <= 1 else draws.thinned(step)).assignments(rng)
    size = np.arange(len(labels) + 1, dtype=np.float64)
    phi = size * np.log(np.maximum(size, 1)) / len(labels) if loss == "vi" else (size / len(labels)) ** 2
    return DrawnPartitions(labels, np.ones(len(labels), np.int64), phi)


def grouped(drawn: DrawnPartitions) -> tuple[DrawnPartitions, np.ndarray]:
    """The partitions with rows that have the same labels in every draw as one item; and the item of each row, (N,)."""
    seen: dict[bytes, int] = {}
    item = np.array([seen.setdefault(row.tobytes(), len(seen)) for row in drawn.labels])
    first = np.unique(item, return_index=True)[1]
    return DrawnPartitions(drawn.labels[first], np.bincount(item), drawn.phi), item


def linkage_cuts(labels: np.ndarray, most: int) -> list[np.ndarray]:
    """Cuts into 1, ..., ``most`` clusters of the average-linkage tree of 1 - co-clustering, from some of the draws."""
    from scipy.cluster.hierarchy import cut_tree, linkage

    U = len(labels)
    if not 2 <= U <= _MOST_LINKED:
        return [np.zeros(U, np.int64)]
    some = labels[:, :: max(labels.shape[1] // 500, 1)]
    apart = np.concatenate([(some[i] != some[i + 1 :]).mean(axis=1) for i in range(U - 1)])
    cuts = np.arange(1, min(most, U) + 1)
    return list(cut_tree(linkage(apart, "average"), n_clusters=cuts).T)


def by_appearance(labels: np.ndarray) -> np.ndarray:
    """The same partition with clusters labelled 0, 1, ... as they first appear."""
    _, first, codes = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[codes].astype(np.int64)


def matched(labels: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Clusters relabelled as those of the target that they share most rows with, one to one, the others after them.

    Also the target's label of each cluster by first appearance, -1 for one without a match.
    """
    from scipy.optimize import linear_sum_assignment

    labels = by_appearance(labels)
    A, B = int(labels.max()) + 1, int(target.max()) + 1
    shared = np.bincount(labels * B + target, minlength=A * B).reshape(A, B)
    match = np.full(A, -1)
    for a, b in zip(*linear_sum_assignment(shared, maximize=True), strict=True):
        match[a] = b if shared[a, b] else -1
    spare = iter(range(B, A + B))
    return np.array([n if n >= 0 else next(spare) for n in match])[labels], match


def ordered(labels: np.ndarray, em_labels: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Labels 0, 1, ... in the order of the components that they match, and those components."""
    labels = by_appearance(labels)
    if em_labels is None:
        return labels, np.full(int(labels.max()) + 1, -1)
    match = matched(labels, em_labels)[1]
    order = np.lexsort((match, match < 0))
    return np.argsort(order)[labels], match[order]
