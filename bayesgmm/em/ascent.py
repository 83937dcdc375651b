"""One climb of EM from given moments: the iteration, its acceleration and its stopping rule, compiled.

The state between two passes over the data is the *moments*, the flat vector z of expected counts (K,), means (K, D) and
covariances (K, D, D) that the E-step returned. `maximise` turns them into the parameters of any covariance model, so
extrapolating z instead of the parameters serves all models alike. `advance` is everything between two E-steps; what
drives it (a compiled loop for small tables, a thread pool for large ones) is three lines.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numba import njit

from bayesgmm.covariance import constrained_covariances, copy_into, precision_cholesky
from bayesgmm.expectation import (
    Parameters,
    Statistics,
    expected_statistics,
    in_threads,
    n_threads,
    parallel_pays,
)
from bayesgmm.numba_kernel import accumulate

MEMORY = 6  # differences that the acceleration remembers
_EMPTY = 1e-4  # rows: fewer hold no component, and none that shrinks towards nothing has converged with more
_SWEEPS = 5  # of an M-step whose parts depend on one another; the next one goes on where it ends; but of the first
_FIRST_SWEEPS = 1000  # as many as change anything, so that it depends on the moments alone
RUNNING, CONVERGED, EXHAUSTED, DEGENERATE = 0, 1, 2, 3
# Entries of State.numbers
N_NUMBERS = 12
(
    VALUE,
    LOG_LIKELIHOOD,
    PENALTY,
    CERTAINTY,
    GAIN,
    REMAINING,
    ITERATION,
    REMEMBERED,
    EXTRAPOLATED,
    QUIET,
    COMPONENT,
    ROUNDING,
) = range(N_NUMBERS)


class Penalty(NamedTuple):
    """Logarithm of the prior as the M-step sees it; all zero for maximum likelihood."""

    concentration: np.ndarray  # (K,) Dirichlet concentration - 1
    location: np.ndarray  # (D,) prior means' offset from the center
    precision: np.ndarray  # (D, D) prior precision of the means
    rows: float  # that the prior of a covariance is worth
    scatter: np.ndarray  # (D, D) and their scatter; its prior mean where it has a prior itself
    degrees: float  # of freedom of the scatter given the covariances; 0 where it has no prior
    scale_precision: np.ndarray  # (D, D) inverse of the scale matrix of the scatter's own prior
    floor: np.ndarray  # (D, D) scatter that is added to one with a prior


class Fixed(NamedTuple):
    """Parts that stay as given: flags (K,), and the values (K, ...) where they are set."""

    has_weight: np.ndarray
    weights: np.ndarray
    has_mean: np.ndarray
    offsets: np.ndarray
    has_covariance: np.ndarray
    covariances: np.ndarray


class Problem(NamedTuple):
    """What a climb holds fixed."""

    volume: int
    shape: int
    orientation: int
    total: float  # sum of the rows' weights
    center: np.ndarray  # (D,) of the table, from which means are offset
    reference: np.ndarray  # (D,) diagonal of the data's own precision factor
    metric: np.ndarray  # (K + K D + K D D,) units of the moments
    penalty: Penalty
    fixed: Fixed
    tolerance: float
    max_iterations: int


class Accepted(NamedTuple):
    """Where a step that is undone returns to: fields as in `State`."""

    parameters: Parameters
    weights: np.ndarray
    covariances: np.ndarray
    z: np.ndarray


class State(NamedTuple):
    """What a climb changes, in place."""

    parameters: Parameters
    weights: np.ndarray  # (K,)
    covariances: np.ndarray  # (K, D, D)
    statistics: Statistics
    z: np.ndarray  # moments that the parameters were made from
    fallback: np.ndarray  # moments to go on from where an extrapolation fails
    last: np.ndarray  # (2, size): z and its residual one accepted step ago
    differences: np.ndarray  # (2, MEMORY, size): of z and of the residuals
    accepted: Accepted  # the last step that was not undone
    numbers: np.ndarray
    path: np.ndarray  # (max_iterations + 1,) objective after each iteration: log-likelihood plus log prior


def new_state(K: int, D: int, max_iterations: int) -> State:
    """An empty state for `begin`."""
    size = K * (1 + D + D * D)
    parameters = Parameters(np.empty(K), np.empty((K, D)), np.empty((K, D, D)))
    statistics = Statistics(np.empty(K), np.empty((K, D)), np.empty((K, D, D)))
    return State(
        parameters,
        np.empty(K),
        np.empty((K, D, D)),
        statistics,
        np.empty(size),
        np.empty(size),
        np.empty((2, size)),
        np.empty((2, MEMORY, size)),
        Accepted(
            Parameters(np.empty(K), np.empty((K, D)), np.empty((K, D, D))),
            np.empty(K),
            np.empty((K, D, D)),
            np.empty(size),
        ),
        np.zeros(N_NUMBERS),
        np.empty(max_iterations + 1),
    )


@njit(error_model="numpy")
def _weights(problem, counts, weights):
    """Weights that maximise sum_k (n_k + concentration_k - 1) log w_k; the component left without one, or -1."""
    fixed, concentration = problem.fixed, problem.penalty.concentration
    free, total = 1.0, 0.0
    for k in range(weights.size):
        if fixed.has_weight[k]:
            free -= fixed.weights[k]
        else:
            total += counts[k] + concentration[k]
    for k in range(weights.size):
        weights[k] = fixed.weights[k] if fixed.has_weight[k] else free * (counts[k] + concentration[k]) / total
        if problem.penalty.rows > 0.0 and weights[k] >= 0.0:
            weights[k] = max(weights[k], 1e-300)  # a prior lets a component be empty
        if not weights[k] > 0.0:
            return k
    return -1


@njit(error_model="numpy")
def _penalised_mean(penalty, n, mean, P, offset):
    """The mean that maximises likelihood times normal prior given the covariance (P P')^-1 it had."""
    D = mean.size
    A, b, Q = np.empty((D, D)), np.zeros(D), np.empty((D, D))
    for i in range(D):
        for j in range(D):
            s = 0.0
            for m in range(max(i, j), D):
                s += P[i, m] * P[j, m]
            A[i, j] = n * s + penalty.precision[i, j]
            b[i] += n * s * mean[j] + penalty.precision[i, j] * penalty.location[j]
    precision_cholesky(A, Q)
    for i in range(D):
        offset[i] = 0.0
    for m in range(D):
        s = 0.0
        for i in range(m + 1):
            s += Q[i, m] * b[i]
        for i in range(m + 1):
            offset[i] += Q[i, m] * s


@njit(error_model="numpy")
def _expected_scatter(penalty, share, P, scatter):
    """Fill scatter with its mean given the precisions P P'; return its log determinant but for a constant.

    Given them it is Wishart, as its prior is, so that covariances and this mean in turn climb to where both are right
    with the scatter integrated out: an EM algorithm inside the M-step.
    """
    K, D = P.shape[0], P.shape[1]
    precision, Q = penalty.scale_precision.copy(), np.empty((D, D))
    for i in range(D):
        for j in range(D):
            for k in range(K):
                for m in range(max(i, j), D):
                    precision[i, j] += share * P[k, i, m] * P[k, j, m]
    precision_cholesky(precision, Q)
    log_det = 0.0
    for i in range(D):
        log_det += 2.0 * math.log(Q[i, i])
        for j in range(D):
            s = 0.0
            for m in range(max(i, j), D):
                s += Q[i, m] * Q[j, m]
            scatter[i, j] = penalty.degrees * s + penalty.floor[i, j]
    return log_det


@njit(error_model="numpy")
def _log_prior(problem, state, share):
    """Logarithm of the prior density of the parameters, but for a constant, with the scatter integrated out."""
    offsets, P = state.parameters.offsets, state.parameters.precisions_cholesky
    penalty = problem.penalty
    K, D = offsets.shape
    value = 0.0
    for k in range(K):
        if penalty.concentration[k] != 0.0:
            value += penalty.concentration[k] * math.log(state.weights[k])
        for j in range(D):
            value += share * penalty.rows * math.log(P[k, j, j])
            from_prior = offsets[k, j] - penalty.location[j]
            for i in range(D):
                value -= 0.5 * from_prior * penalty.precision[j, i] * (offsets[k, i] - penalty.location[i])
            known = penalty.floor if penalty.degrees > 0.0 else penalty.scatter
            if penalty.rows > 0.0:
                for i in range(j + 1):
                    for m in range(j + 1):
                        value -= 0.5 * share * P[k, i, j] * known[i, m] * P[k, m, j]
    if penalty.degrees > 0.0:
        value += 0.5 * penalty.degrees * _expected_scatter(penalty, share, P, np.empty((D, D)))
    return value


@njit(error_model="numpy")
def _maximise(problem, state):
    """Parameters that maximise the expected log posterior of state.z; the component that has collapsed, or -1.

    With priors the means given the covariances, the scatter that the covariances' prior expects where that has a prior
    itself, and the covariances given both are taken in turn (Meng & Rubin 1993), from those they had. At the first step
    there are none: means are taken unpenalised first, and the scatter's prior mean.
    """
    log_scale, offsets, P = state.parameters
    penalty, fixed = problem.penalty, problem.fixed
    K, D = offsets.shape
    counts, W = state.z[:K], state.statistics.scatter
    means, S = state.z[K : K + K * D].reshape(K, D), state.z[K + K * D :].reshape(K, D, D)
    pull = False
    for j in range(D):
        pull = pull or penalty.precision[j, j] > 0.0
    share = 1.0 / K if problem.volume == 1 else 1.0  # a shared covariance has one prior
    n, weights = np.empty(K), state.weights
    scatter, before, rounded = penalty.scatter.copy(), np.empty(D), np.empty((K, D))
    empty = _weights(problem, counts, weights)
    if empty >= 0:
        return empty
    for k in range(K):
        if not counts[k] >= (0.0 if penalty.rows > 0.0 or fixed.has_covariance[k] else _EMPTY):
            return k
        n[k] = counts[k] + share * penalty.rows
    warm = state.numbers[ITERATION] >= 0.0
    sweeps, still = (_SWEEPS, 1e-10) if warm else (_FIRST_SWEEPS, 1e-6)
    for _ in range(sweeps):
        if penalty.degrees > 0.0 and warm:
            _expected_scatter(penalty, share, P, scatter)
        for k in range(K):
            if fixed.has_mean[k]:
                copy_into(offsets[k], fixed.offsets[k])
            elif pull and warm:
                _penalised_mean(penalty, counts[k], means[k], P[k], offsets[k])
            else:
                copy_into(offsets[k], means[k])
            for j in range(D):  # to what the mean will be in the table's own units, so that nothing is lost on return
                offset = (problem.center[j] + offsets[k, j]) - problem.center[j]
                rounded[k, j] = offset - offsets[k, j]
                offsets[k, j] = offset
            for i in range(D):
                for j in range(D):
                    shift = (means[k, i] - offsets[k, i]) * (means[k, j] - offsets[k, j])
                    W[k, i, j] = counts[k] * (S[k, i, j] + shift) + share * scatter[i, j]
                    if not abs(W[k, i, j]) < 1e300:
                        return k
        constrained_covariances(problem.volume, problem.shape, problem.orientation, n, W, warm, state.covariances)
        moved = 0.0 if warm else 1.0
        for k in range(K):
            if fixed.has_covariance[k]:
                copy_into(state.covariances[k].reshape(D * D), fixed.covariances[k].reshape(D * D))
            for j in range(D):
                before[j] = P[k, j, j]
            if not precision_cholesky(state.covariances[k], P[k]) > 1e-13:
                return k
            for j in range(D):
                if P[k, j, j] > 1e12 * problem.reference[j]:
                    return k
                moved = max(moved, abs(before[j] / P[k, j, j] - 1.0))
        if not (pull or penalty.degrees > 0.0) or moved < still:
            break
        warm = True
    state.numbers[ROUNDING] = 0.0
    for k in range(K):
        log_scale[k] = math.log(weights[k]) - 0.5 * D * math.log(2.0 * math.pi)
        square = 0.0
        for j in range(D):
            log_scale[k] += math.log(P[k, j, j])
            s = 0.0
            for i in range(j + 1):
                s += P[k, i, j] * rounded[k, i]
            square += s * s
        if square > 1e-4:
            return k  # it is no wider than a hundred times the steps between numbers as large as its mean
        state.numbers[ROUNDING] += 0.5 * counts[k] * square
    state.numbers[PENALTY] = _log_prior(problem, state, share) if penalty.rows > 0.0 else 0.0
    return -1


@njit(error_model="numpy")
def _narrowest(problem, state):
    """The component with the least conditional sd relative to the data's."""
    P = state.parameters.precisions_cholesky
    worst, narrowest = 0.0, 0
    for k in range(P.shape[0]):
        for j in range(P.shape[1]):
            if P[k, j, j] > worst * problem.reference[j]:
                worst, narrowest = P[k, j, j] / problem.reference[j], k
    return narrowest


@njit(error_model="numpy")
def _moments(state, g):
    """g = the moments that the E-step's statistics, taken about the current means, amount to."""
    counts, first, scatter = state.statistics
    offsets = state.parameters.offsets
    K, D = offsets.shape
    for k in range(K):
        g[k] = counts[k]
        n = max(counts[k], 1e-300)  # an empty component stays where it is
        for i in range(D):
            shift = first[k, i] / n
            g[K + k * D + i] = offsets[k, i] + shift
            for j in range(D):
                g[K + K * D + (k * D + i) * D + j] = scatter[k, i, j] / n - shift * (first[k, j] / n)


@njit(error_model="numpy")
def _extrapolate(problem, state, f):
    """Anderson's mixing of the remembered steps (Walker & Ni 2011): state.z from the residual f = fallback - z."""
    dz, df = state.differences[0], state.differences[1]
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
        s = state.fallback[i]
        for p in range(m):
            s -= b[p] * (dz[p, i] + df[p, i])
        state.z[i] = s


@njit(error_model="numpy")
def _reflect(problem, state, f):
    """Whether residuals grew along the newest step, away from a saddle; then state.z goes on along it from fallback.

    A secant step would return to the saddle; this one is as long and goes the other way (Dauphin et al. 2014).
    """
    dz, df = state.differences[0, 0], state.differences[1, 0]
    along, onto, square = 0.0, 0.0, 0.0
    for i in range(f.size):
        weight = problem.metric[i] ** 2 * df[i]
        along += weight * dz[i]
        onto += weight * f[i]
        square += weight * df[i]
    if not along > 0.0:
        return False
    for i in range(f.size):
        state.z[i] = state.fallback[i] + abs(onto) / square * (dz[i] + df[i])
    return True


@njit(error_model="numpy")
def _remember(state, f):
    """Shift the newest differences of moments and residuals in front."""
    m = int(state.numbers[REMEMBERED])
    dz, df = state.differences[0], state.differences[1]
    for p in range(min(m, MEMORY - 1), 0, -1):
        copy_into(dz[p], dz[p - 1])
        copy_into(df[p], df[p - 1])
    for i in range(f.size):
        dz[0, i] = state.z[i] - state.last[0, i]
        df[0, i] = f[i] - state.last[1, i]
    state.numbers[REMEMBERED] = min(m + 1, MEMORY)


@njit
def _copy_step(source, target):
    """Copy parameters and the moments they were made from, of a `State` or of what it has accepted."""
    for k in range(source.weights.size):
        target.parameters.log_scale[k] = source.parameters.log_scale[k]
        target.weights[k] = source.weights[k]
        copy_into(target.parameters.offsets[k], source.parameters.offsets[k])
        for i in range(source.covariances.shape[1]):
            copy_into(target.parameters.precisions_cholesky[k, i], source.parameters.precisions_cholesky[k, i])
            copy_into(target.covariances[k, i], source.covariances[k, i])
    copy_into(target.z, source.z)


@njit
def _undo(state):
    """Take the plain step instead of an extrapolated one, and forget all but the newest difference.

    An M-step goes on from the parameters before it, so that these, too, must be those of the last accepted step.
    """
    _copy_step(state.accepted, state)
    state.numbers[EXTRAPOLATED] = 0.0
    state.numbers[QUIET] = 0.0
    state.numbers[REMEMBERED] = min(state.numbers[REMEMBERED], 1.0)
    copy_into(state.z, state.fallback)


@njit
def begin(state, moments):
    """Set a state to the start of a climb from ``moments``, for `advance` to make the first parameters."""
    for i in range(state.numbers.size):
        state.numbers[i] = 0.0
    state.numbers[ITERATION] = -1.0
    state.numbers[REMEMBERED] = -1.0
    state.numbers[REMAINING] = np.inf
    state.numbers[VALUE] = -np.inf
    copy_into(state.z, moments)


@njit(cache=True, error_model="numpy")
def advance(problem, state, log_likelihood, certainty):
    """Take the log-likelihood and statistics of an E-step, decide, and make the next parameters.

    A step that was extrapolated and lost log-likelihood is undone. The climb has converged when the gain that is left,
    the last gain times r / (1 - r) with r the ratio of successive gains (Aitken), is below the tolerance three times in
    succession. The last two of these steps are plain ones, for the gains of extrapolated ones say little of what is
    left on a plateau. With tolerance zero the climb has converged where a step no longer changes the moments.
    """
    numbers = state.numbers
    iteration = int(numbers[ITERATION])
    value = log_likelihood + numbers[PENALTY]
    noise = 1e-15 * abs(value) + 1e-13
    if iteration < 0:
        pass  # the first parameters are made from the moments given
    elif numbers[EXTRAPOLATED] > 0 and not value >= numbers[VALUE] - noise:
        state.path[iteration] = numbers[VALUE]
        _undo(state)
    else:
        gain = value - numbers[VALUE]
        # A plain step cannot lose but by rounding its means, or where a covariance is all but singular.
        if not gain >= -1e-9 * (1.0 + abs(value)) - numbers[ROUNDING]:
            numbers[COMPONENT] = _narrowest(problem, state)
            return DEGENERATE
        if gain < 0.0 and problem.tolerance > 0.0:
            state.path[iteration] = numbers[VALUE]
            _copy_step(state.accepted, state)
            numbers[REMAINING] = 0.0
            return CONVERGED
        state.path[iteration] = value
        ratio = gain / numbers[GAIN] if numbers[GAIN] > 0 else 1.0
        numbers[VALUE], numbers[LOG_LIKELIHOOD], numbers[CERTAINTY] = value, log_likelihood, certainty
        if iteration > 0:
            numbers[GAIN] = gain
        if iteration > 1 and problem.tolerance > 0.0:
            numbers[REMAINING] = gain * ratio / (1.0 - ratio) if ratio < 1.0 else np.inf
            quiet = max(numbers[REMAINING], gain) < problem.tolerance
            numbers[QUIET] = numbers[QUIET] + 1.0 if quiet else 0.0
            if (gain <= noise and numbers[EXTRAPOLATED] == 0.0) or numbers[QUIET] > 2.0:
                numbers[REMAINING] = max(min(numbers[REMAINING], problem.tolerance), 0.0)
                return CONVERGED
        if iteration >= problem.max_iterations:
            return EXHAUSTED
        _copy_step(state, state.accepted)
        _moments(state, state.fallback)
        f, longest = np.empty(state.z.size), 0.0
        for i in range(f.size):
            f[i] = state.fallback[i] - state.z[i]
            longest = max(longest, abs(problem.metric[i] * f[i]))
        if problem.tolerance == 0.0 and longest < 1e-14:
            numbers[REMAINING] = 0.0
            return CONVERGED
        if problem.tolerance > 0.0 and gain < 1e-3 * problem.total:
            if numbers[REMEMBERED] >= 0.0:
                _remember(state, f)
            else:
                numbers[REMEMBERED] = 0.0
            copy_into(state.last[0], state.z)
            copy_into(state.last[1], f)
        # The last step is a plain one, too, for an extrapolated one may have to be undone by a step more.
        more = numbers[REMEMBERED] > 0.0 and numbers[QUIET] == 0.0 and iteration + 1 < problem.max_iterations
        numbers[EXTRAPOLATED] = 1.0 if more else 0.0
        if numbers[EXTRAPOLATED] == 0.0:
            copy_into(state.z, state.fallback)
        elif not _reflect(problem, state, f):
            _extrapolate(problem, state, f)
    while True:
        numbers[COMPONENT] = _maximise(problem, state)
        if numbers[COMPONENT] < 0.0:
            numbers[ITERATION] += 1
            return RUNNING
        if numbers[EXTRAPOLATED] == 0.0:
            return DEGENERATE
        _undo(state)


class Outcomes(NamedTuple):
    """Where S climbs ended."""

    codes: np.ndarray  # (S,)
    numbers: np.ndarray  # (S, N_NUMBERS)
    moments: np.ndarray  # (S, size)
    weights: np.ndarray  # (S, K)
    offsets: np.ndarray  # (S, K, D)
    covariances: np.ndarray  # (S, K, D, D)


@njit(nogil=True, cache=True)
def _climb_compiled(X, row_weights, labels, center, diagonal, problem, state, moments, first, last, start, outcomes):
    """Climb from moments[first:last] one after another; row_weights (S or 1, N or 1); the rows from ``start`` on.

    As an argument ``start`` has the type that `accumulate` is compiled for already; a literal 0 would be another.
    """
    for s in range(first, last):
        weight = row_weights[s if row_weights.shape[0] > 1 else 0]
        begin(state, moments[s])
        code = advance(problem, state, 0.0, 0.0)
        while code == RUNNING:
            more = state.numbers[ITERATION] < problem.max_iterations
            log_likelihood, certainty = accumulate(
                X, weight, labels, center, state.parameters, diagonal, start, X.shape[0], more, state.statistics
            )
            code = advance(problem, state, log_likelihood, certainty)
        outcomes.codes[s] = code
        K, D = state.parameters.offsets.shape
        copy_into(outcomes.numbers[s], state.numbers)
        copy_into(outcomes.moments[s], state.z)
        copy_into(outcomes.weights[s], state.weights)
        copy_into(outcomes.offsets[s].reshape(K * D), state.parameters.offsets.reshape(K * D))
        copy_into(outcomes.covariances[s].reshape(K * D * D), state.covariances.reshape(K * D * D))


def climb(X, row_weights, labels, center, diagonal, problem, moments) -> tuple[Outcomes, State]:
    """Run EM from each of ``moments`` (S, size) until it converges, is exhausted or degenerates.

    Small tables share out the climbs between the cores, large ones the rows. The state is the last climb's.
    """
    S = len(moments)
    K, D = problem.penalty.concentration.size, problem.reference.size
    outcomes = Outcomes(
        np.empty(S, np.int64),
        np.empty((S, N_NUMBERS)),
        np.empty_like(moments),
        np.empty((S, K)),
        np.empty((S, K, D)),
        np.empty((S, K, D, D)),
    )
    if not parallel_pays(len(X), K, D, diagonal):
        threads = min(n_threads(), S) if S > 1 else 1
        edges = np.linspace(0, S, threads + 1).astype(int).tolist()
        states = [new_state(K, D, problem.max_iterations) for _ in range(threads)]

        def task(first, last):
            state = states[edges.index(first)]
            _climb_compiled(X, row_weights, labels, center, diagonal, problem, state, moments, first, last, 0, outcomes)

        in_threads(task, list(pairwise(edges)))
        return outcomes, states[-1]
    state = new_state(K, D, problem.max_iterations)
    for s in range(S):
        weight = row_weights[s if len(row_weights) > 1 else 0]
        begin(state, moments[s])
        code = advance(problem, state, 0.0, 0.0)
        while code == RUNNING:
            more = state.numbers[ITERATION] < problem.max_iterations
            log_likelihood, certainty, statistics = expected_statistics(
                X, weight, labels, center, state.parameters, diagonal, more
            )
            for own, new in zip(state.statistics, statistics, strict=True):
                own[:] = new
            code = advance(problem, state, log_likelihood, certainty)
        parts = (code, state.numbers, state.z, state.weights, state.parameters.offsets, state.covariances)
        for array, value in zip(outcomes, parts, strict=True):
            array[s] = value
    return outcomes, state
