"""Covariances and precisions in scikit-learn's four shapes, and the parameters that a user may start from, checked.

The ten models that scikit-learn does not have, and its own four by their three-letter names, have matrices (K, D, D).
The texts of the errors are scikit-learn's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import check_array

from bayesgmm.sklearn.estimator import FLOATS


def shaped(matrices: np.ndarray, covariance_type: str) -> np.ndarray:
    """Matrices (K, D, D), whether covariances, precisions or their factors, in the shape of a ``covariance_type``.

    Returns
    -------
    (K,) where "spherical", (K, D) where "diag", (D, D) where "tied", otherwise (K, D, D)
    """
    if covariance_type == "tied":
        return matrices[0]
    if covariance_type not in ("diag", "spherical"):
        return matrices
    diagonals = np.einsum("kii->ki", matrices)
    return diagonals if covariance_type == "diag" else diagonals[:, 0]


def matrices_of(values: np.ndarray, covariance_type: str, K: int, D: int) -> np.ndarray:
    """The matrices (K, D, D) that `shaped` gave these values of."""
    if covariance_type == "tied":
        return np.broadcast_to(values, (K, D, D))
    if covariance_type in ("diag", "spherical"):
        return values.reshape(K, -1, 1) * np.eye(D)
    return values


def check_weights(weights: Any, K: int) -> np.ndarray:
    """``weights_init`` as an array (K,).

    Raises
    ------
    ValueError
        Unless they are K numbers between 0 and 1 that sum to one.
    """
    weights = _checked(weights, (K,), "weights")
    if (weights < 0).any() or (weights > 1).any():
        raise ValueError(  # as scikit-learn has it, the least is called the maximum
            "The parameter 'weights' should be in the range [0, 1], but got "
            f"max value {weights.min():.5f}, min value {weights.max():.5f}"
        )
    if abs(1 - weights.sum()) > (1e-6 if weights.dtype == np.float32 else 1e-8):
        raise ValueError(f"The parameter 'weights' should be normalized, but got sum(weights) = {weights.sum():.5f}")
    return weights / weights.sum()


def check_means(means: Any, K: int, D: int) -> np.ndarray:
    """``means_init`` as an array (K, D).

    Raises
    ------
    ValueError
        If they have another shape.
    """
    return _checked(means, (K, D), "means")


def check_precisions(precisions: Any, covariance_type: str, K: int, D: int) -> np.ndarray:
    """The covariances (K, D, D) of ``precisions_init``, given in the shape of the ``covariance_type``.

    Raises
    ------
    ValueError
        If they have another shape or are not positive definite.
    """
    name = f"{covariance_type} precision"
    precisions = _checked(precisions, shaped(np.empty((K, D, D)), covariance_type).shape, name).astype(np.float64)
    if precisions.ndim < 3 and covariance_type != "tied":
        if (precisions <= 0).any():
            raise ValueError(f"'{name}' should be positive")
    elif not np.allclose(precisions, np.swapaxes(precisions, -1, -2)) or (np.linalg.eigvalsh(precisions) <= 0).any():
        raise ValueError(f"'{name}' should be symmetric, positive-definite")
    covariances = np.linalg.inv(matrices_of(precisions, covariance_type, K, D))
    return (covariances + np.swapaxes(covariances, 1, 2)) / 2


def _checked(values: Any, shape: tuple[int, ...], name: str) -> np.ndarray:
    values = check_array(values, dtype=FLOATS, ensure_2d=False, allow_nd=True)
    if values.shape != shape:
        raise ValueError(f"The parameter '{name}' should have the shape of {shape}, but got {values.shape}")
    return values
