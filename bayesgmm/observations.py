"""Where tables come in: checked rows with their weights, missing values and errors, or one clear error."""

from __future__ import annotations

import numbers
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from bayesgmm.errors import InputError
from bayesgmm.expectation import NO_LABELS, Rows, column_ranges
from bayesgmm.measurement import error_variances
from bayesgmm.names import counted
from bayesgmm.noise import Noise, checked_noise
from bayesgmm.parts import Parts
from bayesgmm.patterns import LEAST_GROUP, Patterns
from bayesgmm.tables import names_of, values_and_names

_RESOLUTION_ROWS = 10_000  # that are compared to see how finely a column is recorded
_LEAST_RANGE = 1e-12  # of a column over the size of its entries; below, float64 leaves too few digits


@dataclass(frozen=True)
class Missing:
    """How much of a table is missing; `EMFit.missing` is one.

    Attributes
    ----------
    features : tuple of D str
    share : tuple of D float
        Share of each column's values that are missing.
    n_observations : int
        Rows of the table.
    n_rows : int
        Rows that lack a value.
    n_patterns : int
        Different sets of columns that rows with a value have values of.
    empty : tuple of int
        Positions of the rows without any value.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful().to_numpy(copy=True)
    >>> X[:68, 1] = float("nan")
    >>> print(bg.fit_em(X, 2, rng=0).missing)
    68 of 272 rows lack a value: x0 0 %, x1 25 % missing
    """

    features: tuple[str, ...]
    share: tuple[float, ...]
    n_observations: int
    n_rows: int
    n_patterns: int
    empty: tuple[int, ...]

    def __str__(self) -> str:
        if not self.n_rows:
            return "no value is missing"
        shares = (f"{name} {100 * share:.2g} %" for name, share in zip(self.features, self.share, strict=True))
        empty = f"; {counted(len(self.empty), 'row')} without any value" if len(self.empty) else ""
        return f"{self.n_rows} of {self.n_observations} rows lack a value: {', '.join(shares)} missing{empty}"


NOTHING_MISSING = Missing((), (), 0, 0, 1, ())


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
    noise : Noise or (N,), or None
        Where rows come from that belong to no cluster, or the log density of that at each row, in nats.
    """

    values: np.ndarray
    features: tuple[str, ...]
    sample_weight: np.ndarray
    named: bool = False
    errors: np.ndarray | None = None
    noise: Noise | np.ndarray | None = None

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
        """The rows as the kernel reads them, rare ones alone; None where all values are known and exact."""
        if self.complete and self.errors is None:
            return None
        return Patterns.of(self.missing, self.errors, LEAST_GROUP)

    @cached_property
    def groups(self) -> Patterns | None:
        """The rows in groups that share their missing columns and errors; None where all values are known and exact."""
        return None if self.patterns is None else Patterns.of(self.missing, self.errors)

    @cached_property
    def missing_patterns(self) -> Patterns:
        """The rows in groups that share their missing columns, whatever their errors."""
        return Patterns.of(self.missing)

    @cached_property
    def empty(self) -> np.ndarray:
        """Positions of the rows without any value."""
        return np.empty(0, np.int64) if self.complete else np.flatnonzero(self.missing.all(axis=1))

    def count_missing(self) -> Missing:
        """How much of the table is missing."""
        N, D = self.values.shape
        if self.complete:
            return Missing(self.features, (0.0,) * D, N, 0, 1, ())
        n_patterns, n_rows = self.missing_patterns.n, int(self.missing.any(axis=1).sum())
        share, empty = self.missing.mean(axis=0).tolist(), self.empty.tolist()
        return Missing(self.features, tuple(share), N, n_rows, n_patterns, tuple(empty))

    @cached_property
    def least_errors(self) -> np.ndarray | None:
        """A variance (D,) that all errors of each column have at least; None where there are no errors."""
        if self.errors is None:
            return None
        if self.errors.ndim == 3:
            return np.full(self.n_features, max(float(np.linalg.eigvalsh(self.errors)[..., 0].min()), 0.0))
        return np.where(self.missing, np.inf, self.errors).min(axis=0)

    @cached_property
    def mean_error(self) -> np.ndarray:
        """Covariance (D, D) of the errors, on average over the rows that have values; zero without errors."""
        if self.errors is None:
            return np.zeros((self.n_features, self.n_features))
        known = ~self.missing
        if self.errors.ndim == 2:
            return np.diag((self.errors * known).sum(axis=0) / known.sum(axis=0))
        pairs = np.maximum(known.T.astype(float) @ known, 1.0)
        if len(self.errors) == 1:
            return self.errors[0]
        return (self.errors * (known[:, :, None] & known[:, None, :])).sum(axis=0) / pairs

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
    def noise_density(self) -> np.ndarray | None:
        """Log density of the noise at each row (N,), in nats; None where there is no noise."""
        return self.noise.log_density(self.values) if isinstance(self.noise, Noise) else self.noise

    @cached_property
    def resolution(self) -> np.ndarray:
        """Least difference (D,) between two values of a column: the step that measurements were rounded to, if any."""
        columns = (np.unique(x[~np.isnan(x)]) for x in self.values[:_RESOLUTION_ROWS].T)
        return np.array([np.diff(values).min() if values.size > 1 else 0.0 for values in columns])

    def missing_columns(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The missing columns of each group of rows that share them, and the rows' positions; not of empty rows."""
        for rows, columns, _ in self.missing_patterns.groups():
            if len(columns) < self.n_features:
                yield np.setdiff1d(np.arange(self.n_features), columns), rows

    def rows(
        self, center: np.ndarray, labels: np.ndarray | None = None, sample_weight: np.ndarray | None = None
    ) -> Rows:
        """The rows as the kernel reads them, with other weights than the table's where they are given."""
        weight = self.sample_weight if sample_weight is None else sample_weight
        labels = NO_LABELS if labels is None else labels
        return Rows(self.values, weight, labels, center, self.patterns, self.noise_density)

    def take(self, rows: np.ndarray, sample_weight: np.ndarray | None = None) -> Observations:
        """Some of the rows, by position or by a mask, with their weights or with others."""
        if sample_weight is None:
            sample_weight = self.sample_weight if self.sample_weight.size == 1 else self.sample_weight[rows]
        values, errors = self.values[rows], self.errors
        values.flags.writeable = False
        if errors is not None and len(errors) > 1:
            errors = errors[rows]
        noise = self.noise[rows] if isinstance(self.noise, np.ndarray) else self.noise
        return replace(self, values=values, sample_weight=sample_weight, errors=errors, noise=noise)


def observations(
    X: Any,
    sample_weight: Any = None,
    error_sd: Any = None,
    error_covariance: Any = None,
    noise: Any = None,
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
    noise : bool, Noise or (N,), optional
        Where rows come from that belong to no cluster, or the log density of that at each row.
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
    low, high = _check_columns(table, may_be_constant)
    if (of_rows := checked_noise(noise, n)) is not None:
        table = replace(table, noise=of_rows.within(low, high) if isinstance(of_rows, Noise) else of_rows)
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


def measured(
    values: np.ndarray, columns: np.ndarray, errors: np.ndarray | None, rng: np.random.Generator
) -> Observations:
    """Rows as they would be in a table that has values in these columns only, with errors of the covariance (D, D)."""
    seen = np.full_like(values, np.nan)
    seen[:, columns] = values[:, columns]
    if errors is None:
        return any_rows(seen)
    seen += rng.multivariate_normal(np.zeros(len(errors)), errors, len(seen), method="eigh")
    return any_rows(seen, error_covariance=errors)


def _check_columns(table: Observations, may_be_constant: bool) -> tuple[np.ndarray, np.ndarray]:
    """The columns' least and largest values; columns that teach no spread, or that say the same, are refused."""
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
    return low, high


def _different_columns(values: np.ndarray, features: tuple[str, ...], low: np.ndarray, high: np.ndarray) -> None:
    """Refuse columns, with these least and largest entries, of which two are the same."""
    for j in range(1, len(features)):
        for i in range(j):
            if low[i] == low[j] and high[i] == high[j] and np.array_equal(values[:, i], values[:, j], equal_nan=True):
                raise InputError(f"columns {features[i]!r} and {features[j]!r} are identical; leave one out")


def check_names(X: Any, fitted: tuple[str, ...] | None) -> None:
    """Refuse a table whose columns have other names than those that were fitted, or stand in another order.

    If either of them has no names, there is nothing to compare.

    Raises
    ------
    InputError
        With both lists of names.
    """
    names = (X.features if X.named else None) if isinstance(X, Observations | Parts) else names_of(X)
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
    values, names = values_and_names(X)
    values = np.ascontiguousarray(values).view()
    values.flags.writeable = False
    if values.size and np.isnan(column_ranges(values)[0]).any() and (infinite := np.isinf(values)).any():
        raise _unusable(infinite, names, "infinite")
    return values, names


def _unusable(bad: np.ndarray, names: tuple[str, ...], kind: str) -> InputError:
    """The error for entries of a table that cannot be used, from which of them are bad (N, D)."""
    row, column = np.argwhere(bad)[0]
    others = int(bad.any(axis=1).sum()) - 1
    return InputError(
        f"row {row}, column {names[column]!r} is {kind}"
        + (f", and {others} more row{'s have' if others > 1 else ' has'} such entries" if others else "")
        + "; drop these rows or fill them in (rows count from 0)"
    )


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
