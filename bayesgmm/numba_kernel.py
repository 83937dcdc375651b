"""The kernel of `expectation` once more, for numba to inline where density and climb are still compiled by it."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from bayesgmm.lanes import add, load, maximum, multiply, multiply_add, splat, store, subtract, totals

# Contraction to fused multiply-adds is safe everywhere; reassociation only in sums, never around _exp and _log.
# The numpy error model has no branch for a division by zero, which would keep a loop from vectorising.
_FUSED = {"fastmath": {"contract", "nsz"}, "error_model": "numpy"}
_SUMS = {"fastmath": {"contract", "nsz", "reassoc"}, "error_model": "numpy"}

_CACHE = 45_000  # bytes of a block: a little below the usual L1 cache,
_LEAST, _MOST = 128, 512
_GROUP = 32  # rows worked at once: four vectors of eight
_PAD = 8  # between the features of a block, or a row's would compete for the same few cache lines
_LOWEST = -1e300  # stands for log 0 where an infinity would turn into NaN


@njit
def copy_into(target, source):
    """Copy a vector. A slice assignment would do, but compiling its error message's strings takes a second and more."""
    for i in range(target.size):
        target[i] = source[i]


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
    """exp(x) for x <= 0, zero below -600 so that no product with it is subnormal; a loop over it vectorises (2 ulp)."""
    t = max(x, -600.0) * 1.4426950408889634 + 6755399441055744.0  # adding 1.5 * 2^52 rounds to an integer
    n = t - 6755399441055744.0
    r = (max(x, -600.0) - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10
    p = 2.08767569878681e-09  # Taylor's 1/12!, ...; |r| <= log(2)/2
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
    return _from_bits(_bits(p) + (_bits(t) << 52)) if x > -600.0 else 0.0


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


# A block is worked in one flat array of lines of B + _PAD entries, one entry a row of the block: Q, LOG_PROB, WEIGHT,
# QUOTIENT and TOTALS, then K lines of joint densities, D of the features, and D of residuals.
# Lines are named by number: slices count references, which costs more than the arithmetic on a small block.
_Q, _LOG_PROB, _WEIGHT, _QUOTIENT, _TOTALS, _JOINT = 0, 1, 2, 3, 4, 5


@njit(error_model="numpy")
def _lines(n_lines, B):
    """An empty flat array of lines on a cache-line boundary: a vector that straddles two loads at half speed."""
    width = B + _PAD
    flat = np.empty(n_lines * width + 8)
    offset = (-(flat.ctypes.data // 8)) % 8
    return flat[offset : offset + n_lines * width]


@njit(error_model="numpy")
def _load_rows(X, center, begin, end, x):
    """Rows [begin, end) of X minus ``center`` into x (D, width), feature-major; what is past them becomes zero."""
    for j in range(x.shape[0]):
        c = center[j]
        for b in range(end - begin):
            x[j, b] = X[begin + b, j] - c
        for b in range(end - begin, x.shape[1]):
            x[j, b] = 0.0


@njit(error_model="numpy")
def _joint(work, width, parameters, diagonal):
    """Lines of log w_k + log N(x_b | mean_k, covariance_k), and in the line LOG_PROB the largest of them.

    The squared distance |P'(x - mean)|^2 is taken for four vectors of rows and two columns of P at a time: eight sums
    stay in registers.
    """
    log_scale, offsets, P = parameters
    K, D = offsets.shape
    x, d = (_JOINT + K) * width, (_JOINT + K + D) * width
    half = splat(-0.5)
    for k in range(K):
        scale, lowest = splat(log_scale[k]), splat(_LOWEST)
        for b in range(0, width - _PAD, _GROUP):
            for j in range(D):
                m, at, to = splat(offsets[k, j]), x + j * width + b, d + j * _GROUP
                store(work, to, subtract(load(work, at), m))
                store(work, to + 8, subtract(load(work, at + 8), m))
                store(work, to + 16, subtract(load(work, at + 16), m))
                store(work, to + 24, subtract(load(work, at + 24), m))
            q0, q1, q2, q3 = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
            for j in range(0, D, 2):
                u0, u1, u2, u3 = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
                v0, v1, v2, v3 = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
                last = min(j + 1, D - 1)  # with an odd D the last column stands alone
                for i in range(j if diagonal else 0, j + 1):
                    p, r, at = splat(P[k, i, j]), splat(P[k, i, last]), d + i * _GROUP
                    d0, d1, d2, d3 = load(work, at), load(work, at + 8), load(work, at + 16), load(work, at + 24)
                    u0, v0 = multiply_add(p, d0, u0), multiply_add(r, d0, v0)
                    u1, v1 = multiply_add(p, d1, u1), multiply_add(r, d1, v1)
                    u2, v2 = multiply_add(p, d2, u2), multiply_add(r, d2, v2)
                    u3, v3 = multiply_add(p, d3, u3), multiply_add(r, d3, v3)
                q0, q1 = multiply_add(u0, u0, q0), multiply_add(u1, u1, q1)
                q2, q3 = multiply_add(u2, u2, q2), multiply_add(u3, u3, q3)
                if last > j:
                    r, at = splat(P[k, last, last]), d + last * _GROUP
                    v0, v1 = multiply_add(r, load(work, at), v0), multiply_add(r, load(work, at + 8), v1)
                    v2, v3 = multiply_add(r, load(work, at + 16), v2), multiply_add(r, load(work, at + 24), v3)
                    q0, q1 = multiply_add(v0, v0, q0), multiply_add(v1, v1, q1)
                    q2, q3 = multiply_add(v2, v2, q2), multiply_add(v3, v3, q3)
            to, top = (_JOINT + k) * width + b, _LOG_PROB * width + b
            q0, q1 = maximum(multiply_add(half, q0, scale), lowest), maximum(multiply_add(half, q1, scale), lowest)
            q2, q3 = maximum(multiply_add(half, q2, scale), lowest), maximum(multiply_add(half, q3, scale), lowest)
            store(work, to, q0)
            store(work, to + 8, q1)
            store(work, to + 16, q2)
            store(work, to + 24, q3)
            if k:
                q0, q1 = maximum(load(work, top), q0), maximum(load(work, top + 8), q1)
                q2, q3 = maximum(load(work, top + 16), q2), maximum(load(work, top + 24), q3)
            store(work, top, q0)
            store(work, top + 8, q1)
            store(work, top + 16, q2)
            store(work, top + 24, q3)


@njit(**_FUSED)
def _normalise(work, width, K):
    """Turn the lines of log joint densities into weighted responsibilities.

    The line LOG_PROB turns from their maximum into their log-sum-exp, and Q into minus the log of the largest
    responsibility.
    """
    B = width - _PAD
    log_prob, total, weight, quotient = _LOG_PROB * width, _Q * width, _WEIGHT * width, _QUOTIENT * width
    for b in range(B):
        work[total + b] = 0.0
    for k in range(K):
        at = (_JOINT + k) * width
        for b in range(B):
            r = _exp(work[at + b] - work[log_prob + b])
            work[at + b] = r
            work[total + b] += r
    for b in range(B):
        work[quotient + b] = work[weight + b] / work[total + b]
        work[total + b] = _log(work[total + b])
        work[log_prob + b] += work[total + b]
    for k in range(K):
        at = (_JOINT + k) * width
        for b in range(B):
            work[at + b] *= work[quotient + b]


@njit(**_SUMS)
def _dot(a, b, n):
    total = 0.0
    for i in range(n):
        total += a[i] * b[i]
    return total


@njit(error_model="numpy")
def _add_moments(work, width, offsets, diagonal, counts, first, scatter):
    """Add sum_b r_b (1, x - mean, (x - mean) x') of a block for each component, the lower triangle of the last.

    Taking one factor from the mean and the other from the center spares a line of residuals; `accumulate` takes the
    difference off. Rounding then grows with a component's distance from the center in sds, not with its square.
    Two rows and two columns of the scatter and two vectors of rows at a time: eight sums stay in registers.
    """
    K, D = offsets.shape
    B, sums = width - _PAD, _TOTALS * width
    x, e = (_JOINT + K) * width, (_JOINT + K + D) * width
    zero = splat(0.0)
    for k in range(K):
        r = (_JOINT + k) * width
        n0, n1 = zero, zero
        for b in range(0, B, 16):
            n0, n1 = add(n0, load(work, r + b)), add(n1, load(work, r + b + 8))
        for j in range(D):
            m, at = splat(offsets[k, j]), j * width
            for b in range(0, B, 8):
                store(work, e + at + b, multiply(load(work, r + b), subtract(load(work, x + at + b), m)))
        for i in range(0, D, 2):
            last = min(i + 1, D - 1)  # with an odd D the last row stands alone
            p, q = e + i * width, e + last * width
            for j in range(0, 0 if diagonal else i, 2):
                c, g = x + j * width, x + (j + 1) * width
                s0, s1, s2, s3, t0, t1, t2, t3 = zero, zero, zero, zero, zero, zero, zero, zero
                for b in range(0, B, 16):
                    u, v, y, z = load(work, p + b), load(work, q + b), load(work, c + b), load(work, g + b)
                    s0, s1 = multiply_add(u, y, s0), multiply_add(u, z, s1)
                    s2, s3 = multiply_add(v, y, s2), multiply_add(v, z, s3)
                    u, v = load(work, p + b + 8), load(work, q + b + 8)
                    y, z = load(work, c + b + 8), load(work, g + b + 8)
                    t0, t1 = multiply_add(u, y, t0), multiply_add(u, z, t1)
                    t2, t3 = multiply_add(v, y, t2), multiply_add(v, z, t3)
                store(work, sums, totals(s0, s1, s2, s3, t0, t1, t2, t3))
                scatter[k, i, j] += work[sums] + work[sums + 4]
                scatter[k, i, j + 1] += work[sums + 1] + work[sums + 5]
                if last > i:
                    scatter[k, last, j] += work[sums + 2] + work[sums + 6]
                    scatter[k, last, j + 1] += work[sums + 3] + work[sums + 7]
            s0, s1, s2, t0, t1, t2, f0, f1 = zero, zero, zero, zero, zero, zero, zero, zero
            c, g = x + i * width, x + last * width
            for b in range(0, B, 16):
                u, v, y = load(work, p + b), load(work, q + b), load(work, c + b)
                s0, s1, s2 = multiply_add(u, y, s0), multiply_add(v, y, s1), multiply_add(v, load(work, g + b), s2)
                f0, f1 = add(u, f0), add(v, f1)
                u, v, y = load(work, p + b + 8), load(work, q + b + 8), load(work, c + b + 8)
                t0, t1, t2 = multiply_add(u, y, t0), multiply_add(v, y, t1), multiply_add(v, load(work, g + b + 8), t2)
                f0, f1 = add(u, f0), add(v, f1)
            store(work, sums, totals(add(s0, t0), add(s1, t1), add(s2, t2), f0, f1, add(n0, n1), zero, zero))
            first[k, i] += work[sums + 3]
            scatter[k, i, i] += work[sums]
            if last > i:
                first[k, last] += work[sums + 4]
                scatter[k, last, last] += work[sums + 2]
                if not diagonal:
                    scatter[k, last, i] += work[sums + 1]
        counts[k] += work[sums + 5]


@njit(error_model="numpy")
def _block_rows(n, n_lines):
    """Rows per block: as many as keep its lines in the L1 cache, within bounds, and little padding at the end."""
    most = min(max(_CACHE // (8 * n_lines), _LEAST), _MOST)
    blocks = max((n + most - 1) // most, 1)
    return max((n + blocks - 1) // blocks + _GROUP - 1, _GROUP) // _GROUP * _GROUP


@njit(nogil=True, cache=True)
def accumulate(X, row_weight, labels, center, parameters, diagonal, start, stop, moments, statistics):
    """Log-likelihood of rows [start, stop) and the sum of their largest log responsibilities (nats).

    Overwrites ``statistics`` where ``moments`` is true.
    ``row_weight`` has one entry per row or a single one for all; ``labels`` is empty or has one entry per row, -1 where
    the component is unknown. ``diagonal`` promises diagonal ``precisions_cholesky`` and asks for no more of the
    scatters.
    """
    K, D = parameters.offsets.shape
    n_lines = _JOINT + K + 2 * D
    B = _block_rows(stop - start, n_lines)
    width = B + _PAD
    work = _lines(n_lines, B)
    x = work[(_JOINT + K) * width : (_JOINT + K + D) * width].reshape(D, width)
    log_prob, q = work[_LOG_PROB * width : _WEIGHT * width], work[_Q * width : _LOG_PROB * width]
    weight = work[_WEIGHT * width : _QUOTIENT * width]
    counts, first, scatter = statistics
    counts[:] = 0.0
    first[:] = 0.0
    scatter[:] = 0.0
    log_likelihood, certainty = 0.0, 0.0
    for begin in range(start, stop, B):
        end = min(begin + B, stop)
        _load_rows(X, center, begin, end, x)
        for b in range(B):
            row = begin + b if row_weight.size > 1 else 0
            weight[b] = row_weight[row] if begin + b < end else 0.0
        _joint(work, width, parameters, diagonal)
        if labels.size:
            for b in range(end - begin):
                for k in range(K if labels[begin + b] >= 0 else 0):
                    if k == labels[begin + b]:
                        log_prob[b] = work[(_JOINT + k) * width + b]
                    else:
                        work[(_JOINT + k) * width + b] = _LOWEST
        _normalise(work, width, K)
        log_likelihood += _dot(log_prob, weight, B)
        certainty -= _dot(q, weight, B)
        if moments:
            _add_moments(work, width, parameters.offsets, diagonal, counts, first, scatter)
    for k in range(K):
        for i in range(D):
            for j in range(i if diagonal else 0, i + 1):
                scatter[k, i, j] -= first[k, i] * parameters.offsets[k, j]
                scatter[k, j, i] = scatter[k, i, j]
    return log_likelihood, certainty


@njit(nogil=True, cache=True)
def fill_log_prob(X, center, parameters, diagonal, start, stop, out):
    """Fill out[start:stop] with the log mixture densities of those rows, in nats."""
    K, D = parameters.offsets.shape
    n_lines = _JOINT + K + 2 * D
    B = _block_rows(stop - start, n_lines)
    work = _lines(n_lines, B)
    work[:] = 1.0
    x = work[(_JOINT + K) * (B + _PAD) : (_JOINT + K + D) * (B + _PAD)].reshape(D, B + _PAD)
    for begin in range(start, stop, B):
        end = min(begin + B, stop)
        _load_rows(X, center, begin, end, x)
        _joint(work, B + _PAD, parameters, diagonal)
        _normalise(work, B + _PAD, K)
        for b in range(end - begin):
            out[begin + b] = work[_LOG_PROB * (B + _PAD) + b]
