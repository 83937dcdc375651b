"""Matching the components of one mixture, or of each draw of a posterior, to those of another."""

from __future__ import annotations

import numpy as np

from bayesgmm.mixture import GaussianMixture


def divergence(mixture: GaussianMixture, target: GaussianMixture) -> np.ndarray:
    """Symmetric Kullback-Leibler divergence (nats) of components j of the mixture and k of the target, (..., K, K).

    The target is one mixture for the whole batch, or one for each of it.
    """
    P, Q = mixture.precisions_cholesky, target.precisions_cholesky
    precision, target_precision = P @ np.swapaxes(P, -1, -2), Q @ np.swapaxes(Q, -1, -2)
    shift = mixture.means[..., :, None, :] - target.means[..., None, :, :]
    both = precision[..., :, None, :, :] + target_precision[..., None, :, :, :]
    traces = np.einsum("...jab,...kab->...jk", precision, target.covariances)
    traces += np.einsum("...jab,...kab->...jk", mixture.covariances, target_precision)
    distances = np.einsum("...jka,...jkab,...jkb->...jk", shift, both, shift)
    return 0.5 * (traces + distances) - mixture.n_features


def match(mixture: GaussianMixture, target: GaussianMixture) -> np.ndarray:
    """Order (..., K) that makes component k of the permuted mixture the one matched to component k of the target.

    The matching is one to one and has the least total `divergence`.
    """
    return cheapest_order(divergence(mixture, target))


def cheapest_order(cost: np.ndarray) -> np.ndarray:
    """Order (..., K) that gives each column of costs (..., K, K) a row of its own at the least total (Hungarian)."""
    from scipy.optimize import linear_sum_assignment

    excess = cost - cost.min(axis=-1, keepdims=True)  # a constant per row changes no comparison of orders
    order = excess.argmin(axis=-2)  # the cheapest row of each column: optimal wherever it is one to one
    clash = np.sort(order, axis=-1) != np.arange(cost.shape[-1])
    for index in zip(*np.nonzero(clash.any(axis=-1)), strict=True) if order.ndim > 1 else [()] * bool(clash.any()):
        order[index] = linear_sum_assignment(cost[index].T)[1]
    return order


def margin(cost: np.ndarray, order: np.ndarray) -> np.ndarray:
    """How much more (...) the second-best order costs than the cheapest; infinite where there is no other, K = 1.

    Any other order hands rows on around cycles of columns. The shortest cycle is found for the whole batch at once by
    the algorithm of Floyd (1962) and Warshall.
    """
    K = cost.shape[-1]
    by_taker = np.take_along_axis(cost, order[..., None], axis=-2)  # [l, k]: column k with the row that l has
    extra = by_taker - np.einsum("...kk->...k", by_taker)[..., None, :]
    extra[..., range(K), range(K)] = np.inf
    for m in range(K):
        np.minimum(extra, extra[..., :, m, None] + extra[..., None, m, :], out=extra)
    return np.maximum(np.einsum("...kk->...k", extra).min(axis=-1), 0.0)
