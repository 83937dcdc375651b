"""The 14 covariance models, volume x shape x orientation, and their maximum-likelihood covariances given scatters.

Covariance k is volume_k * Q_k diag(a_k) Q_k' with prod(a_k) = 1 (Banfield & Raftery 1993; Celeux & Govaert 1995); each
factor is absent (I), equal for all components (E) or varying (V).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit

from bayesgmm.errors import InputError

ALIASES = {"full": "VVV", "tied": "EEE", "diag": "VVI", "spherical": "VII"}
NAMES = tuple(
    volume + rest for rest in ("II", "EI", "VI", "EE", "VE", "EV", "VV") for volume in ("E", "V")
)  # simplest first
_CODES = {"I": 0, "E": 1, "V": 2}


@dataclass(frozen=True, slots=True)
class CovarianceModel:
    """One of the 14 covariance models, as three letters.

    Parameters
    ----------
    volume : {"E", "V"}
    shape, orientation : {"I", "E", "V"}
        Legal pairs are II and {E, V} x {I, E, V}.

    Examples
    --------
    >>> CovarianceModel.named("full").name
    'VVV'
    >>> CovarianceModel("V", "E", "I").n_parameters(n_components=3, n_features=4)
    6
    """

    volume: str
    shape: str
    orientation: str

    def __post_init__(self) -> None:
        if self.volume + self.shape + self.orientation not in NAMES:
            raise InputError(f"no covariance model {self.volume}{self.shape}{self.orientation}; {_choices()}")

    @classmethod
    def named(cls, name: str | CovarianceModel) -> CovarianceModel:
        """The model of a three-letter name, an alias (full, tied, diag, spherical), or E or V for one feature."""
        if isinstance(name, cls):
            return name
        if isinstance(name, str):
            letters = {"E": "EII", "V": "VII"}.get(name.upper()) or ALIASES.get(name.lower(), name.upper())
            if letters in NAMES:
                return cls(*letters)
        raise InputError(f"unknown covariance {name!r}; {_choices()}")

    @property
    def name(self) -> str:
        """The three letters."""
        return self.volume + self.shape + self.orientation

    def label(self, n_features: int) -> str:
        """The name to print: the three letters, or for one feature the volume's letter alone."""
        return self.name if n_features > 1 else self.volume

    def for_features(self, n_features: int) -> CovarianceModel:
        """The same model without what a single feature cannot have: shape and orientation."""
        return self if n_features > 1 else CovarianceModel(self.volume, "I", "I")

    @property
    def diagonal(self) -> bool:
        """Whether every covariance is diagonal."""
        return self.orientation == "I"

    @property
    def codes(self) -> tuple[int, int, int]:
        """Volume, shape and orientation as the integers that compiled code takes: I 0, E 1, V 2."""
        return _CODES[self.volume], _CODES[self.shape], _CODES[self.orientation]

    def n_parameters(self, n_components: int, n_features: int) -> int:
        """Number of free covariance parameters."""
        copies = {"I": 0, "E": 1, "V": n_components}
        return (
            copies[self.volume]
            + copies[self.shape] * (n_features - 1)
            + copies[self.orientation] * (n_features * (n_features - 1) // 2)
        )


def _choices() -> str:
    return f"use one of {', '.join(ALIASES)} or {', '.join(NAMES)}"


@njit(cache=True, error_model="numpy")
def precision_cholesky(covariance, P):
    """Fill P with the upper triangular P of covariance^-1 = P P'; return the smallest relative pivot.

    A pivot is the variance that a feature keeps given the features before it, relative to its own variance: zero where
    the matrix is not positive definite, and then P is not to be used.
    """
    D = covariance.shape[0]
    smallest = 1.0
    P[:] = 0.0
    # Cholesky L of the covariance into P's strict lower triangle and diagonal, row by row.
    for i in range(D):
        for j in range(i + 1):
            s = covariance[i, j]
            for m in range(j):
                s -= P[i, m] * P[j, m]
            if i == j:
                if not (s > 0.0 and covariance[i, i] > 0.0):  # also NaN
                    return 0.0
                pivot = s / covariance[i, i]
                smallest = min(smallest, pivot)
                P[i, i] = np.sqrt(s)
            else:
                P[i, j] = s / P[j, j]
    # P = L^-T: column i of P is row i of L^-1, written over the transposed place.
    for i in range(D):
        P[i, i] = 1.0 / P[i, i]
    for i in range(D):
        for j in range(i - 1, -1, -1):
            s = 0.0
            for m in range(j, i):
                s += P[i, m] * P[j, m]
            P[j, i] = -s * P[i, i]
    for i in range(D):
        for j in range(i):
            P[i, j] = 0.0
    return smallest


@njit
def copy_into(target, source):
    """Copy a vector. A slice assignment would do, but compiling its error message's strings takes a second and more."""
    for i in range(target.size):
        target[i] = source[i]


@njit(error_model="numpy")
def _pool(values, shared):
    """Replace the rows of values (K, M) by their sum, where a factor is shared."""
    K, M = values.shape
    if shared:
        for m in range(M):
            total = 0.0
            for k in range(K):
                total += values[k, m]
            for k in range(K):
                values[k, m] = total


@njit(error_model="numpy")
def _rotate(Q, T, c):
    """One sweep of plane rotations of Q (D, D) and T (K, D, D) = Q' W_k Q towards the least sum_k sum_j c_kj T_kjj.

    Each plane's angle t is exact: the objective in it is A cos 2t + B sin 2t + constant (Flury & Gautschi 1986). With
    K = 1 and increasing c this is Jacobi's diagonalisation, largest eigenvalue first. Returns the largest |sin t|.
    """
    K, D = c.shape
    largest = 0.0
    for i in range(D - 1):
        for j in range(i + 1, D):
            A, B = 0.0, 0.0
            for k in range(K):
                A += 0.5 * (c[k, i] - c[k, j]) * (T[k, i, i] - T[k, j, j])
                B += (c[k, i] - c[k, j]) * T[k, i, j]
            if A == 0.0 and B == 0.0:
                continue
            t = 0.5 * math.atan2(-B, -A)
            cos, sin = math.cos(t), math.sin(t)
            largest = max(largest, abs(sin))
            for m in range(D):
                u, v = Q[m, i], Q[m, j]
                Q[m, i], Q[m, j] = cos * u + sin * v, cos * v - sin * u
            for k in range(K):
                for m in range(D):
                    u, v = T[k, m, i], T[k, m, j]
                    T[k, m, i], T[k, m, j] = cos * u + sin * v, cos * v - sin * u
                for m in range(D):
                    u, v = T[k, i, m], T[k, j, m]
                    T[k, i, m], T[k, j, m] = cos * u + sin * v, cos * v - sin * u
    return largest


@njit(error_model="numpy")
def _turn(Q, W, T):
    """T (D, D) = Q' W Q."""
    D = Q.shape[0]
    for i in range(D):
        for j in range(D):
            T[i, j] = 0.0
            for a in range(D):
                s = 0.0
                for b in range(D):
                    s += W[a, b] * Q[b, j]
                T[i, j] += Q[a, i] * s


@njit(error_model="numpy")
def _diagonalise(Q, T):
    """Rotate Q = I and T (1, D, D) to T's eigenvectors, largest eigenvalue first."""
    D = Q.shape[0]
    order = np.empty((1, D))
    for j in range(D):
        order[0, j] = j
    for _ in range(60):
        if not _rotate(Q, T, order) > 1e-15:
            break


@njit(error_model="numpy")
def _shapes(T, lam, shared, a):
    """a (K, D) = the diagonals of T_k / lam_k, summed over the components where shared, scaled to product one."""
    K, D = a.shape
    for k in range(K):
        for j in range(D):
            a[k, j] = T[k, j, j] / lam[k, 0]
    _pool(a, shared)
    for k in range(K):
        mean = 0.0
        for j in range(D):
            mean += math.log(a[k, j]) / D
        for j in range(D):
            a[k, j] /= math.exp(mean)


@njit(error_model="numpy")
def _volumes(T, a, n, shared, lam):
    """lam (K, 1) = the traces of T_k diag(a_k)^-1, summed over the components where shared, over n D."""
    K, D = a.shape
    for k in range(K):
        lam[k, 0] = 0.0
        for j in range(D):
            lam[k, 0] += T[k, j, j] / (a[k, j] * D)
    _pool(lam, shared)
    for k in range(K):
        lam[k, 0] /= n[k, 0]


@njit(cache=True, error_model="numpy")
def constrained_covariances(volume, shape, orientation, counts, W, warm, covariances):
    """Covariances (K, D, D) of a model that maximise -1/2 sum_k (n_k log|S_k| + tr(S_k^-1 W_k)).

    Common axes are sought from those of the ``covariances`` passed in where these are ``warm``, so that no M-step loses
    what the one before had found. A singular scatter gives a singular or NaN covariance and is left to
    `precision_cholesky` to find. Models whose factors are all shared alike are the pooled scatter itself; in the others
    orientation, shape and volume are updated in turn until they stop changing, which takes one pass unless the volumes
    or the axes depend on the rest.
    """
    K, D = W.shape[0], W.shape[1]
    n = counts.copy().reshape(K, 1)
    _pool(n, volume == 1)
    if volume == shape and (orientation == shape or orientation == 0):
        copy_into(covariances.reshape(K * D * D), W.reshape(K * D * D))
        _pool(covariances.reshape(K, D * D), volume == 1)
        for k in range(K):
            for i in range(D):
                for j in range(D):
                    covariances[k, i, j] = covariances[k, i, j] / n[k, 0] if i == j or orientation else 0.0
        return
    lam, a, c = np.ones((K, 1)), np.ones((K, D)), np.empty((K, D))
    Q, T = np.zeros((K, D, D)), W.copy()  # T_k = Q_k' W_k Q_k; common axes are Q_0
    for k in range(K):
        for j in range(D):
            Q[k, j, j] = 1.0
        if orientation == 2:
            _diagonalise(Q[k], T[k : k + 1])
    if orientation == 1:
        total = covariances.copy() if warm else W.copy()
        _pool(total.reshape(K, D * D), orientation == 1)
        _diagonalise(Q[0], total[:1])
        for k in range(K):
            _turn(Q[0], W[k], T[k])
        _shapes(T, lam, shape == 1, a)
        _volumes(T, a, n, volume == 1, lam)
    iterate = orientation == 1 or (volume == 2 and shape == 1)
    for _ in range(1000 if iterate else 1):
        moved, changed = 0.0, 0.0
        if orientation == 1:
            for k in range(K):
                for j in range(D):
                    c[k, j] = 1.0 / (lam[k, 0] * a[k, j])
            moved = _rotate(Q[0], T, c)
        if shape > 0:
            _shapes(T, lam, shape == 1, a)
        previous = lam.copy()
        _volumes(T, a, n, volume == 1, lam)
        for k in range(K):
            changed = max(changed, abs(lam[k, 0] - previous[k, 0]) / lam[k, 0])
        if not (moved > 1e-9 or changed > 1e-12):
            break
    for k in range(K):
        axes = Q[0 if orientation == 1 else k]
        for i in range(D):
            for j in range(D):
                covariances[k, i, j] = 0.0
                for m in range(D):
                    covariances[k, i, j] += axes[i, m] * lam[k, 0] * a[k, m] * axes[j, m]
