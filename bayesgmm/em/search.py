"""Many climbs of one table: short runs of all starts, long ones of the best, and which maxima they found."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple

import numpy as np

from bayesgmm.covariance import precision_cholesky
from bayesgmm.em import ascent
from bayesgmm.em.climber import SHORT_TOLERANCE, Climber
from bayesgmm.em.initialize import Candidates
from bayesgmm.em.result import SAME_MAXIMUM, Maximum, Start, Status, merge_maxima
from bayesgmm.expectation import in_threads, parallel_pays

_FINALISTS = 10  # short runs, or a quarter if more, that are carried on to convergence; on tables for threads:
_FINALISTS_LARGE = 2
_RACE = 100  # iterations on tables for threads after which only the climb that leads goes on
_NUDGE = 0.05  # sds, or a standard error if that is less, by which means are moved to see whether a climb comes back
_FLAT, _SHRINK = 1e-2, 1e-2  # of the errors' variance: less may be none; by how much to shrink its root to see
_STATUS = {ascent.CONVERGED: Status.CONVERGED, ascent.EXHAUSTED: Status.EXHAUSTED, ascent.DEGENERATE: Status.DEGENERATE}


@dataclass(frozen=True, eq=False)
class SearchResult:
    """Everything that a search tried, and its best climb.

    Attributes
    ----------
    starts, maxima, status
        As in `EMFit`.
    best : Outcomes of the best climb alone, or None where every climb degenerated
    path : (n_iterations + 1,) of the best climb: its log-likelihood, plus log prior, after each iteration
    """

    starts: tuple[Start, ...]
    maxima: tuple[Maximum, ...]
    status: Status
    best: ascent.Outcomes | None
    path: np.ndarray


def search(
    climber: Climber,
    candidates: Candidates,
    rng: np.random.Generator,
    progress: Callable[[int, int], None],
) -> SearchResult:
    """Climb from named moments: briefly from all of them, to the end from the best."""
    kinds = [kind for kind, _ in candidates]
    moments = np.stack([z for _, z in candidates])
    N, K, D = climber.table.n_observations, climber.problem.penalty.concentration.size, climber.table.n_features
    large = parallel_pays(N, K, D, climber.model.diagonal)
    n_finalists = min(_FINALISTS_LARGE if large else max(_FINALISTS, len(kinds) // 4), len(kinds))
    if len(kinds) > n_finalists:
        heats = _short_runs(climber, kinds, moments, large, rng)
    else:
        heats = _Heats(
            [Start(kind, Status.LEFT_BEHIND, -math.inf, 0) for kind in kinds], list(range(len(kinds))), moments
        )
    finalists = heats.order[:n_finalists]
    total = len(kinds) + n_finalists
    race = climber.limited(_RACE) if large and len(finalists) > 1 else climber
    raced = race.problem.max_iterations < climber.problem.max_iterations
    climbs = _long_climbs(race, heats.moments[finalists], large, lambda n: progress(len(kinds) + n, total))
    if raced:
        climbs = [replace(climb, finished=climb.code != ascent.EXHAUSTED) for climb in climbs]
    climbs = finish_leader(climber, climbs, rng)
    progress(total, total)
    starts = list(heats.starts)
    for i, climb in zip(finalists, climbs, strict=True):
        start = _start(kinds[i], climb.outcomes, 0)
        starts[i] = start if climb.finished else replace(start, status=Status.LEFT_BEHIND)
    ends = [climb for climb in climbs if climb.finished and climb.alive]
    if not ends:
        return SearchResult(tuple(starts), (), Status.DEGENERATE, None, np.empty(0))
    maxima = merge_maxima(climb.maximum(climber) for climb in ends)
    best = max(ends, key=_Climb.rank)
    return SearchResult(tuple(starts), maxima, _STATUS[best.code], best.outcomes, best.path)


class _Heats(NamedTuple):
    """What short runs decide: each start as it stands, which of them lead, and the moments to go on from."""

    starts: list[Start]
    order: list[int]  # positions of those that may be carried on, best first
    moments: np.ndarray  # (S, size)


def _short_runs(
    climber: Climber, kinds: list[str], moments: np.ndarray, large: bool, rng: np.random.Generator
) -> _Heats:
    """Run briefly from all moments, over a sample of the rows where there are many.

    Long climbs go on from where runs over a sample ended. Runs over all rows are done again from their first moments,
    so that the path of a climb is whole.
    """
    short = climber.short(rng)
    outcomes, _ = short.climb(moments)
    starts = [_start(kind, outcomes, i) for i, kind in enumerate(kinds)]
    starts = [s if s.status is Status.DEGENERATE else replace(s, status=Status.LEFT_BEHIND) for s in starts]
    alive = np.flatnonzero(outcomes.codes != ascent.DEGENERATE)
    order = alive[np.argsort(-outcomes.progress["value"][alive], kind="stable")].tolist()
    if large and order:
        order = _worth_climbing(short, outcomes, order)
    return _Heats(starts, order, moments if short.table is climber.table else outcomes.moments)


def _worth_climbing(short: Climber, outcomes: ascent.Outcomes, order: list[int]) -> list[int]:
    """The best of the short runs, and those with another end that could be ahead of it once all rows are seen."""
    best, values = order[0], outcomes.progress["value"]
    weight = np.broadcast_to(short.table.sample_weight, short.table.n_observations)

    def log_prob(i: int) -> np.ndarray:
        return short.mixture(outcomes, i).log_prob(short.table) * weight

    def hopeless(i: int) -> bool:
        if not outcomes.codes[i] == outcomes.codes[best] == ascent.CONVERGED:
            return False
        if values[best] - values[i] < 2 * SHORT_TOLERANCE:
            return True
        behind = log_prob(best) - log_prob(i)
        return bool(behind.sum() > 4 * math.sqrt(len(behind) * behind.var()))

    rivals = (i for i in order[1:] if not hopeless(i))
    return [best, *islice(rivals, _FINALISTS_LARGE - 1)]


@dataclass(frozen=True, eq=False)
class _Climb:
    """How one climb ended, or how far it came where it is not ``finished``."""

    outcomes: ascent.Outcomes
    path: np.ndarray
    why_spurious: str | None
    finished: bool = True

    @property
    def code(self) -> int:
        return int(self.outcomes.codes[0])

    @property
    def alive(self) -> bool:
        return self.code != ascent.DEGENERATE

    @property
    def value(self) -> float:
        return float(self.outcomes.progress["value"][0])

    def maximum(self, climber: Climber) -> Maximum:
        """Where it ended, with the parameters in the table's units."""
        mixture = climber.mixture(self.outcomes, 0)
        return Maximum(self.value, 1, self.why_spurious is not None, self.why_spurious or "", mixture)

    def rank(self) -> tuple[bool, bool, float]:
        """By which climbs are ordered, the best last."""
        return self.alive, self.why_spurious is None, self.value


def _climb_from(climber: Climber, moments: np.ndarray) -> _Climb:
    outcomes, state = climber.climb(moments)
    path = state.path[: int(outcomes.progress["iteration"][0]) + 1].copy()
    alive = outcomes.codes[0] != ascent.DEGENERATE
    return _Climb(outcomes, path, climber.why_spurious(outcomes) if alive else None)


def _long_climbs(climber: Climber, moments: np.ndarray, large: bool, tell: Callable[[int], None]) -> list[_Climb]:
    """A climb from each of the moments; ``tell`` hears how many are done.

    The climbs of a large table take turns, since each has all threads for its rows.
    """
    n_done, lock = 0, threading.Lock()

    def task(start: np.ndarray) -> _Climb:
        nonlocal n_done
        climb = _climb_from(climber, start[None])
        with lock:  # several threads climb
            n_done += 1
            tell(n_done)
        return climb

    return [task(start) for start in moments] if large else in_threads(task, list(moments))


def finish_leader(climber: Climber, climbs: list[_Climb], rng: np.random.Generator) -> list[_Climb]:
    """Let the climb that leads run on until it comes back when its means are nudged; the others stay as they are.

    Another climb may take the lead meanwhile, which is then finished too.
    """
    climbs, settled = list(climbs), set[int]()
    while climbs and (leader := max(range(len(climbs)), key=lambda i: climbs[i].rank())) not in settled:
        climb = climbs[leader]
        if not climb.finished:
            climbs[leader] = _continued(climber, climb, climb.outcomes.moments)
        elif (higher := _past_saddle(climber, climb, rng) or _to_border(climber, climb)) is not None:
            climbs[leader] = higher
        else:
            settled.add(leader)
    return climbs


def _continued(climber: Climber, climb: _Climb, moments: np.ndarray) -> _Climb:
    """The climb, gone on from these moments to its end."""
    n = len(climb.path) - 1
    rest = _climb_from(climber.limited(climber.problem.max_iterations - n), moments)
    rest.outcomes.progress["iteration"] += n
    return replace(rest, path=np.concatenate((climb.path, rest.path[1:])))


def _past_saddle(climber: Climber, climb: _Climb, rng: np.random.Generator) -> _Climb | None:
    """The climb gone on where its means, nudged a little, lead upwards; None where it had arrived or did not converge.

    EM stands still on saddles, too: equal components stay equal.
    """
    end, K = climb.outcomes, climber.problem.penalty.concentration.size
    if climb.code != ascent.CONVERGED or climber.problem.tolerance == 0.0 or (K == 1 and not climber.problem.noise):
        return None
    D, P = climber.table.n_features, np.empty_like(end.covariances[0, 0])
    moments = end.moments.copy()
    counts, means = moments[0, :K], moments[0, K : K + K * D].reshape(K, D)
    for k in range(K):
        precision_cholesky(end.covariances[0, k], P)
        size = min(_NUDGE, 1 / math.sqrt(max(counts[k], 1.0)))
        means[k] += size * np.linalg.solve(P.T, rng.standard_normal(D))
    return _if_higher(_continued(climber, climb, moments), climb, SAME_MAXIMUM)


def _to_border(climber: Climber, climb: _Climb) -> _Climb | None:
    """The climb gone on without the variances that are small beside the errors; None where that is no higher.

    Towards covariances that are singular, which errors of measurement allow, EM slows down without end.
    """
    table, end = climber.table, climb.outcomes
    if table.errors is None or climb.code != ascent.CONVERGED or climber.problem.tolerance == 0.0:
        return None
    K, D = end.offsets[0].shape
    moments, P = end.moments.copy(), np.empty((D, D))
    covariances, shrunk = moments[0, K + K * D :].reshape(K, D, D), False
    for k in range(K):
        precision_cholesky(end.covariances[0, k], P)
        relative, axes = np.linalg.eigh(P.T @ table.mean_error @ P)
        if (flat := relative > 1 / _FLAT).any():
            root = np.linalg.solve(P.T, axes * np.where(flat, _SHRINK, 1.0))
            covariances[k], shrunk = root @ root.T, True
    if not shrunk:
        return None
    return _if_higher(_continued(climber, climb, moments), climb, climber.problem.tolerance)


def _if_higher(onward: _Climb, climb: _Climb, by: float) -> _Climb | None:
    """A climb that went on from changed moments, if it ended higher by so many nats than before."""
    if not (onward.alive and onward.value > climb.value + by):
        return None
    before = np.arange(len(onward.path)) < len(climb.path)  # the change itself may cost a little, which is not shown
    return replace(onward, path=np.maximum(onward.path, np.where(before, -np.inf, climb.value)))


def _start(kind: str, outcomes: ascent.Outcomes, i: int) -> Start:
    """A start of this kind, and how climb i from it ended."""
    n = int(outcomes.progress["iteration"][i])
    status = _STATUS[int(outcomes.codes[i])]
    if status is not Status.DEGENERATE:
        return Start(kind, status, float(outcomes.progress["value"][i]), n)
    k = int(outcomes.progress["component"][i])
    detail = f"component {k} collapsed with {max(outcomes.moments[i, k], 0.0):.2f} effective rows"
    return Start(kind, status, -math.inf, n, detail)
