"""Any table becomes float64 values with named columns, or one clear error."""

from __future__ import annotations

import numbers
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np

from bayesgmm.errors import InputError
from bayesgmm.names import counted


def values_and_names(X: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """Values (N, D) of a table, NaN where they are missing, and the names of its columns.

    Raises
    ------
    InputError
        Naming what is no table, or the column and row that hold no numbers.
    """
    values, names = _from_array(X) if names_of(X) is None else _from_columns(X)
    return values, tuple(names)


class StandIn(NamedTuple):
    """A value such as -999, far from all others of its column, that may stand for a missing one.

    Attributes
    ----------
    feature : str
    value : float
    n_rows : int
        How many rows have it.
    low, high : float
        Least and largest of the column's other values.
    """

    feature: str
    value: float
    n_rows: int
    low: float
    high: float

    def __str__(self) -> str:
        here = f"column {self.feature!r} is {self.value:g} in {counted(self.n_rows, 'row')}"
        return f"{here} and between {self.low:g} and {self.high:g} in all others"


def stand_ins(values: np.ndarray, features: Sequence[str]) -> tuple[StandIn, ...]:
    """Values (N, D) written with nines alone that lie farther from their column's others than these from each other."""
    if not len(values):
        return ()
    found, lowest, highest = [], np.fmin.reduce(values, axis=0), np.fmax.reduce(values, axis=0)
    for name, column, *ends in zip(features, values.T, lowest, highest, strict=True):
        for value in dict.fromkeys(ends):
            digits = f"{abs(value):g}"
            if len(digits) == 1 or set(digits) != {"9"}:
                continue
            known = column[~np.isnan(column)]
            rest = known[known != value]
            if len(np.unique(rest[:1000])) > 1:
                low, high = float(rest.min()), float(rest.max())
                if min(abs(value - low), abs(value - high)) > 2 * (high - low):
                    found.append(StandIn(name, float(value), len(known) - len(rest), low, high))
    return tuple(found)


def names_of(X: Any) -> tuple[str, ...] | None:
    """Column names of a table that has some (pandas, polars, Arrow); None for an array."""
    names = getattr(X, "column_names", getattr(X, "columns", None))  # Arrow's columns are the values
    return None if names is None else tuple(str(name) for name in names)


def made_up_names(n: int) -> tuple[str, ...]:
    """Names for the columns of a table without names: x0, x1, ..."""
    return tuple(f"x{j}" for j in range(n))


def _from_columns(X: Any) -> tuple[np.ndarray, list[str]]:
    """Values and names of a table whose columns have names."""
    names = list(names_of(X) or ())
    repeated = [name for i, name in enumerate(names) if name in names[:i]]
    if repeated:
        raise InputError(f"two columns are called {repeated[0]!r}; rename one")
    keys = names if hasattr(X, "column_names") else list(X.columns)
    columns, problems = [], {}
    for key, name in zip(keys, names, strict=True):
        try:
            columns.append(_float_column(np.ma.asarray(np.asarray(X[key])), name))
        except InputError as error:
            problems[name] = str(error)
    if problems:
        first, *others = problems
        unusable_too = f" (nor can {', '.join(map(repr, others))} be used)" if others else ""
        raise InputError(problems[first] + unusable_too)
    return (np.stack(columns, axis=1) if columns else np.empty((len(X), 0))), names


def _from_array(X: Any) -> tuple[np.ndarray, list[str]]:
    """Values of an array, or of what can become one, with made-up names of its columns."""
    try:
        raw = X if isinstance(X, np.ma.MaskedArray) else np.asarray(X)
    except ValueError as error:
        if isinstance(X, (list, tuple)):
            lengths = [len(row) if hasattr(row, "__len__") else 1 for row in X]
            other = next((i for i, length in enumerate(lengths) if length != lengths[0]), 0)
            detail = f"row 0 has {lengths[0]} entries, row {other} has {lengths[other]}" if other else str(error)
            raise InputError(f"the rows of the table differ in length: {detail}") from error
        raise _no_table(X, str(error)) from error
    except Exception as error:  # whatever an __array__ raises
        raise _no_table(X, str(error)) from error
    if raw.dtype.names is not None or raw.ndim == 0 or (raw.ndim == 1 and raw.size and raw.dtype.kind == "O"):
        raise _no_table(X)
    if raw.ndim == 1:
        if not raw.size:
            raise InputError("the table is empty: it has no rows")
        raise InputError(
            "a table has two dimensions, this array has one; for one feature use X.reshape(-1, 1) "
            "(a pandas Series: .to_frame()), for one row X.reshape(1, -1)"
        )
    if raw.ndim != 2:
        raise InputError(f"a table has two dimensions, rows by columns; this array has {raw.ndim}")
    names = list(made_up_names(raw.shape[1]))
    if raw.dtype.kind in "fiub" and not isinstance(raw, np.ma.MaskedArray):
        return np.asarray(raw).astype(np.float64, copy=False), names
    columns = [_float_column(raw[:, j], name) for j, name in enumerate(names)]
    return (np.stack(columns, axis=1) if columns else np.empty(raw.shape)), names


def _no_table(X: Any, reason: str = "") -> InputError:
    """The error for something that is not a table: what type it has, and how to make a table of it."""
    first = X[0] if isinstance(X, (list, tuple)) and X else X
    if X is None or isinstance(X, numbers.Number):
        cure = ""
    elif hasattr(X, "nnz") and hasattr(X, "toarray"):
        cure = "; it is sparse: give X.toarray()"
    elif hasattr(X, "fold"):
        cure = "; this one is in parts: bg.random_rows(X, 2000) draws some of its rows, bg.assign_to_files labels all"
    elif isinstance(X, (str, bytes, os.PathLike)):
        cure = "; read the file first, as with pandas.read_csv(X)"
    elif isinstance(first, Mapping) or getattr(getattr(X, "dtype", None), "names", None) is not None:
        cure = "; give pandas.DataFrame(X)"
    elif isinstance(first, Iterator):
        cure = "; give list(X)" if first is X else "; give [list(row) for row in X]"
    elif isinstance(X, Iterable) and not isinstance(X, (list, tuple)) and not hasattr(X, "__array__"):
        cure = "; give a list of rows, an array or a DataFrame"
    else:
        cure = "; give an array or a DataFrame"
    kind = type(X).__name__ + (f" of {type(first).__name__}" if first is not X else "")
    what = "not None" if X is None else f"not a value of type {kind}"
    reason = f" ({' '.join(reason.split())})" if reason else ""
    return InputError(f"a table of numbers, rows by columns, is needed, {what}{reason}{cure}")


def _float_column(column: np.ndarray, name: str) -> np.ndarray:
    """One column as float64, NaN where masked or None."""
    kind = column.dtype.kind
    if kind in "fiub":
        return np.ma.filled(np.ma.asarray(column, dtype=np.float64), np.nan)
    if kind == "c":
        raise InputError(f"column {name!r} holds complex numbers; Gaussian mixtures need real ones")
    if kind in "mM":
        raise InputError(f"column {name!r} holds dates or times; convert it to numbers first")
    out = np.empty(len(column))
    for row, entry in enumerate(column.tolist()):
        if entry is None or type(entry).__name__ in ("NAType", "NaTType"):
            out[row] = np.nan
        elif isinstance(entry, (numbers.Real, Decimal)):
            out[row] = float(entry)
        else:
            raise InputError(
                f"column {name!r} holds text or objects (row {row}: {str(entry)[:40]!r}); "
                "convert it to numbers or leave it out"
            )
    return out
