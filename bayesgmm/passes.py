"""Passes over all rows of a table, wherever they are: several mixtures are looked at while the rows are read once."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from typing import NamedTuple, Protocol

import numpy as np

from bayesgmm.errors import InputError
from bayesgmm.expectation import NO_LABELS, Parameters, Pass, Rows, Totals, chunk_rows
from bayesgmm.parts import Parts
from bayesgmm.patterns import Patterns, bits_of
from bayesgmm.second_order import SecondOrderPass, SecondOrderTotals

_BLOCK_BYTES = 4e6  # of rows that a thread holds at a time: larger arrays go back to the system, and are cleared anew
SURVEY_ROWS = 65_536  # that are looked at and sampled together; whose seed is their position
_EVERY_ROW = np.ones(1)
_TENTH = 6554  # of the 2^16 numbers that a row may draw
_ROWS_OF_A_DRAW = 16  # in each count of the generator


def held_out(seed: int, start: int, stop: int) -> np.ndarray:
    """Which of the rows [start, stop) of a table are held out, (n,): a tenth, by the seed and their positions alone."""
    first = start // _ROWS_OF_A_DRAW
    n_draws = -(-stop // _ROWS_OF_A_DRAW) - first
    drawn = np.random.Philox(key=seed).advance(first).random_raw(n_draws * (_ROWS_OF_A_DRAW // 4)).view(np.uint16)
    begin = start - first * _ROWS_OF_A_DRAW
    return drawn[begin : begin + stop - start] < _TENTH


def grain(D: int) -> int:
    """A number of rows of which all that is counted in rows is a divisor: chunks of any mixture, blocks of a survey."""
    return max(SURVEY_ROWS, chunk_rows(1, D, diagonal=True))


class Products(Enum):
    """Which products of the rows' scores are wanted; the value says of what."""

    NONE = "nothing"
    BEND = "of what the Hessian of the log-likelihood needs"
    SCORES = "of the same, and of the scores of all rows"


class Request(NamedTuple):
    """A mixture that is to be looked at, and what is wanted of it beside the log-likelihood."""

    parameters: Parameters
    diagonal: bool
    moments: bool = True
    products: Products = Products.NONE

    @property
    def chunk(self) -> int:
        """Rows that are summed at a time."""
        K, D = self.parameters.offsets.shape
        return chunk_rows(K, D, self.diagonal)

    def of_no_rows(self) -> Totals:
        """The totals to which nothing has been added."""
        K, D = self.parameters.offsets.shape
        if self.products is Products.NONE:
            return Totals(K, D)
        return SecondOrderTotals(K, D, self.diagonal, self.products is Products.SCORES)

    def of(self, rows: Rows) -> Pass:
        """The pass over rows that finds it."""
        if self.products is Products.NONE:
            return Pass(rows, self.parameters, self.diagonal)
        scores = self.products is Products.SCORES
        return SecondOrderPass(rows, self.parameters, self.diagonal, scores)


class Passes(Protocol):
    """What can be asked of all rows of a table."""

    def totals(self, requests: Sequence[Request]) -> list[Totals]:
        """What the rows add up to under each mixture, from one reading of the rows."""


type Asking[T] = Generator[list[Request], list[Totals], T]
"""A computation that asks something of all rows, pass after pass, and then returns what follows from the answers."""


def answer[T](passes: Passes, asking: Asking[T]) -> T:
    """What a computation returns once all that it asks has been answered, by one reading of the rows each time."""
    try:
        requests = next(asking)
        while True:
            requests = asking.send(passes.totals(requests))
    except StopIteration as end:
        return end.value


def together[T](askings: Sequence[Asking[T]]) -> Asking[list[T]]:
    """Computations in lockstep: what all of them ask next is asked at once, until the last of them ends."""
    ends: dict[int, T] = {}
    answers: dict[int, list[Totals] | None] = dict.fromkeys(range(len(askings)))
    while answers:
        requests: dict[int, list[Request]] = {}
        for i, own in answers.items():
            try:
                requests[i] = next(askings[i]) if own is None else askings[i].send(own)
            except StopIteration as end:
                ends[i] = end.value
        found = iter((yield [one for own in requests.values() for one in own]) if requests else ())
        answers = {i: list(islice(found, len(own))) for i, own in requests.items()}
    return [ends[i] for i in range(len(askings))]


@dataclass(frozen=True, eq=False)
class InMemory:
    """Passes over rows in memory."""

    rows: Rows

    def totals(self, requests: Sequence[Request]) -> list[Totals]:
        """What the rows add up to under each mixture."""
        return [r.of(self.rows).totals(r.moments) for r in requests]


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
    without : int or None
        The seed by which rows are held out, which do not count; None where all count.
    incomplete : bool
        Whether values may be missing. Rows are then grouped by the values that they have, some 65 536 at a time.
    """

    parts: Parts
    center: np.ndarray
    progress: Callable[[int, int], None] = lambda done, total: None
    without: int | None = None
    incomplete: bool = False

    def totals(self, requests: Sequence[Request]) -> list[Totals]:
        """What the rows add up to under each mixture, from one reading of the rows."""
        D = self.parts.n_features
        chunk = grain(D) if self.incomplete else max(r.chunk for r in requests)
        block = chunk * max(int(_BLOCK_BYTES / (8 * D * chunk)), 1)
        look = _Totals(tuple(requests), self.center, self.without, self.incomplete)
        return self.parts.fold(look, _add_totals, block, self.progress)


@dataclass(frozen=True)
class _Totals:
    """Finds the totals of rows."""

    requests: tuple[Request, ...]
    center: np.ndarray
    without: int | None
    incomplete: bool

    def __call__(self, values: np.ndarray, start: int) -> list[Totals]:
        size = grain(values.shape[1]) if self.incomplete else len(values)
        first, *others = (self._together(values[i : i + size], start + i) for i in range(0, len(values), size))
        for other in others:
            _add_totals(first, other)
        return first

    def _together(self, values: np.ndarray, start: int) -> list[Totals]:
        """The totals of rows that are grouped together."""
        weight = _EVERY_ROW
        if self.without is not None:
            weight = (~held_out(self.without, start, start + len(values))).astype(np.float64)
        patterns = Patterns.of_values(values) if self.incomplete else None
        rows = Rows(values, weight, NO_LABELS, self.center, patterns)
        return [r.of(rows).alone(r.moments) for r in self.requests]


def _add_totals(some: list[Totals], others: list[Totals]) -> None:
    for one, other in zip(some, others, strict=True):
        one.add(other)


class Survey(NamedTuple):
    """What the first pass over a table finds out.

    Attributes
    ----------
    low, high : (D,)
        Least and largest value of each column; NaN where it has none.
    sample : (n, D)
        Rows drawn at random, in their order, NaN where a value is missing.
    n_rows : int
        Number of rows that have a value and are not held out.
    n_missing : (D,)
        Number of values of each column that are missing.
    n_incomplete : int
        Number of rows that lack a value.
    n_patterns : int
        Different sets of columns that rows with a value have values of.
    empty : (n,)
        Positions of the rows without any value.
    """

    low: np.ndarray
    high: np.ndarray
    sample: np.ndarray
    n_rows: int
    n_missing: np.ndarray
    n_incomplete: int
    n_patterns: int
    empty: np.ndarray


def survey(
    parts: Parts,
    n_sampled: int,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
    without: int | None = None,
) -> Survey:
    """Look at every row once: whether all can be used, the range of each column, and a random sample.

    The sample depends on the seed and the rows alone, not on how they are stored. Rows that are held out, by the seed
    ``without``, are not in it.

    Raises
    ------
    InputError
        Naming the place of the first value that is infinite.
    """
    share = min(n_sampled / max(parts.n_observations, 1), 1.0)
    found = parts.fold(_Look(share, seed, without), _Seen.add, SURVEY_ROWS, progress)
    if found.infinite is not None:
        row, column = found.infinite
        raise InputError(f"{parts.place(row)}, column {parts.features[column]!r} is infinite")
    sample, lacks = np.concatenate([found.sampled[start] for start in sorted(found.sampled)]), found.lacks
    empty = np.sort(np.concatenate([np.empty(0, np.int64), *lacks.empty]))
    of_missing = lacks.n_missing, lacks.n_rows, len(lacks.patterns), empty
    return Survey(found.low, found.high, sample, found.n_rows, *of_missing)


@dataclass
class _Lacks:
    """What rows lack.

    Attributes
    ----------
    n_missing : (D,)
        Values of each column.
    n_rows : int
        Rows that lack a value.
    patterns : (n, m)
        The different `bits_of` rows that have a value.
    empty : list of (n,)
        Positions of those that have none.
    """

    n_missing: np.ndarray
    n_rows: int
    patterns: np.ndarray
    empty: list[np.ndarray]

    @classmethod
    def of(cls, missing: np.ndarray, start: int) -> _Lacks:
        """What rows lack, of which the first has this position."""
        empty = missing.all(axis=1)
        patterns, n_rows = _different(bits_of(missing[~empty])), int(missing.any(axis=1).sum())
        return cls(missing.sum(axis=0), n_rows, patterns, [start + np.flatnonzero(empty)] if empty.any() else [])

    def add(self, other: _Lacks) -> None:
        """Add what others lack."""
        self.n_missing += other.n_missing
        self.n_rows += other.n_rows
        self.patterns = _different(np.concatenate((self.patterns, other.patterns)))
        self.empty += other.empty


def _different(bits: np.ndarray) -> np.ndarray:
    """The different rows (n, m) of some."""
    return np.unique(bits, axis=0) if bits.shape[1] > 1 else np.unique(bits)[:, None]


@dataclass
class _Seen:
    """What was found in some blocks of rows.

    Attributes
    ----------
    low, high : (D,)
        NaN where a column has no values.
    sampled : dict
        The rows drawn from each block, by where it starts.
    infinite : (int, int) or None
        Row and column of the first value that is infinite.
    n_rows : int
        That have a value and are not held out.
    lacks : _Lacks
    """

    low: np.ndarray
    high: np.ndarray
    sampled: dict[int, np.ndarray]
    infinite: tuple[int, int] | None
    n_rows: int
    lacks: _Lacks

    def add(self, other: _Seen) -> None:
        """Add what was found in other blocks."""
        np.fmin(self.low, other.low, out=self.low)
        np.fmax(self.high, other.high, out=self.high)
        self.sampled.update(other.sampled)
        self.infinite = min(filter(None, (self.infinite, other.infinite)), default=None)
        self.n_rows += other.n_rows
        self.lacks.add(other.lacks)


@dataclass(frozen=True)
class _Look:
    """Looks at a block of rows, of which it draws a share."""

    share: float
    seed: int
    without: int | None

    def __call__(self, values: np.ndarray, start: int) -> _Seen:
        low, high, infinite = values.min(axis=0), values.max(axis=0), None
        missing = np.zeros((1, values.shape[1]), np.bool_)  # of a block without, one row tells
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            low, high, missing = np.fmin.reduce(values), np.fmax.reduce(values), np.isnan(values)
            if np.isinf(low).any() or np.isinf(high).any():
                row, column = map(int, np.argwhere(np.isinf(values))[0])
                infinite = start + row, column
        lacks = _Lacks.of(missing, start)
        drawn = np.random.default_rng([self.seed, start // SURVEY_ROWS]).random(len(values)) < self.share
        counts = np.ones(len(values), np.bool_)
        if self.without is not None:
            counts = ~held_out(self.without, start, start + len(values))
            drawn &= counts
        for empty in lacks.empty:
            counts[empty - start] = False
        return _Seen(low, high, {start: values[drawn]}, infinite, int(counts.sum()), lacks)
