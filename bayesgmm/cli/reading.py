"""Tables from files: CSV or Parquet into a `pandas.DataFrame` of finite numbers, or one clear error.

Nothing is guessed where a guess could be wrong in silence: text, gaps and nameless columns are refused.
"""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bayesgmm.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

_DELIMITERS = {"\t": "tabs", ";": "semicolons", ",": "commas"}
_MISSING = ("", "na", "n/a", "nan", "null", "none")


def read_table(path: str | Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    r"""The numeric table in a file.

    Parameters
    ----------
    path : str or Path
        Parquet if the name ends in ``.parquet`` or ``.pq``; otherwise UTF-8 text with tabs, semicolons or commas
        between the cells: the first of these three that the first line has. With semicolons, numbers may have decimal
        commas. If the first line is numbers, it is data, and the columns are called x0, x1, ...
    columns : sequence of str, optional
        The columns to keep, in this order; all by default, and then all must be numeric.

    Returns
    -------
    pandas.DataFrame
        float64, finite, rows numbered from 0.

    Raises
    ------
    InputError
        Naming the file's line and the column that cannot be used.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "table.csv")
    ...     _ = path.write_text("a;b\n1,5;2\n3;4\n")
    ...     read_table(path)
         a    b
    0  1.5  2.0
    1  3.0  4.0
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise InputError(f"{path} is a directory; give a table, a CSV or Parquet file")
        if path.suffix.lower() in (".parquet", ".pq"):
            raw, decimal = _parquet(path), "."
            place: Callable[[int], str] = "row {} (from 0)".format
        else:
            raw, decimal, place = _text(path)
        return _numeric(raw, columns, decimal, lambda row: f"{place(row)} of {path.name}", path.name)
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None


def _parquet(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        table = pd.read_parquet(path)
    except ImportError:
        raise InputError(f"reading {path.name} needs pyarrow: install it, or save the table as CSV") from None
    except ValueError as error:  # pyarrow's errors are kinds of it
        raise InputError(f"{path.name} is not a Parquet file: {str(error).splitlines()[0]}") from None
    return table.set_axis([str(name) for name in table.columns], axis=1)


def _text(path: Path) -> tuple[pd.DataFrame, str, Callable[[int], str]]:
    """Raw columns of a text file, its decimal sign, and the place of row i in words."""
    import pandas as pd

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            line = next((line for line in file if line.strip()), None)
            if line is None:
                raise InputError(f"{path.name} is empty")
            delimiter = next((d for d in _DELIMITERS if len(next(csv.reader([line], delimiter=d))) > 1), ",")
            decimal = "," if delimiter == ";" else "."
            file.seek(0)
            first, *second = (cells for _, cells in itertools.islice(_records(file, delimiter), 2))
            headless = _is_data(first, decimal)
            names = [f"x{j}" for j in range(len(first))] if headless else first
            if second and len(second[0]) > len(names):
                raise InputError(
                    f"the first line of {path.name} has {len(names)} cells and the next {len(second[0])}, "
                    f"taken to be parted by {_DELIMITERS[delimiter]}; name every column in the first line"
                )
            repeated = [name for j, name in enumerate(names) if name in names[:j]]
            if repeated:
                raise InputError(f"two columns of {path.name} are called {repeated[0]!r}; rename one")
            file.seek(0)
            table = pd.read_csv(
                file,
                sep=delimiter,
                names=names,
                header=None if headless else 0,
                index_col=False,
                skipinitialspace=True,
                low_memory=False,
            )
    except UnicodeDecodeError:
        raise InputError(f"{path.name} is not UTF-8 text; save the table as CSV (UTF-8)") from None
    except (pd.errors.ParserError, csv.Error) as error:
        fault = str(error).strip().split("C error: ")[-1]
        raise InputError(f"{path.name} is not a well-formed table: {fault}") from None
    return table, decimal, lambda row: f"line {_line(path, delimiter, row + (not headless))}"


def _records(lines: Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Each record's first line and its stripped cells; blank lines are no records."""
    reader, start = csv.reader(lines, delimiter=delimiter, skipinitialspace=True), 1
    for cells in reader:
        stripped = [cell.strip() for cell in cells]
        if stripped not in ([], [""]):
            yield start, stripped
        start = reader.line_num + 1


def _line(path: Path, delimiter: str, record: int) -> int:
    """The line of a text file on which a record starts."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return next(itertools.islice(_records(file, delimiter), record, None))[0]


def _is_data(first: list[str], decimal: str) -> bool:
    """Whether a first line is data: all of it numbers or gaps, or a fraction among it, which is no name."""
    given = [_number(cell, decimal) for cell in first if cell.lower() not in _MISSING]
    return bool(given) and (None not in given or any(x is not None and x % 1 for x in given))


def _number(cell: str, decimal: str) -> float | None:
    try:
        return float(cell.replace(decimal, "."))
    except ValueError:
        return None


def _numeric(
    raw: pd.DataFrame, columns: Sequence[str] | None, decimal: str, place: Callable[[int], str], file: str
) -> pd.DataFrame:
    """The chosen columns as float64, every entry finite."""
    import pandas as pd

    for name in columns or ():
        if name not in raw.columns:
            raise InputError(f"{file} has no column {name!r}; it has {', '.join(raw.columns)}")
    if not len(raw):
        raise InputError(f"{file} has no rows")
    values = {name: _floats(raw[name], decimal) for name in columns or raw.columns}
    text = [name for name, x in values.items() if (np.isnan(x) & raw[name].notna()).sum() > raw[name].count() / 2]
    usable = [name for name in values if name and name not in text]
    hint = f"choose numeric columns with --columns {','.join(usable)}" if usable else "none of the columns is numeric"
    if text:
        named = ", ".join(map(repr, text))
        raise InputError(
            f"column {named} holds text; {hint}" if len(text) == 1 else f"columns {named} hold text; {hint}"
        )
    if "" in values:
        raise InputError(f"a column of {file} has no name, as where row numbers were saved with the table; {hint}")
    for name, x in values.items():
        bad = np.flatnonzero(~np.isfinite(x))
        if bad.size:
            cell = raw[name].iloc[bad[0]]
            fault = "the value is missing" if pd.isna(cell) else f"{str(cell)[:40]!r} is not a finite number"
            more = f" (and {bad.size - 1} more in this column)" if bad.size > 1 else ""
            raise InputError(f"{place(bad[0])}, column {name!r}: {fault}{more}; fill it in or leave the row out")
    return pd.DataFrame(values)


def _floats(column: pd.Series, decimal: str) -> np.ndarray:
    """The column as float64, NaN where it is no number."""
    import pandas as pd

    types = pd.api.types
    if types.is_numeric_dtype(column) and not types.is_bool_dtype(column) and not types.is_complex_dtype(column):
        return column.to_numpy(dtype=np.float64, na_value=math.nan)
    return pd.to_numeric(column.astype(str).str.replace(decimal, "."), errors="coerce").to_numpy(np.float64)
