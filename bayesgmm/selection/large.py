"""`select` of a table in parts: all sizes and models climb in lockstep, and rows that were held out judge them."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from bayesgmm.checkpoints import KeptPasses
from bayesgmm.em.climber import center_and_spread
from bayesgmm.em.grid import climb_grid, fit_grid
from bayesgmm.em.heldout import score
from bayesgmm.em.large import Sample
from bayesgmm.em.record import kept_fit
from bayesgmm.em.result import EMFit
from bayesgmm.errors import InputError
from bayesgmm.parts import Parts
from bayesgmm.passes import Streamed, answer
from bayesgmm.progress import of_stage
from bayesgmm.selection.criteria import CRITERIA
from bayesgmm.selection.result import Selection
from bayesgmm.selection.run import Run, Seeds
from bayesgmm.selection.states import fit_state
from bayesgmm.selection.table import add_column, em_table, none_succeeded

_ON_A_SAMPLE = "give select a random sample of the rows, as an array in memory"


def refuse_what_needs_memory(criteria: tuple[str, ...], **settings: Any) -> None:
    """Refuse what would need all rows in memory, or more readings of them than anyone would wait for.

    Raises
    ------
    InputError
        Saying what to do instead.
    """
    if "cv" in criteria:
        raise InputError("'cv' fits a table in parts once without every fold; use 'held_out', a tenth of its rows")
    for name in criteria:
        if CRITERIA[name].needs_posterior:
            raise InputError(f"{name!r} needs posteriors, and these all rows in memory; {_ON_A_SAMPLE}")
    for name, value in settings.items():
        if value:
            raise InputError(f"{name} needs all rows in memory; {_ON_A_SAMPLE}")


def seed_of_held_out(criteria: tuple[str, ...], seeds: Seeds) -> int | None:
    """The seed by which rows are held out; None where no criterion asks for that."""
    return seeds.folds if "held_out" in criteria else None


def select_from_parts(run: Run, parts: Parts, sample: Sample) -> Selection:
    """The fits of the grid to all rows, and their criteria.

    Parameters
    ----------
    run : Run
        Whose table is the sample.
    parts : Parts
    sample : Sample
        Without the rows that are held out, if "held_out" is among the criteria.
    """
    without = seed_of_held_out(run.criteria, run.seeds)
    rng, center = np.random.default_rng(run.seeds.fits), center_and_spread(sample.table)[0]
    kept, tell = partial(kept_fit, run.checkpoints), partial(of_stage, run.progress)
    of_sample = fit_grid(run.grid, rng, kept, tell("EM fits to a sample"))
    over = Streamed(parts, center, without=without, incomplete=not sample.complete)
    passes = KeptPasses(over, run.checkpoints, run.progress)
    results = answer(passes, climb_grid(sample, of_sample))
    fits = {key: result for key, result in results.items() if isinstance(result, EMFit)}
    if not fits:
        raise none_succeeded(results)
    states = {key: fit_state(result) for key, result in results.items()}
    table, found = em_table(results, states, parts.n_features), None
    if without is not None:
        found = score(parts, without, fits, center, tell("held-out rows"), run.checkpoints)
        add_column(table, "held_out_log_density", dict(zip(found.keys, found.log_density.tolist(), strict=True)))
        add_column(table, "held_out_log_density_se", dict(zip(found.keys, found.se.tolist(), strict=True)))
    return Selection(table=table, criteria=run.criteria, fits=fits, fit_states=states, held_out=found)
