"""How many of too many components hold rows: Gibbs sampling of the assignments under sparse weights, compiled.

Weights are integrated out, so that a row joins component k with odds (rows there + concentration) times its density
(Neal 2000, algorithm 8, for a finite mixture), and an empty component, whose parameters come from the prior, may always
be opened. The concentration has the exponential prior of rate 20 of sparse finite mixtures (Malsiner-Walli,
Fruehwirth-Schnatter & Gruen 2016). This moves between numbers of filled components, which a sampler of the weights
themselves seldom does.
"""

from __future__ import annotations

from collections.abc import Callable
from ctypes import byref, c_double

import numpy as np

from bayesgmm import native
from bayesgmm.bayes.priors import LKJ, HierarchicalInverseWishart, Priors
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
    own = priors.covariances
    assert not isinstance(own, LKJ)
    assert model.name in MODELS
    (N, D), (chains, K, _) = X.shape, means.shape
    X, z, mu = np.ascontiguousarray(X), labels.astype(np.int64), np.array(means, dtype=np.float64)
    alpha = [c_double(concentration) for _ in range(chains)]
    filled, concentrations = np.empty((chains, tune + draws), np.int64), np.empty((chains, tune + draws))
    structure = FULL if not model.diagonal else DIAGONAL if model.shape != "I" else SPHERICAL
    B = np.tile(_structured(own.typical_scale if scale_matrix is None else scale_matrix, structure), (chains, 1, 1))
    strength, inverse, floor = 0.0, np.zeros((D, D)), np.zeros((D, D))
    if isinstance(own, HierarchicalInverseWishart):
        M = _structured(own.scale_matrix, structure)
        strength, floor = own.scale_df, own.floor * own.scale_df * M
        inverse = np.ascontiguousarray(np.linalg.pinv(M))  # a spherical one has a corner only
    arrays = {
        "location": priors.means.location,
        "precision": priors.means.precision,
        "inverse": inverse,
        "floor": floor,
    }
    prior = native.Overfitted(
        K=K,
        D=D,
        structure=structure,
        shared=model.volume == "E",
        df=own.df,
        strength=strength,
        rate=CONCENTRATION_RATE,
        **{name: address(array) for name, array in arrays.items()},
    )
    streams = rng.spawn(chains)

    for first in range(0, tune + draws, _AT_ONCE):
        n = min(_AT_ONCE, tune + draws - first)

        def chain(c: int, first: int = first, n: int = n) -> None:
            state = address(z[c], np.int64), address(mu[c]), address(B[c]), byref(alpha[c])
            out = address(filled[c, first:], np.int64), address(concentrations[c, first:])
            if native.overfitted(address(X), N, prior, native.random(streams[c]), n, thin, *state, *out):
                raise SamplingError(
                    "a covariance that was drawn for an overfitted mixture is not positive definite: give features "
                    "units in which their spreads are comparable, or a prior with more degrees of freedom"
                )

        in_threads(chain, range(chains))
        tell(first + n, tune + draws)
    return filled[:, tune:], concentrations[:, tune:]


def _structured(scale: np.ndarray, structure: int) -> np.ndarray:
    """What of a scale matrix (D, D) a model uses: all, its diagonal, or in the first place the mean of that."""
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
