"""Pareto-smoothed importance sampling of many rows at once: ArviZ's numbers, compiled (`src/psis.cpp`)."""

from __future__ import annotations

import numpy as np

from bayesgmm import native
from bayesgmm.expectation import in_threads
from bayesgmm.native import address

_ROWS = 64  # that a thread takes at a time


def good_pareto_k(n_draws: int) -> float:
    """Pareto k up to which so many draws will do (Vehtari et al. 2024)."""
    return float(min(1 - 1 / np.log10(n_draws), 0.7))


def smoothed_loo(log_lik: np.ndarray, efficiency: float) -> np.ndarray:
    """Leave-one-out log predictive density, Pareto k and effective number of parameters of each row, (3, N).

    Parameters
    ----------
    log_lik : (N, draws)
        Log densities of the rows under each posterior draw, nats.
    efficiency : float
        Effective draws per draw.

    Notes
    -----
    Vehtari et al. (2024), with the choices of ``arviz.loo``: the tail are the 3 sqrt(draws / efficiency) largest
    ratios, or a fifth of them where there are no more than 225 effective draws.
    """
    N, S = log_lik.shape
    n_tail = int(3 * (S / efficiency) ** 0.5 if S * efficiency > 225 else S / 5)
    log_lik, out = np.ascontiguousarray(log_lik), np.empty((3, N))
    of, to = address(log_lik), address(out)
    ranges = [(a, min(a + _ROWS, N)) for a in range(0, N, _ROWS)]
    in_threads(lambda rows: native.psis(of, N, S, min(max(n_tail, 1), S - 1), *rows, to), ranges)
    return out
