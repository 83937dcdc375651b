"""The cells of a table's file as they stand there: columns' names, and rows, all at once or in parts."""

from __future__ import annotations

import csv
import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any

from bayesgmm.cli.dialects import SAMPLE, Dialect, Record, TextOptions, described, find_dialect, records
from bayesgmm.cli.numerals import MISSING, Notation
from bayesgmm.cli.sources import Source
from bayesgmm.errors import InputError
from bayesgmm.names import counted

if TYPE_CHECKING:
    import pandas as pd

_READERS = {"parquet": "pyarrow", "feather": "pyarrow", "excel": "openpyxl"}  # the library that reads each kind

# Rows of a table, so many at a time or all: columns are 0, 1, ..., the index says which record of the file a row is.
Parts = Callable[[int | None], "Iterator[pd.DataFrame]"]


@dataclass(frozen=True, eq=False)
class RawFile:
    """A table's file, once it is known how it is written.

    Attributes
    ----------
    name : str
        What messages call it.
    names : list of str
        Of the columns; "" where one has none.
    parts : callable
        Called with a number of rows, or None for all, gives tables of these rows, one after the other.
    place : callable
        Where in the file a row is, in words.
    notation : Notation
        Of the numbers that are texts.
    missing : list of str
        What stands for a missing value, besides the usual words; in lower case.
    format : dict
        How the file is written.
    notes : list of str
        What was decided about it, in sentences.
    """

    name: str
    names: list[str]
    parts: Parts
    place: Callable[[int], str]
    notation: Notation
    missing: list[str]
    format: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def raw_file(source: Source, options: TextOptions, as_text: Callable[[str], bool]) -> RawFile:
    """Find out how a file is written.

    Parameters
    ----------
    source : Source
    options : TextOptions
        What is known of it already.
    as_text : callable
        Whether a column of this name is to stay as it is written, even if it holds numbers.

    Raises
    ------
    InputError
        If it holds no table.
    """
    if source.kind == "text":
        return _text(source, options, as_text)
    try:
        first = next(_typed(source, 1), None)
    except ImportError:
        library = _READERS[source.kind]
        raise InputError(f"reading {source.name} needs {library}: install it, or save the table as CSV") from None
    except (ValueError, KeyError) as error:  # those of pyarrow and openpyxl are kinds of these
        reason = (str(error).splitlines() or ["its content is unknown"])[0]
        raise InputError(f"{source.name} is not a whole {source.kind.capitalize()} file: {reason}") from None
    if first is None:
        raise InputError(f"{source.name} has no rows")
    return RawFile(
        name=source.name,
        names=["" if str(name).startswith("Unnamed: ") else str(name) for name in first.columns],
        parts=lambda rows: _numbered(_typed(source, rows), rows),
        place="row {} (from 0)".format,
        notation=Notation(),
        missing=_lower(options.missing),
        format={"kind": source.kind},
    )


def _lower(words: Sequence[str]) -> list[str]:
    return [word.lower() for word in words]


def _typed(source: Source, rows: int | None) -> Iterator[pd.DataFrame]:
    """The rows of a file whose columns have types; only Parquet need not be read at once."""
    import pandas as pd

    with source.open() as file:
        if source.kind == "excel":
            yield pd.read_excel(file)
        elif source.kind == "feather":
            yield pd.read_feather(file)
        elif rows is None:
            yield pd.read_parquet(file)
        else:
            from pyarrow.parquet import ParquetFile

            yield from (batch.to_pandas() for batch in ParquetFile(file).iter_batches(rows))


def _numbered(frames: Iterator[pd.DataFrame], rows: int | None) -> Iterator[pd.DataFrame]:
    """Tables of at most so many rows, with numbers for the names of columns and rows."""
    import pandas as pd

    row = 0
    for frame in frames:
        for start in range(0, len(frame) if rows else 1, rows or 1):
            part = frame.iloc[start : start + rows] if rows else frame
            part = part.set_axis(range(part.shape[1]), axis=1).set_axis(pd.RangeIndex(row, row + len(part)))
            row += len(part)
            yield part


def _text(source: Source, options: TextOptions, as_text: Callable[[str], bool]) -> RawFile:
    """A text file."""
    try:
        with _lines(source) as file:
            sample = file.read(SAMPLE)
        if sample.lstrip()[:1] in ("{", "["):
            raise InputError(f"{source.name} is JSON, not a table; save it as CSV")
        dialect = find_dialect(sample, options, source.name)
    except UnicodeDecodeError:
        raise InputError(f"{source.name} is no text in UTF-8 or Windows-1252; save the table as CSV (UTF-8)") from None
    except csv.Error as error:
        raise InputError(f"{source.name} is not a well-formed table: {error}") from None
    notes = [dialect.doubt] if dialect.doubt else []
    if source.encoding == "cp1252":
        notes.append(f"{source.name} is not UTF-8 text and is read as Windows-1252")
    texts = [j for j, name in enumerate(dialect.names) if as_text(name)]
    return RawFile(
        name=source.name,
        names=list(dialect.names),
        parts=lambda rows: _text_parts(source, dialect, options.missing, texts, rows),
        place=lambda row: f"line {_line(source, dialect, row)}",
        notation=dialect.notation,
        missing=_lower(options.missing),
        format={
            "encoding": source.encoding,
            "separator": dialect.separator,
            "decimal": dialect.notation.decimal,
            "thousands": dialect.notation.thousands,
            "header": dialect.header,
        },
        notes=notes,
    )


def _text_parts(
    source: Source, dialect: Dialect, missing: Sequence[str], as_text: Sequence[int], rows: int | None
) -> Iterator[pd.DataFrame]:
    """The rows of a text file; pandas reads the numbers of a column that has nothing else."""
    import pandas as pd

    width = len(dialect.names)
    words = {word for known in (*MISSING, *missing) for word in (known, known.upper(), known.capitalize())}
    checked = False
    with _lines(source) as file:
        for _ in range(dialect.comments):
            file.readline()
        try:
            reader = pd.read_csv(
                file,
                sep=r"\s+" if dialect.separator == " " else dialect.separator,
                names=range(width),
                header=dialect.header - 1 if dialect.header else None,
                index_col=False,
                skipinitialspace=True,
                decimal=dialect.notation.decimal,
                dtype=dict.fromkeys(as_text, str),
                na_values=[*words, "NaN"],
                keep_default_na=False,
                low_memory=False,
                iterator=True,
            )
            while True:
                with warnings.catch_warnings():
                    warnings.simplefilter("error", pd.errors.ParserWarning)  # of rows that it would cut
                    part = reader.read(rows)
                if not checked and part[width - 1].isna().any():
                    _check_widths(source, dialect)
                    checked = True
                yield part
                if rows is None:
                    return
        except StopIteration:
            return
        except pd.errors.EmptyDataError:
            yield pd.DataFrame(columns=range(width))
        except (pd.errors.ParserError, pd.errors.ParserWarning, csv.Error) as error:
            _check_widths(source, dialect)
            fault = str(error).strip().split("C error: ")[-1]
            raise InputError(f"{source.name} is not a well-formed table: {fault}") from None


def _check_widths(source: Source, dialect: Dialect) -> None:
    """Refuse a file that has a row with more or fewer cells than columns; nameless last ones may be left out."""
    most = len(dialect.names)
    least = max((j + 1 for j, name in enumerate(dialect.names) if name), default=most)
    with _lines(source) as file:
        for line, cells in _body(file, dialect):
            if not least <= len(cells) <= most:
                raise InputError(
                    f"line {line} of {source.name} has {counted(len(cells), 'cell')}, but the table has "
                    f"{counted(most, 'column')}, taken to be parted by {described(dialect.separator)}; correct the "
                    "line, or give another --separator"
                )


def _body(file: TextIOWrapper, dialect: Dialect) -> Iterator[Record]:
    """The records below the header."""
    for _ in range(dialect.comments):
        file.readline()
    for line, cells in itertools.islice(records(file, dialect.separator), dialect.header, None):
        yield Record(line + dialect.comments, cells)


def _line(source: Source, dialect: Dialect, row: int) -> int:
    """The line of a text file on which a row starts."""
    with _lines(source) as file:
        return next(itertools.islice(_body(file, dialect), row, None)).line


def _lines(source: Source) -> TextIOWrapper:
    encoding = source.encoding
    return TextIOWrapper(source.open(), encoding=encoding)
