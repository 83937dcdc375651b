"""The posterior of many rows, as few passes over them find it: its modes, and how good Laplace's approximation is.

Newton's method finds the mode, with a curvature that is exact and costs one pass. Then the log posterior of draws of
the approximation tells how far to trust it; it is worked out in one more pass, or from a sample if that is precise.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.special import softmax

from bayesgmm.bayes.approximation import judged
from bayesgmm.bayes.chains import Chains
from bayesgmm.bayes.density import Density
from bayesgmm.bayes.expected import expected, prior_of, stand_ins
from bayesgmm.bayes.laplace import Mode, around_rows, climb_to_mode
from bayesgmm.bayes.modes import Searched, candidates, find_modes
from bayesgmm.bayes.posterior import TableSource
from bayesgmm.bayes.priors import Priors, check_priors
from bayesgmm.bayes.third_order import near_mode
from bayesgmm.bayes.verdict import Convergence, Verdict
from bayesgmm.checkpoints import Checkpoints, KeptPasses, claim, described_parts, kept_survey
from bayesgmm.em.information import plain, request_of
from bayesgmm.em.result import EMFit, check_log_likelihood
from bayesgmm.errors import InputError
from bayesgmm.expectation import Parameters
from bayesgmm.mixture import GaussianMixture
from bayesgmm.observations import Observations
from bayesgmm.parts import Part, Parts
from bayesgmm.passes import InMemory, Passes, Request, Streamed
from bayesgmm.progress import Progress, of_stage

SAMPLE_ROWS = 10_000  # that stay with the posterior, about
_SAMPLE_ROWS, _SAMPLE_BYTES = 100_000, 3.2e7  # that are drawn at random, at most
_SMALL_PART = 5  # times as many rows as the sample has, above which it is asked before them
CHECKED = 200  # draws whose log posterior over all rows is worked out
WIDEST = 0.5  # nats: sd of the log ratio, above which 200 draws do not know the posterior's mean to a tenth of its sd
_TOLERANCE = 1e-5  # nats that a step to the mode must be worth: less than a hundredth of a standard deviation
MANY = 10_000  # rows, above which "auto" tries it in memory too: NUTS takes ten seconds and more
_MOST_MODES = 3  # that are looked at
LARGEST_ELSEWHERE = 0.05  # share of the posterior that may be in other modes
ADVICE = (
    "Use fewer components, or fit a random sample of the rows in memory and sample that with method='nuts'; its "
    "posterior is wider."
)


def seed_and_passes(rng: Any, out: Path | None) -> tuple[int, Path | None]:
    """The seed of a posterior, without ``rng`` that of the run that is to go on, and where its passes are kept.

    That is a directory beside the file that the draws are written to, if they are.
    """
    seed = int(np.random.default_rng(rng).integers(2**31))
    if out is None:
        return seed, None
    kept = out.with_name(f"{out.name}.passes")
    if rng is None:
        seed = claim(kept, {"seed": claim(kept, {}).get("seed", seed)})["seed"]
    return seed, kept


@dataclass(frozen=True, eq=False)
class ManyRows:
    """The log posterior of rows that only passes can reach.

    Attributes
    ----------
    prior : Density
        The log prior, in the coordinates of the posterior.
    passes : Passes
    parts : Parts
        The same rows.
    sample : Observations
        Some of them, drawn at random without replacement.
    """

    prior: Density
    passes: Passes
    parts: Parts
    sample: Observations

    def at(self, thetas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The log posterior (m,) at points (m, n) and its gradients (m, n), from one pass for all of them."""
        mixtures = [self.prior.unpack(theta) for theta in thetas]
        totals = self.passes.totals([request_of(mixture, self.prior.center) for mixture in mixtures])
        gradients = [
            expected(self.prior, mixture, own.statistics)(theta)[1]
            for theta, mixture, own in zip(thetas, mixtures, totals, strict=True)
        ]
        heights = np.array([own.log_likelihood for own in totals])
        return heights + self.prior.log_densities(thetas), np.array(gradients)

    def values(self, thetas: np.ndarray) -> np.ndarray:
        """The log posterior (m,) at points (m, n), from one pass for all of them."""
        mixtures = [self.prior.unpack(theta) for theta in thetas]
        totals = self.passes.totals([request_of(one, self.prior.center)._replace(moments=False) for one in mixtures])
        return np.array([own.log_likelihood for own in totals]) + self.prior.log_densities(thetas)

    def mode_near(self, mixture: GaussianMixture) -> Mode:
        """The mode that Newton's method finds from a mixture."""
        theta = self.prior.pack(mixture)
        return climb_to_mode(partial(around_rows, self.prior, self.passes), theta, tolerance=_TOLERANCE)

    def near(self, mode: Mode, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The log posterior (2 m,) at m steps (m, n) from a mode and m backwards, and its gradients (2 m, n).

        From the sample where it is a small part of the rows and tells them precisely, else from one pass.
        """
        N, found = self.parts.n_observations, None
        if mode.around is not None and _SMALL_PART * self.sample.n_observations <= N:
            found = near_mode(self.prior, mode.around, mode, self.sample, N, steps)
        return self.at(mode.origin + np.concatenate([steps, -steps])) if found is None else found


class Checked(NamedTuple):
    """A normal approximation, moved to the mean of the posterior, and whether to trust it."""

    origin: np.ndarray  # (n,)
    factor: np.ndarray  # (n, n), lower triangular
    verdict: Verdict
    thetas: np.ndarray  # (m, n) draws of it, before it was moved
    heights: np.ndarray  # (m,) log posterior of these, nats

    def draws(self, *, chains: int, draws: int, seed: int) -> Chains:
        """Draws of the approximation."""
        u = np.random.default_rng(seed).standard_normal((chains, draws, len(self.origin)))
        return Chains(self.origin + u @ self.factor.T, {})


def checked(rows: ManyRows, mode: Mode, seed: int) -> Checked:
    """The normal approximation at a mode, judged by the log posterior of some draws of it, and moved by it.

    The posterior is skew, so that its mean is not at its mode. The draws' importance weights tell how far it is, and
    tell it precisely, as the gradients serve as control variates: their mean under the posterior is known to be zero,
    and under a normal one they are but the draws themselves (Mira, Solgi & Imparato 2013). The draws come in pairs on
    either side of the mode, to which skewness is all the difference.

    References
    ----------
    Mira, A., Solgi, R., & Imparato, D. (2013). Zero variance Markov chain Monte Carlo for Bayesian estimators.
    Statistics and Computing, 23, 653-662. https://doi.org/10.1007/s11222-012-9344-6
    """
    u = np.random.default_rng([seed, 1]).standard_normal((CHECKED // 2, len(mode.origin)))
    heights, gradients = rows.near(mode, u @ mode.factor.T)
    u = np.concatenate([u, -u])
    ratio = heights - mode.value + 0.5 * (u**2).sum(axis=1)
    verdict = judged("Laplace's approximation", ratio, widest=WIDEST, advice="")[1]
    shift = softmax(ratio) @ (u + gradients @ mode.factor) if verdict.good else np.zeros(len(mode.origin))
    thetas = mode.origin + u @ mode.factor.T
    return Checked(mode.origin + mode.factor @ shift, mode.factor, verdict, thetas, heights)


@dataclass(frozen=True, eq=False)
class LargeTable:
    """A table in parts as its first passes have found it.

    Attributes
    ----------
    parts : Parts
    passes : Passes
    center : (D,)
    everything : Observations
        Few rows that have the mean and the covariance of all.
    sample : Observations
        Rows drawn at random.
    source : TableSource
    """

    parts: Parts
    passes: Passes
    center: np.ndarray
    everything: Observations
    sample: Observations
    source: TableSource

    @classmethod
    def of(cls, parts: Parts, fit: EMFit, seed: int, progress: Progress | None, kept: Path | None = None) -> LargeTable:
        """Two passes: one that checks and samples the rows, one for their mean and covariance.

        These and all further ones are kept in a directory, if one is given.

        Raises
        ------
        InputError
            If a value cannot be used, naming its place, or it is another table than was fitted.
        """
        n_sampled = _rows_of_sample(parts.n_features)
        found = kept_survey(kept, parts, n_sampled, seed, of_stage(progress, "rows looked at"))
        if found.n_incomplete:
            raise InputError(
                f"{found.n_incomplete} of {parts.n_observations} rows lack a value, and none did in the table that was "
                "fitted; give that table, or refit"
            )
        center, D = fit.mixture.mean, parts.n_features
        sample = Observations(np.ascontiguousarray(found.sample), parts.features, np.ones(1), parts.named)
        sample.values.flags.writeable = False
        checkpoints = Checkpoints.of(kept, sample, *described_parts(parts))
        passes = KeptPasses(Streamed(parts, center), checkpoints, progress, "posterior: pass")
        one = Request(Parameters(np.zeros(1), np.zeros((1, D)), np.diag(1 / (found.high - found.low))[None]), False)
        of_all, of_fit = passes.totals([one, request_of(fit.mixture, center)._replace(moments=False)])
        check_log_likelihood(fit, of_fit.log_likelihood)
        everything = stand_ins(center[None], of_all.statistics, parts.features)
        mean = center + of_all.statistics.first[0] / parts.n_observations
        return cls(parts, passes, center, everything, sample, TableSource.of(parts, mean))

    def posterior(self, fit: EMFit, priors: Priors | None) -> ManyRows:
        """The log posterior of all rows under these priors, or the weakly informative ones of all rows."""
        checked_priors = check_priors(self.everything, fit, priors)
        density = Density(self.everything, self.center, checked_priors, fit.covariance_model)
        return ManyRows(prior_of(density), self.passes, self.parts, self.sample)

    @property
    def shown(self) -> Observations:
        """The rows of the sample that stay with the posterior."""
        return self.sample.take(_some(self.sample.n_observations, SAMPLE_ROWS, 0))


def _rows_of_sample(D: int) -> int:
    """About how many rows are drawn at random."""
    return int(min(_SAMPLE_ROWS, _SAMPLE_BYTES / (8 * D)))


def _some(n: int, most: int, seed: int) -> np.ndarray:
    """Some of n positions, drawn at random, in their order."""
    return np.sort(np.random.default_rng([seed, 5]).permutation(n)[:most])


def modes_of(rows: ManyRows, fit: EMFit) -> list[Mode]:
    """The modes near the fit's maxima, the one of most evidence first."""
    return find_modes(rows.prior, candidates(fit, Searched(), _MOST_MODES), rows.mode_near)


def of_memory(density: Density, seed: int) -> ManyRows | None:
    """The log posterior of a table in memory, if passes can find it."""
    table, rows = density.table, density.table.rows(density.center)
    if not plain(rows) or table.sample_weight.size > 1:
        return None
    part = Part("the table", table.n_observations, lambda start, stop: table.values[start:stop])
    sample = table.take(_some(table.n_observations, _rows_of_sample(table.n_features), seed))
    return ManyRows(prior_of(density), InMemory(rows), Parts((part,), table.features, table.named), sample)


def elsewhere(modes: list[Mode]) -> float:
    """Share of the posterior that is near other modes than the first, by Laplace's approximation."""
    return float(softmax([mode.log_integral for mode in modes])[1:].sum())


def judged_modes(modes: list[Mode], verdict: Verdict) -> Verdict:
    """The verdict on the approximation at the first mode, where there are others that may matter."""
    if (share := elsewhere(modes)) <= LARGEST_ELSEWHERE:
        return verdict
    text = f"The draws are of one mode; by Laplace's approximation {share:.0%} of the posterior is in others. "
    return Verdict(Convergence.APPROXIMATION_POOR, text + verdict.text)
