"""How many of too many components hold rows: Gibbs sampling of the assignments under sparse weights, compiled.

The sweeps are those of `gibbs`. The concentration has the exponential prior of rate 20 of sparse finite mixtures
(Malsiner-Walli, Frühwirth-Schnatter & Grün 2016).

References
----------
Malsiner-Walli, G., Frühwirth-Schnatter, S., & Grün, B. (2016). Model-based clustering based on sparse finite Gaussian
mixtures. Statistics and Computing, 26, 303-324. https://doi.org/10.1007/s11222-014-9500-2
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bayesgmm.bayes.gibbs import AssignmentChains, Kept
from bayesgmm.bayes.priors.joint import Priors
from bayesgmm.covariance import CovarianceModel

CONCENTRATION_RATE = 20.0  # of the exponential prior of the concentration
_AT_ONCE = 50  # draws between which a run can be interrupted


def filled_draws(
    X: Any,
    priors: Priors,
    model: CovarianceModel,
    labels: np.ndarray,
    means: np.ndarray,
    rng: np.random.Generator,
    *,
    draws: int,
    tune: int,
    thin: int = 1,
    concentration: float = 1 / CONCENTRATION_RATE,
    scale_matrix: np.ndarray | None = None,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Number of filled components, and the concentration, (chains, draws) each.

    Parameters
    ----------
    X : (N, D) table
    priors : Priors
        Of means and covariances (`InverseWishart` or `HierarchicalInverseWishart`).
    model : CovarianceModel
        One of `gibbs.MODELS`.
    labels : (chains, N)
        Assignments to start from.
    means : (chains, K, D)
        Means to start from.
    rng : Generator
    draws, tune : int
        To keep and to leave out, each of ``thin`` sweeps.
    concentration : float
        To start from.
    scale_matrix : (D, D), optional
        Of the hierarchical prior, to start from; its prior mean by default.
    tell : callable
        Called with the number of draws done, and their total.
    """
    total, chains = tune + draws, len(means)
    sampler = AssignmentChains(
        X,
        priors,
        model,
        labels,
        means,
        rng,
        start=concentration,
        rate=CONCENTRATION_RATE,
        scale_matrix=scale_matrix,
    )
    filled, concentrations = np.empty((chains, total), np.int64), np.empty((chains, total))
    for start in range(0, total, _AT_ONCE):
        stop = min(start + _AT_ONCE, total)
        sampler.advance(Kept(filled=filled, concentration=concentrations), start, stop, thin)
        tell(stop, total)
    return filled[:, tune:], concentrations[:, tune:]


def filled_prior(N: int, K: int, rng: np.random.Generator, draws: int = 20_000) -> np.ndarray:
    """Prior probability (K + 1,) that 0, 1, ..., K components hold one of N rows."""
    concentration = rng.exponential(1 / CONCENTRATION_RATE, draws)
    log_gamma = np.log(rng.gamma(concentration[:, None] + 1, size=(draws, K)))
    log_gamma += np.log(rng.random((draws, K))) / concentration[:, None]  # gamma of a small shape, without underflow
    weights = np.exp(log_gamma - log_gamma.max(axis=1, keepdims=True))
    counts = rng.multinomial(N, weights / weights.sum(axis=1, keepdims=True))
    return np.bincount((counts > 0).sum(axis=1), minlength=K + 1) / draws
