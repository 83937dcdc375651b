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
from bayesgmm.second_order import SecondOrderPass, SecondOrderTotals

_BLOCK_BYTES = 8e6  # of rows that a thread holds at a time
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
    """

    parts: Parts
    center: np.ndarray
    progress: Callable[[int, int], None] = lambda done, total: None
    without: int | None = None

    def totals(self, requests: Sequence[Request]) -> list[Totals]:
        """What the rows add up to under each mixture, from one reading of the rows."""
        chunk = max(r.chunk for r in requests)
        block = chunk * max(int(_BLOCK_BYTES / (8 * self.parts.n_features * chunk)), 1)
        return self.parts.fold(_Totals(tuple(requests), self.center, self.without), _add_totals, block, self.progress)


@dataclass(frozen=True)
class _Totals:
    """Finds the totals of rows."""

    requests: tuple[Request, ...]
    center: np.ndarray
    without: int | None

    def __call__(self, values: np.ndarray, start: int) -> list[Totals]:
        weight = _EVERY_ROW
        if self.without is not None:
            weight = (~held_out(self.without, start, start + len(values))).astype(np.float64)
        rows = Rows(values, weight, NO_LABELS, self.center)
        return [r.of(rows).alone(r.moments) for r in self.requests]


def _add_totals(some: list[Totals], others: list[Totals]) -> None:
    for one, other in zip(some, others, strict=True):
        one.add(other)


class Survey(NamedTuple):
    """What the first pass over a table finds out.

    Attributes
    ----------
    low, high : (D,)
        Least and largest value of each column.
    sample : (n, D)
        Rows drawn at random, in their order.
    n_rows : int
        Number of rows that are not held out.
    """

    low: np.ndarray
    high: np.ndarray
    sample: np.ndarray
    n_rows: int


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
        Naming the place of the first value that is missing or infinite.
    """
    share = min(n_sampled / max(parts.n_observations, 1), 1.0)
    found = parts.fold(_Look(share, seed, without), _Seen.add, SURVEY_ROWS, progress)
    if found.unusable is not None:
        row, column, is_nan = found.unusable
        kind = "missing or NaN" if is_nan else "infinite"
        raise InputError(f"{parts.place(row)}, column {parts.features[column]!r} is {kind}")
    sample = np.concatenate([found.sampled[start] for start in sorted(found.sampled)])
    return Survey(found.low, found.high, sample, found.n_rows)


@dataclass
class _Seen:
    """What was found in some blocks of rows.

    Attributes
    ----------
    low, high : (D,)
    sampled : dict
        The rows drawn from each block, by where it starts.
    unusable : (int, int, bool) or None
        Row and column of the first value that is not finite, and whether it is NaN.
    n_rows : int
        That are not held out.
    """

    low: np.ndarray
    high: np.ndarray
    sampled: dict[int, np.ndarray]
    unusable: tuple[int, int, bool] | None
    n_rows: int

    def add(self, other: _Seen) -> None:
        """Add what was found in other blocks."""
        np.minimum(self.low, other.low, out=self.low)
        np.maximum(self.high, other.high, out=self.high)
        self.sampled.update(other.sampled)
        self.unusable = min(filter(None, (self.unusable, other.unusable)), default=None)
        self.n_rows += other.n_rows


@dataclass(frozen=True)
class _Look:
    """Looks at a block of rows, of which it draws a share."""

    share: float
    seed: int
    without: int | None

    def __call__(self, values: np.ndarray, start: int) -> _Seen:
        low, high, unusable = values.min(axis=0), values.max(axis=0), None
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            row, column = map(int, np.argwhere(~np.isfinite(values))[0])
            unusable = start + row, column, bool(np.isnan(values[row, column]))
        drawn = np.random.default_rng([self.seed, start // SURVEY_ROWS]).random(len(values)) < self.share
        n_rows = len(values)
        if self.without is not None:
            seen = ~held_out(self.without, start, start + n_rows)
            drawn, n_rows = drawn & seen, int(seen.sum())
        return _Seen(low, high, {start: values[drawn]}, unusable, n_rows)
