"""Giving the components of every posterior draw the numbers of the EM fit's."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bayesgmm.alignment import cheapest_order, divergence
from bayesgmm.mixture import GaussianMixture


class Relabelling(NamedTuple):
    """Relabelled draws and how the labels behaved."""

    mixture: GaussianMixture
    order: np.ndarray  # (..., K): component k was order[..., k]
    switch_rate: float  # share of draws in which a component changed its number against the chain's first draw
    ambiguous: float  # share of draws in which some component was nearest to two of the fit's


def relabel(draws: GaussianMixture, target: GaussianMixture) -> Relabelling:
    """Permute each draw so that its components are matched to the target's with the least total divergence."""
    cost = divergence(draws, target)
    order = cheapest_order(cost)
    nearest = np.sort(cost.argmin(axis=-2), axis=-1)
    ambiguous = (nearest != np.arange(draws.n_components)).any(axis=-1).mean()
    switched = (order != order[..., :1, :]).any(axis=-1).mean()
    moved = order != np.arange(draws.n_components)
    return Relabelling(draws.permute(order) if moved.any() else draws, order, float(switched), float(ambiguous))
