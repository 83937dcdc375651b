"""A posterior by the clusters of a partition in place of components: sums over components, so labels do not matter.

In a draw, a cluster has a share of each component: of the rows that the component is responsible for, those that are
in the cluster. A row belongs with a cluster as far as the components it may be of are the cluster's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from bayesgmm.clusters.partition import Partition, partition
from bayesgmm.clusters.rows_under_draws import EIGHT, Block, RowsUnderDraws, rows_under_draws
from bayesgmm.errors import InputError
from bayesgmm.expectation import in_threads, n_threads
from bayesgmm.mixture import GaussianMixture

_BLOCK_BYTES = 3e6  # of responsibilities that a thread holds at a time
_ROWS = 4096  # at a time


def cluster_mixture(posterior: Any, partition: Partition, X: Any = None) -> GaussianMixture:
    """Weight, mean and covariance of each cluster of a partition under every draw, whatever the components' labels.

    Parameters
    ----------
    posterior : DataTree, Posterior or GaussianMixture
        From `sample_posterior`, or a mixture whose batch axes are the draws; relabelled or not.
    partition : Partition
        From `partition`.
    X : (N, D) table, optional
        The rows of the partition; by default those the posterior was fitted to.

    Returns
    -------
    GaussianMixture
        With the batch shape of the draws, one component for each cluster, and the draws' noise if they have any.

    Raises
    ------
    InputError
        If the partition is not of these rows.

    Notes
    -----
    With r_ik the responsibilities of a draw and N_ck their sum over the n_c rows of cluster c, the draw's components
    are divided among the clusters:

    * the weight of a cluster is sum_k w_k N_ck / N_k, its share of each component's weight;
    * its mean and covariance are those of a new row drawn from the component of a random row of the cluster, that is,
      of a mixture of the components in the proportions N_ck / n_c.

    Where every cluster is one component and no row is in doubt, these are the component's own; rows in doubt widen them
    a little. They are sums over components, which no relabelling changes; a component without rows adds nothing to
    means and covariances.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> tree = bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), draws=500, chains=2, rng=0)
    >>> clusters = bg.cluster_mixture(tree, bg.partition(tree, rng=0))
    >>> clusters.batch_shape, clusters.weights.mean(axis=(0, 1)).round(1)
    ((2, 500), array([0.4, 0.6]))
    """
    draws = rows_under_draws(posterior, X)
    m, counts = draws.mixture, cluster_counts(draws, partition)
    weights = np.einsum("sk,kcs->sc", m.weights, shares(counts))
    inner = counts / counts.sum(axis=0)  # of each cluster's rows, those of each component
    means = np.einsum("kcs,ski->sci", inner, m.means)
    offsets = m.means[:, None] - means[:, :, None]  # (S, C, K, D)
    covariances = np.einsum("kcs,skij->scij", inner, m.covariances)
    covariances += np.einsum("kcs,scki,sckj->scij", inner, offsets, offsets)
    C, D = means.shape[1:]
    return GaussianMixture(
        weights=weights.reshape(*draws.shape, C),
        means=means.reshape(*draws.shape, C, D),
        covariances=covariances.reshape(*draws.shape, C, D, D),
        noise_weight=None if m.noise_weight is None else np.reshape(m.noise_weight, draws.shape),
        noise=m.noise,
    )


def stray_rate(posterior: Any, labels: np.ndarray) -> float:
    """Share of the draws in which some component is not where its rows are.

    That is, of the rows labelled with it another component holds more; labels (N,) are 0, ..., K - 1, or -1 for noise.
    Components that no row is labelled with do not count.
    """
    draws = rows_under_draws(posterior)
    K = draws.mixture.n_components
    holder = _counts(draws, labels, K).argmax(axis=0)  # (K, S): of each label's rows
    strays = (holder != np.arange(K)[:, None]) & (np.bincount(labels[labels >= 0], minlength=K) > 0)[:, None]
    return float(strays.any(axis=0).mean())


def cluster_counts(draws: RowsUnderDraws, partition: Partition) -> np.ndarray:
    """Expected rows (K, C, S) of each component that lie in each cluster, under every draw."""
    if not isinstance(partition, Partition):
        raise InputError(f"partition must be the result of bg.partition, not {type(partition).__name__}")
    if len(partition.labels) != draws.n_rows:
        raise InputError(f"the partition is of {len(partition.labels)} rows, the posterior of {draws.n_rows}")
    return _counts(draws, partition.labels, partition.n_clusters)


def _counts(draws: RowsUnderDraws, labels: np.ndarray, C: int) -> np.ndarray:
    """Sums (K, C, S) of the responsibilities over the rows of each label 0, ..., C - 1."""
    N, K, S = draws.n_rows, draws.mixture.n_components, draws.n_draws
    counts = np.full((K, C, S), 1e-300)  # a component far from every row is any cluster's
    width = max(int(_BLOCK_BYTES / (8 * min(N, _ROWS) * K)) // EIGHT, 1) * EIGHT

    def task(part: range) -> None:
        for first in part[::width]:
            some = slice(first, min(first + width, part.stop))
            for row in range(0, N, _ROWS):
                rows = slice(row, row + _ROWS)
                inside = labels[rows] == np.arange(C)[:, None]
                counts[:, :, some] += np.einsum("cn,nks->kcs", inside, draws.block(rows, some).responsibilities)

    step = -(-S // (4 * n_threads() * EIGHT)) * EIGHT
    in_threads(task, [range(s, min(s + step, S)) for s in range(0, S, step)])
    return counts


def partition_from_some(posterior: Any, n_rows: int, *, rng: Any = None) -> Partition:
    """The partition of ``n_rows`` of a posterior's rows drawn at random, each other row where it most probably belongs.

    Its losses are those among the rows that were drawn: a partition of all rows of a large table would take long.
    """
    rng = np.random.default_rng(rng)
    every = rows_under_draws(posterior)
    chosen = np.sort(rng.choice(every.n_rows, n_rows, replace=False))
    some = replace(every, table=every.table.take(chosen))
    of_some = partition(posterior, some.table, rng=rng)
    share = shares(cluster_counts(some, of_some))
    labels = np.empty(every.n_rows, of_some.labels.dtype)

    def task(rows: np.ndarray, block: Block) -> None:
        p = by_cluster(block.responsibilities, share).mean(axis=-1)
        of_noise = 0.0 if block.noise is None else block.noise.mean(axis=-1)
        labels[rows] = np.where(of_noise > p.max(axis=1), -1, p.argmax(axis=1))

    every.each_block(task)
    labels[chosen] = of_some.labels
    reference = None if every.em is None else every.em.predict(every.table)
    return replace(of_some, labels=labels, reference_labels=reference)


def shares(counts: np.ndarray) -> np.ndarray:
    """Share (K, C, S) of each component that a cluster has."""
    return counts / counts.sum(axis=1, keepdims=True)


def by_cluster(responsibilities: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Probabilities (n, C, S) that rows belong with each cluster, from responsibilities (n, K, S) and shares."""
    return np.einsum("nks,kcs->ncs", responsibilities, shares)
