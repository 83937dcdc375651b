"""Criteria that need other rows: the density of rows held out, and BIC and ICL of rows drawn anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from bayesgmm.em.grid import Key
from bayesgmm.em.refits import Replicates, held_out_log_density, replicates
from bayesgmm.em.result import EMFit
from bayesgmm.errors import BayesGMMError, InputError
from bayesgmm.observations import Observations
from bayesgmm.progress import of_stage
from bayesgmm.selection.run import Run
from bayesgmm.selection.states import FitOutcome, fit_state
from bayesgmm.selection.table import se_of_sum

_FOLD_STARTS = 10  # the most starts of a fit without a fold
_REPLICATED = 25  # the most fits that are refitted to replicates, by each criterion
_WITHIN = 3.0  # standard deviations of the difference by which a fit may be behind to be refitted


def held_out_densities(run: Run, fits: Mapping[Key, EMFit], n_folds: int) -> dict[Key, np.ndarray]:
    """Log density (N,) of each row under the fit without its fold, in nats, times its weight.

    Raises
    ------
    InputError
        If there is no fit that could be made without every fold.
    """
    folds = replace(run.grid, n_starts=min(run.grid.n_starts or _FOLD_STARTS, _FOLD_STARTS))
    rng, progress = np.random.default_rng(run.seeds.folds), of_stage(run.progress, "held-out folds")
    results = held_out_log_density(folds, n_folds, rng, run.checkpoints.arrays, progress)
    weight = run.table.sample_weight
    densities = {key: v * weight for key, v in results.items() if key in fits and isinstance(v, np.ndarray)}
    if not densities:
        error = next(v for v in results.values() if isinstance(v, BayesGMMError))
        raise InputError(
            f"no fit can be made to the rows without some fold; leave out 'cv', or give more rows: {error}"
        )
    return densities


def replicated_criteria(run: Run, fits: Mapping[Key, EMFit], n_replicates: int) -> dict[str, dict[Key, np.ndarray]]:
    """BIC and ICL (n_replicates,) of the leading fits on rows drawn with replacement, centred at the table's."""
    names = [name for name in ("bic", "icl") if name in run.criteria]
    leading = list(dict.fromkeys(key for name in names for key in _leading(fits, run.table, name)))
    criteria: dict[str, dict[Key, np.ndarray]] = {name: {} for name in names}
    for i, key in enumerate(leading):
        fit = fits[key]
        refit = partial(_refit, fit, run, n_replicates)
        arrays = run.checkpoints.arrays(f"replicates of {key}: {n_replicates}", refit)
        log_likelihood, map_log_responsibility = Replicates(**arrays).centred(fit)
        bic = -2 * log_likelihood + (fit.bic + 2 * fit.log_likelihood)
        for name, values in (("bic", bic), ("icl", bic - 2 * map_log_responsibility)):
            if name in names:
                criteria[name][key] = values
        run.progress("replicates", i + 1, len(leading))
    return {name: values for name, values in criteria.items() if values}


def _refit(fit: EMFit, run: Run, n_replicates: int) -> dict[str, np.ndarray]:
    """Refits of one fit, with the same rows for all fits."""
    return replicates(fit, run.table, n_replicates, run.seeds.replicates)._asdict()


def shares_chosen(criterion: Mapping[Key, np.ndarray], fits: Mapping[Key, EMFit]) -> dict[Key, float]:
    """In which share of the replicates each fit has the least of a criterion (n_replicates,), 0 for those without."""
    values = np.stack(list(criterion.values()))
    shares = np.bincount(np.argmin(values, axis=0), minlength=len(values)) / values.shape[1]
    return dict.fromkeys(fits, 0.0) | dict(zip(criterion, shares.tolist(), strict=True))


def _leading(fits: Mapping[Key, EMFit], table: Observations, criterion: str) -> list[Key]:
    """Fits that other rows could put first: no further behind than three standard deviations of the difference."""
    order = sorted(
        (key for key, fit in fits.items() if fit_state(fit).outcome is not FitOutcome.SPURIOUS),
        key=lambda key: getattr(fits[key], criterion),
    )
    if not order:
        return []
    best = fits[order[0]]
    best_log_prob = best.mixture.log_prob(table) * table.sample_weight

    def could_lead(fit: EMFit) -> bool:
        sd = 2 * se_of_sum(fit.mixture.log_prob(table) * table.sample_weight - best_log_prob)
        return getattr(fit, criterion) - getattr(best, criterion) <= _WITHIN * sd

    return [key for key in order[: 2 * _REPLICATED] if could_lead(fits[key])][:_REPLICATED]
