"""Orientations in free coordinates: the axes of covariances as the orthogonal factors of free matrices.

A frame is a matrix Z (D, D - 1) = Q R, where Q has orthonormal columns and R is upper triangular with a positive
diagonal. The columns of Q, and the one direction that they leave, are the axes: the polar expansion of Jauch, Hoff &
Dunson (2021). Every matrix is allowed, so there is no border, and all orientations are equally probable where the
density of Z depends on R alone. What R is then says nothing about the covariances. If the entries of Z were standard
normal the density given the axes would be highest at Z = 0, where there are none. Here R is normal about the identity
matrix, within the positive diagonals, so that the mode of a posterior and its curvature exist.

The same covariance has several frames: the directions of axes can be reversed, and their order can be changed together
with that of the variances.

References
----------
Jauch, M., Hoff, P. D., & Dunson, D. B. (2021). Monte Carlo simulation on the Stiefel manifold via polar expansion.
Journal of Computational and Graphical Statistics, 30, 622-631. https://doi.org/10.1080/10618600.2020.1859382
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from scipy.integrate import quad
from scipy.special import gammaln

SLACK = 0.1  # standard deviation of the entries of R about the identity: wider ones narrow the density at short columns


@cache
def _log_mean_length(dimension: int) -> float:
    """Log of the integral of r^(dimension - 1) exp(-(r - 1)^2 / (2 SLACK^2)): of a column's length."""

    def integrand(r: float) -> float:
        return r ** (dimension - 1) * math.exp(-0.5 * ((r - 1) / SLACK) ** 2)

    most = 0.5 + math.sqrt(0.25 + SLACK**2 * (dimension - 1))  # where the integrand is largest
    return math.log(quad(integrand, 0, most + 40 * SLACK, points=[most], epsabs=0, epsrel=1e-12)[0])


def _log_volume(n_features: int) -> float:
    """Log of the volume of all orientations, those of spheres in 2, 3, ... dimensions together."""
    dimensions = np.arange(2, n_features + 1)
    return float((math.log(2) + dimensions / 2 * math.log(math.pi) - gammaln(dimensions / 2)).sum())


def log_constant(n_features: int) -> float:
    """Log normalising constant, nats, of the density exp(-|R - I|^2 / (2 SLACK^2)) of a frame."""
    value = -_log_volume(n_features)
    value -= sum(_log_mean_length(dimension) for dimension in range(2, n_features + 1))  # in which columns may turn
    above = (n_features - 1) * (n_features - 2) / 2
    return float(value - above * math.log(math.sqrt(2 * math.pi) * SLACK))


def laplace_excess(n_features: int) -> float:
    """By how much a frame's log integral exceeds Laplace's approximation to it, nats: lengths are not quite normal."""
    normal = math.log(math.sqrt(2 * math.pi) * SLACK)
    return sum(_log_mean_length(dimension) - normal for dimension in range(2, n_features + 1))


def drawn(shape: tuple[int, ...], n_features: int, rng: np.random.Generator) -> np.ndarray:
    """Frames (*shape, D, D - 1) from their prior: axes of uniform orientation, and lengths."""
    axes = np.linalg.qr(rng.standard_normal((*shape, n_features, n_features)))[0]
    return stretched(axes * rng.choice([-1.0, 1.0], (*shape, 1, n_features)), rng)


def stretched(axes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Frames (..., D, D - 1) of axes (..., D, D or more columns), R drawn given them: it does not depend on them."""
    n = axes.shape[-2] - 1
    R = np.triu(SLACK * rng.standard_normal((*axes.shape[:-2], n, n)), 1)
    for j in range(n):
        R[..., j, j] = _lengths(n - j + 1, R.shape[:-2], rng)
    return axes[..., :n] @ R


def _lengths(dimension: int, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Draws of a column's length, by rejection: r^m is at most exp(m (r - 1))."""
    m, r = dimension - 1, np.empty(math.prod(shape))
    missing = np.arange(r.size)
    while missing.size:
        tried = 1 + m * SLACK**2 + SLACK * rng.standard_normal(missing.size)
        with np.errstate(divide="ignore", invalid="ignore"):
            accepted = np.log(rng.random(tried.size)) < m * (np.log(np.maximum(tried, 0)) - tried + 1)
        r[missing[accepted]] = tried[accepted]
        missing = missing[~accepted]
    return r.reshape(shape)


def axes_of(frames: np.ndarray) -> np.ndarray:
    """The axes (..., D, D) of frames (..., D, D - 1), the last of either sign."""
    D = frames.shape[-2]
    Q, R = np.linalg.qr(frames, mode="complete")
    Q[..., : D - 1] *= np.where(np.diagonal(R, axis1=-2, axis2=-1) < 0, -1.0, 1.0)[..., None, :]
    return Q


def principal_axes(covariances: np.ndarray, n_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Axes (..., frames, D, D) of covariances (..., K, D, D), and the log precisions (..., K, D) along them.

    Axes are in increasing order of the precision: of the mean logarithm where all components have the same axes.
    """
    K, D = covariances.shape[-3:-1]
    if n_frames == K and K > 1:
        variances, axes = np.linalg.eigh(covariances)
        return axes[..., ::-1], -np.log(variances[..., ::-1])
    # Any combination has these axes. Unequal weights keep different axes from having the same variance in it.
    size = np.exp(np.linalg.slogdet(covariances)[1] / D)
    weight = 1 / (1 + 0.37 * np.arange(K)) / size
    axes = np.linalg.eigh((weight[..., None, None] * covariances).sum(axis=-3))[1][..., None, :, :]
    log_precisions = _log_precisions(axes, covariances)
    order = np.argsort(log_precisions.mean(axis=-2), axis=-1)
    axes = np.take_along_axis(axes, order[..., None, None, :], axis=-1)
    return axes, np.take_along_axis(log_precisions, order[..., None, :], axis=-1)


def _log_precisions(axes: np.ndarray, covariances: np.ndarray) -> np.ndarray:
    """Log precisions (..., K, D) of covariances (..., K, D, D) along their axes (..., frames, D, D)."""
    own = np.broadcast_to(axes, covariances.shape)
    return -np.log((own * (covariances @ own)).sum(axis=-2))


def in_order(axes: np.ndarray, covariances: np.ndarray) -> np.ndarray:
    """Whether axes are in the order (...) that `principal_axes` gives them."""
    return (np.diff(_log_precisions(axes, covariances).mean(axis=-2)) >= 0).all(axis=-1)


def nearest(axes: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Signs (..., frames, 1, columns) that bring axes (..., frames, D, columns) nearest to those of a reference."""
    return np.where((axes * reference).sum(axis=-2, keepdims=True) < 0, -1.0, 1.0)


def turns(axes: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The angles (..., D (D - 1) / 2) that bring reference axes to axes (..., D, D), by Cayley's transform.

    Tangents of half the angles are the entries of a skew matrix A, where the axes are reference (I - A) (I + A)^-1.
    """
    relative = np.swapaxes(reference, -1, -2) @ axes
    relative[..., -1] *= np.sign(np.linalg.det(relative))[..., None]
    unit = np.eye(axes.shape[-1])
    A = np.linalg.solve(unit + relative, unit - relative)
    return 2 * np.arctan(A[..., *np.tril_indices(axes.shape[-1], -1)])


def _skew(turns: np.ndarray, n_features: int) -> np.ndarray:
    A = np.zeros((*turns.shape[:-1], n_features, n_features))
    A[..., *np.tril_indices(n_features, -1)] = np.tan(turns / 2)
    return A - np.swapaxes(A, -1, -2)


def turned(reference: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """The axes (..., D, D) to which turns (..., D (D - 1) / 2) bring reference axes."""
    unit, A = np.eye(reference.shape[-1]), _skew(turns, reference.shape[-1])
    return reference @ np.linalg.solve(unit + A, unit - A)


def log_density_of_turns(turns: np.ndarray, n_features: int) -> np.ndarray:
    """Log density (...) of turns (..., D (D - 1) / 2) that are as probable as uniform orientations make them, nats.

    There is none where an angle is not between -pi and pi.
    """
    log_det = np.linalg.slogdet(np.eye(n_features) + _skew(turns, n_features))[1]
    stretch = np.log1p(np.tan(turns / 2) ** 2).sum(axis=-1) - (n_features - 1) * log_det
    return np.where((np.abs(turns) < math.pi).all(axis=-1), stretch - _log_volume(n_features), -math.inf)


def log_copies(n_frames: int, n_features: int) -> float:
    """Log of the number of frames that give the same covariances, by the directions and the order of their axes."""
    return n_frames * (n_features - 1) * math.log(2) + math.lgamma(n_features + 1)


def mean_scale(axes: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Prior scale q' S q (..., D) along each axis q of axes (..., frames, D, D), the mean over the frames."""
    return np.einsum("...mia,ij,...mja->...ma", axes, scale, axes).mean(axis=-2)


def random_frames(n_frames: int, n_features: int) -> Any:
    """The frames (frames, D, D - 1) as a random variable of the PyMC model in context."""
    import pymc as pm

    def draw(_zeros: np.ndarray, rng: Any = None, size: Any = None) -> np.ndarray:
        return drawn((*(size or ()), n_frames), n_features, rng)

    return pm.CustomDist(
        "frames",
        np.zeros((n_frames, n_features, n_features - 1)),
        logp=lambda value, zeros: _symbolic_log_density(value, n_frames, n_features),
        random=draw,
        signature="(m,d,n)->(m,d,n)",
    )


def _symbolic_axes(frames: Any, n_features: int) -> tuple[list[Any], list[list[Any]]]:
    """All axes but the last, each (frames, D), and the entries of R, each (frames,), by columns: Gram and Schmidt's."""
    import pytensor.tensor as pt

    axes: list[Any] = []
    columns: list[list[Any]] = []
    for j in range(n_features - 1):
        rest, column = frames[:, :, j], []
        for q in axes:
            column.append((q * rest).sum(axis=-1))
            rest = rest - column[-1][:, None] * q
        length = pt.sqrt((rest**2).sum(axis=-1))
        axes.append(rest / length[:, None])
        columns.append([*column, length])
    return axes, columns


def _symbolic_log_density(frames: Any, n_frames: int, n_features: int) -> Any:
    """Log prior density of the frames, nats."""
    _, columns = _symbolic_axes(frames, n_features)
    value = n_frames * log_constant(n_features)
    for column in columns:
        for entry in column[:-1]:
            value = value - 0.5 * (entry**2).sum() / SLACK**2
        value = value - 0.5 * ((column[-1] - 1) ** 2).sum() / SLACK**2
    return value


def symbolic_factors(frames: Any, relative: Any, scale: np.ndarray) -> Any:
    """Upper triangular factors P (K, D, D) of the precisions that are ``relative`` (K or 1, D) over the prior scale."""
    import pytensor.tensor as pt

    D = len(scale)
    axes, _ = _symbolic_axes(frames, D)
    along = [((q[:, :, None] * scale * q[:, None, :]).sum(axis=(1, 2))).mean() for q in axes]
    along.append(float(np.trace(scale)) - sum(along))
    precisions = [relative[:, j] / along[j] for j in range(D)]
    total = precisions[-1][:, None, None] * np.eye(D)
    for q, p in zip(axes, precisions[:-1], strict=True):  # the last axis has what the others leave
        total = total + (p - precisions[-1])[:, None, None] * q[:, :, None] * q[:, None, :]
    return pt.linalg.cholesky(total[:, ::-1, ::-1])[:, ::-1, ::-1]
