"""Rows under every draw at once: responsibilities, and assignments drawn from them. The kernel's lanes are the draws.

The kernel of `expectation` has one mixture and many rows; here a few rows meet thousands of mixtures, and what is
wanted of each row (quantiles, means) runs over the draws, which therefore lie side by side in memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from bayesgmm.errors import InputError
from bayesgmm.expectation import in_threads
from bayesgmm.lanes import WIDTH, load, maximum, multiply_add, splat, store, subtract
from bayesgmm.mixture import GaussianMixture
from bayesgmm.numba_kernel import _LOWEST, _PAD, _exp, _lines, _log
from bayesgmm.observations import numeric_table

_TILE = 16  # rows that meet eight draws at a time, in groups of four, whose sums stay in registers
_BLOCK_BYTES = 3e6  # of responsibilities that a thread holds at a time: they stay in the last cache
_TOTAL, _LARGEST, _ENTROPY, _JOINT = 0, 1, 2, 3  # lines of the kernel's work, then K of joint densities


class Packed(NamedTuple):
    """Draws as the kernel reads them, eight side by side.

    ``values`` (S/8, K, 1 + D + D(D+1)/2, 8): log scale, mean minus ``center``, and the columns of the precision's upper
    Cholesky factor. The last eight are filled up with copies of the last draw.
    """

    center: np.ndarray
    values: np.ndarray


class Block(NamedTuple):
    """What some rows are under S draws.

    ``responsibilities`` (n, K, S); ``log_prob`` (n, S), log densities in nats; ``entropy`` (n, S), of the
    responsibilities, in nats.
    """

    responsibilities: np.ndarray
    log_prob: np.ndarray
    entropy: np.ndarray


@dataclass(frozen=True, eq=False)
class Draws:
    """Posterior draws as one mixture of batch shape (S,), the rows in question, and the EM fit where there is one."""

    mixture: GaussianMixture
    X: np.ndarray
    em: GaussianMixture | None
    shape: tuple[int, ...]  # of the batch: (chain, draw)

    @property
    def n_draws(self) -> int:
        """Number of draws S."""
        return len(self.mixture.weights)

    def thinned(self, step: int) -> Draws:
        """Every ``step``-th draw."""
        m = self.mixture
        some = GaussianMixture(m.weights[::step], m.means[::step], m.covariances[::step])
        return Draws(some, self.X, self.em, some.batch_shape)

    @cached_property
    def packed(self) -> Packed:
        """The draws as the kernel reads them."""
        S, K, D = self.mixture.means.shape
        P = self.mixture.precisions_cholesky
        center = np.einsum("sk,skd->d", self.mixture.weights, self.mixture.means) / S
        with np.errstate(divide="ignore"):
            scale = np.log(self.mixture.weights) + np.log(np.einsum("skii->ski", P)).sum(-1)
        scale = np.maximum(scale - 0.5 * D * np.log(2 * np.pi), _LOWEST)
        columns = [P[:, :, i, j] for j in range(D) for i in range(j + 1)]
        flat = np.concatenate([scale[..., None], self.mixture.means - center, np.stack(columns, axis=-1)], axis=-1)
        groups = -(-S // WIDTH)
        flat = flat[np.minimum(np.arange(groups * WIDTH), S - 1)].reshape(groups, WIDTH, K, -1)
        return Packed(center, np.ascontiguousarray(np.moveaxis(flat, 1, -1)))

    def block(self, X: np.ndarray, draws: slice = slice(None), buffer: Block | None = None) -> Block:
        """The rows of X under all draws, or under a slice of them that starts at a multiple of eight.

        The buffer, of `empty_block`, is overwritten; fresh memory costs more than the arithmetic.
        """
        start, stop, _ = draws.indices(self.n_draws)
        values = self.packed.values[start // WIDTH : -(-stop // WIDTH)]
        R, log_prob, entropy = (a[: len(X)] for a in buffer or self.empty_block(len(X), stop - start))
        _fill(np.ascontiguousarray(X), self.packed.center, values, R, log_prob, entropy)
        S = stop - start
        return Block(R[:, :, :S], log_prob[:, :S], entropy[:, :S])

    def empty_block(self, n: int, S: int) -> Block:
        """Room for n rows under S draws: an odd number of cache lines a row, so that rows do not compete for them."""
        width = (-(-S // WIDTH) | 1) * WIDTH
        return Block(np.empty((n, self.mixture.n_components, width)), np.empty((n, width)), np.empty((n, width)))

    def each_block(self, X: np.ndarray, task: Callable[[int, int, Block], None]) -> None:
        """Call ``task(start, stop, block)`` in threads for blocks of the rows of X, each under all draws.

        The blocks do not depend on the number of threads; their arrays may be overwritten.
        """
        n = int(_BLOCK_BYTES / (8 * self.n_draws * self.mixture.n_components))
        n = min(max(n // _TILE * _TILE, min(n, _TILE) // 4 * 4, 4), max(len(X), 1))
        buffers: deque[Block] = deque()

        def work(start: int, stop: int) -> None:
            buffer = buffers.pop() if buffers else self.empty_block(n, self.n_draws)
            task(start, stop, self.block(X[start:stop], buffer=buffer))
            buffers.append(buffer)

        in_threads(work, [(start, min(start + n, len(X))) for start in range(0, len(X), n)])

    def log_predictive(self, X: np.ndarray) -> np.ndarray:
        """Log posterior-predictive density of each row of X in nats, (N,): of the densities' mean over the draws."""
        out = np.empty(len(X))
        self.each_block(X, lambda start, stop, block: np.copyto(out[start:stop], log_mean_exp(block.log_prob)))
        return out

    def assignments(self, rng: np.random.Generator) -> np.ndarray:
        """The component of each row in each draw, drawn from its responsibilities, (N, S)."""
        out = np.zeros((len(self.X), self.n_draws), np.uint8)
        seed = int(rng.integers(2**63))

        def task(start: int, stop: int, block: Block) -> None:
            u = np.random.default_rng([seed, start]).random((stop - start, self.n_draws))
            for k in range(block.responsibilities.shape[1] - 1):
                u -= block.responsibilities[:, k]
                out[start:stop] += u > 0

        self.each_block(self.X, task)
        return out


def log_mean_exp(lines: np.ndarray) -> np.ndarray:
    """Logarithm of the mean of exp(lines) over the last axis; overwrites the lines."""
    largest = lines.max(axis=-1)
    lines -= largest[..., None]
    return largest + np.log(np.exp(lines, out=lines).mean(axis=-1))


def posterior_draws(tree: Any, X: Any, caller: str) -> Draws:
    """The draws of a tree or of a batch of mixtures, and the rows to look at: given, or those the tree was fitted to.

    Raises
    ------
    InputError
        If there are no draws, no rows, or rows with other columns than the draws'.
    """
    if hasattr(tree, "mixture"):
        raise InputError(
            f"{caller} needs posterior draws, not an EM fit; draw them with sample_posterior(X, fit), "
            "or use fit.mixture.responsibilities(X)"
        )
    em = None
    if isinstance(tree, GaussianMixture):
        draws, expected = tree, None
        if X is None:
            raise InputError(f"{caller}(mixture) needs the rows as its second argument")
        if not draws.batch_shape or 0 in draws.batch_shape:
            raise InputError(f"{caller} needs a batch of mixtures, one for each draw; this one has no batch axis")
    elif hasattr(tree, "children") and "posterior" in tree.children:
        draws = _mixture_of(tree["posterior"])
        expected = [str(name) for name in tree["posterior"]["feature"].values]
        em = _mixture_of(tree["em"]) if "em" in tree.children else None
    else:
        raise InputError(
            f"{caller} needs the DataTree of sample_posterior or a GaussianMixture with batch axes, "
            f"not a {type(tree).__name__}"
        )
    rows, names = numeric_table(tree["observed_data"]["observations"].values if X is None else X)
    if hasattr(X, "columns") and expected is not None and list(names) != expected:
        raise InputError(f"the columns {list(names)} are not those that were fitted, {expected}")
    K, D = draws.n_components, draws.n_features
    if rows.shape[1] != D:
        raise InputError(f"the table has {rows.shape[1]} columns, the draws {D} features")
    if not len(rows):
        raise InputError("the table has no rows")
    if K > 255:
        raise InputError(f"{caller} takes at most 255 components, not {K}")
    flat = draws
    if len(draws.batch_shape) != 1:
        flat = GaussianMixture(
            draws.weights.reshape(-1, K), draws.means.reshape(-1, K, D), draws.covariances.reshape(-1, K, D, D)
        )
    return Draws(flat, rows, em, draws.batch_shape)


def _mixture_of(group: Any) -> GaussianMixture:
    return GaussianMixture(**{name: group[name].values for name in ("weights", "means", "covariances")})


@njit(cache=True, error_model="numpy")
def _joint(x, first, values, d, work, width):
    """Lines of log w_k + log N of a tile's rows, 4 from ``first`` on, under eight draws; entry 8 row + draw."""
    D, K = x.shape[0], values.shape[0] // (8 * (1 + x.shape[0] + x.shape[0] * (x.shape[0] + 1) // 2))
    half, lowest = splat(-0.5), splat(_LOWEST)
    at = 0
    for k in range(K):
        scale = load(values, at)
        at += WIDTH
        for j in range(D):
            m = load(values, at)
            at += WIDTH
            to = j * 4 * WIDTH
            store(d, to, subtract(splat(x[j, first]), m))
            store(d, to + 8, subtract(splat(x[j, first + 1]), m))
            store(d, to + 16, subtract(splat(x[j, first + 2]), m))
            store(d, to + 24, subtract(splat(x[j, first + 3]), m))
        q0, q1, q2, q3 = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
        for j in range(D):
            u0, u1, u2, u3 = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
            for i in range(j + 1):
                p, of = load(values, at), i * 4 * WIDTH
                at += WIDTH
                u0, u1 = multiply_add(p, load(d, of), u0), multiply_add(p, load(d, of + 8), u1)
                u2, u3 = multiply_add(p, load(d, of + 16), u2), multiply_add(p, load(d, of + 24), u3)
            q0, q1 = multiply_add(u0, u0, q0), multiply_add(u1, u1, q1)
            q2, q3 = multiply_add(u2, u2, q2), multiply_add(u3, u3, q3)
        to, top = (_JOINT + k) * width + first * WIDTH, _LARGEST * width + first * WIDTH
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


@njit(cache=True, fastmath={"contract", "nsz"}, error_model="numpy")
def _normalise(work, width, K):
    """Turn the lines of log joint densities into responsibilities, their maximum into their log-sum-exp."""
    B = width - _PAD  # a constant once this is inlined, which lets the loops vectorise: three times as fast
    total, largest, entropy = _TOTAL * width, _LARGEST * width, _ENTROPY * width
    for b in range(B):
        work[total + b] = 0.0
        work[entropy + b] = 0.0
    for k in range(K):
        at = (_JOINT + k) * width
        for b in range(B):
            t = work[at + b] - work[largest + b]
            r = _exp(t)
            work[at + b] = r
            work[total + b] += r
            work[entropy + b] -= r * t
    for b in range(B):
        log = _log(work[total + b])
        work[total + b] = 1.0 / work[total + b]
        work[largest + b] += log
        work[entropy + b] = work[entropy + b] * work[total + b] + log
    for k in range(K):
        at = (_JOINT + k) * width
        for b in range(B):
            work[at + b] *= work[total + b]


@njit(nogil=True, cache=True, error_model="numpy")
def _fill(X, center, values, R, log_prob, entropy):
    """Fill R (n, K, S), log_prob (n, S) and entropy (n, S) for the rows X (n, D), S a multiple of eight."""
    n, D = X.shape
    groups, K = values.shape[:2]
    S = R.shape[2]
    B = _TILE * WIDTH
    width = B + _PAD
    work, d, x = _lines(_JOINT + K, B), _lines(D, 4 * WIDTH), np.empty((D, _TILE))
    size = values.size // groups
    flat, to_R, to_log_prob, to_entropy = values.reshape(-1), R.reshape(-1), log_prob.reshape(-1), entropy.reshape(-1)
    for b in range(B):
        for line in range(_JOINT + K):
            work[line * width + b] = 0.0
    for begin in range(0, n, _TILE):
        rows = min(_TILE, n - begin)
        for j in range(D):
            for b in range(_TILE):
                x[j, b] = X[begin + b, j] - center[j] if b < rows else 0.0
        for g in range(groups):
            of = flat[g * size : (g + 1) * size]
            for first in range(0, rows, 4):
                _joint(x, first, of, d, work, width)
            _normalise(work, width, K)
            for b in range(rows):
                row, at = begin + b, b * WIDTH
                store(to_log_prob, row * S + g * WIDTH, load(work, _LARGEST * width + at))
                store(to_entropy, row * S + g * WIDTH, load(work, _ENTROPY * width + at))
                for k in range(K):
                    store(to_R, (row * K + k) * S + g * WIDTH, load(work, (_JOINT + k) * width + at))
