"""What can be read as a table in parts: files and arrays outside memory, chunks, Dask collections."""

from __future__ import annotations

import glob
import math
import os
import shutil
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from mmap import ACCESS_READ, ALLOCATIONGRANULARITY, mmap
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from threading import Lock
from typing import IO, Any
from weakref import finalize

import numpy as np

from bayesgmm.errors import InputError
from bayesgmm.observations import positive_integer
from bayesgmm.parts import Part, Parts
from bayesgmm.passes import survey
from bayesgmm.progress import Progress, of_stage
from bayesgmm.tables import made_up_names

_BUFFER_BYTES = 1 << 16  # of a column of a Parquet file that are read at once
_DECODED_ROWS = 1 << 14  # of such a file at once
_TILE = 1024  # rows whose columns are put side by side at a time, so that they stay in the cache
_KEPT_ROWS = 1 << 20  # of a file that a worker reads at once: a row group, as pyarrow writes them


def open_table(source: Any, columns: Sequence[str] | None = None, *, client: Any = None) -> Parts:
    """A table that is read in parts, whenever its rows are needed, so that it need not fit in memory.

    Parameters
    ----------
    source : path, list of paths, or array
        Files of Parquet or of numpy's ``.npy``, also as a pattern such as ``"data/*.parquet"``; a pyarrow dataset of
        Parquet files; a memory-mapped array; an array of HDF5 or zarr; a function that returns an iterator over
        chunks of rows (n, D), the same at each call; or a Dask array or DataFrame. Where a Dask ``Client`` has been
        made, its workers keep the rows of these, for all fits to the table, and do what is done with rows; otherwise
        partitions are worked out one after the other, at each pass.
    columns : sequence of str, optional
        Which columns of Parquet files or a Dask DataFrame to use; all, if not given.
    client : distributed.Client, optional
        Of a Dask cluster whose workers are to read files and keep their rows, for all fits to the table. They must find
        the files under the same names.

    Returns
    -------
    Parts
        `fit_em` takes it in place of an array, and what it is made of too.

    Raises
    ------
    InputError
        Naming the file that cannot be used.

    Notes
    -----
    Parquet is decoded twice at most. What is read a second time is kept as plain numbers, 8 bytes each, in a
    temporary file that has no name and goes with the table, as long as it takes less than half of the disk that is
    free. It is in the directory that the environment variable TMPDIR names, by default /var/tmp.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> import bayesgmm as bg
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/a.npy", np.arange(6.0).reshape(3, 2))
    ...     table = bg.open_table(f"{folder}/*.npy")
    >>> table.n_observations, table.features
    (3, ('x0', 'x1'))
    """
    parts = parts_of(source, columns)
    if parts is None:
        raise InputError(f"{type(source).__name__} is no table in parts; files are, and arrays outside memory")
    if client is None:
        return parts
    paths = _paths_of(source)
    if paths is None:
        raise InputError("client is for files, which its workers read; collections of Dask know their own")
    from bayesgmm.cluster import read_by_workers

    files = zip(paths, parts.parts, strict=True)
    ranges = [
        ((path.absolute(), columns), start, min(start + _KEPT_ROWS, part.n_rows))
        for path, part in files
        for start in range(0, part.n_rows, _KEPT_ROWS)
    ]
    return read_by_workers(client, parts, _rows_of_file, ranges)


def _rows_of_file(file: tuple[Path, Sequence[str] | None], start: int, stop: int) -> np.ndarray:
    """Rows of a file, as a worker reads them."""
    path, columns = file
    if not path.exists():
        raise InputError(f"there is no file {path} where a worker is; workers must find files under the same names")
    return _of_files([path], columns).read(start, stop)


def random_rows(
    source: Any, n: int, columns: Sequence[str] | None = None, *, rng: Any = None, progress: Progress | None = None
) -> np.ndarray:
    """Rows of a table in parts, drawn at random without replacement: for what has a limit of rows, or time.

    Parameters
    ----------
    source : table in parts
        From `open_table`, or anything that it takes.
    n : int
        Number of rows; all, where there are fewer.
    columns : sequence of str, optional
        As in `open_table`.
    rng : Generator, seed or None
    progress : callable, optional
        Called as ``progress("rows looked at", done, total)``.

    Returns
    -------
    (n, D) array
        In the order of the table, NaN where a value is missing.

    Raises
    ------
    InputError
        Naming the place of a value that is infinite, anywhere in the table: all of it is read.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful().to_numpy()
    >>> bg.random_rows(lambda: iter([X[:100], X[100:]]), 50, rng=0).shape
    (50, 2)
    """
    table, n = open_table(source, columns), positive_integer(n, "n")
    generator = np.random.default_rng(rng)
    enough = n + 10 * math.sqrt(n)  # the survey draws about as many as it is asked for
    tell = of_stage(progress, "rows looked at")
    drawn = survey(table, math.ceil(enough), int(generator.integers(2**63)), tell).sample
    return drawn[np.sort(generator.choice(len(drawn), min(n, len(drawn)), replace=False))]


def parts_of(source: Any, columns: Sequence[str] | None = None) -> Parts | None:
    """The table in parts that something is, or None if it is none, such as an array in memory."""
    if isinstance(source, Parts):
        return source
    if type(source).__module__.split(".")[0] == "dask":
        from bayesgmm.cluster import of_collection  # loads Dask, which whoever has a collection has loaded

        return of_collection(source, columns)
    if (paths := _paths_of(source)) is not None:
        return _of_files(paths, columns)
    if isinstance(source, np.memmap) or (hasattr(source, "chunks") and hasattr(source, "__getitem__")):
        return _of_array(source, type(source).__name__)
    if callable(source):
        return _of_chunks(source)
    return None


def _paths_of(source: Any) -> list[Path] | None:
    """The files that a source is, in order; None where it is something else."""
    if isinstance(source, (str, os.PathLike)) or _are_paths(source):
        return _paths(source)
    if hasattr(source, "get_fragments") and hasattr(source, "schema"):
        return sorted(Path(path) for path in source.files)
    return None


def _are_paths(source: Any) -> bool:
    return (
        isinstance(source, (list, tuple))
        and len(source) > 0
        and all(isinstance(one, (str, os.PathLike)) for one in source)
    )


def _paths(source: Any) -> list[Path]:
    """The files that are meant, in order."""
    several = [source] if isinstance(source, (str, os.PathLike)) else source
    paths: list[Path] = []
    for one in map(os.fspath, several):
        found = sorted(glob.glob(one, recursive=True)) if glob.has_magic(one) else [one]
        if not found:
            raise InputError(f"no file is called {one!r}")
        paths += map(Path, found)
    return paths


def _of_files(paths: list[Path], columns: Sequence[str] | None) -> Parts:
    """A table of Parquet or .npy files."""
    opened, spool = [], _Spool()
    for path in paths:
        if path.suffix not in _OPENERS:
            raise InputError(
                f"{path} is no table that can be read in parts ({', '.join(_OPENERS)}); save it as one of these, or "
                "read it into memory, as with pandas.read_csv"
            )
        if not path.exists():
            raise InputError(f"there is no file {path}")
        opened.append(_OPENERS[path.suffix](path, columns, spool))
    features, named = opened[0].features, opened[0].named
    for path, one in zip(paths, opened, strict=True):
        if one.features != features:
            order = sorted(one.features) == sorted(features)
            fault = "are in another order than" if order else "are not"
            raise InputError(
                f"the columns of {path}, {list(one.features)}, {fault} those of {paths[0]}, {list(features)}; "
                "choose the columns by their names, or write the file again"
            )
        if not one.n_observations and len(paths) > 1:
            raise InputError(f"{path} has no rows; write it again if some are missing, or leave it out")
    return Parts(tuple(part for one in opened for part in one.parts), features, named)


class _Unchanged:
    """Whether a file is still as it was when it was opened."""

    def __init__(self, path: Path) -> None:
        self.path, self.was = path, self._now(path)

    @property
    def mark(self) -> str:
        """What the file was when it was opened, for `Part`."""
        size, time = self.was
        return f"{self.path.resolve()}, {size} bytes, changed at {time} ns"

    @staticmethod
    def _now(path: Path) -> tuple[int, int]:
        state = path.stat()
        return state.st_size, state.st_mtime_ns

    def check(self) -> None:
        if not self.path.exists() or self._now(self.path) != self.was:
            raise InputError(f"{self.path} has changed since it was opened; start again")


def _of_npy(path: Path, columns: Sequence[str] | None, _spool: _Spool) -> Parts:
    """The array of an .npy file, read with plain reads: the pages of a memory map would count as memory in use."""
    if columns is not None:
        raise InputError(f"{path} has no column names to choose from")
    try:
        array = np.load(path, mmap_mode="r")
    except (ValueError, OSError) as error:
        raise InputError(f"{path} is not an array that numpy saved: {error}") from error
    _two_dimensions(array, str(path))
    (n_rows, D), dtype, offset = array.shape, array.dtype, array.offset
    contiguous, unchanged = array.flags.c_contiguous, _Unchanged(path)

    def read(start: int, stop: int) -> np.ndarray:
        unchanged.check()
        if not contiguous:
            return np.array(array[start:stop], dtype=np.float64)
        values = np.empty((stop - start, D), dtype)
        with path.open("rb") as file:
            file.seek(offset + start * D * dtype.itemsize)
            n_bytes = file.readinto(values.data.cast("B"))
        whole = values if n_bytes == values.nbytes else values[:0]  # which is refused: the file has become shorter
        return whole.astype(np.float64, copy=False)

    return Parts((Part(path.name, n_rows, read, unchanged.mark),), made_up_names(D), named=False)


def _parquet_file(path: Path) -> Any:
    """A Parquet file that is open, of whose row groups no more is in memory than what is being decoded."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path} is not a Parquet file: {error}") from error


def _numeric_columns(path: Path, schema: Any, columns: Sequence[str] | None) -> list[str]:
    """The columns of a Parquet file that are wanted, all of which hold numbers."""
    import pyarrow as pa

    wanted = list(schema.names if columns is None else columns)
    for name in wanted:
        if name not in schema.names:
            raise InputError(f"{path} has no column {name!r}; it has {schema.names}")
        kind = schema.field(name).type
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
            raise InputError(f"column {name!r} of {path} holds {kind}, not numbers; choose other columns")
    return wanted


def _side_by_side(batch: Any) -> np.ndarray:
    """The columns of a batch of pyarrow as an array (n, D); None, too, is NaN."""
    values = np.empty((len(batch), batch.num_columns))
    for n in range(0, len(batch), _TILE):
        columns = [column.to_numpy(zero_copy_only=False) for column in batch.slice(n, _TILE).columns]
        np.stack(columns, axis=1, out=values[n : n + _TILE], casting="unsafe")
    return values


class _InOrder:
    """Rows that are had one after another, as chunks from an iterator.

    Parameters
    ----------
    chunks_from : callable
        Given one of the rows in ``begins``, returns an iterator over chunks of rows from there on.
    begins : sequence of int
        Rows where iterators may begin, in their order; the first is 0.
    end : int
        Number of all rows.
    """

    def __init__(self, chunks_from: Callable[[int], Iterable[Any]], begins: Sequence[int], end: int) -> None:
        self.chunks_from, self.begins, self.end, self.lock = chunks_from, begins, end, Lock()
        self._set_at(-1, ())

    def _set_at(self, row: int, chunks: Iterable[Any]) -> None:
        self.at, self.chunks = row, iter(chunks)
        self.rest: np.ndarray | None = None

    def read(self, start: int, stop: int) -> np.ndarray:
        """The rows [start, stop), or fewer where there are no more; by a new iterator only where that is nearer."""
        with self.lock:
            begin = self.begins[bisect_right(self.begins, start) - 1]
            if not begin <= self.at <= start:
                self._set_at(begin, self.chunks_from(begin))
            found = []
            while self.at < stop:
                rest = self.rest if self.rest is not None else next(self.chunks, None)
                if rest is None:
                    break
                rest = np.asarray(rest, dtype=np.float64)
                skipped, wanted = max(start - self.at, 0), stop - self.at
                if skipped < len(rest):
                    found.append(rest[skipped:wanted])
                taken = min(wanted, len(rest))
                self.at += taken
                self.rest = rest[taken:] if taken < len(rest) else None
            if self.at == self.end:
                self._set_at(-1, ())  # which closes files and frees memory
            return np.concatenate(found) if found else np.empty((0, 0))


class _Spool:
    """Rows that were costly to decode, as plain numbers in a temporary file without a name, which goes with the table.

    It takes no more than half of the disk that was free.
    """

    def __init__(self) -> None:
        self.lock, self.end, self.written = Lock(), 0, 0
        self.file: IO[bytes] | None = None

    def reserve(self, n_values: int) -> int:
        """Where in the file so many values may be; only what is written takes room on the disk."""
        start = self.end
        self.end += -(-8 * n_values // ALLOCATIONGRANULARITY) * ALLOCATIONGRANULARITY
        return start

    def write(self, at: int, values: np.ndarray) -> bool:
        """Whether there was room to write values."""
        folder = _folder_for_large_files()
        with self.lock:
            if shutil.disk_usage(folder).free < self.written + 2 * values.nbytes:
                return False
            try:
                if self.file is None:
                    self.file = TemporaryFile(dir=folder)  # noqa: SIM115
                    finalize(self, self.file.close)
                self.file.seek(at)
                self.file.write(values.data)
                self.file.flush()
            except OSError:  # of a quota, say
                return False
            self.written += values.nbytes
            return True

    def read(self, at: int, n_values: int) -> np.ndarray:
        """Values that have been written, out of the system's cache of the file and not copied."""
        assert self.file is not None
        page = at // ALLOCATIONGRANULARITY * ALLOCATIONGRANULARITY
        pages = mmap(self.file.fileno(), at - page + 8 * n_values, access=ACCESS_READ, offset=page)
        return np.frombuffer(pages, np.float64, n_values, at - page)


def _folder_for_large_files() -> str:
    """Where temporary files go: as TMPDIR says, or else where a disk holds them, since /tmp may be memory."""
    usual, on_disk = gettempdir(), "/var/tmp"
    return on_disk if "TMPDIR" not in os.environ and os.access(on_disk, os.W_OK) else usual


def _of_parquet(path: Path, columns: Sequence[str] | None, spool: _Spool) -> Parts:
    """The rows of a Parquet file; those that are read a second time are kept as plain numbers.

    Row groups are decoded a few pages at a time: they may be larger than the memory.
    """
    with _parquet_file(path) as file:
        wanted = _numeric_columns(path, file.schema_arrow, columns)
        counts = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    (*first, n_rows), D = accumulate(counts, initial=0), len(wanted)

    def decoded(row: int) -> Iterator[np.ndarray]:
        with _parquet_file(path) as file:
            groups = range(bisect_left(first, row), len(first))
            for batch in file.iter_batches(_DECODED_ROWS, row_groups=groups, columns=wanted):
                yield _side_by_side(batch.select(wanted))

    rows, unchanged, at, lock = _InOrder(decoded, first, n_rows), _Unchanged(path), spool.reserve(n_rows * D), Lock()
    seen = kept = 0  # so many rows from the beginning have been decoded, and are kept

    def read(start: int, stop: int) -> np.ndarray:
        nonlocal seen, kept
        unchanged.check()
        with lock:
            if stop <= kept:
                return spool.read(at + 8 * D * start, D * (stop - start)).reshape(-1, D)
            values = rows.read(start, stop)
            if start <= kept and stop <= seen and spool.write(at + 8 * D * start, values):
                kept = stop
            if start <= seen:
                seen = max(seen, stop)
            return values

    part = Part(path.name, n_rows, read, unchanged.mark, in_order=True)
    return Parts((part,), tuple(wanted), named=True)


_Opener = Callable[[Path, Sequence[str] | None, _Spool], Parts]
_OPENERS: dict[str, _Opener] = {".npy": _of_npy, ".parquet": _of_parquet}


def _two_dimensions(array: Any, name: str) -> None:
    if len(array.shape) != 2:
        raise InputError(f"{name} has {len(array.shape)} dimensions; a table has two, rows by columns")
    if np.dtype(array.dtype).kind not in "fiub":
        raise InputError(f"{name} holds {array.dtype}, not numbers")


def _of_array(array: Any, name: str) -> Parts:
    """An array that is read by slices of its rows: memory-mapped, of HDF5 or of zarr."""
    _two_dimensions(array, name)
    whole_file = isinstance(array, np.memmap) and array.mode == "r" and isinstance(array.base, mmap)
    unchanged = _Unchanged(Path(array.filename)) if whole_file else None

    def read(start: int, stop: int) -> np.ndarray:
        if unchanged is not None:
            unchanged.check()
        return np.ascontiguousarray(array[start:stop], dtype=np.float64)  # not copied, where that is what it is

    mark = "" if unchanged is None else f"{unchanged.mark}, {array.dtype} from byte {array.offset}"
    return Parts((Part(f"the {name}", array.shape[0], read, mark),), made_up_names(array.shape[1]), named=False)


def _of_chunks(make: Callable[[], Any]) -> Parts:
    """The chunks of rows that a function's iterator gives; they are counted first."""
    n_rows, D, names = 0, 0, None
    for i, chunk in enumerate(make()):
        array = np.asarray(chunk)
        _two_dimensions(array, f"chunk {i}")
        if n_rows and array.shape[1] != D:
            raise InputError(f"chunk {i} has {array.shape[1]} columns, those before it {D}")
        n_rows, D, names = n_rows + len(array), array.shape[1], names or getattr(chunk, "columns", None)
    if not n_rows:
        raise InputError("the function gives no rows: it must return an iterator over chunks (n, D) at each call")
    part = Part("the chunks", n_rows, _InOrder(lambda _: make(), [0], n_rows).read, in_order=True)
    features = made_up_names(D) if names is None else tuple(map(str, names))
    return Parts((part,), features, named=names is not None)
