"""The tables and sentences of the command line: functions of what was found out, and of the width of the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.table import Table

from bayesgmm.bayes.quantities import quantities
from bayesgmm.em.grid import Key
from bayesgmm.intervals import tails
from bayesgmm.names import counted, one_line, percent, short
from bayesgmm.selection import CRITERIA
from bayesgmm.summary.analysis import Analysis
from bayesgmm.summary.words import ambiguity, decimals_of, model_name, number, parameter_name

if TYPE_CHECKING:
    import pandas as pd

_COMPONENTS, _FEATURES, _PARAMETERS, _ROWS = 9, 6, 30, 8  # the most to print of each
_FITS = 8  # the most of a selection to print, but for the best by some criterion


def fit_page(analysis: Analysis, source: str, width: int) -> Iterator[Table | str]:
    """What is printed about one fit, before the sentences.

    Parameters
    ----------
    analysis : Analysis
    source : str
        The table's name.
    width : int
        Of the page, in columns.
    """
    fit = analysis.fit
    components = counted(fit.n_components, "component")
    yield f"{described(fit.n_observations, fit.features, source)}; {components}, covariance {model_name(fit)}"
    if analysis.ambiguous:
        yield ambiguity(analysis)
    yield ""
    for table in components_tables(analysis, width):
        yield table
        yield ""
    if not analysis.ambiguous:
        yield comparison_table(analysis)
        yield ""
    uncertain = least_certain_table(analysis, width)
    if analysis.ambiguous and uncertain is not None:
        yield (
            "A row is in the cluster that the partition puts it in, which need not be its likeliest: of the rows that "
            "share its component, the part in a cluster is that cluster's probability."
        )
    yield f"With one {analysis.assignments.group} every row belongs to it." if uncertain is None else uncertain
    yield ""


def selection_page(
    fits: pd.DataFrame, rankings: Mapping[str, Sequence[Key]], title: str, width: int, ambiguous: Sequence[int] = ()
) -> Iterator[Table | str]:
    """What is printed about a selection, before the sentences.

    Parameters
    ----------
    fits : DataFrame
        The table of a `Selection`.
    rankings : mapping to sequence of (covariance, n_components)
        The fits from best to worst by each criterion, the one that decides first.
    title : str
        The first line.
    width : int
        Of the page, in columns.
    ambiguous : sequence of int
        The numbers of components that the draws do not keep apart.
    """
    yield title
    if ambiguous:
        which = ", ".join(f"{K}" for K in ambiguous)
        yield (
            f"The draws do not keep the components of K = {which} apart: nothing can be said of a single one, and the "
            f"files in {', '.join(f'k{K}/' for K in ambiguous)} go by the clusters of the partition. Prefer fewer "
            "components, or the same covariance for all (--covariance tied)."
        )
    yield ""
    yield criteria_table(fits, rankings, width)
    yield ""


def described(n_rows: int, columns: Sequence[str], source: str) -> str:
    """A table's name, size and first columns."""
    names = ", ".join(map(short, columns[:4])) + ", ..." * (len(columns) > 4)
    return f"{one_line(source)}: {n_rows} rows, {counted(len(columns), 'column')} ({names})"


def components_tables(analysis: Analysis, width: int) -> list[Table]:
    """Posterior mean and interval of what describes each component, or cluster: as many tables as ``width`` makes."""
    fit, K, group = analysis.fit, analysis.draws.n_components, analysis.assignments.group
    labels = analysis.assignments.labels
    of_sample = analysis.posterior.source is not None
    lines = [("rows shown" if of_sample else "rows", [str(n) for n in np.bincount(labels[labels >= 0], minlength=K)])]
    diagonal = fit.covariance_model.diagonal
    for quantity, feature, draws in quantities(analysis.draws, fit.features[:_FEATURES], diagonal=diagonal):
        name = quantity if feature is None else f"{quantity} {short(feature)}"
        decimals = decimals_of(draws.std(axis=(0, 1)).min())
        numbers = [draws.mean(axis=(0, 1)), *np.quantile(draws, tails(analysis.ci_prob), axis=(0, 1))]
        texts = [[number(x, decimals) for x in row] for row in numbers]
        lines.append((name, [f"{mean} [{low}, {high}]" for mean, low, high in zip(*texts, strict=True)]))
    title = f"The {group}s: posterior mean and {percent(analysis.ci_prob)} interval"
    tables = tables_that_fit(title, lines, group, width)
    hidden = {group: K - _COMPONENTS, "feature": fit.n_features - _FEATURES}
    others = [counted(n, f"other {thing}") for thing, n in hidden.items() if n > 0]
    if others:
        tables[-1].caption = f"in {group}s.csv: {' and '.join(others)}"
    return tables


def tables_that_fit(title: str, lines: Sequence[tuple[str, Sequence[str]]], group: str, width: int) -> list[Table]:
    """A column for each of the first components or clusters, in as many tables as ``width`` makes.

    Parameters
    ----------
    title : str
    lines : sequence of (str, cells)
        What a line is about, and a cell for each component or cluster.
    group : {"component", "cluster"}
    width : int
    """
    K = min(len(lines[0][1]), _COMPONENTS)
    cell = max(14, *(len(text) + 3 for _, cells in lines for text in cells))
    at_once = max((width - max(len(name) for name, _ in lines) - 4) // cell, 1)
    tables = []
    for first in range(0, K, at_once):
        shown = range(K)[first : first + at_once]
        table = plain_table(title if first == 0 else None, "", *(f"{group} {k}" for k in shown))
        for name, cells in lines:
            table.add_row(name, *(cells[k] for k in shown))
        tables.append(table)
    return tables


def comparison_table(analysis: Analysis) -> Table:
    """EM beside the posterior."""
    parameters = analysis.parameters
    free: list[Any] = parameters[parameters["sd"] > 0].to_dict("records")  # a single component's weight is not
    shown = free
    if len(free) > _PARAMETERS:
        shown = [row for row in free if row["parameter"] != "covariances" or row["feature"] == row["feature_bis"]]
        shown = shown[:_PARAMETERS]
    headings = ("EM", "posterior", "sd", f"{percent(analysis.ci_prob)} interval", "shift")
    table = plain_table("EM beside the posterior mean", "parameter", "component", *headings)
    for i, row in enumerate(shown):
        if i > 0 and row["parameter"] != shown[i - 1]["parameter"]:
            table.add_section()
        decimals = decimals_of(row["sd"])
        em, mean, sd, low, high = (number(row[x], decimals) for x in ("em", "mean", "sd", "lower", "upper"))
        name = parameter_name(row["parameter"], row["feature"], row["feature_bis"])
        component = "" if row["parameter"] == "noise_weight" else str(row["component"])
        table.add_row(name, component, em, mean, sd, f"[{low}, {high}]", f"{round(row['shift'], 1) + 0.0:+}")
    table.caption = "shift: from the EM estimate to the posterior mean, in posterior sds"
    if len(shown) < len(free):
        table.caption += f"; the {len(free) - len(shown)} other parameters are in components.csv"
    return table


def least_certain_table(analysis: Analysis, width: int) -> Table | None:
    """The rows whose component, or cluster, is least certain; None where there is only one."""
    a = analysis.assignments
    if analysis.draws.n_components == 1:
        return None
    certainty, K = a.label_probability, a.probabilities.shape[1]
    parts = [(a.probabilities, a.noise), (a.lower, a.noise_lower), (a.upper, a.noise_upper)]
    numbers = [each if noise is None else np.column_stack((each, noise)) for each, noise in parts]
    n_values = max((width - 65) // 15, 1)  # 65 columns for the rest, 15 for each value
    features = [short(name, 12) for name in analysis.fit.features[:n_values]]
    table = plain_table(
        f"The least certain rows: their {a.group} and the likeliest other, with {percent(a.ci_prob)} intervals",
        *("row", *features, a.group, "probability", "or", "probability"),
    )
    doubtful = int((certainty < 0.9).sum())
    for row in np.argsort(certainty, kind="stable")[: min(max(doubtful, 3), _ROWS)]:
        cells = ["missing" if np.isnan(x) else f"{x:.6g}" for x in analysis.table.iloc[row, :n_values]]
        label = a.labels[row] if a.labels[row] >= 0 else K
        for k in (label, next(k for k in np.argsort(-numbers[0][row], kind="stable") if k != label)):
            p, low, high = (values[row, k] for values in numbers)
            cells += [str(k) if k < K else "none", f"{p:.2f} [{low:.2f}, {high:.2f}]"]
        table.add_row(str(row), *cells)
    of_sample = analysis.posterior.source is not None
    counting = "rows are those shown, counted from 0" if of_sample else "rows count from 0, without the header"
    table.caption = (
        f"{counted(doubtful, 'row')} of {len(certainty)} whose {a.group} has a probability below 0.9; {counting}; "
        "all are in responsibilities.csv"
    )
    return table


def criteria_table(frame: pd.DataFrame, rankings: Mapping[str, Sequence[Key]], width: int) -> Table:
    """The fits that come first by the first criterion, and the best by every other, side by side.

    Standard errors and shares of replicates are left out where they would not fit in ``width``.
    """
    names = [name for name in CRITERIA if name in rankings]
    best = {name: ranking[0] for name, ranking in rankings.items()}
    first = next(iter(rankings.values()))
    shown = list(dict.fromkeys([*first[:_FITS], *best.values()]))
    with_loo = "elpd_loo" in frame
    brief = len(names) > (4 if width >= 100 else 2)
    headings = ["fit", *(() if with_loo else ("log-likelihood", "para-\nmeters"))]
    headings += [_criterion_heading(frame, name, brief) for name in names]
    headings += ["worst\nPareto k", "weight"] if with_loo else []
    table = plain_table("Which mixture? Covariance model and number of components", *headings)
    table.columns[0].no_wrap = True
    lines = frame.set_index(["covariance", "n_components"])
    for key in shown:
        line = lines.loc[key]
        cells = [f"{key[0]},{key[1]}"]
        cells += [] if with_loo else [f"{line['log_likelihood']:.1f}", str(line["n_parameters"])]
        cells += [_criterion_cell(line, name, brief, best=key == best[name]) for name in names]
        cells += ["-" if np.isnan(line[x]) else f"{line[x]:.2f}" for x in ("pareto_k_max", "weight") if with_loo]
        table.add_row(*cells)
    table.caption = "* the best by this criterion; BIC, ICL, AIC: smaller is better, held-out and LOO: larger"
    table.caption += "; standard errors are in selection.csv" if brief else ", ± standard error"
    if len(frame) > len(shown):
        table.caption += f"; {counted(len(frame) - len(shown), 'other fit')} in selection.csv"
    return table


def _criterion_heading(frame: pd.DataFrame, name: str, brief: bool) -> str:
    return CRITERIA[name].heading + ("\nchosen in" if f"{name}_frequency" in frame and not brief else "")


def _criterion_cell(line: pd.Series, name: str, brief: bool, *, best: bool) -> str:
    """A criterion of one fit, with a star if it is the best, and if there is room its share of replicates and error."""
    column = CRITERIA[name].column
    if np.isnan(line[column]):
        return "-"
    cell = f"{line[column]:.{4 if CRITERIA[name].per_row else 1}f}{'*' * best}"
    if f"{name}_frequency" in line and not brief:
        cell += f" {line[f'{name}_frequency']:4.0%}"
    if f"{column}_se" in line and not brief:
        cell += f" ± {_rounded(line[f'{column}_se'])}"
    return cell


def _rounded(se: float) -> str:
    return f"{se:.0f}" if se >= 1 else f"{se:.1g}"


def plain_table(title: str | None, *headings: str) -> Table:
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
