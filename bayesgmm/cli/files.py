"""The files of `--out`: each is whole or not there, and `summary.json`, written last, says that all of them are."""

from __future__ import annotations

import json
import math
import os
import platform
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bayesgmm.errors import InputError
from bayesgmm.files import beside
from bayesgmm.names import one_line

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from bayesgmm.selection import Selection
    from bayesgmm.summary.analysis import Analysis

SUMMARY = "summary.json"
DRAWS = "posterior.nc"
PART = "posterior.part.nc"  # the draws of a fit that is not finished
UNFINISHED = "unfinished"  # directory of what a selection that is not finished has done
_TABLES = ("responsibilities.csv", "components.csv", "clusters.csv", "selection.csv")


class Written(NamedTuple):
    """The names of the files that were written, and why each picture that is not among them could not be drawn."""

    files: list[str]
    not_drawn: dict[str, str]


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
    """Make the directory, and an earlier result in it unfinished."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / SUMMARY).unlink(missing_ok=True)


def write_analysis(
    analysis: Analysis, directory: Path, run: dict[str, Any], tell: Callable[[int, int], None]
) -> Written:
    """Write everything about one fit.

    Parameters
    ----------
    analysis : Analysis
    directory : Path
    run : dict
        What else the summary should tell: the command and its arguments.
    tell : callable
        Called with the number of files that are written, and their total.
    """
    tables, pictures = _tables(analysis), _pictures(analysis)
    n_files = 1 + len(tables) + len(pictures)
    tell(0, n_files)
    begin(directory)
    (directory / "clusters.csv").unlink(missing_ok=True)  # of an earlier run
    _keep_draws(analysis, directory)
    for name, table in tables.items():
        _write_table(table, directory / name)
    drawn, not_drawn = _draw(pictures, directory, lambda done: tell(1 + len(tables) + done, n_files))
    _write_summary(directory, run | _summary(analysis) | {"not_drawn": not_drawn})
    return Written([DRAWS, *tables, *drawn, SUMMARY], not_drawn)


def _keep_draws(analysis: Analysis, directory: Path) -> None:
    """All draws in their file: the one that they were written to while they came, or a new one."""
    if analysis.draws_file is not None:
        os.replace(analysis.draws_file, directory / DRAWS)
    else:
        from bayesgmm.bayes.tree import write_tree

        write_tree(analysis.tree, directory / DRAWS)
    (directory / PART).unlink(missing_ok=True)


def _tables(analysis: Analysis) -> dict[str, pd.DataFrame]:
    """The tables by the names of their files."""
    tables = {"responsibilities.csv": _rows(analysis), "components.csv": analysis.parameters}
    if analysis.clusters is not None:
        tables["components.csv"] = analysis.parameters[["parameter", "component", "feature", "feature_bis", "em"]]
        tables["clusters.csv"] = analysis.clusters
    return tables


def _rows(analysis: Analysis) -> pd.DataFrame:
    """A line per row: what `Assignments.to_dataframe` tells of it, under the names and in the order of the file."""
    rows = analysis.assignments.to_dataframe()
    group, prefix = ("cluster", "cluster_") if analysis.ambiguous else ("label", "")
    names = {"label": group}
    for column, name in (("probability", "p"), ("lower", "lower"), ("upper", "upper")):
        names |= {f"{column}_{k}": f"{prefix}{name}_{k}" for k in range(analysis.draws.n_components)}
    names |= {name: f"{group}_{name}" for name in ("probability", "lower", "upper")}
    names |= {name: name for name in ("entropy", "overlap", "mutual_information", "tail_probability")}
    rows = rows[list(names)].rename(columns=names)
    rows.insert(0, "row", rows.index)
    if analysis.partition is not None and not analysis.ambiguous:
        rows["partition"] = analysis.partition.labels
    return rows


def _pictures(analysis: Analysis) -> dict[str, Callable[[], Figure]]:
    """The pictures by the names of their files; each is drawn when it is called."""
    from bayesgmm import plots

    a, fit, posterior = analysis.assignments, analysis.fit, analysis.posterior
    best, ball, ci_prob = analysis.partition, analysis.ball, analysis.ci_prob
    pictures: dict[str, Callable[[], Figure]] = {
        "clusters.png": lambda: plots.clusters(analysis.table, fit, posterior, a, ci_prob=ci_prob),
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


def _draw(
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
            failures[name] = f"{type(error).__name__}: {one_line(str(error))}"
            (directory / name).unlink(missing_ok=True)  # of an earlier run
    tell(len(pictures))
    return drawn, failures


def write_selection(
    table: pd.DataFrame, selection: Selection, directory: Path, run: dict[str, Any], *, draws: bool = True
) -> Written:
    """Write a selection, with its draws or without, and remove what was kept for an interrupted run to go on from.

    Parameters
    ----------
    table : DataFrame
    selection : Selection
    directory : Path
    run : dict
        What else the summary should tell: the command and its arguments.
    draws : bool
        Whether to write the posteriors, a file each.
    """
    import shutil

    from bayesgmm import plots
    from bayesgmm.bayes.tree import write_tree

    begin(directory)
    _write_table(selection.table, directory / "selection.csv")
    posteriors = {f"posterior-{name}-{K}.nc": tree for (name, K), tree in selection.posteriors.items() if draws}
    for name, tree in posteriors.items():
        write_tree(tree, directory / name)
    pictures: dict[str, Callable[[], Figure]] = {"criteria.png": lambda: plots.criteria(selection)}
    if selection.loos:
        pictures["predictions.png"] = lambda: plots.predictions(selection)
        pictures["averaged.png"] = lambda: plots.averaged(table, selection)
    drawn, not_drawn = _draw(pictures, directory)
    recommended = selection.recommend()
    content = {
        "conclusions": selection.text.splitlines(),
        "covariance": recommended.covariance,
        "n_components": recommended.n_components,
        "rivals": [list(rival) for rival in recommended.rivals],
        "selection": selection.table.to_dict("records"),
        "not_drawn": not_drawn,
    }
    _write_summary(directory, run | content)
    shutil.rmtree(directory / UNFINISHED, ignore_errors=True)
    return Written(["selection.csv", *drawn, *posteriors, SUMMARY], not_drawn)


def _write_table(table: pd.DataFrame, path: Path) -> None:
    with beside(path) as temporary:
        table.to_csv(temporary, index=False)


def _summary(analysis: Analysis) -> dict[str, Any]:
    """The numbers of an analysis."""
    fit, drawn, loo, best = analysis.fit, analysis.posterior, analysis.loo, analysis.partition
    table = analysis.parameters if analysis.clusters is None else analysis.clusters
    assert drawn.verdict is not None
    assert drawn.labels is not None
    return {
        "n_observations": fit.n_observations,
        "n_features": fit.n_features,
        "features": list(fit.features),
        "n_components": fit.n_components,
        "covariance": fit.covariance_model.label(fit.n_features),
        "n_parameters": fit.n_parameters,
        "log_likelihood": fit.log_likelihood,
        "bic": fit.bic,
        "aic": fit.aic,
        "icl": fit.icl,
        "em_status": fit.status.value,
        "em_iterations": fit.n_iterations,
        "priors": str(drawn.priors),
        "convergence": drawn.verdict.text,
        "divergences": int(drawn.statistics["diverging"].sum()) if "diverging" in drawn.statistics else 0,
        "max_r_hat": table["r_hat"].max(),
        "min_ess_bulk": table["ess_bulk"].min(),
        "ambiguous": analysis.ambiguous,
        "stray_rate": analysis.stray_rate,
        "ambiguous_rate": drawn.labels.ambiguous_rate,
        "elpd_loo": float(loo.elpd),
        "elpd_loo_se": float(loo.se),
        "pareto_k_max": float(loo.pareto_k.max()),
        "loo_repairs": loo.text,
        "partition": None if best is None else {"n_clusters": best.n_clusters, "expected_loss": best.expected_loss},
        "mode_probabilities": analysis.modes.probabilities.tolist(),
        "seconds": analysis.seconds,
    }


def _write_summary(directory: Path, content: dict[str, Any]) -> None:
    versions = {name: version(name) for name in ("numpy", "pymc", "nutpie", "arviz")}
    content = content | {"versions": {"python": platform.python_version(), **versions}}
    with beside(directory / SUMMARY) as path:
        path.write_text(json.dumps(_plain(content), indent=2, allow_nan=False) + "\n", "utf-8")


def _plain(value: Any) -> Any:
    """A value as JSON has it: no number that is not finite, no numpy scalar."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
