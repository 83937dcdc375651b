"""The arguments of the command line: which there are, their help, and what their texts mean."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from bayesgmm import __version__
from bayesgmm.errors import InputError

_DESCRIPTION = "Which clusters are in a table, and how sure to be of them: Gaussian mixtures by EM and their posterior."
_EPILOG = """examples:
  bayesgmm demo                                     the eruptions of Old Faithful, start to finish
  bayesgmm fit table.csv -k 3                       three clusters in all columns of a table
  bayesgmm select table.csv --columns x,y           how many clusters are there, by several criteria?
  bayesgmm fit table.csv -k 1:6 --columns x,y       1 to 6 clusters compared, each with its posterior
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
Draws are kept in posterior.part.nc until the end: after an interruption the same command goes on from there.

Rows are numbered from 0, without the header; components from 0, in the order of their means in the first column.
Exit status: 0 done, 1 the result cannot be written, 2 input that cannot be used, 130 interrupted.
"""
_SELECT_EPILOG = """what is written to DIR:
  selection.csv    a line per fit: its criteria with their uncertainty, and how it ended
  criteria.png     the criteria against the number of components
  predictions.png, averaged.png   with loo: the differences in prediction, and the averaged density
  posterior-MODEL-K.nc            the draws of each fit that has a posterior
  summary.json     the conclusions and the run in numbers; written last
Finished parts are kept in DIR/unfinished until the end: after an interruption the same command goes on from there.

BIC and ICL are about clusters, the held-out log density and LOO about prediction, the
evidence is about mixture and prior together.
Exit status: 0 done, 1 the result cannot be written, 2 input that cannot be used, 130 interrupted.
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
    """

    covariance: str = "full"
    draws: int = 1000
    chains: int = 4
    sampler: str = "auto"
    seed: int = 0


class _Parser(argparse.ArgumentParser):
    """Raises what is wrong with the arguments instead of printing the usage and leaving."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")


def parser() -> argparse.ArgumentParser:
    """The parser, which names in ``command`` what is to be done."""
    raw = argparse.RawDescriptionHelpFormatter
    main = _Parser(prog="bayesgmm", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=raw, allow_abbrev=False)
    main.add_argument("--version", action="version", version=f"bayesgmm {__version__}")
    commands = main.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    demo = commands.add_parser(
        "demo",
        help="show everything on a table that ships with the package",
        description="Two clusters of eruptions of the Old Faithful geyser, 272 x 2: the whole way, in seconds.",
    )
    demo.add_argument("--out", metavar="DIR", type=Path, default=Path("bayesgmm-demo"), help="default: %(default)s")
    _add_fit_arguments(
        commands.add_parser(
            "fit",
            help="find the clusters in a table",
            description="Fit a Gaussian mixture by EM, draw from its posterior, and say how sure to be of it.",
            epilog=_FIT_EPILOG,
            formatter_class=raw,
            allow_abbrev=False,
        )
    )
    _add_select_arguments(
        commands.add_parser(
            "select",
            help="choose the number of clusters and the covariance model",
            description="Fit a grid of Gaussian mixtures by EM, and say which to prefer, by several criteria.",
            epilog=_SELECT_EPILOG,
            formatter_class=raw,
            allow_abbrev=False,
        )
    )
    return main


def _add_fit_arguments(fit: argparse.ArgumentParser) -> None:
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
    _add_input_and_output(fit, "bayesgmm-TABLE-kK")
    fit.add_argument("--draws", type=int, default=1000, metavar="N", help="posterior draws per chain (%(default)s)")
    fit.add_argument("--chains", type=int, default=4, metavar="N", help="chains to draw (%(default)s)")
    _add_seed(fit)
    fit.add_argument(
        "--sampler",
        choices=("auto", "nutpie", "pymc", "gibbs"),
        default="auto",
        help="nutpie, pymc, gibbs, or %(default)s: nutpie, then gibbs where its chains do not converge",
    )


def _add_select_arguments(select: argparse.ArgumentParser) -> None:
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
        default="bic,icl,cv",
        metavar="A,B,...",
        help="some of bic, icl, aic, cv (held-out density), loo, evidence (the last two draw from the posteriors of "
        "the contenders); the first decides (%(default)s)",
    )
    select.add_argument(
        "--posterior", choices=("contenders", "all"), help="draw posteriors of the five contenders, or of every fit"
    )
    select.add_argument(
        "--overfitted",
        action="store_true",
        help="how many components of a large mixture hold rows, if its prior allows empty ones?",
    )
    _add_input_and_output(select, "bayesgmm-TABLE-select")
    select.add_argument("--starts", type=int, default=20, metavar="N", help="starts of each fit (%(default)s)")
    select.add_argument("--folds", type=int, default=10, metavar="N", help="parts held out in turn (%(default)s)")
    select.add_argument(
        "--replicates",
        type=int,
        default=100,
        metavar="N",
        help="resampled tables on which to repeat the choice (%(default)s)",
    )
    _add_seed(select)


def _add_table(command: argparse.ArgumentParser) -> None:
    command.add_argument("table", metavar="TABLE", type=Path, help="CSV, with or without header, or Parquet")


def _add_input_and_output(command: argparse.ArgumentParser, directory: str) -> None:
    columns_help = "columns to use; default: all, which must then be numeric"
    command.add_argument("--columns", metavar="A,B,...", help=columns_help)
    command.add_argument("--out", metavar="DIR", type=Path, help=f"where to write; default: {directory}")
    command.add_argument("--force", action="store_true", help="overwrite a finished result in DIR")


def _add_seed(command: argparse.ArgumentParser) -> None:
    seed_help = "the same seed, the same answer (%(default)s)"
    command.add_argument("--seed", type=int, default=0, metavar="N", help=seed_help)


def check_at_least(arguments: argparse.Namespace, least: Mapping[str, int]) -> None:
    """Check that none of the numbers is smaller than allowed.

    Raises
    ------
    InputError
        Naming the first that is.
    """
    for name, smallest in least.items():
        if (value := getattr(arguments, name)) < smallest:
            raise InputError(f"--{name} must be at least {smallest}, not {value}")


def component_counts(text: str) -> list[int]:
    """The numbers of components that a text such as "3" or "1:6" stands for.

    Examples
    --------
    >>> component_counts("3"), component_counts("1:4")
    ([3], [1, 2, 3, 4])
    """
    first, colon, last = text.partition(":")
    if not (first.isdecimal() and (last.isdecimal() or not colon)):
        raise InputError(f"-k takes a number of components such as 3, or a range such as 1:6, not {text!r}")
    low, high = int(first), int(last or first)
    if not 1 <= low <= high:
        raise InputError(f"-k counts components from 1 upwards, so {text!r} names none")
    return list(range(low, high + 1))


def names_in(text: str, argument: str) -> list[str]:
    """The names in a list with commas between them; a name that has a comma itself is in quotes.

    Examples
    --------
    >>> names_in('length, "width, in mm"', "--columns")
    ['length', 'width, in mm']
    """
    names = [name.strip() for name in next(csv.reader([text], skipinitialspace=True), [])]
    if not names or "" in names or len(set(names)) < len(names):
        raise InputError(f"{argument} takes different names with commas between them, not {text!r}")
    return names


def columns_of(arguments: argparse.Namespace) -> list[str] | None:
    """The columns to use, or None for all."""
    return None if arguments.columns is None else names_in(arguments.columns, "--columns")


def chosen(values: argparse.Namespace | Settings, *names: str) -> dict[str, Any]:
    """Some of the arguments, or of the settings made from them, by name."""
    return {name: getattr(values, name) for name in names}
