"""What the command line does with a table: fit, sample, and find out what follows."""

from __future__ import annotations

import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayesgmm.bayes.posterior import posterior
from bayesgmm.bayes.priors import Priors
from bayesgmm.bayes.sample import sample_posterior
from bayesgmm.cli.arguments import Settings
from bayesgmm.em.fit import fit_em
from bayesgmm.errors import ConvergenceWarning
from bayesgmm.progress import Progress, of_stage, silent
from bayesgmm.summary.analysis import Analysis, left_out, summarise

if TYPE_CHECKING:
    import pandas as pd


def analyse(
    table: pd.DataFrame,
    n_components: int,
    settings: Settings,
    priors: Priors | None = None,
    *,
    errors: pd.DataFrame | None = None,
    out: Path | None = None,
    progress: Progress | None = None,
) -> Analysis:
    """Fit, sample and summarise a table.

    Parameters
    ----------
    table : DataFrame
    n_components : int
    settings : Settings
    priors : Priors, optional
        Of the posterior; `Priors.weakly_informative` by default.
    errors : DataFrame, optional
        Standard deviations of the errors of the table's values.
    out : Path, optional
        Where draws are kept while there are more to come, as in `sample_posterior`.
    progress : callable, optional
        Called as ``progress(stage, done, total)``; a total of 0 is one that is not known yet.

    Raises
    ------
    InputError, DegenerateFitError
        As `fit_em` and `sample_posterior` do.
    KeyboardInterrupt
        If sampling was interrupted; with ``out`` it says where the draws are kept.
    """
    progress, started = progress or silent, time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the report says the same
        progress("EM climbs", 0, 0)
        options: dict[str, Any] = {"error_sd": errors, "noise": settings.noise}
        options |= {"rng": settings.seed, "progress": progress}
        fit = fit_em(table, n_components, settings.covariance, **options)
        fitted = time.perf_counter()
        progress("posterior", 0, 0)
        tree = sample_posterior(
            table,
            fit,
            priors,
            draws=settings.draws,
            chains=settings.chains,
            sampler=settings.sampler,
            out=out,
            **options,
        )
        drawn = posterior(tree)
        if not drawn.sampling.complete:
            kept = (
                ""
                if out is None or not out.exists()
                else f"; the draws are kept in {out}, and the same command goes on from there"
            )
            raise KeyboardInterrupt(f"{tree.attrs['partial']}{kept}")
        seconds = {"em": fitted - started, "posterior": time.perf_counter() - fitted}
        progress("leave-one-out", 0, 0)
        predicted = left_out(drawn, settings.seed, progress)
    tell = of_stage(progress, "summaries")
    analysis = summarise(table, tree, drawn, predicted, settings.seed, seconds, tell=tell)
    return replace(analysis, draws_file=out)
