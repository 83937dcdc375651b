"""What a table in parts is: rows that need not fit in memory, read a range at a time, and passes over them."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from threading import Lock
from typing import ClassVar, Protocol
from weakref import finalize

import numpy as np

from bayesgmm.errors import InputError
from bayesgmm.expectation import in_threads, n_threads


def pieces(starts: Sequence[int], start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """What rows [start, stop) are of parts with these first rows, and an end: part, first row and end within it."""
    i = bisect_right(starts, start) - 1
    while start < stop:
        end = min(stop, starts[i + 1])
        if end > start:
            yield i, start - starts[i], end - starts[i]
        start, i = end, i + 1


class Recent:
    """Arrays that are loaded when they are asked for.

    Of all that any of these have loaded the last ones stay, one for each thread and one more: threads read neighbouring
    rows, which may be of two parts. A table of many files has no more in memory than one of a few.
    """

    _loaded: ClassVar[OrderedDict[tuple[int, int], np.ndarray]] = OrderedDict()

    def __init__(self, load: Callable[[int], np.ndarray]) -> None:
        self.load, self.lock = load, Lock()
        finalize(self, Recent._forget, id(self))

    def __call__(self, i: int) -> np.ndarray:
        """The array of this number."""
        loaded, key = Recent._loaded, (id(self), i)
        with self.lock:
            array = loaded.pop(key, None)
            loaded[key] = array = self.load(i) if array is None else array
            while len(loaded) > n_threads() + 1:
                with suppress(KeyError):  # emptied by another thread
                    loaded.popitem(last=False)
            return array

    @classmethod
    def _forget(cls, owner: int) -> None:
        for key in [key for key in list(cls._loaded) if key[0] == owner]:
            cls._loaded.pop(key, None)


@dataclass(frozen=True)
class Part:
    """Consecutive rows of a table, and how to read them.

    Attributes
    ----------
    name : str
        What messages call it, such as a file's name.
    n_rows : int
    read : callable
        Given a first row and a last (exclusive), counted in the part, returns float64 values (n, D).
    mark : str
        What tells whether the part is the same as before: a file's path, size and time of change. Empty where nothing
        does.
    in_order : bool
        Whether rows are had one after another, so that going back takes time.
    """

    name: str
    n_rows: int
    read: Callable[[int, int], np.ndarray]
    mark: str = ""
    in_order: bool = False


class Range(Protocol):
    """Rows [start, stop) of a table."""

    @property
    def start(self) -> int:
        """The first."""

    @property
    def stop(self) -> int:
        """The one after the last."""


type Do[Piece, T] = Callable[[Piece, Callable[[int, int], np.ndarray], Callable[[int], None]], T]
"""Does something with a range of rows, given it, what reads rows [start, stop), and what is told how many are done."""


@dataclass(frozen=True, eq=False)
class Parts:
    """A table in parts, none of which is in memory for longer than it is worked on; `open_table` makes it.

    Attributes
    ----------
    parts : tuple of Part
    features : tuple of D str
    named : bool
        Whether the names are the table's own.
    """

    parts: tuple[Part, ...]
    features: tuple[str, ...]
    named: bool

    @cached_property
    def starts(self) -> list[int]:
        """The first row of each part, and the number of all rows."""
        return list(accumulate((part.n_rows for part in self.parts), initial=0))

    @property
    def n_observations(self) -> int:
        """Number of rows N."""
        return self.starts[-1]

    @property
    def n_features(self) -> int:
        """Number of columns D."""
        return len(self.features)

    def read(self, start: int, stop: int) -> np.ndarray:
        """The rows [start, stop) of the whole, float64 and C-contiguous.

        Raises
        ------
        InputError
            If a file has changed since it was opened.
        """
        found = []
        for i, first, end in pieces(self.starts, start, stop):
            piece = self.parts[i].read(first, end)
            if piece.shape != (end - first, self.n_features):
                name = self.parts[i].name
                raise InputError(f"{name} has changed while it was read: {end - first} rows were expected")
            found.append(piece)
        return np.ascontiguousarray(found[0] if len(found) == 1 else np.concatenate(found))

    def place(self, row: int) -> str:
        """Where a row of the whole is, in words."""
        i = bisect_right(self.starts, row) - 1
        here = f"row {row - self.starts[i]} of {self.parts[i].name}"
        return here if len(self.parts) == 1 else f"{here} (row {row} in all)"

    def fold[T](
        self,
        look: Callable[[np.ndarray, int], T],
        add: Callable[[T, T], None],
        rows: int,
        progress: Callable[[int, int], None],
    ) -> T:
        """What is found in all rows, of which there is at least one: blocks of rows are looked at, finds are added.

        Parameters
        ----------
        look : callable
            What is found in rows (n, D), float64 and C-contiguous, given them and where they start in the table. One of
            a class or function that can be imported, for it may be sent to other processes.
        add : callable
            Adds to a find, in place, that of other rows, in whatever order they come.
        rows : int
            In a block, or fewer: a power of two, up to that of the largest chunk, times any number. Blocks start at
            multiples of that power.
        progress : callable
            Told after each block how many rows have been looked at, and how many there are.
        """
        N, lock, done = self.n_observations, Lock(), 0
        found: list[T] = []
        turns = Lock() if any(part.in_order for part in self.parts) else nullcontext()
        starts = iter(range(0, N, rows))

        def task(_: int) -> None:
            nonlocal done
            with turns:
                start = next(starts)
                values = self.read(start, min(start + rows, N))
            own = look(values, start)
            with lock:
                if found:
                    add(found[0], own)
                else:
                    found.append(own)
                done += len(values)
                progress(done, N)

        in_threads(task, range(-(-N // rows)))
        return found[0]

    def each[Piece: Range, T](
        self, do: Do[Piece, T], over: Sequence[Piece], progress: Callable[[int], None]
    ) -> list[T]:
        """What is done with ranges of rows, one after the other, in their order.

        Parameters
        ----------
        do : callable
            Given a range, what reads rows of it, and what is to be told how many more of its rows are done. One of a
            class or function that can be imported, for it may be sent to other processes, as may the ranges.
        over : sequence of Range
        progress : callable
            Told how many more rows are done.
        """
        return [do(piece, self.read, progress) for piece in over]
