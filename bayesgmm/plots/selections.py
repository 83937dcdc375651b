"""Pictures of a selection: what each criterion says of the fits, and what their posteriors predict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bayesgmm.bayes.posterior import as_mixture
from bayesgmm.covariance import CovarianceModel
from bayesgmm.em.grid import Key
from bayesgmm.names import in_picture
from bayesgmm.observations import any_rows
from bayesgmm.plots.style import COLORS, color, edge_ticks, ends, figure_or_new, missing_note, plain, spread
from bayesgmm.selection import CRITERIA
from bayesgmm.selection.table import keys_of

if TYPE_CHECKING:
    import pandas as pd

    from bayesgmm.selection import Selection

_CONTENDERS = 4  # covariance models that are named in a panel
_WITH_BARS = 12  # fits that are drawn with their standard errors, if no more
_SHAPES = ("II", "EI", "VI", "EE", "VE", "EV", "VV")
_SHAPE_COLORS, _SHAPE_MARKERS = (*COLORS, "black"), "os^DvPX"
_LINES = ("-", "--", ":", "-.")  # for the mixtures after each six


def criteria(selection: Selection, *, figure: Figure | None = None) -> Figure:
    """How far each fit is behind the best by each criterion, and how often each number of components was chosen.

    A line per covariance model; those of a criterion's contenders are coloured and labelled, the others grey. The worst
    fits are left out where they would flatten the rest; the panel's title says how many.

    Parameters
    ----------
    selection : Selection
        From `select`.
    figure : matplotlib.figure.Figure, optional
        To draw into; a new one by default.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> import bayesgmm as bg
    >>> selection = bg.select(bg.datasets.old_faithful(), (1, 2, 3), "tied", ("bic",), n_replicates=0, rng=0)
    >>> bg.plots.criteria(selection).axes[0].get_title()
    'BIC: EEE, K = 3 (1 worse not shown)'
    """
    names = [name for name in selection.criteria if name in CRITERIA]
    n_panels = len(names) + bool(selection.replicates)
    n_columns = min(n_panels, 2 if n_panels in (2, 4) else 3)
    n_rows = -(-n_panels // n_columns)
    figure = figure_or_new(figure, 4.4 * n_columns + 1.2, 3.7 * n_rows)
    axes = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for ax, name in zip(axes, names, strict=False):
        _criterion(ax, selection, name)
    if selection.replicates:
        _frequencies(axes[n_panels - 1], selection)
    for ax in axes[n_panels:]:
        ax.remove()
    sizes = selection.table["n_components"]
    title = f"Which number of components? K = {sizes.min()} to {sizes.max()}; higher is better, the best is ringed"
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def predictions(selection: Selection, *, figure: Figure | None = None) -> Figure:
    """How far each mixture's expected log predictive density is behind the best, and how good each row's estimate is.

    Mixtures whose draws are not to be trusted have a hollow point, and the reason under their name.

    Parameters
    ----------
    selection : Selection
        From `select` with the criterion "loo".
    figure : matplotlib.figure.Figure, optional
        To draw into; a new one by default.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If "loo" is not among the selection's criteria.

    References
    ----------
    Vehtari, A., Gelman, A. & Gabry, J. (2017). Practical Bayesian model evaluation using leave-one-out cross-validation
    and WAIC. Statistics and Computing 27, 1413-1432. https://doi.org/10.1007/s11222-016-9696-4

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> selection = bg.select(X, (2, 3), "tied", ("bic", "loo"), n_replicates=0, sampling={"draws": 200}, rng=0)
    >>> figure = bg.plots.predictions(selection)
    >>> [ax.get_title() for ax in figure.axes]
    ['Prediction by LOO', 'How far to trust it']
    """
    ranking = selection.ranking("loo")
    keys = [(str(model), int(K)) for model, K in zip(ranking["covariance"], ranking["n_components"], strict=True)]
    weights = selection.table.set_index(["covariance", "n_components"])["weight"]
    figure = figure_or_new(figure, 10, 1.6 + 0.45 * len(keys))
    left, right = figure.subplots(1, 2, sharey=True)
    doubts = [_doubt(selection, key) for key in keys]
    for height, (behind, se, doubt) in enumerate(zip(ranking["behind"], ranking["se"], doubts, strict=True)):
        look: dict[str, Any] = {"color": COLORS[1], "mfc": "white"} if doubt else {"color": COLORS[0]}
        left.errorbar(-behind, height, xerr=2 * se, fmt="o", ms=5, capsize=3, **look)
    left.axvline(0, color="0.7", lw=0.8, zorder=0)
    names = [f"{model}, K = {K}\nweight {weights[model, K]:.2f}" for model, K in keys]
    left.set_yticks(range(len(keys)), [f"{name}\n{doubt}".strip() for name, doubt in zip(names, doubts, strict=True)])
    left.invert_yaxis()
    left.set(xlabel="elpd below the best, nats, ± 2 standard errors", title="Prediction by LOO")
    for height, key in enumerate(keys):
        pareto_k = np.asarray(selection.loos[key].pareto_k).ravel()
        scattered = height + 0.25 * np.sin(np.arange(len(pareto_k)) * 2.4)
        right.plot(pareto_k, scattered, ".", ms=3, color=COLORS[0], alpha=0.5)
    good = min(selection.loos[key].good_k for key in keys)
    right.axvline(good, color=COLORS[1], lw=1, ls="--")
    right.set(xlabel=f"Pareto k of each row; trusted below {good:.2f} (dashed)", title="How far to trust it")
    for ax in (left, right):
        plain(ax)
    return figure


def averaged(X: Any, selection: Selection, *, figure: Figure | None = None) -> Figure:
    """The predictive density averaged over mixtures with their stacking weights; for one feature, each mixture's too.

    Parameters
    ----------
    X : (N, D) table
        One feature, or two; for more, the marginal density of the first two is shown.
    selection : Selection
        From `select` with the criterion "loo".
    figure : matplotlib.figure.Figure, optional
        To draw into; a new one by default.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If ``X`` is not a table of numbers with the selection's features, or there are no stacking weights.

    References
    ----------
    Yao, Y., Vehtari, A., Simpson, D. & Gelman, A. (2018). Using stacking to average Bayesian predictive distributions
    (with discussion). Bayesian Analysis 13(3), 917-1007. https://doi.org/10.1214/17-BA1091

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> selection = bg.select(X, (2, 3), "tied", ("bic", "loo"), n_replicates=0, sampling={"draws": 200}, rng=0)
    >>> figure = bg.plots.averaged(X, selection)
    >>> figure.axes[0].get_title()
    'Predictive density, averaged with stacking weights'
    """
    table = any_rows(X)
    rows, names = table.values, table.features
    figure = figure_or_new(figure, 6.4, 4.6)
    ax = figure.subplots()
    low, high = ends(rows)
    margin = 0.1 * (high - low)
    reach = np.stack([low - margin, high + margin], axis=1)
    if len(names) == 1:
        _averaged_curve(ax, rows[:, 0], selection, reach[0])
        ax.set(xlabel=in_picture(names[0]), ylabel="density")
    else:
        _averaged_map(ax, rows, selection, reach)
        ax.set(xlabel=in_picture(names[0]), ylabel=in_picture(names[1]))
    figure.legend(loc="outside right upper", frameon=False, fontsize="small")  # a marker in the plot reads as a row
    note = (f"; the first 2 of {len(names)} features" if len(names) > 2 else "") + missing_note(rows[:, :2])
    ax.set_title(f"Predictive density, averaged with stacking weights{note}", fontsize="medium")
    plain(ax)
    return figure


def _doubt(selection: Selection, key: Key) -> str:
    """Why not to trust the draws of a fit, in a few words; empty where they are to be trusted."""
    verdict = selection.posterior_states[key].verdict
    return "" if verdict is None or verdict.good else verdict.convergence.value


def model_style(model: str) -> dict[str, Any]:
    """Colour and marker by shape and orientation, dashed for equal volumes; the same in every picture."""
    name = CovarianceModel.named(model).name
    shape = _SHAPES.index(name[1:])
    line = "--" if name[0] == "E" else "-"
    return {"color": _SHAPE_COLORS[shape], "marker": _SHAPE_MARKERS[shape], "ls": line, "mec": "white", "mew": 0.4}


def _criterion(ax: Axes, selection: Selection, name: str) -> None:
    """How far each fit is behind the best by one criterion, against the number of components."""
    kind, shown = CRITERIA[name], standing(selection.table, selection.ranking(name), name)
    for model, line in shown.lines.items():
        style = model_style(model) if model in shown.names else {"color": "0.85", "zorder": 0}
        ax.plot(line["n_components"], line["behind"], ms=4, lw=1.2, **style)
    ax.plot(shown.best[1], 0, "o", ms=12, mfc="none", color="black", zorder=3)
    label = "number of components K"
    if len(shown.errors):
        look: dict[str, Any] = {"fmt": "none", "ecolor": "0.6", "capsize": 3, "lw": 1, "zorder": 0}
        ax.errorbar(shown.errors["n_components"], shown.errors["behind"], shown.errors["se"], **look)
        label += "\n(bars: standard error of the difference to the best)"
    ax.set_ylim(shown.depth, -shown.room)
    for model, (K, height) in shown.names.items():
        ink: dict[str, Any] = {"color": model_style(model)["color"], "fontsize": "small", "va": "center"}
        ax.annotate(model, (K, height), (7, 0), textcoords="offset points", annotation_clip=False, **ink)
    title = f"{kind.panel}: {shown.best[0]}, K = {shown.best[1]}"
    ax.set_title(title + (f" ({shown.n_left_out} worse not shown)" if shown.n_left_out else ""), fontsize="medium")
    sizes = selection.table["n_components"]
    ax.set(xlabel=label, ylabel=f"behind the best ({kind.unit})", xlim=(sizes.min() - 0.5, sizes.max() + 0.5))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    plain(ax)


class Standing(NamedTuple):
    """How fits stand by one criterion, as it is to be drawn.

    Attributes
    ----------
    best : (covariance, n_components)
    lines : dict
        For each covariance model the columns ``n_components`` and ``behind``, how far each fit is behind the best.
    names : dict
        For each contender, by its covariance model, where its name stands: (n_components, behind), none over another.
    errors : DataFrame
        Columns ``n_components``, ``behind``, ``se``, of the fits whose standard errors are drawn.
    depth, room : float
        How far below the best, and above it, there is to be drawn.
    n_left_out : int
        Fits below that.
    """

    best: Key
    lines: dict[str, pd.DataFrame]
    names: dict[str, tuple[float, float]]
    errors: pd.DataFrame
    depth: float
    room: float
    n_left_out: int


def standing(table: pd.DataFrame, ranking: pd.DataFrame, name: str) -> Standing:
    """How fits stand by a criterion: from the table of a `Selection`, and its ranking by that criterion."""
    kind = CRITERIA[name]
    table = table[["covariance", "n_components", kind.column]].dropna()
    best = keys_of(ranking.head(1))[0]
    value = table.set_index(["covariance", "n_components"])[kind.column]
    table["behind"] = kind.sign * (value[best] - table[kind.column])
    with_errors = kind.sign > 0 and len(ranking) <= _WITH_BARS  # more would cover one another
    room = float(ranking["se"][ranking["tied"]].max()) if with_errors else 0.0
    depth = _depth(table["behind"], table["n_components"], room)
    lines = {str(model): fits for model, fits in table.groupby("covariance")}
    contenders = ranking["covariance"].drop_duplicates()[:_CONTENDERS].tolist()
    return Standing(
        best=best,
        lines=lines,
        names=_places_of_names({model: lines[model] for model in contenders}, depth),
        errors=ranking if with_errors else ranking.head(0),
        depth=depth,
        room=max(0.07 * depth, room),
        n_left_out=int((table["behind"] > depth).sum()),
    )


def _places_of_names(lines: Mapping[str, pd.DataFrame], depth: float) -> dict[str, tuple[float, float]]:
    """The last point of each line that is to be seen, moved up or down so that no name is over another."""
    ends = {}
    for model, line in lines.items():
        seen = line[line["behind"] <= depth]
        if len(seen):
            ends[model] = (float(seen["n_components"].iloc[-1]), float(seen["behind"].iloc[-1]))
    order = sorted(ends, key=lambda model: ends[model][1])
    heights = spread(np.array([ends[model][1] for model in order]), 0.07 * depth, end=depth)
    return {model: (ends[model][0], float(height)) for model, height in zip(order, heights, strict=True)}


def _depth(behind: pd.Series, n_components: pd.Series, room: float) -> float:
    """How far behind the best a fit may be to be shown.

    The best fit of each number of components is, unless that number is far off, as one component often is.
    """
    behind = behind.dropna()
    least = behind.groupby(n_components).min()
    enough = max(2 * float(behind.median()), float(least.median()) * 1.5, 10.0)
    return min(enough, float(behind.max()) + 1.0 + room)


def _frequencies(ax: Axes, selection: Selection) -> None:
    """How often each number of components was chosen among replicates."""
    n, width = len(selection.replicates), 0.8 / len(selection.replicates)
    for i, name in enumerate(selection.replicates):
        chosen = selection.frequencies(name)
        centres = chosen.index.to_numpy(float) + (i - (n - 1) / 2) * width
        look: dict[str, Any] = {"color": COLORS[i], "hatch": ("", "//")[i], "edgecolor": "white"}
        ax.bar(centres, chosen, width, label=CRITERIA[name].title, **look)
    n_replicates = len(next(iter(next(iter(selection.replicates.values())).values())))
    ax.set(xlabel="number of components K", ylabel="share of the replicates", ylim=(0, 1))
    ax.set_title(f"Choice in {n_replicates} replicates of the table", fontsize="medium")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.legend(frameon=False, fontsize="small")
    plain(ax)


def _averaged_curve(ax: Axes, x: np.ndarray, selection: Selection, reach: np.ndarray) -> None:
    """Of one feature: the average and every mixture's own density over the histogram."""
    grid = np.linspace(reach[0], reach[1], 400)[:, None]
    average = np.exp(selection.log_prob(grid))
    ax.hist(x[~np.isnan(x)], bins="fd", density=True, color="0.85", label="rows")
    for i, ((model, K), tree) in enumerate(selection.posteriors.items()):
        density = np.exp(as_mixture(tree).log_prob(grid)).mean(axis=(0, 1))
        line = _LINES[i // len(COLORS) % len(_LINES)]
        ax.plot(grid[:, 0], density, lw=0.9, ls=line, color=color(i), label=f"{model}, K = {K}")
    ax.plot(grid[:, 0], average, color="black", lw=2, label="average")


def _averaged_map(ax: Axes, rows: np.ndarray, selection: Selection, reach: np.ndarray) -> None:
    """The average's marginal density of the first two features, and the rows over it."""
    axes = [np.linspace(low, high, 90) for low, high in reach[:2]]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    density = np.exp(selection.log_prob(points.reshape(-1, 2), features=(0, 1))).reshape(points.shape[:2])
    filled = ax.contourf(*axes, density.T, 12, cmap="Greys")
    ax.plot(*rows[:, :2].T, ".", ms=3, color=COLORS[0], label="rows")
    edge_ticks(ax, rows[:, 0], rows[:, 1], COLORS[0])
    ax.figure.colorbar(filled, ax=ax, label="density")
