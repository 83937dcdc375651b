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
        -1 where a row is more probably noise than of any group.
    probability : (N,)
        Of the label.
    lower, upper : (N,) or None
        Its interval, where there are draws.
    rival : (N,)
        The likeliest other group, -1 for noise; None where there is nothing else to belong to.
    rival_probability : (N,)
    ids : sequence of N str, or None
        What the rows are called.
    """

    values: np.ndarray
    labels: np.ndarray
    probability: np.ndarray
    lower: np.ndarray | None
    upper: np.ndarray | None
    rival: np.ndarray | None
    rival_probability: np.ndarray | None
    ids: Sequence[str] | None = None

    @classmethod
    def assigned(cls, values: np.ndarray, a: Assignments, ids: Sequence[str] | None = None) -> Rows:
        """Rows with their posterior assignment."""
        rival, q = _rivals(a.probabilities, a.noise, a.labels)
        return cls(values, a.labels, a.label_probability, a.label_lower, a.label_upper, rival, q, ids)

    @classmethod
    def fitted(
        cls,
        values: np.ndarray,
        responsibilities: np.ndarray,
        noise: np.ndarray | None = None,
        ids: Sequence[str] | None = None,
    ) -> Rows:
        """Rows with the responsibilities (N, K) of an EM fit, and of its noise; it knows of no interval."""
        everything = _with_noise(responsibilities, noise)
        labels = everything.argmax(axis=1)
        labels[labels == responsibilities.shape[1]] = -1
        rival, q = _rivals(responsibilities, noise, labels)
        return cls(values, labels, everything.max(axis=1), None, None, rival, q, ids)

    def sizes(self, n_groups: int) -> list[int]:
        """How many rows belong to each group."""
        return [int((self.labels == k).sum()) for k in range(n_groups)]

    @property
    def n_noise(self) -> int:
        """How many rows are more probably noise than of any group."""
        return int((self.labels < 0).sum())

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
        if self.rival is not None and self.rival_probability is not None:
            columns |= {"rival": self.rival[some].tolist(), "q": _rounded(self.rival_probability[some], _STEP)}
        if len(drawn) < len(some):
            columns["drawn"] = np.isin(some, drawn).astype(int).tolist()
        return columns


def _with_noise(probabilities: np.ndarray, noise: np.ndarray | None) -> np.ndarray:
    """The probabilities of all groups, and in the last column, that of label -1, of noise if there is any."""
    return probabilities if noise is None else np.column_stack((probabilities, noise))


def _rivals(
    probabilities: np.ndarray, noise: np.ndarray | None, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
    """What else each row most probably belongs to, and its probability; None where there is nothing else."""
    others = _with_noise(probabilities, noise).copy()
    if others.shape[1] == 1:
        return None, None
    others[np.arange(len(labels)), labels] = -1.0
    rival = others.argmax(axis=1)
    return np.where(rival < probabilities.shape[1], rival, -1), others.max(axis=1)


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
