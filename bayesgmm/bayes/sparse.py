"""How many of too many components hold rows: Gibbs sampling of the assignments under sparse weights, compiled.

Weights are integrated out, so that a row joins component k with odds (rows there + concentration) times its density
(Neal 2000, algorithm 8, for a finite mixture), and an empty component, whose parameters come from the prior, may always
be opened. The concentration has the exponential prior of rate 20 of sparse finite mixtures (Malsiner-Walli,
Frühwirth-Schnatter & Grün 2016). This moves between numbers of filled components, which a sampler of the weights
themselves seldom does.

References
----------
Malsiner-Walli, G., Frühwirth-Schnatter, S., & Grün, B. (2016). Model-based clustering based on sparse finite Gaussian
mixtures. Statistics and Computing, 26, 303-324. https://doi.org/10.1007/s11222-014-9500-2

Neal, R. M. (2000). Markov chain sampling methods for Dirichlet process mixture models. Journal of Computational and
Graphical Statistics, 9, 249-265. https://doi.org/10.1080/10618600.2000.10474879
"""

from __future__ import annotations

from collections.abc import Callable
from ctypes import byref, c_double
from typing import Any

import numpy as np

from bayesgmm import native
from bayesgmm.bayes.priors.covariances import ConjugatePrior
from bayesgmm.bayes.priors.joint import Priors
from bayesgmm.covariance import CovarianceModel
from bayesgmm.errors import SamplingError
from bayesgmm.expectation import in_threads
from bayesgmm.native import address

MODELS = ("EII", "VII", "EEI", "VVI", "EEE", "VVV")  # whose covariances have conjugate conditionals
CONCENTRATION_RATE = 20.0  # of the exponential prior of the concentration
FULL, DIAGONAL, SPHERICAL = range(3)  # as sparse.cpp numbers them
_AT_ONCE = 50  # draws between which a run can be interrupted


def filled_draws(
    X: np.ndarray,
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
    X : (N, D)
    priors : Priors
        Of means and covariances (`InverseWishart` or `HierarchicalInverseWishart`).
    model : CovarianceModel
        One of `MODELS`.
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
    assert model.name in MODELS
    total, chains = tune + draws, len(means)
    prior, scale, _kept_alive = _compiled_prior(priors, model, means.shape[1], scale_matrix)
    X = np.ascontiguousarray(X)
    states = [_Chain(z, mu, scale, concentration, total) for z, mu in zip(labels, means, strict=True)]
    streams = rng.spawn(chains)
    for start in range(0, total, _AT_ONCE):
        n = min(_AT_ONCE, total - start)

        def advance(c: int, start: int = start, n: int = n) -> None:
            status = native.overfitted(
                address(X), len(X), prior, native.random(streams[c]), n, thin, *states[c].addresses(start)
            )
            if status:
                raise SamplingError(
                    "a covariance that was drawn for an overfitted mixture is not positive definite: give features "
                    "units in which their spreads are comparable, or a prior with more degrees of freedom"
                )

        in_threads(advance, range(chains))
        tell(start + n, total)
    return np.stack([s.filled[tune:] for s in states]), np.stack([s.concentrations[tune:] for s in states])


class _Chain:
    """Where a chain is, which compiled code updates in place, and what it has drawn."""

    def __init__(
        self, labels: np.ndarray, means: np.ndarray, scale: np.ndarray, concentration: float, draws: int
    ) -> None:
        self.labels = np.array(labels, dtype=np.int64, order="C")
        self.means = np.array(means, dtype=np.float64, order="C")
        self.scale = np.array(scale, order="C")
        self.concentration = c_double(concentration)
        self.filled, self.concentrations = np.empty(draws, np.int64), np.empty(draws)

    def addresses(self, draw: int) -> tuple[Any, ...]:
        """Where the state is, and where the draws from this one on are to go."""
        state = address(self.labels, np.int64), address(self.means), address(self.scale), byref(self.concentration)
        return *state, address(self.filled[draw:], np.int64), address(self.concentrations[draw:])


def _compiled_prior(
    priors: Priors, model: CovarianceModel, K: int, scale_matrix: np.ndarray | None
) -> tuple[native.Overfitted, np.ndarray, list[np.ndarray]]:
    """The prior as compiled code takes it, the scale matrix to start from, and the arrays to keep alive."""
    covariances = priors.covariances
    assert isinstance(covariances, ConjugatePrior)
    structure = structure_of(model)
    scale_prior = covariances.scale_prior(lambda scale: structured(scale, structure))
    places, kept_alive = native.addresses(
        {
            "location": priors.means.location,
            "precision": priors.means.precision,
            "inverse": scale_prior.inverse_scale,
            "floor": scale_prior.floor,
        }
    )
    prior = native.Overfitted(
        K=K,
        D=priors.n_features,
        structure=structure,
        shared=model.volume == "E",
        df=covariances.df,
        scale_df=scale_prior.df,
        rate=CONCENTRATION_RATE,
        **places,
    )
    start = structured(covariances.typical_scale if scale_matrix is None else scale_matrix, structure)
    return prior, start, kept_alive


def structure_of(model: CovarianceModel) -> int:
    """Which part of a matrix (D, D) the covariances of a model use: `FULL`, `DIAGONAL` or `SPHERICAL`."""
    return FULL if not model.diagonal else DIAGONAL if model.shape != "I" else SPHERICAL


def structured(scale: np.ndarray, structure: int) -> np.ndarray:
    """The part of a scale matrix (D, D) that a model uses: all, its diagonal, or, as first entry, the mean of that."""
    if structure == FULL:
        return np.array(scale)
    diagonal = np.diag(scale)
    return np.diag([diagonal.mean(), *[0.0] * (len(diagonal) - 1)] if structure == SPHERICAL else diagonal)


def filled_prior(N: int, K: int, rng: np.random.Generator, draws: int = 20_000) -> np.ndarray:
    """Prior probability (K + 1,) that 0, 1, ..., K components hold one of N rows."""
    concentration = rng.exponential(1 / CONCENTRATION_RATE, draws)
    log_gamma = np.log(rng.gamma(concentration[:, None] + 1, size=(draws, K)))
    log_gamma += np.log(rng.random((draws, K))) / concentration[:, None]  # gamma of a small shape, without underflow
    weights = np.exp(log_gamma - log_gamma.max(axis=1, keepdims=True))
    counts = rng.multinomial(N, weights / weights.sum(axis=1, keepdims=True))
    return np.bincount((counts > 0).sum(axis=1), minlength=K + 1) / draws
