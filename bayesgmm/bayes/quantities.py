"""The few numbers that describe a component or a cluster to a reader, for tables and pictures alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from bayesgmm.mixture import GaussianMixture


class Quantity(NamedTuple):
    """One number for each component.

    Attributes
    ----------
    name : {"weight", "mean", "sd", "correlation"}
    feature : str or None
        The feature that a mean or an sd is of.
    values : (..., K)
        With the batch shape of the mixture.
    """

    name: str
    feature: str | None
    values: np.ndarray


def quantities(mixture: GaussianMixture, features: Sequence[str], *, diagonal: bool) -> Iterator[Quantity]:
    """Weight, means and sds of each component, and for two features their correlation.

    Parameters
    ----------
    mixture : GaussianMixture
        One mixture, or a batch such as the posterior draws.
    features : sequence of str
        Names of the mixture's features; where they are fewer than it has, only the first ones are described.
    diagonal : bool
        Whether the covariance model has no correlations.

    Examples
    --------
    >>> mixture = GaussianMixture(weights=[0.5, 0.5], means=[[0.0], [4.0]], covariances=[[[1.0]], [[9.0]]])
    >>> [(name, feature, values.tolist()) for name, feature, values in quantities(mixture, ["x"], diagonal=False)]
    [('weight', None, [0.5, 0.5]), ('mean', 'x', [0.0, 4.0]), ('sd', 'x', [1.0, 3.0])]
    """
    sds = np.sqrt(np.einsum("...ii->...i", mixture.covariances))
    if mixture.n_components > 1:
        yield Quantity("weight", None, mixture.weights)
    for name, values in (("mean", mixture.means), ("sd", sds)):
        for j, feature in enumerate(features):
            yield Quantity(name, feature, values[..., j])
    if mixture.n_features == 2 and not diagonal:
        yield Quantity("correlation", None, mixture.covariances[..., 0, 1] / sds.prod(axis=-1))
