"""One climb of EM from given moments: the iteration, its acceleration and its stopping rule, compiled.

The state between two passes over the data is the *moments*, the flat vector z of expected counts (K,), means (K, D) and
covariances (K, D, D) that the E-step returned. `maximise` turns them into the parameters of any covariance model, so
extrapolating z instead of the parameters serves all models alike. `advance` is everything between two E-steps; what
drives it (a compiled loop for small tables, a thread pool for large ones) is three lines.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from bayesgmm.covariance import constrained_covariances, precision_cholesky
from bayesgmm.expectation import Parameters, Statistics, accumulate, expected_statistics, parallel_pays

MEMORY = 6  # differences that the acceleration remembers
RUNNING, CONVERGED, EXHAUSTED, DEGENERATE = 0, 1, 2, 3
# Entries of State.numbers
VALUE, CERTAINTY, GAIN, REMAINING, ITERATION, REMEMBERED, EXTRAPOLATED, COMPONENT, OBJECTIVE, RATIO = range(10)


class Problem(NamedTuple):
    """What a climb holds fixed."""

    volume: int
    shape: int
    orientation: int
    total: float  # sum of the rows' weights
    reference: np.ndarray  # (D,) diagonal of the data's own precision factor
    metric: np.ndarray  # (K + K D + K D D,) units of the moments
    tolerance: float
    max_iterations: int


class State(NamedTuple):
    """What a climb changes, in place."""

    parameters: Parameters
    covariances: np.ndarray  # (K, D, D)
    statistics: Statistics
    z: np.ndarray  # moments that the parameters were made from
    fallback: np.ndarray  # moments to go on from where an extrapolation fails
    last: np.ndarray  # (2, size): z and its residual one accepted step ago
    differences: np.ndarray  # (2, MEMORY, size): of z and of the residuals
    numbers: np.ndarray
    path: np.ndarray  # (max_iterations + 1,) log-likelihood after each iteration


def new_state(K: int, D: int, max_iterations: int) -> State:
    """An empty state for `begin`."""
    size = K * (1 + D + D * D)
    parameters = Parameters(np.empty(K), np.empty((K, D)), np.empty((K, D, D)))
    statistics = Statistics(np.empty(K), np.empty((K, D)), np.empty((K, D, D)))
    return State(
        parameters,
        np.empty((K, D, D)),
        statistics,
        np.empty(size),
        np.empty(size),
        np.empty((2, size)),
        np.empty((2, MEMORY, size)),
        np.zeros(10),
        np.empty(max_iterations + 1),
    )


@njit(error_model="numpy")
def _maximise(problem, state):
    """Parameters that maximise the expected log-likelihood of state.z; the component that has collapsed, or -1."""
    log_scale, offsets, P = state.parameters
    K, D = offsets.shape
    counts, W = state.z[:K], state.statistics.scatter
    S = state.z[K + K * D :].reshape(K, D, D)
    offsets[:] = state.z[K : K + K * D].reshape(K, D)
    for k in range(K):
        if not counts[k] > 1e-8:
            return k
        for i in range(D):
            for j in range(D):
                W[k, i, j] = counts[k] * S[k, i, j]
                if not abs(W[k, i, j]) < 1e300:
                    return k
    constrained_covariances(problem.volume, problem.shape, problem.orientation, counts, W, state.covariances)
    for k in range(K):
        if not precision_cholesky(state.covariances[k], P[k]) > 1e-13:
            return k
        log_scale[k] = math.log(counts[k] / problem.total) - 0.5 * D * math.log(2.0 * math.pi)
        for j in range(D):
            if P[k, j, j] > 1e12 * problem.reference[j]:
                return k
            log_scale[k] += math.log(P[k, j, j])
    return -1


@njit(error_model="numpy")
def _moments(state, g):
    """g = the moments that the E-step's statistics, taken about the current means, amount to."""
    counts, first, scatter = state.statistics
    offsets = state.parameters.offsets
    K, D = offsets.shape
    for k in range(K):
        n = counts[k]
        g[k] = n
        for i in range(D):
            shift = first[k, i] / n
            g[K + k * D + i] = offsets[k, i] + shift
            for j in range(D):
                g[K + K * D + (k * D + i) * D + j] = scatter[k, i, j] / n - shift * (first[k, j] / n)


@njit(error_model="numpy")
def _extrapolate(problem, state, g, f):
    """Anderson's mixing of the remembered steps (Walker & Ni 2011): state.z from g and the residual f = g - z."""
    dz, df = state.differences
    m = int(state.numbers[REMEMBERED])
    size = f.size
    A, b = np.empty((m, m)), np.empty(m)
    for p in range(m):
        for q in range(p + 1):
            s = 0.0
            for i in range(size):
                s += problem.metric[i] * df[p, i] * (problem.metric[i] * df[q, i])
            A[p, q] = s
        s = 0.0
        for i in range(size):
            s += problem.metric[i] * df[p, i] * (problem.metric[i] * f[i])
        b[p] = s
    # Cholesky solve of the normal equations, leaning a little on the diagonal, newest differences first.
    for p in range(m):
        for q in range(p + 1):
            s = A[p, q]
            for r in range(q):
                s -= A[p, r] * A[q, r]
            if p == q:
                A[p, p] = math.sqrt(max(s, 1e-14 * A[p, p]) + 1e-300)
            else:
                A[p, q] = s / A[q, q]
    for p in range(m):
        for r in range(p):
            b[p] -= A[p, r] * b[r]
        b[p] /= A[p, p]
    for p in range(m - 1, -1, -1):
        for r in range(p + 1, m):
            b[p] -= A[r, p] * b[r]
        b[p] /= A[p, p]
    for i in range(size):
        s = g[i]
        for p in range(m):
            s -= b[p] * (dz[p, i] + df[p, i])
        state.z[i] = s


@njit(error_model="numpy")
def _remember(state, f):
    """Shift the newest differences of moments and residuals in front."""
    m = int(state.numbers[REMEMBERED])
    for p in range(min(m, MEMORY - 1), 0, -1):
        state.differences[:, p] = state.differences[:, p - 1]
    state.differences[0, 0] = state.z - state.last[0]
    state.differences[1, 0] = f - state.last[1]
    state.numbers[REMEMBERED] = min(m + 1, MEMORY)


@njit(cache=True, error_model="numpy")
def begin(problem, state, moments):
    """Start a climb from ``moments``; RUNNING, or DEGENERATE."""
    numbers = state.numbers
    numbers[:] = 0.0
    numbers[REMEMBERED] = -1.0
    numbers[REMAINING] = np.inf
    numbers[VALUE] = -np.inf
    state.z[:] = moments
    numbers[COMPONENT] = _maximise(problem, state)
    return DEGENERATE if numbers[COMPONENT] >= 0 else RUNNING


@njit(cache=True, error_model="numpy")
def advance(problem, state, value, certainty):
    """Take the log-likelihood and statistics of an E-step, decide, and make the next parameters.

    A step that was extrapolated and lost log-likelihood is undone. The climb has converged when the gain that is left,
    the last gain times r / (1 - r) with r the ratio of successive gains (Aitken), is below the tolerance.
    """
    numbers = state.numbers
    iteration = int(numbers[ITERATION])
    state.path[iteration] = value
    noise = 1e-15 * abs(value) + 1e-13
    if numbers[EXTRAPOLATED] > 0 and not value >= numbers[VALUE] - noise:
        state.path[iteration] = numbers[VALUE]
        numbers[EXTRAPOLATED] = 0.0
        numbers[REMEMBERED] = -1.0
        state.z[:] = state.fallback
        numbers[COMPONENT] = _maximise(problem, state)
        numbers[ITERATION] += 1
        return DEGENERATE if numbers[COMPONENT] >= 0 else RUNNING
    gain = value - numbers[VALUE]
    ratio = gain / numbers[GAIN] if numbers[GAIN] > 0 else 1.0
    numbers[VALUE], numbers[CERTAINTY] = value, certainty
    if iteration > 0:
        numbers[GAIN] = gain
    if iteration > 1 and problem.tolerance > 0.0:
        worst = max(ratio, numbers[RATIO])  # of the last two, so that one lucky step does not stop the climb
        numbers[RATIO] = ratio
        numbers[REMAINING] = gain * worst / (1.0 - worst) if worst < 1.0 else np.inf
        if gain <= noise or (numbers[REMAINING] < problem.tolerance and gain < problem.tolerance):
            numbers[REMAINING] = max(min(numbers[REMAINING], problem.tolerance), 0.0)
            return CONVERGED
    if iteration >= problem.max_iterations:
        return EXHAUSTED
    g = np.empty_like(state.z)
    _moments(state, g)
    f = g - state.z
    if problem.tolerance > 0.0 and gain < 1e-3 * problem.total:
        if numbers[REMEMBERED] >= 0.0:
            _remember(state, f)
        else:
            numbers[REMEMBERED] = 0.0
        state.last[0] = state.z
        state.last[1] = f
    state.fallback[:] = g
    numbers[EXTRAPOLATED] = 1.0 if numbers[REMEMBERED] > 0.0 else 0.0
    if numbers[EXTRAPOLATED] > 0.0:
        _extrapolate(problem, state, g, f)
        if _maximise(problem, state) >= 0:
            numbers[EXTRAPOLATED] = 0.0
            numbers[REMEMBERED] = -1.0
    if numbers[EXTRAPOLATED] == 0.0:
        state.z[:] = g
        numbers[COMPONENT] = _maximise(problem, state)
        if numbers[COMPONENT] >= 0:
            return DEGENERATE
    numbers[ITERATION] += 1
    return RUNNING


@njit(nogil=True, cache=True)
def _climb_compiled(X, row_weight, labels, center, diagonal, problem, state, moments):
    code = begin(problem, state, moments)
    while code == RUNNING:
        more = state.numbers[ITERATION] < problem.max_iterations
        value, certainty = accumulate(
            X, row_weight, labels, center, state.parameters, diagonal, 0, X.shape[0], more, state.statistics
        )
        code = advance(problem, state, value, certainty)
    return code


def climb(X, row_weight, labels, center, diagonal, problem, state, moments) -> int:
    """Run EM from ``moments`` until it converges, is exhausted or degenerates; the outcome's code."""
    if not parallel_pays(len(X), state.parameters, diagonal):
        return _climb_compiled(X, row_weight, labels, center, diagonal, problem, state, moments)
    code = begin(problem, state, moments)
    while code == RUNNING:
        more = state.numbers[ITERATION] < problem.max_iterations
        value, certainty, statistics = expected_statistics(
            X, row_weight, labels, center, state.parameters, diagonal, more
        )
        for own, new in zip(state.statistics, statistics, strict=True):
            own[:] = new
        code = advance(problem, state, value, certainty)
    return code
