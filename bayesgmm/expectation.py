"""The kernel: the only code that reads the data. One pass gives the log-likelihood and the expected statistics.

The statistics (counts, first moments and scatters about each component's own mean) are the gradient of the
log-likelihood (Fisher's identity), so EM, the posterior's gradient and the pointwise log-likelihood share this pass.

Rows are worked in blocks that stay in the L2 cache, laid out feature by feature so that the innermost loops run over
rows and LLVM turns them into SIMD code. Distances are taken from each component's own mean, so that nothing cancels
however far apart the clusters are.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

# Contraction to fused multiply-adds is safe everywhere; reassociation only in sums, never around _exp and _log.
# The numpy error model has no branch for a division by zero, which would keep a loop from vectorising.
_FUSED = {"fastmath": {"contract", "nsz"}, "error_model": "numpy"}
_SUMS = {"fastmath": {"contract", "nsz", "reassoc"}, "error_model": "numpy"}

_BLOCK = 248  # rows: the feature-major block, its residuals and the responsibilities fit the L2 cache for D <= 100
_CHUNKS = 32  # fixed, so that the sums, and with them every result, do not depend on the number of cores
_PARALLEL_WORK = 2e6  # multiply-adds below which handing chunks to threads costs more than it saves
_LOWEST = -1e300  # stands for log 0 where an infinity would turn into NaN


class Parameters(NamedTuple):
    """A mixture as the kernel reads it, with means as offsets from a fixed ``center`` of the data.

    ``log_scale`` (K,) is log w_k + log|P_k| - D/2 log 2 pi; ``offsets`` (K, D); ``precisions_cholesky`` (K, D, D),
    upper triangular, with the precision P P'.
    """

    log_scale: np.ndarray
    offsets: np.ndarray
    precisions_cholesky: np.ndarray


class Statistics(NamedTuple):
    """Expected statistics about the components' means: ``counts`` (K,), ``first`` (K, D), ``scatter`` (K, D, D)."""

    counts: np.ndarray
    first: np.ndarray
    scatter: np.ndarray


@intrinsic
def _bits(typing_context, x):
    """The bit pattern of a float64 as an int64."""
    return types.int64(types.float64), lambda c, builder, s, args: builder.bitcast(args[0], ir.IntType(64))


@intrinsic
def _from_bits(typing_context, i):
    """The float64 with the bit pattern of an int64."""
    return types.float64(types.int64), lambda c, builder, s, args: builder.bitcast(args[0], ir.DoubleType())


@njit(**_FUSED, inline="always")
def _exp(x):
    """exp(x) for x <= 0, zero below -708; a polynomial, so that a loop over it vectorises (2 ulp)."""
    t = max(x, -708.0) * 1.4426950408889634 + 6755399441055744.0  # adding 1.5 * 2^52 rounds to an integer
    n = t - 6755399441055744.0
    r = (max(x, -708.0) - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10
    p = 1.6059043836821613e-10  # Taylor's 1/13!, ...; |r| <= log(2)/2
    p = p * r + 2.08767569878681e-09
    p = p * r + 2.505210838544172e-08
    p = p * r + 2.755731922398589e-07
    p = p * r + 2.7557319223985893e-06
    p = p * r + 2.48015873015873e-05
    p = p * r + 0.0001984126984126984
    p = p * r + 0.001388888888888889
    p = p * r + 0.008333333333333333
    p = p * r + 0.041666666666666664
    p = p * r + 0.16666666666666666
    p = p * r + 0.5
    p = p * r + 1.0
    p = p * r + 1.0
    return _from_bits(_bits(p) + (_bits(t) << 52)) if x > -708.0 else 0.0


@njit(**_FUSED, inline="always")
def _log(x):
    """log(x) for x >= 1, by the series of atanh on the mantissa in [sqrt(1/2), sqrt(2)); vectorises (2 ulp)."""
    shifted = _bits(x) - 4604544271217802189  # the bits of sqrt(1/2): its multiples of 2^52 are the exponent
    exponent = _from_bits((shifted >> 52) + 4841369599423283200) - 4503599627370496.0  # 2^52 as a converter
    f = _from_bits(_bits(x) - ((shifted >> 52) << 52))
    s = (f - 1.0) / (f + 1.0)
    z = s * s
    p = 1.0 / 23.0
    p = p * z + 1.0 / 21.0
    p = p * z + 1.0 / 19.0
    p = p * z + 1.0 / 17.0
    p = p * z + 1.0 / 15.0
    p = p * z + 1.0 / 13.0
    p = p * z + 1.0 / 11.0
    p = p * z + 1.0 / 9.0
    p = p * z + 1.0 / 7.0
    p = p * z + 1.0 / 5.0
    p = p * z + 1.0 / 3.0
    return exponent * 6.93147180369123816490e-01 + (exponent * 1.90821492927058770002e-10 + (2.0 * s + 2.0 * s * z * p))


@njit
def _buffer(rows, B):
    """An empty (rows, B) array on a cache-line boundary: a vector that straddles two lines loads at half speed."""
    flat = np.empty(rows * B + 8)
    offset = (-(flat.ctypes.data // 8)) % 8
    return flat[offset : offset + rows * B].reshape(rows, B)


@njit(inline="always")
def _load(X, center, start, stop, x):
    """Rows [start, stop) of X minus ``center`` into x (D, B), feature-major; columns past them are zero."""
    n = stop - start
    for j in range(x.shape[0]):
        xj, cj = x[j], center[j]
        for b in range(n):
            xj[b] = X[start + b, j] - cj
        xj[n:] = 0.0


@njit(**_FUSED)
def _squared_distance(x, mean, P, diagonal, d, y, q):
    """q (B,) = |P'(x - mean)|^2, with d (D, B) = x - mean left for the caller; y (2, B) is scratch."""
    D, B = x.shape
    for j in range(D):
        xj, dj, mj = x[j], d[j], mean[j]
        for b in range(B):
            dj[b] = xj[b] - mj
    q[:] = 0.0
    if diagonal:
        for j in range(D):
            dj, p = d[j], P[j, j] * P[j, j]
            for b in range(B):
                q[b] += p * dj[b] * dj[b]
        return
    u, v = y[0], y[1]
    # Two columns of P at a time, four rows at a time: eight multiply-adds for four loads.
    for j in range(0, D - 1, 2):
        d0, d1 = d[j], d[j + 1]
        p00, p01, p11 = P[j, j], P[j, j + 1], P[j + 1, j + 1]
        for b in range(B):
            u[b] = p00 * d0[b]
            v[b] = p01 * d0[b] + p11 * d1[b]
        for i in range(0, j - 3, 4):
            d0, d1, d2, d3 = d[i], d[i + 1], d[i + 2], d[i + 3]
            p0, p1, p2, p3 = P[i, j], P[i + 1, j], P[i + 2, j], P[i + 3, j]
            r0, r1, r2, r3 = P[i, j + 1], P[i + 1, j + 1], P[i + 2, j + 1], P[i + 3, j + 1]
            for b in range(B):
                u[b] += p0 * d0[b] + p1 * d1[b] + p2 * d2[b] + p3 * d3[b]
                v[b] += r0 * d0[b] + r1 * d1[b] + r2 * d2[b] + r3 * d3[b]
        if j % 4:
            d0, d1 = d[j - 2], d[j - 1]
            p0, p1, r0, r1 = P[j - 2, j], P[j - 1, j], P[j - 2, j + 1], P[j - 1, j + 1]
            for b in range(B):
                u[b] += p0 * d0[b] + p1 * d1[b]
                v[b] += r0 * d0[b] + r1 * d1[b]
        for b in range(B):
            q[b] += u[b] * u[b] + v[b] * v[b]
    if D % 2:
        dj, p = d[D - 1], P[D - 1, D - 1]
        for b in range(B):
            u[b] = p * dj[b]
        for i in range(D - 1):
            di, p = d[i], P[i, D - 1]
            for b in range(B):
                u[b] += p * di[b]
        for b in range(B):
            q[b] += u[b] * u[b]


@njit(**_FUSED)
def _joint(x, parameters, diagonal, d, y, q, joint):
    """joint (K, B) = log w_k + log N(x_b | mean_k, covariance_k) for the rows of a block."""
    for k in range(joint.shape[0]):
        _squared_distance(x, parameters.offsets[k], parameters.precisions_cholesky[k], diagonal, d, y, q)
        jk, c = joint[k], parameters.log_scale[k]
        for b in range(q.size):
            jk[b] = max(c - 0.5 * q[b], _LOWEST)


@njit(**_FUSED)
def _normalise(joint, weight, log_prob, total):
    """Turn log joint densities (K, B) into weighted responsibilities in place.

    log_prob (B,) becomes their log-sum-exp and total (B,) minus the log of the largest responsibility.
    """
    log_prob[:] = _LOWEST
    for k in range(joint.shape[0]):
        jk = joint[k]
        for b in range(log_prob.size):
            log_prob[b] = max(log_prob[b], jk[b])
    total[:] = 0.0
    for k in range(joint.shape[0]):
        jk = joint[k]
        for b in range(log_prob.size):
            jk[b] = _exp(jk[b] - log_prob[b])
            total[b] += jk[b]
    for k in range(joint.shape[0]):
        jk = joint[k]
        for b in range(log_prob.size):
            jk[b] *= weight[b] / total[b]
    for b in range(log_prob.size):
        total[b] = _log(total[b])
        log_prob[b] += total[b]


@njit(**_SUMS)
def _dot(a, b):
    total = 0.0
    for i in range(a.size):
        total += a[i] * b[i]
    return total


@njit(**_SUMS)
def _add_moments(x, mean, r, diagonal, d, e, first, scatter):
    """Add sum_b r_b (x - mean, (x - mean)(x - mean)') of a block, the scatter's lower triangle; return sum_b r_b."""
    D, B = x.shape
    count = 0.0
    for b in range(B):
        count += r[b]
    for j in range(D):
        xj, dj, ej, mj, total = x[j], d[j], e[j], mean[j], 0.0
        for b in range(B):
            t = xj[b] - mj
            dj[b] = t
            ej[b] = r[b] * t
            total += r[b] * t
        first[j] += total
    if diagonal:
        for j in range(D):
            scatter[j, j] += _dot(d[j], e[j])
        return count
    # Two rows of the scatter at a time, four columns at a time.
    for i in range(0, D - 1, 2):
        e0, e1 = e[i], e[i + 1]
        for j in range(0, i - 3, 4):
            d0, d1, d2, d3 = d[j], d[j + 1], d[j + 2], d[j + 3]
            s0, s1, s2, s3, t0, t1, t2, t3 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            for b in range(B):
                s0 += e0[b] * d0[b]
                s1 += e0[b] * d1[b]
                s2 += e0[b] * d2[b]
                s3 += e0[b] * d3[b]
                t0 += e1[b] * d0[b]
                t1 += e1[b] * d1[b]
                t2 += e1[b] * d2[b]
                t3 += e1[b] * d3[b]
            scatter[i, j] += s0
            scatter[i, j + 1] += s1
            scatter[i, j + 2] += s2
            scatter[i, j + 3] += s3
            scatter[i + 1, j] += t0
            scatter[i + 1, j + 1] += t1
            scatter[i + 1, j + 2] += t2
            scatter[i + 1, j + 3] += t3
        if i % 4:
            d0, d1 = d[i - 2], d[i - 1]
            s0, s1, t0, t1 = 0.0, 0.0, 0.0, 0.0
            for b in range(B):
                s0 += e0[b] * d0[b]
                s1 += e0[b] * d1[b]
                t0 += e1[b] * d0[b]
                t1 += e1[b] * d1[b]
            scatter[i, i - 2] += s0
            scatter[i, i - 1] += s1
            scatter[i + 1, i - 2] += t0
            scatter[i + 1, i - 1] += t1
        d0, d1 = d[i], d[i + 1]
        s0, t0, t1 = 0.0, 0.0, 0.0
        for b in range(B):
            s0 += e0[b] * d0[b]
            t0 += e1[b] * d0[b]
            t1 += e1[b] * d1[b]
        scatter[i, i] += s0
        scatter[i + 1, i] += t0
        scatter[i + 1, i + 1] += t1
    if D % 2:
        for j in range(D):
            scatter[D - 1, j] += _dot(e[D - 1], d[j])
    return count


@njit(inline="always")
def _block_rows(n):
    """Rows per block: little padding at the end, and an odd multiple of 8, the SIMD width in float64.

    With a power of two between them, the features of a row would compete for the same few cache lines.
    """
    blocks = max((n + _BLOCK - 1) // _BLOCK, 1)
    return ((n + blocks - 1) // blocks + 7) // 8 // 2 * 16 + 8


@njit(nogil=True, cache=True)
def accumulate(X, row_weight, labels, center, parameters, diagonal, start, stop, moments, statistics):
    """Log-likelihood of rows [start, stop) and the sum of their largest log responsibilities (nats).

    Overwrites ``statistics`` where ``moments`` is true.
    ``row_weight`` has one entry per row or a single one for all; ``labels`` is empty or has one entry per row, -1 where
    the component is unknown. ``diagonal`` promises diagonal ``precisions_cholesky`` and asks for no more of the
    scatters.
    """
    K, D = parameters.offsets.shape
    B = _block_rows(stop - start)
    buffer = _buffer(5 + 3 * D + K, B)
    q, log_prob, weight, y, joint = buffer[0], buffer[1], buffer[2], buffer[3:5], buffer[5 : 5 + K]
    x, d, e = buffer[5 + K : 5 + K + D], buffer[5 + K + D : 5 + K + 2 * D], buffer[5 + K + 2 * D :]
    counts, first, scatter = statistics
    counts[:] = 0.0
    first[:] = 0.0
    scatter[:] = 0.0
    log_likelihood, certainty = 0.0, 0.0
    for begin in range(start, stop, B):
        end = min(begin + B, stop)
        n = end - begin
        _load(X, center, begin, end, x)
        for b in range(B):
            weight[b] = 0.0 if b >= n else row_weight[begin + b if row_weight.size > 1 else 0]
        _joint(x, parameters, diagonal, d, y, q, joint)
        if labels.size:
            for b in range(n):
                if labels[begin + b] >= 0:
                    known = joint[labels[begin + b], b]
                    joint[:, b] = _LOWEST
                    joint[labels[begin + b], b] = known
        _normalise(joint, weight, log_prob, q)
        log_likelihood += _dot(weight, log_prob)
        certainty -= _dot(weight, q)
        for k in range(K if moments else 0):
            counts[k] += _add_moments(x, parameters.offsets[k], joint[k], diagonal, d, e, first[k], scatter[k])
    for k in range(K):
        for i in range(D):
            for j in range(i):
                scatter[k, j, i] = scatter[k, i, j]
    return log_likelihood, certainty


@njit(nogil=True, cache=True)
def fill_log_prob(X, center, parameters, diagonal, start, stop, out):
    """Fill out[start:stop] with the log mixture densities of those rows, in nats."""
    K, D = parameters.offsets.shape
    B = _block_rows(stop - start)
    buffer = _buffer(5 + 2 * D + K, B)
    q, log_prob, weight, y, joint = buffer[0], buffer[1], buffer[2], buffer[3:5], buffer[5 : 5 + K]
    x, d = buffer[5 + K : 5 + K + D], buffer[5 + K + D :]
    weight[:] = 1.0
    for begin in range(start, stop, B):
        end = min(begin + B, stop)
        _load(X, center, begin, end, x)
        _joint(x, parameters, diagonal, d, y, q, joint)
        _normalise(joint, weight, log_prob, q)
        for b in range(end - begin):
            out[begin + b] = log_prob[b]


@njit(nogil=True, cache=True)
def _fill_log_joint(X, center, parameters, diagonal, start, stop, out):
    K, D = parameters.offsets.shape
    B = _block_rows(stop - start)
    buffer = _buffer(3 + 2 * D + K, B)
    q, y, joint = buffer[0], buffer[1:3], buffer[3 : 3 + K]
    x, d = buffer[3 + K : 3 + K + D], buffer[3 + K + D :]
    for begin in range(start, stop, B):
        end = min(begin + B, stop)
        _load(X, center, begin, end, x)
        _joint(x, parameters, diagonal, d, y, q, joint)
        for k in range(K):
            for b in range(end - begin):
                out[begin + b, k] = joint[k, b]


@njit(**_SUMS)
def _not_finite(x):
    """NaN where an entry is not finite, else 0."""
    total = 0.0
    for b in range(x.size):
        total += 0.0 * x[b]
    return total


@njit(nogil=True, cache=True, error_model="numpy")
def _fill_ranges(X, start, stop, low, high):
    """Least and largest entry of each column in rows [start, stop); NaN where one is not finite."""
    D = X.shape[1]
    B = _block_rows(stop - start)
    x, zero = _buffer(D, B), np.zeros(D)
    for begin in range(start, stop, B):
        end = min(begin + B, stop)
        _load(X, zero, begin, end, x)
        for j in range(D):
            xj, least, most = x[j], low[j], high[j]
            for b in range(end - begin):
                least = min(least, xj[b])
                most = max(most, xj[b])
            wrong = _not_finite(xj)
            low[j], high[j] = least + wrong, most + wrong


def column_ranges(X) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest entry of each column, (D,) each; NaN for a column with an entry that is not finite."""
    N, D = X.shape
    ranges = _ranges(N, np.empty((1, D)), False)
    low, high = np.full((len(ranges), D), np.inf), np.full((len(ranges), D), -np.inf)

    def task(start, stop):
        i = next(i for i, (first, _) in enumerate(ranges) if first == start)
        _fill_ranges(X, start, stop, low[i], high[i])

    in_threads(task, ranges)
    return low.min(axis=0), high.max(axis=0)


_pool: ThreadPoolExecutor | None = None


def _forget_pool() -> None:
    global _pool
    _pool = None


os.register_at_fork(after_in_child=_forget_pool)  # a forked child has none of its parent's threads


def n_threads() -> int:
    """Number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(task, ranges):
    """``task(start, stop)`` for every range, on all cores, in the ranges' order."""
    global _pool
    if len(ranges) == 1:
        return [task(*ranges[0])]
    if _pool is None:
        _pool = ThreadPoolExecutor(n_threads(), thread_name_prefix="bayesgmm")
    return list(_pool.map(lambda r: task(*r), ranges))


def parallel_pays(n: int, K: int, D: int, diagonal: bool) -> bool:
    """Whether a pass over n rows is long enough to be shared between threads."""
    return n >= 2 * _BLOCK and n * K * (10 + (4 * D if diagonal else D * (D + 4))) > _PARALLEL_WORK


def _ranges(n: int, means: np.ndarray, diagonal: bool) -> list[tuple[int, int]]:
    """The chunks of rows that threads take, or one where threads would not pay."""
    chunks = min(_CHUNKS, n // _BLOCK) if parallel_pays(n, *means.shape, diagonal) else 1
    edges = np.linspace(0, n, chunks + 1).astype(int).tolist()
    return list(pairwise(edges))


def expected_statistics(
    X, row_weight, labels, center, parameters: Parameters, diagonal: bool = False, moments: bool = True
):
    """Log-likelihood, sum of the largest log responsibilities (nats) and expected `Statistics` of all rows.

    The arguments are those of `accumulate`. The statistics are the gradient of the log-likelihood: d/d log w_k =
    counts_k (weights unnormalised) and d/d mean_k = P_k P_k' first_k (Fisher's identity).
    """
    K, D = parameters.offsets.shape

    def task(start, stop):
        statistics = Statistics(np.empty(K), np.empty((K, D)), np.empty((K, D, D)))
        return *accumulate(
            X, row_weight, labels, center, parameters, diagonal, start, stop, moments, statistics
        ), statistics

    values, certainties, parts = zip(*in_threads(task, _ranges(len(X), parameters.offsets, diagonal)), strict=True)
    statistics = Statistics(*(np.sum(part, axis=0) for part in zip(*parts, strict=True)))
    return math.fsum(values), math.fsum(certainties), statistics


def log_prob(X, center, parameters: Parameters, diagonal: bool = False) -> np.ndarray:
    """Log mixture density of each row, shape (N,), in nats."""
    out = np.empty(len(X))
    in_threads(
        lambda start, stop: fill_log_prob(X, center, parameters, diagonal, start, stop, out),
        _ranges(len(X), parameters.offsets, diagonal),
    )
    return out


def log_joint(X, center, parameters: Parameters, diagonal: bool = False) -> np.ndarray:
    """log w_k + log N(x | mean_k, covariance_k), shape (N, K), in nats."""
    out = np.empty((len(X), len(parameters.offsets)))
    in_threads(
        lambda start, stop: _fill_log_joint(X, center, parameters, diagonal, start, stop, out),
        _ranges(len(X), parameters.offsets, diagonal),
    )
    return out
