"""Many climbs of one table, the maxima that they find, and when there have been enough of them.

Small tables are climbed to the end from every start. Moves of the best maximum follow the first starts, until it has
been met so often that a better one is unlikely. Of long tables all starts make short runs over a sample of the rows,
and only the best of these climb over all rows.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple

import numpy as np

from bayesgmm.covariance import precision_cholesky
from bayesgmm.em import ascent
from bayesgmm.em.climber import SHORT_TOLERANCE, Climber
from bayesgmm.em.initialize import Candidates, Seeding
from bayesgmm.em.moves import Summit, moved
from bayesgmm.em.result import RIVALS, SAME_MAXIMUM, Maximum, SearchEnd, Start, Status, chance_of_better, merge_maxima
from bayesgmm.expectation import in_threads, multiply_adds, parallel_pays

_FIRST = 20  # starts of the portfolio, before there is a maximum to move from; also all that a long table has
_BATCH, _FRESH = 20, 4  # starts at a time after these, and how many of them are seeded afresh
_ENOUGH = 0.02  # chance of a better maximum at which a search ends
_CLIMBS, _WORK = 200, 1.5e9  # the most that a search makes, and multiply-adds after which it begins no further batch
_WITH_PARAMETERS = 20  # highest maxima that are reported with their parameters
_COINCIDENT = 0.02  # sds of the table within which two components look like one, as they do on saddles
_FINALISTS = 10  # short runs, or a quarter if more, that are carried on to convergence; on tables for threads:
_FINALISTS_LARGE = 2
_RACE = 100  # iterations on tables for threads after which only the climb that leads goes on
_NUDGE = 0.05  # sds, or a standard error if that is less, by which means are moved to see whether a climb comes back
_NO_PATH = np.empty(0)
_PUSH = 0.5  # sds by which they are moved where two components are the same: the likelihood rises slowly from there
_FLAT, _SHRINK = 1e-2, 1e-2  # of the errors' variance: less may be none; by how much to shrink its root to see
_STATUS = {ascent.CONVERGED: Status.CONVERGED, ascent.EXHAUSTED: Status.EXHAUSTED, ascent.DEGENERATE: Status.DEGENERATE}


@dataclass(frozen=True, eq=False)
class SearchResult:
    """Everything that a search tried, and its best climb.

    Attributes
    ----------
    starts, maxima, status, search_end
        As in `EMFit`.
    best : Outcomes of the best climb alone, or None where every climb degenerated
    path : (n_iterations + 1,) of the best climb: its log-likelihood, plus log prior, after each iteration
    """

    starts: tuple[Start, ...]
    maxima: tuple[Maximum, ...]
    status: Status
    search_end: SearchEnd
    best: ascent.Outcomes | None
    path: np.ndarray


@dataclass(frozen=True, eq=False)
class Plan:
    """Where a search starts, and how long it goes on.

    Attributes
    ----------
    given : named moments to begin with
    seeding : what makes further starts, or None if there are to be none
    n_starts : how many of these; None for as many as it takes
    """

    given: Candidates
    seeding: Seeding | None = None
    n_starts: int | None = None


def search(
    climber: Climber, plan: Plan, rng: np.random.Generator, progress: Callable[[int, int], None]
) -> SearchResult:
    """Climb from the starts of a plan, to the end from all of them or from the best."""
    if plan.seeding is not None and climber.has_one_maximum:
        one = _search_all_rows(climber, replace(plan, n_starts=1), rng, progress)
        return replace(one, search_end=SearchEnd.ONLY)
    if climber.sample_size is None:
        return _search_all_rows(climber, plan, rng, progress)
    seeded = plan.seeding.portfolio(plan.n_starts or _FIRST, rng) if plan.seeding else []
    return _search_by_sample(climber, [*plan.given, *seeded], plan.seeding is None, rng, progress)


def _search_all_rows(
    climber: Climber, plan: Plan, rng: np.random.Generator, progress: Callable[[int, int], None]
) -> SearchResult:
    """Climb to the end from every start: the portfolio's, then the moves of the best maximum."""
    found, seeding = _Found(climber, int(rng.integers(2**63))), plan.seeding
    most = len(plan.given) + (0 if seeding is None else _CLIMBS if plan.n_starts is None else plan.n_starts)
    batch = plan.given + (seeding.portfolio(min(_FIRST, most - len(plan.given)), rng) if seeding else [])
    while batch:
        found.climb(batch)
        progress(len(found.starts), most)
        left = most - len(found.starts)
        enough = plan.n_starts is None and (found.chance <= _ENOUGH or found.work > _WORK)
        batch = found.next_starts(seeding, rng)[:left] if seeding is not None and left and not enough else []
    progress(len(found.starts), len(found.starts))
    if seeding is None or plan.n_starts is not None:
        end = SearchEnd.GIVEN if seeding is None else SearchEnd.FIXED
    else:
        end = SearchEnd.ENOUGH if found.chance <= _ENOUGH else SearchEnd.BUDGET
    return found.result(end)


class _Found:
    """What the climbs of a search have found so far.

    What becomes of a climb depends on those before it alone, so that more climbs never find less.
    """

    def __init__(self, climber: Climber, seed: int) -> None:
        self.climber, self.starts, self.work = climber, list[Start](), 0.0
        self._seed, self._K = seed, climber.problem.penalty.concentration.size
        self._values, self._summits = list[float](), list[_Summit]()  # by increasing value
        self._saddles = list[float]()
        self._leader: _Summit | None = None

    @property
    def chance(self) -> float:
        """That there is a better maximum than the best, as any is that is not spurious."""
        if self._leader is None or self._leader.climb.why_spurious is not None:
            return 1.0
        best = self._leader.climb.value
        rivals = (summit for summit in reversed(self._summits) if abs(summit.climb.value - best) < RIVALS)
        return chance_of_better([summit.hits for summit in rivals if summit.climb.why_spurious is None])

    def climb(self, batch: Candidates) -> None:
        """Climb from named moments to the end."""
        starts = self.climber.in_best_order(np.stack([moments for _, moments in batch]))
        outcomes, _ = self.climber.climb(starts)
        (N, D), diagonal = self.climber.table.values.shape, self.climber.model.diagonal
        self.work += multiply_adds(N, self._K, D, diagonal) * float(outcomes.progress["iteration"].sum())
        reasons = self._why_spurious(outcomes)
        for i, (kind, _) in enumerate(batch):
            climb = _Climb(ascent.Outcomes(*(part[i : i + 1] for part in outcomes)), _NO_PATH, reasons.get(i))
            self.starts.append(_start(kind, self._add(starts[i], climb), 0))

    def next_starts(self, seeding: Seeding, rng: np.random.Generator) -> Candidates:
        """Moves of the best maximum, and some seeds where they may have to come from elsewhere."""
        best = self._leader
        if best is None or best.climb.why_spurious is not None:
            return seeding.seeded(_BATCH, rng)
        end = best.climb.outcomes
        summit = Summit(end.weights[0], end.offsets[0], end.covariances[0])
        return moved(summit, seeding, _BATCH - _FRESH, rng) + seeding.seeded(_FRESH, rng)

    def result(self, end: SearchEnd) -> SearchResult:
        """All of this, and why the search ended."""
        if self._leader is None:
            return SearchResult(tuple(self.starts), (), Status.DEGENERATE, end, None, _NO_PATH)
        best, highest = self._leader.climb, self._summits[::-1]
        maxima = [
            summit.climb.maximum(self.climber, summit.hits, i < _WITH_PARAMETERS or summit is self._leader)
            for i, summit in enumerate(highest)
        ]
        return SearchResult(tuple(self.starts), tuple(maxima), _STATUS[best.code], end, best.outcomes, best.path)

    def _why_spurious(self, outcomes: ascent.Outcomes) -> dict[int, str | None]:
        """Of the climbs that ended where none had before, why their maximum is spurious."""
        values, first = outcomes.progress["value"].tolist(), dict[int, int]()
        for i in np.flatnonzero(outcomes.codes != ascent.DEGENERATE).tolist():
            if self._position(values[i]) is None:
                first[i] = next((j for j in first if abs(values[j] - values[i]) <= SAME_MAXIMUM), i)
        judged = sorted(set(first.values()))
        reasons = self.climber.why_spurious(ascent.Outcomes(*(part[judged] for part in outcomes))) if judged else []
        return {i: reasons[judged.index(j)] for i, j in first.items()}

    def _add(self, moments: np.ndarray, climb: _Climb) -> ascent.Outcomes:
        """Take note of a climb from these moments; its outcomes, beyond a saddle where it ended on one."""
        if not climb.alive:
            return climb.outcomes
        at = self._position(climb.value)
        if at is None and (self._leads(climb) or self._like_a_saddle(climb)):
            below, rng = climb.value, np.random.default_rng([self._seed, len(self.starts), len(self._values)])
            again = replace(_climb_from(self.climber, moments), why_spurious=climb.why_spurious)  # with its path
            climb = finish_leader(self.climber, [again], rng)[0]
            if climb.value > below + SAME_MAXIMUM:
                self._saddles.append(below)
                at = self._position(climb.value)
        if at is None:
            at = bisect_left(self._values, climb.value)
            self._values.insert(at, climb.value)
            self._summits.insert(at, _Summit(climb))
            if self._leads(climb):
                self._leader = self._summits[at]
        self._summits[at].hits += 1
        return climb.outcomes

    def _position(self, value: float) -> int | None:
        """Where among the summits there is one of this value."""
        at = bisect_left(self._values, value - SAME_MAXIMUM)
        return at if at < len(self._values) and self._values[at] <= value + SAME_MAXIMUM else None

    def _leads(self, climb: _Climb) -> bool:
        return self._leader is None or climb.rank() > self._leader.climb.rank()

    def _like_a_saddle(self, climb: _Climb) -> bool:
        """Whether this may be no maximum: one of the saddles met before, or two components hardly differ."""
        met = any(abs(saddle - climb.value) < SAME_MAXIMUM for saddle in self._saddles)
        return met or _coincident(self.climber, climb.outcomes)


def _search_by_sample(
    climber: Climber,
    candidates: Candidates,
    given: bool,
    rng: np.random.Generator,
    progress: Callable[[int, int], None],
) -> SearchResult:
    """Run briefly over a sample of the rows from all starts, and climb over all rows from the best of them."""
    kinds = [kind for kind, _ in candidates]
    moments = climber.in_best_order(np.stack([z for _, z in candidates]))
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
    end = SearchEnd.GIVEN if given else SearchEnd.SAMPLE
    if not ends:
        return SearchResult(tuple(starts), (), Status.DEGENERATE, end, None, _NO_PATH)
    maxima = merge_maxima(climb.maximum(climber) for climb in ends)
    best = max(ends, key=_Climb.rank)
    return SearchResult(tuple(starts), maxima, _STATUS[best.code], end, best.outcomes, best.path)


class _Heats(NamedTuple):
    """What short runs decide: each start as it stands, which of them lead, and the moments to go on from."""

    starts: list[Start]
    order: list[int]  # positions of those that may be carried on, best first
    moments: np.ndarray  # (S, size)


def _short_runs(
    climber: Climber, kinds: list[str], moments: np.ndarray, large: bool, rng: np.random.Generator
) -> _Heats:
    """Run briefly from all moments, over a sample of the rows; long climbs go on from where these runs ended."""
    short = climber.short(rng)
    outcomes, _ = short.climb(moments)
    starts = [_start(kind, outcomes, i) for i, kind in enumerate(kinds)]
    starts = [s if s.status is Status.DEGENERATE else replace(s, status=Status.LEFT_BEHIND) for s in starts]
    alive = np.flatnonzero(outcomes.codes != ascent.DEGENERATE)
    order = alive[np.argsort(-outcomes.progress["value"][alive], kind="stable")].tolist()
    if large and order:
        order = _worth_climbing(short, outcomes, order)
    return _Heats(starts, order, outcomes.moments)


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

    def maximum(self, climber: Climber, hits: int = 1, with_parameters: bool = True) -> Maximum:
        """Where it ended, with the parameters in the table's units."""
        mixture = climber.mixture(self.outcomes, 0) if with_parameters else None
        return Maximum(self.value, hits, self.why_spurious is not None, self.why_spurious or "", mixture)

    def rank(self) -> tuple[bool, bool, float]:
        """By which climbs are ordered, the best last."""
        return self.alive, self.why_spurious is None, self.value


@dataclass(eq=False)
class _Summit:
    """The first climb that ended at a maximum, and how many did."""

    climb: _Climb
    hits: int = 0


def _climb_from(climber: Climber, moments: np.ndarray) -> _Climb:
    """A climb of which nobody has asked whether it is spurious."""
    outcomes, state = climber.climb(np.atleast_2d(moments))
    return _Climb(outcomes, state.path[: int(outcomes.progress["iteration"][0]) + 1].copy(), None)


def _judged(climber: Climber, climb: _Climb) -> _Climb:
    return replace(climb, why_spurious=climber.why_spurious(climb.outcomes)[0]) if climb.alive else climb


def _long_climbs(climber: Climber, moments: np.ndarray, large: bool, tell: Callable[[int], None]) -> list[_Climb]:
    """A climb from each of the moments; ``tell`` hears how many are done.

    The climbs of a large table take turns, since each has all threads for its rows.
    """
    n_done, lock = 0, threading.Lock()

    def task(start: np.ndarray) -> _Climb:
        nonlocal n_done
        climb = _judged(climber, _climb_from(climber, start))
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
            climbs[leader] = _judged(climber, _continued(climber, climb, climb.outcomes.moments))
        elif (
            higher := _past_saddle(climber, climb, rng) or _to_border(climber, climb) or _in_order(climber, climb)
        ) is not None:
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


def _coincident(climber: Climber, end: ascent.Outcomes) -> bool:
    """Whether two components of a climb's end hardly differ, as they do on saddles."""
    (K, D), scale = end.offsets[0].shape, climber.problem.metric[end.weights.shape[1] :]
    parts = np.concatenate((end.offsets.ravel(), end.covariances.ravel())) * scale
    means, covariances = parts[: K * D].reshape(K, D), parts[K * D :].reshape(K, D * D)
    apart = [np.abs(part[:, None] - part).max(axis=2) for part in (means, covariances)]
    return bool((np.maximum(*apart) + np.eye(K)).min() < _COINCIDENT)


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
    coincident = _coincident(climber, end)
    for k in range(K):
        precision_cholesky(end.covariances[0, k], P)
        size = _PUSH if coincident else min(_NUDGE, 1 / math.sqrt(max(counts[k], 1.0)))
        means[k] += size * np.linalg.solve(P.T, rng.standard_normal(D))
    return _if_higher(climber, _continued(climber, climb, moments), climb, SAME_MAXIMUM)


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
    return _if_higher(climber, _continued(climber, climb, moments), climb, climber.problem.tolerance)


def _in_order(climber: Climber, climb: _Climb) -> _Climb | None:
    """The climb gone on with its components in another order, where the priors like that better."""
    if not climber.prefers_an_order or climber.problem.tolerance == 0.0:
        return None
    moments = climber.in_best_order(climb.outcomes.moments)
    if np.array_equal(moments, climb.outcomes.moments):
        return None
    return _if_higher(climber, _continued(climber, climb, moments), climb, climber.problem.tolerance)


def _if_higher(climber: Climber, onward: _Climb, climb: _Climb, by: float) -> _Climb | None:
    """A climb that went on from changed moments, if it ended higher by so many nats than before."""
    if not (onward.alive and onward.value > climb.value + by):
        return None
    before = np.arange(len(onward.path)) < len(climb.path)  # the change itself may cost a little, which is not shown
    path = np.maximum(onward.path, np.where(before, -np.inf, climb.value))
    return _judged(climber, replace(onward, path=path))


def _start(kind: str, outcomes: ascent.Outcomes, i: int) -> Start:
    """A start of this kind, and how climb i from it ended."""
    n = int(outcomes.progress["iteration"][i])
    status = _STATUS[int(outcomes.codes[i])]
    if status is not Status.DEGENERATE:
        return Start(kind, status, float(outcomes.progress["value"][i]), n)
    k = int(outcomes.progress["component"][i])
    detail = f"component {k} collapsed with {max(outcomes.moments[i, k], 0.0):.2f} effective rows"
    return Start(kind, status, -math.inf, n, detail)
