"""What the command line finds out about a table, an `Analysis`, and the tables and sentences that tell it."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.table import Table

from bayesgmm.bayes.loo import LOO, loo as leave_one_out
from bayesgmm.bayes.parameters import describe, parameter_table
from bayesgmm.bayes.posterior import as_mixture
from bayesgmm.bayes.quantities import quantities
from bayesgmm.bayes.sample import sample_posterior
from bayesgmm.clusters.assignment import Assignments, assign
from bayesgmm.clusters.modes import Modes, number_of_modes
from bayesgmm.clusters.partition import CredibleBall, Partition, credible_ball, partition
from bayesgmm.clusters.shares import cluster_mixture, partition_from_some, stray_rate
from bayesgmm.covariance import ALIASES, CovarianceModel
from bayesgmm.em.fit import fit_em
from bayesgmm.em.result import EMFit
from bayesgmm.errors import ConvergenceWarning
from bayesgmm.mixture import GaussianMixture
from bayesgmm.names import counted, short
from bayesgmm.selection import CRITERIA, Selection

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

INTERVAL = 0.89
_TAILS = ((1 - INTERVAL) / 2, (1 + INTERVAL) / 2)
_COMPONENTS, _FEATURES, _PARAMETERS, _ROWS = 9, 6, 30, 8  # the most to print of each
_FITS = 8  # the most of a selection to print, but for the best by some criterion
# In so many draws components may be elsewhere: the intervals leave out as many. Beyond, they are in part another's.
_STRAYS = 1 - INTERVAL
_PARTITION_ROWS = 2000  # beyond which finding the partition would take longer than all else


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """A table, its fit, the posterior and what follows from them.

    Where the draws do not keep the components apart, rows are assigned to the clusters of the partition, and the
    posterior is that of these clusters.
    """

    table: pd.DataFrame
    fit: EMFit
    tree: xr.DataTree
    stray_rate: float  # share of the draws in which some component is not where its rows are
    assignments: Assignments
    draws: GaussianMixture  # (chain, draw) of the components, or of the clusters
    comparison: pd.DataFrame
    clusters: pd.DataFrame | None  # their parameters, where the draws do not keep the components apart
    loo: LOO
    partition: Partition | None  # None where there is one component, or there are too many rows
    ball: CredibleBall | None  # None also for a partition found from some of the rows
    modes: Modes
    seconds: dict[str, float]  # by stage

    @property
    def ambiguous(self) -> bool:
        """Whether the draws do not keep the components apart, so that clusters take their place."""
        return self.clusters is not None

    @property
    def convergence(self) -> str:
        """Whether the chains converged, in words."""
        return str(self.tree.attrs["convergence"])


def analyse(
    table: pd.DataFrame,
    n_components: int,
    covariance: str | CovarianceModel,
    *,
    draws: int,
    chains: int,
    sampler: str,
    rng: Any,
    progress: Callable[[str], Callable[[int, int], None]],
    out: Path | None = None,
) -> Analysis:
    """Fit, sample and summarise a table.

    Parameters
    ----------
    table : pandas.DataFrame
    n_components, covariance, draws, chains, sampler, rng
        As in `fit_em` and `sample_posterior`.
    progress : callable
        Given the name of a stage, returns the function to call with what of it is done, and its total.
    out : Path, optional
        As in `sample_posterior`.

    Raises
    ------
    InputError, DegenerateFitError
        As `fit_em` and `sample_posterior` do.
    KeyboardInterrupt
        If sampling was interrupted; with ``out`` it says where the draws are kept.
    """
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # `sentences` says the same
        fit = fit_em(
            table, n_components, covariance, rng=rng, progress=lambda stage, done, total: progress(stage)(done, total)
        )
        fitted = time.perf_counter()
        tell = progress("posterior draws")
        tree = sample_posterior(
            table,
            fit,
            draws=draws,
            chains=chains,
            sampler=sampler,
            out=out,
            rng=rng,
            progress=lambda stage, done, total: tell(done, total),
        )
        if "partial" in tree.attrs:
            kept = "" if out is None else f"; the draws are kept in {out}, and the same command goes on from there"
            raise KeyboardInterrupt(f"{tree.attrs['partial']}{kept}")
        seconds = {"em": fitted - started, "posterior": time.perf_counter() - fitted}
        loo = leave_one_out(tree, rng=rng)
    return summarise(table, fit, tree, loo, rng, seconds, progress("summaries"))


def summarise(
    table: pd.DataFrame,
    fit: EMFit,
    tree: xr.DataTree,
    loo: LOO,
    rng: Any,
    seconds: dict[str, float],
    tell: Callable[[int, int], None],
) -> Analysis:
    """What follows from a fit and its posterior.

    Parameters
    ----------
    table, fit, tree, loo
        That belong together.
    rng : seed
    seconds : dict
        What the stages before took.
    tell : callable
        Called with the number of steps done, and their total.
    """
    started = time.perf_counter()
    assignments, draws, clusters = assign(tree, ci_prob=INTERVAL, rng=rng), as_mixture(tree), None
    strays = stray_rate(tree, assignments.labels)
    ambiguous = strays > _STRAYS
    tell(1, 4)
    comparison = parameter_table(tree, ci_prob=INTERVAL)
    tell(2, 4)
    found = ball = None
    if fit.n_components > 1 and fit.n_observations <= _PARTITION_ROWS:
        found = partition(tree, rng=rng)
        ball = credible_ball(tree, found, rng=rng)
    elif ambiguous:
        found = partition_from_some(tree, _PARTITION_ROWS, rng=rng)
    if ambiguous and found is not None:
        assignments = assign(tree, ci_prob=INTERVAL, partition=found, rng=rng)
        draws = cluster_mixture(tree, found)
        clusters = describe(draws, fit.features, INTERVAL).rename(columns={"component": "cluster"})
    tell(3, 4)
    modes = number_of_modes(tree)
    tell(4, 4)
    seconds = seconds | {"summaries": time.perf_counter() - started}
    return Analysis(
        table, fit, tree, strays, assignments, draws, comparison, clusters, loo, found, ball, modes, seconds
    )


def ambiguity(analysis: Analysis) -> str | None:
    """What a reader must know first where the draws do not keep the components apart, and what to do about it."""
    if not analysis.ambiguous:
        return None
    fit, C = analysis.fit, analysis.draws.n_components
    K, model = fit.n_components, fit.covariance_model
    most = min(C, K - 1)
    advice = [f"fewer components (-k {most}{' or less' if most > 1 else ''})"]
    if "V" in model.name:
        equal = model.name.replace("V", "E") if fit.n_features > 1 else "EEE"
        known = [alias for alias, name in ALIASES.items() if name == equal]
        advice.append(f"the same covariance for all (--covariance {[*known, equal][0]})")
    return (
        f"The draws do not keep the {K} components apart: in {analysis.stray_rate:.0%} of them one holds the rows "
        f"of another, so nothing can be said of a single component. What follows is about the "
        f"{counted(C, 'cluster')} of the partition that sums the draws up, which is the same whatever the components "
        f"are called. For components that mean something, try {' or '.join(advice)}; bayesgmm select compares them."
    )


def components_tables(analysis: Analysis, width: int) -> list[Table]:
    """Posterior mean and interval of what describes each component, or cluster, in as many tables as fit ``width``."""
    fit, K, group = analysis.fit, analysis.draws.n_components, analysis.assignments.group
    lines = [("rows", [str(n) for n in np.bincount(analysis.assignments.labels, minlength=K)])]
    diagonal = fit.covariance_model.diagonal
    for quantity, feature, draws in quantities(analysis.draws, fit.features[:_FEATURES], diagonal=diagonal):
        name = quantity if feature is None else f"{quantity} {short(feature)}"
        decimals = _decimals(draws.std(axis=(0, 1)).min())
        numbers = [draws.mean(axis=(0, 1)), *np.quantile(draws, _TAILS, axis=(0, 1))]
        texts = [[_number(x, decimals) for x in row] for row in numbers]
        lines.append((name, [f"{mean} [{low}, {high}]" for mean, low, high in zip(*texts, strict=True)]))
    cell = max(14, *(len(text) + 3 for _, cells in lines for text in cells))
    at_once = max((width - max(len(name) for name, _ in lines) - 4) // cell, 1)
    tables = []
    for first in range(0, min(K, _COMPONENTS), at_once):
        shown = range(K)[first : min(first + at_once, _COMPONENTS)]
        title = f"The {group}s: posterior mean and 89% interval" if first == 0 else None
        table = _table(title, "", *(f"{group} {k}" for k in shown))
        for name, cells in lines:
            table.add_row(name, *(cells[k] for k in shown))
        tables.append(table)
    hidden = {group: K - _COMPONENTS, "feature": fit.n_features - _FEATURES}
    rest = [counted(n, f"other {thing}") for thing, n in hidden.items() if n > 0]
    if rest:
        tables[-1].caption = f"in {group}s.csv: {' and '.join(rest)}"
    return tables


def comparison_table(comparison: pd.DataFrame) -> Table:
    """EM beside the posterior."""
    free: list[Any] = comparison[comparison["sd"] > 0].to_dict("records")  # not the zeros of a diagonal model
    shown = free
    if len(free) > _PARAMETERS:
        shown = [row for row in free if row["parameter"] != "covariances" or row["feature"] == row["feature_bis"]]
        shown = shown[:_PARAMETERS]
    headings = ("EM", "posterior", "sd", "89% interval", "shift")
    table = _table("EM beside the posterior mean", "parameter", "component", *headings)
    for i, row in enumerate(shown):
        if i > 0 and row["parameter"] != shown[i - 1]["parameter"]:
            table.add_section()
        decimals = _decimals(row["sd"])
        em, mean, sd, low, high = (_number(row[x], decimals) for x in ("em", "mean", "sd", "lower", "upper"))
        name = _parameter(row["parameter"], row["feature"], row["feature_bis"])
        table.add_row(
            name, str(row["component"]), em, mean, sd, f"[{low}, {high}]", f"{round(row['shift'], 1) + 0.0:+}"
        )
    table.caption = "shift: from the EM estimate to the posterior mean, in posterior sds"
    if len(shown) < len(free):
        table.caption += f"; the {len(free) - len(shown)} other parameters are in components.csv"
    return table


def least_certain_table(analysis: Analysis, width: int) -> Table | None:
    """The rows whose component, or cluster, is least certain; None where there is only one."""
    a = analysis.assignments
    if analysis.draws.n_components == 1:
        return None
    certainty = a.label_probability
    n_values = max((width - 65) // 15, 1)  # 65 columns for the rest, 15 for each value
    features = [short(name, 12) for name in analysis.fit.features[:n_values]]
    table = _table(
        f"The least certain rows: their {a.group} and the likeliest other, with 89% intervals",
        *("row", *features, a.group, "probability", "or", "probability"),
    )
    doubtful = int((certainty < 0.9).sum())
    for row in np.argsort(certainty, kind="stable")[: min(max(doubtful, 3), _ROWS)]:
        cells = [f"{x:.6g}" for x in analysis.table.iloc[row, :n_values]]
        likeliest = np.argsort(-a.probabilities[row], kind="stable")
        for k in (a.labels[row], next(k for k in likeliest if k != a.labels[row])):
            p, low, high = (values[row, k] for values in (a.probabilities, a.lower, a.upper))
            cells += [str(k), f"{p:.2f} [{low:.2f}, {high:.2f}]"]
        table.add_row(str(row), *cells)
    meaning = "; of the rows that share a row's component, the part in the cluster is its probability"
    table.caption = (
        f"{counted(doubtful, 'row')} of {len(certainty)} whose {a.group} has a probability below 0.9; "
        f"rows count from 0, without the header; all are in responsibilities.csv{meaning if analysis.ambiguous else ''}"
    )
    return table


def sentences(analysis: Analysis) -> Iterator[str]:
    """How the fit and the sampling went, and how far to trust them."""
    fit, seconds, loo = analysis.fit, analysis.seconds, analysis.loo
    ended = fit.status.value.partition(":")[0]
    effort = f"{counted(fit.n_iterations, 'iteration')}, {counted(len(fit.starts), 'start')}, {seconds['em']:.1f} s"
    yield f"EM {ended} ({effort}): log-likelihood {fit.log_likelihood:.2f}, BIC {fit.bic:.2f} (smaller is better)."
    for doubt in fit.doubts:
        yield f"{doubt[0].upper()}{doubt[1:]}."
    sizes = analysis.tree["posterior"].sizes
    size = f"{counted(sizes['chain'], 'chain')} of {counted(sizes['draw'], 'draw')}"
    yield f"Posterior: {size} in {seconds['posterior']:.1f} s. {analysis.convergence}"
    if analysis.clusters is not None:
        r_hat, ess = analysis.clusters["r_hat"].max(), analysis.clusters["ess_bulk"].min()
        agree = "" if math.isnan(r_hat) else f"R-hat is at most {r_hat:.3f} and "
        yield f"That is about the components. Of the clusters {agree}the effective sample size at least {ess:.0f}."
    yield f"Leave-one-out: elpd {loo.elpd:.1f}, standard error {loo.se:.1f} (larger is better). {loo.text}"
    if fit.n_components > 1:
        yield from _cluster_sentences(analysis)


def _cluster_sentences(analysis: Analysis) -> Iterator[str]:
    """What the draws say of the clusters, whatever the components' numbers."""
    found, ball, fit = analysis.partition, analysis.ball, analysis.fit
    if found is not None and ball is None:
        yield (
            f"The partition has {counted(found.n_clusters, 'cluster')}: it was found from {_PARTITION_ROWS} rows drawn "
            "at random, and every other row is in its likeliest cluster."
        )
    elif found is None or ball is None:
        yield f"The partition is left out above {_PARTITION_ROWS} rows; bg.partition(tree) finds it."
    else:
        gain = f", {found.gain:.3f} less than EM's labels" if found.gain > 0.0005 else ", as good as EM's labels"
        yield (
            f"The one partition that sums the posterior up has {counted(found.n_clusters, 'cluster')}: expected "
            f"variation of information {found.expected_loss:.3f} nats{gain}; {ball.probability:.0%} of the posterior's "
            f"partitions are within {ball.radius:.3f} of it."
        )
    share = analysis.modes.probabilities
    order = [k for k in np.argsort(-share, kind="stable") if share[k] >= 0.05]
    shares = " and ".join(f"{k + 1} in {share[k]:.0%} of the draws" for k in order)
    yield f"Peaks of the density, where components that make one lump count once: {shares}."
    outliers = np.flatnonzero(analysis.assignments.tail_probability < 1 / (10 * fit.n_observations))
    if outliers.size:
        rows = ", ".join(map(str, outliers[:5])) + ", ..." * (outliers.size > 5)
        yield f"Out of place in every component: {counted(outliers.size, 'row')} ({rows})."


def criteria_table(selection: Selection, width: int = 100) -> Table:
    """The fits that come first by the first criterion, and the best by every other, side by side.

    Standard errors and shares of replicates are left out where they would not fit in ``width``.
    """
    frame, names = selection.table, [name for name in CRITERIA if name in selection.criteria]
    rankings = {name: selection.ranking(name) for name in selection.criteria}
    first = rankings[selection.criteria[0]]
    shown = [(row.covariance, row.n_components) for row in first.head(_FITS).itertuples()]
    shown += [(row.covariance, row.n_components) for r in rankings.values() for row in r.head(1).itertuples()]
    wide = "elpd_loo" in frame
    brief = len(names) > (4 if width >= 100 else 2)
    headings = ["fit", *(() if wide else ("log-likelihood", "para-\nmeters"))]
    for name in names:
        chosen = "\nchosen in" if f"{name}_frequency" in frame and not brief else ""
        headings.append(CRITERIA[name].heading + chosen)
    table = _table(
        "Which mixture? Covariance model and number of components",
        *headings,
        *(("worst\nPareto k", "weight") if wide else ()),
    )
    table.columns[0].no_wrap = True
    lines = frame.set_index(["covariance", "n_components"])
    for key in dict.fromkeys(shown):
        line = lines.loc[key]
        cells = [f"{key[0]},{key[1]}"]
        if not wide:
            cells += [f"{line['log_likelihood']:.1f}", str(line["n_parameters"])]
        for name in names:
            column = CRITERIA[name].column
            if np.isnan(line[column]):
                cells.append("-")
                continue
            best = key == tuple(rankings[name].iloc[0, :2])
            share = f" {line[f'{name}_frequency']:4.0%}" if f"{name}_frequency" in frame and not brief else ""
            se = f" ± {_rounded(line[f'{column}_se'])}" if f"{column}_se" in frame and not brief else ""
            cells.append(f"{line[column]:.1f}{'*' * best}{share}{se}")
        if wide:
            cells += ["-" if np.isnan(line[x]) else f"{line[x]:.2f}" for x in ("pareto_k_max", "weight")]
        table.add_row(*cells)
    hidden = len(frame) - len(dict.fromkeys(shown))
    table.caption = "* the best by this criterion; BIC, ICL, AIC: smaller is better, held-out and LOO: larger"
    table.caption += "; standard errors are in selection.csv" if brief else ", ± standard error"
    if hidden > 0:
        table.caption += f"; {counted(hidden, 'other fit')} in selection.csv"
    return table


def _rounded(se: float) -> str:
    return f"{se:.0f}" if se >= 1 else f"{se:.1g}"


def model_name(fit: EMFit) -> str:
    """The covariance model by the name that people know, where it has one, and by its letters."""
    model = fit.covariance_model
    known = [alias for alias, name in ALIASES.items() if name == model.name and fit.n_features > 1]
    letters = model.label(fit.n_features)
    return f"{known[0]} ({letters})" if known else letters


def _table(title: str | None, *headings: str) -> Table:
    """A table with its first column to the left, the others, of numbers, to the right."""
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
    )
    for j, heading in enumerate(headings):
        table.add_column(heading, justify="right" if j else "left", overflow="fold", no_wrap=j > 0)
    return table


def _decimals(sd: float) -> int:
    """Decimals that show an estimate to two significant digits of its standard deviation."""
    return min(max(1 - math.floor(math.log10(sd)), 0), 12) if sd > 0 else 3


def _number(x: float, decimals: int) -> str:
    return f"{x:.3e}" if decimals > 7 or abs(x) >= 1e9 else f"{x:.{decimals}f}"


def _parameter(name: str, feature: str, feature_bis: str) -> str:
    if name == "weights":
        return "weight"
    if name == "means":
        return f"mean {short(feature)}"
    if feature == feature_bis:
        return f"variance {short(feature)}"
    return f"covariance {short(feature)}, {short(feature_bis)}"
