"""Tables of numbers from files, or one clear error.

Nothing is guessed where a guess could be wrong in silence: text, nameless columns and numbers of rows are refused, and
what was decided about the rest is said in the table's notes.
"""

from __future__ import annotations

import csv
import io
import math
import numbers
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bayesgmm.cli.dialects import TextOptions
from bayesgmm.cli.numerals import NOTATIONS, Notation, Numeral, is_missing
from bayesgmm.cli.raw import RawFile, raw_file
from bayesgmm.cli.sources import opened
from bayesgmm.errors import InputError
from bayesgmm.names import counted, did_you_mean, listed
from bayesgmm.tables import stand_ins

if TYPE_CHECKING:
    import pandas as pd

_LEAST_NUMBERED = 10  # rows, below which a column that counts up by one may be a measurement
_ERROR_NAMES = ("sd", "std", "se", "err", "error", "sigma", "e", "unc", "uncertainty")  # before a column's name
_NUMBER_NAMES = ("id", "index", "nr", "no", "row")  # what columns that number the rows are called


class Gap(NamedTuple):
    """The first missing value of a table, and how many there are."""

    place: str
    column: str
    n_missing: int


@dataclass(frozen=True, slots=True, eq=False)
class ReadTable:
    """A table, or some rows of it, as it was read.

    Attributes
    ----------
    features : DataFrame
        float64, never infinite, NaN where a value is missing; rows numbered from 0.
    errors : DataFrame or None
        Standard deviations of the errors of the features' values, zero where these have none or are missing; None
        where no column holds errors.
    own : DataFrame
        All columns of the file that have a name, as they stand there.
    gap : Gap or None
        The first missing value.
    notes : tuple of str
        What was decided about the table, or may be wrong with it, in sentences.
    format : dict
        How the file is written.
    """

    features: pd.DataFrame
    errors: pd.DataFrame | None
    own: pd.DataFrame
    gap: Gap | None
    notes: tuple[str, ...]
    format: dict[str, Any]


def read_table(
    path: str | Path,
    columns: Sequence[str] | None = None,
    ids: str | None = None,
    options: TextOptions | None = None,
    error_prefix: str | None = None,
) -> ReadTable:
    r"""The table in a file.

    Parameters
    ----------
    path : str or Path
        A text, a Parquet or Feather file or an Excel workbook, packed by gzip, bzip2, xz or zip or not; ``-`` is
        standard input.
    columns : sequence of str, optional
        The columns to use, in this order; by default all but ``ids``, which must then be numeric.
    ids : str, optional
        The column that tells the rows apart.
    options : TextOptions, optional
        How a text is written, as far as that should not be found out.
    error_prefix : str, optional
        What the names of columns begin with that hold standard deviations of the errors of others: "sd_" where
        "sd_mass" is that of "mass".

    Raises
    ------
    InputError
        Naming the file's line and the column that cannot be used.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "table.csv")
    ...     _ = path.write_text("a;b\n1,5;2\n3;\n")
    ...     read_table(path).features
         a    b
    0  1.5  2.0
    1  3.0  NaN
    """
    with opened(path) as source:
        as_text = _as_text(columns, ids, error_prefix)
        file = _checked(raw_file(source, options or TextOptions(), as_text), columns, ids)
        rows = next(file.parts(None))
        if not len(rows):
            raise InputError(f"{file.name} has no rows")
        notes, units = list(file.notes), dict[str, str]()
        errors = _error_columns(file, columns, error_prefix)
        used = _all_columns(file, rows, {ids, *errors.values()}, notes) if columns is None else columns
        table = _table(file, rows, used, errors, units, notes)
        if columns is None:
            _refuse_row_numbers(table.features)
            notes += _likely_errors(list(table.features)) if error_prefix is None else []
        notes += [f"column {name!r} is read without its sign {unit}" for name, unit in units.items() if unit]
        found = stand_ins(table.features.to_numpy(), list(table.features))
        notes += [f"{one}; if that stands for a missing value, give --missing={one.value:g}" for one in found]
        return replace(table, notes=tuple(notes))


def read_parts(
    path: str | Path,
    columns: Sequence[str],
    rows: int,
    ids: str | None = None,
    options: TextOptions | None = None,
    error_prefix: str | None = None,
) -> Iterator[ReadTable]:
    """The table in a file, in parts of at most so many rows; the other parameters are those of `read_table`."""
    with opened(path) as source:
        as_text = _as_text(columns, ids, error_prefix)
        file = _checked(raw_file(source, options or TextOptions(), as_text), columns, ids)
        errors = _error_columns(file, columns, error_prefix)
        notes, units = list(file.notes), dict[str, str]()
        for part in file.parts(rows):
            yield _table(file, part, columns, errors, units, notes)
            notes = []


def refuse_missing(table: ReadTable) -> None:
    """Check that no value is missing.

    Raises
    ------
    InputError
        Naming the first that is.
    """
    if table.gap is not None:
        place, column, n = table.gap
        more = f" (and {n - 1} more in the table)" if n > 1 else ""
        raise InputError(f"{place}, column {column!r}: the value is missing{more}; fill it in or leave the row out")


def _likely_errors(columns: list[str]) -> list[str]:
    """Notes on columns that are fitted like others, but are named as errors of others would be."""
    found: dict[str, list[str]] = {}
    for name, of in product(columns, columns):
        prefix = name.removesuffix(of)
        if name.endswith(of) and prefix.rstrip("_ .-").lower() in _ERROR_NAMES:
            found.setdefault(prefix, []).append(repr(name))
    return [
        f"fitted like all columns: {listed(names)}; if these are standard deviations of the errors of others, give "
        f"--error-prefix {shlex.quote(prefix)}"
        for prefix, names in found.items()
    ]


def _as_text(columns: Sequence[str] | None, ids: str | None, error_prefix: str | None) -> Any:
    """Which columns stay as they are written: those that are neither measurements nor their errors."""
    read = None if columns is None else {*columns, *(f"{error_prefix}{name}" for name in columns)}
    return lambda name: name == ids or (read is not None and name not in read)


def _checked(file: RawFile, columns: Sequence[str] | None, ids: str | None) -> RawFile:
    """The file, if it has the columns."""
    for name in [*(columns or ()), *([] if ids is None else [ids])]:
        if name not in file.names:
            known = [known for known in file.names if known]
            advice = did_you_mean(name, known) or f"; it has {', '.join(known)}"
            raise InputError(f"{file.name} has no column {name!r}{advice}")
    return file


def _error_columns(file: RawFile, columns: Sequence[str] | None, prefix: str | None) -> dict[str, str]:
    """The columns that hold the errors of others, by the names of these."""
    if prefix is None:
        return {}
    pairs = {name: f"{prefix}{name}" for name in columns or file.names if name and f"{prefix}{name}" in file.names}
    if not pairs:
        raise InputError(f"{file.name} has no column whose name is {prefix!r} with that of another after it")
    return pairs


def _table(
    file: RawFile,
    rows: pd.DataFrame,
    used: Sequence[str],
    error_columns: Mapping[str, str],
    units: dict[str, str],
    notes: list[str],
) -> ReadTable:
    """Some rows of a file as numbers, with what was decided about them added to the notes."""
    import pandas as pd

    empty = rows.isna().all(axis=1).to_numpy(bool)
    if len(file.names) > 1 and empty.any():
        rows = rows[~empty]
        notes.append(f"{counted(int(empty.sum()), 'row')} of {file.name} without any value left out")
    numeric = [*used, *(error_columns[name] for name in used if name in error_columns)]
    columns = {name: _column(file, name, rows[file.names.index(name)]) for name in numeric}
    _refuse_text(file, rows, columns)
    for name, column in columns.items():
        _refuse_strange(file, rows, name, column)
        if units.setdefault(name, column.unit) != column.unit:
            raise InputError(
                f"column {name!r} of {file.name} has numbers with and without {units[name] or column.unit}"
            )
    features = pd.DataFrame({name: columns[name].values for name in used})
    errors = pd.DataFrame(0.0, features.index, features.columns) if error_columns else None
    for name, error_column in error_columns.items():
        if errors is not None and name in features:
            errors[name] = _errors(file, rows, features[name], error_column, columns[error_column].values)
    named = [j for j, name in enumerate(file.names) if name]
    own = rows[named].set_axis([file.names[j] for j in named], axis=1).reset_index(drop=True)
    return ReadTable(features, errors, own, _gap(file, rows, features), tuple(notes), file.format)


def _errors(file: RawFile, rows: pd.DataFrame, values: pd.Series, name: str, sd: np.ndarray) -> np.ndarray:
    """The errors of a column's values, zero where these are missing."""
    known = values.notna().to_numpy()
    wrong = np.flatnonzero(known & ~(sd >= 0))
    if len(wrong):
        place, error = file.place(int(rows.index[wrong[0]])), sd[wrong[0]]
        fault = "the error of a value is missing" if np.isnan(error) else f"the error {error:g} is negative"
        raise InputError(f"{place} of {file.name}, column {name!r}: {fault}; an exact value has the error 0")
    return np.where(known, sd, 0.0)


def _gap(file: RawFile, rows: pd.DataFrame, features: pd.DataFrame) -> Gap | None:
    missing = np.argwhere(features.isna().to_numpy())
    if not len(missing):
        return None
    row, column = missing[0]
    return Gap(f"{file.place(int(rows.index[row]))} of {file.name}", features.columns[column], len(missing))


class _Column(NamedTuple):
    """A column as numbers, NaN where a cell is none."""

    values: np.ndarray
    strange: list[int]  # rows whose cell is neither a finite number nor a gap
    unit: str


def _column(file: RawFile, name: str, cells: pd.Series) -> _Column:
    import pandas as pd

    types, units, strange = pd.api.types, {""}, []
    if types.is_numeric_dtype(cells) and not types.is_bool_dtype(cells) and not types.is_complex_dtype(cells):
        values = cells.to_numpy(dtype=np.float64, na_value=math.nan)
        strange = np.flatnonzero(np.isinf(values)).tolist()
    else:
        values, found = np.full(len(cells), math.nan), set()
        for i, (cell, filled) in enumerate(zip(cells.tolist(), cells.notna(), strict=True)):
            if not filled or (isinstance(cell, str) and is_missing(cell, file.missing)):
                continue
            number = _numeral(cell, file.notation)
            if number is not None:
                values[i] = number.value
                found.add(number.unit)
            if number is None or math.isinf(number.value):
                strange.append(i)
        units = found or units
    if len(units) > 1:
        raise InputError(
            f"column {name!r} of {file.name} has numbers with {listed(sorted(units - {''}))}"
            f"{' and without' * ('' in units)}; write all in one unit"
        )
    gone = [number.value for word in file.missing if (number := Notation().number(word)) is not None]
    return _Column(np.where(np.isin(values, gone), math.nan, values) if gone else values, strange, units.pop())


def _numeral(cell: Any, notation: Notation) -> Numeral | None:
    """The number that a cell of any type holds."""
    if isinstance(cell, str):
        return notation.number(cell)
    is_number = isinstance(cell, numbers.Real | Decimal) and not isinstance(cell, bool)
    return Numeral(float(cell)) if is_number else None


def _refuse_text(file: RawFile, rows: pd.DataFrame, columns: Mapping[str, _Column]) -> None:
    """Refuse columns most of whose cells are no numbers; say what is in the first of them, and what may help."""
    text = [name for name, (x, strange, _) in columns.items() if np.isnan(x[strange]).sum() > np.isfinite(x).sum()]
    if not text:
        return
    cells = rows[file.names.index(text[0])]
    cell = str(cells.iloc[next(i for i in columns[text[0]].strange if np.isnan(columns[text[0]].values[i]))])
    other = next((notation for notation in NOTATIONS if notation.number(cell)), None)
    if other is not None:
        raise InputError(
            f"column {text[0]!r} holds {cell[:40]!r}, a number by {other.options}, and other columns hold numbers in "
            "another notation; write all in one"
        )
    which = f"column{'s' * (len(text) > 1)} {', '.join(map(repr, text))} hold{'s' * (len(text) == 1)} text"
    cure = _choice([name for name in columns if name not in text])
    if len(text) == 1 and len(columns) > 1 and cells.is_unique:
        cure += f", or keep it beside the results with {option_for('--id', text)}"
    raise InputError(f"{which}, such as {cell[:40]!r}; {cure}")


def _refuse_strange(file: RawFile, rows: pd.DataFrame, name: str, column: _Column) -> None:
    """Refuse a column of numbers with a cell that is neither a finite number nor missing."""
    if not column.strange:
        return
    first, more = column.strange[0], len(column.strange) - 1
    row, cell = int(rows.index[first]), str(rows[file.names.index(name)].iloc[first])[:40]
    fault = "is not a number" if np.isnan(column.values[first]) else "is not finite"
    others = f" (and {more} more in this column)" if more else ""
    header = file.format.get("header", 0)
    cure = f"correct it or leave the row out, or give --missing={shlex.quote(cell)} if it stands for a missing value"
    if row == 0 and header > 0:
        cure = f"correct it or leave the row out, or give --header {header + 1} if it belongs to the columns' names"
    raise InputError(f"{file.place(row)} of {file.name}, column {name!r}: {cell!r} {fault}{others}; {cure}")


def _all_columns(file: RawFile, rows: pd.DataFrame, others: Collection[str | None], notes: list[str]) -> list[str]:
    """Every column but some others; nameless ones that are empty or count the rows are none."""
    named = [name for name in file.names if name and name not in others]
    for j in (j for j, name in enumerate(file.names) if not name and not rows[j].isna().all()):
        if not _counts_up(_column(file, "", rows[j]).values):
            raise InputError(f"column {j + 1} of {file.name} has no name; {_choice(named)}")
        notes.append(f"column {j + 1} of {file.name} has no name and numbers the rows; it is left out")
    return named


def _refuse_row_numbers(features: pd.DataFrame) -> None:
    """Refuse a column that tells the rows apart and measures nothing."""
    for name in features.columns:
        x = features[name].to_numpy()
        numbered = name.lower() in _NUMBER_NAMES or name.lower().endswith(("_id", " id", ".id"))
        if len(features.columns) > 1 and (_counts_up(x) or (numbered and _distinct_integers(x))):
            others = [other for other in features.columns if other != name]
            raise InputError(
                f"column {name!r} numbers the rows ({x[0]:g}, {x[1]:g}, ...); to keep it beside the results give "
                f"{option_for('--id', [name])}; if it is a measurement, {option_for('--columns', features.columns)}, "
                f"and if not, {option_for('--columns', others)}"
            )


def _counts_up(x: np.ndarray) -> bool:
    """Whether each entry is one more than that before."""
    return len(x) >= _LEAST_NUMBERED and bool((np.diff(x) == 1).all() and x[0] % 1 == 0)


def _distinct_integers(x: np.ndarray) -> bool:
    return len(x) > 1 and not (x % 1).any() and len(np.unique(x)) == len(x)


def _choice(usable: Sequence[str]) -> str:
    return (
        f"choose numeric columns with {option_for('--columns', usable)}" if usable else "none of its columns is numeric"
    )


def option_for(option: str, names: Sequence[str]) -> str:
    """An option with names as a shell takes them; several have commas between them."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(names)
    return f"{option} {shlex.quote(names[0] if option == '--id' else text.getvalue())}"
