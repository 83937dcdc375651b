"""Pareto-smoothed importance sampling of many rows at once: ArviZ's numbers, compiled."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from bayesgmm.expectation import in_threads

_ROWS = 64  # that a thread takes at a time


@njit(error_model="numpy")
def _generalised_pareto(x):
    """Shape k and scale of sorted excesses x (n,), as Zhang & Stephens (2009), with k drawn towards 1/2 by ten of them.

    NaN where the first quartile is no more than the least.
    """
    n = len(x)
    quartile = x[int(n / 4 + 0.5) - 1]
    if quartile <= x[0]:
        return np.nan, np.nan
    m = 30 + int(n**0.5)
    b, log_weight = np.empty(m), np.empty(m)
    for j in range(m):
        b[j] = (1 - math.sqrt(m / (j + 0.5))) / (3 * quartile) + 1 / x[-1]
        k = _mean_log1p(-b[j], x)
        log_weight[j] = n * (math.log(-b[j] / k) - k - 1)
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    total, mean = 0.0, 0.0
    for j in range(m):
        if weight[j] >= 10 * 2.220446049250313e-16:
            total += weight[j]
            mean += weight[j] * b[j]
    mean /= total
    k = _mean_log1p(-mean, x)
    return (n * k + 5) / (n + 10), -k / mean


@njit(error_model="numpy")
def _mean_log1p(c, x):
    """Mean of log(1 + c x): logs of products, taken before they leave the range of floats."""
    total, product = 0.0, 1.0
    for i in range(len(x)):
        product *= 1 + c * x[i]
        if not 1e-100 < product < 1e100:
            total += math.log(product)
            product = 1.0
    return (total + math.log(product)) / len(x)


@njit(nogil=True, cache=True, error_model="numpy")
def _smooth(log_lik, n_tail, start, stop, out):
    """Fill out[:, start:stop] with log predictive densities, Pareto k and effective numbers of parameters."""
    S = log_lik.shape[1]
    tail, chosen = np.empty(n_tail), np.empty(n_tail, np.int64)
    for row in range(start, stop):
        x = log_lik[row]
        low, high = x.min(), x.max()
        # Ratios exp(low - x) are at most one; the tail are the n_tail largest, the cutoff the largest of the others.
        cutoff = -np.partition(x, n_tail)[n_tail]
        count, total, mean = 0, 0.0, 0.0
        for s in range(S):
            mean += math.exp(x[s] - high)
            if -x[s] > cutoff:
                chosen[count] = s
                count += 1
            else:
                total += math.exp(low - x[s])
        for s in range(S):
            if count == n_tail:
                break
            if -x[s] == cutoff:
                chosen[count] = s
                count += 1
                total -= math.exp(low - x[s])
        for i in range(n_tail):
            tail[i] = low - x[chosen[i]]
        tail = np.sort(tail)
        ratios, least = np.exp(tail), math.exp(low + cutoff)
        k, scale = 0.0, 0.0
        smoothed = tail
        if tail[-1] - tail[0] >= 2.2250738585072014e-308:  # else there is no tail to fit
            k, scale = _generalised_pareto(ratios - least)
            if np.isfinite(k):
                smoothed = np.empty(n_tail)
                for i in range(n_tail):
                    p = -math.log1p(-(i + 0.5) / n_tail)
                    excess = scale * (p if k == 0.0 else math.expm1(k * p) / k)
                    smoothed[i] = min(math.log(least + excess), tail[-1])
        # Of a draw that is not smoothed, ratio times density is exp(low).
        density = float(S - n_tail)
        for i in range(n_tail):
            total += math.exp(smoothed[i])
            density += math.exp(smoothed[i] - tail[i])
        out[0, row] = low + math.log(density) - math.log(total)
        out[1, row] = k
        out[2, row] = high + math.log(mean / S) - out[0, row]


def smoothed_loo(log_lik: np.ndarray, efficiency: float) -> np.ndarray:
    """Leave-one-out log predictive density, Pareto k and effective number of parameters of each row, (3, N).

    Parameters
    ----------
    log_lik : (N, draws)
        Log densities of the rows under each posterior draw, nats.
    efficiency : float
        Effective draws per draw.

    Notes
    -----
    Vehtari et al. (2024), with the choices of ``arviz.loo``: the tail are the 3 sqrt(draws / efficiency) largest
    ratios, or a fifth of them where there are no more than 225 effective draws.
    """
    N, S = log_lik.shape
    n_tail = int(3 * (S / efficiency) ** 0.5 if S * efficiency > 225 else S / 5)
    log_lik, out = np.ascontiguousarray(log_lik), np.empty((3, N))
    ranges = [(a, min(a + _ROWS, N)) for a in range(0, N, _ROWS)]
    in_threads(lambda start, stop: _smooth(log_lik, n_tail, start, stop, out), ranges)
    return out
