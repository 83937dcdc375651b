"""The command line, ``bayesgmm demo``, ``fit TABLE`` and ``select TABLE``: arguments in; tables, words, files out."""

from __future__ import annotations

import argparse
import csv
import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from bayesgmm import __version__
from bayesgmm.errors import BayesGMMError, InputError
from bayesgmm.names import one_line, short

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from bayesgmm.outputs import Written
    from bayesgmm.progress import Progress
    from bayesgmm.report import Analysis
    from bayesgmm.selection import Selection

type _Stage = Callable[[str], Callable[[int, int], None]]  # from a stage's name to what is told (done, total)

_LEAST_DRAWS = 100
_NOTICEABLE = 1.0  # seconds that a stage may last before a line names it
_PLAIN_WIDTH = 100  # columns where the output is not a terminal

_DESCRIPTION = "Which clusters are in a table, and how sure to be of them: Gaussian mixtures by EM and their posterior."
_EPILOG = """examples:
  bayesgmm demo                                     the eruptions of Old Faithful, start to finish
  bayesgmm fit table.csv -k 3                       three clusters in all columns of a table
  bayesgmm select table.csv --columns x,y           how many clusters are there, by several criteria?
  bayesgmm fit table.csv -k 1:6 --columns x,y       the same with the posterior of each
"""
_FIT_EPILOG = """what is written to DIR:
  clusters.png, posterior.png, em_path.png   pictures
  uncertainty.png, least_certain.png   where, and for which rows, the assignment is in doubt
  similarity.png, credible_ball.png   which rows belong together, and how far the partition could be off
  responsibilities.csv   a line per row: its component, and the probability of each with an interval; its cluster in
                         the partition; tail_probability is near 0 for an outlier
  components.csv         a line per parameter: EM estimate, posterior mean, sd and interval
  clusters.csv           the posterior by the clusters of the partition; only where the draws do not keep the components
                         apart, and then responsibilities.csv, tables and pictures go by these clusters too
  posterior.nc           all draws; opens with arviz.from_netcdf or xarray.open_datatree
  summary.json           the run in numbers; written last
With a range of components there is a directory k1, k2, ... for each, and the files of bayesgmm select beside them.
Draws are kept in posterior.part.nc until the end: the same command goes on with those of an interrupted run.

Rows are numbered from 0, without the header, and components from 0 by their first mean.
Exit status: 0 done, 1 the result cannot be written, 2 input that cannot be used, 130 interrupted.
"""
_SELECT_EPILOG = """what is written to DIR:
  selection.csv    a line per fit: its criteria with their uncertainty, and how it ended
  criteria.png     the criteria against the number of components
  predictions.png, averaged.png   with loo: the differences in prediction, and the averaged density
  posterior-MODEL-K.nc            the draws of each fit that has a posterior
  summary.json     the conclusions and the run in numbers; written last
What is done is kept in DIR/unfinished until the end: the same command goes on where an interrupted run stopped.

BIC and ICL are about clusters, the held-out log density and LOO about prediction, the
evidence is about mixture and prior together.
Exit status: 0 done, 1 the result cannot be written, 2 input that cannot be used, 130 interrupted.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; its exit status.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; those of the process by default.
    """
    try:
        arguments = _parser().parse_args(argv)
        arguments.run(arguments)
    except BayesGMMError as error:
        return _fail(str(error), 2)
    except KeyboardInterrupt as interrupt:
        return _fail(str(interrupt) or "interrupted; the same command goes on with what is done", 130)
    except OSError as error:
        return _fail(f"the result cannot be written: {error}", 1)
    return 0


def _fail(message: str, status: int) -> int:
    print("bayesgmm:", one_line(message), file=sys.stderr)
    return status


class _Parser(argparse.ArgumentParser):
    """Raises what is wrong with the arguments instead of printing the usage and leaving."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = _Parser(prog="bayesgmm", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=raw, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"bayesgmm {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    demo = commands.add_parser("demo", help="show everything on a table that ships with the package")
    demo.description = "Two clusters of eruptions of the Old Faithful geyser, 272 x 2: the whole way, in seconds."
    demo.add_argument("--out", metavar="DIR", type=Path, default=Path("bayesgmm-demo"), help="default: %(default)s")
    demo.set_defaults(run=_demo)

    fit = commands.add_parser(
        "fit",
        help="find the clusters in a table",
        description="Fit a Gaussian mixture by EM, draw from its posterior, and say how sure to be of it.",
        epilog=_FIT_EPILOG,
        formatter_class=raw,
        allow_abbrev=False,
    )
    fit.add_argument("table", metavar="TABLE", type=Path, help="CSV, with or without header, or Parquet")
    fit.add_argument(
        *("-k", "--components"),
        metavar="K",
        required=True,
        help="number of components, or a range to compare: 1:6",
    )
    fit.add_argument(
        "--covariance",
        default="full",
        metavar="MODEL",
        help="full (default), tied, diag, spherical, or EII, EEI, VEI, EVI, VEE or EVV",
    )
    fit.add_argument("--columns", metavar="A,B,...", help="columns to use; default: all, which must then be numeric")
    fit.add_argument("--out", metavar="DIR", type=Path, help="where to write; default: bayesgmm-TABLE-kK")
    fit.add_argument("--force", action="store_true", help="overwrite a finished result in DIR")
    fit.add_argument("--draws", type=int, default=1000, metavar="N", help="posterior draws per chain (%(default)s)")
    fit.add_argument("--chains", type=int, default=4, metavar="N", help="chains to draw (%(default)s)")
    fit.add_argument("--seed", type=int, default=0, metavar="N", help="the same seed, the same answer (%(default)s)")
    fit.add_argument("--sampler", choices=("nutpie", "pymc"), default="nutpie", help="%(default)s, the faster, or pymc")
    fit.set_defaults(run=_fit)

    select = commands.add_parser(
        "select",
        help="choose the number of clusters and the covariance model",
        description="Fit a grid of Gaussian mixtures by EM, and say which to prefer, by several criteria.",
        epilog=_SELECT_EPILOG,
        formatter_class=raw,
        allow_abbrev=False,
    )
    select.add_argument("table", metavar="TABLE", type=Path, help="CSV, with or without header, or Parquet")
    select.add_argument(
        *("-k", "--components"),
        metavar="K",
        default="1:9",
        help="numbers of components to compare (%(default)s)",
    )
    select.add_argument(
        "--covariance",
        default="full",
        metavar="MODELS",
        help="models with commas between them, such as full,tied,VEV; all for the 14 (%(default)s)",
    )
    select.add_argument(
        "--criteria",
        default="bic,icl,cv",
        metavar="A,B,...",
        help="some of bic, icl, aic, cv (held-out density), loo, evidence (the last two draw from the posteriors of "
        "the contenders); the first decides (%(default)s)",
    )
    select.add_argument(
        "--posterior", choices=("contenders", "all"), help="draw posteriors of the five contenders, or of every fit"
    )
    select.add_argument(
        "--overfitted", action="store_true", help="how many components does the largest mixture fill, weights sparse?"
    )
    select.add_argument("--columns", metavar="A,B,...", help="columns to use; default: all, which must then be numeric")
    select.add_argument("--out", metavar="DIR", type=Path, help="where to write; default: bayesgmm-TABLE-select")
    select.add_argument("--force", action="store_true", help="overwrite a finished result in DIR")
    select.add_argument("--starts", type=int, default=20, metavar="N", help="starts of each fit (%(default)s)")
    select.add_argument("--folds", type=int, default=10, metavar="N", help="parts held out in turn (%(default)s)")
    select.add_argument(
        "--replicates", type=int, default=100, metavar="N", help="resampled tables to choose from anew (%(default)s)"
    )
    select.add_argument("--seed", type=int, default=0, metavar="N", help="the same seed, the same answer (%(default)s)")
    select.set_defaults(run=_select)
    return parser


@dataclass(frozen=True, slots=True)
class _Run:
    """What a command was asked to do, whatever the number of components."""

    command: str
    table: pd.DataFrame
    source: str  # the table's name
    out: Path
    covariance: str = "full"
    draws: int = 1000
    chains: int = 4
    sampler: str = "nutpie"
    seed: int = 0
    anew: bool = True  # not with the draws of an interrupted run

    @property
    def record(self) -> dict[str, Any]:
        """What the summary repeats of it."""
        names = ("command", "source", "covariance", "draws", "chains", "sampler", "seed")
        arguments = {name: getattr(self, name) for name in names}
        return {"bayesgmm": __version__, "command": arguments.pop("command"), "arguments": arguments}


def _demo(arguments: argparse.Namespace) -> None:
    from bayesgmm import datasets, outputs

    outputs.refuse_to_overwrite(arguments.out, own_command="demo")
    _one(_Run("demo", datasets.old_faithful(), "Old Faithful", arguments.out), 2)


def _fit(arguments: argparse.Namespace) -> None:
    counts = _counts(arguments.components)
    options = {name: getattr(arguments, name) for name in ("covariance", "draws", "chains", "sampler", "seed")}
    for name, least in (("draws", 10), ("chains", 1), ("seed", 0)):
        if options[name] < least:
            raise InputError(f"--{name} must be at least {least}, not {options[name]}")
    if options["draws"] * options["chains"] < _LEAST_DRAWS:
        raise InputError(f"--draws times --chains must be at least {_LEAST_DRAWS}, for intervals and leave-one-out")
    columns = None if arguments.columns is None else _names(arguments.columns)
    out = arguments.out or Path(f"bayesgmm-{arguments.table.stem}-k{arguments.components.replace(':', '-')}")

    from bayesgmm import outputs
    from bayesgmm.bayes.coordinates import SUPPORTED
    from bayesgmm.covariance import CovarianceModel
    from bayesgmm.tables import read_table

    model = CovarianceModel.named(arguments.covariance)
    if model.name not in SUPPORTED:
        raise InputError(
            f"the posterior of covariance {model.name} is not available; use full, tied, diag, spherical, EII, EEI, "
            "VEI, EVI, VEE or EVV; bayesgmm select compares all 14"
        )
    outputs.refuse_to_overwrite_input(arguments.table, out)
    if not arguments.force:
        for directory in (out, *(out / f"k{k}" for k in counts if len(counts) > 1)):
            outputs.refuse_to_overwrite(directory)
    run = _Run("fit", read_table(arguments.table, columns), arguments.table.name, out, **options, anew=arguments.force)
    if len(counts) == 1:
        _one(run, counts[0])
    else:
        _several(run, counts)


def _select(arguments: argparse.Namespace) -> None:
    """Compare a grid of fits, write the comparison, and print it."""
    counts = _counts(arguments.components)
    for name, least in (("starts", 1), ("folds", 2), ("replicates", 0), ("seed", 0)):
        if getattr(arguments, name) < least:
            raise InputError(f"--{name} must be at least {least}, not {getattr(arguments, name)}")
    columns = None if arguments.columns is None else _names(arguments.columns)
    covariances = (
        arguments.covariance if arguments.covariance.lower() == "all" else _names(arguments.covariance, "--covariance")
    )
    out = arguments.out or Path(f"bayesgmm-{arguments.table.stem}-select")

    from bayesgmm import outputs
    from bayesgmm.selection import select
    from bayesgmm.tables import read_table

    outputs.refuse_to_overwrite_input(arguments.table, out)
    if not arguments.force:
        outputs.refuse_to_overwrite(out)
    table = read_table(arguments.table, columns)
    names = ["components", "covariance", "criteria", "posterior", "overfitted", "starts", "folds", "replicates", "seed"]
    settings = {"source": arguments.table.name} | {name: getattr(arguments, name) for name in names}
    run = _Run("select", table, arguments.table.name, out)
    unfinished = out / outputs.UNFINISHED
    if arguments.force:
        shutil.rmtree(unfinished, ignore_errors=True)
    with _progress() as stage:
        selection = select(
            table,
            counts,
            covariances,
            _names(arguments.criteria, "--criteria"),
            posterior=arguments.posterior,
            overfitted=arguments.overfitted,
            n_starts=arguments.starts,
            n_folds=arguments.folds,
            n_replicates=arguments.replicates,
            out=unfinished,
            rng=arguments.seed,
            progress=_by_stage(stage),
        )
        record = {"bayesgmm": __version__, "command": "select", "arguments": settings}
        written = outputs.write_selection(table, selection, out, record)
    _print_selection(run, selection, written)


def _one(run: _Run, n_components: int) -> None:
    """Fit one number of components, write everything, and print the three tables."""
    with _progress() as stage:
        analysis = _analyse(run, n_components, stage, run.out)
        from bayesgmm import outputs, report

        written = outputs.write_analysis(analysis, run.out, run.record)
    console = _console()
    K = analysis.fit.n_components
    console.print(f"{_described(run)}; {K} component{'s' * (K != 1)}, covariance {report.model_name(analysis.fit)}")
    if said := report.ambiguity(analysis):
        console.print(said)
    console.print()
    for table in report.components_tables(analysis, console.width):
        console.print(table)
        console.print()
    if not analysis.ambiguous:
        console.print(report.comparison_table(analysis.comparison))
        console.print()
    uncertain = report.least_certain_table(analysis, console.width)
    console.print(f"With one {analysis.assignments.group} every row belongs to it." if uncertain is None else uncertain)
    console.print()
    _print_sentences(console, [*report.sentences(analysis), *_endings(run, written)])


def _several(run: _Run, counts: Sequence[int]) -> None:
    """Fit several numbers of components, write everything of each, and print how they compare."""
    with _progress() as stage:
        stage("loading")(1, 1)
        from bayesgmm import outputs, report
        from bayesgmm.selection import select

        unfinished = run.out / outputs.UNFINISHED
        if run.anew:
            shutil.rmtree(unfinished, ignore_errors=True)
        selection = select(
            run.table,
            counts,
            run.covariance,
            ("bic", "icl", "loo"),
            posterior="all",
            sampling={"draws": run.draws, "chains": run.chains, "sampler": run.sampler},
            out=unfinished,
            rng=run.seed,
            progress=_by_stage(stage),
        )
        outputs.begin(run.out)
        not_drawn: dict[str, str] = {}
        ambiguous: list[int] = []
        for key, tree in selection.posteriors.items():
            tell = stage(f"K={key[1]}: summaries")
            analysis = report.summarise(run.table, selection.fits[key], tree, selection.loos[key], run.seed, {}, tell)
            ambiguous += [key[1]] * analysis.ambiguous
            each = outputs.write_analysis(analysis, run.out / f"k{key[1]}", run.record)
            not_drawn |= {f"k{key[1]}/{name}": why for name, why in each.not_drawn.items()}
        written = outputs.write_selection(run.table, selection, run.out, run.record, draws=False)
    files = written.files + [f"k{K}/" for _, K in selection.posteriors]
    _print_selection(run, selection, outputs.Written(files, not_drawn | written.not_drawn), ambiguous)


def _print_selection(run: _Run, selection: Selection, written: Written, ambiguous: Sequence[int] = ()) -> None:
    """Which numbers of components are ambiguous, the criteria side by side, what they say, and what was written."""
    from bayesgmm import report

    console = _console()
    console.print(_described(run))
    if ambiguous:
        which = ", ".join(f"{K}" for K in ambiguous)
        console.print(
            f"The draws do not keep the components of K = {which} apart: nothing can be said of a single one, and the "
            f"files in {', '.join(f'k{K}/' for K in ambiguous)} go by the clusters of the partition. Prefer fewer "
            "components, or the same covariance for all (--covariance tied)."
        )
    console.print()
    console.print(report.criteria_table(selection, console.width))
    console.print()
    _print_sentences(console, [*selection.text.splitlines(), *_endings(run, written)])


def _print_sentences(console: Console, sentences: Iterable[str]) -> None:
    """Each on a line of its own, whatever the names in it."""
    for sentence in sentences:
        console.print(one_line(sentence))


def _endings(run: _Run, written: Written) -> Iterator[str]:
    """What was written, and what was not."""
    yield f"Written to {run.out}: {', '.join(written.files)}."
    for name, why in written.not_drawn.items():
        yield f"{name} could not be drawn ({why}); everything else is complete."


def _analyse(run: _Run, n_components: int, stage: _Stage, directory: Path, prefix: str = "") -> Analysis:
    tell = stage("loading")
    from bayesgmm.outputs import PART
    from bayesgmm.report import analyse

    if run.anew:
        (directory / PART).unlink(missing_ok=True)

    tell(1, 1)
    return analyse(
        run.table,
        n_components,
        run.covariance,
        draws=run.draws,
        chains=run.chains,
        sampler=run.sampler,
        rng=run.seed,
        progress=lambda name: stage(prefix + name),
        out=directory / PART if run.sampler == "nutpie" else None,
    )


def _described(run: _Run) -> str:
    rows, columns = run.table.shape
    names = ", ".join(map(short, run.table.columns[:4])) + ", ..." * (columns > 4)
    return f"{one_line(run.source)}: {rows} rows, {columns} column{'s' * (columns != 1)} ({names})"


@contextmanager
def _progress() -> Iterator[_Stage]:
    """A function that is told of a stage and returns what to tell how far it is: a bar on a terminal, else a line."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, markup=False)
    if not console.is_terminal:
        with _lines() as stage:
            yield stage
        return
    columns = (
        TextColumn("{task.description:<24}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:

        def stage(name: str) -> Callable[[int, int], None]:
            task = bars.add_task(name, total=None)
            return lambda done, total: bars.update(task, completed=done, total=total)

        yield stage


def _by_stage(stage: _Stage) -> Progress:
    """Progress that names each stage once."""
    of_stage: dict[str, Callable[[int, int], None]] = {}

    def progress(name: str, done: int, total: int) -> None:
        if name not in of_stage:
            of_stage[name] = stage(name)
        of_stage[name](done, total)

    return progress


@contextmanager
def _lines() -> Iterator[_Stage]:
    """A function that names a stage on standard error once it has lasted a second."""
    waiting: list[threading.Timer] = []

    def cancel() -> None:
        while waiting:
            waiting.pop().cancel()

    def stage(name: str) -> Callable[[int, int], None]:
        cancel()
        waiting.append(threading.Timer(_NOTICEABLE, print, [f"{name} ..."], {"file": sys.stderr, "flush": True}))
        waiting[0].daemon = True
        waiting[0].start()
        return lambda done, total: None

    try:
        yield stage
    finally:
        cancel()


def _console() -> Console:
    from rich.console import Console

    width = None if sys.stdout.isatty() else _PLAIN_WIDTH
    return Console(width=width, markup=False, emoji=False, highlight=False)


def _counts(text: str) -> list[int]:
    """The numbers of components that "3" or "1:6" means."""
    first, colon, last = text.partition(":")
    if not (first.isdecimal() and (last.isdecimal() or not colon)):
        raise InputError(f"-k takes a number of components such as 3, or a range such as 1:6, not {text!r}")
    low, high = int(first), int(last or first)
    if not 1 <= low <= high:
        raise InputError(f"-k counts components from 1 upwards, so {text!r} names none")
    return list(range(low, high + 1))


def _names(text: str, argument: str = "--columns") -> list[str]:
    """The names in a list parted by commas, where a name with a comma is in quotes."""
    names = [name.strip() for name in next(csv.reader([text], skipinitialspace=True), [])]
    if not names or "" in names or len(set(names)) < len(names):
        raise InputError(f"{argument} takes different names with commas between them, not {text!r}")
    return names
