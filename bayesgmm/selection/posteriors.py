"""Posteriors of the fits that could be the best: which fits these are, their draws, LOO and evidence."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesgmm.em.grid import Key
from bayesgmm.em.result import EMFit
from bayesgmm.errors import BayesGMMError, ConvergenceWarning, InputError
from bayesgmm.progress import of_stage
from bayesgmm.selection import words
from bayesgmm.selection.criteria import CRITERIA
from bayesgmm.selection.result import Selection
from bayesgmm.selection.run import Run
from bayesgmm.selection.stacking import stacking_weights
from bayesgmm.selection.states import PosteriorState
from bayesgmm.selection.table import add_column, keys_of

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from bayesgmm.bayes.evidence import Evidence
    from bayesgmm.bayes.loo import LOO
    from bayesgmm.bayes.posterior import Posterior

_CONTENDERS, _CONTENDER_BIC = 5, 10.0  # the most fits that are given a posterior, and how far behind
_COMPARED = 3  # posteriors to compare at least, where as many can be had


@dataclass(frozen=True, eq=False)
class _Derived:
    """What follows from the posteriors, fit by fit."""

    states: dict[Key, PosteriorState] = field(default_factory=dict)
    loos: dict[Key, LOO] = field(default_factory=dict)
    evidences: dict[Key, Evidence] = field(default_factory=dict)
    filled: dict[Key, float] = field(default_factory=dict)


def contenders(selection: Selection) -> list[Key]:
    """The fits to draw posteriors of: the best by each criterion and those within 10 BIC of the best, at most five.

    If these are fewer than three, the next fits by BIC are added.
    """
    bests = [keys_of(selection.ranking(name).head(1))[0] for name in selection.criteria]
    ranking = selection.ranking("bic")
    order = keys_of(ranking)
    near = order[: int((ranking["behind"] <= _CONTENDER_BIC).sum())]
    chosen = list(dict.fromkeys(bests + near))[:_CONTENDERS]
    further = [key for key in order if key not in chosen]
    return chosen + further[: max(_COMPARED - len(chosen), 0)]


def check_sampling(criteria: Sequence[str], sampling: Mapping[str, Any]) -> None:
    """Refuse what would fail once everything has been drawn.

    Raises
    ------
    InputError
        For LOO from draws of an approximation.
    """
    if "loo" in criteria and sampling.get("method", "nuts") != "nuts":
        raise InputError(
            "LOO needs draws of the posterior, not of an approximation; leave out the criterion 'loo', or "
            "sample with method='nuts'"
        )


def with_posteriors(selection: Selection, keys: Sequence[Key], run: Run) -> Selection:
    """The selection with the posteriors of some fits, and with the columns and criteria that come from them.

    Raises
    ------
    InputError
        If a criterion needs posteriors and there are none, or no evidence of any.
    """
    trees, no_draws = _draw_all(selection, keys, run)
    if not trees and any(CRITERIA[name].needs_posterior for name in run.criteria):
        raise InputError(f"there is no posterior of any fit; the first: {next(iter(no_draws.values()))}")
    derived = _derive(trees, run)
    if "evidence" in run.criteria and not derived.evidences:
        reason = next(iter(derived.states.values())).no_evidence
        raise InputError(f"there is no evidence of any fit; the first: {reason}")
    states = derived.states | {key: PosteriorState(None, no_draws=reason) for key, reason in no_draws.items()}
    table, densities = selection.table.copy(), dict(selection.densities)
    if derived.loos:
        densities["loo"] = {key: np.asarray(loo.elpd_i).ravel() for key, loo in derived.loos.items()}
        _add_loo(table, derived.loos, stacking_weights(np.stack(list(densities["loo"].values()))))
    if derived.evidences:
        add_column(table, "log_evidence", {key: evidence.value for key, evidence in derived.evidences.items()})
        add_column(table, "log_evidence_se", {key: evidence.se for key, evidence in derived.evidences.items()})
    add_column(table, "filled_components", derived.filled)
    add_column(table, "posterior", {key: state.text for key, state in states.items()})
    return replace(
        selection,
        table=table,
        criteria=run.criteria,
        densities=densities,
        posteriors=trees,
        posterior_files={key: file for key in trees if (file := _file(run, selection.fits[key])) and file.exists()},
        posterior_states={key: states[key] for key in keys_of(table) if key in states},
        loos=derived.loos,
        evidences=derived.evidences,
    )


def _draw_all(selection: Selection, keys: Sequence[Key], run: Run) -> tuple[dict[Key, xr.DataTree], dict[Key, str]]:
    """The draws of each fit that has a posterior, and why there are none of the others."""
    name = words.namer(selection.table)
    trees: dict[Key, xr.DataTree] = {}
    no_draws: dict[Key, str] = {}
    for key in keys:
        try:
            trees[key] = _draw(run, selection.fits[key], f"posterior of {name(key)}")
        except BayesGMMError as error:
            no_draws[key] = str(error)
    return trees, no_draws


def _draw(run: Run, fit: EMFit, stage: str) -> xr.DataTree:
    """Draws of one fit, without a warning: the table and the text say how they converged."""
    from bayesgmm.bayes.sample import sample_posterior

    out = _file(run, fit)
    tell = of_stage(run.progress, stage)
    tell(0, 1)
    settings: dict[str, Any] = {"rng": run.seeds.posteriors, "out": out, "method": "nuts"}
    settings["progress"] = lambda _, done, total: tell(done, total)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        tree = sample_posterior(run.table, fit, **{**settings, **run.sampling})
    if "partial" in tree.attrs:
        advice = "" if out is None else f"; the draws are kept in {out.parent}, and the same run goes on from there"
        raise KeyboardInterrupt(f"{tree.attrs['partial']}{advice}")
    return tree


def _file(run: Run, fit: EMFit) -> Path | None:
    """Where draws are stored as they come, if the sampler can go on from there."""
    resumes = run.sampling.get("sampler", "auto") in ("auto", "nutpie") and run.sampling.get("method", "nuts") == "nuts"
    part = f"posterior {fit.covariance_model.name} {fit.n_components} {sorted(run.sampling.items())}"
    return run.checkpoints.path(part, "nc") if resumes else None


def _derive(trees: Mapping[Key, xr.DataTree], run: Run) -> _Derived:
    """LOO and evidence where they were asked for, how many components hold a row, and what to trust."""
    from bayesgmm.bayes.loo import loo
    from bayesgmm.bayes.posterior import posterior
    from bayesgmm.clusters.assignment import filled_components

    rng, derived = np.random.default_rng(run.seeds.posteriors), _Derived()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the table has what was done, and what could not be
        for i, (key, tree) in enumerate(trees.items()):
            drawn = posterior(tree)
            if "loo" in run.criteria:
                derived.loos[key] = loo(drawn, rng=rng)
            derived.states[key] = PosteriorState(drawn.verdict)
            if "evidence" in run.criteria:
                try:
                    derived.evidences[key] = _evidence(drawn, rng)
                except BayesGMMError as error:
                    derived.states[key] = PosteriorState(drawn.verdict, no_evidence=str(error))
            run.progress("what posteriors say", i + 1, len(trees))
    for key, tree in trees.items():
        shares = filled_components(tree, rng=rng)
        derived.filled[key] = float(shares @ np.arange(len(shares)))
    return derived


def _evidence(drawn: Posterior, rng: np.random.Generator) -> Evidence:
    """The evidence by the method that suits the draws."""
    from bayesgmm.bayes.evidence import log_evidence

    return log_evidence(drawn, "laplace" if drawn.sampling.approximate else "bridge", rng=rng)


def _add_loo(table: pd.DataFrame, loos: Mapping[Key, LOO], weights: np.ndarray) -> None:
    """The columns that come with LOO."""
    for column, name in (("elpd_loo", "elpd"), ("elpd_loo_se", "se"), ("p_loo", "p")):
        add_column(table, column, {key: float(getattr(loo, name)) for key, loo in loos.items()})
    add_column(table, "pareto_k_max", {key: float(np.max(loo.pareto_k)) for key, loo in loos.items()})
    add_column(table, "loo_repairs", {key: loo.text for key, loo in loos.items()})
    add_column(table, "weight", dict(zip(loos, weights.tolist(), strict=True)))
