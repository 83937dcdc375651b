"""What pictures read from a posterior, and the colours of the clusters of a partition."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from bayesgmm.bayes.relabel import mixture_of
from bayesgmm.bayes.tree import as_mixture
from bayesgmm.clusters.partition import Partition
from bayesgmm.covariance import CovarianceModel
from bayesgmm.mixture import GaussianMixture


class Source(NamedTuple):
    """A posterior as pictures need it: its draws (chain, draw), and the rows and the EM fit that it belongs to."""

    draws: GaussianMixture
    rows: np.ndarray
    features: tuple[str, ...]
    em: GaussianMixture
    covariance_model: CovarianceModel


def read(posterior: Any) -> Source:
    """The draws of a posterior, made once for each picture."""
    return Source(
        draws=as_mixture(posterior),
        rows=np.asarray(posterior["observed_data"]["observations"]),
        features=tuple(map(str, posterior["posterior"]["feature"].values)),
        em=mixture_of(posterior["em"].to_dataset()),
        covariance_model=CovarianceModel.named(posterior["em"].attrs["covariance_model"]),
    )


def thinned(draws: GaussianMixture, n: int) -> GaussianMixture:
    """About n of the draws (chain, draw), spread evenly over all chains, with batch shape (n,)."""
    flat = draws.reshape(-1)
    (total,) = flat.batch_shape
    return flat[np.linspace(0, total - 1, min(n, total)).astype(int)]


def color_indices(partition: Partition | None, n_components: int) -> Sequence[int]:
    """The index of each group's colour: a cluster has that of the component it matches, or one that is free."""
    if partition is None:
        return range(n_components)
    components = partition.components.tolist()
    free = (index for index in count() if index not in components)
    return [index if index >= 0 else next(free) for index in components]
