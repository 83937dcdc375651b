"""The commands: arguments in; tables, sentences and files out."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayesgmm import __version__
from bayesgmm.cli.arguments import Settings, parser
from bayesgmm.cli.parsing import chosen, columns_of, component_counts, names_in, parsed, text_options
from bayesgmm.cli.sources import STDIN, files_in, in_parts, stem
from bayesgmm.errors import BayesGMMError, DegenerateFitError, InputError
from bayesgmm.names import one_line

# Whatever imports NumPy, pandas, rich or PyMC is imported where it is needed: --help should not wait for it.
if TYPE_CHECKING:
    import pandas as pd

    from bayesgmm.bayes.priors import Priors
    from bayesgmm.cli.console import Output
    from bayesgmm.cli.files import Written
    from bayesgmm.cli.reading import ReadTable
    from bayesgmm.observations import Observations

_LEAST_DRAWS = 100  # of all chains
_FIT_CRITERIA = ("bic", "icl", "loo")  # by which `fit` compares several numbers of components
_BROKEN_PIPE = 141  # what a shell says of a program that writes to nobody


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; its exit status.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; those of the process by default.

    Returns
    -------
    int
        0 done, 1 the result cannot be written, 2 input that cannot be used, 130 interrupted, 141 nobody reads on.
    """
    try:
        whole, commands = parser()
        arguments = parsed(whole, commands, argv)
        if arguments.command is None:
            whole.print_help()
        else:
            _COMMANDS[arguments.command](arguments)
        sys.stdout.flush()
    except DegenerateFitError:
        # Its own words are about priors for EM, which the command line has not.
        cure = "give fewer components with -k, or a simpler --covariance such as tied or diag"
        return _fail(f"in every start of EM a component collapsed onto too few different rows; {cure}", 2)
    except BayesGMMError as error:
        return _fail(str(error), 2)
    except KeyboardInterrupt as interrupt:
        return _fail(str(interrupt) or "interrupted; the same command goes on with what is done", 130)
    except BrokenPipeError:
        # Who read the output has left, as head does. Python would say so once more when it closes the output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
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
    errors: pd.DataFrame | None  # of its values, as standard deviations
    own: pd.DataFrame  # the table's columns as they stand in its file
    source: str  # the table's name
    out: Path
    record: dict[str, Any]
    output: Output


def _request(arguments: argparse.Namespace, table: ReadTable, source: str) -> _Request:
    """The request that the arguments make; what was noted about the table is said."""
    from bayesgmm.cli.console import Output, note

    for text in table.notes:
        note(text)
    record = _record(arguments) | {"table": {"format": table.format, "notes": table.notes}}
    record["arguments"] = {"source": source} | record["arguments"]
    output = Output(arguments.json, arguments.quiet)
    return _Request(arguments.command, table.features, table.errors, table.own, source, arguments.out, record, output)


def _record(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the summary repeats of the command."""
    given = {name: value for name, value in vars(arguments).items() if name != "command"}
    return {"bayesgmm": __version__, "command": arguments.command, "arguments": given}


def _demo(arguments: argparse.Namespace) -> None:
    from bayesgmm import datasets
    from bayesgmm.cli import files
    from bayesgmm.cli.reading import ReadTable

    files.refuse_to_overwrite(arguments.out, own_command="demo")
    settings = Settings()
    vars(arguments).update(asdict(settings))
    table = datasets.old_faithful()
    request = _request(arguments, ReadTable(table, None, table, None, (), {}), "Old Faithful")
    _forget(arguments.out / files.PART)
    _fit_one(request, 2, settings, None)


def _fit(arguments: argparse.Namespace) -> None:
    counts = component_counts(arguments.components)
    several = len(counts) > 1
    if arguments.draws * arguments.chains < _LEAST_DRAWS:
        raise InputError(f"--draws times --chains must be at least {_LEAST_DRAWS}, for intervals and leave-one-out")
    if arguments.noise and arguments.sampler == "gibbs":
        raise InputError("--sampler gibbs has no --noise; use --sampler nutpie")
    if arguments.em_only and several:
        raise InputError("--em-only takes one number of components; bayesgmm select compares several by EM")
    settings = Settings(**chosen(arguments, *(setting.name for setting in fields(Settings))))
    name = stem(arguments.table[0])
    arguments.out = arguments.out or Path(f"bayesgmm-{name}-k{arguments.components.replace(':', '-')}")
    if arguments.cluster is not None or in_parts(arguments.table):
        return _fit_in_parts(arguments, counts, settings)
    arguments.table = arguments.table[0]
    given = None if arguments.priors is None else _priors_given(arguments.priors)

    from bayesgmm.cli import files
    from bayesgmm.covariance import CovarianceModel

    CovarianceModel.named(settings.covariance)  # a name that is none is an error before anything is read
    _check_output(arguments, *(arguments.out / f"k{K}" for K in counts if several))
    request = _read(arguments)
    request.record["arguments"]["given_priors"] = given
    _check_fit(request, max(counts), settings, em_only=arguments.em_only)
    if arguments.force:
        _forget(arguments.out / (files.UNFINISHED if several else files.PART))
    if arguments.em_only:
        _fit_by_em(request, counts[0], settings)
    elif several:
        _fit_several(request, counts, settings, _priors(given, None, 0))
    else:
        _fit_one(request, counts[0], settings, _priors(given, request.table, counts[0]))


def _fit_in_parts(arguments: argparse.Namespace, counts: Sequence[int], settings: Settings) -> None:
    """Fit a table that need not fit in memory."""
    if len(counts) > 1:
        raise InputError(
            f"a table in parts is fitted with one number of components; bayesgmm select -k {arguments.components} "
            "compares several by EM, with rows held out"
        )
    arguments.table = files_in(arguments.table)

    from bayesgmm.cli import files
    from bayesgmm.cli.console import Output
    from bayesgmm.cli.in_parts import fit, refuse_what_is_for_one_file
    from bayesgmm.covariance import CovarianceModel

    CovarianceModel.named(settings.covariance)
    refuse_what_is_for_one_file(arguments)
    _check_output(arguments)
    given = None if arguments.priors is None else _priors_given(arguments.priors)
    if arguments.force:
        _forget(arguments.out / files.UNFINISHED)
    record, output = _record(arguments), Output(arguments.json, arguments.quiet)
    record["arguments"]["given_priors"] = given
    fit(arguments, counts[0], settings, lambda table: _priors(given, table, counts[0]), record, output)


def _priors_given(path: Path) -> dict[str, Any]:
    """The parts of the priors that a file has."""
    try:
        given = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"--priors: {path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise InputError(f"--priors: {path} is not JSON: {error}") from None
    parts = ("kind", "concentration", "means", "covariances")
    if not isinstance(given, dict) or not given or set(given) - set(parts):
        raise InputError(f"--priors: {path} must be an object with some of {', '.join(parts[1:])}")
    return given


def _priors(
    given: dict[str, Any] | None, table: pd.DataFrame | Observations | None, n_components: int
) -> Priors | None:
    """The priors of these parts; what they leave out is scaled by the table, if there is one."""
    if given is None:
        return None
    from bayesgmm.bayes.priors import Priors

    default = {"kind": "Priors"}
    if table is not None:
        default = json.loads(Priors.weakly_informative(table, n_components).to_json())
    try:
        priors = Priors.from_json(json.dumps(default | given))
    except InputError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        more = "" if table is not None else "; with a range of components all parts must be given"
        raise InputError(f"--priors: {error} cannot be understood; see bg.Priors.to_json{more}") from None
    if table is None and priors.n_components:
        raise InputError("--priors: with a range of components the concentration must be a single number")
    return priors


def _select(arguments: argparse.Namespace) -> None:
    """Compare a grid of fits, write the comparison, and print it."""
    counts = component_counts(arguments.components)
    every = arguments.covariance.lower() == "all"
    covariances = arguments.covariance if every else names_in(arguments.covariance, "--covariance")
    criteria = None if arguments.criteria is None else names_in(arguments.criteria, "--criteria")
    arguments.out = arguments.out or Path(f"bayesgmm-{stem(arguments.table[0])}-select")
    if arguments.cluster is not None or in_parts(arguments.table):
        return _select_in_parts(arguments, {"n_components": counts, "covariances": covariances, "criteria": criteria})
    arguments.table = arguments.table[0]

    from bayesgmm.cli import files
    from bayesgmm.cli.console import note
    from bayesgmm.observations import any_rows
    from bayesgmm.selection import select

    _check_output(arguments)
    request = _read(arguments)
    missing = any_rows(request.table).count_missing()
    if missing.n_rows:
        note(f"{missing}, and integrated over")
    if arguments.noise and arguments.overfitted:
        raise InputError("--overfitted has no --noise; leave one of them out")
    if arguments.folds > len(request.table) and "cv" in (criteria or ["cv"]):
        raise InputError(f"--folds {arguments.folds} is more than the {len(request.table)} rows of the table")
    if arguments.force:
        _forget(arguments.out / files.UNFINISHED)
    with request.output.progress() as progress:
        selection = select(
            request.table,
            counts,
            covariances,
            criteria,
            error_sd=request.errors,
            noise=arguments.noise,
            posterior=arguments.posterior,
            overfitted=arguments.overfitted,
            n_starts=arguments.starts,
            n_folds=arguments.folds,
            n_replicates=arguments.replicates,
            out=arguments.out / files.UNFINISHED,
            rng=arguments.seed,
            progress=progress,
        )
        record = request.record | _size(request)
        ids = files.ids_of(request.own, record)
        written = files.write_selection(request.table, selection, arguments.out, record, errors=request.errors, ids=ids)
    _show_selection(request, written, written.files)


def _select_in_parts(arguments: argparse.Namespace, grid: dict[str, Any]) -> None:
    """Compare a grid of fits to a table that need not fit in memory."""
    arguments.table = files_in(arguments.table)

    from bayesgmm.cli import files
    from bayesgmm.cli.console import Output
    from bayesgmm.cli.finished import show_selection
    from bayesgmm.cli.in_parts import compare, refuse_what_is_for_one_file

    refuse_what_is_for_one_file(arguments)
    _check_output(arguments)
    if arguments.force:
        _forget(arguments.out / files.UNFINISHED)
    output = Output(arguments.json, arguments.quiet)
    written = compare(arguments, grid, _record(arguments), output)
    show_selection(arguments.out, written.summary, output)
    output.sentences(files.endings(arguments.out, written.files, written.summary["not_drawn"]))
    output.value(written.summary)


def _read(arguments: argparse.Namespace) -> _Request:
    from bayesgmm.cli.reading import read_table, refuse_missing

    options = arguments.id, text_options(arguments), arguments.error_prefix
    table = read_table(arguments.table, columns_of(arguments), *options)
    if arguments.fail_on_missing:
        refuse_missing(table)
    return _request(arguments, table, "standard input" if arguments.table == STDIN else arguments.table.name)


def _check_output(arguments: argparse.Namespace, *others: Path) -> None:
    """Check before any work that the results have a place."""
    from bayesgmm.cli import files

    if isinstance(arguments.table, Path) and arguments.table != STDIN:
        files.refuse_to_overwrite_input(arguments.table, arguments.out)
    if not arguments.force:
        for directory in (arguments.out, *others):
            files.refuse_to_overwrite(directory)


def _check_fit(request: _Request, n_components: int, settings: Settings, *, em_only: bool) -> None:
    """Check what would be refused later in words of Python: too few rows, dependent columns, a sampler that cannot."""
    import numpy as np

    from bayesgmm.bayes.gibbs import MODELS
    from bayesgmm.cli.reading import option_for
    from bayesgmm.covariance import CovarianceModel, first_dependent

    table, model = request.table, CovarianceModel.named(settings.covariance).for_features(request.table.shape[1])
    different = len(table.drop_duplicates())
    if different <= n_components:
        raise InputError(
            f"-k {n_components} needs more than {n_components} different rows, and the table has {different}; give "
            "a smaller -k"
        )
    column = next((name for name in table.columns if table[name].nunique() == 1), None)
    fault = "is constant"
    if column is None and not (em_only and model.diagonal):
        complete = table.dropna().to_numpy()
        j = first_dependent(np.atleast_2d(np.cov(complete.T))) if len(complete) > complete.shape[1] else None
        column = None if j is None else table.columns[j]
        fault = f"is in all {len(table)} rows the same linear combination of the columns before it"
    if column is not None and len(table.columns) > 1:
        others = option_for("--columns", [name for name in table.columns if name != column])
        raise InputError(f"column {column!r} {fault}; leave it out: {others}")
    if settings.sampler == "gibbs" and model.name not in MODELS and not em_only:
        raise InputError(f"--sampler gibbs has no --covariance {model.name}, only {', '.join(MODELS)}")


def _forget(left: Path) -> None:
    """Remove what an interrupted run has left to go on from, a directory or a file."""
    if left.is_dir():
        shutil.rmtree(left, ignore_errors=True)
    else:
        left.unlink(missing_ok=True)


def _fit_one(request: _Request, n_components: int, settings: Settings, priors: Priors | None) -> None:
    """Fit one number of components, write everything, and print it."""
    from bayesgmm.cli import files
    from bayesgmm.progress import of_stage

    with request.output.progress() as progress:
        progress("loading", 0, 1)
        from bayesgmm.cli import report
        from bayesgmm.cli.analysis import analyse
        from bayesgmm.summary.words import sentences

        progress("loading", 1, 1)
        part = request.out / files.PART if settings.sampler in ("auto", "nutpie") else None
        analysis = analyse(
            request.table, n_components, settings, priors, errors=request.errors, out=part, progress=progress
        )
        tell = of_stage(progress, "files")
        written = files.write_analysis(analysis, request.own, request.out, request.record, tell)
    output = request.output
    output.page(report.fit_page(analysis, request.source, output.console.width))
    output.sentences([*sentences(analysis), *files.endings(request.out, written.files, written.summary["not_drawn"])])
    output.value(written.summary)


def _fit_by_em(request: _Request, n_components: int, settings: Settings) -> None:
    """Fit one number of components by EM alone, write everything, and print it."""
    from bayesgmm.cli import em_only, files
    from bayesgmm.em.fit import fit_em
    from bayesgmm.errors import ConvergenceWarning

    with request.output.progress() as progress, warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the report says the same
        started = time.perf_counter()
        options: dict[str, Any] = {"error_sd": request.errors, "noise": settings.noise}
        options |= {"rng": settings.seed, "progress": progress}
        fit = fit_em(request.table, n_components, settings.covariance, **options)
        seconds = time.perf_counter() - started
        written = em_only.write(fit, request.table, request.errors, request.own, request.out, request.record, seconds)
    output = request.output
    p = fit.mixture.responsibilities(request.table, error_sd=request.errors)
    output.page(em_only.page(fit, p, request.source, output.console.width))
    endings = files.endings(request.out, written.files, written.summary["not_drawn"])
    output.sentences([*em_only.sentences(fit, seconds, len(request.table)), *endings])
    output.value(written.summary)


def _fit_several(request: _Request, counts: Sequence[int], settings: Settings, priors: Priors | None) -> None:
    """Fit several numbers of components, write everything of each, and print how they compare."""
    from bayesgmm.cli import files
    from bayesgmm.progress import of_stage

    not_drawn: dict[str, str] = {}
    ambiguous: list[int] = []
    with request.output.progress() as progress:
        progress("loading", 0, 1)
        from dataclasses import replace

        from bayesgmm.bayes.posterior import posterior
        from bayesgmm.selection import select
        from bayesgmm.summary.analysis import summarise

        progress("loading", 1, 1)
        selection = select(
            request.table,
            counts,
            settings.covariance,
            _FIT_CRITERIA,
            error_sd=request.errors,
            noise=settings.noise,
            posterior="all",
            sampling=chosen(settings, "draws", "chains", "sampler") | ({} if priors is None else {"priors": priors}),
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
            analysis = replace(analysis, draws_file=selection.posterior_files.get((covariance, K)))
            ambiguous += [K] * analysis.ambiguous
            tell = of_stage(progress, f"K={K}: files")
            of_one = files.write_analysis(analysis, request.own, request.out / f"k{K}", request.record, tell)
            not_drawn |= {f"k{K}/{name}": why for name, why in of_one.summary["not_drawn"].items()}
        record = request.record | _size(request) | {"ambiguous": ambiguous}
        ids = files.ids_of(request.own, record)
        written = files.write_selection(
            request.table, selection, request.out, record, errors=request.errors, ids=ids, draws=False
        )
    written.summary["not_drawn"] |= not_drawn
    _show_selection(request, written, written.files + [f"k{K}/" for _, K in selection.posteriors])


def _size(request: _Request) -> dict[str, Any]:
    """What the summary of a selection says of the table."""
    n, d = request.table.shape
    features, missing = list(request.table.columns), request.table.isna().mean().to_dict()
    return {"n_observations": n, "n_features": d, "features": features, "missing": missing}


def _show_selection(request: _Request, written: Written, names: Sequence[str]) -> None:
    """Print a selection that has been written."""
    from bayesgmm.cli import files
    from bayesgmm.cli.finished import show_selection

    show_selection(request.out, written.summary, request.output)
    request.output.sentences(files.endings(request.out, names, written.summary["not_drawn"]))
    request.output.value(written.summary)


def _assign(arguments: argparse.Namespace) -> None:
    if arguments.cluster is not None or in_parts(arguments.table):
        return _assign_in_parts(arguments)
    arguments.table = arguments.table[0]

    from bayesgmm.cli.finished import assign_rows

    options = {"ids": arguments.id, "options": text_options(arguments), "error_prefix": arguments.error_prefix}
    refuse = arguments.fail_on_missing
    assign_rows(arguments.result, arguments.table, options, arguments.out, fail_on_missing=refuse)


def _assign_in_parts(arguments: argparse.Namespace) -> None:
    """Label the rows of a table that need not fit in memory."""
    if arguments.out is None:
        raise InputError("of a table in parts the labels are written to files; give --out a directory")

    from bayesgmm.cli.console import Output
    from bayesgmm.cli.in_parts import assign, refuse_what_is_for_one_file

    refuse_what_is_for_one_file(arguments)
    assign(arguments.result, files_in(arguments.table), arguments.out, arguments.cluster, Output())


def _report(arguments: argparse.Namespace) -> None:
    from bayesgmm.cli.console import Output
    from bayesgmm.cli.finished import show_result

    show_result(arguments.result, Output(arguments.json, quiet=arguments.json))


def _sample(arguments: argparse.Namespace) -> None:
    from bayesgmm.cli.finished import sample_rows

    sample_rows(arguments.result, arguments.n, arguments.seed, arguments.out)


def _completion(arguments: argparse.Namespace) -> None:
    import shtab

    whole, commands = parser()
    kinds = {"TABLE": shtab.FILE, "FILE": shtab.FILE, "DIR": shtab.DIRECTORY}
    for command in commands.values():
        command.complete(kinds)
    print(shtab.complete(whole, arguments.shell))


_COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "demo": _demo,
    "fit": _fit,
    "select": _select,
    "assign": _assign,
    "report": _report,
    "sample": _sample,
    "completion": _completion,
}
