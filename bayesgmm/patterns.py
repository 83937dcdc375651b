"""Rows with missing values, or measured with errors, as the kernel reads them: in groups of equals, or alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from bayesgmm import native
from bayesgmm.measurement import covariances_of
from bayesgmm.native import address

LEAST_GROUP = 16  # rows that share missing columns and errors, from which on the kernel reads them together


@dataclass(frozen=True, eq=False)
class Patterns:
    """Which rows of a table share their missing columns and their errors.

    Attributes
    ----------
    order : (n_rows,)
        The rows that have a value, group after group; then the lone ones, those that miss most first.
    start : (n + 1,)
        Where each of the n groups begins in the order, and where the lone rows do.
    n_observed : (n,)
        How many columns have values.
    columns : (n, D)
        These columns, then the others, each ascending.
    row_errors : (N or 1, D) or (N or 1, D, D), or None
        Variances or covariances of the errors of the table's rows, or of all of them; None where values are exact.
    """

    order: np.ndarray
    start: np.ndarray
    n_observed: np.ndarray
    columns: np.ndarray
    row_errors: np.ndarray | None

    @classmethod
    def of_values(cls, values: np.ndarray) -> Patterns | None:
        """Those of values (N, D) that are exact where they are not missing, as NaN; None where none is missing."""
        missing = np.isnan(values)
        return cls.of(missing, least=LEAST_GROUP) if missing.any() else None

    @classmethod
    def of(cls, missing: np.ndarray, errors: np.ndarray | None = None, least: int = 1) -> Patterns:
        """Group the rows of a table.

        Parameters
        ----------
        missing : (N, D) bool
        errors : (N or 1, D) or (N or 1, D, D), optional
            Variances or covariances of the errors of each row's values, or of all rows'.
        least : int
            Rows that a group has; rows that fewer others equal are lone.
        """
        D, bits = missing.shape[1], bits_of(missing)
        lacking = bits.any(axis=1)
        whole = np.flatnonzero(~lacking)  # the first group, if there are enough, and nothing else sets them apart
        if len(whole) < least or (errors is not None and len(errors) > 1):
            whole, lacking[:] = whole[:0], True
        rows, alone = np.flatnonzero(lacking & (bits != bits_of(np.ones((1, D), np.bool_))).any(axis=1)), []
        group = np.zeros(len(rows), np.int64)  # of rows that may still have enough equals, which are `rows`
        for column in _columns(missing, bits, errors):
            group = _refined(group, column[rows])
            rare = np.bincount(group)[group] < least
            alone.append(rows[rare])
            rows, group = rows[~rare], group[~rare]
        size = np.bincount(group)
        order = rows[np.argsort(group.astype(np.min_scalar_type(size.size)), kind="stable")]  # small numbers sort fast
        size = np.append([len(whole)] if len(whole) else [], size[size > 0]).astype(np.int64)
        start, order = np.append(0, np.cumsum(size)), np.append(whole, order)
        first, lone = missing[order[start[:-1]]], np.sort(np.concatenate(alone))
        lone = lone[np.argsort(-missing[lone].sum(axis=1), kind="stable")]
        return cls(
            order=np.append(order, lone),
            start=start,
            n_observed=D - first.sum(axis=1),
            columns=np.argsort(first, axis=1, kind="stable"),
            row_errors=None if errors is None else np.ascontiguousarray(errors),
        )

    @property
    def n(self) -> int:
        """Number of groups."""
        return len(self.n_observed)

    @property
    def n_rows(self) -> int:
        """Number of rows that have a value."""
        return len(self.order)

    @cached_property
    def errors(self) -> np.ndarray | None:
        """Covariances (n, D, D) of the errors of each group's values; None where the values are exact."""
        return None if self.row_errors is None else covariances_of(self._errors_at(self.order[self.start[:-1]]))

    def group(self, g: int) -> tuple[np.ndarray, np.ndarray | None]:
        """The columns that rows of group g have values in, and the covariance (D, D) of these values' errors."""
        errors = None if self.row_errors is None else covariances_of(self._errors_at(self.order[self.start[[g]]]))[0]
        return self.columns[g, : self.n_observed[g]], errors

    def groups(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
        """Of each group the positions of its rows, the columns that have values, and the errors' covariance (D, D)."""
        for g, (start, stop) in enumerate(pairwise(self.start.tolist())):
            yield self.order[start:stop], *self.group(g)

    def _errors_at(self, rows: np.ndarray) -> np.ndarray:
        """Variances (n, D) or covariances (n, D, D) of the errors of some rows."""
        assert self.row_errors is not None
        return self.row_errors[rows if len(self.row_errors) > 1 else rows * 0]

    @cached_property
    def compiled(self) -> native.Patterns:
        """The groups as the compiled core takes them; valid as long as this value lives."""
        groups = (self.order, self.start, self.n_observed, self.columns)
        errors, row_errors = self.errors, self.row_errors
        return native.Patterns(
            *(self.columns.shape[1], self.n, self.n_rows),
            *(address(part, np.int64) for part in groups),
            *(None if part is None else address(part) for part in (errors, row_errors)),
            *((0, 0) if row_errors is None else (len(row_errors), row_errors.ndim == 3)),
        )


def bits_of(missing: np.ndarray) -> np.ndarray:
    """Which columns rows lack, (N, n): equal rows have equal numbers, and zeros where nothing is missing."""
    N, D = missing.shape
    width = 1 << (min(D, 57) - 1 >> 3).bit_length()  # bytes of a number
    padded = np.zeros((N, -(-D // (8 * width)) * 8 * width), np.bool_)
    padded[:, :D] = missing
    return np.packbits(padded).view(f"u{width}").reshape(N, -1)


def _columns(missing: np.ndarray, bits: np.ndarray, errors: np.ndarray | None) -> Iterator[np.ndarray]:
    """What the rows of a group agree in, column by column: which values they miss, and errors of the others."""
    D = missing.shape[1]
    yield from bits.T
    if errors is None or len(errors) == 1:
        return
    for j in range(D):
        if errors.ndim == 2:
            yield np.where(missing[:, j], 0.0, errors[:, j])
        else:
            yield from (np.where(missing[:, i] | missing[:, j], 0.0, errors[:, i, j]) for i in range(j + 1))


def _refined(group: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Groups of rows that share the group and the column's entry, numbered from 0 in the order of both."""
    entry = _numbered(column)
    return _numbered(group * (entry.max(initial=0) + 1) + entry) if group.any() else entry


def _numbered(entries: np.ndarray) -> np.ndarray:
    """Which of the different entries, in their order, each is."""
    if entries.dtype.kind == "u" and entries.itemsize <= 2:
        return (np.cumsum(np.bincount(entries) > 0) - 1)[entries]
    return np.unique(entries, return_inverse=True)[1]
