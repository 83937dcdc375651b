"""The page itself: facts, specifications and sentences put into the template, and written to a file."""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from bayesgmm import __version__
from bayesgmm.em.result import EMFit
from bayesgmm.errors import InputError
from bayesgmm.files import beside, plain_json
from bayesgmm.page import specs, words
from bayesgmm.page.comparison import Comparison
from bayesgmm.page.facts import Facts, facts_of_fit, facts_of_posterior, facts_of_selection
from bayesgmm.selection import CRITERIA, Selection
from bayesgmm.summary.words import Mark, decimals_of, number, parameter_name

if TYPE_CHECKING:
    from jinja2 import Template

_LIBRARIES = ("vega", "vega-lite", "vega-embed")  # in the order in which a page loads them
_LISTED_FEATURES = 3  # in the table of rows
_TOLD_FEATURES = 10  # where the mouse points at a row
_NUMBERS = 200  # lines of the table of all parameters
_FITS = 15  # lines of the table of a selection


def report(
    source: Any,
    X: Any = None,
    path: Any = "report.html",
    *,
    title: str = "",
    error_sd: Any = None,
    error_covariance: Any = None,
    ids: Sequence[Any] | None = None,
    rng: Any = 0,
) -> Path:
    """Write what was found about a table as a page to look at: one HTML file that works without a network.

    Parameters
    ----------
    source : DataTree, Posterior, EMFit or Selection
        A posterior from `sample_posterior`; a fit alone, whose page has no intervals; or a selection, whose page is
        about the fit to report and compares the others.
    X : (N, D) table, optional
        The rows: needed with an `EMFit` and with a `Selection`; a posterior has them.
    path : path-like
        Of the file.
    title : str
        What the table is called.
    error_sd, error_covariance : optional
        Errors of the table's values, if `fit_em` or `select` were given them; a posterior has them.
    ids : sequence of N, optional
        What the rows are called, shown beside their numbers.
    rng : Generator, seed or None
        For leave-one-out, the partition and tail probabilities.

    Returns
    -------
    Path
        Of the file, which is whole or not there.

    Raises
    ------
    InputError
        If the source is none of these, or the table is missing or has other rows.

    Examples
    --------
    >>> import tempfile
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> tree = bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), draws=500, chains=2, rng=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = bg.report(tree, path=f"{folder}/geyser.html", title="Old Faithful")
    ...     "Old Faithful" in page.read_text("utf-8")
    True
    """
    if isinstance(source, (EMFit, Selection)) and X is None:
        raise InputError(f"the page of {_a(source)} needs the table: report(source, X)")
    errors: dict[str, Any] = {"error_sd": error_sd, "error_covariance": error_covariance}
    if isinstance(source, Selection):
        facts = facts_of_selection(source, X, title, **errors, ids=ids, rng=rng)
    elif isinstance(source, EMFit):
        facts = facts_of_fit(source, X, title, **errors, ids=ids)
    else:
        facts = facts_of_posterior(source, title, ids=ids, rng=rng)
    return write_page(facts, Path(path))


def _a(source: Any) -> str:
    return "an EM fit" if isinstance(source, EMFit) else "a selection"


def write_page(facts: Facts, path: Path) -> Path:
    """Write the page of some facts to a file, which is whole or not there."""
    if facts.rows.ids is not None and len(facts.rows.ids) != len(facts.rows.labels):
        raise InputError(f"there are {len(facts.rows.ids)} ids for {len(facts.rows.labels)} rows")
    text = page_of(facts)
    with beside(path) as temporary:
        temporary.write_text(text, "utf-8")
    return path


def page_of(facts: Facts) -> str:
    """The page as HTML."""
    scatter = specs.scatter(facts) if facts.curves is None else specs.densities(facts)
    pictures = {"rows-picture": scatter}
    forest = {f"forest-{i}": specs.forest(facts, described) for i, described in enumerate(facts.quantities)}
    compared = {} if facts.selection is None else _criteria(facts.selection)
    return _template().render(
        facts=facts,
        words=words,
        marks=Mark,
        title=facts.source or "A Gaussian mixture",
        groups=[(k, specs.color_of(i), specs.shape_of(i)) for k, i in enumerate(facts.groups.color_indices)],
        noise=(-1, specs.NOISE, specs.NOISE_SHAPE) if facts.rows.n_noise else None,
        legend=specs.legend(facts),
        forest=list(forest),
        compared=list(compared),
        selection_table=None if facts.selection is None else _selection_table(facts.selection),
        parameters=_parameters(facts),
        pictures=_script(pictures | forest | compared),
        data=_script(_data(facts)),
        libraries={name: _packed(f"{name}.min.js") for name in _LIBRARIES},
        licences={name: _file(f"vendor/LICENSE-{name}") for name in _LIBRARIES},
        style=Markup(_file("page.css")),
        script=Markup(_file("page.js")),
        versions={"bayesgmm": __version__} | {name: version(name) for name in ("numpy", "nutpie", "arviz")},
    )


def _criteria(compared: Comparison) -> dict[str, Any]:
    """The pictures of a selection, by the place that each is put in."""
    of_criteria = {f"criterion-{name}": specs.criterion(compared, name) for name in compared.rankings}
    return of_criteria | ({"replicates": specs.replicates(compared)} if compared.n_replicates else {})


def _selection_table(compared: Comparison) -> dict[str, Any]:
    """The fits in the order of the first criterion, as headings and lines of texts; the one to report is marked."""
    names = [name for name in CRITERIA if name in compared.rankings]
    lines = compared.table.set_index(["covariance", "n_components"])
    ranked = next(iter(compared.best_first.values()))
    table = []
    for key in ranked[:_FITS]:
        cells = ["" if np.isnan(x := lines.loc[key][CRITERIA[name].column]) else f"{x:.1f}" for name in names]
        table.append((key, [str(lines.loc[key]["n_parameters"]), *cells], key == compared.chosen))
    headings = ["parameters", *(CRITERIA[name].title for name in names)]
    return {"headings": headings, "lines": table, "n_others": len(lines) - len(table)}


def _parameters(facts: Facts) -> list[dict[str, str]]:
    """The table of all parameters of the components or clusters, as texts; without draws there is none."""
    if facts.analysis is None:
        return []
    table = facts.analysis.parameters if facts.analysis.clusters is None else facts.analysis.clusters
    lines = []
    for row in table.head(_NUMBERS).to_dict("records"):
        decimals = decimals_of(row["sd"])
        texts = {name: number(row[name], decimals) for name in ("em", "mean", "sd", "lower", "upper") if name in row}
        name = parameter_name(row["parameter"], row["feature"], row["feature_bis"])
        group = row["component" if "component" in row else "cluster"]
        texts |= {"name": name, "group": "" if row["parameter"] == "noise_weight" else str(int(group))}
        r_hat, ess = row["r_hat"], row["ess_bulk"]
        texts |= {"r_hat": "" if math.isnan(r_hat) else f"{r_hat:.3f}", "ess": "" if math.isnan(ess) else f"{ess:.0f}"}
        lines.append(texts)
    return lines


def _data(facts: Facts) -> dict[str, Any]:
    """What the page's script is told."""
    return {
        "rows": facts.rows.columns(facts.shown),
        "listed": facts.rows.listed.tolist(),
        "features": [facts.features[j] for j in facts.shown],
        "told": facts.leading(_TOLD_FEATURES),
        "in_list": facts.leading(_LISTED_FEATURES),
        "picked": facts.leading(2),
        "group": facts.group,
        "groups": facts.n_groups,
        "choices": facts.n_choices,
        "outlines": [] if facts.curves is not None else _outlines(facts),
    }


def _outlines(facts: Facts) -> list[dict[str, Any]]:
    """Means and covariances of the shown features: of the draws that are outlined, then of the centre."""
    outlined = facts.groups.outlined
    drawn = [] if outlined is None else [(outlined[i], True) for i in range(len(outlined.weights))]
    lower = np.tril_indices(len(facts.shown))
    outlines = []
    for mixture, is_draw in [*drawn, (facts.groups.centre, False)]:
        shown = mixture.marginal(facts.shown)
        outlines.append(
            {"draw": is_draw, "means": _short(shown.means), "covariances": _short(shown.covariances[:, *lower])}
        )
    return outlines


def _short(values: np.ndarray) -> list[list[float]]:
    """Rows of numbers to six digits."""
    return [[float(f"{x:.6g}") for x in row] for row in values.tolist()]


def _script(value: Any) -> Markup:
    """A value as JSON that can stand in a script element: no number that is not finite, and no tag can end it."""
    text = json.dumps(plain_json(value), allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


@cache
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("bayesgmm.page", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html")


def _file(name: str) -> str:
    return files("bayesgmm.page").joinpath(name).read_text("utf-8")


@cache
def _packed(name: str) -> str:
    """A library as the page holds it: compressed, in base64."""
    content = files("bayesgmm.page").joinpath("vendor", name).read_bytes()
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()
