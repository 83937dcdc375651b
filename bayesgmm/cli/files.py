"""The files of `--out`: each is whole or not there, and `summary.json`, written last, says that all of them are."""

from __future__ import annotations

import json
import os
import platform
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from zipfile import BadZipFile

import numpy as np

from bayesgmm.em.record import fit_from_arrays, fit_to_arrays
from bayesgmm.em.result import EMFit
from bayesgmm.errors import InputError
from bayesgmm.files import beside, plain_json
from bayesgmm.names import one_line

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.figure import Figure

    from bayesgmm.clusters.assignment import Assignments
    from bayesgmm.page.facts import Facts
    from bayesgmm.selection import Selection
    from bayesgmm.summary.analysis import Analysis

SUMMARY = "summary.json"
DRAWS = "posterior.nc"
PAGE = "report.html"
FIT = "fit.npz"  # a fit by EM, with its rows
_TABLE, _ERRORS, _IDS = "table", "table_error_sd", "ids"  # in that file, beside the fit; the first two as in the draws'
PART = "posterior.part.nc"  # the draws of a fit that is not finished
UNFINISHED = "unfinished"  # directory of what a selection that is not finished has done
ROWS = "responsibilities.csv"
IMPUTED = "imputed.csv"
DIGITS = 6  # of what is said of rows
_TABLES = (ROWS, "components.csv", "clusters.csv", IMPUTED, "selection.csv")


class Kept(NamedTuple):
    """A fit that was written, and what a page of it needs: the rows, their errors if any, and what they are called."""

    fit: EMFit
    rows: pd.DataFrame
    errors: pd.DataFrame | None
    ids: list[str] | None


class Written(NamedTuple):
    """The names of the files that were written, and the content of the summary.

    The summary says in ``not_drawn`` why each picture that is not among the files could not be drawn.
    """

    files: list[str]
    summary: dict[str, Any]


def refuse_to_overwrite_input(table: Path, directory: Path) -> None:
    """Check that no output takes the place of the table.

    Raises
    ------
    InputError
        If one would.
    """
    if table.resolve() in {(directory / name).resolve() for name in _TABLES}:
        raise InputError(f"{table} would be overwritten by a result of the same name; give another --out")


def refuse_to_overwrite(directory: Path, *, own_command: str | None = None) -> None:
    """Check before any work that a directory can take a result and holds no finished one.

    Finished is a directory with a summary, unless it is one of several in a directory that is itself unfinished.

    Parameters
    ----------
    directory : Path
        It need not exist.
    own_command : str, optional
        A command whose earlier result may be overwritten.

    Raises
    ------
    InputError
        If it is a file, cannot be written to, or holds a finished result.
    """
    nearest = next(p for p in (directory, *directory.absolute().parents) if p.exists())
    if not nearest.is_dir():
        raise InputError(f"{nearest} is a file; give --out a directory")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(f"nothing can be written to {nearest}; give another directory with --out")
    summary, parent = directory / SUMMARY, directory.parent
    one_of_several = (parent / UNFINISHED).is_dir() and not (parent / SUMMARY).exists()
    if summary.exists() and not one_of_several and (own_command is None or _command_of(summary) != own_command):
        raise InputError(f"{directory} holds a finished result; give --force to overwrite it, or another --out")


def _command_of(summary: Path) -> str | None:
    try:
        return json.loads(summary.read_text("utf-8")).get("command")
    except (OSError, ValueError, AttributeError):
        return None


def begin(directory: Path) -> None:
    """Make the directory, and an earlier result in it unfinished, without what the next may not write."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in (SUMMARY, "clusters.csv", IMPUTED, FIT):  # the others are not always written
        (directory / name).unlink(missing_ok=True)


def imputed(source: Any, *rows: Any, error_sd: Any = None, ids: list[str] | None = None) -> dict[str, pd.DataFrame]:
    """What `impute` finds of the unknown values, by the name of its file; nothing where all are known."""
    from bayesgmm.clusters.imputation import impute

    values = impute(source, *rows, error_sd=error_sd).to_dataframe()
    if ids is not None:
        values.insert(1, "id", [ids[row] for row in values["row"]])
    return {IMPUTED: values} if len(values) else {}


def write_analysis(
    analysis: Analysis, own: pd.DataFrame, directory: Path, run: dict[str, Any], tell: Callable[[int, int], None]
) -> Written:
    """Write everything about one fit.

    Parameters
    ----------
    analysis : Analysis
    own : DataFrame
        The columns of the user's table, as they stand there.
    directory : Path
    run : dict
        What else the summary should tell: the command and its arguments.
    tell : callable
        Called with the number of files that are written, and their total.
    """
    from bayesgmm.page.facts import facts_of_analysis

    tables, pictures = _tables(analysis, own, ids_of(own, run)), _pictures(analysis)
    n_files = 2 + len(tables) + len(pictures)
    tell(0, n_files)
    begin(directory)
    _keep_draws(analysis, directory)
    for name, table in tables.items():
        write_table(table, directory / name, DIGITS if name in (ROWS, IMPUTED) else None)
    drawn, not_drawn = draw(pictures, directory, lambda done: tell(1 + len(tables) + done, n_files))
    page, no_page = draw_page(
        lambda: facts_of_analysis(analysis, source_of(run), ids=ids_of(own, run), run=run), directory
    )
    tell(n_files, n_files)
    summary = write_summary(directory, run | _summary(analysis) | {"not_drawn": not_drawn | no_page})
    return Written([*page, DRAWS, *tables, *drawn, SUMMARY], summary)


def _keep_draws(analysis: Analysis, directory: Path) -> None:
    """All draws in their file: the one that they were written to while they came, or a new one."""
    place_draws(analysis.tree, analysis.draws_file, directory / DRAWS)
    (directory / PART).unlink(missing_ok=True)


def place_draws(tree: xr.DataTree, written: Path | None, path: Path) -> None:
    """A file of draws by its final name: by the side of that in which they are already, or a new one.

    The first file stays, since a run that is interrupted before its end goes on from there.
    """
    if written is None:
        from bayesgmm.bayes.tree import write_tree

        return write_tree(tree, path)
    with beside(path) as temporary:
        try:
            os.link(written, temporary)
        except OSError:  # of a file system without links
            shutil.copyfile(written, temporary)


def _tables(analysis: Analysis, own: pd.DataFrame, ids: list[str] | None) -> dict[str, pd.DataFrame]:
    """The tables by the names of their files."""
    rows = beside_own(own, said_of_rows(analysis.assignments))
    if analysis.partition is not None and not analysis.ambiguous:
        rows["partition"] = analysis.partition.labels
    tables = {ROWS: rows, "components.csv": analysis.parameters, **imputed(analysis.posterior, ids=ids)}
    if analysis.clusters is not None:
        tables["components.csv"] = analysis.parameters[["parameter", "component", "feature", "feature_bis", "em"]]
        tables["clusters.csv"] = analysis.clusters
    return tables


def said_of_rows(assignments: Assignments) -> pd.DataFrame:
    """A line per row: what `Assignments.to_dataframe` tells of it, under the names and in the order of the file."""
    clustered = assignments.partition is not None
    group, prefix = ("cluster", "cluster_") if clustered else ("label", "")
    names = {"label": group}
    for column, name in (("probability", "p"), ("lower", "lower"), ("upper", "upper")):
        names |= {f"{column}_{k}": f"{prefix}{name}_{k}" for k in range(assignments.probabilities.shape[1])}
    names |= {name: f"{group}_{name}" for name in ("probability", "lower", "upper")}
    names |= {name: name for name in ("entropy", "overlap", "mutual_information", "tail_probability")}
    if assignments.noise is not None:
        names |= {name: name for name in ("noise", "noise_lower", "noise_upper")}
    return assignments.to_dataframe()[list(names)].rename(columns=names)


def beside_own(own: pd.DataFrame, found: pd.DataFrame, first: int = 0) -> pd.DataFrame:
    """The user's columns as they stand, beside what was found of their rows.

    Where names are taken, the user's columns are called table_NAME.
    """
    import pandas as pd

    taken = {"row", "partition", *found.columns}
    columns = {f"table_{name}" if name in taken else name: own[name].astype(object) for name in own.columns}
    rows = pd.DataFrame({"row": range(first, first + len(found))} | columns)
    return pd.concat([rows, found], axis=1)


def _pictures(analysis: Analysis) -> dict[str, Callable[[], Figure]]:
    """The pictures by the names of their files; each is drawn when it is called."""
    from bayesgmm import plots

    a, fit, posterior = analysis.assignments, analysis.fit, analysis.posterior
    best, ball, ci_prob = analysis.partition, analysis.ball, analysis.ci_prob
    pictures: dict[str, Callable[[], Figure]] = {
        "clusters.png": lambda: plots.clusters(posterior.table_or_sample, fit, posterior, a, ci_prob=ci_prob),
        "em_path.png": lambda: plots.em_path(fit),
        "posterior.png": lambda: plots.posterior(posterior, partition=a.partition, ci_prob=ci_prob),
    }
    if analysis.draws.n_components > 1:
        pictures["uncertainty.png"] = lambda: plots.uncertainty(posterior, a)
        pictures["least_certain.png"] = lambda: plots.least_certain(a, analysis.table)
    if best is not None and ball is not None:
        pictures["similarity.png"] = lambda: plots.similarity(posterior, best)
        pictures["credible_ball.png"] = lambda: plots.credible_ball(analysis.table, best, ball)
    return pictures


def draw(
    pictures: dict[str, Callable[[], Figure]], directory: Path, tell: Callable[[int], None] = lambda done: None
) -> tuple[list[str], dict[str, str]]:
    """Draw pictures into files: those that were, and why the others could not be. A picture is never worth a run."""
    drawn: list[str] = []
    failures: dict[str, str] = {}
    for done, (name, picture) in enumerate(pictures.items()):
        tell(done)
        try:
            with warnings.catch_warnings(), beside(directory / name) as path:
                warnings.filterwarnings("ignore", "Glyph .* missing from")  # a column's name in a rare script: boxes
                picture().savefig(path, format="png", dpi=150)
            drawn.append(name)
        except Exception as error:
            failures[name] = _why_not(error, directory / name)
    tell(len(pictures))
    return drawn, failures


def draw_page(facts: Callable[[], Facts], directory: Path) -> tuple[list[str], dict[str, str]]:
    """Write the page to look at: its name if that went well, and why not otherwise. It is never worth a run either."""
    from bayesgmm.page import write_page

    try:
        return [write_page(facts(), directory / PAGE).name], {}
    except Exception as error:
        return [], {PAGE: _why_not(error, directory / PAGE)}


def _why_not(error: Exception, path: Path) -> str:
    """Why a file could not be written, in a line; one of an earlier run does not stay in its place."""
    path.unlink(missing_ok=True)
    return f"{type(error).__name__}: {one_line(str(error))}"


def ids_of(own: pd.DataFrame, run: dict[str, Any]) -> list[str] | None:
    """What the rows are called: the column that --id names, if it is there."""
    name = run.get("arguments", {}).get("id")
    return own[name].astype(str).tolist() if name in own else None


def source_of(run: dict[str, Any]) -> str:
    """The name of the table, by what is known of a run; of a table in parts how many of its rows are shown."""
    name, shown, n = str(run.get("arguments", {}).get("source", "")), run.get("n_shown"), run.get("n_observations")
    return name if shown == n or shown is None else f"{name}: a random sample of {shown} of its {n} rows"


def keep_fit(kept: Kept, directory: Path) -> None:
    """Write a fit with its rows, all digits of them."""
    arrays = fit_to_arrays(kept.fit) | {_TABLE: kept.rows.to_numpy(float)}
    if kept.errors is not None:
        arrays[_ERRORS] = kept.errors.to_numpy(float)
    if kept.ids is not None:
        arrays[_IDS] = np.array(kept.ids, dtype=str)
    with beside(directory / FIT) as path, path.open("wb") as file:
        np.savez(file, **arrays)


def kept_fit(directory: Path) -> Kept:
    """The fit and the rows that `keep_fit` wrote.

    Raises
    ------
    InputError
        If they are not there, or cannot be read.
    """
    import pandas as pd

    fit, arrays = _read_fit(directory)
    if _TABLE not in arrays:
        raise older(directory)
    rows = pd.DataFrame(arrays[_TABLE], columns=list(fit.features))
    errors = pd.DataFrame(arrays[_ERRORS], columns=rows.columns) if _ERRORS in arrays else None
    return Kept(fit, rows, errors, arrays[_IDS].tolist() if _IDS in arrays else None)


def written_fit(directory: Path) -> EMFit:
    """The fit alone that `keep_fit` wrote, of older results too, which lack its rows.

    Raises
    ------
    InputError
        If it is not there, or cannot be read.
    """
    return _read_fit(directory)[0]


def _read_fit(directory: Path) -> tuple[EMFit, dict[str, np.ndarray]]:
    try:
        # numpy does not close what it opened itself where the archive is broken.
        with (directory / FIT).open("rb") as file, np.load(file, allow_pickle=False) as content:
            arrays = dict(content)
        return fit_from_arrays(arrays), arrays
    except (OSError, EOFError, BadZipFile, KeyError, ValueError) as error:
        raise InputError(f"{directory / FIT} is not the file of a fit that bayesgmm has written: {error}") from None


def older(directory: Path) -> InputError:
    """The error to raise where a result lacks what this version writes."""
    return InputError(
        f"{directory} was written by an older version of bayesgmm and lacks what its report is made of; "
        "its files are as they were, and the command with --force writes them anew"
    )


def write_selection(
    table: pd.DataFrame,
    selection: Selection,
    directory: Path,
    run: dict[str, Any],
    *,
    errors: pd.DataFrame | None = None,
    ids: list[str] | None = None,
    draws: bool = True,
) -> Written:
    """Write a selection, with its draws or without, and remove what was kept for an interrupted run to go on from.

    Parameters
    ----------
    table : DataFrame
    selection : Selection
    directory : Path
    run : dict
        What else the summary should tell: the command and its arguments.
    errors : DataFrame, optional
        Standard deviations of the errors of the table's values.
    ids : list of str, optional
        What the rows are called.
    draws : bool
        Whether to write the posteriors, a file each, and the fit to report.
    """
    from bayesgmm import plots
    from bayesgmm.page.comparison import Comparison
    from bayesgmm.page.facts import facts_of_selection

    begin(directory)
    write_table(selection.table, directory / "selection.csv")
    posteriors = {f"posterior-{name}-{K}.nc": (name, K) for name, K in selection.posteriors if draws}
    for file, key in posteriors.items():
        place_draws(selection.posteriors[key], selection.posterior_files.get(key), directory / file)
    if draws:
        keep_fit(Kept(selection.recommend().fit, table, errors, ids), directory)
    pictures: dict[str, Callable[[], Figure]] = {"criteria.png": lambda: plots.criteria(selection)}
    if selection.loos:
        pictures["predictions.png"] = lambda: plots.predictions(selection)
        pictures["averaged.png"] = lambda: plots.averaged(table, selection)
    drawn, not_drawn = draw(pictures, directory)
    seed = run.get("arguments", {}).get("seed", 0)
    page, no_page = draw_page(
        lambda: facts_of_selection(selection, table, source_of(run), error_sd=errors, ids=ids, run=run, rng=seed),
        directory,
    )
    content = Comparison.of(selection).record | {"not_drawn": not_drawn | no_page}
    summary = write_summary(directory, run | content)
    shutil.rmtree(directory / UNFINISHED, ignore_errors=True)
    return Written([*page, "selection.csv", *drawn, *posteriors, *[FIT] * draws, SUMMARY], summary)


def endings(out: Path, names: Sequence[str], not_drawn: dict[str, str]) -> Iterator[str]:
    """What was written, and what was not."""
    yield f"Written to {out}: {', '.join(names)}."
    for name, why in not_drawn.items():
        yield f"{name} could not be drawn ({why}); everything else is complete."


def write_table(table: pd.DataFrame, path: Path, digits: int | None = None) -> None:
    """Write a table as CSV, its columns of float64 with so many digits or all."""
    with beside(path) as temporary:
        table.to_csv(temporary, index=False, float_format=None if digits is None else f"%.{digits}g")


def _summary(analysis: Analysis) -> dict[str, Any]:
    """The numbers of an analysis."""
    fit, drawn, loo, best = analysis.fit, analysis.posterior, analysis.loo, analysis.partition
    table = analysis.parameters if analysis.clusters is None else analysis.clusters
    assert drawn.verdict is not None
    assert drawn.labels is not None
    return summary_of_fit(fit) | {
        "ci_prob": analysis.ci_prob,
        "priors": str(drawn.priors),
        "convergence": drawn.verdict.text,
        "divergences": int(drawn.statistics["diverging"].sum()) if "diverging" in drawn.statistics else 0,
        "max_r_hat": table["r_hat"].max(),
        "min_ess_bulk": table["ess_bulk"].min(),
        "ambiguous": analysis.ambiguous,
        "stray_rate": analysis.stray_rate,
        "ambiguous_rate": drawn.labels.ambiguous_rate,
        "elpd_loo": None if loo is None else float(loo.elpd),
        "elpd_loo_se": None if loo is None else float(loo.se),
        "pareto_k_max": None if loo is None else float(loo.pareto_k.max()),
        "loo_repairs": None if loo is None else loo.text,
        "partition": None if best is None else {"n_clusters": best.n_clusters, "expected_loss": best.expected_loss},
        "mode_probabilities": analysis.modes.probabilities.tolist(),
        "seconds": analysis.seconds,
    }


def summary_of_fit(fit: EMFit) -> dict[str, Any]:
    """The numbers of a fit."""
    return {
        "n_observations": fit.n_observations,
        "n_features": fit.n_features,
        "features": list(fit.features),
        "missing": dict(zip(fit.missing.features, fit.missing.share, strict=True)),
        "n_components": fit.n_components,
        "covariance": fit.covariance_model.label(fit.n_features),
        "n_parameters": fit.n_parameters,
        "log_likelihood": fit.log_likelihood,
        "bic": fit.bic,
        "aic": fit.aic,
        "icl": fit.icl,
        "em_status": fit.status.value,
        "em_iterations": fit.n_iterations,
    }


def write_summary(directory: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Write the summary, with the versions of what made it, and return it as it is in the file."""
    versions = {name: version(name) for name in ("numpy", "pymc", "nutpie", "arviz")}
    summary = plain_json(content | {"versions": {"python": platform.python_version(), **versions}})
    with beside(directory / SUMMARY) as path:
        path.write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n", "utf-8")
    return summary
