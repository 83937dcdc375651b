"""Which components to merge, where several Gaussians make one cluster."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from bayesgmm import native
from bayesgmm.clusters.rows_under_draws import EIGHT, rows_under_mixtures
from bayesgmm.errors import InputError
from bayesgmm.expectation import in_threads, n_threads
from bayesgmm.intervals import level, tails
from bayesgmm.names import counted
from bayesgmm.native import address


@dataclass(frozen=True, slots=True, eq=False)
class Merging:
    """Components merged pair by pair, down to a single cluster. Row n - 1 of each array is for n clusters.

    Attributes
    ----------
    groups : (K, K)
        The cluster 0, 1, ..., n - 1 that each component is in, by the EM fit or the single mixture; for draws without a
        fit, by their mean responsibilities.
    entropy : (K,)
        Entropy of the responsibilities of n clusters in the same hierarchy, summed over the rows, in nats.
    entropy_mean, entropy_lower, entropy_upper : (K,)
        Posterior mean and equal-tailed interval of the entropy; each draw has a hierarchy of its own.
    together : (K, K, K)
        Probability that two components share a cluster; 0 or 1 without a posterior. Needs relabelled draws.
    responsibilities : (N, K)
        The responsibilities that the hierarchy was made from.
    ci_prob : float

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> merging = bg.merge_components(bg.fit_em(X, 3, "tied", rng=0), X)
    >>> merging.groups
    array([[0, 0, 0],
           [0, 1, 1],
           [0, 1, 2]])
    >>> merging
    Merging(3 components down to 1 cluster, 272 rows, the entropy bends at 2 clusters)
    """

    groups: np.ndarray
    entropy: np.ndarray
    entropy_mean: np.ndarray
    entropy_lower: np.ndarray
    entropy_upper: np.ndarray
    together: np.ndarray
    responsibilities: np.ndarray
    ci_prob: float

    def __repr__(self) -> str:
        (N, K), elbow = self.responsibilities.shape, self.elbow
        bend = "" if elbow is None else f", the entropy bends at {counted(elbow, 'cluster')}"
        return f"Merging({counted(K, 'component')} down to 1 cluster, {counted(N, 'row')}{bend})"

    @property
    def merges(self) -> np.ndarray:
        """The two clusters merged in each step, each given by the smallest label of its components, (K - 1, 2)."""
        K = len(self.groups)
        steps = np.empty((K - 1, 2), np.int64)
        for step, (before, after) in enumerate(pairwise(self.groups[::-1])):
            heads = np.unique(before, return_index=True)[1]
            steps[step] = next((i, j) for i in heads for j in heads if i < j and after[i] == after[j])
        return steps

    @property
    def elbow(self) -> int | None:
        """Number of clusters where the entropy starts to rise steeply, or None for fewer than three components.

        Two straight lines that meet there fit the entropies best (Baudry et al. 2010).
        """
        K = len(self.entropy)
        if K < 3:
            return None
        n = np.arange(1, K + 1)

        def misfit(some: slice) -> float:
            x, y = n[some], self.entropy[some]
            return float(((y - np.polyval(np.polyfit(x, y, 1), x)) ** 2).sum()) if len(x) > 2 else 0.0

        return min(range(2, K), key=lambda c: misfit(slice(0, c)) + misfit(slice(c - 1, K)))

    def labels(self, n_clusters: int) -> np.ndarray:
        """Each row's most probable cluster after merging down to ``n_clusters``, (N,); -1 where noise is likelier."""
        K = len(self.groups)
        if n_clusters not in range(1, K + 1):
            raise InputError(f"n_clusters must be between 1 and {K}, not {n_clusters!r}")
        R = self.responsibilities @ (self.groups[n_clusters - 1][:, None] == np.arange(n_clusters))
        return np.where(R.max(axis=1) >= 1 - R.sum(axis=1), R.argmax(axis=1), -1)


def merge_components(source: Any, X: Any = None, ci_prob: float | None = None) -> Merging:
    """Merge components step by step, each time the pair that reduces the entropy of the responsibilities most.

    Parameters
    ----------
    source : EMFit, GaussianMixture, DataTree or Posterior
        A fit or a mixture, or the posterior from `sample_posterior`, for the hierarchy's uncertainty.
    X : (N, D) table, optional
        The rows; needed unless the source is a posterior, which has its own.
    ci_prob : float, optional
        Probability of the intervals; ``arviz.rcParams["stats.ci_prob"]`` by default.

    Returns
    -------
    Merging

    Raises
    ------
    InputError
        If there are no rows, or they cannot be used.

    Notes
    -----
    Each step merges the two clusters whose union reduces the entropy -sum r log r, summed over all rows, most (Baudry
    et al. 2010). The density is unchanged; only its interpretation changes.

    References
    ----------
    Baudry, Raftery, Celeux, Lo & Gottardo (2010), Journal of Computational and Graphical Statistics 19, 332-353.
    doi:10.1198/jcgs.2010.08111

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> merging = bg.merge_components(bg.fit_em(X, 3, "tied", rng=0), X)
    >>> merging.merges[0], merging.labels(2).max()
    (array([1, 2]), np.int64(1))
    """
    ci_prob = level(ci_prob)
    draws = rows_under_mixtures(source, X)
    R = draws.mean_responsibilities() if draws.em is None else draws.em.responsibilities(draws.table)
    K = R.shape[1]
    entropy, groups = np.empty(K), np.empty((K, K), np.int64)
    _hierarchy(R, entropy, groups)
    S = draws.n_draws
    entropies, every = np.empty((S, K)), np.empty((S, K, K), np.int64)

    def task(some: range) -> None:
        for first in some[::EIGHT]:
            last = min(first + EIGHT, S)
            block = draws.block(draws=slice(first, last)).responsibilities
            for s in range(first, last):
                _hierarchy(block[:, :, s - first], entropies[s], every[s])

    step = max(-(-S // (8 * n_threads())) // EIGHT, 1) * EIGHT
    in_threads(task, [range(s, min(s + step, S)) for s in range(0, S, step)])
    lower, upper = np.quantile(entropies, tails(ci_prob), axis=0)
    together = np.mean([g[:, :, None] == g[:, None, :] for g in every], axis=0)
    return Merging(groups, entropy, entropies.mean(axis=0), lower, upper, together, R, ci_prob)


def _hierarchy(R: np.ndarray, entropy: np.ndarray, groups: np.ndarray) -> None:
    """Merge the components of responsibilities (N, K); fill entropy (K,) and groups (K, K), row n - 1 of n clusters."""
    columns = np.array(R.T, order="C")  # a copy, which the merging overwrites
    native.merge(address(columns), *columns.shape, address(entropy), address(groups, np.int64))
