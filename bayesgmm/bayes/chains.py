"""`Chains`: draws of several chains in the density's coordinates, and how such draws are put together."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Chains(NamedTuple):
    """Coordinates (chain, draw, n), statistics (chain, draw) by name, and whether all draws asked for are there."""

    thetas: np.ndarray
    statistics: dict[str, np.ndarray]
    complete: bool = True

    @property
    def n_chains(self) -> int:
        """Number of chains."""
        return self.thetas.shape[0]

    @property
    def n_draws(self) -> int:
        """Number of draws of each chain."""
        return self.thetas.shape[1]

    def picked(self, index: Any) -> Chains:
        """The draws that an index of the axes chain and draw picks."""
        return Chains(self.thetas[index], {k: v[index] for k, v in self.statistics.items()}, self.complete)

    def then(self, later: Chains) -> Chains:
        """These draws and later ones of the same chains; without the later where not every chain has any."""
        if later.n_chains < self.n_chains:
            return self._replace(complete=False)
        return self.joined(later, axis=1)

    def beside(self, others: Chains) -> Chains:
        """These chains and others, cut to the length of the shortest."""
        length = min(self.n_draws, others.n_draws)
        return self.cut(length).joined(others.cut(length), axis=0)

    def cut(self, length: int) -> Chains:
        """The first draws of each chain."""
        return self.picked(np.s_[:, :length])

    def joined(self, other: Chains, axis: int) -> Chains:
        """These draws and others, put together along an axis."""
        shared = [name for name in self.statistics if name in other.statistics]
        statistics = {name: np.concatenate([self.statistics[name], other.statistics[name]], axis) for name in shared}
        return Chains(np.concatenate([self.thetas, other.thetas], axis), statistics, self.complete and other.complete)
