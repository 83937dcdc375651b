"""What commands do with a table in parts: files that are read when their rows are needed, here or by a cluster."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bayesgmm.bayes.many_rows import LargeTable, seed_and_passes
from bayesgmm.bayes.posterior import posterior
from bayesgmm.bayes.priors import Priors
from bayesgmm.bayes.sample import sample_posterior
from bayesgmm.cli import em_only, files, report
from bayesgmm.cli.arguments import Settings
from bayesgmm.cli.console import Output
from bayesgmm.cli.finished import Result
from bayesgmm.cli.parsing import columns_of
from bayesgmm.cli.sources import name_of
from bayesgmm.clusters.stream import assign_to_files
from bayesgmm.em.fit import fit_em
from bayesgmm.em.large import Sample, sample_of, seed_of_sample
from bayesgmm.em.result import EMFit
from bayesgmm.errors import ConvergenceWarning, InputError
from bayesgmm.observations import Observations
from bayesgmm.parts import Parts
from bayesgmm.progress import Progress, of_stage
from bayesgmm.selection import select
from bayesgmm.selection.criteria import DEFAULT_IN_PARTS
from bayesgmm.selection.large import seed_of_held_out
from bayesgmm.selection.run import Seeds
from bayesgmm.sources import open_table
from bayesgmm.summary.analysis import Analysis, summarise
from bayesgmm.summary.words import sentences

_SHOWN = 10_000  # rows of the random sample that pictures, page and tables of rows are of
_OF_A_TEXT = ("header", "separator", "decimal", "thousands", "missing", "error_prefix", "id")


def refuse_what_is_for_one_file(arguments: argparse.Namespace) -> None:
    """Refuse options that are about a table in memory.

    Raises
    ------
    InputError
        Naming the first.
    """
    late = ("fail_on_missing",) if arguments.command == "assign" else ()  # which learns of them row by row
    for name in (*_OF_A_TEXT, "noise", *late):
        if getattr(arguments, name, None) not in (None, False):
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"{option} is for a table that fits in memory, not for one in parts; leave it out")
    if getattr(arguments, "sampler", "auto") != "auto":
        raise InputError("--sampler is for a table that fits in memory; one in parts chooses its own")


def fit(
    arguments: argparse.Namespace,
    n_components: int,
    settings: Settings,
    priors_of: Callable[[Observations], Priors | None],
    record: dict[str, Any],
    output: Output,
) -> None:
    """Fit one number of components, with the posterior or without, write everything, and print it.

    ``priors_of`` gives the priors of a table from few rows that have the mean and covariance of all, or None for the
    default.
    """
    source, out, width = name_of(arguments.table), arguments.out, output.console.width
    with output.progress() as progress, warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the report says the same
        with _opened(arguments.table, columns_of(arguments), arguments.cluster, progress) as table:
            started, kept = time.perf_counter(), out / files.UNFINISHED
            sample = partial(_sample, table, seed_of_sample(settings.seed), None, kept, progress)
            if arguments.fail_on_missing:
                _refuse_missing(sample())
            options: dict[str, Any] = {"rng": settings.seed, "progress": progress}
            found = fit_em(table, n_components, settings.covariance, out=kept, **options)
            seconds = {"em": time.perf_counter() - started}
            if found.missing.n_rows and not arguments.em_only:
                raise InputError(
                    f"{found.missing}. The posterior of a table in parts needs complete rows; give --em-only, which "
                    "goes on from here, or a random sample of the rows, as a table that fits in memory"
                )
            if arguments.em_only:
                rows = _some_rows(sample(), settings.seed)
            else:
                analysis = _posterior(table, found, settings, priors_of, kept / files.DRAWS, seconds, progress)
                rows = analysis.table
        record = _told(record, source, table, rows)
        if arguments.em_only:
            progress("files", 0, 0)
            written = em_only.write(found, rows, None, rows, out, record, seconds["em"])
            page = em_only.page(found, found.mixture.responsibilities(rows), source, width)
            said = em_only.sentences(found, seconds["em"], len(rows))
        else:
            written = files.write_analysis(analysis, rows, out, record, of_stage(progress, "files"))
            page, said = report.fit_page(analysis, source, width), sentences(analysis)
        shutil.rmtree(out / files.UNFINISHED, ignore_errors=True)
    output.page(page)
    output.sentences([*said, *files.endings(out, written.files, written.summary["not_drawn"])])
    output.value(written.summary)


def _posterior(
    table: Parts,
    found: EMFit,
    settings: Settings,
    priors_of: Callable[[Observations], Priors | None],
    kept: Path,
    seconds: dict[str, float],
    progress: Progress,
) -> Analysis:
    """Draw from the posterior of all rows, and find out what follows from it and from a random sample of them.

    The draws are written to ``kept``, from where the same command takes them if it is stopped later.
    """
    started, (seed, passes) = time.perf_counter(), seed_and_passes(settings.seed, kept)
    priors = priors_of(LargeTable.of(table, found, seed, progress, passes).everything)
    options: dict[str, Any] = {"draws": settings.draws, "chains": settings.chains, "rng": settings.seed}
    tree = sample_posterior(table, found, priors, out=kept, progress=progress, **options)
    seconds = seconds | {"posterior": time.perf_counter() - started}
    drawn = posterior(tree)
    rows = pd.DataFrame(drawn.rows, columns=list(drawn.features))
    tell = of_stage(progress, "summaries")
    return replace(summarise(rows, tree, drawn, None, settings.seed, seconds, tell=tell), draws_file=kept)


def compare(
    arguments: argparse.Namespace, grid: dict[str, Any], record: dict[str, Any], output: Output
) -> files.Written:
    """Compare a grid of fits, given as arguments of `bayesgmm.select`, and write the comparison."""
    out, options = arguments.out, {"posterior": arguments.posterior, "overfitted": arguments.overfitted}
    options |= {"n_starts": arguments.starts, "n_replicates": arguments.replicates, "rng": arguments.seed}
    seeds, kept = Seeds.of(arguments.seed), out / files.UNFINISHED
    without = seed_of_held_out(grid["criteria"] or DEFAULT_IN_PARTS, seeds)
    with output.progress() as progress:
        with _opened(arguments.table, columns_of(arguments), arguments.cluster, progress) as table:
            sample = partial(_sample, table, seeds.fits, without, kept, progress)
            if arguments.fail_on_missing:
                _refuse_missing(sample())
            selection = select(table, **grid, **options, out=kept, progress=progress)
            rows = _some_rows(sample(), arguments.seed)
        progress("files", 0, 0)
        record = _told(record, name_of(arguments.table), table, rows)
        return files.write_selection(rows, selection, out, record)


def _sample(table: Parts, seed: int, without: int | None, kept: Path, progress: Progress) -> Sample:
    """The sample of the rows that a fit with this seed takes, which is kept."""
    return sample_of(table, seed, of_stage(progress, "rows looked at"), without, kept)


def _refuse_missing(sample: Sample) -> None:
    if not sample.complete:
        raise InputError(f"{sample.missing}; fill them in, leave these rows out, or leave out --fail-on-missing")


def _some_rows(sample: Sample, seed: int) -> pd.DataFrame:
    """The rows that are shown."""
    values, rng = sample.table.values, np.random.default_rng(seed)
    picked = np.sort(rng.choice(len(values), min(_SHOWN, len(values)), replace=False))
    return pd.DataFrame(values[picked], columns=list(sample.table.features))


def _told(record: dict[str, Any], source: str, table: Parts, rows: pd.DataFrame) -> dict[str, Any]:
    """What the summary says of the command and of its table, of which some rows are shown."""
    size = {"n_observations": table.n_observations, "n_features": table.n_features, "features": table.features}
    arguments = record["arguments"] | {"source": source}
    return record | {"arguments": arguments} | size | {"n_parts": len(table.parts), "n_shown": len(rows)}


def assign(directory: Path, tables: Sequence[Path], out: Path, cluster: str | None, output: Output) -> None:
    """Label the rows of a table in parts by a result, into files, and print how many have which label."""
    result = Result.of(directory).of_one_mixture()
    source, partition = result.assigned_by
    columns = result.summary["features"] if all(Path(path).suffix != ".npy" for path in tables) else None
    with output.progress() as progress, _opened(tables, columns, cluster, progress) as table:
        assigned = assign_to_files(
            source, table, out, ci_prob=result.summary.get("ci_prob"), partition=partition, progress=progress
        )
    output.sentences(assigned.text.splitlines())


@contextmanager
def _opened(
    tables: Sequence[Path], columns: Sequence[str] | None, cluster: str | None, progress: Progress
) -> Iterator[Parts]:
    """A table in parts, whose rows are with the workers of a cluster if there is to be one."""
    with contextlib.ExitStack() as stack:
        client = None
        if cluster is not None:
            progress("connecting", 0, 1)
            client = stack.enter_context(_connected(cluster))
            progress("connecting", 1, 1)
        yield open_table([str(path) for path in tables], columns, client=client)


def _connected(cluster: str) -> contextlib.AbstractContextManager[Any]:
    try:
        from bayesgmm.cluster import connected
    except ImportError:
        raise InputError("--cluster needs Dask: pip install 'bayesgmm[cluster]'") from None
    return connected(cluster)
