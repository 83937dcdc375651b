"""One partition that sums the posterior up, and how far from it the posterior's other partitions lie.

Partitions are drawn from the posterior, one per draw, and compared by contingency tables. The components' labels are
never used, so that the draws need no relabelling.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bayesgmm.clusters import salso
from bayesgmm.clusters.rows_under_draws import RowsUnderDraws, rows_under_draws
from bayesgmm.clusters.scores import label_codes
from bayesgmm.errors import InputError
from bayesgmm.names import counted, percent
from bayesgmm.observations import positive_integer

_SPARE = 30  # clusters that a partition may have beyond the mixture's components, unless told
_POLISHED = 4  # local minima that are worked on further
_DISSOLVED = 10  # clusters of each that are dissolved and built anew
_DRAWN_STARTS = 4  # drawn partitions that the search starts from, and cuts of the tree beyond K clusters


@dataclass(frozen=True, slots=True, eq=False)
class Partition:
    """The partition with the least posterior expected loss.

    Attributes
    ----------
    labels : (N,)
        Clusters 0, 1, ..., in the order of the components that they match; -1 for rows that belong to none.
    components : (n_clusters,)
        The component of the EM fit that each cluster matches best, one to one; -1 for one without a match.
    expected_loss : float
        Mean loss between this partition and the posterior's: nats for "vi", a share of all pairs for "binder".
    reference_labels : (N,) or None
        The EM fit's labels, or the given ones.
    reference_loss : float
        Expected loss of the reference labels; NaN if there are none.
    loss : {"vi", "binder"}
    n_draws : int
        Number of partitions drawn from the posterior; expected losses are means over these.
    n_minima : int
        Number of distinct local minima in which the searches ended.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> tree = bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), method="laplace", rng=0)
    >>> best = bg.partition(tree, rng=0)
    >>> best.n_clusters, best.labels[:4]
    (2, array([1, 0, 1, 0]))
    >>> print(best)  # doctest: +ELLIPSIS
    Partition(272 rows in 2 clusters, expected vi loss 0.0... over ... draws)
    """

    labels: np.ndarray
    components: np.ndarray
    expected_loss: float
    reference_labels: np.ndarray | None
    reference_loss: float
    loss: str
    n_draws: int
    n_minima: int

    def __repr__(self) -> str:
        return (
            f"Partition({counted(len(self.labels), 'row')} in {counted(self.n_clusters, 'cluster')}, "
            f"expected {self.loss} loss {self.expected_loss:.4g} over {self.n_draws} draws)"
        )

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
        Vertical upper bound: of the partitions in the ball with the fewest clusters, the farthest from its centre.
    lower : (N,)
        Vertical lower bound: of the partitions in the ball with the most clusters, the farthest from its centre.
    horizontal : (N,)
        The partition in the ball that is farthest from its centre.
    upper_distance, lower_distance, horizontal_distance : float
    distances : (S,)
        Distance of every drawn partition from the centre.
    n_clusters : (S,)
        Number of clusters of every drawn partition.
    loss : {"vi", "binder"}
        The loss that all distances are measured in.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> tree = bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), method="laplace", rng=0)
    >>> ball = bg.credible_ball(tree, bg.partition(tree, rng=0), rng=0)
    >>> ball.horizontal_distance <= ball.radius
    True
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

    def __repr__(self) -> str:
        few, many = int(self.n_clusters.min()), int(self.n_clusters.max())
        of_draws = counted(few, "cluster") if few == many else f"{few} to {many} clusters"
        return (
            f"CredibleBall({percent(self.probability)} of {len(self.distances)} partitions are within {self.loss} loss "
            f"{self.radius:.4g}; all have {of_draws})"
        )


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
        Number of searches from scratch, in addition to those that start from the reference, from drawn partitions and
        from cuts of an average-linkage tree.
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
    A partition is drawn from each posterior draw; with phi(n) = n log n / N or n^2 / N^2 both losses are sum phi(n_a) +
    sum phi(m_b) - 2 sum phi(n_ab) over the contingency table of two partitions. Its mean over the draws is minimised as
    in SALSO (Dahl, Johnson & Müller 2022): rows are allocated one after another in random order, then reallocated until
    nothing improves; in the best few minima clusters are dissolved and built anew. Rows that share a cluster in every
    draw are moved together: as they move one after another the loss is concave, so no minimum needs to separate them.
    If there are more than 2 x 10^8 assignments, the draws are thinned evenly. Rows without any value say nothing and
    are in the largest cluster.

    Rows that are noise in a drawn partition are one group of it; groups of the partition that are noise in most draws
    belong to no cluster.

    References
    ----------
    Dahl, Johnson & Müller (2022), Journal of Computational and Graphical Statistics 31, 1189-1201.
    doi:10.1080/10618600.2022.2069779

    Meilă (2007), Journal of Multivariate Analysis 98, 873-895. doi:10.1016/j.jmva.2006.11.013

    Binder (1978), Biometrika 65, 31-38. doi:10.1093/biomet/65.1.31

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
    every = rows_under_draws(posterior, X)
    draws, known = _with_values(every)
    K = draws.mixture.n_components
    most = positive_integer(K + _SPARE if max_clusters is None else max_clusters, "max_clusters")
    rng = np.random.default_rng(rng)
    em_labels = None if draws.em is None else draws.em.predict(every.table)
    all_reference = em_labels if reference is None else _reference(reference, every.n_rows)
    reference = None if all_reference is None else _noise_last(all_reference[known], K)
    drawn = salso.drawn_partitions(draws, loss, rng)
    items, item = salso.grouped(drawn)
    most = min(len(items.labels), most)
    starts = _starts(items, item, n_runs, most, K, reference, rng)
    minima = items.descend(starts, most, 0, rng)
    best = sorted(minima, key=lambda labels: minima[labels])[:_POLISHED]
    polished = items.descend([np.frombuffer(labels, np.int64) for labels in best], most, _DISSOLVED, rng)
    least = np.frombuffer(min(polished, key=lambda labels: polished[labels]), np.int64)
    labels, components = salso.ordered(least[item], None if em_labels is None else _noise_last(em_labels[known], K))
    labels, components = _without_noise(labels, components, drawn, K)
    all_labels = np.full(every.n_rows, np.bincount(labels + 1)[1:].argmax() if len(components) else -1)
    all_labels[known] = labels
    return Partition(
        labels=all_labels,
        components=components,
        expected_loss=float(items.distances(least).mean()),
        reference_labels=all_reference,
        reference_loss=np.nan if reference is None else float(drawn.distances(reference).mean()),
        loss=loss,
        n_draws=drawn.labels.shape[1],
        n_minima=len(minima),
    )


def _noise_last(labels: np.ndarray, n_labels: int) -> np.ndarray:
    """The labels with a number of its own, the next after 0, ..., n_labels - 1, for the rows labelled -1."""
    return np.where(labels < 0, n_labels, labels)


def _without_noise(
    labels: np.ndarray, components: np.ndarray, drawn: salso.DrawnPartitions, n_components: int
) -> tuple[np.ndarray, np.ndarray]:
    """Labels (N,) of the clusters, -1 in groups that are noise in most draws, and the clusters' components."""
    in_noise = (drawn.labels == n_components).mean(axis=1)
    counts = np.bincount(labels, minlength=len(components))
    is_cluster = np.bincount(labels, in_noise, len(components)) <= counts / 2
    number = np.where(is_cluster, np.cumsum(is_cluster) - 1, -1)
    return number[labels], np.where(components < n_components, components, -1)[is_cluster]


def _with_values(draws: RowsUnderDraws) -> tuple[RowsUnderDraws, np.ndarray]:
    """The rows that have a value, which alone can be told apart, and their positions."""
    known = np.setdiff1d(np.arange(draws.n_rows), draws.table.empty)
    return (replace(draws, table=draws.table.take(known)) if len(known) < draws.n_rows else draws), known


def _reference(labels: Any, N: int) -> np.ndarray:
    """The user's reference as whole numbers."""
    reference = label_codes(labels, "reference")[0]
    if len(reference) != N:
        raise InputError(f"reference has {len(reference)} labels for {N} rows")
    return reference


def _starts(
    items: salso.DrawnPartitions,
    item: np.ndarray,
    n_runs: int,
    max_clusters: int,
    n_components: int,
    reference: np.ndarray | None,
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """Where the search starts: from nothing, drawn partitions, cuts of an average-linkage tree, the reference."""
    starts = [np.full(len(items.labels), -1)] * max(n_runs, 1)
    some = rng.choice(items.labels.shape[1], _DRAWN_STARTS)
    starts += [np.unique(items.labels[:, s], return_inverse=True)[1] for s in some]
    starts += salso.linkage_cuts(items.labels, min(max_clusters, n_components + _DRAWN_STARTS))
    if reference is not None:  # rows of one item may differ in the reference: the first one's label stands for all
        first = np.unique(item, return_index=True)[1]
        starts.append(np.unique(reference[first], return_inverse=True)[1])
    return [np.where(start < max_clusters, start, -1).astype(np.int64) for start in starts]


def credible_ball(
    posterior: Any, partition: Partition, X: Any = None, *, probability: float = 0.95, rng: Any = None
) -> CredibleBall:
    """Ball of partitions around a point estimate that has the given posterior probability, with its extreme members.

    Parameters
    ----------
    posterior : DataTree, Posterior or GaussianMixture
        The posterior that the partition summarises.
    partition : Partition
        From `partition`; its loss is the distance.
    X : (N, D) table, optional
        The rows of the partition; by default those the posterior was fitted to.
    probability : float
        Posterior probability of the ball.
    rng : Generator, seed or None
        For drawing one partition from each posterior draw.

    Returns
    -------
    CredibleBall
        Its partitions are labelled to agree with the point estimate where they can.

    Raises
    ------
    InputError
        If the partition is not of these rows.

    Notes
    -----
    The radius is the quantile of the distances to the drawn partitions; the bounds are drawn partitions within it.

    References
    ----------
    Wade & Ghahramani (2018), Bayesian Analysis 13, 559-626. doi:10.1214/17-BA1073

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
    if len(partition.labels) != draws.n_rows:
        raise InputError(f"the partition is of {len(partition.labels)} rows, the posterior of {draws.n_rows}")
    draws, known = _with_values(draws)
    centre = _noise_last(partition.labels[known], partition.n_clusters)
    drawn = salso.drawn_partitions(draws, partition.loss, np.random.default_rng(rng))
    distances = drawn.distances(centre)
    counts = np.array([len(np.unique(labels)) for labels in drawn.labels.T])
    radius = np.sort(distances)[int(np.ceil(probability * len(distances))) - 1]
    inside = distances <= radius

    def farthest(among: np.ndarray) -> tuple[np.ndarray, float]:
        s = int(np.where(among, distances, -1.0).argmax())
        labels = partition.labels.copy()
        of_known = salso.matched(drawn.labels[:, s], centre)[0]
        labels[known] = np.where(drawn.labels[:, s] < draws.mixture.n_components, of_known, -1)
        return labels, float(distances[s])

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
