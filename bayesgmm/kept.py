"""What a long run has done already, in files: the same run, started again, goes on from there."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bayesgmm import __version__
from bayesgmm.em.fit import EMFit
from bayesgmm.em.grid import Key
from bayesgmm.em.record import fit_from_arrays, fit_to_arrays
from bayesgmm.files import beside
from bayesgmm.observations import Observations


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
            return fit_to_arrays(fits[0])

        arrays = self.arrays(f"fit {key}", record)
        return fits[0] if fits else fit_from_arrays(arrays)

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
