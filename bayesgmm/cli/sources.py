"""Where the bytes of a table come from: a file or standard input, packed or not, and which kind of file they are."""

from __future__ import annotations

import bz2
import codecs
import glob
import gzip
import lzma
import math
import os
import shutil
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import IO, Any

from bayesgmm.errors import InputError
from bayesgmm.names import counted

STDIN = Path("-")
_ZIP = b"PK\x03\x04"
_KINDS = {b"PAR1": "parquet", b"ARROW1": "feather", _ZIP: "excel"}
_BLOCK = 1 << 20  # bytes
_SHARE_OF_MEMORY = 0.25  # that a table may take: a posterior and what follows from it take as much again


@dataclass(frozen=True)
class Source:
    """A table's file.

    Attributes
    ----------
    path : Path
    name : str
        What messages call it.
    """

    path: Path
    name: str

    def open(self) -> IO[bytes]:
        """The bytes, unpacked."""
        with self.path.open("rb") as file:
            head = file.read(8)
        return next((unpack for magic, unpack in _UNPACK.items() if head.startswith(magic)), _as_it_is)(self.path)

    @cached_property
    def kind(self) -> str:
        """What is in it, whatever its name: "parquet", "feather", "excel" or "text"."""
        with self.open() as file:
            head = file.read(8)
        return next((kind for magic, kind in _KINDS.items() if head.startswith(magic)), "text")

    @cached_property
    def encoding(self) -> str:
        """The encoding of a text: UTF-8, UTF-16 where it has that mark, or Windows-1252 where it is neither."""
        utf8 = codecs.getincrementaldecoder("utf-8")()
        encoding = "utf-8-sig"
        with self.open() as file:
            for block in iter(partial(file.read, _BLOCK), b""):
                if block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                    return "utf-16"
                if b"\0" in block:
                    raise InputError(f"{self.name} is not a text file; save the table as CSV")
                try:
                    utf8.decode(block)
                except UnicodeDecodeError:
                    encoding = "cp1252"
        return encoding


@contextmanager
def opened(path: str | Path) -> Iterator[Source]:
    """A table's file, or what stands on standard input if the path is ``-``.

    Standard input is copied to a temporary file, since a table is read more than once: first to see how it is written.

    Raises
    ------
    InputError
        If there is no such file, or if reading fails within the block.
    """
    path = Path(path)
    name = "standard input" if path == STDIN else path.name
    with tempfile.TemporaryDirectory(prefix="bayesgmm-") as folder:
        try:
            if path == STDIN:
                path = Path(folder, "table")
                with path.open("wb") as copy:
                    shutil.copyfileobj(sys.stdin.buffer, copy)
            if path.is_dir():
                raise InputError(f"{path} is a directory; give a table, such as a CSV or Parquet file")
            yield Source(path, name)
        except FileNotFoundError:
            raise InputError(f"there is no file {path}") from None
        except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, zipfile.BadZipFile) as error:
            raise InputError(f"{name} cannot be unpacked: {error}") from None
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}") from None


def stem(path: Path) -> str:
    """The name of a table's file without its endings; of a pattern, that of the directory.

    Examples
    --------
    >>> stem(Path("data/geyser.csv.gz")), stem(STDIN), stem(Path("data/*.parquet"))
    ('geyser', 'stdin', 'data')
    """
    if path == STDIN:
        return "stdin"
    if glob.has_magic(path.name):
        path = path.absolute().parent
    return Path(path.stem).stem if path.suffix.lower() in (".gz", ".bz2", ".xz", ".zip") else path.stem


def in_parts(tables: Sequence[Path]) -> bool:
    """Whether a table is to be read in parts: several files, a pattern of names, a directory of Parquet, or .npy.

    So is a file of Parquet that would take much of the memory.

    Examples
    --------
    >>> in_parts([Path("data/*.parquet")]), in_parts([Path("table.csv")])
    (True, False)
    """
    if len(tables) > 1:
        return True
    (only,) = tables
    if only.is_dir():
        return any(only.glob("*.parquet"))
    if only.suffix == ".npy" or (glob.has_magic(str(only)) and not only.exists()):
        return True
    return only.suffix == ".parquet" and _values_in(only) * 8 > _memory() * _SHARE_OF_MEMORY


def _values_in(path: Path) -> int:
    """How many values a Parquet file has; 0 where that cannot be found out, which whoever reads it will say."""
    try:
        from pyarrow.parquet import read_metadata

        metadata = read_metadata(path)
        return metadata.num_rows * metadata.num_columns
    except (ImportError, OSError, ValueError):
        return 0


def _memory() -> float:
    """Bytes of memory that this machine has; infinite where it does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return math.inf


def files_in(tables: Sequence[Path]) -> list[Path]:
    """The files of a table in parts, or patterns of their names; of a directory, all that are Parquet."""
    return [path / "*.parquet" if path.is_dir() else path for path in tables]


def name_of(tables: Sequence[Path]) -> str:
    """What a table in parts is called.

    Examples
    --------
    >>> name_of([Path("data/*.parquet")]), name_of([Path("a/x.npy"), Path("a/y.npy"), Path("a/z.npy")])
    ('data/*.parquet', 'a/x.npy and 2 more files')
    """
    more = len(tables) - 1
    return f"{tables[0]} and {counted(more, 'more file')}" if more else str(tables[0])


def _as_it_is(path: Path) -> IO[bytes]:
    return path.open("rb")


def _unzip(path: Path) -> IO[bytes]:
    """The only file in an archive; a workbook, which is an archive too, as it is."""
    with zipfile.ZipFile(path) as archive:
        names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
        if any(name.startswith("xl/") for name in names):
            return _as_it_is(path)
        tables = [name for name in names if not name.startswith("__MACOSX/")]
        if len(tables) != 1:
            raise InputError(f"{path.name} holds {len(tables)} files; give one table at a time")
        return archive.open(tables[0])


_UNPACK: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
    _ZIP: _unzip,
}
