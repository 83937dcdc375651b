"""What is done with a finished result: its report printed again, new rows assigned, rows drawn."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import arviz as az
import numpy as np
import pandas as pd
import xarray as xr

from bayesgmm.bayes.posterior import Posterior, posterior
from bayesgmm.cli import em_only, files, report
from bayesgmm.cli.console import Output, note
from bayesgmm.cli.reading import read_parts, refuse_missing
from bayesgmm.clusters.assignment import assign
from bayesgmm.clusters.partition import Partition
from bayesgmm.errors import ConvergenceWarning, InputError
from bayesgmm.files import beside
from bayesgmm.mixture import GaussianMixture
from bayesgmm.page import write_page
from bayesgmm.page.comparison import Comparison
from bayesgmm.page.facts import Facts, facts_of_analysis
from bayesgmm.summary.analysis import Analysis, left_out, summarise
from bayesgmm.summary.words import sentences

_ROWS = 50_000  # of a table that are held at a time


@dataclass(frozen=True)
class Result:
    """A directory that holds a finished result, and its summary."""

    directory: Path
    summary: dict[str, Any]

    @classmethod
    def of(cls, directory: Path) -> Result:
        """The result in a directory.

        Raises
        ------
        InputError
            If there is none.
        """
        try:
            summary = json.loads((directory / files.SUMMARY).read_text("utf-8"))
            return cls(directory, summary | {"arguments": {"seed": 0, "source": directory.name} | summary["arguments"]})
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError(f"{directory} holds no finished result of bayesgmm fit, select or demo") from None

    @property
    def seed(self) -> int:
        """The seed that the command was given."""
        return self.summary["arguments"]["seed"]

    @property
    def source(self) -> str:
        """The name of the table that was fitted."""
        return self.summary["arguments"]["source"]

    @property
    def ids(self) -> list[str] | None:
        """What the rows of one mixture are called, if they have names."""
        return files.ids_of(pd.read_csv(self.directory / files.ROWS, dtype=str), self.summary)

    @property
    def by_em(self) -> bool:
        """Whether there is a fit without posterior."""
        return "selection" not in self.summary and (self.directory / files.FIT).exists()

    def of_one_mixture(self) -> Result:
        """The same result, if it is of one mixture.

        Raises
        ------
        InputError
            If it compares several.
        """
        if "selection" in self.summary:
            single = sorted(path.parent.name for path in self.directory.glob(f"*/{files.SUMMARY}"))
            cure = f"give one of {self.directory / single[0]}, ..." if single else "give a result of bayesgmm fit"
            raise InputError(f"{self.directory} compares several mixtures; {cure}")
        return self

    @cached_property
    def analysis(self) -> Analysis:
        """Everything that follows from the draws, found out anew."""
        with az.rc_context({"stats.ci_prob": self.summary["ci_prob"]}):
            return self._analysis_of(files.DRAWS, self.summary["seconds"])

    def _analysis_of(self, name: str, seconds: dict[str, float] | None = None) -> Analysis:
        """Everything that follows from the draws in a file."""
        tree = xr.load_datatree(self.directory / name, engine="h5netcdf")
        drawn = posterior(tree)
        table = pd.DataFrame(np.asarray(drawn.rows), columns=list(drawn.features))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the report says the same
            return summarise(table, tree, drawn, left_out(drawn, self.seed), self.seed, seconds)

    @cached_property
    def facts(self) -> Facts:
        """What the page of the result tells; of a selection, about the fit to report."""
        run = self.summary
        if "selection" in run:
            compared = comparison(self.directory, run)
            covariance, K = compared.chosen
            draws = f"posterior-{covariance}-{K}.nc"
            if run["command"] == "fit":
                facts = Result.of(self.directory / f"k{K}").facts
            elif (self.directory / draws).exists():
                ids = files.kept_fit(self.directory).ids
                facts = facts_of_analysis(self._analysis_of(draws), files.source_of(run), ids=ids, run=run)
            else:
                facts = em_only.facts(files.kept_fit(self.directory), run)
            return replace(facts, selection=compared, run=run)
        if self.by_em:
            return em_only.facts(files.kept_fit(self.directory), run)
        return facts_of_analysis(self.analysis, files.source_of(run), ids=self.ids, run=run)

    @cached_property
    def em_mixture(self) -> GaussianMixture:
        """EM's mixture, of a result without the posterior."""
        return files.written_fit(self.directory).mixture

    @cached_property
    def draws(self) -> GaussianMixture:
        """The mixtures that were drawn, with one batch axis, or EM's alone."""
        if self.by_em:
            return self.em_mixture.reshape(1)
        with xr.open_datatree(self.directory / files.DRAWS, engine="h5netcdf") as tree:
            return posterior(tree).draws.reshape(-1)

    @property
    def assigned_by(self) -> tuple[GaussianMixture | Posterior, Partition | None]:
        """EM's mixture, or draws, that rows are assigned by; and where draws mix components up, to whose clusters."""
        if self.by_em:
            return self.em_mixture, None
        if self.summary["ambiguous"]:
            return self.analysis.posterior, self.analysis.assignments.partition
        return self.draws, None

    def assigner(self) -> Callable[[pd.DataFrame, pd.DataFrame | None], pd.DataFrame]:
        """A function of rows and their errors that says what responsibilities.csv says of those that were fitted."""
        if self.by_em:
            return lambda rows, errors: em_only.assigned(self.em_mixture, rows, errors, self.seed)
        source, best = self.assigned_by
        ci_prob = self.summary["ci_prob"]
        return lambda rows, errors: files.said_of_rows(
            assign(source, rows, ci_prob, error_sd=errors, partition=best, rng=self.seed)
        )


def show_result(directory: Path, output: Output) -> None:
    """Print the report of a result, made anew from its files, and write the page to look at anew too."""
    result = Result.of(directory)
    if output.as_json:
        output.value(result.summary)
        return
    if "selection" in result.summary:
        show_selection(directory, result.summary, output)
    elif result.by_em:
        fit, rows, errors, _ = files.kept_fit(directory)
        p = fit.mixture.responsibilities(rows, error_sd=errors)
        output.page(em_only.page(fit, p, result.source, output.console.width))
        output.sentences(em_only.sentences(fit, result.summary["seconds"]["em"], len(rows)))
    else:
        output.page(report.fit_page(result.analysis, result.source, output.console.width))
        output.sentences(sentences(result.analysis))
    write_page(result.facts, directory / files.PAGE)


def comparison(directory: Path, summary: dict[str, Any]) -> Comparison:
    """The comparison that a summary holds.

    Raises
    ------
    InputError
        If an older version has written it.
    """
    try:
        return Comparison.from_record(summary)
    except (KeyError, TypeError, ValueError):
        raise files.older(directory) from None


def show_selection(directory: Path, summary: dict[str, Any], output: Output) -> None:
    """Print a selection that has been written."""
    fits = pd.read_csv(directory / "selection.csv")
    rankings = comparison(directory, summary).best_first
    title = report.described(summary["n_observations"], summary["features"], summary["arguments"]["source"])
    output.page(report.selection_page(fits, rankings, title, output.console.width, summary.get("ambiguous", ())))
    noise = ["Rows may belong to no cluster in every fit: --noise."] if summary["arguments"].get("noise") else []
    output.sentences([*noise, *summary["conclusions"]])


def assign_rows(
    directory: Path, table: Path, options: dict[str, Any], out: Path | None, *, fail_on_missing: bool = False
) -> None:
    """Assign the rows of a table, in parts, and write a line of CSV for each.

    Parameters
    ----------
    directory : Path
        Of the result.
    table : Path
    options : dict
        How to read the table, as `read_parts` takes it.
    out : Path or None
        A file, or standard output.
    fail_on_missing : bool
        Whether to refuse missing values.
    """
    result = Result.of(directory).of_one_mixture()
    assigned, done = result.assigner(), 0
    with _csv(out) as file:
        for part in read_parts(table, result.summary["features"], _ROWS, **options):
            for text in part.notes:
                note(text)
            if fail_on_missing:
                refuse_missing(part)
            if len(part.features):
                lines = files.beside_own(part.own, assigned(part.features, part.errors), done)
                lines.to_csv(file, index=False, header=done == 0, float_format=f"%.{files.DIGITS}g")
                done += len(lines)
    if not done:
        raise InputError(f"{table} has no rows")


def sample_rows(directory: Path, n: int, seed: int, out: Path | None) -> None:
    """Draw rows from the posterior predictive, and write a line of CSV for each, with its component.

    Parameters
    ----------
    directory : Path
        Of the result.
    n : int
        Rows to draw.
    seed : int
    out : Path or None
        A file, or standard output.
    """
    result = Result.of(directory).of_one_mixture()
    rng, draws = np.random.default_rng(seed), result.draws
    with _csv(out) as file:
        for done in range(0, n, _ROWS):
            which = rng.integers(len(draws.weights), size=min(_ROWS, n - done))
            X, component = draws[which].sample(1, rng=rng)
            lines = pd.DataFrame(X[:, 0], columns=result.summary["features"])
            if not result.summary.get("ambiguous") and "component" not in lines:  # where it is the same in all draws
                lines["component"] = component[:, 0]
            lines.to_csv(file, index=False, header=done == 0, float_format="%.10g")


@contextmanager
def _csv(out: Path | None) -> Iterator[IO[str]]:
    """Where CSV goes: a file that is whole or not there, or standard output."""
    if out is None:
        yield sys.stdout
        return
    with beside(out) as path, path.open("w", encoding="utf-8", newline="") as file:
        yield file
