"""Matching the components of one mixture, or of each draw of a posterior, to those of another."""

from __future__ import annotations

import numpy as np

from bayesgmm.mixture import GaussianMixture


def divergence(mixture: GaussianMixture, target: GaussianMixture) -> np.ndarray:
    """Symmetric Kullback-Leibler divergence between components, in nats.

    Parameters
    ----------
    mixture : GaussianMixture
    target : GaussianMixture
        One for the whole batch of mixtures, or one for each of it.

    Returns
    -------
    (..., K, K)
        Of component j of the mixture and component k of the target at [..., j, k].
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
    """Order (..., K) for `GaussianMixture.permute` that puts the mixture's components where the target has theirs.

    Components are matched one to one, at the least total `divergence`.

    Examples
    --------
    >>> target = GaussianMixture([0.5, 0.5], [[0.0], [4.0]], np.ones((2, 1, 1)))
    >>> mixture = GaussianMixture([0.3, 0.7], [[4.1], [0.2]], np.ones((2, 1, 1)))
    >>> match(mixture, target)
    array([1, 0])
    """
    return cheapest_order(divergence(mixture, target))


def cheapest_order(cost: np.ndarray) -> np.ndarray:
    """Order (..., K) that gives each column of costs (..., K, K) a row of its own at the least total.

    References
    ----------
    Kuhn (1955), Naval Research Logistics Quarterly 2:83-97, doi:10.1002/nav.3800020109 (the Hungarian method).
    """
    from scipy.optimize import linear_sum_assignment

    excess = cost - cost.min(axis=-1, keepdims=True)  # a constant per row changes no comparison of orders
    order = excess.argmin(axis=-2)  # the cheapest row of each column: optimal wherever it is one to one
    clash = np.sort(order, axis=-1) != np.arange(cost.shape[-1])
    for index in zip(*np.nonzero(clash.any(axis=-1)), strict=True) if order.ndim > 1 else [()] * bool(clash.any()):
        order[index] = linear_sum_assignment(cost[index].T)[1]
    return order


def margin(cost: np.ndarray, order: np.ndarray) -> np.ndarray:
    """How much more (...) the second-best order costs than the cheapest; infinite for K = 1, which has no other order.

    Any other order passes rows on around cycles of columns. The cheapest cycle is found for the whole batch at once by
    the algorithm of Floyd and Warshall.

    References
    ----------
    Floyd (1962), Communications of the ACM 5:345, doi:10.1145/367766.368168.
    """
    K = cost.shape[-1]
    by_taker = np.take_along_axis(cost, order[..., None], axis=-2)  # [l, k]: column k with the row that l has
    extra = by_taker - np.einsum("...kk->...k", by_taker)[..., None, :]
    extra[..., range(K), range(K)] = np.inf
    for m in range(K):
        np.minimum(extra, extra[..., :, m, None] + extra[..., None, m, :], out=extra)
    return np.maximum(np.einsum("...kk->...k", extra).min(axis=-1), 0.0)
