"""Parts of a long run, stored in files as they are done, so that the same run goes on from there when started again."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bayesgmm import __version__
from bayesgmm.em.grid import Key
from bayesgmm.em.record import fit_from_arrays, fit_to_arrays
from bayesgmm.em.result import EMFit
from bayesgmm.files import beside
from bayesgmm.observations import Observations


def fingerprint(table: Observations, *settings: Any) -> str:
    """Digest of a table and of the settings of a computation; another table or other settings give another digest.

    Parameters
    ----------
    table : Observations
        Its numbers, their errors, the row weights and the noise's density count, the names of its columns do not.
    *settings
        Values that are equal where their `repr` is: numbers, strings, and tuples or lists of them.

    Returns
    -------
    str
        64 hexadecimal digits.

    Examples
    --------
    >>> from bayesgmm.observations import observations
    >>> table = observations([[1.0], [2.0], [4.0]])
    >>> fingerprint(table, "VVV", 3) == fingerprint(table, "VVV", 3), fingerprint(table, 3) == fingerprint(table, 4)
    (True, False)
    """
    digest = hashlib.sha256(repr((table.values.shape, settings)).encode())
    digest.update(table.values.tobytes())
    digest.update(table.sample_weight.tobytes())
    if table.errors is not None:
        digest.update(table.errors.tobytes())
    if table.noise_density is not None:
        digest.update(table.noise_density.tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Checkpoints:
    """The parts of one run, a file each, in a directory where those of other runs may be too.

    Attributes
    ----------
    directory : Path or None
        Made with the first file. None stores nothing: every part is computed when it is asked for.
    run : str
        Digest of everything that all parts depend on.
    """

    directory: Path | None
    run: str

    @classmethod
    def of(cls, directory: Path | None, table: Observations, *settings: Any) -> Checkpoints:
        """Checkpoints of a computation with these settings on this table, by these versions of the code."""
        return cls(directory, fingerprint(table, np.__version__, __version__, table.features, *settings))

    def path(self, part: str, suffix: str) -> Path | None:
        """The file of a part, whose name says all that the part alone depends on; None where nothing is stored."""
        if self.directory is None:
            return None
        digest = hashlib.sha256(f"{self.run} {part}".encode()).hexdigest()
        return self.directory / f"{part.partition(' ')[0]}-{digest[:16]}.{suffix}"

    def fit(self, key: Key, make: Callable[[], EMFit]) -> EMFit:
        """The stored fit of a covariance model and size, or the one that ``make`` returns, which is then stored."""
        fits: list[EMFit] = []

        def arrays_of_new_fit() -> dict[str, np.ndarray]:
            fits.append(make())
            return fit_to_arrays(fits[0])

        arrays = self.arrays(f"fit {key}", arrays_of_new_fit)
        return fits[0] if fits else fit_from_arrays(arrays)

    def arrays(self, part: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """The stored arrays of a part, by name, or those that ``make`` returns, which are then stored.

        A file that cannot be read, as a full disk may leave it, counts as none.
        """
        path = self.path(part, "npz")
        if path is None:
            return make()
        try:
            with np.load(path, allow_pickle=False) as stored:
                return dict(stored)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            pass
        arrays = make()
        with beside(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        return arrays
