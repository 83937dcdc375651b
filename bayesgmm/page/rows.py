"""Which rows of a table a page draws and lists, and what it tells of them, as columns for JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from bayesgmm.clusters.assignment import Assignments

MOST_DRAWN, MOST_LISTED = 5000, 2000
_LEAST_CERTAIN = 500  # of those that are drawn; the others are spread evenly over the table
_CELLS = 60_000  # values of features that a page carries
_MOST_FEATURES = 40  # to pick from
_STEP = 1e-3  # of probabilities


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows and what they belong to.

    Attributes
    ----------
    values : (N, D)
        NaN where a cell is missing.
    labels : (N,)
    probability : (N,)
        Of the label.
    lower, upper : (N,) or None
        Its interval, where there are draws.
    rival : (N,)
        The likeliest other group; -1 where there is only one.
    rival_probability : (N,)
    ids : sequence of N str, or None
        What the rows are called.
    """

    values: np.ndarray
    labels: np.ndarray
    probability: np.ndarray
    lower: np.ndarray | None
    upper: np.ndarray | None
    rival: np.ndarray
    rival_probability: np.ndarray
    ids: Sequence[str] | None = None

    @classmethod
    def assigned(cls, values: np.ndarray, a: Assignments, ids: Sequence[str] | None = None) -> Rows:
        """Rows with their posterior assignment."""
        rival = _rivals(a.probabilities, a.labels)
        return cls(values, a.labels, a.label_probability, a.label_lower, a.label_upper, *rival, ids)

    @classmethod
    def fitted(cls, values: np.ndarray, responsibilities: np.ndarray, ids: Sequence[str] | None = None) -> Rows:
        """Rows with the responsibilities (N, K) of an EM fit, which knows of no interval."""
        labels = responsibilities.argmax(axis=1)
        rival = _rivals(responsibilities, labels)
        return cls(values, labels, responsibilities.max(axis=1), None, None, *rival, ids)

    @cached_property
    def drawn(self) -> np.ndarray:
        """Positions of the rows to draw, ascending: the least certain, and others evenly over the table."""
        N = len(self.labels)
        if N <= MOST_DRAWN:
            return np.arange(N)
        least = self.listed[:_LEAST_CERTAIN]
        others = np.delete(np.arange(N), least)
        some = others[np.linspace(0, len(others) - 1, MOST_DRAWN - len(least)).astype(int)]
        return np.sort(np.concatenate([least, some]))

    @cached_property
    def listed(self) -> np.ndarray:
        """Positions of the rows to list, the least certain first."""
        return np.argsort(self.probability, kind="stable")[:MOST_LISTED]

    @property
    def n_features_shown(self) -> int:
        """How many features' values fit into the page, at least two."""
        carried = len(np.union1d(self.drawn, self.listed))
        return min(self.values.shape[1], max(_CELLS // carried, 2), _MOST_FEATURES)

    def columns(self, features: Sequence[int]) -> dict[str, list[Any]]:
        """What the page is told of each row that it draws or lists, by column.

        Parameters
        ----------
        features : sequence of int
            Positions of the features whose values to tell, as columns ``x0``, ``x1``, ....
        """
        drawn = self.drawn
        some = np.union1d(drawn, self.listed)
        columns: dict[str, list[Any]] = {"row": some.tolist(), "group": self.labels[some].tolist()}
        if self.ids is not None:
            columns["id"] = [str(self.ids[i]) for i in some]
        columns |= {f"x{i}": _rounded(self.values[some, j]) for i, j in enumerate(features)}
        columns["p"] = _rounded(self.probability[some], _STEP)
        if self.lower is not None and self.upper is not None:
            columns |= {"lower": _rounded(self.lower[some], _STEP), "upper": _rounded(self.upper[some], _STEP)}
        columns |= {"rival": self.rival[some].tolist(), "q": _rounded(self.rival_probability[some], _STEP)}
        if len(drawn) < len(some):
            columns["drawn"] = np.isin(some, drawn).astype(int).tolist()
        return columns


def _rivals(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest group of each row other than its own, and its probability."""
    if probabilities.shape[1] == 1:
        return np.full(len(labels), -1), np.zeros(len(labels))
    others = probabilities.copy()
    np.put_along_axis(others, labels[:, None], -1.0, axis=1)
    rival = others.argmax(axis=1)
    return rival, np.take_along_axis(others, rival[:, None], axis=1)[:, 0]


def _rounded(values: np.ndarray, step: float | None = None) -> list[float]:
    """The values to about a step, by default a ten-thousandth of their spread: a page need not tell more."""
    if step is None:
        finite = values[np.isfinite(values)]
        spread = float(np.ptp(finite)) if len(finite) else 0.0
        step = spread / 1e4 if spread > 0 else float(np.abs(finite).max(initial=1.0)) / 1e9
    decimals = round(-math.log10(step))
    rounded = np.round(values, decimals)
    whole = decimals <= 0 and np.isfinite(rounded).all() and (np.abs(rounded) < 2**53).all()
    return rounded.astype(np.int64).tolist() if whole else rounded.tolist()
