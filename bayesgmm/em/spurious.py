"""Which component makes a maximum spurious: one with so few rows that the likelihood is high there by chance.

Near any n rows of a table there is a maximum, the higher the closer they lie to a point, a line or a plane. What counts
is whether they lie closer than the closest of all subsets of n rows would if there were no such component. All of it is
the same in other units and along other axes.
"""

from __future__ import annotations

import math

import numpy as np

from bayesgmm.covariance import CovarianceModel, precisions_cholesky

THIN = 0.1  # in some direction, of the sd within components: only so thin a component can be spurious by chance
_SINGULAR = 1e-7  # sds within components: thinner than this is thin, however many the rows
_STEPS = 24  # at which the bound of a probability is looked at


def widths(covariances: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Least sd (..., K) of each component in any direction, relative to the sd within all components there."""
    share, D = weights / weights.sum(axis=-1, keepdims=True), covariances.shape[-1]
    pooled = np.einsum("...k,...kij->...ij", share, covariances)
    P = precisions_cholesky(pooled.reshape(-1, D, D))[0].reshape(*weights.shape[:-1], 1, D, D)
    return np.sqrt(np.linalg.eigvalsh(np.swapaxes(P, -1, -2) @ covariances @ P)[..., 0].clip(0))


def least_width(rows: np.ndarray, D: int) -> np.ndarray:
    """Width below which so many rows are close to a plane whatever there is around them."""
    return np.maximum(THIN ** np.maximum(rows - D, 0.0), _SINGULAR)


def log_chance_subsets(rows: float, n_subsets: float, gain: float, D: int, model: CovarianceModel) -> float:
    """Bound of the log of the expected number of subsets that gain so much by chance.

    ``rows`` drawn from a normal gain something in log-likelihood if they are given the normal that fits them best. The
    chance of a ``gain`` above g is at most E exp(t gain) / exp(t g) for any t > 0 (Chernoff), where the expectation is
    a ratio of gamma functions, since the determinant of their covariance is a product of chi-squares.

    Parameters
    ----------
    rows : float
        In the subset, n.
    n_subsets : float
        Log of the number of subsets of so many rows.
    gain : float
        Nats; of a component of a mixture its gain in log-likelihood and ``n_subsets``, since which rows are its own is
        not given.
    D : int
    model : CovarianceModel
        Which parts of a component's covariance are its own.

    References
    ----------
    Anderson (2003), An Introduction to Multivariate Statistical Analysis, 3rd ed., section 7.5 (determinants).
    """
    groups, size = _free_blocks(D, model)
    if rows <= size:
        return n_subsets
    best = 0.0
    for step in range(1, _STEPS):
        t = step / _STEPS * (1 - size / rows)
        before, after = (rows - 1) / 2, (rows - 1 - t * rows) / 2
        moment = D * t * rows / 2 * (math.log(rows / 2) - 1) - D * (after + 0.5) * math.log1p(-t)
        if model.shape != "V":
            moment += math.lgamma(D * after) - math.lgamma(D * before) + D * t * rows / 2 * math.log(D)
        else:
            moment += groups * sum(math.lgamma(after - j / 2) - math.lgamma(before - j / 2) for j in range(size))
        best = min(best, moment - t * gain)
    return n_subsets + best


def _free_blocks(D: int, model: CovarianceModel) -> tuple[int, int]:
    """How many blocks a component's own covariance has, and their size: the rows that one needs at least."""
    return (1, D) if model.name[1:] == "VV" else (D, 1)


def log_subsets(total: float, rows: float) -> float:
    """Log of the number of subsets of so many among the total number of rows."""
    return math.lgamma(total + 1) - math.lgamma(rows + 1) - math.lgamma(max(total - rows, 0.0) + 1)
