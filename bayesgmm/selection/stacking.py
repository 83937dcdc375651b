"""Stacking: weights for predictive densities so that their mixture predicts best."""

from __future__ import annotations

import numpy as np

_TOLERANCE, _MAX_ITERATIONS = 1e-10, 100_000  # the largest change of a weight at which to stop


def stacking_weights(log_density: np.ndarray) -> np.ndarray:
    """Weights of predictive densities whose mixture has the largest log density.

    Parameters
    ----------
    log_density : (M, N)
        Log density of each of N rows under each of M models that were fitted without the row, in nats.

    Returns
    -------
    (M,) ndarray
        Non-negative, summing to one.

    Notes
    -----
    The log density of a mixture of known densities is concave in the weights; EM climbs to its maximum.

    References
    ----------
    Yao, Y., Vehtari, A., Simpson, D. & Gelman, A. (2018). Using stacking to average Bayesian predictive distributions.
    Bayesian Analysis 13, 917-1007. https://doi.org/10.1214/17-BA1091

    Examples
    --------
    >>> import numpy as np
    >>> import bayesgmm as bg
    >>> bg.stacking_weights(np.log([[0.9, 0.9, 0.9, 0.1], [0.1, 0.1, 0.1, 0.9]])).round(3)
    array([0.812, 0.188])
    """
    density = np.exp(log_density - log_density.max(axis=0))
    weights = np.full(len(density), 1 / len(density))
    for _ in range(_MAX_ITERATIONS):
        share = density / (weights @ density)
        weights, last = weights * share.mean(axis=1), weights
        if np.abs(weights - last).max() < _TOLERANCE:
            break
    return weights / weights.sum()
