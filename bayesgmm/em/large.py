"""Fits to tables in parts: what climbs over a random sample have found is climbed from again, over all rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from bayesgmm.em import ascent
from bayesgmm.em.climber import Climber, metric
from bayesgmm.em.initialize import moments_of_mixture
from bayesgmm.em.newton import steered_climb
from bayesgmm.em.result import EMFit, Maximum, Start, Status, merge_maxima
from bayesgmm.errors import DegenerateFitError, InputError
from bayesgmm.mixture import GaussianMixture
from bayesgmm.observations import Missing, Observations, observations
from bayesgmm.parts import Parts
from bayesgmm.passes import Streamed, survey

SAMPLE_ROWS = 100_000  # that starts, units and the choice among maxima are taken from
TOLERANCE = 1e-3  # nats left to gain, which move an estimate by less than a twentieth of its standard error
_STATUS = {ascent.CONVERGED: Status.CONVERGED, ascent.EXHAUSTED: Status.EXHAUSTED, ascent.DEGENERATE: Status.DEGENERATE}
_STEERED_PASSES = 30  # at most, before EM takes over; usually five to ten
_CONTENDERS = 3  # maxima of the sample that are climbed from over all rows
_HOPELESS = 4.0  # standard errors by which a maximum of the sample may be behind


def sample_of(parts: Parts, seed: int, progress: Callable[[int, int], None]) -> Observations:
    """A random sample of the rows of a table in parts, all of which are checked.

    Raises
    ------
    InputError
        Naming the place of a value that cannot be used, or what is wrong with a column of the sample.
    """
    if parts.n_observations < 2:
        raise InputError(f"the table has {parts.n_observations} rows; no spread can be estimated from fewer than two")
    found = survey(parts, SAMPLE_ROWS, seed, progress)
    for j in np.flatnonzero(found.low == found.high).tolist():
        raise InputError(f"column {parts.features[j]!r} is constant ({found.low[j]:g} in every row); leave it out")
    table = Observations(np.ascontiguousarray(found.sample), parts.features, np.ones(1), parts.named)
    table.values.flags.writeable = False
    try:
        return observations(table)
    except InputError as error:
        raise InputError(f"in a random sample of {table.n_observations} rows, {error}") from error


def refuse_what_is_for_rows(settings: Mapping[str, Any]) -> None:
    """Refuse arguments with an entry for each row, which would have to be in parts as well."""
    for name, value in settings.items():
        if value is not None and value is not False:
            raise InputError(f"{name} cannot be given with a table in parts; read the table into memory, if it fits")


def on_all_rows(
    parts: Parts, climber: Climber, spread: np.ndarray, of_sample: EMFit, progress: Callable[[int, int], None]
) -> EMFit:
    """The fit to all rows that climbs from a fit to a sample of them find.

    Parameters
    ----------
    parts : Parts
    climber : Climber
        Of the sample.
    spread : (D, D)
        Covariance that set its units.
    of_sample : EMFit
    progress : callable
        Told how many rows of the pass under way have been read, and how many there are.

    Raises
    ------
    DegenerateFitError
        If a component collapses in every climb.
    """
    N, K = parts.n_observations, of_sample.n_components
    tolerance = max(climber.problem.tolerance, TOLERANCE)
    problem = climber.problem._replace(total=float(N), metric=metric(float(N), spread, K), tolerance=tolerance)
    climber = replace(climber, problem=problem)
    passes, center = Streamed(parts, climber.center, progress), climber.center
    contenders = _contenders(of_sample, climber.table)
    if not of_sample.constraints:
        given = of_sample.covariance_model, climber.table, tolerance, min(_STEERED_PASSES, problem.max_iterations)
        contenders = [steered_climb(passes, N, center, mixture, *given) for mixture in contenders]
    starts = np.stack([moments_of_mixture(mixture, float(N), center) for mixture in contenders])
    outcomes, states = ascent.climb_together(passes, problem, starts)
    ends = {i: _maximum(climber, outcomes, i) for i in np.flatnonzero(outcomes.codes != ascent.DEGENERATE).tolist()}
    if not ends:
        raise DegenerateFitError("over all rows every climb collapsed; use priors or fewer components")
    best = max(ends, key=lambda i: (not ends[i].spurious, ends[i].log_likelihood))
    progress_of_best = outcomes.progress[best]
    path = states[best].path[: int(progress_of_best["iteration"]) + 1].copy()
    path.flags.writeable = False
    statuses = [_STATUS[int(code)] for code in outcomes.codes]
    heights, iterations = outcomes.progress["value"].tolist(), outcomes.progress["iteration"].tolist()
    climbs = zip(statuses, heights, iterations, strict=True)
    return replace(
        of_sample,
        mixture=climber.mixture(outcomes, best, parts.features if parts.named else None),
        status=statuses[best],
        log_likelihood=float(progress_of_best["log_likelihood"]),
        log_likelihood_path=path,
        n_iterations=iterations[best],
        remaining_gain=float(progress_of_best["remaining"]),
        starts=tuple(Start("maximum of a sample", status, height, n) for status, height, n in climbs),
        maxima=merge_maxima(ends.values()),
        n_observations=N,
        total_weight=float(N),
        map_log_responsibility=float(progress_of_best["map_log_responsibility"]),
        missing=Missing(parts.features, (0.0,) * parts.n_features, N, 0, 1, ()),
    )


def _maximum(climber: Climber, outcomes: ascent.Outcomes, i: int) -> Maximum:
    """Where one of several climbs ended."""
    own = ascent.Outcomes(*(part[i : i + 1] for part in outcomes))
    why_spurious = climber.why_spurious(own)
    height = float(own.progress["value"][0])
    return Maximum(height, 1, why_spurious is not None, why_spurious or "", climber.mixture(own, 0))


def _contenders(fit: EMFit, sample: Observations) -> list[GaussianMixture]:
    """The best maximum of a sample, and others that could be ahead of it once all rows are seen."""
    best, *others = [m.mixture for m in fit.maxima if m.mixture is not None and m.spurious == fit.spurious]
    highest = best.log_prob(sample)

    def hopeless(mixture: GaussianMixture) -> bool:
        behind = highest - mixture.log_prob(sample)
        return bool(behind.sum() > _HOPELESS * math.sqrt(len(behind) * behind.var()))

    return [best, *(mixture for mixture in others if not hopeless(mixture))][:_CONTENDERS]
