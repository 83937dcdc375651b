"""The arguments of the command line: which there are, and their help."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bayesgmm import __version__
from bayesgmm.cli.parsing import Parser, separator, whole_number

_DESCRIPTION = "Which clusters are in a table, and how sure to be of them: Gaussian mixtures by EM and their posterior."
_EPILOG = """examples:
  bayesgmm demo                                     the eruptions of Old Faithful, start to finish
  bayesgmm fit table.csv -k 3                       three clusters in all columns of a table
  bayesgmm select table.csv --columns x,y           how many clusters are there, by several criteria?
  bayesgmm fit table.csv -k 1:6 --columns x,y       1 to 6 clusters compared, each with its posterior
  bayesgmm assign bayesgmm-table-k3 new.csv         which clusters new rows belong to
  bayesgmm fit 'data/*.parquet' -k 5                files that need not fit in memory, by EM
  gzip -c table.csv | bayesgmm fit - -k 2 --json    a table on standard input, the result as JSON
"""
_FIT_EPILOG = """what is written to DIR:
  report.html            a page to look at in a browser; it needs no network and no other file
  clusters.png, posterior.png, em_path.png   pictures
  uncertainty.png, least_certain.png   where, and for which rows, the assignment is in doubt
  similarity.png, credible_ball.png   which rows belong together, and how far the partition could be off
  responsibilities.csv   a line per row: the table's own columns (table_NAME where NAME is taken), its component, the
                         probability of each with an interval, its cluster in the partition; tail_probability is near
                         0 for an outlier
  components.csv         a line per parameter: EM estimate, posterior mean, sd and interval
  imputed.csv            a line per missing value, and per value with an error: what it may have been, with interval;
                         only where there are such values
  clusters.csv           the posterior by the clusters of the partition; only where the draws do not keep the components
                         apart, and then responsibilities.csv, tables and pictures go by these clusters too
  posterior.nc           all draws; opens with arviz.from_netcdf or xarray.open_datatree
  summary.json           the run in numbers, with everything it was given; written last
With a range of components there is a directory k1, k2, ... for each, and the files of bayesgmm select beside them.
With --em-only there are estimates without intervals: report.html, clusters.png, em_path.png, responsibilities.csv,
components.csv, imputed.csv where values are missing, fit.npz and summary.json.
Several files, a pattern of their names (in quotes), a directory of Parquet files, .npy, and a file of Parquet that is
large beside the memory are read in parts. The posterior of all their rows is then by Laplace's approximation, or by
NUTS on weighted rows, and it is said whether a check trusts it; what is said of single rows, and drawn, is of a random
sample of them, and there is no leave-one-out. Values may be missing only with --em-only. What each reading of the rows
has found is kept in DIR/unfinished until the end: however it was stopped, the same command goes on from there.
Of a table in memory draws are kept in posterior.part.nc until the end: after an interruption the same command goes on.

--priors takes a file with what bg.Priors.to_json() gives, or with some of its parts, concentration, means and
covariances; the others are those of bg.Priors.weakly_informative. {"concentration": [5, 5]} expects two components of
about equal size.

Rows are numbered from 0, without the header; components from 0, in the order of their means in the first column.
Exit status: 0 done, 1 the result cannot be written, 2 input that cannot be used, 130 interrupted, 141 nobody reads on.
"""
_SELECT_EPILOG = """what is written to DIR:
  report.html      a page to look at in a browser; it needs no network and no other file
  selection.csv    a line per fit: its criteria with their uncertainty, and how it ended
  criteria.png     the criteria against the number of components
  predictions.png, averaged.png   with loo: the differences in prediction, and the averaged density
  posterior-MODEL-K.nc            the draws of each fit that has a posterior
  fit.npz          the fit to report, with the rows: of these bayesgmm report writes the page again
  summary.json     the conclusions and the run in numbers, with everything it was given; written last
Finished parts are kept in DIR/unfinished until the end: after an interruption the same command goes on from there.

Several files, a pattern of their names (in quotes), a directory of Parquet files, .npy, and a file of Parquet that is
large beside the memory are read in parts: all fits climb in the same readings, and a tenth of the rows is held out to
judge them. Page and pictures are then of a random sample of the rows.

BIC and ICL are about clusters, the held-out log density and LOO about prediction, the
evidence is about mixture and prior together.
Exit status: 0 done, 1 the result cannot be written, 2 input that cannot be used, 130 interrupted, 141 nobody reads on.
"""
_ASSIGN_EPILOG = """A line per row of TABLE: its own columns, its component or cluster, and the probability of each
with an interval, as in responsibilities.csv. TABLE must have the columns that were fitted; it is read and written in
parts, so that it may be larger than memory.
Of several files, a pattern of their names (in quotes), a directory of Parquet files or .npy, --out is a directory with
a Parquet file for each: label, probability, and with a posterior the ends of its interval. Finished files are not
written again when the same command goes on after an interruption. With --cluster its workers write them: --out must be
a directory that all of them share with this machine.
"""


@dataclass(frozen=True, slots=True)
class Settings:
    """How to fit and to sample; the arguments of `fit_em` and `sample_posterior` that have these names.

    Attributes
    ----------
    covariance : str
    draws, chains : int
    sampler : {"auto", "nutpie", "pymc", "gibbs"}
    seed : int
        Of everything that is random.
    noise : bool
        Whether rows may belong to no cluster.
    """

    covariance: str = "full"
    draws: int = 1000
    chains: int = 4
    sampler: str = "auto"
    seed: int = 0
    noise: bool = False


def parser() -> tuple[Parser, dict[str, Parser]]:
    """The parser, which names in ``command`` what is to be done, and those of the commands."""
    raw = argparse.RawDescriptionHelpFormatter
    main = Parser(prog="bayesgmm", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=raw, allow_abbrev=False)
    main.add_argument("--version", action="version", version=f"bayesgmm {__version__}")
    adder = main.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    commands: dict[str, Parser] = {}

    def add(name: str, summary: str, description: str, epilog: str | None = None) -> Parser:
        options: dict[str, Any] = {"description": description, "epilog": epilog, "formatter_class": raw}
        commands[name] = adder.add_parser(name, help=summary, allow_abbrev=False, **options)
        return commands[name]

    demo = add(
        "demo",
        "show everything on a table that ships with the package",
        "Two clusters of eruptions of the Old Faithful geyser, 272 x 2: the whole way, in seconds.",
    )
    demo.add_argument("--out", metavar="DIR", type=Path, default=Path("bayesgmm-demo"), help="default: %(default)s")
    _add_printing(demo)
    description = "Fit a Gaussian mixture by EM, draw from its posterior, and say how sure to be of it."
    _add_fit_arguments(add("fit", "find the clusters in a table", description, _FIT_EPILOG))
    description = "Fit a grid of Gaussian mixtures by EM, and say which to prefer, by several criteria."
    _add_select_arguments(add("select", "choose the number of clusters and the model", description, _SELECT_EPILOG))
    description = "Assign the rows of a table to the clusters that bayesgmm fit found in another."
    assign = add("assign", "assign new rows to clusters that were found", description, _ASSIGN_EPILOG)
    _add_result(assign)
    _add_table(assign)
    _add_stream(assign)
    _add_cluster(assign)
    summary = "print the report of a finished result again, and write its page again"
    show = add("report", summary, "Make the report of a result, and report.html, from its files.")
    _add_result(show)
    show.add_argument("--json", action="store_true", help="print the result's summary.json instead")
    sample = add("sample", "draw new rows", "Draw rows as the posterior expects new ones, with their component.")
    _add_result(sample)
    sample.add_argument("-n", metavar="N", type=whole_number(1), required=True, help="rows to draw")
    _add_seed(sample)
    _add_stream(sample)
    completion = add(
        "completion",
        "print a script that completes commands in a shell",
        'Print a script for a shell, such as: eval "$(bayesgmm completion bash)"',
    )
    completion.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="bash, zsh or tcsh")
    return main, commands


def _add_fit_arguments(fit: Parser) -> None:
    _add_table(fit)
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
        help="full (default), tied, diag, spherical, or one of the 14 names EII, VII, EEI, ..., VVV",
    )
    _add_columns_and_output(fit, "bayesgmm-TABLE-kK")
    _add_noise(fit)
    fit.add_argument("--em-only", action="store_true", help="estimates without the posterior: no intervals, but quick")
    fit.add_argument("--priors", metavar="FILE", type=Path, help="priors of the posterior as JSON, all or some parts")
    fit.add_argument(
        "--draws", type=whole_number(10), default=1000, metavar="N", help="posterior draws per chain (%(default)s)"
    )
    fit.add_argument("--chains", type=whole_number(1), default=4, metavar="N", help="chains to draw (%(default)s)")
    _add_seed(fit)
    _add_cluster(fit)
    fit.add_argument(
        "--sampler",
        choices=("auto", "nutpie", "pymc", "gibbs"),
        default="auto",
        help="nutpie, pymc, gibbs, or %(default)s: nutpie, then gibbs where its chains do not converge; of 10 000 rows "
        "and more an approximation instead, where a check over all rows finds it good",
    )
    _add_printing(fit)


def _add_select_arguments(select: Parser) -> None:
    _add_table(select)
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
        metavar="A,B,...",
        help="some of bic, icl, aic, cv (held-out density), loo, evidence (the last two draw from the posteriors of "
        "the contenders), held_out (of a table in parts); the first decides (bic,icl,cv, or held_out,icl,bic in parts)",
    )
    select.add_argument(
        "--posterior", choices=("contenders", "all"), help="draw posteriors of the five contenders, or of every fit"
    )
    select.add_argument(
        "--overfitted",
        action="store_true",
        help="how many components of a large mixture hold rows, if its prior allows empty ones?",
    )
    _add_columns_and_output(select, "bayesgmm-TABLE-select")
    _add_cluster(select)
    _add_noise(select)
    numbers = (
        ("--starts", 1, None, "starts of each fit (as many as it takes)"),
        ("--folds", 2, 10, "parts held out in turn (%(default)s)"),
        ("--replicates", 0, None, "resampled tables on which to repeat the choice (100; none of a table in parts)"),
    )
    for name, least, default, meaning in numbers:
        select.add_argument(name, type=whole_number(least), default=default, metavar="N", help=meaning)
    _add_seed(select)
    _add_printing(select)


def _add_result(command: Parser) -> None:
    command.add_argument("result", metavar="DIR", type=Path, help="what bayesgmm fit, select or demo has written")


def _add_table(command: Parser) -> None:
    command.add_argument(
        "table",
        metavar="TABLE",
        type=Path,
        nargs="+",
        help="CSV or other text, Parquet, Feather or Excel, packed (gz, bz2, xz, zip) or not; - is standard input; or "
        "several files of Parquet or .npy, which need not fit in memory",
    )
    written = command.add_argument_group("how the table is written", "found out from its first lines, if not given")
    written.add_argument("--header", metavar="N", type=whole_number(0), help="lines at its top that name the columns")
    written.add_argument("--separator", metavar="SIGN", type=separator, help="between cells: , ; | tab blank ...")
    written.add_argument("--decimal", choices=(".", ","), help="decimal point or comma")
    written.add_argument("--thousands", choices=(",", ".", " ", "'"), help="the sign between thousands")
    written.add_argument(
        "--missing",
        metavar="A,B,...",
        help="what stands for a missing value, besides empty cells, NA, null, ? ...",
    )
    errors_help = "columns called PREFIX and the name of another hold the standard deviations of its errors: sd_mass"
    command.add_argument("--error-prefix", metavar="PREFIX", help=errors_help)
    command.add_argument(
        "--fail-on-missing",
        action="store_true",
        help="refuse missing values instead of integrating over them",
    )
    command.add_argument("--id", metavar="COLUMN", help="column that tells the rows apart, kept beside the results")


def _add_cluster(command: Parser) -> None:
    cluster_help = "read TABLE in parts, by the workers of a Dask cluster: its scheduler's address, or local"
    command.add_argument("--cluster", metavar="ADDRESS", help=cluster_help)


def _add_columns_and_output(command: Parser, directory: str) -> None:
    columns_help = "columns to use; default: all but that of --id, which must then be numeric"
    command.add_argument("--columns", metavar="A,B,...", help=columns_help)
    command.add_argument("--out", metavar="DIR", type=Path, help=f"where to write; default: {directory}")
    command.add_argument("--force", action="store_true", help="overwrite a finished result in DIR")


def _add_noise(command: Parser) -> None:
    command.add_argument(
        "--noise", action="store_true", help="let rows belong to no cluster: even over the columns' ranges"
    )


def _add_stream(command: Parser) -> None:
    command.add_argument("--out", metavar="FILE", type=Path, help="where to write CSV; default: standard output")


def _add_printing(command: Parser) -> None:
    command.add_argument(
        "--json", action="store_true", help="print the content of summary.json, and everything else on standard error"
    )
    command.add_argument("--quiet", action="store_true", help="print neither progress nor the report")


def _add_seed(command: Parser) -> None:
    seed_help = "the same seed, the same answer (%(default)s)"
    command.add_argument("--seed", type=whole_number(0), default=0, metavar="N", help=seed_help)
