"""What pictures read from a posterior."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from bayesgmm.bayes.relabel import mixture_of
from bayesgmm.bayes.tree import as_mixture
from bayesgmm.mixture import GaussianMixture
from bayesgmm.observations import made_up_names


@dataclass(frozen=True, eq=False)
class Source:
    """A posterior as pictures need it. The draws are made once for each picture, the rest only where it is shown."""

    tree: Any

    @cached_property
    def draws(self) -> GaussianMixture:
        """Of batch shape (chain, draw)."""
        return as_mixture(self.tree)

    @property
    def rows(self) -> np.ndarray:
        """The table (N, D) that was fitted."""
        return np.asarray(self.tree["observed_data"]["observations"])

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the table's columns."""
        return self.draws.features or made_up_names(self.draws.n_features)

    @property
    def em(self) -> GaussianMixture | None:
        """The mixture that EM fitted; None for draws from elsewhere."""
        return mixture_of(self.tree["em"].to_dataset()) if "em" in self.tree.children else None

    @property
    def diagonal(self) -> bool:
        """Whether the covariance model has no correlations."""
        return not np.triu(self.draws.covariances[0, 0], 1).any()


def thinned(draws: GaussianMixture, n: int) -> GaussianMixture:
    """About n of the draws (chain, draw), spread evenly over all chains, with batch shape (n,)."""
    flat = draws.reshape(-1)
    (total,) = flat.batch_shape
    return flat[np.linspace(0, total - 1, min(n, total)).astype(int)]
