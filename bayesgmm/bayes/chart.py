"""Compiled: the precisions' Cholesky factors from their free coordinates, the pullback of a gradient, and the prior."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from bayesgmm.bayes.coordinates import BARTLETT, CORRELATIONS, SQUARES, VOLUMES

HALF_NORMAL, LOG_NORMAL, EXPONENTIAL = range(3)
SCALES = {"": 0, "HalfNormal": HALF_NORMAL, "LogNormal": LOG_NORMAL, "Exponential": EXPONENTIAL}


class Chart(NamedTuple):
    """`PrecisionCoordinates` as compiled code takes them; ``start`` is the place of the first in theta."""

    start: int
    kind: int
    scales: int
    copies: int
    columns: int
    ratios: int
    above_copies: int
    off_diagonal: int
    strength: float
    floor: float
    first: np.ndarray
    second: np.ndarray
    dirichlet: np.ndarray
    beta: np.ndarray
    U: np.ndarray


@njit(error_model="numpy")
def _places(chart):
    """Where in theta the entries above the diagonal and the ratios start."""
    above = chart.start + chart.copies * chart.columns
    return above, above + chart.above_copies * chart.off_diagonal


@njit(error_model="numpy")
def _log_ratio(theta, place, size, i):
    """Entry i of a vector of ``size`` log ratios that sum to zero, of which theta holds all but the last."""
    if i < size - 1:
        return theta[place + i]
    last = 0.0
    for j in range(size - 1):
        last -= theta[place + j]
    return last


@njit(error_model="numpy")
def forward(theta, chart, A, P):
    """Fill A (K, D, D), Bartlett's factor or, under LKJ, the covariance's lower Cholesky factor; and P (K, D, D)."""
    K, D = A.shape[0], A.shape[1]
    above, ratios = _places(chart)
    for k in range(K):
        square = chart.start + (k if chart.copies > 1 else 0) * chart.columns
        entry = above + (k if chart.above_copies > 1 else 0) * chart.off_diagonal
        A[k] = 0.0
        if chart.kind == CORRELATIONS:
            m = 0
            for i in range(D):
                sd, rest = math.exp(theta[square + (i if chart.columns > 1 else 0)]), 1.0
                if chart.off_diagonal:
                    for j in range(i):
                        z = math.tanh(0.5 * theta[entry + m])
                        A[k, i, j] = sd * z * rest
                        rest *= math.sqrt(1.0 - z * z)
                        m += 1
                A[k, i, i] = sd * rest
            for j in range(D):  # P = A^-T, column by column
                for i in range(D - 1, -1, -1):
                    s = 1.0 if i == j else 0.0
                    for p in range(i + 1, j + 1):
                        s -= A[k, p, i] * P[k, p, j]
                    P[k, i, j] = s / A[k, i, i] if i <= j else 0.0
            continue
        volume = _log_ratio(theta, ratios, K, k) if chart.ratios == VOLUMES else 0.0
        m = 0
        for i in range(D):
            t = theta[square + (i if chart.columns > 1 else 0)] + volume
            if chart.ratios == SQUARES:
                t += _log_ratio(theta, ratios + k * (D - 1), D, i)
            A[k, i, i] = math.exp(0.5 * t)
            if chart.off_diagonal:
                for j in range(i + 1, D):
                    A[k, i, j] = theta[entry + m] * math.exp(0.5 * volume)
                    m += 1
        for i in range(D):
            for j in range(D):
                s = 0.0
                for m in range(i, j + 1):
                    s += chart.U[i, m] * A[k, m, j]
                P[k, i, j] = s


@njit(error_model="numpy")
def backward(theta, chart, counts, k, dP, A, P, gradient):
    """Add the gradient by component k's coordinates: dP (D, D) upper is that by P, and counts[k] that by log|P|."""
    K, D = A.shape[0], A.shape[1]
    above, ratios = _places(chart)
    square = chart.start + (k if chart.copies > 1 else 0) * chart.columns
    entry = above + (k if chart.above_copies > 1 else 0) * chart.off_diagonal
    if chart.kind == CORRELATIONS:
        _backward_correlations(theta, chart, counts[k], k, dP, A, P, square, entry, gradient)
        return
    volume = _log_ratio(theta, ratios, K, k) if chart.ratios == VOLUMES else 0.0
    by_volume, m = 0.0, 0
    for i in range(D):
        for j in range(i, D):
            s = 0.0
            for p in range(i + 1):
                s += chart.U[p, i] * dP[p, j]
            if i == j:
                s = 0.5 * (s * A[k, i, i] + counts[k])
                gradient[square + (i if chart.columns > 1 else 0)] += s
                by_volume += s
                if chart.ratios == SQUARES:
                    _add_log_ratio(gradient, ratios + k * (D - 1), D, i, s)
            elif chart.off_diagonal:
                gradient[entry + m] += s * math.exp(0.5 * volume)
                by_volume += 0.5 * s * A[k, i, j]
                m += 1
    if chart.ratios == VOLUMES:
        _add_log_ratio(gradient, ratios, K, k, by_volume)


@njit(error_model="numpy")
def _add_log_ratio(gradient, place, size, i, value):
    """Add the gradient by entry i of a vector of log ratios."""
    if i < size - 1:
        gradient[place + i] += value
    else:
        for j in range(size - 1):
            gradient[place + j] -= value


@njit(error_model="numpy")
def _backward_correlations(theta, chart, count, k, dP, A, P, square, entry, gradient):
    """The same through P = A^-T: the gradient by the lower A is -P dP' P."""
    D = A.shape[1]
    half, dA = np.zeros((D, D)), np.zeros((D, D))
    for i in range(D):
        for j in range(D):
            for p in range(max(i, j), D):
                half[i, j] += P[k, i, p] * dP[j, p]
    for i in range(D):
        for j in range(i + 1):
            for p in range(j + 1):
                dA[i, j] -= half[i, p] * P[k, p, j]
        dA[i, i] -= count / A[k, i, i]
    m = 0
    for i in range(D):
        by_sd = 0.0
        for j in range(i + 1):
            by_sd += dA[i, j] * A[k, i, j]
        gradient[square + (i if chart.columns > 1 else 0)] += by_sd
        if chart.off_diagonal:
            by_rest, rest = dA[i, i] * A[k, i, i], A[k, i, i]  # by and of what the entries to the left leave
            for j in range(i - 1, -1, -1):
                z = math.tanh(0.5 * theta[entry + m + j])
                share = 1.0 - z * z
                rest /= math.sqrt(share)
                gradient[entry + m + j] += 0.5 * (dA[i, j] * rest * share - by_rest * z)
                by_rest += dA[i, j] * A[k, i, j]
            m += i


@njit(error_model="numpy")
def log_prior(theta, chart, K, D, gradient):
    """Log prior density of the coordinates without its constant; adds its gradient."""
    above, ratios = _places(chart)
    n_squares, n_above = chart.copies * chart.columns, chart.above_copies * chart.off_diagonal
    value = 0.0
    if chart.kind == CORRELATIONS:
        for i in range(n_squares):
            t, a, b = theta[chart.start + i], chart.first[i % chart.columns], chart.second[i % chart.columns]
            if chart.scales == LOG_NORMAL:
                slope = -(t - a) / (b * b)
                value -= 0.5 * ((t - a) / b) ** 2
            elif chart.scales == HALF_NORMAL:
                slope = 1.0 - (math.exp(t) / a) ** 2
                value += t - 0.5 * (math.exp(t) / a) ** 2
            else:
                slope = 1.0 - math.exp(t) * a
                value += t - math.exp(t) * a
            gradient[chart.start + i] += slope
        for i in range(n_above):
            y, b = theta[above + i], chart.beta[i % chart.off_diagonal]
            value -= b * (abs(y) + 2.0 * math.log1p(math.exp(-abs(y))))
            gradient[above + i] -= b * math.tanh(0.5 * y)
        return value
    for i in range(n_squares):
        value += 0.5 * chart.first[i % chart.columns] * theta[chart.start + i]
        gradient[chart.start + i] += 0.5 * chart.first[i % chart.columns]
    fixed = 1.0 if chart.kind == BARTLETT else chart.floor  # share of the scale matrix that is not integrated out
    if fixed > 0.0:
        for i in range(n_squares):
            square = fixed * math.exp(theta[chart.start + i])
            value -= 0.5 * square
            gradient[chart.start + i] -= 0.5 * square
        for i in range(n_above):
            value -= 0.5 * fixed * theta[above + i] ** 2
            gradient[above + i] -= fixed * theta[above + i]
    if chart.kind == BARTLETT:
        pass
    elif chart.off_diagonal and chart.columns > 1:
        value += _log_marginal(theta, chart, D, above, gradient)
    else:  # a scale for each column, or one for all entries (then only are there any above the diagonal)
        for j in range(chart.columns):
            total, power = chart.strength, 0.5 * (chart.copies * chart.first[j] + n_above + chart.strength)
            for c in range(chart.copies):
                total += math.exp(theta[chart.start + c * chart.columns + j])
            for i in range(n_above):
                total += theta[above + i] ** 2
            value -= power * math.log(total)
            for c in range(chart.copies):
                i = chart.start + c * chart.columns + j
                gradient[i] -= power * math.exp(theta[i]) / total
            for i in range(n_above):
                gradient[above + i] -= 2.0 * power * theta[above + i] / total
    if chart.ratios:
        size = chart.dirichlet.size
        concentration = chart.dirichlet.sum()
        for v in range(1 if chart.ratios == VOLUMES else K):
            place, total = ratios + v * (size - 1), 0.0
            largest = 0.0
            for i in range(size):
                largest = max(largest, _log_ratio(theta, place, size, i))
            for i in range(size):
                total += math.exp(_log_ratio(theta, place, size, i) - largest)
            for i in range(size):
                log_q = _log_ratio(theta, place, size, i) - largest - math.log(total)
                value += chart.dirichlet[i] * log_q
                _add_log_ratio(gradient, place, size, i, chart.dirichlet[i] - concentration * math.exp(log_q))
    return value


@njit(error_model="numpy")
def _log_marginal(theta, chart, D, above, gradient):
    """The scale matrix integrated out: - power log|strength I + sum A A'| / 2 over the copies of Bartlett's factor."""
    power = chart.copies * chart.first[D - 1] + chart.strength
    A, B = np.zeros((chart.copies, D, D)), np.eye(D) * chart.strength
    for c in range(chart.copies):
        m = above + c * chart.off_diagonal
        for i in range(D):
            A[c, i, i] = math.exp(0.5 * theta[chart.start + c * D + i])
            for j in range(i + 1, D):
                A[c, i, j] = theta[m]
                m += 1
        for i in range(D):
            for j in range(D):
                for p in range(max(i, j), D):
                    B[i, j] += A[c, i, p] * A[c, j, p]
    value = 0.0
    for i in range(D):  # Cholesky's factor into B's lower triangle
        for j in range(i + 1):
            s = B[i, j]
            for p in range(j):
                s -= B[i, p] * B[j, p]
            B[i, j] = math.sqrt(s) if i == j else s / B[j, j]
        value -= power * math.log(B[i, i])
    x = np.empty(D)
    for c in range(chart.copies):
        m = above + c * chart.off_diagonal
        entries = np.empty((D, D))
        for j in range(D):  # the gradient by A is - power B^-1 A
            for i in range(D):
                s = A[c, i, j]
                for p in range(i):
                    s -= B[i, p] * x[p]
                x[i] = s / B[i, i]
            for i in range(D - 1, -1, -1):
                s = x[i]
                for p in range(i + 1, D):
                    s -= B[p, i] * x[p]
                x[i] = s / B[i, i]
            for i in range(D):
                entries[i, j] = -power * x[i]
        for i in range(D):
            gradient[chart.start + c * D + i] += 0.5 * entries[i, i] * A[c, i, i]
            for j in range(i + 1, D):
                gradient[m] += entries[i, j]
                m += 1
    return value
