"""Passes over all rows of a table, wherever they are: several mixtures are looked at while the rows are read once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import NamedTuple, Protocol

import numpy as np

from bayesgmm.errors import InputError
from bayesgmm.expectation import NO_LABELS, Parameters, Pass, Rows, Totals, chunk_rows, in_threads
from bayesgmm.parts import Parts

_BLOCK_BYTES = 8e6  # of rows that a thread holds at a time
_SURVEY_ROWS = 65_536  # that are looked at and sampled together; whose seed is their position
_EVERY_ROW = np.ones(1)


class Request(NamedTuple):
    """A mixture that is to be looked at, and whether its expected statistics are wanted."""

    parameters: Parameters
    diagonal: bool
    moments: bool = True

    @property
    def chunk(self) -> int:
        """Rows that are summed at a time."""
        K, D = self.parameters.offsets.shape
        return chunk_rows(K, D, self.diagonal)


class Passes(Protocol):
    """What can be asked of all rows of a table."""

    def totals(self, requests: Sequence[Request]) -> list[Totals]:
        """What the rows add up to under each mixture, from one reading of the rows."""


@dataclass(frozen=True, eq=False)
class InMemory:
    """Passes over rows in memory."""

    rows: Rows

    def totals(self, requests: Sequence[Request]) -> list[Totals]:
        """What the rows add up to under each mixture."""
        return [Pass(self.rows, r.parameters, r.diagonal).totals(r.moments) for r in requests]


@dataclass(frozen=True, eq=False)
class Streamed:
    """Passes over a table in parts, whose digits are those of the same rows in memory.

    Attributes
    ----------
    parts : Parts
    center : (D,)
        Origin of the means' offsets.
    progress : callable
        Told after each block of rows how many rows have been read, and how many there are.
    """

    parts: Parts
    center: np.ndarray
    progress: Callable[[int, int], None] = lambda done, total: None

    def totals(self, requests: Sequence[Request]) -> list[Totals]:
        """What the rows add up to under each mixture, from one reading of the rows."""
        chunk, N = max(r.chunk for r in requests), self.parts.n_observations
        block = chunk * max(int(_BLOCK_BYTES / (8 * self.parts.n_features * chunk)), 1)
        totals, lock, done = [Totals(*r.parameters.offsets.shape) for r in requests], Lock(), 0

        def task(start: int) -> None:
            nonlocal done
            stop = min(start + block, N)
            rows = Rows(self.parts.read(start, stop), _EVERY_ROW, NO_LABELS, self.center)
            own = [Pass(rows, r.parameters, r.diagonal).alone(r.moments) for r in requests]
            with lock:
                for total, part in zip(totals, own, strict=True):
                    total.add(part)
                done += stop - start
                self.progress(done, N)

        in_threads(task, range(0, N, block))
        return totals


class Survey(NamedTuple):
    """What the first pass over a table finds out.

    Attributes
    ----------
    low, high : (D,)
        Least and largest value of each column.
    sample : (n, D)
        Rows drawn at random, in their order.
    """

    low: np.ndarray
    high: np.ndarray
    sample: np.ndarray


def survey(
    parts: Parts, n_sampled: int, seed: int, progress: Callable[[int, int], None] = lambda done, total: None
) -> Survey:
    """Look at every row once: whether all can be used, the range of each column, and a random sample.

    The sample depends on the seed and the rows alone, not on how they are stored.

    Raises
    ------
    InputError
        Naming the place of the first value that is missing or infinite.
    """
    N, D = parts.n_observations, parts.n_features
    share = min(n_sampled / max(N, 1), 1.0)
    starts = range(0, N, _SURVEY_ROWS)
    low, high = np.empty((2, max(len(starts), 1), D))
    sampled: list[np.ndarray] = [np.empty((0, D))] * len(starts)
    done, lock = 0, Lock()

    def task(i: int) -> None:
        nonlocal done
        values = parts.read(starts[i], min(starts[i] + _SURVEY_ROWS, N))
        low[i], high[i] = values.min(axis=0), values.max(axis=0)
        if not (np.isfinite(low[i]).all() and np.isfinite(high[i]).all()):
            row, column = np.argwhere(~np.isfinite(values))[0]
            kind = "missing or NaN" if np.isnan(values[row, column]) else "infinite"
            raise InputError(f"{parts.place(starts[i] + int(row))}, column {parts.features[column]!r} is {kind}")
        sampled[i] = values[np.random.default_rng([seed, i]).random(len(values)) < share]
        with lock:
            done += len(values)
            progress(done, N)

    in_threads(task, range(len(starts)))
    return Survey(low.min(axis=0), high.max(axis=0), np.concatenate(sampled) if sampled else np.empty((0, D)))
