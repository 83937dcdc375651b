"""The mean-field approximation of a posterior: weights, means, precisions and assignments taken to be independent.

Under conjugate priors each factor has a closed form given the others (Attias 1999; Bishop 2006, section 10.2): a
Dirichlet distribution of the weights, a normal one of each mean, a Wishart one of each precision and of the scale
matrix of a hierarchical prior. Going round among them never lowers the bound of the evidence; a round takes one pass of
the kernel over the rows. What is independent here is not so in the posterior, so that intervals are too narrow: draws
are therefore resampled by their importance weights.

References
----------
Attias, H. (1999). Inferring parameters and structure of latent variable models by variational Bayes. Proceedings of the
Fifteenth Conference on Uncertainty in Artificial Intelligence, 21-30.

Bishop, C. M. (2006). Pattern Recognition and Machine Learning. Springer, section 10.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import digamma

from bayesgmm.bayes.approximation import judged
from bayesgmm.bayes.chains import Chains
from bayesgmm.bayes.density import Density
from bayesgmm.bayes.gibbs import DIAGONAL, FULL, MODELS, SPHERICAL, structure_of, structured
from bayesgmm.bayes.priors.covariances import ConjugatePrior
from bayesgmm.bayes.verdict import Verdict
from bayesgmm.covariance import precisions_cholesky
from bayesgmm.errors import InputError
from bayesgmm.expectation import Parameters, Statistics, expected_statistics
from bayesgmm.mixture import GaussianMixture

_MOST_ROUNDS = 5000
_OVERSAMPLED = 4, 10  # draws made for each that is wanted, at least and at most
_LEAST_SHARE = 0.2  # of the draws made that their weights must leave, for as many to be picked as are wanted
_MULTIPLY_ADDS = 1e10  # that evaluating the density at them should not exceed
_SETTLED = 1e-7  # largest change of a component's share of the rows, and of a mean in its sds, in the last round


@dataclass(frozen=True, eq=False)
class PrecisionFactor:
    """Wishart distributions of precisions: of whole matrices, of each entry of a diagonal, or of one number.

    Parameters
    ----------
    structure : {FULL, DIAGONAL, SPHERICAL}
    df : (copies,)
        Degrees of freedom.
    scatter : (copies, D, D)
        The inverse of the Wishart distribution's scale; what a structure does not use is zero. A spherical one has its
        only number in the first place.
    """

    structure: int
    df: np.ndarray
    scatter: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """Diagonals of the scatters (copies, D): of a spherical one, its number in each place."""
        diagonal = np.einsum("kii->ki", self.scatter)
        return np.repeat(diagonal[:, :1], diagonal.shape[1], axis=1) if self.structure == SPHERICAL else diagonal

    @property
    def mean(self) -> np.ndarray:
        """Expected precisions (copies, D, D)."""
        if self.structure == FULL:
            return self.df[:, None, None] * np.linalg.inv(self.scatter)
        return np.eye(self.scatter.shape[1]) * (self.df[:, None] / self.sizes)[:, None, :]

    @property
    def mean_log_determinant(self) -> np.ndarray:
        """Expected log determinants (copies,) of the precisions, nats."""
        D = self.scatter.shape[1]
        if self.structure == FULL:
            degrees = self.df[:, None] - np.arange(D)
            return (digamma(degrees / 2) + math.log(2)).sum(axis=1) - np.linalg.slogdet(self.scatter)[1]
        return (digamma(self.df[:, None] / 2) + math.log(2) - np.log(self.sizes)).sum(axis=1)

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """Upper triangular factors P (..., copies, D, D) of drawn precisions P P'."""
        copies, D, _ = self.scatter.shape
        A = np.zeros((*shape, copies, D, D))
        diagonal = np.arange(D)
        if self.structure == FULL:
            A[..., diagonal, diagonal] = np.sqrt(
                rng.chisquare(self.df[:, None] - (D - 1 - diagonal), (*shape, copies, D))
            )
            above = np.triu_indices(D, 1)
            A[..., above[0], above[1]] = rng.standard_normal((*shape, copies, len(above[0])))
            return precisions_cholesky(self.scatter)[0] @ A
        columns = 1 if self.structure == SPHERICAL else D
        squares = rng.chisquare(self.df[:, None], (*shape, copies, columns)) / self.sizes[:, :columns]
        A[..., diagonal, diagonal] = np.sqrt(squares)
        return A

    def log_density(self, P: np.ndarray) -> np.ndarray:
        """Log density (...) of factors P (..., copies, D, D) in the density's coordinates, nats, without its constant.

        These are the log squares of a triangular factor's diagonal and the entries above it.
        """
        D = P.shape[-1]
        logs = np.log(np.einsum("...ii->...i", P))
        traces = np.einsum("...kia,...kja,kij->...k", P, P, self.scatter)
        if self.structure == FULL:
            coordinates = (np.arange(2, D + 2) * logs).sum(axis=-1)
            each = (self.df - D - 1) * logs.sum(axis=-1) - traces / 2 + coordinates
        elif self.structure == DIAGONAL:
            each = (self.df[:, None] * logs).sum(axis=-1) - traces / 2
        else:
            each = self.df * logs[..., 0] - traces / 2
        return each.sum(axis=-1)


@dataclass(frozen=True, eq=False)
class MeanField:
    """The factors of the approximation.

    Parameters
    ----------
    concentration : (K,)
        Of the weights' Dirichlet distribution.
    means : (K, D)
    mean_covariances : (K, D, D)
        Of the means' normal distributions.
    precisions : PrecisionFactor
        Of one matrix for each component, or of the one that all share.
    settled : bool
        Whether the last round changed next to nothing.
    """

    concentration: np.ndarray
    means: np.ndarray
    mean_covariances: np.ndarray
    precisions: PrecisionFactor
    settled: bool = False

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> tuple[GaussianMixture, np.ndarray]:
        """Mixtures (...) drawn from the approximation, and their log density in the posterior's coordinates, nats.

        The log density lacks a constant.
        """
        K, D = self.means.shape
        gammas = np.log(rng.gamma(self.concentration, size=(*shape, K)))
        weights = np.exp(gammas - np.logaddexp.reduce(gammas, axis=-1, keepdims=True))
        noise = rng.standard_normal((*shape, K, D))
        means = self.means + np.einsum("kij,...kj->...ki", np.linalg.cholesky(self.mean_covariances), noise)
        P = self.precisions.draw(shape, rng)
        log_density = (self.concentration * np.log(weights)).sum(axis=-1) - 0.5 * (noise**2).sum(axis=(-2, -1))
        log_density += self.precisions.log_density(P)
        inverse = np.linalg.inv(P)
        covariances = np.broadcast_to(np.swapaxes(inverse, -1, -2) @ inverse, (*shape, K, D, D))
        return GaussianMixture(weights, means, covariances), log_density


def mean_field(density: Density, start: GaussianMixture) -> MeanField:
    """The mean-field approximation that going round among the factors ends at, from a mixture.

    Parameters
    ----------
    density : Density
        Of the posterior.
    start : GaussianMixture
        Gives the first responsibilities.

    Raises
    ------
    InputError
        If the prior or the covariance model has no conjugate factors.
    """
    if density.table.noise is not None:
        raise InputError("the variational approximation has no noise; use method='laplace' or method='nuts'")
    prior = density.priors.covariances
    if not isinstance(prior, ConjugatePrior):
        raise InputError(
            f"the variational approximation needs inverse-Wishart covariances, known or hierarchical, not {prior.title}"
        )
    if density.model.name not in MODELS:
        raise InputError(
            f"the variational approximation is there for covariance {', '.join(MODELS)}, not {density.model.name}; use "
            "method='laplace' or method='nuts'"
        )
    center, rows = density.center, density.table.rows(density.center)
    parameters = Parameters(start.log_scale, start.means - center, start.precisions_cholesky)
    rounds = _Rounds(density, prior)
    state = None
    for _ in range(_MOST_ROUNDS):
        statistics = expected_statistics(rows, parameters, density.model.diagonal)[2]
        state, parameters = rounds.next(state, parameters, statistics)
        if state.settled:
            break
    assert state is not None
    return state


class _Rounds:
    """One round among the factors after another."""

    def __init__(self, density: Density, prior: ConjugatePrior) -> None:
        self.density, self.prior = density, prior
        D = density.priors.n_features
        self.structure = structure_of(density.model)
        self.scale_prior = prior.scale_prior(lambda scale: structured(scale, self.structure))
        self.scale = structured(prior.typical_scale, self.structure)  # expected scale matrix B
        self.df = prior.df if self.structure == FULL else prior.df - D + 1
        self.total = density.table.total_weight

    def next(
        self, before: MeanField | None, parameters: Parameters, statistics: Statistics
    ) -> tuple[MeanField, Parameters]:
        """The factors, given the expected statistics about the means in ``parameters``; and the next parameters."""
        priors, counts = self.density.priors, statistics.counts
        K, D = parameters.offsets.shape
        P = parameters.precisions_cholesky
        expected = P @ np.swapaxes(P, -1, -2)  # precisions, (K, D, D)
        location = priors.means.location - self.density.center
        mean_precisions = priors.means.precision + counts[:, None, None] * expected
        totals = statistics.first + counts[:, None] * parameters.offsets
        right = priors.means.precision @ location + np.einsum("kij,kj->ki", expected, totals)
        offsets = np.linalg.solve(mean_precisions, right[..., None])[..., 0]
        spreads = np.linalg.inv(mean_precisions)
        precisions = self._precisions(statistics, offsets - parameters.offsets, spreads)
        self._update_scale(precisions)
        mean = np.broadcast_to(precisions.mean, (K, D, D))
        factors = np.broadcast_to(precisions_cholesky(np.linalg.inv(precisions.mean))[0], (K, D, D))
        concentration = priors.concentration + counts
        log_scale = digamma(concentration) - digamma(concentration.sum()) + 0.5 * precisions.mean_log_determinant
        log_scale = log_scale - 0.5 * np.einsum("kij,kji->k", mean, spreads) - 0.5 * D * math.log(2 * math.pi)
        sds = np.sqrt(1 / np.einsum("kii->ki", mean))
        change = np.abs((offsets - parameters.offsets) / sds).max()
        if before is not None:
            change = max(change, np.abs(concentration - before.concentration).max() / self.total)
        state = MeanField(
            concentration=concentration,
            means=offsets + self.density.center,
            mean_covariances=spreads,
            precisions=precisions,
            settled=before is not None and change < _SETTLED,
        )
        return state, Parameters(log_scale, offsets, np.array(factors))

    def _precisions(self, statistics: Statistics, shift: np.ndarray, spreads: np.ndarray) -> PrecisionFactor:
        """The factor of the precisions, from expected scatters about means that have moved by ``shift`` (K, D)."""
        counts, cross = statistics.counts, np.einsum("ki,kj->kij", statistics.first, shift)
        scatter = statistics.scatter - cross - np.swapaxes(cross, -1, -2)
        scatter += counts[:, None, None] * (np.einsum("ki,kj->kij", shift, shift) + spreads)
        D = scatter.shape[-1]
        if self.density.model.volume == "E":
            scatter, counts = scatter.sum(axis=0, keepdims=True), counts.sum(keepdims=True)
        if self.structure == SPHERICAL:
            traces = np.einsum("kii->k", scatter)
            scatter, counts = np.zeros_like(scatter), counts * D
            scatter[:, 0, 0] = traces
        elif self.structure == DIAGONAL:
            scatter = scatter * np.eye(D)
        return PrecisionFactor(self.structure, self.df + counts, self.scale + self.scale_prior.floor + scatter)

    def _update_scale(self, precisions: PrecisionFactor) -> None:
        """The expected scale matrix, given the precisions, where the prior learns it."""
        if self.scale_prior.df == 0:
            return
        degrees = self.scale_prior.df + len(precisions.df) * self.df
        total = precisions.mean.sum(axis=0)
        if self.structure == FULL:
            self.scale = degrees * np.linalg.inv(self.scale_prior.inverse_scale + total)
            return
        used = slice(1) if self.structure == SPHERICAL else slice(None)
        sizes = np.diag(self.scale_prior.inverse_scale)[used] + np.diag(total)[used]
        self.scale = np.zeros_like(self.scale)
        self.scale[np.arange(len(sizes)), np.arange(len(sizes))] = degrees / sizes


def variational_draws(
    density: Density, start: GaussianMixture, *, chains: int, draws: int, seed: int
) -> tuple[Chains, Verdict]:
    """Draws of the mean-field approximation, resampled by their importance weights where these can be trusted.

    Alone the approximation is too narrow. Several times as many draws are made as are asked for; where the Pareto k of
    their weights is good those to return are picked from them without replacement, with probabilities in proportion
    to the smoothed weights, so that they are draws of the posterior. Where it is not, the first ones come back, with
    the verdict. The statistics are the log posterior "lp" and, of draws that were not picked, the smoothed
    "log_importance_weight".
    """
    rng = np.random.default_rng(seed)
    n_wanted = chains * draws
    many = int(np.clip(_MULTIPLY_ADDS / (n_wanted * density.multiply_adds), *_OVERSAMPLED))
    approximation = mean_field(density, start)
    mixture, log_density = approximation.draw((many * chains, draws), rng)
    thetas = density.pack(mixture)
    values = density.log_densities(thetas)
    log_weight, verdict = judged("The variational approximation", values - log_density, _LEAST_SHARE)
    made = Chains(thetas, {"lp": values, "log_importance_weight": log_weight})
    if not verdict.good:
        return made.picked(np.s_[:chains]), verdict
    keys = log_weight.ravel() + rng.gumbel(size=values.size)  # the largest are a sample without replacement
    picked = rng.permuted(np.argpartition(-keys, n_wanted - 1)[:n_wanted]).reshape(chains, draws)
    resampled = made.picked(np.unravel_index(picked, values.shape))
    return resampled._replace(statistics={"lp": resampled.statistics["lp"]}), verdict
