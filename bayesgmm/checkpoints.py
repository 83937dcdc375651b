"""Parts of a long run, stored in files as they are done, so that the same run goes on from there when started again."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bayesgmm import __version__
from bayesgmm.errors import InputError
from bayesgmm.expectation import Totals
from bayesgmm.files import beside
from bayesgmm.observations import Observations
from bayesgmm.parts import Parts
from bayesgmm.passes import Request, Streamed, Survey, survey
from bayesgmm.progress import Progress, of_stage

_RUN = "run.json"  # what a directory has parts of


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

    @classmethod
    def of_source(cls, directory: Path | None, parts: Parts) -> Checkpoints:
        """Checkpoints of what depends on all rows of a table in parts; none where nothing tells if these changed."""
        known = all(part.mark for part in parts.parts)
        digest = hashlib.sha256(repr((np.__version__, __version__, *described_parts(parts))).encode())
        return cls(directory if known else None, digest.hexdigest())

    def path(self, part: str, suffix: str) -> Path | None:
        """The file of a part, whose name says all that the part alone depends on; None where nothing is stored."""
        if self.directory is None:
            return None
        digest = hashlib.sha256(f"{self.run} {part}".encode()).hexdigest()
        return self.directory / f"{part.partition(' ')[0]}-{digest[:16]}.{suffix}"

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


def kept_survey(
    directory: Path | None,
    parts: Parts,
    n_sampled: int,
    seed: int,
    progress: Callable[[int, int], None],
    without: int | None = None,
) -> Survey:
    """What the first pass over a table finds, or what is kept of it in a directory; arguments as those of `survey`."""
    checkpoints, part = Checkpoints.of_source(directory, parts), f"survey {n_sampled} {seed} {without}"

    def arrays() -> dict[str, np.ndarray]:
        return {k: np.asarray(v) for k, v in survey(parts, n_sampled, seed, progress, without)._asdict().items()}

    found = checkpoints.arrays(part, arrays)
    fields_found: dict[str, Any] = {name: value if value.ndim else int(value) for name, value in found.items()}
    return Survey(**fields_found)


class KeptPasses:
    """Passes over all rows that are kept as they are made: who asks the same again, in the same order, need not wait.

    A computation that takes nothing but these from the rows, and chance from a seed, so goes on where it was killed,
    without any state of its own in a file.

    Parameters
    ----------
    passes : Streamed
    checkpoints : Checkpoints
    progress : callable, optional
        Called with the stage "pass 1", "pass 2", ..., how many rows it has read, and how many there are.
    stage : str
        What the stages are called instead of "pass".
    """

    def __init__(
        self, passes: Streamed, checkpoints: Checkpoints, progress: Progress | None = None, stage: str = "pass"
    ) -> None:
        self.passes, self.checkpoints, self.progress, self.stage = passes, checkpoints, progress, stage
        self.n_made = 0
        asked_of = [getattr(passes, f.name) for f in fields(passes) if f.name not in ("parts", "progress")]
        self.origin = described(asked_of)

    def totals(self, requests: Sequence[Request]) -> list[Totals]:
        """What the rows add up to under each mixture, from one reading of the rows, or from what is kept of one."""
        self.n_made += 1
        passes = replace(self.passes, progress=of_stage(self.progress, f"{self.stage} {self.n_made}"))
        part = f"pass {json.dumps([self.origin, described(requests)])}"
        arrays = self.checkpoints.arrays(part, lambda: _arrays_of(passes.totals(requests)))
        return [_totals_of(arrays, i, request) for i, request in enumerate(requests)]


def _arrays_of(totals: Sequence[Totals]) -> dict[str, np.ndarray]:
    return {f"{name}_{i}": getattr(one, name) for i, one in enumerate(totals) for name in ("high", "low")}


def _totals_of(arrays: Mapping[str, np.ndarray], i: int, request: Request) -> Totals:
    totals = request.of_no_rows()
    totals.high, totals.low = arrays[f"high_{i}"], arrays[f"low_{i}"]
    return totals


def claim(directory: Path, run: Mapping[str, Any]) -> dict[str, Any]:
    """Say in a directory what it has parts of, or check that it was begun with the same.

    Parameters
    ----------
    directory : Path
    run : mapping
        By names that a message can use: values as JSON has them, of which lists are compared entry by entry.

    Returns
    -------
    dict
        Everything that has been said there.

    Raises
    ------
    InputError
        Naming the first that is not the same.
    """
    path = directory / _RUN
    try:
        before = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        before = {}
    except (OSError, ValueError):
        raise InputError(f"{path} cannot be read; remove {directory}, or give another") from None
    for name, now in run.items():
        was = before.get(name, now)
        if isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
            was, now = next(((a, b) for a, b in zip(was, now, strict=True) if a != b), (None, None))
        if was != now:
            raise InputError(
                f"{directory} holds what a run with {name} {was} has done, and in this one it is {now}; give the same, "
                "or another directory"
            )
    if not before.keys() >= run.keys():
        with beside(path) as temporary:
            temporary.write_text(json.dumps(before | dict(run), indent=2) + "\n", "utf-8")
    return before | dict(run)


def described_parts(parts: Parts) -> list[str]:
    """What each part of a table is, for `claim`."""
    return [f"{part.name}: {part.n_rows} rows{part.mark and f', {part.mark}'}" for part in parts.parts]


def described(value: Any) -> Any:
    """A value as JSON has it, which is equal where the value is: of an array its shape and a digest of its numbers."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (np.ndarray, np.generic)):
        array = np.ascontiguousarray(value)
        return f"array {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()[:16]}"
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: described(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): described(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [described(entry) for entry in value]
    return repr(value)
