"""Gibbs sampling of the assignments of rows to components, and of the components given them, compiled.

Weights are integrated out while rows are assigned, so that a row joins component k with odds (rows there +
concentration) times its density (Neal 2000, algorithm 8, for a finite mixture), and an empty component, whose
parameters come from the prior, may always be opened. In each sweep one component may also move to another place at
once, and the rows of two be divided between them anew (Metropolis steps with the assignments integrated out). So chains
pass between numbers of filled components, and between places of a small one, which a sampler of the parameters alone
seldom does.

Where values are missing or have errors, true values are part of the state: once a sweep each row is assigned anew by
what was measured of it, given the components and their weights, and given true values of its component.

Here is the posterior of a given number of components; `sparse` has the overfitted mixture.

References
----------
Diebolt, J., & Robert, C. P. (1994). Estimation of finite mixture distributions through Bayesian sampling. Journal of
the Royal Statistical Society, Series B, 56, 363-375.

Neal, R. M. (2000). Markov chain sampling methods for Dirichlet process mixture models. Journal of Computational and
Graphical Statistics, 9, 249-265. https://doi.org/10.1080/10618600.2000.10474879

Richardson, S., & Green, P. J. (1997). On Bayesian analysis of mixtures with an unknown number of components. Journal of
the Royal Statistical Society, Series B, 59, 731-792. https://doi.org/10.1111/1467-9868.00095
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ctypes import byref
from typing import Any, NamedTuple

import numpy as np

from bayesgmm import native
from bayesgmm.bayes.chains import Chains
from bayesgmm.bayes.density import Density
from bayesgmm.bayes.priors.covariances import ConjugatePrior
from bayesgmm.bayes.priors.joint import Priors
from bayesgmm.covariance import CovarianceModel
from bayesgmm.em.initialize import completed
from bayesgmm.errors import InputError, SamplingError
from bayesgmm.expectation import in_threads
from bayesgmm.mixture import GaussianMixture
from bayesgmm.native import address
from bayesgmm.observations import Observations, any_rows

MODELS = ("EII", "VII", "EEI", "VVI", "EEE", "VVV")  # whose covariances have conjugate conditionals
FULL, DIAGONAL, SPHERICAL = range(3)  # as gibbs.cpp numbers them
_BUDGET = 1.5e9  # densities of a row in a component of one feature, in all sweeps: some eight seconds of two cores
_ROUNDS = 6  # in which the sweeps are doubled until the chains have mixed
_BLOCK = 2e7  # of the same, between which a run can be interrupted


class Kept(NamedTuple):
    """Draws of several chains, written by compiled code; what is None is not kept."""

    filled: np.ndarray | None = None  # (chain, draw), int64
    concentration: np.ndarray | None = None  # (chain, draw)
    weights: np.ndarray | None = None  # (chain, draw, K)
    means: np.ndarray | None = None  # (chain, draw, K, D)
    factors: np.ndarray | None = None  # (chain, draw, K, D, D): P with P P' the precision

    def of_chain(self, c: int) -> native.GibbsDraws:
        """Where the draws of a chain go."""
        given = {name: array[c] for name, array in self._asdict().items() if array is not None}
        return native.GibbsDraws(**{name: address(array, array.dtype.type) for name, array in given.items()})

    @property
    def mixture(self) -> GaussianMixture:
        """The draws as a batch of mixtures."""
        assert self.weights is not None
        assert self.means is not None
        inverse = np.linalg.inv(self.factors)  # type: ignore[arg-type]
        return GaussianMixture(self.weights, self.means, np.swapaxes(inverse, -1, -2) @ inverse)

    def picked(self, index: Any) -> Kept:
        """The draws that an index of the axes chain and draw picks."""
        return Kept(*(None if array is None else array[index] for array in self))


class AssignmentChains:
    """Chains of assignments that compiled sweeps move on.

    Parameters
    ----------
    X : (N, D) table
        Where values are missing or have errors, true values are drawn too.
    priors : Priors
        Of means and covariances (`InverseWishart` or `HierarchicalInverseWishart`).
    model : CovarianceModel
        One of `MODELS`.
    labels : (chains, N)
        Assignments to start from.
    means : (chains, K, D)
        Means to start from.
    rng : Generator
    concentration : (K,), optional
        Of the weights' Dirichlet prior. Without it all components have the same unknown one, with an exponential prior.
    start, rate : float
        The unknown concentration to start from, and its prior's rate.
    scale_matrix : (D, D), optional
        Of the hierarchical prior, to start from; its prior mean by default.
    values : sequence of (N, D), optional
        True values to start each chain from; by default missing ones are drawn as of one Gaussian.
    """

    def __init__(
        self,
        X: Any,
        priors: Priors,
        model: CovarianceModel,
        labels: np.ndarray,
        means: np.ndarray,
        rng: np.random.Generator,
        *,
        concentration: np.ndarray | None = None,
        start: float = 1.0,
        rate: float = 1.0,
        scale_matrix: np.ndarray | None = None,
        values: Sequence[np.ndarray] | None = None,
    ) -> None:
        assert model.name in MODELS
        table = any_rows(X)
        self._filled = np.delete(np.arange(table.n_observations), table.empty)
        self._table = table.take(self._filled) if len(table.empty) else table
        if values is None:
            values = [completed(table, rng) for _ in means]
        self._prior, scale, self._kept_alive = _compiled_prior(
            priors, model, means.shape[1], concentration, rate, scale_matrix
        )
        self._streams = rng.spawn(len(means))
        self._states = [
            {
                "labels": np.array(z[self._filled], dtype=np.int64),
                "values": table.values if table.patterns is None else np.array(x[self._filled]),
                "means": np.array(mu, dtype=np.float64, order="C"),
                "scale_matrix": scale.copy(),
                "concentration": np.array([start]),
            }
            for z, x, mu in zip(labels, values, means, strict=True)
        ]

    def advance(self, kept: Kept, start: int, stop: int, thin: int) -> None:
        """Draw from ``start`` to ``stop``, each after ``thin`` sweeps, every chain in a thread.

        Raises
        ------
        SamplingError
            If a covariance is not positive definite.
        """
        Y, patterns = self._table.values, self._table.groups
        groups = None if patterns is None else byref(patterns.compiled)

        def advance(c: int) -> None:
            state = {name: address(array, array.dtype.type) for name, array in self._states[c].items()}
            state_struct, draws = native.GibbsState(**state), kept.of_chain(c)
            stream, (N, _) = native.random(self._streams[c]), Y.shape
            status = native.gibbs(
                address(Y), N, groups, self._prior, stream, start, stop, thin, byref(state_struct), byref(draws)
            )
            if status:
                raise SamplingError(
                    "a covariance that was drawn is not positive definite: give features units in which their spreads "
                    "are comparable, or a prior with more degrees of freedom"
                )

        in_threads(advance, range(len(self._states)))


def _compiled_prior(
    priors: Priors,
    model: CovarianceModel,
    K: int,
    concentration: np.ndarray | None,
    rate: float,
    scale_matrix: np.ndarray | None,
) -> tuple[native.GibbsPrior, np.ndarray, list[np.ndarray]]:
    """The prior as compiled code takes it, the scale matrix to start from, and the arrays to keep alive."""
    covariances = priors.covariances
    assert isinstance(covariances, ConjugatePrior)
    structure = structure_of(model)
    scale_prior = covariances.scale_prior(lambda scale: structured(scale, structure))
    arrays = {
        "location": priors.means.location,
        "precision": priors.means.precision,
        "inverse": scale_prior.inverse_scale,
        "floor": scale_prior.floor,
    }
    if concentration is not None:
        arrays["concentration"] = concentration
    places, kept_alive = native.addresses(arrays)
    prior = native.GibbsPrior(
        K=K,
        D=priors.n_features,
        structure=structure,
        shared=model.volume == "E",
        df=covariances.df,
        scale_df=scale_prior.df,
        rate=rate,
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


def why_not(density: Density) -> str:
    """Why a posterior cannot be drawn by Gibbs sampling, and what to do; empty where it can."""
    priors, model = density.priors, density.model
    if model.for_features(priors.n_features).name not in MODELS:
        return (
            f"sampler='gibbs' has no covariance {model.name}; use sampler='nutpie', or fit one of {', '.join(MODELS)} "
            "(E or V for one feature)"
        )
    if not isinstance(priors.covariances, ConjugatePrior):
        return (
            f"sampler='gibbs' needs InverseWishart or HierarchicalInverseWishart covariances, not "
            f"{type(priors.covariances).__name__}; use sampler='nutpie'"
        )
    if density.table.noise is not None:
        return "sampler='gibbs' has no noise; use sampler='nutpie'"
    return ""


def check_gibbs(density: Density) -> None:
    """An `InputError` that says why the posterior cannot be drawn by Gibbs sampling, where it cannot."""
    if reason := why_not(density):
        raise InputError(reason)


def gibbs_draws(
    density: Density,
    starts: Sequence[GaussianMixture],
    *,
    draws: int,
    tune: int,
    chains: int,
    rng: np.random.Generator,
    mixed: Callable[[Chains], bool],
    progress: Callable[[float], None] = lambda share: None,
) -> Chains:
    """Draws of a posterior by Gibbs sampling of the assignments.

    Every second chain starts from one of the mixtures, the others from rows taken at random as means. Sweeps are
    doubled until the chains have ``mixed``, up to a budget; of all sweeps as many are left out at the beginning as the
    share of ``tune``, and the draws are spread evenly over the others. An interrupt (Ctrl-C) ends the sampling: the
    draws so far are returned, incomplete, and it is raised only where there are none.

    Parameters
    ----------
    density : Density
        For which `why_not` has no objection.
    starts : sequence of GaussianMixture
    draws, tune, chains : int
    rng : Generator
    mixed : callable
        Whether draws are enough.
    progress : callable
        Called with the share of the budget that is used.
    """
    table, priors = density.table, density.priors
    K, (N, D) = priors.n_components, table.values.shape
    labels, means = _starting_points(table, starts, chains, K, rng)
    sampler = AssignmentChains(
        table, priors, density.model.for_features(D), labels, means, rng, concentration=priors.concentration
    )
    total = draws + tune
    kept = Kept(
        weights=np.empty((chains, total, K)),
        means=np.empty((chains, total, K, D)),
        factors=np.empty((chains, total, K, D, D)),
    )
    sweep = chains * (K + 1) * N * (1 + D * D / 40)
    if table.groups is not None:  # true values are drawn too, for which each group of rows has factors of its own
        sweep = 2 * sweep + chains * (K + 1) * table.groups.n * (2 + D**3 / 40)
    most = max(_BUDGET / sweep, total)  # sweeps of a chain
    thin = max(int(most / total / 2**_ROUNDS), 1)
    done = start = 0
    while True:
        step = max(int(_BLOCK / (sweep * thin)), 1)
        try:
            for first in range(start, total, step):
                stop = min(first + step, total)
                sampler.advance(kept, first, stop, thin)
                start, done = stop, done + thin * (stop - first)
                progress(min(done / most, 1.0))
            drawn = _chains(density, kept.picked(np.s_[:, tune:]))
            if mixed(drawn) or 2 * done > most:
                break
        except KeyboardInterrupt:
            if start * draws // total < 4:
                raise
            return _with_heights(density, _chains(density, kept.picked(np.s_[:, start * tune // total : start]), False))
        for array in kept:
            if array is not None:
                array[:, : total // 2] = array[:, 1 : 2 * (total // 2) : 2]
        start, thin = total // 2, 2 * thin
    progress(1.0)
    return _with_heights(density, drawn)


def _chains(density: Density, kept: Kept, complete: bool = True) -> Chains:
    return Chains(density.pack(kept.mixture), {}, complete)


def _with_heights(density: Density, chains: Chains) -> Chains:
    """The chains with the log posterior density of each draw."""
    return chains._replace(statistics={"lp": density.log_densities(chains.thetas)})


def _starting_points(
    table: Observations, starts: Sequence[GaussianMixture], chains: int, K: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Assignments (chains, N) and means (chains, K, D): of mixtures, and of rows taken at random, by turns."""
    X = completed(table)
    labels, means = np.empty((chains, len(X)), np.int64), np.empty((chains, K, X.shape[1]))
    scale = np.maximum(X.std(axis=0), 1e-300)
    for c in range(chains):
        if c % 2 == 0:
            mixture = starts[c // 2 % len(starts)]
            labels[c], means[c] = mixture.predict(table), mixture.means
        else:
            means[c] = X[rng.integers(len(X), size=K)]
            distance = [(((X - mean) / scale) ** 2).sum(axis=1) for mean in means[c]]
            labels[c] = np.argmin(distance, axis=0)
    return labels, means
