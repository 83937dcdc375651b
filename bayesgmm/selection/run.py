"""What the parts of one selection share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from bayesgmm.checkpoints import Checkpoints
from bayesgmm.em.grid import Grid
from bayesgmm.observations import Observations
from bayesgmm.progress import Progress


class Seeds(NamedTuple):
    """A seed for each part, so that one part draws the same whether or not another was asked for."""

    fits: int
    folds: int
    replicates: int
    overfitted: int
    posteriors: int

    @classmethod
    def of(cls, rng: Any) -> Seeds:
        """Seeds from a Generator, a seed or None."""
        return cls(*np.random.default_rng(rng).integers(2**63, size=5).tolist())


@dataclass(frozen=True, eq=False)
class Run:
    """A selection being made.

    Attributes
    ----------
    grid : Grid
        What to fit to it.
    criteria : tuple of str
    seeds : Seeds
    sampling : mapping
        Arguments of `sample_posterior`.
    checkpoints : Checkpoints
    progress : Progress
    """

    grid: Grid
    criteria: tuple[str, ...]
    seeds: Seeds
    sampling: Mapping[str, Any]
    checkpoints: Checkpoints
    progress: Progress

    @property
    def table(self) -> Observations:
        """The rows and their weights."""
        return self.grid.table
