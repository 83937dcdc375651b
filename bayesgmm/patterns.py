"""Rows with missing values, or measured with errors, in groups that the kernel reads as complete rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from bayesgmm import native
from bayesgmm.native import address


@dataclass(frozen=True, eq=False)
class Patterns:
    """Which rows of a table share their missing columns and their errors.

    Attributes
    ----------
    order : (n_rows,)
        The rows that have a value, group after group.
    start : (n + 1,)
        Where each of the n groups begins in the order.
    n_observed : (n,)
        How many columns have values.
    columns : (n, D)
        These columns, then the others, each ascending.
    errors : (n, D, D) or None
        Covariances of the errors of each group's values; None where the values are exact.
    """

    order: np.ndarray
    start: np.ndarray
    n_observed: np.ndarray
    columns: np.ndarray
    errors: np.ndarray | None

    @classmethod
    def of(cls, missing: np.ndarray, errors: np.ndarray | None = None) -> Patterns:
        """Group the rows of a table.

        Parameters
        ----------
        missing : (N, D) bool
        errors : (N or 1, D, D), optional
            Covariances of the errors of each row's values, or of all rows'.
        """
        N, D = missing.shape
        keys = np.packbits(missing, axis=1)
        if errors is not None and len(errors) > 1:
            seen = errors * ~(missing[:, :, None] | missing[:, None, :])
            keys = np.concatenate((keys, np.ascontiguousarray(seen).reshape(N, -1).view(np.uint8)), axis=1)
        words = np.ascontiguousarray(keys).view(np.dtype((np.void, keys.shape[1]))).ravel()
        _, first, group, size = np.unique(words, return_index=True, return_inverse=True, return_counts=True)
        n_observed = D - missing[first].sum(axis=1)
        filled = n_observed > 0
        order = np.argsort(group, kind="stable")
        if not filled.all():
            order = order[filled[group[order]]]
            first, size, n_observed = first[filled], size[filled], n_observed[filled]
        return cls(
            order=np.ascontiguousarray(order, dtype=np.int64),
            start=np.concatenate(([0], np.cumsum(size))).astype(np.int64),
            n_observed=n_observed.astype(np.int64),
            columns=np.argsort(missing[first], axis=1, kind="stable").astype(np.int64),
            errors=None if errors is None else np.ascontiguousarray(errors[first if len(errors) > 1 else first * 0]),
        )

    @property
    def n(self) -> int:
        """Number of groups."""
        return len(self.n_observed)

    @property
    def n_rows(self) -> int:
        """Number of rows that have a value."""
        return len(self.order)

    def groups(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
        """Of each group the positions of its rows, the columns that have values, and the errors' covariances (D, D)."""
        for g, (start, stop) in enumerate(pairwise(self.start.tolist())):
            errors = None if self.errors is None else self.errors[g]
            yield self.order[start:stop], self.columns[g, : self.n_observed[g]], errors

    @cached_property
    def compiled(self) -> native.Patterns:
        """The groups as the compiled core takes them; valid as long as this value lives."""
        groups = (self.order, self.start, self.n_observed, self.columns)
        errors = None if self.errors is None else address(self.errors)
        return native.Patterns(self.columns.shape[1], self.n, *(address(part, np.int64) for part in groups), errors)
