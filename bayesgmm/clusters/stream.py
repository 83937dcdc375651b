"""Which component rows belong to, for more rows than fit in memory: a file of Parquet for each part of their table."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit, ndtri

from bayesgmm.bayes.posterior import posterior as as_posterior
from bayesgmm.clusters.partition import Partition
from bayesgmm.clusters.rows_under_draws import Block, RowsUnderDraws, rows_under_draws, rows_under_mixtures
from bayesgmm.clusters.shares import by_cluster, cluster_counts, shares
from bayesgmm.errors import InputError
from bayesgmm.files import beside, plain_json
from bayesgmm.intervals import level
from bayesgmm.mixture import GaussianMixture
from bayesgmm.names import counted, percent
from bayesgmm.observations import Observations, positive_integer
from bayesgmm.parts import Parts
from bayesgmm.progress import Progress, of_stage
from bayesgmm.sources import open_table

SUMMARY = "_summary.json"  # whoever reads the directory as one table passes over what begins so
_ROWS = 1 << 18  # that are looked at together: a row group of the file
_FILE_BYTES = 1 << 30  # of values, at most, that a file is about: one that an interrupted run has to write again
_DOUBTFUL = 0.9  # probability of its label, below which a row is in doubt
_TINY = 1e-300
_RECORD = b"bayesgmm"  # where a file says what it was made of


@dataclass(frozen=True)
class AssignedFiles:
    """Files of Parquet that say of each row of a table which component it belongs to; `assign_to_files` makes them.

    Attributes
    ----------
    directory : Path
    files : tuple of str
        Their names, in the order of the rows. Each has the columns ``label`` (-1 for noise), ``probability``, and with
        a posterior ``lower`` and ``upper``, the ends of its interval.
    n_rows : int
    counts : tuple of int
        Number of rows with each label 0, 1, ...
    n_noise : int
        Number of rows with the label -1.
    n_doubtful : int
        Number of rows whose label has a probability below 0.9.
    n_draws : int
        Posterior draws that were averaged; 1 for a fit by EM, which has no intervals.
    ci_prob : float or None
        Probability of the intervals.
    text : str
        All of this in words.

    Examples
    --------
    >>> import tempfile
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful().to_numpy()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     assigned = bg.assign_to_files(bg.fit_em(X, 2, rng=0), lambda: iter([X[:100], X[100:]]), folder)
    >>> assigned.counts, assigned.n_doubtful, assigned.files
    ((97, 175), 1, ('part-00000.parquet',))
    """

    directory: Path
    files: tuple[str, ...]
    n_rows: int
    counts: tuple[int, ...]
    n_noise: int
    n_doubtful: int
    n_draws: int
    ci_prob: float | None

    @property
    def text(self) -> str:
        """How many rows have each label, how many are in doubt, and what is in the files."""
        shares = [f"{k}: {n} ({percent(round(n / self.n_rows, 4))})" for k, n in enumerate(self.counts)]
        shares += [f"none: {self.n_noise}"] if self.n_noise else []
        ends = "" if self.ci_prob is None else f", with {percent(self.ci_prob)} intervals from {self.n_draws} draws"
        return (
            f"{counted(self.n_rows, 'row')} by label: {', '.join(shares)}. The label of {self.n_doubtful} has a "
            f"probability below {_DOUBTFUL}. Labels and probabilities{ends} are in {counted(len(self.files), 'file')} "
            f"of {self.directory}, in the order of the rows."
        )


def assign_to_files(
    posterior: Any,
    X_new: Any,
    out: str | Path,
    *,
    n_draws: int = 64,
    ci_prob: float | None = None,
    partition: Partition | None = None,
    progress: Progress | None = None,
) -> AssignedFiles:
    """Posterior assignment of rows that need not fit in memory, written to files of Parquet.

    Parameters
    ----------
    posterior : EMFit, DataTree, Posterior or GaussianMixture
        A fit, whose labels come without intervals; or a posterior, or a mixture whose batch axes are its draws.
    X_new : table in parts
        From `open_table`, or anything that it takes: a pattern of files, a memory-mapped array, a collection of Dask.
        Values may be missing.
    out : path
        Directory for the files, one for each part of the table, or several where a part has more than a GB of values.
        Files in it that an interrupted run of the same call has finished stay as they are. Where the rows are with the
        workers of a Dask cluster, these write the files: the directory must be one that all workers share with this
        process.
    n_draws : int
        Number of draws to average, evenly spaced over all chains.
    ci_prob : float, optional
        Probability of the intervals; ``arviz.rcParams["stats.ci_prob"]`` by default.
    partition : Partition, optional
        As in `assign`: assigns to its clusters.
    progress : callable, optional
        Called as ``progress("rows assigned", done, total)``.

    Returns
    -------
    AssignedFiles
        ``_summary.json`` in the directory, written last, holds the same.

    Raises
    ------
    InputError
        If the rows cannot be used; or the directory holds files of other rows, or by another fit.

    Notes
    -----
    The interval of a label's probability p is that of a normal distribution of log(p / (1 - p)) with the mean and
    standard deviation that it has over the draws: the quantiles of so few draws themselves would be coarse.

    See Also
    --------
    assign : more about rows that fit in memory, such as those of `random_rows`.

    Examples
    --------
    >>> import tempfile
    >>> import pandas as pd
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> tree = bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), method="laplace", rng=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     X.to_parquet(f"{folder}/new.parquet")
    ...     assigned = bg.assign_to_files(tree, f"{folder}/*.parquet", f"{folder}/assigned")
    ...     pd.read_parquet(assigned.directory / assigned.files[0]).round(3).head(2)
       label  probability  lower  upper
    0      1          1.0    1.0    1.0
    1      0          1.0    1.0    1.0
    """
    parts, directory = open_table(X_new), Path(out)
    if not parts.n_observations:
        raise InputError("the table has no rows")
    assigner = _assigner(posterior, parts, n_draws, ci_prob, partition)
    write, pieces = _Write(directory.absolute(), assigner, assigner.digest, parts.features, parts.named), _pieces(parts)
    _refuse_others(directory, [piece.file for piece in pieces])
    tell, n_done = of_stage(progress, "rows assigned"), 0

    def done(n: int) -> None:
        nonlocal n_done
        n_done += n
        tell(n_done, parts.n_observations)

    found = {piece: _finished(directory / piece.file, write.record(piece)) for piece in pieces}
    done(sum(piece.stop - piece.start for piece in pieces if found[piece] is not None))
    missing = [piece for piece in pieces if found[piece] is None]
    directory.mkdir(parents=True, exist_ok=True)
    try:
        found |= zip(missing, parts.each(write, missing, done), strict=True)
    except _Infinite as bad:
        place, column = parts.place(bad.row), parts.features[bad.column]
        raise InputError(f"{place}, column {column!r} is infinite") from None
    _check_all_are_here(directory, pieces)
    each = [one for one in found.values() if one is not None]
    counts = np.sum([one["counts"] for one in each], axis=0)
    result = AssignedFiles(
        directory=directory,
        files=tuple(piece.file for piece in pieces),
        n_rows=parts.n_observations,
        counts=tuple(counts[: assigner.n_labels].tolist()),
        n_noise=int(counts[assigner.n_labels :].sum()),
        n_doubtful=sum(one["doubtful"] for one in each),
        n_draws=assigner.draws.n_draws,
        ci_prob=assigner.ci_prob,
    )
    rows = {piece.file: piece.origin for piece in pieces}
    content = asdict(result) | {"rows": rows, "assigned_by": write.digest, "text": result.text}
    with beside(directory / SUMMARY) as path:
        path.write_text(json.dumps(plain_json(content), indent=2) + "\n", "utf-8")
    return result


class _Piece(NamedTuple):
    """Rows [start, stop) of a table, the name of their file of labels, and where they are from, in words."""

    start: int
    stop: int
    file: str
    origin: str


def _pieces(parts: Parts) -> list[_Piece]:
    found: list[_Piece] = []
    most = max(_FILE_BYTES // (8 * parts.n_features * _ROWS), 1) * _ROWS
    for part, first in zip(parts.parts, parts.starts, strict=False):
        for start in range(0, part.n_rows, most):
            stop, file = min(start + most, part.n_rows), f"part-{len(found):05d}.parquet"
            origin = f"rows {start} to {stop - 1} of {part.mark or part.name}"
            found.append(_Piece(first + start, first + stop, file, origin))
    return found


class _Infinite(Exception):
    """A value of these rows is infinite: the row of the whole table, and the column."""

    def __init__(self, row: int, column: int) -> None:
        super().__init__(row, column)
        self.row, self.column = row, column


@dataclass(frozen=True, eq=False)
class _Assigner:
    """What labels rows: the mixture of a fit, or draws.

    Attributes
    ----------
    draws : RowsUnderDraws
        Of a row that does not count.
    ci_prob : float or None
        None where there is a single mixture.
    shares : (K, C, S) or None
        What clusters have of components, where rows are assigned to clusters.
    """

    draws: RowsUnderDraws
    ci_prob: float | None
    shares: np.ndarray | None

    @property
    def n_labels(self) -> int:
        """Number of components, or clusters."""
        return self.draws.mixture.n_components if self.shares is None else self.shares.shape[1]

    @property
    def digest(self) -> str:
        """By which the same mixtures and settings are known again."""
        mixture = self.draws.mixture
        digest = hashlib.sha256(repr((self.ci_prob, mixture.features, mixture.noise)).encode())
        for array in (*(getattr(mixture, name) for name in mixture.parameters), self.shares):
            digest.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    @property
    def numbers(self) -> tuple[str, ...]:
        """What is said of a row beside its label."""
        return ("probability",) if self.ci_prob is None else ("probability", "lower", "upper")

    def look(self, rows: Observations) -> tuple[np.ndarray, np.ndarray]:
        """Labels (n,) of rows, -1 for noise, and the numbers (1 or 3, n) that are said of them."""
        label, numbers = np.empty(rows.n_observations, np.int32), np.empty((len(self.numbers), rows.n_observations))
        z = None if self.ci_prob is None else ndtri((1 + self.ci_prob) / 2)

        def task(which: np.ndarray, block: Block) -> None:
            R = block.responsibilities if self.shares is None else by_cluster(block.responsibilities, self.shares)
            if block.noise is not None:
                R = np.concatenate((R, block.noise[:, None]), axis=1)
            mean, here = R.mean(axis=-1), np.arange(len(R))
            own = mean.argmax(axis=1)
            label[which], numbers[0, which] = own, mean[here, own]
            if z is not None:
                p = R[here, own]
                R[here, own] = 0.0  # their sum is that of the others, where 1 - p would cancel
                log_odds = np.log(np.maximum(p, _TINY)) - np.log(np.maximum(R.sum(axis=1), _TINY))
                middle, reach = log_odds.mean(axis=-1), z * log_odds.std(axis=-1, ddof=1)
                numbers[1:, which] = expit(middle - reach), expit(middle + reach)

        replace(self.draws, table=rows).each_block(task)
        label[label == self.n_labels] = -1
        return label, numbers


def _assigner(source: Any, parts: Parts, n_draws: int, ci_prob: float | None, partition: Partition | None) -> _Assigner:
    """What labels the rows of a table by a fit, a posterior or draws."""
    row = Observations(np.zeros((1, parts.n_features)), parts.features, np.ones(1), parts.named)
    single = getattr(source, "mixture", source)
    if isinstance(single, GaussianMixture) and not single.batch_shape:
        if partition is not None:
            raise InputError("a partition goes with the posterior that it is of, not with one mixture")
        return _Assigner(rows_under_mixtures(single, row), None, None)
    drawn = as_posterior(source)
    flat, n = drawn.draws.reshape(-1), positive_integer(n_draws, "n_draws", least=2)
    some = flat[np.unique(np.linspace(0, len(flat.weights) - 1, n).round().astype(int))]
    share = None
    if partition is not None:
        fitted = rows_under_draws(source)
        share = shares(cluster_counts(replace(fitted, lanes=rows_under_draws(some, row).lanes), partition))
    return _Assigner(rows_under_draws(some, row), level(ci_prob), share)


@dataclass(frozen=True, eq=False)
class _Write:
    """Writes the file of some rows.

    Attributes
    ----------
    directory : Path
        Absolute: other processes share it.
    assigner : _Assigner
    digest : str
        That of the assigner.
    features, named
        As those of the table.
    """

    directory: Path
    assigner: _Assigner
    digest: str
    features: tuple[str, ...]
    named: bool

    def __call__(
        self, piece: _Piece, read: Callable[[int, int], np.ndarray], done: Callable[[int], None]
    ) -> dict[str, Any]:
        """Write the file, and return what is counted in it."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self.directory.is_dir():
            raise FileNotFoundError(errno.ENOENT, "there is no such directory", str(self.directory))
        counts, doubtful = np.zeros(self.assigner.n_labels + 1, np.int64), 0
        kinds = [("label", pa.int32()), *((name, pa.float64()) for name in self.assigner.numbers)]
        with beside(self.directory / piece.file) as path, pq.ParquetWriter(path, pa.schema(kinds)) as writer:
            for start in range(piece.start, piece.stop, _ROWS):
                stop = min(start + _ROWS, piece.stop)
                label, numbers = self.assigner.look(self._rows(read(start, stop), start))
                counts += np.bincount(label % len(counts), minlength=len(counts))
                doubtful += int((numbers[0] < _DOUBTFUL).sum())
                writer.write_table(pa.table([label, *numbers], writer.schema))
                done(stop - start)
            found = {"counts": counts.tolist(), "doubtful": doubtful}
            writer.add_key_value_metadata({_RECORD: json.dumps({**self.record(piece), "found": found})})
        return found

    def record(self, piece: _Piece) -> dict[str, str]:
        """What a file is made of."""
        return {"assigned by": self.digest, "rows": piece.origin}

    def _rows(self, values: np.ndarray, start: int) -> Observations:
        """Rows of the table, the first of this number, which may lack values."""
        if np.isinf(values).any():
            row, column = map(int, np.argwhere(np.isinf(values))[0])
            raise _Infinite(start + row, column)
        return Observations(values, self.features, np.ones(1), self.named)


def _finished(path: Path, record: Mapping[str, str]) -> dict[str, Any] | None:
    """What is counted in a file that is there already; None where there is none.

    Raises
    ------
    InputError
        If it is of other rows or by another fit.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.exists():
        return None
    try:
        before = json.loads(pq.read_metadata(path).metadata[_RECORD])
        found = before.pop("found")
    except (pa.ArrowInvalid, OSError, KeyError, TypeError, ValueError):
        raise InputError(f"{path} is there already, and not from here; give another directory") from None
    cure = "remove it, or give another directory"
    if before["rows"] != record["rows"]:
        raise InputError(f"{path} has the {before['rows']}, and now these are {record['rows']}; {cure}")
    if before != record:
        raise InputError(f"{path} was made by another fit, or with other draws or intervals; {cure}")
    return found


def _refuse_others(directory: Path, names: list[str]) -> None:
    """Refuse a directory with files that would be read as further rows."""
    others = sorted(path for path in directory.glob("part-*.parquet") if path.name not in names)
    if others:
        raise InputError(f"{others[0]} would be taken for rows of this table; remove it, or give another directory")


def _check_all_are_here(directory: Path, pieces: list[_Piece]) -> None:
    """Refuse files that another process has written elsewhere."""
    here = {path.name for path in directory.iterdir()}  # where a disk is shared, a single name may be looked up late
    for piece in pieces:
        if piece.file not in here:
            raise InputError(
                f"{directory / piece.file} was written, but is not here: a worker has another directory of this name; "
                "give one that all workers share with this process"
            )
