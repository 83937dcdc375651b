"""Many climbs of one table: short runs of all starts, long ones of the best, and which maxima they found."""

from __future__ import annotations

import enum
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np

from bayesgmm.covariance import CovarianceModel, precision_cholesky
from bayesgmm.em import ascent
from bayesgmm.expectation import in_threads, parallel_pays
from bayesgmm.mixture import GaussianMixture
from bayesgmm.observations import Observations

_SHORT = 30  # iterations of a short run
_SHORT_TOLERANCE = 1e-2  # nats, of a short run that sees a sample
_SHORT_ROWS = 500, 100  # rows per component, and more per feature, beyond which short runs see a sample
_FINALISTS = 10  # short runs, or a quarter if more, that are carried on to convergence; on tables for threads:
_FINALISTS_LARGE = 2
_RACE = 100  # iterations on tables for threads after which only the climb that leads goes on
_ROUNDED = 1 / math.sqrt(12)  # of a step: the sd that rounding alone gives a feature; flagged two standard errors below
_SAME = 1e-3  # nats within which two climbs have found the same maximum
_NUDGE = 0.05  # sds, or a standard error if that is less, by which means are moved to see whether a climb comes back


class Status(enum.Enum):
    """How a climb ended; the value is the sentence to show."""

    CONVERGED = "converged: the log-likelihood that is left to gain is below the tolerance"
    EXHAUSTED = "stopped at max_iterations before it converged"
    DEGENERATE = "degenerate: a component collapsed onto too few distinct rows"
    LEFT_BEHIND = "not carried on: other starts were ahead after the short runs"


_STATUS = {ascent.CONVERGED: Status.CONVERGED, ascent.EXHAUSTED: Status.EXHAUSTED, ascent.DEGENERATE: Status.DEGENERATE}


@dataclass(frozen=True, slots=True)
class Start:
    """One start and what became of it.

    Attributes
    ----------
    kind : where it came from
    status : Status
    log_likelihood : where it stopped, in nats, with the log prior if there are priors; -inf where degenerate
    n_iterations : int
    detail : for a degenerate start, the component and its effective number of rows
    """

    kind: str
    status: Status
    log_likelihood: float
    n_iterations: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Maximum:
    """A local maximum that climbs converged to.

    Attributes
    ----------
    log_likelihood : in nats, with the log prior if there are priors
    hits : number of starts that converged to it
    spurious : whether it owes its height to a component with too few rows or a near-singular covariance
    detail : which component, and why
    mixture : the parameters there
    """

    log_likelihood: float
    hits: int
    spurious: bool
    detail: str = ""
    mixture: GaussianMixture | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, eq=False)
class Climber:
    """What all climbs of one table have in common."""

    table: Observations
    labels: np.ndarray
    center: np.ndarray
    model: CovarianceModel
    problem: ascent.Problem

    def climb(self, moments: np.ndarray, row_weights: np.ndarray | None = None) -> tuple[ascent.Outcomes, ascent.State]:
        """Climb from each of the moments (S, size), with row weights (S, N) of their own where given."""
        weights = self.table.sample_weight[None] if row_weights is None else row_weights
        return ascent.climb(self.table.values, weights, self.labels, self.center, self.problem, moments)

    def limited(self, max_iterations: int) -> Climber:
        """The same with no more iterations than these."""
        least = min(max_iterations, self.problem.max_iterations)
        return replace(self, problem=self.problem._replace(max_iterations=least))

    def short(self, rng: np.random.Generator) -> Climber:
        """The same for short runs, on a sample of the rows where there are many."""
        table, (N, D) = self.table, self.table.values.shape
        most = (_SHORT_ROWS[0] + _SHORT_ROWS[1] * D) * self.problem.penalty.concentration.size
        if most >= N:
            return self.limited(_SHORT)
        picked = np.sort(rng.choice(N, most, replace=False))
        weight = table.sample_weight if table.sample_weight.size == 1 else table.sample_weight[picked]
        scale = table.total_weight / (len(picked) if weight.size == 1 else weight.sum())
        labels = self.labels[picked] if self.labels.size else self.labels
        problem = self.limited(_SHORT).problem
        if problem.tolerance > 0:
            problem = problem._replace(tolerance=max(problem.tolerance, _SHORT_TOLERANCE))
        sample = Observations(table.values[picked], table.features, weight * scale)
        return Climber(sample, labels, self.center, self.model, problem)

    def why_spurious(self, outcomes: ascent.Outcomes) -> str:
        """Which component makes a single climb's maximum spurious and why, or nothing."""
        if self.problem.penalty.rows > 0:
            return ""  # priors keep the likelihood bounded
        D, P = self.table.n_features, np.empty_like(outcomes.covariances[0, 0])
        counts = outcomes.moments[0, : len(outcomes.covariances[0])]
        for k in np.flatnonzero(~self.problem.fixed.has_covariance):
            precision_cholesky(outcomes.covariances[0, k], P)
            narrow = self.problem.reference / np.diag(P)  # sd given the features before, relative to the data's
            rows = max(counts[k] if "V" in self.model.name[:2] else counts.sum(), 1.0)  # that its size rests on
            steps = _ROUNDED * max(1 - 2 / np.sqrt(2 * rows), 0.0) * np.sqrt(max(1 - D / rows, 0.0))
            fine = (np.diag(P) * steps * self.table.resolution > 1) & (narrow < 0.5)
            if fine.any():
                feature = self.table.features[int(fine.argmax())]
                return f"component {k} is narrower than the steps in which {feature!r} is recorded"
            if self.model.volume == "E":
                continue  # equal volumes keep the likelihood bounded
            if counts[k] < D + 1:
                return f"component {k} holds {counts[k]:.1f} effective rows, fewer than D + 1 = {D + 1}"
            size = counts[k] / (D + 1)
            by_chance = max(0.1 / size**4, 1e-2) if size < 3 else 1e-7
            if narrow.min() < by_chance:
                return f"component {k} ({counts[k]:.1f} effective rows) has a near-singular covariance"
        return ""


@dataclass(frozen=True, eq=False)
class Found:
    """Everything that a search tried, and the best climb: its outcome and path, where any survived."""

    starts: tuple[Start, ...]
    maxima: tuple[Maximum, ...]
    status: Status
    best: ascent.Outcomes | None
    path: np.ndarray


def search(
    climber: Climber,
    candidates: list[tuple[str, np.ndarray]],
    rng: np.random.Generator,
    progress: Callable[[int, int], None] | None,
) -> Found:
    """Climb from named moments: briefly from all of them, to the end from the best."""
    kinds = [kind for kind, _ in candidates]
    moments = np.stack([z for _, z in candidates])
    N, K, D = climber.table.n_observations, climber.problem.penalty.concentration.size, climber.table.n_features
    large = parallel_pays(N, K, D, climber.model.diagonal)
    n_finalists = min(_FINALISTS_LARGE if large else max(_FINALISTS, len(kinds) // 4), len(kinds))
    total = len(kinds) + n_finalists
    starts: list[Start] = []
    finalists = list(range(len(kinds)))
    if len(kinds) > n_finalists:
        short = climber.short(rng)
        brief, _ = short.climb(moments)
        starts = [_start(kind, brief, i) for i, kind in enumerate(kinds)]
        starts = [s if s.status is Status.DEGENERATE else replace(s, status=Status.LEFT_BEHIND) for s in starts]
        alive = np.flatnonzero(brief.codes != ascent.DEGENERATE)
        finalists = alive[np.argsort(-brief.progress["value"][alive], kind="stable")].tolist()
        if large:
            finalists = _worth_climbing(short, brief, finalists)
        finalists = finalists[:n_finalists]
        if short.table is not climber.table:
            moments = brief.moments
    else:
        starts = [Start(kind, Status.LEFT_BEHIND, -math.inf, 0) for kind in kinds]
    done, lock = len(kinds), threading.Lock()

    def carry_on(i: int) -> _Climb:
        nonlocal done
        climb = _carry_on(race, moments[i : i + 1])
        if progress is not None:
            with lock:  # several threads climb
                done += 1
                progress(done, total)
        return climb

    race = climber.limited(_RACE) if large and len(finalists) > 1 else climber
    climbs = [carry_on(i) for i in finalists] if large else in_threads(carry_on, finalists)
    unfinished = _finish(climber, climbs, race.problem.max_iterations < climber.problem.max_iterations, rng)
    ends: list[_Climb] = []
    for i, climb in zip(finalists, climbs, strict=True):
        starts[i] = _start(kinds[i], climb.outcomes, 0)
        if climb in unfinished:
            starts[i] = replace(starts[i], status=Status.LEFT_BEHIND)
        elif climb.alive:
            ends.append(climb)
    if progress is not None:
        progress(total, total)
    maxima = joined([climb.maximum(climber.center) for climb in ends])
    if not ends:
        return Found(tuple(starts), (), Status.DEGENERATE, None, np.empty(0))
    best = max(ends, key=_Climb.rank)
    return Found(tuple(starts), maxima, _STATUS[int(best.outcomes.codes[0])], best.outcomes, best.path)


def _worth_climbing(short: Climber, brief: ascent.Outcomes, order: list[int]) -> list[int]:
    """The best short run, and others that end elsewhere and that all rows, not just this sample, could put first."""
    best = order[0]
    weight = np.broadcast_to(short.table.sample_weight, short.table.n_observations)

    def log_prob(i: int) -> np.ndarray:
        mixture = GaussianMixture(brief.weights[i], brief.offsets[i], brief.covariances[i])
        return mixture.log_prob(short.table.values - short.center) * weight

    def hopeless(i: int) -> bool:
        if not brief.codes[i] == brief.codes[best] == ascent.CONVERGED:
            return False
        if brief.progress["value"][best] - brief.progress["value"][i] < 2 * _SHORT_TOLERANCE:
            return True
        behind = log_prob(best) - log_prob(i)
        return bool(behind.sum() > 4 * math.sqrt(len(behind) * behind.var()))

    rivals = (i for i in order[1:] if not hopeless(i))
    return [best, *islice(rivals, _FINALISTS_LARGE - 1)]


@dataclass(eq=False, slots=True)
class _Climb:
    """How one climb ended."""

    outcomes: ascent.Outcomes
    path: np.ndarray
    why_spurious: str

    @property
    def alive(self) -> bool:
        return bool(self.outcomes.codes[0] != ascent.DEGENERATE)

    @property
    def value(self) -> float:
        return float(self.outcomes.progress["value"][0])

    def maximum(self, center: np.ndarray) -> Maximum:
        """Where it ended, with the parameters in the table's units."""
        end = self.outcomes
        mixture = GaussianMixture(end.weights[0], end.offsets[0] + center, end.covariances[0])
        return Maximum(self.value, 1, bool(self.why_spurious), self.why_spurious, mixture)

    def rank(self) -> tuple[bool, bool, float]:
        """The better the later."""
        return self.alive, not self.why_spurious, self.value


def _carry_on(climber: Climber, moments: np.ndarray) -> _Climb:
    outcomes, state = climber.climb(moments)
    path = state.path[: int(outcomes.progress["iteration"][0]) + 1].copy()
    why = "" if outcomes.codes[0] == ascent.DEGENERATE else climber.why_spurious(outcomes)
    return _Climb(outcomes, path, why)


def _finish(climber: Climber, climbs: list[_Climb], raced: bool, rng: np.random.Generator) -> list[_Climb]:
    """Let the climb that leads run on until it comes back to where it was, in place; which others did not finish."""
    unfinished = [climb for climb in climbs if raced and climb.outcomes.codes[0] == ascent.EXHAUSTED]
    settled: list[_Climb] = []
    while climbs and (leader := max(climbs, key=_Climb.rank)) not in settled:
        if leader in unfinished:
            unfinished.remove(leader)
            rest = _continued(climber, leader, leader.outcomes.moments)
            leader.outcomes, leader.path, leader.why_spurious = rest.outcomes, rest.path, rest.why_spurious
        elif not _left_saddle(climber, leader, rng):
            settled.append(leader)
    return unfinished


def _continued(climber: Climber, climb: _Climb, moments: np.ndarray) -> _Climb:
    """The climb, gone on from these moments."""
    n = len(climb.path) - 1
    rest = _carry_on(climber.limited(climber.problem.max_iterations - n), moments)
    rest.outcomes.progress["iteration"] += n
    rest.path = np.concatenate((climb.path, rest.path[1:]))
    return rest


def _left_saddle(climber: Climber, climb: _Climb, rng: np.random.Generator) -> bool:
    """Whether a climb that had converged goes up from there once its means are nudged; then it does, in place.

    EM stands still on saddles, too: equal components stay equal.
    """
    end, K = climb.outcomes, climber.problem.penalty.concentration.size
    if end.codes[0] != ascent.CONVERGED or climber.problem.tolerance == 0.0 or K == 1:
        return False
    D, P = climber.table.n_features, np.empty_like(end.covariances[0, 0])
    moments = end.moments.copy()
    counts, means = moments[0, :K], moments[0, K : K + K * D].reshape(K, D)
    for k in range(K):
        precision_cholesky(end.covariances[0, k], P)
        size = min(_NUDGE, 1 / math.sqrt(max(counts[k], 1.0)))
        means[k] += size * np.linalg.solve(P.T, rng.standard_normal(D))
    nudged = _continued(climber, climb, moments)
    if not nudged.value > climb.value + _SAME:
        return False
    path = np.maximum(nudged.path, np.where(np.arange(len(nudged.path)) < len(climb.path), -np.inf, climb.value))
    climb.outcomes, climb.path, climb.why_spurious = nudged.outcomes, path, nudged.why_spurious
    return True


def joined(maxima: Sequence[Maximum]) -> tuple[Maximum, ...]:
    """The distinct ones among maxima, highest first, with their hits added up."""
    distinct: list[Maximum] = []
    for maximum in sorted(maxima, key=lambda maximum: -maximum.log_likelihood):
        if distinct and distinct[-1].log_likelihood - maximum.log_likelihood < _SAME:
            distinct[-1] = replace(distinct[-1], hits=distinct[-1].hits + maximum.hits)
        else:
            distinct.append(maximum)
    return tuple(distinct)


def _start(kind: str, outcomes: ascent.Outcomes, i: int) -> Start:
    n = int(outcomes.progress["iteration"][i])
    status = _STATUS[int(outcomes.codes[i])]
    if status is not Status.DEGENERATE:
        return Start(kind, status, float(outcomes.progress["value"][i]), n)
    k = int(outcomes.progress["component"][i])
    detail = f"component {k} collapsed with {max(outcomes.moments[i, k], 0.0):.2f} effective rows"
    return Start(kind, status, -math.inf, n, detail)
