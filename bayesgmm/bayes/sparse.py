"""How many of too many components hold rows: Gibbs sampling of the assignments under sparse weights, compiled.

Weights are integrated out, so that a row joins component k with odds (rows there + concentration) times its density
(Neal 2000, algorithm 8, for a finite mixture), and an empty component, whose parameters come from the prior, may always
be opened. The concentration has the exponential prior of rate 20 of sparse finite mixtures (Malsiner-Walli,
Fruehwirth-Schnatter & Gruen 2016). This moves between numbers of filled components, which a sampler of the weights
themselves seldom does.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numba import njit

from bayesgmm.bayes.priors import LKJ, HierarchicalInverseWishart, Priors
from bayesgmm.covariance import CovarianceModel
from bayesgmm.expectation import in_threads

MODELS = ("EII", "VII", "EEI", "VVI", "EEE", "VVV")  # whose covariances have conjugate conditionals
CONCENTRATION_RATE = 20.0  # of the exponential prior of the concentration
FULL, DIAGONAL, SPHERICAL = range(3)
_AT_ONCE = 50  # draws between which a run can be interrupted
_CONCENTRATION_STEPS = 5  # Metropolis steps of the concentration in a sweep


def filled_draws(
    X: np.ndarray,
    priors: Priors,
    model: CovarianceModel,
    labels: np.ndarray,
    means: np.ndarray,
    rng: np.random.Generator,
    *,
    draws: int,
    tune: int,
    thin: int = 1,
    concentration: float = 1 / CONCENTRATION_RATE,
    scale_matrix: np.ndarray | None = None,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Number of filled components, and the concentration, (chains, draws) each.

    Parameters
    ----------
    X : (N, D)
    priors : Priors
        Of means and covariances (`InverseWishart` or `HierarchicalInverseWishart`).
    model : CovarianceModel
        One of `MODELS`.
    labels : (chains, N)
        Assignments to start from.
    means : (chains, K, D)
        Means to start from.
    rng : Generator
    draws, tune : int
        To keep and to leave out, each of ``thin`` sweeps.
    concentration : float
        To start from.
    scale_matrix : (D, D), optional
        Of the hierarchical prior, to start from; its prior mean by default.
    tell : callable
        Called with the number of draws done, and their total.
    """
    assert not isinstance(priors.covariances, LKJ)
    assert model.name in MODELS
    chains = len(labels)
    z, mu, alpha = labels.astype(np.int64), np.array(means, dtype=np.float64), np.full(chains, concentration)
    filled, concentrations = np.empty((chains, tune + draws), np.int64), np.empty((chains, tune + draws))
    structure = FULL if not model.diagonal else DIAGONAL if model.shape != "I" else SPHERICAL
    prior = priors.means.location, priors.means.precision, float(priors.covariances.df)
    own = priors.covariances
    B = np.tile(_structured(own.typical_scale if scale_matrix is None else scale_matrix, structure), (chains, 1, 1))
    # degrees of freedom of the scale matrix, inverse of its own, and its floor
    hyperprior = 0.0, np.zeros_like(B[0]), np.zeros_like(B[0])
    if isinstance(own, HierarchicalInverseWishart):
        M = _structured(own.scale_matrix, structure)
        floor = own.floor * own.scale_df * M
        hyperprior = float(own.scale_df), np.linalg.pinv(M), floor  # a spherical one has a corner only
    streams = rng.spawn(chains)

    for first in range(0, tune + draws, _AT_ONCE):
        part = slice(first, first + _AT_ONCE)

        def chain(c: int, _: int, part: slice = part) -> None:
            out = filled[c, part], concentrations[c, part]
            arguments = (*prior, B[c], *hyperprior, structure, model.volume == "E", thin, streams[c])
            _sample(X, z[c], mu[c], alpha[c], *arguments, *out)
            alpha[c] = out[1][-1]

        in_threads(chain, [(c, c + 1) for c in range(chains)])
        tell(min(first + _AT_ONCE, tune + draws), tune + draws)
    return filled[:, tune:], concentrations[:, tune:]


def _structured(scale: np.ndarray, structure: int) -> np.ndarray:
    """What of a scale matrix (D, D) a model uses: all, its diagonal, or in the first place the mean of that."""
    if structure == FULL:
        return np.array(scale)
    diagonal = np.diag(scale)
    return np.diag([diagonal.mean(), *[0.0] * (len(diagonal) - 1)] if structure == SPHERICAL else diagonal)


def filled_prior(N: int, K: int, rng: np.random.Generator, draws: int = 20_000) -> np.ndarray:
    """Prior probability (K + 1,) that 0, 1, ..., K components hold one of N rows."""
    concentration = rng.exponential(1 / CONCENTRATION_RATE, draws)
    log_gamma = np.log(rng.gamma(concentration[:, None] + 1, size=(draws, K)))
    log_gamma += np.log(rng.random((draws, K))) / concentration[:, None]  # gamma of a small shape, without underflow
    weights = np.exp(log_gamma - log_gamma.max(axis=1, keepdims=True))
    counts = rng.multinomial(N, weights / weights.sum(axis=1, keepdims=True))
    return np.bincount((counts > 0).sum(axis=1), minlength=K + 1) / draws


@njit(cache=True, error_model="numpy")
def _precision_factor(scatter, df, rows, structure, rng, P):
    """P with P P' a precision drawn given ``rows`` rows, their scatter plus the prior's; half its log determinant."""
    D = len(P)
    P[:] = 0.0
    if structure == FULL:
        L = np.linalg.cholesky(scatter)
        A = np.zeros((D, D))
        half = 0.0
        for i in range(D):
            A[i, i] = math.sqrt(rng.chisquare(df + rows - i))
            half += math.log(A[i, i] / L[i, i])
            for j in range(i):
                A[i, j] = rng.standard_normal()
        P[:] = np.linalg.solve(L.T, A)
        return half
    half = 0.0
    if structure == DIAGONAL:
        for j in range(D):
            P[j, j] = math.sqrt(rng.chisquare(df - D + 1 + rows) / scatter[j, j])
    else:
        prior_and_rows = rng.chisquare(df - D + 1 + rows * D)
        for j in range(D):
            P[j, j] = math.sqrt(prior_and_rows / scatter[0, 0])
    for j in range(D):
        half += math.log(P[j, j])
    return half


@njit(cache=True, error_model="numpy")
def _add_scatter(x, mean, structure, W):
    """W += the scatter of one row about a mean."""
    D = len(x)
    for i in range(D):
        shift = x[i] - mean[i]
        if structure == FULL:
            for j in range(D):
                W[i, j] += shift * (x[j] - mean[j])
        else:
            at = i if structure == DIAGONAL else 0
            W[at, at] += shift * shift


@njit(cache=True, error_model="numpy")
def _draw_scale_matrix(B, df, strength, inverse, P, copies, structure, rng):
    """B given the precisions P P' of the first ``copies`` components: Wishart, as a precision given a scatter is."""
    D = len(B)
    total = inverse.copy()
    for k in range(copies):
        if structure == SPHERICAL:
            total[0, 0] += P[k, 0, 0] ** 2
        else:
            total += P[k] @ P[k].T
    own = df if structure == FULL else df - D + 1
    rows = (copies - 1) * own + strength
    A = np.empty((D, D))
    _precision_factor(total, df, rows / D if structure == SPHERICAL else rows, structure, rng, A)
    if structure == SPHERICAL:
        B[0, 0] = A[0, 0] ** 2
    else:
        B[:] = A @ A.T


@njit(cache=True, error_model="numpy")
def _draw_mean(location, precision, P, n, total, rng, mean):
    """A mean given n rows of sum ``total`` with precision P P'."""
    D = len(mean)
    A = n * (P @ P.T)
    b = A @ (total / max(n, 1.0)) + precision @ location
    L = np.linalg.cholesky(A + precision)
    u = np.linalg.solve(L, b)
    for j in range(D):
        u[j] += rng.standard_normal()
    mean[:] = np.linalg.solve(L.T, u)


@njit(cache=True, error_model="numpy")
def _log_concentration(alpha, counts, N):
    """Log density of log alpha given the counts, up to a constant."""
    K = len(counts)
    value = math.log(alpha) - CONCENTRATION_RATE * alpha + math.lgamma(K * alpha) - math.lgamma(N + K * alpha)
    for k in range(K):
        if counts[k] > 0:
            value += math.lgamma(counts[k] + alpha) - math.lgamma(alpha)
    return value


@njit(cache=True, nogil=True, error_model="numpy")
def _sample(
    X, z, means, alpha, location, precision, df, B, strength, inverse, floor, structure, shared, thin, rng,
    filled, concentration,
):  # fmt: skip
    """One chain, from the assignments z, the means and the scale matrix B, which change in place."""
    N, D = X.shape
    K = len(means)
    counts, totals, W = np.zeros(K), np.zeros((K, D)), np.empty((K, D, D))
    P, half, odds = np.zeros((K, D, D)), np.empty(K), np.empty(K)
    for sweep in range(len(filled) * thin):
        counts[:] = 0.0
        totals[:] = 0.0
        W[:] = B + floor
        for i in range(N):
            k = z[i]
            counts[k] += 1.0
            totals[k] += X[i]
            _add_scatter(X[i], means[k], structure, W[0 if shared else k])
        for k in range(K):
            if k > 0 and shared:
                P[k] = P[0]
                half[k] = half[0]
            else:
                half[k] = _precision_factor(W[k], df, N if shared else counts[k], structure, rng, P[k])
            _draw_mean(location, precision, P[k], counts[k], totals[k], rng, means[k])
        if strength > 0.0:
            _draw_scale_matrix(B, df, strength, inverse, P, 1 if shared else K, structure, rng)
        for _ in range(_CONCENTRATION_STEPS):
            proposed = alpha * math.exp(1.5 * rng.standard_normal())
            gain = _log_concentration(proposed, counts, N) - _log_concentration(alpha, counts, N)
            if math.log(1.0 - rng.random()) < gain:
                alpha = proposed
        for i in range(N):
            counts[z[i]] -= 1.0
            top = -np.inf
            for k in range(K):
                q = 0.0
                for m in range(D):
                    s = 0.0
                    for j in range(0 if structure == FULL else m, D if structure == FULL else m + 1):
                        s += P[k, j, m] * (X[i, j] - means[k, j])
                    q += s * s
                odds[k] = math.log(counts[k] + alpha) + half[k] - 0.5 * q
                top = max(top, odds[k])
            total = 0.0
            for k in range(K):
                odds[k] = math.exp(odds[k] - top)
                total += odds[k]
            u, k = rng.random() * total, 0
            while k < K - 1 and u >= odds[k]:
                u -= odds[k]
                k += 1
            z[i] = k
            counts[k] += 1.0
        filled[sweep // thin] = (counts > 0).sum()
        concentration[sweep // thin] = alpha
