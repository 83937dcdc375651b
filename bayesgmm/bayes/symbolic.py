"""Pieces of PyTensor graphs that the model and the priors share, in forms that compile fast."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytensor.tensor as pt


def product(a: Any, b: Any) -> Any:
    """Products (K, D, D) of small matrices, as sums: PyTensor takes half a minute to compile a product."""
    return (a[:, :, :, None] * b[:, None, :, :]).sum(axis=2)


def upper_triangular(diagonal_squares: Any, above: Any, copies: int, n_features: int) -> Any:
    """Upper triangular matrices (copies, D, D) from the squares of their diagonals and any entries above them."""
    diagonal = np.arange(n_features)
    A = pt.zeros((copies, n_features, n_features))
    A = A[:, diagonal, diagonal].set(pt.broadcast_to(pt.sqrt(diagonal_squares), A.shape[:2]))
    return A if above is None else A[:, *np.triu_indices(n_features, 1)].set(above)


def log_scale(weights: Any, P: Any, n_features: int) -> Any:
    """log w_k + log|P_k| - D/2 log 2 pi, (K,), as `GaussianMixture.log_scale` is in numbers."""
    log_determinant = pt.log(pt.diagonal(P, axis1=-2, axis2=-1)).sum(axis=-1)
    return pt.log(weights) + log_determinant - 0.5 * n_features * np.log(2 * np.pi)
