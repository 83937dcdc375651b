"""One partition that sums the posterior up, and how far from it the posterior's other partitions lie.

Partitions are drawn from the posterior, one per draw, and compared by contingency tables; the components' numbers are
never used, so that the draws need no relabelling.
"""

from __future__ import annotations

from ctypes import c_double
from dataclasses import dataclass
from typing import Any

import numpy as np

from bayesgmm import native
from bayesgmm.clusters.rows_under_draws import RowsUnderDraws, rows_under_draws
from bayesgmm.clusters.scores import _codes
from bayesgmm.errors import InputError
from bayesgmm.expectation import in_threads
from bayesgmm.native import address
from bayesgmm.observations import positive_integer

_MOST_ENTRIES = 2e8  # of the table of drawn assignments; beyond it the draws are thinned
_MOST_LINKED = 2000  # rows with distinct assignments that hierarchical clustering starts from
_SPARE = 30  # clusters that a partition may have beyond the mixture's components, unless told
_POLISHED = 4  # local minima that are worked on further
_ZEALOUS = 10  # clusters of each that are dissolved for a try


@dataclass(frozen=True, slots=True, eq=False)
class Partition:
    """The partition with the least posterior expected loss.

    Attributes
    ----------
    labels : (N,)
        Clusters 0, 1, ..., in the order of the components that they match.
    components : (n_clusters,)
        The component of the EM fit that each cluster matches best, one to one; -1 for one without a match.
    expected_loss : float
        Mean loss between this partition and the posterior's: nats for "vi", a share of all pairs for "binder".
    reference_labels : (N,) or None
        The EM fit's, or those that were given.
    reference_loss : float
        Expected loss of the reference labels; NaN without.
    loss : {"vi", "binder"}
    n_draws : int
        Partitions drawn from the posterior that the expected losses are means over.
    n_minima : int
        Distinct local minima that the search's starts ended in.
    """

    labels: np.ndarray
    components: np.ndarray
    expected_loss: float
    reference_labels: np.ndarray | None
    reference_loss: float
    loss: str
    n_draws: int
    n_minima: int

    @property
    def n_clusters(self) -> int:
        """Number of clusters."""
        return len(self.components)

    @property
    def gain(self) -> float:
        """Expected loss saved by preferring this partition to the reference labels."""
        return self.reference_loss - self.expected_loss


@dataclass(frozen=True, slots=True, eq=False)
class CredibleBall:
    """The partitions around a point estimate that hold the given posterior probability, and the extreme ones.

    Attributes
    ----------
    probability : float
    radius : float
        Least loss within which the partitions of that probability lie.
    upper : (N,)
        Vertical upper bound: of those with the fewest clusters, the farthest.
    lower : (N,)
        Vertical lower bound: of those with the most clusters, the farthest.
    horizontal : (N,)
        The farthest of all.
    upper_distance, lower_distance, horizontal_distance : float
    distances : (S,)
        Of every drawn partition.
    n_clusters : (S,)
        Of every drawn partition.
    loss : {"vi", "binder"}
        In which all distances are measured.
    """

    probability: float
    radius: float
    upper: np.ndarray
    lower: np.ndarray
    horizontal: np.ndarray
    upper_distance: float
    lower_distance: float
    horizontal_distance: float
    distances: np.ndarray
    n_clusters: np.ndarray
    loss: str


def partition(
    posterior: Any,
    X: Any = None,
    *,
    loss: str = "vi",
    reference: Any = None,
    max_clusters: int | None = None,
    n_runs: int = 16,
    rng: Any = None,
) -> Partition:
    """Partition of the rows with the least posterior expected loss that a search finds.

    Parameters
    ----------
    posterior : DataTree, Posterior or GaussianMixture
        From `sample_posterior`, or a mixture whose batch axes are the draws; relabelled or not.
    X : (N, D) table, optional
        Rows to partition; by default those the posterior was fitted to.
    loss : {"vi", "binder"}
        Variation of information (nats), or Binder's loss: the share of the N^2 ordered pairs of rows that one partition
        joins and the other separates. Binder's tends to add small clusters; "vi" seldom does.
    reference : (N,), optional
        Labels to compare with; by default those of the EM fit.
    max_clusters : int, optional
        By default 30 more than there are components.
    n_runs : int
        Searches from nothing, in addition to those from the reference, from drawn partitions and from cuts of an
        average-linkage tree.
    rng : Generator, seed or None

    Returns
    -------
    Partition

    Raises
    ------
    InputError
        If the loss is unknown, or the rows cannot be used.

    Notes
    -----
    A partition is drawn from each posterior draw; with phi(n) = n log n / N or n^2 / N^2 both losses are
    sum phi(n_a) + sum phi(m_b) - 2 sum phi(n_ab) over the contingency table of two partitions. Its mean over the draws
    is minimised as in SALSO (Dahl, Johnson & Müller 2022): rows are allocated one after another in random order, then
    reallocated until nothing improves; in the best few minima clusters are dissolved and built anew. Rows that share a
    cluster in every draw are moved as one: along a move of one after another of them the loss is concave, so that no
    minimum needs to separate them. Beyond 2 10^8 assignments the draws are thinned evenly.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> tree = bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), draws=500, chains=2, rng=0)
    >>> best = bg.partition(tree, rng=0)
    >>> best.n_clusters, best.components, best.gain >= 0
    (2, array([0, 1]), True)
    """
    if loss not in ("vi", "binder"):
        raise InputError(f"loss must be 'vi' or 'binder', not {loss!r}")
    n_runs = positive_integer(n_runs, "n_runs", least=0)
    draws = rows_under_draws(posterior, X)
    N, K = len(draws.X), draws.mixture.n_components
    rng = np.random.default_rng(rng)
    if reference is not None:
        reference = _codes(reference, "reference")[0]
        if len(reference) != N:
            raise InputError(f"reference has {len(reference)} labels for {N} rows")
    em_labels = None if draws.em is None else draws.em.predict(draws.X)
    reference = em_labels if reference is None else reference
    z, index, weight = _patterns(_assignments(draws, rng))
    first = np.unique(index, return_index=True)[1]
    room = min(len(z), positive_integer(K + _SPARE if max_clusters is None else max_clusters, "max_clusters"))
    phi = _phi(loss, N)
    starts = [np.full(len(z), -1)] * max(n_runs, 1)
    starts += [np.unique(z[:, s], return_inverse=True)[1] for s in rng.choice(z.shape[1], 4)]
    starts += _linkage_cuts(z, min(room, K + 4))
    if reference is not None:  # rows of one pattern may differ in the reference: the first one's label stands for all
        starts.append(np.unique(reference[first], return_inverse=True)[1])
    starts = [np.where(start < room, start, -1).astype(np.int64) for start in starts]
    minima = _descend(z, weight, phi, starts, room, 0, rng)
    best = sorted(minima, key=lambda key: minima[key])[:_POLISHED]
    polished = _descend(z, weight, phi, [np.frombuffer(key, np.int64) for key in best], room, _ZEALOUS, rng)
    found = np.frombuffer(min(polished, key=lambda key: polished[key]), np.int64)
    labels, components = _ordered(found[index], em_labels)
    reference_loss = np.nan
    if reference is not None:
        reference_loss = float(_distances(z[index], np.ones(N, np.int64), phi, reference).mean())
    return Partition(
        labels=labels,
        components=components,
        expected_loss=float(_distances(z, weight, phi, found).mean()),
        reference_labels=reference,
        reference_loss=reference_loss,
        loss=loss,
        n_draws=z.shape[1],
        n_minima=len(minima),
    )


def credible_ball(
    posterior: Any, partition: Partition, X: Any = None, *, probability: float = 0.95, rng: Any = None
) -> CredibleBall:
    """Ball of partitions around a point estimate that has the given posterior probability, with its extreme members.

    Parameters
    ----------
    posterior : DataTree, Posterior or GaussianMixture
        That the partition is of.
    partition : Partition
        From `partition`; its loss is the distance.
    X : (N, D) table, optional
        The rows of the partition; by default those the posterior was fitted to.
    probability : float
        Of the ball.
    rng : Generator, seed or None
        Draws one partition from each posterior draw.

    Returns
    -------
    CredibleBall
        Its partitions are numbered to agree with the point estimate where they can.

    Raises
    ------
    InputError
        If the partition is not of these rows.

    Notes
    -----
    Wade & Ghahramani (2018). The radius is the quantile of the distances to the drawn partitions; the bounds are
    drawn partitions within it.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> tree = bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), draws=500, chains=2, rng=0)
    >>> ball = bg.credible_ball(tree, bg.partition(tree, rng=0), rng=0)
    >>> bool((ball.distances <= ball.radius).mean() >= 0.95)
    True
    """
    if not 0 < probability < 1:
        raise InputError(f"probability must be between 0 and 1, not {probability!r}")
    if not isinstance(partition, Partition):
        raise InputError(
            f"credible_ball(posterior, partition) needs the result of partition, not {type(partition).__name__}"
        )
    draws = rows_under_draws(posterior, X)
    N = len(draws.X)
    if len(partition.labels) != N:
        raise InputError(f"the partition is of {len(partition.labels)} rows, the posterior of {N}")
    z = _assignments(draws, np.random.default_rng(rng))
    phi = _phi(partition.loss, N)
    distances = _distances(z, np.ones(N, np.int64), phi, partition.labels)
    counts = np.array([len(np.unique(column)) for column in z.T])
    radius = np.sort(distances)[int(np.ceil(probability * len(distances))) - 1]
    inside = distances <= radius

    def farthest(among: np.ndarray) -> tuple[np.ndarray, float]:
        s = int(np.where(among, distances, -1.0).argmax())
        return _matched(z[:, s], partition.labels)[0], float(distances[s])

    upper, upper_distance = farthest(inside & (counts == counts[inside].min()))
    lower, lower_distance = farthest(inside & (counts == counts[inside].max()))
    horizontal, horizontal_distance = farthest(inside)
    return CredibleBall(
        probability=probability,
        radius=float(radius),
        upper=upper,
        lower=lower,
        horizontal=horizontal,
        upper_distance=upper_distance,
        lower_distance=lower_distance,
        horizontal_distance=horizontal_distance,
        distances=distances,
        n_clusters=counts,
        loss=partition.loss,
    )


def _assignments(draws: RowsUnderDraws, rng: np.random.Generator) -> np.ndarray:
    """One drawn assignment of all rows for each draw, (N, S), of draws thinned to the budget."""
    step = int(np.ceil(len(draws.X) * draws.n_draws / _MOST_ENTRIES))
    return (draws if step <= 1 else draws.thinned(step)).assignments(rng)


def _patterns(z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct rows of z (U, S), which of them each row is (N,), and how often each occurs (U,)."""
    seen: dict[bytes, int] = {}
    index = np.array([seen.setdefault(row.tobytes(), len(seen)) for row in z])
    first = np.unique(index, return_index=True)[1]
    return z[first], index, np.bincount(index)


def _phi(loss: str, n: int) -> np.ndarray:
    """phi(0), ..., phi(n)."""
    count = np.arange(n + 1, dtype=np.float64)
    return count * np.log(np.maximum(count, 1)) / n if loss == "vi" else (count / n) ** 2


def _linkage_cuts(z: np.ndarray, most: int) -> list[np.ndarray]:
    """Cuts into 1, ..., ``most`` clusters of the average-linkage tree of 1 - co-clustering, from some of the draws."""
    from scipy.cluster.hierarchy import cut_tree, linkage

    U = len(z)
    if not 2 <= U <= _MOST_LINKED:
        return [np.zeros(U, np.int64)]
    some = z[:, :: max(z.shape[1] // 500, 1)]
    apart = np.concatenate([(some[i] != some[i + 1 :]).mean(axis=1) for i in range(U - 1)])
    cuts = np.arange(1, min(most, U) + 1)
    return list(cut_tree(linkage(apart, "average"), n_clusters=cuts).T)


def _descend(
    z: np.ndarray,
    weight: np.ndarray,
    phi: np.ndarray,
    starts: list[np.ndarray],
    room: int,
    zealous: int,
    rng: np.random.Generator,
) -> dict[bytes, float]:
    """Distinct local minima from the starts, labels by first appearance as bytes, and their losses."""
    seeds = rng.integers(2**63, size=len(starts)).tolist()

    def task(i: int) -> tuple[np.ndarray, float]:
        labels = starts[i].copy()
        loss = _minimise(z, weight, phi, room, zealous, np.random.default_rng(seeds[i]), labels)
        return _by_appearance(labels), loss

    results = in_threads(task, range(len(starts)))
    return {labels.tobytes(): loss for labels, loss in results}


def _by_appearance(labels: np.ndarray) -> np.ndarray:
    """The same partition with clusters numbered as they first appear."""
    _, first, codes = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[codes].astype(np.int64)


def _matched(labels: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels renumbered to those of the target that they share most rows with, one to one, the others after them.

    Also the target's number of each new one, in their order; -1 beyond.
    """
    from scipy.optimize import linear_sum_assignment

    labels = _by_appearance(labels)
    A, B = int(labels.max()) + 1, int(target.max()) + 1
    shared = np.bincount(labels * B + target, minlength=A * B).reshape(A, B)
    number = np.full(A, -1)
    for a, b in zip(*linear_sum_assignment(shared, maximize=True), strict=True):
        number[a] = b if shared[a, b] else -1
    spare = iter(range(B, A + B))
    return np.array([n if n >= 0 else next(spare) for n in number])[labels], number


def _ordered(labels: np.ndarray, em_labels: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Labels 0, 1, ... in the order of the components that they match, and those components."""
    labels = _by_appearance(labels)
    if em_labels is None:
        return labels, np.full(int(labels.max()) + 1, -1)
    number = _matched(labels, em_labels)[1]
    order = np.lexsort((number, number < 0))
    return np.argsort(order)[labels], number[order]


def _distances(z: np.ndarray, weight: np.ndarray, phi: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Loss between labels (U,) and each drawn partition (U, S) of items with weights, (S,)."""
    out, labels, z = np.empty(z.shape[1]), np.ascontiguousarray(labels, dtype=np.int64), np.ascontiguousarray(z)
    native.losses(_drawn(z, weight, phi), address(labels, np.int64), int(labels.max()) + 1, address(out))
    return out


def _minimise(
    z: np.ndarray,
    weight: np.ndarray,
    phi: np.ndarray,
    room: int,
    zealous: int,
    rng: np.random.Generator,
    labels: np.ndarray,
) -> float:
    """Improve labels (U,), -1 where an item is still to be allocated, in place; the loss reached, less a constant."""
    loss = c_double()
    native.minimise(_drawn(z, weight, phi), room, zealous, native.random(rng), address(labels, np.int64), loss)
    return loss.value


def _drawn(z: np.ndarray, weight: np.ndarray, phi: np.ndarray) -> native.Partitions:
    """Drawn partitions (U, S) of weighted items, for compiled code; the arrays are to be kept."""
    arrays = address(z, np.uint8), address(weight, np.int64), address(phi)
    return native.Partitions(*z.shape, int(z.max()) + 1, *arrays)
