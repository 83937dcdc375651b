"""Errors of means of draws, and whether chains agree about them: ArviZ's estimates for arrays (chain, draw)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from arviz_stats.base.array import array_stats

LARGEST_R_HAT = 1.05  # that chains may have in what is averaged over them


def mean_error(values: np.ndarray) -> float:
    """Monte Carlo standard error of the mean of (chain, draw) values."""
    return float(array_stats.mcse(values, chain_axis=0, draw_axis=1, method="mean"))


def r_hat(values: np.ndarray) -> float:
    """R-hat of (chain, draw) values."""
    return float(array_stats.rhat(values, chain_axis=0, draw_axis=1))


def sum_error(parts: Iterable[np.ndarray]) -> float:
    """Monte Carlo standard error of the sum of all parts, (chain, draw) each."""
    return float(np.sqrt(sum((mean_error(part) * part.size) ** 2 for part in parts)))
