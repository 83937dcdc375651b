"""The kernel: the code that reads the rows. One pass gives the log-likelihood and the expected statistics.

The statistics (counts, first moments and scatters about each component's own mean) are the gradient of the
log-likelihood (Fisher's identity), so EM, the posterior's gradient and the pointwise log-likelihood share this pass.
The pass itself is in `src/kernel.cpp`; here its arguments are put together and its rows shared between threads.
"""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from threading import local
from typing import Any, NamedTuple

import numpy as np

from bayesgmm import native
from bayesgmm.native import address
from bayesgmm.patterns import Patterns

_TASKS = 32  # of chunks, that threads take: handing one over costs about 10 microseconds
_CHUNK_WORK = 1e6  # multiply-adds that a chunk has at least: about 50 microseconds
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
_of_this_thread = local()


def _forget_pool() -> None:
    global _pool
    _pool = None


os.register_at_fork(after_in_child=_forget_pool)  # a forked child has none of its parent's threads


def n_threads() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def alone() -> Iterator[None]:
    """A block that leaves all work to the calling thread, one of several that others have set to work."""
    before = getattr(_of_this_thread, "alone", False)
    _of_this_thread.alone = True
    try:
        yield
    finally:
        _of_this_thread.alone = before


def in_threads[Item, Result](task: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """``task(item)`` for every item, results in their order: a `map` in which each idle thread takes the next item.

    After an error, or Ctrl-C, no thread takes another.
    """
    global _pool
    if getattr(_of_this_thread, "alone", False):
        return [task(item) for item in items]
    results: list[Any] = [None] * len(items)
    pending = iter(range(len(items)))

    def take() -> None:
        try:
            for i in pending:
                results[i] = task(items[i])
        except BaseException:
            for _ in pending:
                pass
            raise

    helpers = []
    if len(items) > 1:
        if _pool is None:
            _pool = ThreadPoolExecutor(n_threads(), thread_name_prefix="bayesgmm")
        helpers = [_pool.submit(take) for _ in range(min(n_threads(), len(items)) - 1)]
    take()
    for helper in helpers:
        if not helper.cancel():  # one that has not begun has nothing left to do
            helper.result()
    return results


def multiply_adds(n: int, K: int, D: int, diagonal: bool) -> float:
    """Multiply-adds of a pass over n rows."""
    return n * K * (10.0 + (4 * D if diagonal else D * (D + 4)))


def chunk_rows(K: int, D: int, diagonal: bool) -> int:
    """Rows that are summed at a time, a power of two; it depends on nothing else, so that sums have the same digits."""
    least = max(_CHUNK_WORK / multiply_adds(1, K, D, diagonal), _CHUNK_ROWS)
    return 1 << math.ceil(math.log2(least))


def parallel_pays(n: int, K: int, D: int, diagonal: bool) -> bool:
    """Whether a pass over n rows is long enough to be shared between threads."""
    return n >= 2 * chunk_rows(K, D, diagonal)


def _ranges(n: int, chunk: int) -> list[tuple[int, int]]:
    """Ranges of whole chunks that threads take, no more than pay."""
    chunks, tasks = -(-n // chunk), min(max(n // chunk, 1), _TASKS)
    edges = np.linspace(0, chunks, tasks + 1).astype(int) * chunk
    return list(pairwise(np.minimum(edges, n).tolist()))


class Totals:
    """What a pass over rows adds up to, in twice the precision: the order of adding does not matter.

    Attributes
    ----------
    high, low : (3 + K (1 + D + D^2) + n_further,)
        Numbers whose sums are the log-likelihood and the sum of the rows' largest log responsibilities, in nats, the
        expected count of the noise, the statistics, and what else a pass finds.
    """

    def __init__(self, K: int, D: int, n_further: int = 0) -> None:
        self.shape = K, D
        self.high, self.low = np.zeros((2, 3 + K * (1 + D + D * D) + n_further))

    def add(self, other: Totals) -> None:
        """Add the totals of other rows."""
        native.add_totals(self.high.size, *map(address, (self.high, self.low, other.high, other.low)))

    @property
    def log_likelihood(self) -> float:
        """In nats."""
        return float(self.high[0])

    @property
    def map_log_responsibility(self) -> float:
        """Sum over the rows of the log responsibility of each row's most probable component, in nats."""
        return float(self.high[1])

    @property
    def noise(self) -> float:
        """Expected number of rows that are noise."""
        return float(self.high[2])

    @property
    def statistics(self) -> Statistics:
        """The expected statistics."""
        K, D = self.shape
        counts, first, scatter, _ = np.split(self.high[3:], np.cumsum([K, K * D, K * D * D]))
        return Statistics(counts, first.reshape(K, D), scatter.reshape(K, D, D))

    @property
    def further(self) -> np.ndarray:
        """What else the pass has found, (n_further,)."""
        K, D = self.shape
        return self.high[3 + K * (1 + D + D * D) :]


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
        self.chunk = chunk_rows(self.K, self.D, diagonal)

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """Ranges of whole chunks that threads take."""
        return _ranges(self.rows.n_read, self.chunk)

    def totals(self, moments: bool = True) -> Totals:
        """What these rows add up to; without the statistics, if they are not wanted."""
        first, *others = in_threads(lambda part: self._of_range(*part, moments), self.ranges)
        for other in others:
            first.add(other)
        return first

    def alone(self, moments: bool = True) -> Totals:
        """The same, by the calling thread alone."""
        return self._of_range(0, self.rows.n_read, moments)

    def _of_range(self, start: int, stop: int, moments: bool) -> Totals:
        totals = Totals(self.K, self.D)
        into = address(totals.high), address(totals.low)
        native.totals(self.compiled, self.mixture, start, stop, self.chunk, moments, *into)
        return totals


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
    totals = Pass(rows, parameters, diagonal).totals(moments)
    return totals.log_likelihood, totals.map_log_responsibility, totals.statistics


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
    chunks = _ranges(N, chunk_rows(1, D, False))
    low, high = np.empty((len(chunks), D)), np.empty((len(chunks), D))

    def task(i: int) -> None:
        native.ranges(values, D, *chunks[i], address(low[i]), address(high[i]))

    in_threads(task, range(len(chunks)))
    return low.min(axis=0), high.max(axis=0)
