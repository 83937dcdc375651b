"""Fits to tables in parts: what climbs over a random sample have found is climbed from again, over all rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bayesgmm.checkpoints import kept_survey
from bayesgmm.em import ascent
from bayesgmm.em.climber import Climber, metric
from bayesgmm.em.information import request_of
from bayesgmm.em.initialize import moments_of_mixture
from bayesgmm.em.newton import steered_climb
from bayesgmm.em.result import EMFit, Maximum, Start, Status, merge_maxima
from bayesgmm.errors import DegenerateFitError, InputError
from bayesgmm.mixture import GaussianMixture
from bayesgmm.observations import Missing, Observations, observations
from bayesgmm.parts import Parts
from bayesgmm.passes import Asking, together

SAMPLE_ROWS = 100_000  # that starts, units and the choice among maxima are taken from
TOLERANCE = 1e-3  # nats left to gain, which move an estimate by less than a twentieth of its standard error
_STATUS = {ascent.CONVERGED: Status.CONVERGED, ascent.EXHAUSTED: Status.EXHAUSTED, ascent.DEGENERATE: Status.DEGENERATE}
_STEERED_PASSES = 100  # at most, before EM takes over, which is slower still; usually four to ten
_LONGEST_LOOK = 10  # passes over all rows that it may take as long as to find the sample's curvature
_CONTENDERS = 3  # maxima of the sample that are climbed from over all rows
_HOPELESS = 4.0  # standard errors by which a maximum of the sample may be behind


class Sample(NamedTuple):
    """A random sample of the rows of a table in parts.

    Attributes
    ----------
    table : Observations
    n_observations : int
        Number of all rows.
    n_rows : int
        Number of those that have a value and are not held out, of which the sample is one.
    missing : Missing
        How much is missing of all rows.
    """

    table: Observations
    n_observations: int
    n_rows: int
    missing: Missing

    @property
    def complete(self) -> bool:
        """Whether no row lacks a value."""
        return not self.missing.n_rows


def seed_of_sample(rng: Any) -> int:
    """The seed of the sample that a fit with this ``rng`` takes."""
    return int(np.random.default_rng(rng).integers(2**63))


def sample_of(
    parts: Parts,
    seed: int,
    progress: Callable[[int, int], None],
    without: int | None = None,
    kept: Path | None = None,
) -> Sample:
    """A random sample of the rows of a table in parts, all of which are checked.

    Parameters
    ----------
    parts : Parts
    seed : int
    progress : callable
        Told how many rows have been looked at, and how many there are.
    without : int or None
        The seed by which rows are held out; None where none are.
    kept : Path or None
        Directory that keeps what the pass finds.

    Raises
    ------
    InputError
        Naming the place of a value that cannot be used, or what is wrong with a column of the sample.
    """
    N, n = parts.n_observations, SAMPLE_ROWS
    if N < 2:
        raise InputError(f"the table has {N} rows; no spread can be estimated from fewer than two")
    found = kept_survey(kept, parts, n, seed, progress, without)
    for j in np.flatnonzero(found.low == found.high).tolist():
        raise InputError(f"column {parts.features[j]!r} is constant ({found.low[j]:g} in every row); leave it out")
    for j in np.flatnonzero(np.isnan(found.low)).tolist():
        raise InputError(f"column {parts.features[j]!r} has no values; leave it out")
    table = Observations(np.ascontiguousarray(found.sample), parts.features, np.ones(1), parts.named)
    share, empty = tuple((found.n_missing / N).tolist()), tuple(found.empty.tolist())
    missing = Missing(parts.features, share, N, found.n_incomplete, found.n_patterns, empty)
    table.values.flags.writeable = False
    try:
        return Sample(observations(table), N, found.n_rows, missing)
    except InputError as error:
        raise InputError(f"in a random sample of {table.n_observations} rows, {error}") from error


def on_all_rows(sample: Sample, climber: Climber, spread: np.ndarray, of_sample: EMFit) -> Asking[EMFit]:
    """The fit to all rows that climbs from a fit to a sample of them find; it asks for passes over all rows.

    Parameters
    ----------
    sample : Sample
    climber : Climber
        Of the sample.
    spread : (D, D)
        Covariance that set its units.
    of_sample : EMFit

    Raises
    ------
    DegenerateFitError
        If a component collapses in every climb.
    """
    total, table = float(sample.n_rows), sample.table
    tolerance, units = max(climber.problem.tolerance, TOLERANCE), metric(total, spread, of_sample.n_components)
    climber = replace(climber, problem=climber.problem._replace(total=total, metric=units, tolerance=tolerance))
    contenders = _contenders(of_sample, table)
    climbs = yield from together([_climb(climber, mixture, of_sample) for mixture in contenders])
    ends = [climb for climb in climbs if climb.outcomes.codes[0] != ascent.DEGENERATE]
    if not ends:
        raise DegenerateFitError("over all rows every climb collapsed; use priors or fewer components")
    maxima = [_maximum(climber, climb.outcomes) for climb in ends]
    best, at_best = max(zip(ends, maxima, strict=True), key=lambda end: (not end[1].spurious, end[1].log_likelihood))
    progress = best.outcomes.progress[0]
    path = best.state.path[: int(progress["iteration"]) + 1].copy()
    path.flags.writeable = False
    assert at_best.mixture is not None
    own = float(progress["log_likelihood"]), float(progress["map_log_responsibility"])
    if "reg_covar" in of_sample.constraints:  # the climb was of rows with a spread of their own
        (totals,) = yield [request_of(at_best.mixture, climber.center)._replace(moments=False)]
        own = totals.log_likelihood, totals.map_log_responsibility
    return replace(
        of_sample,
        mixture=replace(at_best.mixture, features=table.features if table.named else None),
        status=_STATUS[int(progress["code"])],
        log_likelihood=own[0],
        log_likelihood_path=path,
        n_iterations=int(progress["iteration"]),
        remaining_gain=float(progress["remaining"]),
        starts=tuple(_start(climb.outcomes) for climb in climbs),
        maxima=merge_maxima(maxima),
        n_observations=sample.n_observations,
        total_weight=total,
        map_log_responsibility=own[1],
        missing=sample.missing,
    )


class _Climb(NamedTuple):
    """A climb over all rows that has ended."""

    outcomes: ascent.Outcomes
    state: ascent.State


def _climb(climber: Climber, mixture: GaussianMixture, of_sample: EMFit) -> Asking[_Climb]:
    """Climb from a mixture: steered where nothing but the likelihood counts, then by EM."""
    total, center, problem = climber.problem.total, climber.center, climber.problem
    looks = 1 if climber.table.complete else 2 * of_sample.n_parameters  # at the sample, to find its curvature
    if not of_sample.constraints and looks * climber.table.n_observations <= _LONGEST_LOOK * total:
        limits = problem.tolerance, min(_STEERED_PASSES, problem.max_iterations)
        mixture = yield from steered_climb(total, center, mixture, of_sample.covariance_model, climber.table, *limits)
    return _Climb(*(yield from ascent.climbing(problem, moments_of_mixture(mixture, total, center))))


def _start(end: ascent.Outcomes) -> Start:
    """A start over all rows, and how the climb from it ended."""
    status, height = _STATUS[int(end.codes[0])], float(end.progress["value"][0])
    return Start("maximum of a sample", status, height, int(end.progress["iteration"][0]))


def _maximum(climber: Climber, end: ascent.Outcomes) -> Maximum:
    """Where a climb ended."""
    (why_spurious,) = climber.why_spurious(end)
    height = float(end.progress["value"][0])
    return Maximum(height, 1, why_spurious is not None, why_spurious or "", climber.mixture(end, 0))


def _contenders(fit: EMFit, sample: Observations) -> list[GaussianMixture]:
    """The best maximum of a sample, and others that could be ahead of it once all rows are seen."""
    best, *others = [m.mixture for m in fit.maxima if m.mixture is not None and m.spurious == fit.spurious]
    highest = best.log_prob(sample)

    def hopeless(mixture: GaussianMixture) -> bool:
        behind = highest - mixture.log_prob(sample)
        return bool(behind.sum() > _HOPELESS * math.sqrt(len(behind) * behind.var()))

    return [best, *(mixture for mixture in others if not hopeless(mixture))][:_CONTENDERS]
