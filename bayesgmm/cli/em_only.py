"""EM without the posterior: its fit, the files and the page that it makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from rich.table import Table

from bayesgmm.bayes.quantities import quantities
from bayesgmm.cli import files
from bayesgmm.cli.report import described, plain_table, tables_that_fit
from bayesgmm.em.result import EMFit
from bayesgmm.mixture import GaussianMixture
from bayesgmm.names import counted, short
from bayesgmm.summary.words import em_remarks, model_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bayesgmm.page.facts import Facts

_FEATURES, _ROWS = 6, 8  # the most to print
_DIGITS = 4  # of estimates


def write(
    fit: EMFit,
    table: pd.DataFrame,
    errors: pd.DataFrame | None,
    own: pd.DataFrame,
    directory: Path,
    run: dict[str, Any],
    seconds: float,
) -> files.Written:
    """Write everything about a fit.

    Parameters
    ----------
    fit : EMFit
    table : DataFrame
        The rows that were fitted, or of a table in parts some of them.
    errors : DataFrame or None
        Standard deviations of their errors.
    own : DataFrame
        The columns of the user's table.
    directory : Path
    run : dict
        What else the summary should tell: the command and its arguments.
    seconds : float
        That the fit took.
    """
    from bayesgmm import plots

    files.begin(directory)
    kept = files.Kept(fit, table, errors, files.ids_of(own, run))
    files.keep_fit(kept, directory)
    tables = {
        files.ROWS: files.beside_own(own, assigned(fit.mixture, table, errors)),
        "components.csv": _parameters(fit),
        **files.imputed(fit, table, error_sd=errors, ids=kept.ids),
    }
    for name, content in tables.items():
        files.write_table(content, directory / name, files.DIGITS if name in (files.ROWS, files.IMPUTED) else None)
    pictures: dict[str, Callable[[], Figure]] = {
        "clusters.png": lambda: plots.clusters(table, fit, error_sd=errors),
        "em_path.png": lambda: plots.em_path(fit),
    }
    drawn, not_drawn = files.draw(pictures, directory)
    web_page, no_page = files.draw_page(lambda: facts(kept, run), directory)
    rest = {"seconds": {"em": seconds}, "not_drawn": not_drawn | no_page}
    summary = files.write_summary(directory, run | files.summary_of_fit(fit) | rest)
    return files.Written([*web_page, files.FIT, *tables, *drawn, files.SUMMARY], summary)


def facts(kept: files.Kept, run: dict[str, Any]) -> Facts:
    """What the page of a fit tells."""
    from bayesgmm.page.facts import facts_of_fit

    return facts_of_fit(kept.fit, kept.rows, files.source_of(run), error_sd=kept.errors, ids=kept.ids, run=run)


def assigned(mixture: GaussianMixture, rows: pd.DataFrame, errors: pd.DataFrame | None, seed: int = 0) -> pd.DataFrame:
    """A line per row, with errors or without, of what a mixture says of it."""
    p, noise = mixture.responsibilities(rows, error_sd=errors), mixture.noise_probability(rows, error_sd=errors)
    label, certainty = mixture.predict(rows, error_sd=errors), np.maximum(p.max(axis=1), noise)
    found = {"label": label, "label_probability": certainty} | {f"p_{k}": p[:, k] for k in range(p.shape[1])}
    found |= {} if mixture.noise_weight is None else {"noise": noise}
    return pd.DataFrame(found | {"tail_probability": mixture.tail_probability(rows, error_sd=errors, rng=seed)})


def _parameters(fit: EMFit) -> pd.DataFrame:
    """A line per parameter, by the names and in the order of the posterior's."""
    m, features = fit.mixture, fit.features
    lines: list[tuple[Any, ...]] = [("weights", k, None, None, weight) for k, weight in enumerate(m.weights)]
    lines += [("means", k, features[i], None, m.means[k, i]) for k, i in np.ndindex(m.means.shape)]
    lines += [
        ("covariances", k, features[i], features[j], m.covariances[k, i, j])
        for k, i, j in np.ndindex(m.covariances.shape)
        if i == j or (i < j and not fit.covariance_model.diagonal)
    ]
    lines += [] if m.noise_weight is None else [("noise_weight", None, None, None, m.noise_weight)]
    return pd.DataFrame(lines, columns=["parameter", "component", "feature", "feature_bis", "em"])


def page(fit: EMFit, p: np.ndarray, source: str, width: int) -> Iterator[Table | str]:
    """What is printed about a fit, before the sentences.

    Parameters
    ----------
    fit : EMFit
    p : (N, K)
        Responsibilities of the rows.
    source : str
        The table's name.
    width : int
        Of the page, in columns.
    """
    table, components = described(fit.n_observations, fit.features, source), counted(fit.n_components, "component")
    yield f"{table}; {components}, covariance {model_name(fit)}, EM without posterior"
    yield ""
    if fit.mixture.noise_weight is not None:
        p = np.column_stack((p, 1 - p.sum(axis=1)))
    of_sample = len(p) < fit.n_observations
    lines = [
        (
            "rows shown" if of_sample else "rows",
            [str(n) for n in np.bincount(p.argmax(axis=1), minlength=p.shape[1])[: fit.n_components]],
        )
    ]
    diagonal = fit.covariance_model.diagonal
    for quantity, feature, values in quantities(fit.mixture, fit.features[:_FEATURES], diagonal=diagonal):
        name = quantity if feature is None else f"{quantity} {short(feature)}"
        lines.append((name, [f"{value:.{_DIGITS}g}" for value in values]))
    for part in tables_that_fit("The components: EM's estimates", lines, "component", width):
        yield part
        yield ""
    if fit.n_components > 1:
        yield _least_certain(p, [*map(str, range(fit.n_components)), "none"], of_sample=of_sample)
        yield ""


def _least_certain(p: np.ndarray, names: Sequence[str], *, of_sample: bool) -> Table:
    """The rows whose component is least certain."""
    order = np.argsort(-p, axis=1, kind="stable")
    certainty = p.max(axis=1)
    doubtful = int((certainty < 0.9).sum())
    table = plain_table(
        "The least certain rows: their component and the likeliest other",
        *("row", "component", "probability", "or", "probability"),
    )
    for row in np.argsort(certainty, kind="stable")[: min(max(doubtful, 3), _ROWS)]:
        cells = (cell for k in order[row, :2] for cell in (names[k], f"{p[row, k]:.2f}"))
        table.add_row(str(row), *cells)
    counting = "rows are those shown, counted from 0" if of_sample else "rows count from 0, without the header"
    table.caption = (
        f"{counted(doubtful, 'row')} of {len(p)} whose component has a probability below 0.9; {counting}; "
        f"all are in {files.ROWS}"
    )
    return table


def sentences(fit: EMFit, seconds: float, n_shown: int) -> Iterator[str]:
    """How the fit went, and what it leaves open; of a table in parts only some rows, ``n_shown``, are shown."""
    yield from (remark.text for remark in em_remarks(fit, seconds))
    if n_shown < fit.n_observations:
        yield (
            f"These are estimates without intervals, from all {fit.n_observations} rows. Pictures, page and "
            f"{files.ROWS} show {n_shown} of them, drawn at random; bayesgmm assign labels all."
        )
        return
    yield "These are estimates without intervals; without --em-only the posterior says how sure to be of them."
