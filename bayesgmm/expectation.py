"""The kernel: the code that reads the rows. One pass gives the log-likelihood and the expected statistics.

The statistics (counts, first moments and scatters about each component's own mean) are the gradient of the
log-likelihood (Fisher's identity), so EM, the posterior's gradient and the pointwise log-likelihood share this pass.
The pass itself is in `src/kernel.cpp`; here its arguments are put together and its rows shared between threads.
"""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from bayesgmm import native
from bayesgmm.native import address
from bayesgmm.patterns import Patterns

_CHUNKS = 32  # fixed, so that the sums, and with them every result, do not depend on the number of cores
_CHUNK_WORK = 1e6  # multiply-adds that a chunk has at least: about 50 microseconds, which repay handing it over
_CHUNK_ROWS = 512  # and rows

NO_LABELS = np.empty(0, dtype=np.int64)


class Parameters(NamedTuple):
    """A mixture as the kernel reads it, with means as offsets from a fixed ``center`` of the data.

    ``log_scale`` (K,) is log w_k + log|P_k| - D/2 log 2 pi; ``offsets`` (K, D); ``precisions_cholesky`` (K, D, D),
    upper triangular, with the precision P P'.
    """

    log_scale: np.ndarray
    offsets: np.ndarray
    precisions_cholesky: np.ndarray
    log_noise: float = 0.0  # log weight of the noise, which counts only where the rows have a density of it


class Rows(NamedTuple):
    """Rows as the kernel reads them.

    Attributes
    ----------
    values : (N, D)
        Where there are patterns, these say which of them count.
    weight : (N,), or (1,) for all rows
    labels : (N,) components, -1 where unknown; or empty
    center : (D,)
        Origin of the means' offsets.
    patterns : Patterns or None
        None where all values are known and exact.
    noise : (N,) or None
        Log density of the noise at each row, in nats.
    """

    values: np.ndarray
    weight: np.ndarray
    labels: np.ndarray
    center: np.ndarray
    patterns: Patterns | None = None
    noise: np.ndarray | None = None

    @property
    def n_read(self) -> int:
        """Number of rows that the kernel reads: those with a value."""
        return len(self.values) if self.patterns is None else self.patterns.n_rows

    def compiled(self) -> native.Rows:
        """The rows as the compiled kernel takes them; the caller keeps them alive while it does."""
        return native.Rows(
            address(self.values),
            address(self.center),
            address(self.weight),
            self.weight.size,
            address(self.labels, np.int64) if self.labels.size else None,
            None if self.noise is None else address(self.noise),
            None if self.patterns is None else ctypes.pointer(self.patterns.compiled),
        )


class Statistics(NamedTuple):
    """Expected statistics about the components' means: ``counts`` (K,), ``first`` (K, D), ``scatter`` (K, D, D)."""

    counts: np.ndarray
    first: np.ndarray
    scatter: np.ndarray


_pool: ThreadPoolExecutor | None = None


def _forget_pool() -> None:
    global _pool
    _pool = None


os.register_at_fork(after_in_child=_forget_pool)  # a forked child has none of its parent's threads


def n_threads() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads[Item, Result](task: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """``task(item)`` for every item, results in their order: a `map` in which each idle thread takes the next item."""
    global _pool
    results: list[Any] = [None] * len(items)
    pending = iter(range(len(items)))

    def take() -> None:
        for i in pending:
            results[i] = task(items[i])

    helpers = []
    if len(items) > 1:
        if _pool is None:
            _pool = ThreadPoolExecutor(n_threads(), thread_name_prefix="bayesgmm")
        helpers = [_pool.submit(take) for _ in range(min(n_threads(), len(items)) - 1)]
    take()
    for helper in helpers:
        helper.result()
    return results


def multiply_adds(n: int, K: int, D: int, diagonal: bool) -> float:
    """Multiply-adds of a pass over n rows."""
    return n * K * (10.0 + (4 * D if diagonal else D * (D + 4)))


def parallel_pays(n: int, K: int, D: int, diagonal: bool) -> bool:
    """Whether a pass over n rows is long enough to be shared between threads."""
    return n >= 2 * _CHUNK_ROWS and multiply_adds(n, K, D, diagonal) > 2 * _CHUNK_WORK


def _ranges(n: int, K: int, D: int, diagonal: bool) -> list[tuple[int, int]]:
    """The chunks of rows that threads take, or one where threads would not pay."""
    chunks = 1
    if parallel_pays(n, K, D, diagonal):
        chunks = int(min(multiply_adds(n, K, D, diagonal) / _CHUNK_WORK, _CHUNKS, n // _CHUNK_ROWS))
    return list(pairwise(np.linspace(0, n, chunks + 1).astype(int).tolist()))


class Pass:
    """Rows and a mixture as the compiled kernel takes them; keeps their arrays alive.

    Parameters
    ----------
    rows : Rows
    parameters : Parameters
    diagonal : bool
        Whether ``precisions_cholesky`` are diagonal; then only the diagonals of the scatters are computed.
    """

    def __init__(self, rows: Rows, parameters: Parameters, diagonal: bool) -> None:
        self.rows = rows._replace(values=np.ascontiguousarray(rows.values))
        log_scale, offsets, P = arrays = [np.ascontiguousarray(part) for part in parameters[:3]]
        self.parameters = Parameters(log_scale, offsets, P, parameters.log_noise)
        self.K, self.D = self.parameters.offsets.shape
        self.compiled = self.rows.compiled()
        self.mixture = native.Mixture(self.K, self.D, *map(address, arrays), diagonal, parameters.log_noise)
        self.ranges = _ranges(rows.n_read, self.K, self.D, diagonal)
        self._parts = np.empty((len(self.ranges), self.K * (1 + self.D + self.D**2)))  # statistics of each chunk

    def statistics(self, moments: bool = True) -> tuple[float, float, Statistics]:
        """What `expected_statistics` returns of these rows."""
        sums = [native.Sums() for _ in self.ranges]
        n, D = self.K, self.D  # entries of the counts; D times as many of the first moments, D^2 times of the scatters
        starts = map(address, self._parts)
        into = [native.Statistics(*(start + 8 * n * skip for skip in (0, 1, 1 + D))) for start in starts]

        def task(i: int) -> None:
            native.accumulate(self.compiled, self.mixture, *self.ranges[i], moments, into[i], sums[i])

        in_threads(task, range(len(self.ranges)))
        counts, first, scatter = np.split(self._parts.sum(axis=0), (n, n + n * D))
        total = Statistics(counts, first.reshape(n, D), scatter.reshape(n, D, D))
        return math.fsum(s.log_likelihood for s in sums), math.fsum(s.map_log_responsibility for s in sums), total


def expected_statistics(
    rows: Rows, parameters: Parameters, diagonal: bool = False, moments: bool = True
) -> tuple[float, float, Statistics]:
    """Log-likelihood and expected statistics of all rows.

    The statistics are the gradient of the log-likelihood (Fisher's identity): d/d log w_k = counts_k, with weights
    taken as unnormalised, and d/d mean_k = P_k P_k' first_k. Of rows with missing values, or measured with errors, they
    are those that their true values are expected to have, whose gradient is the same.

    Parameters
    ----------
    rows, parameters, diagonal
        As in `Pass`.
    moments : bool
        Whether to compute the statistics, which are zero otherwise.

    Returns
    -------
    log_likelihood : float
        In nats.
    map_log_responsibility : float
        Sum over the rows of the log responsibility of each row's most probable component, in nats.
    statistics : Statistics
    """
    return Pass(rows, parameters, diagonal).statistics(moments)


def empty_statistics(K: int, D: int) -> Statistics:
    """Statistics of K components and D features whose entries are yet to be written."""
    return Statistics(np.empty(K), np.empty((K, D)), np.empty((K, D, D)))


def log_prob(rows: Rows, parameters: Parameters, diagonal: bool = False) -> np.ndarray:
    """Log mixture density of each row's values, shape (N,), in nats; zero of a row without any."""
    return _pointwise(native.log_prob, np.zeros(len(rows.values)), rows, parameters, diagonal)


def log_joint(rows: Rows, parameters: Parameters, diagonal: bool = False) -> np.ndarray:
    """log w_k + log N(x | mean_k, covariance_k), shape (N, K), in nats; log w_k for a row without values."""
    out = np.empty((len(rows.values), len(parameters.offsets)))
    if rows.n_read < len(out):
        P = parameters.precisions_cholesky
        at_mean = np.log(np.einsum("kjj->kj", P)).sum(axis=1) - 0.5 * P.shape[-1] * math.log(2 * math.pi)
        out[:] = parameters.log_scale - at_mean
    return _pointwise(native.log_joint, out, rows, parameters, diagonal)


def _pointwise(
    function: Callable[..., int], out: np.ndarray, rows: Rows, parameters: Parameters, diagonal: bool
) -> np.ndarray:
    """Fill ``out`` with a compiled function of each row."""
    over, out_at = Pass(rows, parameters, diagonal), address(out)
    in_threads(lambda part: function(over.compiled, over.mixture, *part, out_at), over.ranges)
    return out


def column_ranges(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest entry of each column, (D,) each; NaN for a column with an entry that is not finite."""
    (N, D), values = X.shape, address(X)
    chunks = _ranges(N, 1, D, False)
    low, high = np.empty((len(chunks), D)), np.empty((len(chunks), D))

    def task(i: int) -> None:
        native.ranges(values, D, *chunks[i], address(low[i]), address(high[i]))

    in_threads(task, range(len(chunks)))
    return low.min(axis=0), high.max(axis=0)
