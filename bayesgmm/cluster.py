"""Tables that are Dask collections: on a cluster their rows stay with the workers, who do what is done with rows.

Three verbs are all that is asked of Dask: keep rows, map a function over them, merge what it finds. The calls are
those of Dask's documentation for users, so that another engine could stand here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from dask.base import compute
from dask.delayed import delayed

from bayesgmm.errors import InputError
from bayesgmm.expectation import alone, n_threads
from bayesgmm.names import one_line
from bayesgmm.parts import Do, Part, Parts, Range, Recent, pieces
from bayesgmm.passes import grain
from bayesgmm.tables import made_up_names, names_of, values_and_names

_FAN = 32  # finds that a task merges
_GROUP_BYTES = 1e9  # of rows, at most, that a task needs at once: all of them must be in its worker's memory
_PATIENCE = 20  # seconds that a scheduler may take to answer
_UNEVEN = 1.25  # times its fair share a thread may have to do before rows are moved to another


class _Collection(NamedTuple):
    """A table as Dask has it.

    Attributes
    ----------
    partitions : list of Delayed
        Arrays or DataFrames of consecutive rows, with all columns.
    lengths : sequence of int or None
        Their rows, where these are known before they are counted.
    features : tuple of D str
    named : bool
    """

    partitions: list[Any]
    lengths: Sequence[int] | None
    features: tuple[str, ...]
    named: bool


def of_collection(source: Any, columns: Sequence[str] | None = None) -> Parts:
    """A Dask array or DataFrame as a table in parts, kept on the cluster of the current ``Client`` where there is one.

    Raises
    ------
    InputError
        If it is no table of numbers.
    """
    if hasattr(source, "to_delayed") and hasattr(source, "chunks"):
        collection = _of_array(source, columns)
    elif hasattr(source, "columns") and source.ndim == 2:  # a Series has columns too
        collection = _of_frame(source, columns)
    else:
        raise InputError(f"a Dask {type(source).__name__} is no table; an array or a DataFrame is, rows by columns")
    partitions, lengths, features, named = collection
    values = [delayed(_values)(one, len(features)) for one in partitions]
    client = _client()
    if client is not None:
        return _kept(client, collection._replace(partitions=client.compute(values)))
    lengths = lengths or compute(*[delayed(len)(one) for one in partitions])
    recent = Recent(lambda i: values[i].compute())
    return Parts(_named_parts(lengths, lambda i, start, stop: recent(i)[start:stop]), features, named)


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """A ``Client`` of the cluster whose scheduler has this address; "local" is one made of this machine's cores.

    Raises
    ------
    InputError
        If there is no scheduler at the address.
    """
    from distributed import Client, LocalCluster

    with ExitStack() as stack:
        if address == "local":
            one_a_core = {"n_workers": n_threads(), "threads_per_worker": 1, "dashboard_address": ":0"}
            address = stack.enter_context(LocalCluster(**one_a_core))
        try:
            client = stack.enter_context(Client(address, timeout=_PATIENCE))
        except (OSError, ValueError) as error:
            raise InputError(f"no scheduler of Dask answers at {address}: {one_line(str(error))}") from error
        yield client


def read_by_workers(
    client: Any, parts: Parts, read: Callable[..., np.ndarray], ranges: Sequence[tuple[Any, int, int]]
) -> Kept:
    """A table in parts that workers read and keep; whoever reads rows of it here reads them from their parts.

    Parameters
    ----------
    client : distributed.Client
    parts : Parts
    read : callable
        One that can be imported, of a range: what to read, the first row there, and an end.
    ranges : sequence of tuple
        They make up the table, in its order.
    """
    partitions = [client.submit(read, *one, pure=False) for one in ranges]
    lengths = [stop - start for _, start, stop in ranges]
    kept = _kept(client, _Collection(partitions, lengths, parts.features, parts.named))
    return replace(kept, parts=parts.parts)


def _client() -> Any:
    """The user's connection to a cluster; None without one."""
    try:
        from distributed import default_client
    except ImportError:  # Dask without its scheduler for clusters
        return None
    try:
        return default_client()
    except ValueError:
        return None


def _of_frame(frame: Any, columns: Sequence[str] | None) -> _Collection:
    """A Dask DataFrame, whose columns must hold numbers."""
    for name in columns or ():
        if name not in frame.columns:
            raise InputError(f"the DataFrame has no column {name!r}; it has {list(frame.columns)}")
    frame = frame if columns is None else frame[list(columns)]
    for name, dtype in frame.dtypes.items():
        if getattr(dtype, "kind", "O") not in "fiub":
            raise InputError(f"column {name!r} of the DataFrame holds {dtype}, not numbers; leave it out with columns=")
    return _Collection(frame.to_delayed(), None, names_of(frame) or (), named=True)


def _of_array(array: Any, columns: Sequence[str] | None) -> _Collection:
    """A Dask array, which may also be cut between its columns."""
    if columns is not None:
        raise InputError("a Dask array has no column names to choose from")
    if array.ndim != 2:
        raise InputError(f"the Dask array has {array.ndim} dimensions; a table has two, rows by columns")
    if array.dtype.kind not in "fiub":
        raise InputError(f"the Dask array holds {array.dtype}, not numbers")
    known, D = array.chunks[0], array.shape[1]
    partitions = array.rechunk({1: -1}).to_delayed().ravel().tolist()
    return _Collection(partitions, None if np.isnan(known).any() else known, made_up_names(D), named=False)


def _named_parts(lengths: Sequence[int], read: Callable[[int, int, int], np.ndarray]) -> tuple[Part, ...]:
    """Partitions of so many rows, of which ``read`` gives a range in the partition's own type."""

    def read_from(i: int) -> Callable[[int, int], np.ndarray]:
        return lambda start, stop: read(i, start, stop).astype(np.float64, copy=False)

    return tuple(Part(f"partition {i}", n, read_from(i)) for i, n in enumerate(lengths))


def _values(partition: Any, D: int) -> np.ndarray:
    """The values of a partition, C-contiguous; those of an array in its own type, which may take less room."""
    values = values_and_names(partition)[0] if hasattr(partition, "columns") else np.asarray(partition)
    if values.ndim != 2 or values.shape[1] != D:
        raise InputError(f"a partition has the shape {values.shape}; {D} columns were expected")
    return np.ascontiguousarray(values)


@dataclass(frozen=True, eq=False)
class Kept(Parts):
    """A table in parts whose rows are on the workers of a cluster, cut where chunks end.

    Attributes
    ----------
    client : distributed.Client
    blocks : tuple of futures
        Arrays of consecutive rows, which begin at multiples of every number of rows that is summed at a time.
    edges : tuple of int
        The first row of each block, and the number of all rows.
    """

    client: Any
    blocks: tuple[Any, ...]
    edges: tuple[int, ...]

    def fold[T](
        self,
        look: Callable[[np.ndarray, int], T],
        add: Callable[[T, T], None],
        rows: int,
        progress: Callable[[int, int], None],
    ) -> T:
        """As that of `Parts`, on the workers: a task for each of their threads, and what they find merged in a tree."""
        from distributed import as_completed

        submit = partial(self.client.submit, pure=False)
        asked = submit(_identity, look)  # a task, which can be done again; what is scattered is lost with its worker
        sizes, found = {}, []
        for worker, group in self._groups():
            blocks = [self.blocks[i] for i in group], [self.edges[i] for i in group]
            where = {"workers": [worker], "allow_other_workers": True}
            found.append(submit(_fold, asked, add, rows, *blocks, **where))
            sizes[found[-1].key] = sum(self.edges[i + 1] - self.edges[i] for i in group)
        done = 0
        for future in as_completed(found):
            done += sizes[future.key]
            progress(done, self.n_observations)
        while len(found) > 1:
            found = [submit(_merge, add, found[i : i + _FAN]) for i in range(0, len(found), _FAN)]
        return found[0].result()

    def each[Piece: Range, T](
        self, do: Do[Piece, T], over: Sequence[Piece], progress: Callable[[int], None]
    ) -> list[T]:
        """As that of `Parts`, on the workers: a task for each range, which has its rows in memory.

        Raises
        ------
        InputError
            Naming the worker that could not use a file.
        """
        from distributed import as_completed

        if not over:
            return []
        self.client.wait_for_workers(1)
        asked, tasks = self.client.submit(_identity, do, pure=False), {}
        for piece in over:
            found = list(pieces(self.edges, piece.start, piece.stop))
            rows = [self.blocks[i] for i, _, _ in found], [self.edges[i] for i, _, _ in found]
            tasks[self.client.submit(_each, asked, piece, *rows, pure=False)] = piece.stop - piece.start
        for future in as_completed(tasks):
            future.result()  # the error, if there was one
            progress(tasks[future])
        return self.client.gather(list(tasks))

    def _groups(self) -> Iterator[tuple[str, list[int]]]:
        """Which worker should look at which blocks in one task."""
        self.client.wait_for_workers(1)  # the only one may have died, and be about to return
        sizes = np.diff(self.edges).tolist()
        where = self.client.who_has(self.blocks)
        owners = [where.get(block.key, ()) for block in self.blocks]
        most = max(_GROUP_BYTES / (8 * self.n_features), 1)
        for (worker, _), own in shared(sizes, owners, self.client.nthreads()).items():
            n_tasks = min(int(sum(sizes[i] for i in own) / most) + 1, len(own))
            for group in np.array_split(own, n_tasks) if own else ():
                yield worker, group.tolist()


def shared(
    sizes: Sequence[int], owners: Sequence[Iterable[str]], n_threads: dict[str, int]
) -> dict[tuple[str, int], list[int]]:
    """Blocks of rows for each thread of each worker: those that the worker has, unless it then has too much to do.

    Parameters
    ----------
    sizes : sequence of int
        Rows of each block.
    owners : sequence
        The workers that have each block; none, if it has been lost.
    n_threads : dict
        Threads of each worker, of which there is at least one.
    """
    load = {(worker, i): 0 for worker, n in n_threads.items() for i in range(n)}
    groups: dict[tuple[str, int], list[int]] = {thread: [] for thread in load}
    most = max(_UNEVEN * sum(sizes) / len(load), max(sizes))
    for i, size in enumerate(sizes):
        own = [(worker, j) for worker in owners[i] for j in range(n_threads.get(worker, 0))]
        thread = min(own or load, key=load.__getitem__)
        if load[thread] + size > most:
            thread = min(load, key=load.__getitem__)
        groups[thread].append(i)
        load[thread] += size
    return groups


def _kept(client: Any, collection: _Collection) -> Kept:
    """The table of partitions, arrays now, that workers have or are about to have.

    Its blocks are parts of partitions, but for those across borders of partitions, which are put together once.
    """
    from distributed import wait

    partitions, lengths, features, named = collection
    submit = partial(client.submit, pure=False)
    n_rows = lengths or client.gather(client.map(len, partitions, pure=False))
    multiple, starts = grain(len(features)), list(accumulate(n_rows, initial=0))

    def cut(i: int, start: int, stop: int) -> Any:
        return partitions[i] if stop - start == n_rows[i] else submit(_slice, partitions[i], start, stop)

    def piece(i: int, start: int, stop: int) -> tuple[Any, int, int]:
        """For another worker: of a large partition only what is needed there."""
        return (partitions[i], start, stop) if n_rows[i] <= multiple else (cut(i, start, stop), 0, stop - start)

    wholes = _blocks(starts, multiple)
    blocks = [cut(*whole[0]) if len(whole) == 1 else submit(_join, [piece(*one) for one in whole]) for whole in wholes]
    edges = list(accumulate((sum(stop - start for _, start, stop in whole) for whole in wholes), initial=0))
    wait(blocks)

    def read(i: int, start: int, stop: int) -> np.ndarray:
        found = pieces(edges, starts[i] + start, starts[i] + stop)
        return np.concatenate(client.gather([submit(_slice, blocks[j], *rows) for j, *rows in found]))

    return Kept(_named_parts(n_rows, read), features, named, client, tuple(blocks), tuple(edges))


def _blocks(starts: Sequence[int], multiple: int) -> list[list[tuple[int, int, int]]]:
    """Cut partitions with these first rows at multiples of so many: blocks, each a list of `pieces`.

    What lies within a partition stays in one block.
    """
    blocks: list[list[tuple[int, int, int]]] = []
    for first in range(0, starts[-1], multiple):
        block = list(pieces(starts, first, min(first + multiple, starts[-1])))
        if blocks and len(block) == len(blocks[-1]) == 1 and block[0][0] == blocks[-1][0][0]:
            (i, start, _), (_, _, stop) = blocks[-1][0], block[0]
            blocks[-1] = [(i, start, stop)]
        else:
            blocks.append(block)
    return blocks


# What workers do: functions of this module, so that nothing of the user's session is sent to them.


def _identity[T](value: T) -> T:
    return value


def _slice(values: np.ndarray, start: int, stop: int) -> np.ndarray:
    return values[start:stop]


def _join(cut: list[tuple[np.ndarray, int, int]]) -> np.ndarray:
    return np.concatenate([values[start:stop] for values, start, stop in cut])


def _fold[T](
    look: Callable[[np.ndarray, int], T],
    add: Callable[[T, T], None],
    rows: int,
    blocks: list[np.ndarray],
    starts: list[int],
) -> T:
    """What is found in some blocks of rows, with these first rows, by the calling thread alone."""
    finds = (
        look(np.ascontiguousarray(values[begin : begin + rows], dtype=np.float64), start + begin)
        for values, start in zip(blocks, starts, strict=True)
        for begin in range(0, len(values), rows)
    )
    return _sum(add, next(finds), finds)


def _each[Piece: Range, T](do: Do[Piece, T], piece: Piece, blocks: list[np.ndarray], starts: list[int]) -> T:
    """What is done with a range of rows, by the calling thread alone, given blocks of rows that it is part of."""
    from distributed import get_worker

    edges = [*starts, starts[-1] + len(blocks[-1])]

    def read(start: int, stop: int) -> np.ndarray:
        found = [blocks[i][begin:end] for i, begin, end in pieces(edges, start, stop)]
        return np.ascontiguousarray(found[0] if len(found) == 1 else np.concatenate(found), dtype=np.float64)

    try:
        with alone():
            return do(piece, read, lambda n: None)
    except OSError as error:
        raise InputError(
            f"the worker at {get_worker().address} failed at a file: {error}; it must be able to write there, in a "
            "directory that all workers share with this process, under the same name"
        ) from error


def _merge[T](add: Callable[[T, T], None], found: list[T]) -> T:
    """The sum of finds, which stay as they are: a task may be done again."""
    return _sum(add, deepcopy(found[0]), found[1:])


def _sum[T](add: Callable[[T, T], None], first: T, others: Iterable[T]) -> T:
    for other in others:
        add(first, other)
    return first
