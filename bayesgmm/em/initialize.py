"""Starts for EM: moments that a climb can begin from, the portfolio's or the user's own.

Seeds are drawn in whitened coordinates, where distances do not change with the units or the axes, so that X and X A + b
get the same starts. Nothing here climbs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit

from bayesgmm.covariance import precision_cholesky
from bayesgmm.errors import InputError
from bayesgmm.expectation import Parameters, expected_statistics
from bayesgmm.mixture import GaussianMixture
from bayesgmm.observations import Observations

NO_LABELS = np.empty(0, dtype=np.int64)
_SEEDING_ROWS = 2000  # rows per component that seeding looks at


def whole_table(table: Observations) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and covariance (D, D) of a table: the kernel with one component, the second time about the mean."""
    D = table.n_features
    center = table.values[0].copy()
    for _ in range(2):
        one = Parameters(np.zeros(1), np.zeros((1, D)), np.eye(D)[None])
        _, _, (counts, first, scatter) = expected_statistics(table.values, table.sample_weight, NO_LABELS, center, one)
        shift = first[0] / counts[0]
        center += shift
    return center, scatter[0] / counts[0] - np.outer(shift, shift)


@njit(cache=True)
def _plus_plus(Z, n_components, uniforms):
    """Labels (N,) of the rows of Z by nearest seed, seeds drawn by k-means++ (Arthur & Vassilvitskii 2007)."""
    N, D = Z.shape
    nearest, labels, total = np.full(N, np.inf), np.zeros(N, np.int64), 0.0
    for k in range(n_components):
        seed = min(int(uniforms[0] * N), N - 1)
        if k > 0 and total > 0.0:
            target = uniforms[k] * total
            seed = 0
            while seed < N - 1 and target > nearest[seed]:
                target -= nearest[seed]
                seed += 1
        total = 0.0
        for i in range(N):
            distance = 0.0
            for j in range(D):
                distance += (Z[i, j] - Z[seed, j]) ** 2
            if distance < nearest[i]:
                nearest[i] = distance
                labels[i] = k
            total += nearest[i]
    return labels


@njit(cache=True)
def moments_of_labels(X, labels, n_components):
    """Counts, means and covariances of labelled rows, each covariance drawn towards the pooled one by D + 1 rows.

    The pooled share keeps a cluster of few rows from starting singular.
    """
    N, D = X.shape
    K = n_components
    size = K * (1 + D + D * D)
    z = np.zeros(size)
    counts, means, S = z[:K], z[K : K + K * D].reshape(K, D), z[K + K * D :].reshape(K, D, D)
    for i in range(N):
        counts[labels[i]] += 1.0
        for j in range(D):
            means[labels[i], j] += X[i, j]
    for k in range(K):
        for j in range(D):
            means[k, j] /= max(counts[k], 1.0)
    for i in range(N):
        k = labels[i]
        for a in range(D):
            for b in range(D):
                S[k, a, b] += (X[i, a] - means[k, a]) * (X[i, b] - means[k, b])
    for a in range(D):
        for b in range(D):
            pooled = 0.0
            for k in range(K):
                pooled += S[k, a, b] / N
            for k in range(K):
                S[k, a, b] = (S[k, a, b] + (D + 1.0) * pooled) / (counts[k] + D + 1.0)
    for k in range(K):
        counts[k] = max(counts[k], 0.5)
    return z


def portfolio(
    table: Observations,
    center: np.ndarray,
    covariance: np.ndarray,
    n_components: int,
    n_starts: int,
    rng: np.random.Generator,
) -> list[tuple[str, np.ndarray]]:
    """``n_starts`` named moments: k-means++ in whitened coordinates, and every fourth a random partition."""
    X = table.values
    rows = _SEEDING_ROWS * n_components
    if table.n_observations > rows or table.sample_weight.size > 1:
        probability = None if table.sample_weight.size == 1 else table.sample_weight / table.total_weight
        X = X[np.sort(rng.choice(table.n_observations, min(rows, table.n_observations), p=probability))]
    X = X - center
    D = table.n_features
    whitener = np.empty((D, D))
    if precision_cholesky(covariance, whitener) <= 1e-13:  # collinear columns: only their scales can be removed
        whitener = np.diag(1.0 / np.sqrt(np.diag(covariance)))
    Z = X @ whitener
    scale = table.total_weight / len(X)
    starts = []
    for i in range(n_starts):
        random_partition = i % 4 == 3
        if random_partition:
            labels = rng.integers(n_components, size=len(X))
        else:
            labels = _plus_plus(Z, n_components, rng.random(n_components))
        moments = moments_of_labels(X, labels, n_components)
        moments[:n_components] *= scale
        starts.append(("random partition" if random_partition else "k-means++", moments))
    return starts


def given(
    starts: Sequence[Any], table: Observations, center: np.ndarray, n_components: int
) -> list[tuple[str, np.ndarray]]:
    """Named moments of the user's own starts: labels (N,), responsibilities (N, K) or a `GaussianMixture`."""
    if isinstance(starts, (str, bytes, GaussianMixture)) or not isinstance(starts, Sequence) or not len(starts):
        raise InputError("starts must be a list of labels (N,), responsibilities (N, K) or GaussianMixture values")
    return [_given(start, i, table, center, n_components) for i, start in enumerate(starts)]


def _given(start: Any, number: int, table: Observations, center: np.ndarray, K: int) -> tuple[str, np.ndarray]:
    N, D = table.values.shape
    if isinstance(start, GaussianMixture):
        if start.means.shape != (K, D):
            raise InputError(f"starts[{number}] has means of shape {start.means.shape}, not ({K}, {D})")
        counts = start.weights * table.total_weight
        parts = (counts, (start.means - center).ravel(), start.covariances.ravel())
        return "given mixture", np.concatenate(parts)
    array = np.asarray(start)
    if array.shape == (N,) and array.dtype.kind in "iub":
        if array.min() < 0 or array.max() >= K:
            row = int(np.flatnonzero((array < 0) | (array >= K))[0])
            raise InputError(f"starts[{number}] has label {array[row]} at row {row}; labels are 0..{K - 1}")
        return "given labels", _moments_of_responsibilities(np.eye(K)[array], table, center)
    if array.shape == (N, K) and array.dtype.kind in "fiub":
        if not (np.isfinite(array).all() and (array >= 0).all()):
            raise InputError(f"starts[{number}] has responsibilities that are negative or not finite")
        return "given responsibilities", _moments_of_responsibilities(array.astype(float), table, center)
    raise InputError(
        f"starts[{number}] must be whole-number labels ({N},), responsibilities ({N}, {K}) or a GaussianMixture, "
        f"not {type(start).__name__} of shape {array.shape}"
    )


def _moments_of_responsibilities(R: np.ndarray, table: Observations, center: np.ndarray) -> np.ndarray:
    X = table.values - center
    R = R * table.sample_weight[:, None]
    counts = R.sum(axis=0)
    means = R.T @ X / counts[:, None]
    S = np.stack([(X - means[k]).T @ ((X - means[k]) * R[:, [k]]) / counts[k] for k in range(R.shape[1])])
    return np.concatenate((counts, means.ravel(), S.ravel()))
