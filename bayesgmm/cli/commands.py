"""The commands `demo`, `fit` and `select`: arguments in; tables, sentences and files out."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayesgmm import __version__
from bayesgmm.cli.arguments import Settings, check_at_least, chosen, columns_of, component_counts, names_in, parser
from bayesgmm.errors import BayesGMMError, InputError
from bayesgmm.names import one_line

# Whatever imports NumPy, pandas, rich or PyMC is imported where it is needed: --help should not wait for it.
if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console
    from rich.table import Table

    from bayesgmm.cli.files import Written

_LEAST_DRAWS = 100  # of all chains
_PLAIN_WIDTH = 100  # columns where the output is not a terminal
_FIT_CRITERIA = ("bic", "icl", "loo")  # by which `fit` compares several numbers of components
_SELECT_SETTINGS = ("components", "covariance", "criteria", "posterior", "overfitted", "starts", "folds", "replicates")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; its exit status.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; those of the process by default.

    Returns
    -------
    int
        0 done, 1 the result cannot be written, 2 input that cannot be used, 130 interrupted.
    """
    commands = {"demo": _demo, "fit": _fit, "select": _select}
    try:
        arguments = parser().parse_args(argv)
        commands[arguments.command](arguments)
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


@dataclass(frozen=True, slots=True)
class _Request:
    """A table, where its results go, and what the summary repeats of the command."""

    command: str
    table: pd.DataFrame
    source: str  # the table's name
    out: Path
    arguments: dict[str, Any]

    @property
    def record(self) -> dict[str, Any]:
        """What the summary repeats of the command."""
        arguments = {"source": self.source} | self.arguments
        return {"bayesgmm": __version__, "command": self.command, "arguments": arguments}


def _demo(arguments: argparse.Namespace) -> None:
    from bayesgmm import datasets
    from bayesgmm.cli import files

    files.refuse_to_overwrite(arguments.out, own_command="demo")
    settings = Settings()
    request = _Request("demo", datasets.old_faithful(), "Old Faithful", arguments.out, asdict(settings))
    _forget(arguments.out / files.PART)
    _fit_one(request, 2, settings)


def _fit(arguments: argparse.Namespace) -> None:
    counts = component_counts(arguments.components)
    check_at_least(arguments, {"draws": 10, "chains": 1, "seed": 0})
    if arguments.draws * arguments.chains < _LEAST_DRAWS:
        raise InputError(f"--draws times --chains must be at least {_LEAST_DRAWS}, for intervals and leave-one-out")
    settings = Settings(**chosen(arguments, *(setting.name for setting in fields(Settings))))
    out = arguments.out or Path(f"bayesgmm-{arguments.table.stem}-k{arguments.components.replace(':', '-')}")
    columns = columns_of(arguments)

    from bayesgmm.cli import files
    from bayesgmm.covariance import CovarianceModel

    CovarianceModel.named(settings.covariance)  # a name that is none is an error before anything is read
    several = len(counts) > 1
    _check_output(arguments, out, *(out / f"k{K}" for K in counts if several))
    request = _Request("fit", _read(arguments, columns), arguments.table.name, out, asdict(settings))
    if arguments.force:
        _forget(out / (files.UNFINISHED if several else files.PART))
    if several:
        _fit_several(request, counts, settings)
    else:
        _fit_one(request, counts[0], settings)


def _select(arguments: argparse.Namespace) -> None:
    """Compare a grid of fits, write the comparison, and print it."""
    counts = component_counts(arguments.components)
    check_at_least(arguments, {"starts": 1, "folds": 2, "replicates": 0, "seed": 0})
    columns = columns_of(arguments)
    every = arguments.covariance.lower() == "all"
    covariances = arguments.covariance if every else names_in(arguments.covariance, "--covariance")
    criteria = names_in(arguments.criteria, "--criteria")
    out = arguments.out or Path(f"bayesgmm-{arguments.table.stem}-select")

    from bayesgmm.cli import files
    from bayesgmm.cli.progress import progress_shown
    from bayesgmm.selection import select

    _check_output(arguments, out)
    settings = chosen(arguments, *_SELECT_SETTINGS, "seed")
    request = _Request("select", _read(arguments, columns), arguments.table.name, out, settings)
    if arguments.force:
        _forget(out / files.UNFINISHED)
    with progress_shown() as progress:
        selection = select(
            request.table,
            counts,
            covariances,
            criteria,
            posterior=arguments.posterior,
            overfitted=arguments.overfitted,
            n_starts=arguments.starts,
            n_folds=arguments.folds,
            n_replicates=arguments.replicates,
            out=out / files.UNFINISHED,
            rng=arguments.seed,
            progress=progress,
        )
        written = files.write_selection(request.table, selection, out, request.record)

    from bayesgmm.cli import report

    console = _console()
    _print(console, report.selection_page(selection, request.table, request.source, console.width))
    _print_sentences(console, [*selection.text.splitlines(), *_endings(out, written)])


def _read(arguments: argparse.Namespace, columns: Sequence[str] | None) -> pd.DataFrame:
    from bayesgmm.cli.reading import read_table, refuse_missing

    table = read_table(arguments.table, columns)
    refuse_missing(table)
    return table.features


def _check_output(arguments: argparse.Namespace, out: Path, *others: Path) -> None:
    """Check before any work that the results have a place."""
    from bayesgmm.cli import files

    files.refuse_to_overwrite_input(arguments.table, out)
    if not arguments.force:
        for directory in (out, *others):
            files.refuse_to_overwrite(directory)


def _forget(left: Path) -> None:
    """Remove what an interrupted run has left to go on from, a directory or a file."""
    if left.is_dir():
        shutil.rmtree(left, ignore_errors=True)
    else:
        left.unlink(missing_ok=True)


def _fit_one(request: _Request, n_components: int, settings: Settings) -> None:
    """Fit one number of components, write everything, and print it."""
    from bayesgmm.cli import files
    from bayesgmm.cli.progress import progress_shown
    from bayesgmm.progress import of_stage

    with progress_shown() as progress:
        progress("loading", 0, 1)
        from bayesgmm.cli import report
        from bayesgmm.cli.analysis import analyse
        from bayesgmm.summary.words import sentences

        progress("loading", 1, 1)
        part = request.out / files.PART if settings.sampler in ("auto", "nutpie") else None
        analysis = analyse(request.table, n_components, settings, out=part, progress=progress)
        written = files.write_analysis(analysis, request.out, request.record, of_stage(progress, "files"))
    console = _console()
    _print(console, report.fit_page(analysis, request.source, console.width))
    _print_sentences(console, [*sentences(analysis), *_endings(request.out, written)])


def _fit_several(request: _Request, counts: Sequence[int], settings: Settings) -> None:
    """Fit several numbers of components, write everything of each, and print how they compare."""
    from bayesgmm.cli import files
    from bayesgmm.cli.progress import progress_shown
    from bayesgmm.progress import of_stage

    not_drawn: dict[str, str] = {}
    ambiguous: list[int] = []
    with progress_shown() as progress:
        progress("loading", 0, 1)
        from bayesgmm.bayes.posterior import posterior
        from bayesgmm.cli import report
        from bayesgmm.selection import select
        from bayesgmm.summary.analysis import summarise

        progress("loading", 1, 1)
        selection = select(
            request.table,
            counts,
            settings.covariance,
            _FIT_CRITERIA,
            posterior="all",
            sampling=chosen(settings, "draws", "chains", "sampler"),
            out=request.out / files.UNFINISHED,
            rng=settings.seed,
            progress=progress,
        )
        files.begin(request.out)
        for (covariance, K), tree in selection.posteriors.items():
            analysis = summarise(
                request.table,
                tree,
                posterior(tree),
                selection.loos[covariance, K],
                settings.seed,
                tell=of_stage(progress, f"K={K}: summaries"),
            )
            ambiguous += [K] * analysis.ambiguous
            tell = of_stage(progress, f"K={K}: files")
            of_one = files.write_analysis(analysis, request.out / f"k{K}", request.record, tell)
            not_drawn |= {f"k{K}/{name}": why for name, why in of_one.not_drawn.items()}
        written = files.write_selection(request.table, selection, request.out, request.record, draws=False)
    names = written.files + [f"k{K}/" for _, K in selection.posteriors]
    written = files.Written(names, not_drawn | written.not_drawn)
    console = _console()
    _print(console, report.selection_page(selection, request.table, request.source, console.width, ambiguous))
    _print_sentences(console, [*selection.text.splitlines(), *_endings(request.out, written)])


def _console() -> Console:
    from rich.console import Console

    width = None if sys.stdout.isatty() else _PLAIN_WIDTH
    return Console(width=width, markup=False, emoji=False, highlight=False)


def _print(console: Console, page: Iterable[Table | str]) -> None:
    for item in page:
        console.print(item)


def _print_sentences(console: Console, sentences: Iterable[str]) -> None:
    """Each on a line of its own, whatever the names in it."""
    for sentence in sentences:
        console.print(one_line(sentence))


def _endings(out: Path, written: Written) -> Iterator[str]:
    """What was written, and what was not."""
    yield f"Written to {out}: {', '.join(written.files)}."
    for name, why in written.not_drawn.items():
        yield f"{name} could not be drawn ({why}); everything else is complete."
