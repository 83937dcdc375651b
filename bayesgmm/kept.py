"""What a long run has done already, in files: the same run, started again, goes on from there."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bayesgmm import __version__
from bayesgmm.covariance import CovarianceModel
from bayesgmm.em.fit import EMFit
from bayesgmm.em.grid import Key
from bayesgmm.em.search import Maximum, Start, Status
from bayesgmm.files import beside
from bayesgmm.mixture import GaussianMixture
from bayesgmm.observations import Observations

_NUMBERS = ("log_likelihood", "n_iterations", "remaining_gain", "n_observations", "total_weight", "certainty")
_PARAMETERS = ("weights", "means", "covariances")


class Kept:
    """Parts of a run over one table with one setting, a file each; those of another are not found.

    Parameters
    ----------
    directory : Path
        Made with the first file.
    table : Observations
    settings : what else every part depends on
    """

    def __init__(self, directory: Path, table: Observations, *settings: Any) -> None:
        self._directory = directory
        values = (np.__version__, __version__, table.features, table.values.shape, settings)
        self._run = hashlib.sha256(repr(values).encode() + table.values.tobytes() + table.sample_weight.tobytes())

    def path(self, part: str, suffix: str) -> Path:
        """Where a part, named by all that it alone depends on, is kept."""
        digest = self._run.copy()
        digest.update(part.encode())
        return self._directory / f"{part.partition(' ')[0]}-{digest.hexdigest()[:16]}.{suffix}"

    def fit(self, key: Key, make: Callable[[], EMFit]) -> EMFit:
        """The fit of this covariance model and size, made now if it was not before."""
        fits: list[EMFit] = []

        def record() -> dict[str, np.ndarray]:
            fits.append(make())
            return _arrays(fits[0])

        arrays = self.arrays(f"fit {key}", record)
        return fits[0] if fits else _fit(arrays)

    def arrays(self, part: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Named arrays, made now if they were not before."""
        path = self.path(part, "npz")
        try:
            with np.load(path, allow_pickle=False) as stored:
                return dict(stored)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            pass
        made = make()
        with beside(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **made)  # type: ignore[arg-type]
        return made


def _arrays(fit: EMFit) -> dict[str, np.ndarray]:
    """A fit as arrays."""
    record: dict[str, Any] = {name: getattr(fit, name) for name in _NUMBERS}
    record |= {"features": fit.features, "covariance": fit.covariance_model.name, "status": fit.status.name}
    record["names"] = fit.mixture.features
    record["starts"] = [(s.kind, s.status.name, s.log_likelihood, s.n_iterations, s.detail) for s in fit.starts]
    record["maxima"] = [(m.log_likelihood, m.hits, m.spurious, m.detail) for m in fit.maxima]
    arrays = {name: getattr(fit.mixture, name) for name in _PARAMETERS}
    for i, maximum in enumerate(fit.maxima):
        arrays |= {f"{name}_{i}": getattr(maximum.mixture, name) for name in _PARAMETERS if maximum.mixture is not None}
    return arrays | {"path": fit.log_likelihood_path, "record": np.array(json.dumps(record))}


def _fit(arrays: dict[str, np.ndarray]) -> EMFit:
    """The fit that was turned into these arrays."""
    record = json.loads(str(arrays["record"]))
    path = arrays["path"]
    path.flags.writeable = False
    names = record.pop("names")

    def mixture(suffix: str = "") -> GaussianMixture | None:
        if "weights" + suffix not in arrays:
            return None
        return GaussianMixture(**{name: arrays[name + suffix] for name in _PARAMETERS}, features=names)

    starts = tuple(Start(kind, Status[status], *rest) for kind, status, *rest in record.pop("starts"))
    maxima = tuple(
        Maximum(value, hits, spurious, detail, mixture(f"_{i}"))
        for i, (value, hits, spurious, detail) in enumerate(record.pop("maxima"))
    )
    model, status = CovarianceModel.named(record.pop("covariance")), Status[record.pop("status")]
    features, best = tuple(record.pop("features")), mixture()
    assert best is not None
    return EMFit(
        best, model, status, log_likelihood_path=path, starts=starts, maxima=maxima, features=features, **record
    )
