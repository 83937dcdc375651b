"""Where tables come in: any table becomes checked float64 rows with named columns, or one clear error."""

from __future__ import annotations

import numbers
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property
from typing import Any

import numpy as np

from bayesgmm.errors import InputError
from bayesgmm.expectation import NO_LABELS, Rows, column_ranges
from bayesgmm.measurement import covariances_of, error_variances
from bayesgmm.patterns import Patterns

_RESOLUTION_ROWS = 10_000  # that are compared to see how finely a column is recorded
_LEAST_RANGE = 1e-12  # of a column over the size of its entries; below, float64 leaves too few digits


@dataclass(frozen=True, eq=False)
class Observations:
    """A checked table; `observations` makes it.

    Attributes
    ----------
    values : (N, D)
        float64, C-contiguous, read-only; NaN where a value is missing.
    features : tuple of D str
        Names of the columns; x0, x1, ... if the table has none.
    sample_weight : (N,) or (1,)
        Non-negative weights of the rows, read-only; a single one where every row counts once.
    named : bool
        Whether the names are the table's own.
    errors : (N or 1, D) or (N or 1, D, D), or None
        Variances or covariances of the errors of measurement; one of them where all rows share it.
    """

    values: np.ndarray
    features: tuple[str, ...]
    sample_weight: np.ndarray
    named: bool = False
    errors: np.ndarray | None = None

    @property
    def n_observations(self) -> int:
        """Number of rows N."""
        return self.values.shape[0]

    @property
    def n_features(self) -> int:
        """Number of columns D."""
        return self.values.shape[1]

    @cached_property
    def missing(self) -> np.ndarray:
        """Which values are missing, (N, D)."""
        return np.isnan(self.values)

    @cached_property
    def complete(self) -> bool:
        """Whether no value is missing."""
        return not np.isnan(column_ranges(self.values)[0]).any()

    @cached_property
    def patterns(self) -> Patterns | None:
        """The rows in groups that share their missing columns and errors; None where all values are known and exact."""
        if self.complete and self.errors is None:
            return None
        return Patterns.of(self.missing, None if self.errors is None else covariances_of(self.errors))

    @cached_property
    def empty(self) -> np.ndarray:
        """Positions of the rows without any value."""
        return np.empty(0, np.int64) if self.complete else np.flatnonzero(self.missing.all(axis=1))

    @cached_property
    def weight_of_rows(self) -> np.ndarray:
        """The weight of each row (N,), zero where it has no value."""
        weight = np.broadcast_to(self.sample_weight, self.n_observations)
        if len(self.empty):
            weight = weight.copy()
            weight[self.empty] = 0.0
        return weight

    @cached_property
    def total_weight(self) -> float:
        """Sum of the weights of the rows that have a value; without weights, their number."""
        return float(self.weight_of_rows.sum())

    @cached_property
    def resolution(self) -> np.ndarray:
        """Least difference (D,) between two values of a column: the step that measurements were rounded to, if any."""
        columns = (np.unique(x[~np.isnan(x)]) for x in self.values[:_RESOLUTION_ROWS].T)
        return np.array([np.diff(values).min() if values.size > 1 else 0.0 for values in columns])

    def missing_columns(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The missing columns of each group of rows that share them, and the rows' positions; not of empty rows."""
        patterns = Patterns.of(self.missing)
        for columns, n_observed, rows in zip(
            patterns.columns, patterns.n_observed, np.split(patterns.order, patterns.start[1:-1]), strict=True
        ):
            if n_observed < self.n_features:
                yield columns[n_observed:], rows

    def rows(
        self, center: np.ndarray, labels: np.ndarray | None = None, sample_weight: np.ndarray | None = None
    ) -> Rows:
        """The rows as the kernel reads them, with other weights than the table's where they are given."""
        weight = self.sample_weight if sample_weight is None else sample_weight
        return Rows(self.values, weight, NO_LABELS if labels is None else labels, center, self.patterns)

    def take(self, rows: np.ndarray, sample_weight: np.ndarray | None = None) -> Observations:
        """Some of the rows, by position or by a mask, with their weights or with others."""
        if sample_weight is None:
            sample_weight = self.sample_weight if self.sample_weight.size == 1 else self.sample_weight[rows]
        values, errors = self.values[rows], self.errors
        values.flags.writeable = False
        if errors is not None and len(errors) > 1:
            errors = errors[rows]
        return replace(self, values=values, sample_weight=sample_weight, errors=errors)


def observations(
    X: Any,
    sample_weight: Any = None,
    error_sd: Any = None,
    error_covariance: Any = None,
    may_be_constant: bool = False,
) -> Observations:
    """Check a table that is to be fitted.

    Its values must be finite numbers or missing, at least two rows must have some, and its columns must vary and differ
    from one another.

    Parameters
    ----------
    X : (N, D) table
        Array, nested lists, or a pandas, polars or Arrow table; or `Observations`, which are checked already.
    sample_weight : (N,), optional
        Non-negative weights of the rows.
    error_sd : (D,) or (N, D), optional
        Standard deviations of the errors that the values were measured with.
    error_covariance : (D, D) or (N, D, D), optional
        Their covariances, instead.
    may_be_constant : bool
        Whether columns need neither vary nor differ, for fits in which no component can collapse.

    Returns
    -------
    Observations

    Raises
    ------
    InputError
        Naming the row and the column.
    """
    table = any_rows(X, error_sd, error_covariance)
    n, d = table.values.shape
    if d == 0:
        raise InputError("the table has no columns; at least one numeric column is needed")
    if n == 0:
        raise InputError("the table is empty: it has no rows")
    if n == 1:
        raise InputError("the table has one row; no spread can be estimated from fewer than two")
    if sample_weight is not None:
        table = replace(table, sample_weight=_sample_weight(sample_weight, n))
    _check_columns(table, may_be_constant)
    return table


def any_rows(X: Any, error_sd: Any = None, error_covariance: Any = None) -> Observations:
    """Rows to evaluate a mixture at: finite numbers or missing, nothing else is asked of them.

    Raises
    ------
    InputError
        Naming the row and the column.
    """
    if isinstance(X, Observations):
        if error_sd is not None or error_covariance is not None:
            raise InputError("these rows have been checked with their errors already; give errors with a plain table")
        return X
    values, features = _values_and_names(X)
    weight = np.ones(1)
    weight.flags.writeable = False
    table = Observations(values, features, weight, names_of(X) is not None)
    if error_sd is None and error_covariance is None:
        return table
    return replace(table, errors=error_variances(error_sd, error_covariance, np.isnan(values), features))


def _check_columns(table: Observations, may_be_constant: bool) -> None:
    """Refuse columns from which no spread can be learnt, and those that say the same."""
    used, features = table.values, table.features
    if table.sample_weight.size > 1 and table.sample_weight.min() == 0:
        used = used[table.sample_weight > 0]
        if len(used) < 2:
            raise InputError("fewer than two rows have a positive sample_weight")
    low, high = column_ranges(np.ascontiguousarray(used))
    for j in np.flatnonzero(np.isnan(low)).tolist():
        known = used[~np.isnan(used[:, j]), j]
        if not known.size:
            raise InputError(f"column {features[j]!r} has no values; leave it out")
        low[j], high[j] = known.min(), known.max()
    if table.n_observations - len(table.empty) < 2:
        raise InputError("fewer than two rows have any value")
    for j in range(table.n_features):
        spread = float(high[j]) - float(low[j])
        if may_be_constant and spread < 1e100:
            continue
        if spread == 0:
            raise InputError(f"column {features[j]!r} is constant ({low[j]:g} in every row); leave it out")
        if not 1e-100 < spread < 1e100 or spread < _LEAST_RANGE * max(abs(low[j]), abs(high[j])):
            raise InputError(
                f"column {features[j]!r} spans {spread:g} around {low[j]:g}, beyond float64's resolution; rescale it, "
                "or subtract what all rows share before they become float64"
            )
    if not may_be_constant:
        _different_columns(used, features, low, high)


def _different_columns(values: np.ndarray, features: tuple[str, ...], low: np.ndarray, high: np.ndarray) -> None:
    """Refuse columns, with these least and largest entries, of which two are the same."""
    for j in range(1, len(features)):
        for i in range(j):
            if low[i] == low[j] and high[i] == high[j] and np.array_equal(values[:, i], values[:, j], equal_nan=True):
                raise InputError(f"columns {features[i]!r} and {features[j]!r} are identical; leave one out")


def names_of(X: Any) -> tuple[str, ...] | None:
    """Column names of a table that has some (pandas, polars, Arrow); None for an array."""
    if isinstance(X, Observations):
        return X.features if X.named else None
    names = getattr(X, "column_names", getattr(X, "columns", None))  # Arrow's columns are the values
    return None if names is None else tuple(str(name) for name in names)


def made_up_names(n: int) -> tuple[str, ...]:
    """Names for the columns of a table without names: x0, x1, ..."""
    return tuple(f"x{j}" for j in range(n))


def check_names(X: Any, fitted: tuple[str, ...] | None) -> None:
    """Refuse a table whose columns have other names than those that were fitted, or stand in another order.

    If either of them has no names, there is nothing to compare.

    Raises
    ------
    InputError
        With both lists of names.
    """
    names = names_of(X)
    if names is None or fitted is None or names == fitted:
        return
    if sorted(names) == sorted(fitted):
        raise InputError(
            f"the columns {list(names)} are in another order than those that were fitted; give X[{list(fitted)}]"
        )
    raise InputError(f"the columns {list(names)} are not those that were fitted, {list(fitted)}")


def numeric_table(X: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """Read-only float64 values (N, D) and column names of a table whose entries must all be finite numbers.

    Raises
    ------
    InputError
        Naming the row and the column of the first entry that is not a finite number.
    """
    values, names = _values_and_names(X)
    refuse_missing(values, names)
    return values, names


def refuse_missing(values: np.ndarray, names: tuple[str, ...]) -> None:
    """Refuse values (N, D) some of which are missing.

    Raises
    ------
    InputError
        Naming the row and the column of the first.
    """
    if values.size and np.isnan(column_ranges(values)[0]).any():
        raise _unusable(np.isnan(values), names, "missing or NaN")


def _values_and_names(X: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """Read-only float64 values (N, D), NaN where missing, and column names."""
    if isinstance(X, Observations):
        return X.values, X.features
    values, names = _from_array(X) if names_of(X) is None else _from_columns(X)
    values = np.ascontiguousarray(values).view()
    values.flags.writeable = False
    if values.size and np.isnan(column_ranges(values)[0]).any() and (infinite := np.isinf(values)).any():
        raise _unusable(infinite, tuple(names), "infinite")
    return values, tuple(names)


def _unusable(bad: np.ndarray, names: tuple[str, ...], kind: str) -> InputError:
    """The error for entries of a table that cannot be used, from which of them are bad (N, D)."""
    row, column = np.argwhere(bad)[0]
    others = int(bad.any(axis=1).sum()) - 1
    return InputError(
        f"row {row}, column {names[column]!r} is {kind}"
        + (f", and {others} more row{'s have' if others > 1 else ' has'} such entries" if others else "")
        + "; drop these rows or fill them in (rows count from 0)"
    )


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


def _sample_weight(sample_weight: Any, n: int) -> np.ndarray:
    try:
        weight = np.array(sample_weight, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError("sample_weight must hold one number per row") from error
    if weight.shape != (n,):
        raise InputError(f"sample_weight has shape {weight.shape}; one weight for each of the {n} rows is needed")
    wrong = np.flatnonzero(~(np.isfinite(weight) & (weight >= 0)))
    if wrong.size:
        raise InputError(f"sample_weight of row {wrong[0]} is {weight[wrong[0]]}; weights are finite and not negative")
    if not weight.any():
        raise InputError("every sample_weight is zero")
    weight.flags.writeable = False
    return weight


def positive_integer(value: Any, name: str, least: int = 1) -> int:
    """``value`` as an int of at least ``least``, or an `InputError` that names the argument."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise InputError(f"{name} must be a whole number of at least {least}, not {value!r}")
    return int(value)
