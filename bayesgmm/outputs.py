"""The directory a run leaves: every file is whole or not there, and `summary.json`, the last, says that all are."""

from __future__ import annotations

import json
import math
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayesgmm.errors import InputError
from bayesgmm.files import beside

if TYPE_CHECKING:
    from bayesgmm.report import Analysis
    from bayesgmm.selection import Selection

SUMMARY = "summary.json"
PART = "posterior.part.nc"  # the draws of a fit that is not finished
UNFINISHED = "unfinished"  # directory of what a selection that is not finished has done
_TABLES = ("responsibilities.csv", "components.csv", "selection.csv")


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
    there = next(p for p in (directory, *directory.absolute().parents) if p.exists())
    if not there.is_dir():
        raise InputError(f"{there} is a file; give --out a directory")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"nothing can be written to {there}; give another directory with --out")
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


def write_analysis(analysis: Analysis, directory: Path, run: dict[str, Any]) -> list[str]:
    """Write everything about one fit; the names of the files.

    Parameters
    ----------
    analysis : Analysis
    directory : Path
    run : dict
        What else the summary should tell: the command and its arguments.
    """
    import numpy as np
    import pandas as pd

    from bayesgmm import plots
    from bayesgmm.bayes.tree import write_tree

    begin(directory)
    fit, a = analysis.fit, analysis.assignments
    write_tree(analysis.tree, directory / "posterior.nc")
    (directory / PART).unlink(missing_ok=True)
    columns = {"row": np.arange(len(a.labels)), "label": a.labels}
    for name, values in (("p", a.probabilities), ("lower", a.lower), ("upper", a.upper)):
        columns |= {f"{name}_{k}": values[:, k] for k in range(fit.n_components)}
    columns |= {name: getattr(a, name) for name in ("label_probability", "label_lower", "label_upper")}
    columns |= {name: getattr(a, name) for name in ("entropy", "overlap", "mutual_information", "tail_probability")}
    if analysis.partition is not None:
        columns["partition"] = analysis.partition.labels
    with beside(directory / "responsibilities.csv") as path:
        pd.DataFrame(columns).to_csv(path, index=False)
    with beside(directory / "components.csv") as path:
        analysis.comparison.to_csv(path, index=False)
    pictures = {
        "clusters.png": plots.clusters(analysis.table, fit, analysis.tree, a),
        "em_path.png": plots.em_path(fit),
        "posterior.png": plots.posterior(analysis.tree, fit),
    }
    if fit.n_components > 1:
        pictures["uncertainty.png"] = plots.uncertainty(analysis.tree, a)
        pictures["least_certain.png"] = plots.least_certain(a)
    if analysis.partition is not None and analysis.ball is not None:
        pictures["similarity.png"] = plots.similarity(analysis.tree, analysis.partition)
        pictures["credible_ball.png"] = plots.credible_ball(analysis.table, analysis.partition, analysis.ball)
    for name, figure in pictures.items():
        with beside(directory / name) as path:
            figure.savefig(path, format="png", dpi=150)
    _write_summary(directory, run | _summary(analysis))
    return ["posterior.nc", "responsibilities.csv", "components.csv", *pictures, SUMMARY]


def write_selection(
    X: Any, selection: Selection, directory: Path, run: dict[str, Any], *, draws: bool = True
) -> list[str]:
    """Write a selection, with its draws or without, and remove what was kept until here; the names of the files."""
    import shutil

    from bayesgmm import plots
    from bayesgmm.bayes.tree import write_tree

    begin(directory)
    with beside(directory / "selection.csv") as path:
        selection.table.to_csv(path, index=False)
    pictures = {"criteria.png": plots.criteria(selection)}
    if selection.loos:
        pictures |= {"predictions.png": plots.predictions(selection), "averaged.png": plots.averaged(X, selection)}
    for name, figure in pictures.items():
        with beside(directory / name) as path:
            figure.savefig(path, format="png", dpi=150)
    posteriors = {f"posterior-{name}-{K}.nc": tree for (name, K), tree in selection.posteriors.items() if draws}
    for name, tree in posteriors.items():
        write_tree(tree, directory / name)
    said = selection.recommend()
    content = {
        "conclusions": selection.text.splitlines(),
        "covariance": said.covariance,
        "n_components": said.n_components,
        "rivals": [list(rival) for rival in said.rivals],
        "selection": selection.table.to_dict("records"),
    }
    _write_summary(directory, run | content)
    shutil.rmtree(directory / UNFINISHED, ignore_errors=True)
    return ["selection.csv", *pictures, *posteriors, SUMMARY]


def _summary(analysis: Analysis) -> dict[str, Any]:
    fit, tree, loo, table, found = analysis.fit, analysis.tree, analysis.loo, analysis.comparison, analysis.partition
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
        "priors": tree.attrs["priors"],
        "convergence": tree.attrs["convergence"],
        "divergences": int(tree["sample_stats"]["diverging"].sum()),
        "max_r_hat": table["r_hat"].max(),
        "min_ess_bulk": table["ess_bulk"].min(),
        "ambiguous_rate": tree.attrs["ambiguous_rate"],
        "elpd_loo": float(loo.elpd),
        "elpd_loo_se": float(loo.se),
        "pareto_k_max": float(loo.pareto_k.max()),
        "loo_repairs": loo.text,
        "partition": None if found is None else {"n_clusters": found.n_clusters, "expected_loss": found.expected_loss},
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
