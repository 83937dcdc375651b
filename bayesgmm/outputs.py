"""The directory a run leaves: every file is written beside and renamed, `summary.json` last."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayesgmm import __version__
from bayesgmm.covariance import CovarianceModel
from bayesgmm.em.fit import EMFit
from bayesgmm.em.search import Maximum, Start, Status
from bayesgmm.errors import InputError
from bayesgmm.mixture import GaussianMixture

if TYPE_CHECKING:
    import pandas as pd

    from bayesgmm.report import Analysis, Candidate
    from bayesgmm.selection import Selection

SUMMARY = "summary.json"
PART = "posterior.part.nc"  # the draws of a run that is not finished
_KEPT = (
    *("log_likelihood", "n_iterations", "remaining_gain", "n_observations"),
    *("total_weight", "features", "certainty"),
)
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
    summary = directory / SUMMARY
    if summary.exists() and (own_command is None or _command_of(summary) != own_command):
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

    begin(directory)
    fit, a = analysis.fit, analysis.assignments
    with _beside(directory / "posterior.nc") as path:
        analysis.tree.to_netcdf(path, engine="h5netcdf")
    (directory / PART).unlink(missing_ok=True)
    columns = {"row": np.arange(len(a.labels)), "label": a.labels}
    for name, values in (("p", a.probabilities), ("lower", a.lower), ("upper", a.upper)):
        columns |= {f"{name}_{k}": values[:, k] for k in range(fit.n_components)}
    columns |= {name: getattr(a, name) for name in ("label_probability", "label_lower", "label_upper")}
    columns |= {name: getattr(a, name) for name in ("entropy", "overlap", "mutual_information", "tail_probability")}
    if analysis.partition is not None:
        columns["partition"] = analysis.partition.labels
    with _beside(directory / "responsibilities.csv") as path:
        pd.DataFrame(columns).to_csv(path, index=False)
    with _beside(directory / "components.csv") as path:
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
        with _beside(directory / name) as path:
            figure.savefig(path, format="png", dpi=150)
    _write_summary(directory, run | _summary(analysis))
    return ["posterior.nc", "responsibilities.csv", "components.csv", *pictures, SUMMARY]


def write_selection(rows: Sequence[Candidate], words: Sequence[str], directory: Path, run: dict[str, Any]) -> None:
    """Write the comparison of several numbers of components, and with it that the whole run is finished."""
    import pandas as pd

    with _beside(directory / "selection.csv") as path:
        pd.DataFrame([asdict(row) for row in rows]).to_csv(path, index=False)
    _write_summary(directory, run | {"conclusions": list(words), "selection": [asdict(row) for row in rows]})


def write_grid(X: Any, selection: Selection, directory: Path, run: dict[str, Any]) -> list[str]:
    """Write a selection, and throw away the fits that were kept for a run taken up; the names of the files."""
    import shutil

    from bayesgmm import plots

    begin(directory)
    with _beside(directory / "selection.csv") as path:
        selection.table.to_csv(path, index=False)
    pictures = {"criteria.png": plots.criteria(selection)}
    if selection.loos:
        pictures |= {"predictions.png": plots.predictions(selection), "averaged.png": plots.averaged(X, selection)}
    for name, figure in pictures.items():
        with _beside(directory / name) as path:
            figure.savefig(path, format="png", dpi=150)
    for (covariance, K), tree in selection.posteriors.items():
        with _beside(directory / f"posterior-{covariance}-{K}.nc") as path:
            tree.to_netcdf(path, engine="h5netcdf")
    said = selection.recommend()
    content = {
        "conclusions": selection.text.splitlines(),
        "covariance": said.covariance,
        "n_components": said.n_components,
        "rivals": [list(rival) for rival in said.rivals],
        "selection": selection.table.to_dict("records"),
    }
    _write_summary(directory, run | content)
    shutil.rmtree(directory / "fits", ignore_errors=True)
    posteriors = [f"posterior-{covariance}-{K}.nc" for covariance, K in selection.posteriors]
    return ["selection.csv", *pictures, *posteriors, SUMMARY]


class Kept(MutableMapping[tuple[str, int], EMFit]):
    """Fits in a directory, a file each, of one table and setting; those of another are not found there.

    Parameters
    ----------
    directory : Path
        Made with the first fit.
    table : DataFrame
    settings : what else the fits depend on
    """

    def __init__(self, directory: Path, table: pd.DataFrame, *settings: Any) -> None:
        import hashlib

        content = repr((version("numpy"), __version__, list(table.columns), table.shape, settings)).encode()
        self._directory = directory
        self._fingerprint = hashlib.sha256(content + table.to_numpy(float).tobytes()).hexdigest()[:16]

    def _path(self, key: tuple[str, int]) -> Path:
        return self._directory / f"{key[0]}-{key[1]}-{self._fingerprint}.npz"

    def __getitem__(self, key: tuple[str, int]) -> EMFit:
        import zipfile

        import numpy as np

        try:
            with np.load(self._path(key), allow_pickle=False) as stored:
                record = json.loads(str(stored["record"]))
                arrays = {name: stored[name] for name in ("weights", "means", "covariances", "path")}
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise KeyError(key) from error
        path = arrays.pop("path")
        path.flags.writeable = False
        starts = tuple(Start(kind, Status[status], *rest) for kind, status, *rest in record.pop("starts"))
        maxima = tuple(Maximum(*parts) for parts in record.pop("maxima"))
        model, status = CovarianceModel.named(record.pop("covariance")), Status[record.pop("status")]
        features = tuple(record.pop("features"))
        mixture = GaussianMixture(**arrays)
        return EMFit(
            mixture, model, status, log_likelihood_path=path, starts=starts, maxima=maxima, features=features, **record
        )

    def __setitem__(self, key: tuple[str, int], fit: EMFit) -> None:
        import numpy as np

        self._directory.mkdir(parents=True, exist_ok=True)
        names = (
            "log_likelihood",
            "n_iterations",
            "remaining_gain",
            "n_observations",
            "total_weight",
            "features",
            "certainty",
        )
        record = {name: getattr(fit, name) for name in names}
        record |= {"covariance": fit.covariance_model.name, "status": fit.status.name}
        record["starts"] = [(s.kind, s.status.name, s.log_likelihood, s.n_iterations, s.detail) for s in fit.starts]
        record["maxima"] = [(m.log_likelihood, m.hits, m.spurious, m.detail) for m in fit.maxima]
        arrays = {name: getattr(fit.mixture, name) for name in ("weights", "means", "covariances")}
        with _beside(self._path(key)) as path, path.open("wb") as file:
            np.savez(file, record=json.dumps(record), path=fit.log_likelihood_path, **arrays)

    def __delitem__(self, key: tuple[str, int]) -> None:
        self._path(key).unlink()

    def __iter__(self) -> Iterator[tuple[str, int]]:
        for path in sorted(self._directory.glob(f"*-{self._fingerprint}.npz")):
            covariance, K, _ = path.stem.split("-")
            yield covariance, int(K)

    def __len__(self) -> int:
        return sum(1 for _ in self)


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
    with _beside(directory / SUMMARY) as path:
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


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A temporary path in the same directory, renamed to ``path`` if all goes well and removed if not."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
