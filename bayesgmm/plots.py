"""Pictures of a fit and its posterior: functions that return a `matplotlib.figure.Figure`; no display needed.

A component has the same colour and marker in every picture, and a cluster those of the component that it matches.
Where the draws do not keep the components apart, give assignments to a partition's clusters: `assign(tree,
partition=partition(tree))`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from bayesgmm.bayes.posterior import as_mixture
from bayesgmm.bayes.priors import Priors
from bayesgmm.clusters.assignment import assign
from bayesgmm.clusters.rows_under_draws import rows_under_draws
from bayesgmm.clusters.shares import by_cluster, cluster_counts, cluster_mixture, shares
from bayesgmm.clusters.similarity import posterior_similarity
from bayesgmm.covariance import CovarianceModel
from bayesgmm.errors import InputError
from bayesgmm.mixture import GaussianMixture
from bayesgmm.names import counted, in_picture
from bayesgmm.observations import numeric_table
from bayesgmm.selection import CRITERIA

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

    from bayesgmm.clusters.assignment import Assignments
    from bayesgmm.clusters.partition import CredibleBall, Partition
    from bayesgmm.em.fit import EMFit
    from bayesgmm.selection import Selection

# Okabe & Ito's colours, which colour-blind readers can tell apart, without yellow: too pale for lines.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = "os^Dv"
_ELLIPSE_DRAWS, _BAND_DRAWS, _PRIOR_DRAWS = 50, 200, 1000
_PAIRED_FEATURES = 4  # a grid of more pairs is too small to read
_POINTS = 5000  # more would cover one another
_WITH_BARS = 12  # fits that are drawn with their standard errors, if no more
_MARGINAL_FEATURES, _MARGINAL_COMPONENTS = 3, 6
_SHAPES = ("II", "EI", "VI", "EE", "VE", "EV", "VV")
_CIRCLE = np.stack([np.cos(t := np.linspace(0, 2 * np.pi, 101)), np.sin(t)])  # (2, 101)


def clusters(
    X: Any,
    fit: EMFit,
    tree: xr.DataTree | None = None,
    assignments: Assignments | None = None,
    *,
    figure: Figure | None = None,
) -> Figure:
    """The table coloured by component, with the fitted and the sampled components over it; or by cluster.

    One feature gives densities over a histogram, two a scatter plot, more a grid of pairs of the first four.
    A point is the larger the less certain its component is. Of more than 5000 rows, 5000 are drawn. With assignments
    to the clusters of a partition, these are outlined by their mean and covariance (`cluster_mixture`) in each draw,
    and averaged over the draws, in place of EM's components.

    Parameters
    ----------
    X : (N, D) table
    fit : EMFit
    tree : xarray.DataTree, optional
        From `sample_posterior`: adds ellipses of 50 draws, or for one feature an 89% band of the density.
    assignments : Assignments, optional
        Of the rows of ``X``, to components or to clusters; by default from ``tree``, or without one from the fit's
        responsibilities.
    figure : matplotlib.figure.Figure, optional
        To draw into; a new one by default.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If ``X`` is not a table of numbers with the fit's features, or clusters are given without ``tree``.
    """
    values, _ = numeric_table(X)
    if assignments is None and tree is not None:
        assignments = assign(tree, X)
    D = fit.n_features
    shown = min(D, _PAIRED_FEATURES)
    groups = _groups(fit, tree, assignments, _BAND_DRAWS if D == 1 else _ELLIPSE_DRAWS)
    if assignments is None:
        probabilities = fit.mixture.responsibilities(values)
        labels, certainty = probabilities.argmax(axis=1), probabilities.max(axis=1)
    else:
        labels, certainty = assignments.labels, assignments.label_probability
    scatter = _Scatter(values, fit.features, labels, certainty, groups)

    size = (8.5, 5) if D < 3 else (3.0 * shown, 2.6 * shown)
    figure = Figure(figsize=size, layout="constrained") if figure is None else figure
    grid = figure.subplots(*((1, 1) if D < 3 else (shown, shown)), squeeze=False)
    if D == 1:
        scatter.density(grid[0, 0], 0, rug=True)
    elif D == 2:
        scatter.pair(grid[0, 0], 0, 1)
    else:
        for i in range(shown):
            scatter.density(grid[i, i], i, rug=False)
            for j in range(i):
                grid[i, j].sharex(grid[j, j])
                grid[i, j].sharey(grid[i, 0])
                scatter.pair(grid[i, j], j, i)
                grid[j, i].remove()
                if j > 0:
                    grid[i, j].set_ylabel("")
            if i < shown - 1:
                for ax in grid[i, : i + 1]:
                    ax.set_xlabel("")
    title = f"{counted(fit.n_components, 'component')}, covariance {fit.covariance_model.label(D)}"
    if groups.word == "cluster":
        title = f"{counted(len(groups.numbers), 'cluster')} of the partition\nmixture of {title}"
    limits = [(shown, D, "features"), (len(scatter.order), len(values), "rows")]
    notes = [f"; {some} of {every} {what}" for some, every, what in limits if some < every]
    figure.suptitle(title + "".join(notes), x=0.01, ha="left")
    handles = list(scatter.legend())
    if D < 3:
        figure.legend(handles=handles, loc="outside right upper", fontsize="small", frameon=False)
    else:
        figure.legend(handles=handles, loc="upper right", bbox_to_anchor=(0.98, 0.93), frameon=False)
    return figure


def em_path(fit: EMFit, *, figure: Figure | None = None) -> Figure:
    """The log-likelihood at each EM iteration, and how far below its limit it still was, on a log scale.

    Parameters
    ----------
    fit : EMFit
    figure : matplotlib.figure.Figure, optional
        To draw into; a new one by default.

    Returns
    -------
    matplotlib.figure.Figure
    """
    path = fit.log_likelihood_path
    iterations = np.arange(len(path))
    limit = path[-1] + (fit.remaining_gain if np.isfinite(fit.remaining_gain) else 0.0)
    below = np.where(limit - path > 1e-12 * abs(limit), limit - path, np.nan)
    climbs = path[-1] - path[0] > 1e-6  # else a log scale would show rounding errors
    panels = 2 if climbs else 1

    figure = Figure(figsize=(4.5 * panels, 3.8), layout="constrained") if figure is None else figure
    axes = figure.subplots(1, panels, sharex=True, squeeze=False)[0]
    axes[0].plot(iterations, path, "o-", ms=3, color=_COLORS[0])
    axes[0].set_ylabel("log-likelihood (nats)")
    axes[0].ticklabel_format(axis="y", useOffset=False)
    if climbs:
        axes[1].semilogy(iterations, below, "o-", ms=3, color=_COLORS[0])
        axes[1].set_ylabel("below its limit by (nats, log scale)")
    else:
        axes[0].set_ylim(path[-1] - 1, path[-1] + 1)
    for ax in axes:
        ax.set_xlabel("EM iteration of the best start")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        _plain(ax)
    figure.suptitle(f"Log-likelihood {fit.log_likelihood:.4f}: {fit.status.value.partition(':')[0]}")
    return figure


def posterior(
    tree: xr.DataTree, fit: EMFit, *, partition: Partition | None = None, figure: Figure | None = None
) -> Figure:
    """Posterior density of each component's weight, means and sds, with the EM estimate as a line; or each cluster's.

    For two features the correlation too. At most six components and three features are shown; the title says
    where there are more.

    Parameters
    ----------
    tree : xarray.DataTree
        From `sample_posterior`.
    fit : EMFit
    partition : Partition, optional
        Shows the weight, means and sds of its clusters (`cluster_mixture`) in place of the components'.
    figure : matplotlib.figure.Figure, optional
        To draw into; a new one by default.

    Returns
    -------
    matplotlib.figure.Figure
    """
    draws = as_mixture(tree) if partition is None else cluster_mixture(tree, partition)
    word, numbers = ("component", range(fit.n_components)) if partition is None else ("cluster", _numbers(partition))
    estimates = [values for _, values in _quantities(fit.mixture, fit)]
    columns = list(_quantities(draws, fit))
    K, D = draws.n_components, fit.n_features
    rows = min(K, _MARGINAL_COMPONENTS)
    size = (1.9 * len(columns) + 0.8, 1.2 * rows + 1.5)
    figure = Figure(figsize=size, layout="constrained") if figure is None else figure
    grid = figure.subplots(rows, len(columns), squeeze=False)
    for column, (name, sampled) in enumerate(columns):
        grid[0, column].set_title(name, fontsize="medium")
        for k in range(rows):
            em = estimates[column][k] if partition is None else None
            _marginal(grid[k, column], sampled[..., k].ravel(), em, _color(numbers[k]))
    for k in range(rows):
        grid[k, 0].set_ylabel(f"{word} {k}", color=_color(numbers[k]))
    limits = [(rows, K, f"{word}s"), (min(D, _MARGINAL_FEATURES), D, "features")]
    notes = [f"; the first {some} of {every} {what}" for some, every, what in limits if some < every]
    figure.suptitle(("Posterior" if partition is None else "Posterior of the clusters") + "".join(notes))
    handles = [
        Line2D([], [], color="0.5", lw=4, alpha=0.4, label="posterior density"),
        Line2D([], [], color="0.3", lw=3, label="89% interval"),
    ]
    if partition is None:
        handles.append(Line2D([], [], color="black", lw=1.5, label="EM estimate"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    return figure


def criteria(selection: Selection, *, figure: Figure | None = None) -> Figure:
    """Each criterion against the number of components, a line per covariance model, and how often each K was chosen.

    Of each criterion's worst fits those that would flatten the rest are out of the picture.

    Parameters
    ----------
    selection : Selection
        From `select`.
    figure : matplotlib.figure.Figure, optional
        To draw into; a new one by default.

    Returns
    -------
    matplotlib.figure.Figure
    """
    names = [name for name in selection.criteria if name in CRITERIA]
    panels = len(names) + bool(selection.replicates)
    columns = min(panels, 2 if panels in (2, 4) else 3)
    rows = -(-panels // columns)
    figure = Figure(figsize=(4.4 * columns + 1.2, 3.7 * rows), layout="constrained") if figure is None else figure
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, name in zip(axes, names, strict=False):
        _criterion(ax, selection, name)
    if selection.replicates:
        _frequencies(axes[panels - 1], selection)
    for ax in axes[panels:]:
        ax.remove()
    models = list(dict.fromkeys(selection.table["covariance"]))
    handles = [Line2D([], [], ms=5, label=model, **_model_style(model)) for model in models]
    handles.append(Line2D([], [], ls="", marker="o", ms=12, mfc="none", color="black", label="the best"))
    figure.legend(handles=handles, loc="outside right upper", fontsize="small", frameon=False, handlelength=3)
    numbers = selection.table["n_components"]
    figure.suptitle(f"Which number of components? K = {numbers.min()} to {numbers.max()}", x=0.01, ha="left")
    return figure


def predictions(selection: Selection, *, figure: Figure | None = None) -> Figure:
    """How far each mixture's expected log predictive density is behind the best, and how good each row's estimate is.

    Parameters
    ----------
    selection : Selection
        From `select` with the criterion "loo".
    figure : matplotlib.figure.Figure, optional
        To draw into; a new one by default.

    Returns
    -------
    matplotlib.figure.Figure
    """
    ranking, loos = selection.ranking("loo"), selection.loos
    figure = Figure(figsize=(10, 1.6 + 0.45 * len(loos)), layout="constrained") if figure is None else figure
    left, right = figure.subplots(1, 2, sharey=True)
    keys = [(str(row["covariance"]), int(row["n_components"])) for _, row in ranking.iterrows()]
    at = np.arange(len(keys))
    weights = selection.table.set_index(["covariance", "n_components"])["weight"]
    left.errorbar(-ranking["behind"], at, xerr=2 * ranking["se"], fmt="o", ms=5, color=_COLORS[0], capsize=3)
    left.axvline(0, color="0.7", lw=0.8, zorder=0)
    left.set_yticks(at, [f"{c}, K = {K}\nweight {weights[c, K]:.2f}" for c, K in keys])
    left.invert_yaxis()
    left.set(xlabel="elpd below the best, nats, ± 2 standard errors", title="Prediction by LOO")
    for i, key in enumerate(keys):
        k = np.asarray(loos[key].pareto_k).ravel()
        right.plot(k, i + 0.25 * np.sin(np.arange(len(k)) * 2.4), ".", ms=3, color=_COLORS[0], alpha=0.5)
    good = min(loos[key].good_k for key in keys)
    right.axvline(good, color=_COLORS[1], lw=1, ls="--")
    right.set(xlabel=f"Pareto k of each row; trusted below {good:.2f} (dashed)", title="How far to trust it")
    for ax in (left, right):
        _plain(ax)
    return figure


def averaged(X: Any, selection: Selection, *, figure: Figure | None = None) -> Figure:
    """The predictive density averaged over mixtures with their stacking weights; of one feature, the mixtures' own too.

    Parameters
    ----------
    X : (N, D) table
        One feature, or two; of more, the marginal density of the first two is shown.
    selection : Selection
        From `select` with the criterion "loo".
    figure : matplotlib.figure.Figure, optional
        To draw into; a new one by default.

    Returns
    -------
    matplotlib.figure.Figure
    """
    values, names = numeric_table(X)
    figure = Figure(figsize=(6.4, 4.6), layout="constrained") if figure is None else figure
    ax = figure.subplots()
    low, high = values.min(axis=0), values.max(axis=0)
    low, high = low - 0.1 * (high - low), high + 0.1 * (high - low)
    if values.shape[1] == 1:
        x = np.linspace(low[0], high[0], 400)
        ax.hist(values[:, 0], bins="fd", density=True, color="0.85", label="rows")
        for i, (key, tree) in enumerate(selection.posteriors.items()):
            lines = as_mixture(tree).log_prob(x[:, None])
            label = f"{key[0]}, K = {key[1]}"
            ax.plot(x, np.exp(lines).mean(axis=(0, 1)), lw=0.9, color=_COLORS[i % len(_COLORS)], label=label)
        ax.plot(x, np.exp(selection.log_prob(x[:, None])), color="black", lw=2, label="average")
        ax.set(xlabel=in_picture(names[0]), ylabel="density")
        ax.legend(frameon=False, fontsize="small")
    else:
        grid = np.stack(np.meshgrid(*(np.linspace(low[j], high[j], 90) for j in (0, 1)), indexing="ij"), axis=-1)
        density = np.exp(selection.log_prob(grid.reshape(-1, 2), features=(0, 1))).reshape(grid.shape[:2])
        filled = ax.contourf(grid[..., 0], grid[..., 1], density, 12, cmap="Greys")
        ax.plot(*values[:, :2].T, ".", ms=3, color=_COLORS[0], label="rows")
        figure.colorbar(filled, ax=ax, label="density")
        ax.set(xlabel=in_picture(names[0]), ylabel=in_picture(names[1]))
        ax.legend(frameon=False, fontsize="small")
    ax.set_title("Predictive density, averaged with stacking weights", fontsize="medium")
    _plain(ax)
    return figure


def uncertainty(tree: xr.DataTree, assignments: Assignments, *, figure: Figure | None = None) -> Figure:
    """Where the assignment is in doubt: the rows by their label's probability, over a map of the doubt.

    Of more than two features the two that part the components best are shown, without the map.

    Parameters
    ----------
    tree : DataTree
    assignments : Assignments
        Of the rows that were fitted.
    figure : matplotlib.figure.Figure, optional
        To draw into; a new one by default.

    Returns
    -------
    matplotlib.figure.Figure
    """
    X, names = np.asarray(tree["observed_data"]["observations"]), np.asarray(tree["posterior"]["feature"]).tolist()
    figure = Figure(figsize=(7.2, 5.2), layout="constrained") if figure is None else figure
    ax = figure.subplots()
    doubt = 1 - assignments.label_probability
    found = assignments.partition
    numbers = range(assignments.probabilities.shape[1]) if found is None else _numbers(found)
    means = np.asarray(tree["em"]["means"]) if found is None else cluster_mixture(tree, found).means.mean(axis=(0, 1))
    spread = means.std(axis=0) / np.maximum(X.std(axis=0), 1e-300)
    shown = np.sort(np.argsort(-spread, kind="stable")[:2])
    low, high = X.min(axis=0), X.max(axis=0)
    margin = 0.08 * (high - low)
    worst = 1 - 1 / len(numbers)
    if X.shape[1] == 2 and len(numbers) > 1:
        axes = [np.linspace(a, b, 80) for a, b in zip(low - margin, high + margin, strict=True)]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        draws = rows_under_draws(tree)
        draws = draws.thinned(-(-draws.n_draws // _BAND_DRAWS))
        R = draws.block(grid.reshape(-1, 2)).responsibilities  # (grid, K, draws)
        R = R if found is None else by_cluster(R, shares(cluster_counts(draws, found)))
        field = (1 - R.mean(axis=-1).max(axis=-1)).reshape(grid.shape[:2])
        ax.contourf(*axes, field.T, np.linspace(0, worst, 11), cmap="Greys", alpha=0.5)
    x = X[:, shown[0]]
    y = X[:, shown[1]] if len(shown) > 1 else doubt
    handles = []
    for k, number in enumerate(numbers):
        own = assignments.labels == k
        look: dict[str, Any] = {"marker": _marker(number), "color": _color(number)}
        ax.scatter(x[own], y[own], s=12 + 100 * doubt[own], alpha=0.7, linewidths=0, **look)
        handles.append(Line2D([], [], ls="", label=f"{assignments.group} {k}", **look))
    for probability in (1.0, 0.75, 0.5):
        size = np.sqrt(12 + 100 * (1 - probability))
        handles.append(
            Line2D([], [], ls="", marker="o", color="0.4", ms=size, label=f"label's probability {probability:g}")
        )
    figure.legend(handles=handles, loc="outside right center", fontsize="small", frameon=False)
    second = in_picture(names[shown[1]]) if len(shown) > 1 else "1 - the label's probability"
    ax.set(xlabel=in_picture(names[shown[0]]), ylabel=second)
    note = "; the darker, the less sure a row there would be" if X.shape[1] == 2 else ""
    figure.suptitle(f"Larger: less sure which {assignments.group}{note}", fontsize="medium", x=0.01, ha="left")
    _plain(ax)
    return figure


def least_certain(assignments: Assignments, *, rows: int = 20, figure: Figure | None = None) -> Figure:
    """The probabilities of each component or cluster, with intervals, of the rows for which it is least certain.

    Parameters
    ----------
    assignments : Assignments
    rows : int
        How many.
    figure : matplotlib.figure.Figure, optional
        To draw into; a new one by default.

    Returns
    -------
    matplotlib.figure.Figure
    """
    a = assignments
    shown = np.argsort(a.label_probability, kind="stable")[:rows]
    K = a.probabilities.shape[1]
    figure = Figure(figsize=(6.6, 1.3 + 0.26 * len(shown)), layout="constrained") if figure is None else figure
    ax = figure.subplots()
    width = 0.7 / K
    for k, number in enumerate(range(K) if a.partition is None else _numbers(a.partition)):
        at = np.arange(len(shown)) + (k - (K - 1) / 2) * width
        p, low, high = (values[shown, k] for values in (a.probabilities, a.lower, a.upper))
        ax.hlines(at, low, high, color=_color(number), lw=1.6, alpha=0.6)
        ax.plot(p, at, ls="", marker=_marker(number), ms=5, color=_color(number), label=f"{a.group} {k}")
    ax.set_yticks(np.arange(len(shown)), [f"row {i}" for i in shown])
    ax.invert_yaxis()
    ax.set(xlim=(-0.02, 1.02), xlabel=f"probability of the {a.group}, with {a.ci_prob:.0%} interval")
    ax.set_title("The least certain rows (counted from 0)", fontsize="medium")
    figure.legend(loc="outside lower center", ncols=min(K, 4), frameon=False, fontsize="small")
    _plain(ax)
    return figure


def similarity(tree: xr.DataTree, partition: Partition, *, figure: Figure | None = None) -> Figure:
    """The probability of every pair of rows to belong together, rows ordered by a partition.

    Parameters
    ----------
    tree : DataTree
    partition : Partition
        From `partition`; a cluster's bar has the colour of the component it matches.
    figure : matplotlib.figure.Figure, optional
        To draw into; a new one by default.

    Returns
    -------
    matplotlib.figure.Figure
    """
    S = posterior_similarity(tree, dtype=np.float32)
    own = (S * (partition.labels[:, None] == partition.labels)).sum(axis=1) / S.sum(axis=1)
    order = np.lexsort((-own, partition.labels))  # within a cluster, its surest rows first
    figure = Figure(figsize=(6.4, 5.4), layout="constrained") if figure is None else figure
    ax = figure.subplots()
    image = ax.imshow(S[np.ix_(order, order)], vmin=0, vmax=1, cmap="viridis", interpolation="nearest")
    figure.colorbar(image, ax=ax, label="probability of belonging together")
    sizes = np.bincount(partition.labels)
    stops = np.cumsum(sizes)
    numbers, places = _numbers(partition), _spread(stops - sizes / 2, 0.07 * len(S))
    for c, (n, stop, place) in enumerate(zip(sizes.tolist(), stops.tolist(), places.tolist(), strict=True)):
        bar = [stop - n - 0.5, stop - 0.5]
        ax.plot([-0.02 * len(S)] * 2, bar, color=_color(numbers[c]), lw=5, solid_capstyle="butt", clip_on=False)
        text = f"cluster {c}\n{counted(n, 'row')}"
        ax.text(-0.035 * len(S), place, text, ha="right", va="center", fontsize="small", linespacing=0.9)
    ax.set(xticks=[], yticks=[], xlabel="rows, in the same order", xlim=(-0.5, len(S) - 0.5))
    ax.set_title("Which rows belong together, ordered by the partition", fontsize="medium")
    return figure


def _spread(places: np.ndarray, apart: float) -> np.ndarray:
    """Ascending places moved as little as this simple rule can to be so far apart, the last ones upwards."""
    last = places[-1] + apart
    out = places.copy()
    for i in range(len(out) - 1, -1, -1):
        out[i] = last = min(out[i], last - apart)
    return out


def credible_ball(X: Any, partition: Partition, ball: CredibleBall, *, figure: Figure | None = None) -> Figure:
    """A partition beside the most different ones that the posterior holds likely.

    Parameters
    ----------
    X : (N, D) table
        One feature, or two, are shown; of more, the first two principal axes.
    partition : Partition
    ball : CredibleBall
    figure : matplotlib.figure.Figure, optional
        To draw into; a new one by default.

    Returns
    -------
    matplotlib.figure.Figure
    """
    values, names = numeric_table(X)
    labels = [in_picture(name) for name in names]
    if values.shape[1] > 2:
        standard = (values - values.mean(axis=0)) / np.maximum(values.std(axis=0), 1e-300)
        values = standard @ np.linalg.svd(standard, full_matrices=False)[2][:2].T
        labels = ["first principal axis", "second principal axis"]
    panels = {
        f"the partition: {partition.n_clusters} clusters": partition.labels,
        "fewest clusters": ball.upper,
        "most clusters": ball.lower,
        "farthest": ball.horizontal,
    }
    figure = Figure(figsize=(8.2, 6.6), layout="constrained") if figure is None else figure
    for ax, (title, own) in zip(figure.subplots(2, 2, sharex=True, sharey=True).ravel(), panels.items(), strict=True):
        colors = _matched(np.asarray(own), partition)
        y = values[:, 1] if values.shape[1] > 1 else np.zeros(len(values))
        for c in np.unique(own):
            rows = own == c
            k = colors[int(c)]
            ax.scatter(values[rows, 0], y[rows], s=14, marker=_marker(k), color=_color(k), alpha=0.7, linewidths=0)
        if title in ("fewest clusters", "most clusters", "farthest"):
            n = len(np.unique(own))
            distance = {
                "fewest clusters": ball.upper_distance,
                "most clusters": ball.lower_distance,
                "farthest": ball.horizontal_distance,
            }[title]
            title = f"{title} in the ball: {n}; distance {distance:.2f}"
        ax.set_title(title, fontsize="medium")
        ax.set(xlabel=labels[0], ylabel=labels[1] if len(labels) > 1 else "")
        if len(labels) == 1:
            ax.set_yticks([])
        ax.label_outer()
        _plain(ax)
    figure.suptitle(
        f"{ball.probability:.0%} of the posterior's partitions are within {ball.radius:.2f} of the partition",
        x=0.01,
        ha="left",
    )
    return figure


def _matched(labels: np.ndarray, partition: Partition) -> dict[int, int]:
    """The colour number of each cluster: that of the partition's cluster it shares most rows with, or a new one."""
    taken: dict[int, int] = {}
    numbers = _numbers(partition)
    free = (number for number in count() if number not in numbers)
    counts = np.array(
        [
            [((labels == c) & (partition.labels == d)).sum() for d in range(partition.n_clusters)]
            for c in range(labels.max() + 1)
        ]
    )
    for c in np.argsort(-counts.max(axis=1), kind="stable"):
        k = numbers[int(counts[c].argmax())]
        taken[int(c)] = k if k not in taken.values() else next(free)
    return taken


def _numbers(partition: Partition) -> list[int]:
    """The colour number of each cluster: the component's that it matches, or one that is free."""
    components = partition.components.tolist()
    free = (number for number in count() if number not in components)
    return [number if number >= 0 else next(free) for number in components]


def prior_check(
    X: Any,
    priors: Priors | None = None,
    n_components: int | None = None,
    covariance: str | CovarianceModel = "full",
    *,
    rng: Any = None,
    figure: Figure | None = None,
) -> Figure:
    """What priors expect before they see a table: densities, the components' sds and outlines, and how many are filled.

    For each of the first four features the densities of mixtures drawn from the priors over the table's histogram, and
    below the sds of their components beside the table's; components of a few mixtures over the rows; and how many
    components would hold at least one of as many rows. Where sds lie far from any a cluster could have, or no drawn
    mixture covers the rows, the priors say more than they should.

    Parameters
    ----------
    X : (N, D) table
    priors : Priors, optional
        `Priors.weakly_informative` by default.
    n_components : int, optional
        Needed unless the priors have a concentration for each component.
    covariance : str or CovarianceModel
    rng : Generator, seed or None
    figure : matplotlib.figure.Figure, optional
        To draw into; a new one by default.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If ``X`` is not a table of numbers, the priors are for other features, or the number of components is not known.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> figure = bg.plots.prior_check(bg.datasets.old_faithful(), n_components=2, rng=0)
    >>> figure.get_suptitle()
    'What the priors expect before they see the table: 2 components, covariance VVV'
    """
    values, names = numeric_table(X)
    N, D = values.shape
    K = n_components or (0 if priors is None else priors.n_components)
    if K == 0:
        raise InputError("prior_check needs n_components, unless the priors have a concentration for each component")
    if priors is None:
        priors = Priors.weakly_informative(X, K)
    if priors.n_features != D:
        raise InputError(f"the priors are for {priors.n_features} features, the table has {D}")
    rng = np.random.default_rng(rng)
    drawn = priors.sample(_PRIOR_DRAWS, K, covariance, rng=rng)
    sds = np.sqrt(np.einsum("...ii->...i", drawn.covariances)).reshape(-1, D)
    low, high, middle = values.min(axis=0), values.max(axis=0), values.std(axis=0)
    reach = np.stack([2 * low - high, 2 * high - low], axis=1)  # as much room again on either side

    shown = min(D, _PAIRED_FEATURES)
    figure = Figure(figsize=(max(3.1 * (shown + 1), 7.4), 5.8), layout="constrained") if figure is None else figure
    grid = figure.subplots(2, shown + 1, squeeze=False)
    for j in range(shown):
        _prior_densities(grid[0, j], values[:, j], drawn.marginal([j]), reach[j])
        _prior_sds(grid[1, j], sds[:, j], middle[j])
        grid[0, j].set_xlabel(in_picture(names[j]))
        grid[1, j].set_xlabel(f"sd of a component,\n{in_picture(names[j])}")
    grid[0, 0].set_ylabel("density")
    filled = priors.filled_components(N, K, rng=rng)
    bars = grid[0, shown]
    bars.bar(np.arange(1, len(filled)), filled[1:], color=_COLORS[0])
    bars.set(xlabel="components that hold a row", ylabel="prior probability", ylim=(0, 1))
    bars.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    _plain(bars)
    if D == 1:
        grid[1, shown].remove()
    else:
        _prior_outlines(grid[1, shown], values, drawn, reach)
        grid[1, shown].set(xlabel=in_picture(names[0]), ylabel=in_picture(names[1]))
    handles = [
        Line2D([], [], ls="", marker="s", ms=9, color="0.8", label="the table, and its sd (dashed)"),
        Line2D([], [], color="black", lw=1.5, label="prior mean of the density"),
        Line2D([], [], color=_COLORS[0], lw=0.8, label="mixtures drawn from the priors"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    model = CovarianceModel.named(covariance).label(D)
    note = f"; the first {shown} of {D} features" if shown < D else ""
    title = f"What the priors expect before they see the table: {counted(K, 'component')}, covariance {model}{note}"
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium")
    return figure


def _prior_densities(ax: Axes, x: np.ndarray, drawn: GaussianMixture, reach: np.ndarray) -> None:
    """Densities of one feature over its histogram."""
    grid = np.linspace(reach[0], reach[1], 300)
    density = np.exp(drawn.log_prob(grid[:, None]))
    heights, *_ = ax.hist(x, bins=_edges(x), density=True, color="0.85")
    ax.plot(grid, density[:30].T, color=_COLORS[0], lw=0.5, alpha=0.4)
    ax.plot(grid, density.mean(axis=0), color="black", lw=1.5)
    ax.set(xlim=reach, ylim=(0, 2 * np.max(heights)))  # a narrow component would flatten all else
    _plain(ax)


def _prior_sds(ax: Axes, sds: np.ndarray, of_table: float) -> None:
    """The components' sds on a logarithmic axis, and the table's."""
    low, high = np.quantile(sds, [0.005, 0.995])
    edges = np.geomspace(min(low, of_table) / 1.2, max(high, of_table) * 1.2, 41)
    ax.hist(sds, bins=edges.tolist(), color=_COLORS[0], alpha=0.6)
    ax.axvline(of_table, color="0.3", lw=1.5, ls="--")
    ax.set(xscale="log", yticks=[], xlim=(edges[0], edges[-1]))
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    _plain(ax)
    ax.spines["left"].set_visible(False)


def _prior_outlines(ax: Axes, values: np.ndarray, drawn: GaussianMixture, reach: np.ndarray) -> None:
    """The components of a few drawn mixtures, each in a colour of its own, over the rows; of two features."""
    rows = values[np.linspace(0, len(values) - 1, min(len(values), 500)).astype(int)]
    ax.plot(*rows[:, :2].T, ".", ms=2, color="0.6", zorder=0)
    for k in range(drawn.n_components):
        lines = list(_ellipses(drawn, k, (0, 1), 2)[: len(_COLORS) - 1])
        ax.add_collection(LineCollection(lines, colors=_COLORS[: len(lines)], linewidths=1.1))
    ax.set(xlim=reach[0], ylim=reach[1], title=f"components of {len(_COLORS) - 1} mixtures, 2 sd")
    ax.title.set_fontsize("small")
    _plain(ax)


def _criterion(ax: Axes, selection: Selection, name: str) -> None:
    """One criterion against the number of components."""
    kind, table = CRITERIA[name], selection.table
    for model, own in table.groupby("covariance", sort=False):
        ax.plot(own["n_components"], own[kind.column], ms=4, lw=1.2, **_model_style(str(model)))
    ranking = selection.ranking(name)
    first = ranking.iloc[0]
    best = table[(table["covariance"] == first["covariance"]) & (table["n_components"] == first["n_components"])]
    x, y = best[["n_components", kind.column]].to_numpy(float)[0]
    ax.plot(x, y, "o", ms=12, mfc="none", color="black", zorder=3)
    behind = (table[kind.column] - y).abs().dropna()
    widest, label = 0.0, "number of components K"
    if kind.sign > 0 and len(ranking) <= _WITH_BARS:  # more would cover one another
        at = y - ranking["behind"]
        ax.errorbar(ranking["n_components"], at, ranking["se"], fmt="none", ecolor="0.6", capsize=3, lw=1, zorder=0)
        widest = float(ranking["se"][ranking["tied"]].max())
        label += "\n(bars: standard error of the difference to the best)"
    # The best of each K stay in, but for a K that is far off, as one component often is.
    least = behind.groupby(table["n_components"]).min()
    far = min(max(2 * float(behind.median()), float(least.median()) * 1.5, 10.0), float(behind.max()) + 1.0 + widest)
    cut = int((behind > far).sum())
    low, high = (y - 0.07 * far, y + far) if kind.sign < 0 else (y - far, y + max(0.07 * far, widest))
    ax.set_ylim(low, high)
    unit = f"{kind.panel} (smaller is better)" if kind.sign < 0 else "nats (larger is better)"
    title = f"{kind.panel}: {first['covariance']}, K = {int(x)}"
    ax.set_title(title + (f" ({cut} worse not shown)" if cut else ""), fontsize="medium")
    numbers = table["n_components"]
    ax.set(xlabel=label, ylabel=unit, xlim=(numbers.min() - 0.5, numbers.max() + 0.5))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.ticklabel_format(axis="y", useOffset=False)
    _plain(ax)


def _frequencies(ax: Axes, selection: Selection) -> None:
    """How often each number of components was chosen among replicates."""
    n, width = len(selection.replicates), 0.8 / len(selection.replicates)
    for i, (name, values) in enumerate(selection.replicates.items()):
        shares = selection.frequencies(name)
        at = shares.index.to_numpy(float) + (i - (n - 1) / 2) * width
        ax.bar(at, shares, width, color=_COLORS[i], label=CRITERIA[name].title, hatch=("", "//")[i], edgecolor="white")
        count = len(next(iter(values.values())))
    ax.set(xlabel="number of components K", ylabel="share of the replicates", ylim=(0, 1))
    ax.set_title(f"Choice in {count} replicates of the table", fontsize="medium")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.legend(frameon=False, fontsize="small")
    _plain(ax)


def _model_style(model: str) -> dict[str, Any]:
    """Colour and marker by shape and orientation, dashed for equal volumes; the same in every picture."""
    full = CovarianceModel.named(model).name
    i = _SHAPES.index(full[1:])
    color = (*_COLORS, "black")[i]
    return {"color": color, "marker": "os^DvPX"[i], "ls": "--" if full[0] == "E" else "-", "mec": "white", "mew": 0.4}


class _Groups(NamedTuple):
    """What rows are coloured and outlined by: components, or the clusters of a partition."""

    word: str
    numbers: Sequence[int]  # of their colours
    centre: GaussianMixture  # EM's components, or the clusters averaged over the draws
    draws: GaussianMixture | None  # some, of batch shape (S,)
    mixtures: GaussianMixture | None  # of the same draws
    share: np.ndarray | None  # (K, C, S) of the draws' components that each cluster has

    def densities(self, j: int, x: np.ndarray) -> np.ndarray:
        """What each group adds to the density of feature j at x (n,): by EM, or on average over the draws, (n, C)."""
        if self.share is None or self.mixtures is None:
            return np.exp(self.centre.marginal([j]).log_joint(x[:, None]))
        joint = np.exp(self.mixtures.marginal([j]).log_joint(x[:, None]))  # (S, n, K)
        return np.einsum("snk,kcs->nc", joint, self.share) / len(joint)


def _groups(fit: EMFit, tree: xr.DataTree | None, assignments: Assignments | None, n_draws: int) -> _Groups:
    mixtures = None if tree is None else _thinned(as_mixture(tree), n_draws)
    if assignments is None or assignments.partition is None:
        return _Groups("component", range(fit.n_components), fit.mixture, mixtures, mixtures, None)
    if tree is None or mixtures is None:
        raise InputError("clusters of a partition are outlined by their posterior: give the tree too")
    draws = cluster_mixture(tree, assignments.partition)
    centre = GaussianMixture(
        weights=draws.weights.mean(axis=(0, 1)),
        means=draws.means.mean(axis=(0, 1)),
        covariances=draws.covariances.mean(axis=(0, 1)),
    )
    numbers = _numbers(assignments.partition)
    thinned = rows_under_draws(mixtures, np.asarray(tree["observed_data"]["observations"]))
    share = shares(cluster_counts(thinned, assignments.partition))
    return _Groups("cluster", numbers, centre, _thinned(draws, n_draws), mixtures, share)


class _Scatter:
    """What the panels of `clusters` share."""

    def __init__(
        self, values: np.ndarray, features: Sequence[str], labels: np.ndarray, certainty: np.ndarray, groups: _Groups
    ):
        self.values, self.features, self.labels, self.groups = values, features, labels, groups
        self.uncertainty = 1 - certainty
        shown = np.linspace(0, len(values) - 1, min(len(values), _POINTS)).astype(int)
        self.order = shown[np.argsort(self.uncertainty[shown])]  # the uncertain on top
        # Room for the rows and for the ellipses of the centre; a posterior draw may lie anywhere.
        two_sd = 2 * np.sqrt(np.einsum("kii->ki", groups.centre.covariances))
        low = np.minimum(values.min(axis=0), (groups.centre.means - two_sd).min(axis=0))
        high = np.maximum(values.max(axis=0), (groups.centre.means + two_sd).max(axis=0))
        margin = 0.07 * (high - low)
        self.limits = np.stack([low - margin, high + margin], axis=1)  # (D, 2)

    def _size(self, uncertainty: Any) -> Any:
        smallest = np.clip(5000 / len(self.order), 3, 16)
        return smallest * (1 + 8 * np.asarray(uncertainty))

    def points(self, ax: Axes, x: np.ndarray, y: np.ndarray) -> None:
        for k, number in enumerate(self.groups.numbers):
            own = self.order[self.labels[self.order] == k]
            ax.scatter(
                x[own],
                y[own],
                s=self._size(self.uncertainty[own]),
                marker=_marker(number),
                color=_color(number),
                alpha=0.55,
                linewidths=0,
            )

    def pair(self, ax: Axes, i: int, j: int) -> None:
        """Feature j against feature i."""
        self.points(ax, self.values[:, i], self.values[:, j])
        for k, number in enumerate(self.groups.numbers):
            if self.groups.draws is not None:
                lines = _ellipses(self.groups.draws, k, (i, j), 2)
                ax.add_collection(LineCollection(list(lines), colors=_color(number), linewidths=0.6, alpha=0.15))
            for radius in (1, 2):
                x, y = _ellipses(self.groups.centre, k, (i, j), radius).T
                white = [withStroke(linewidth=2.3, foreground="white")]
                ax.plot(x, y, color=_color(number), lw=1.5, path_effects=white)
        x_name, y_name = (in_picture(self.features[f]) for f in (i, j))
        ax.set(xlabel=x_name, xlim=self.limits[i], ylabel=y_name, ylim=self.limits[j])
        _plain(ax)

    def density(self, ax: Axes, j: int, rug: bool) -> None:
        """Histogram of feature j under the densities."""
        x = self.values[:, j]
        low, high = self.limits[j]
        grid = np.linspace(low, high, 400)
        heights, *_ = ax.hist(x, bins=_edges(x), density=True, color="0.88", zorder=0)
        if self.groups.mixtures is not None:
            density = np.exp(self.groups.mixtures.marginal([j]).log_prob(grid[:, None]))
            ax.fill_between(grid, *np.quantile(density, [0.055, 0.945], axis=0), color="0.35", alpha=0.35, lw=0)
        parts = self.groups.densities(j, grid)
        ax.plot(grid, parts.sum(axis=1), color="black", lw=2.2)
        for number, part in zip(self.groups.numbers, parts.T, strict=True):
            ax.plot(grid, part, color=_color(number), lw=1.2)
        if rug:
            self.points(ax, x, np.full(len(x), -0.04 * np.max(heights)))
            ax.axhline(0, color="0.6", lw=0.6)
        ax.set(xlabel=in_picture(self.features[j]), xlim=self.limits[j], ylabel="density")
        _plain(ax)

    def legend(self) -> Iterator[Line2D]:
        """What the colours, sizes and lines mean."""
        D, (word, numbers) = len(self.features), self.groups[:2]
        counts = np.bincount(self.labels, minlength=len(numbers)).tolist()
        for k, (number, n) in enumerate(zip(numbers, counts, strict=True)):
            label = f"{word} {k} ({counted(n, 'row')})"
            yield Line2D([], [], ls="", marker=_marker(number), color=_color(number), ms=6, label=label)
        if len(numbers) > 1:
            for probability, label in (
                (1.0, "certain of it"),
                (0.75, "probability 0.75"),
                (0.5, "probability 0.5"),
            ):
                size = float(np.sqrt(self._size(1 - probability)))
                yield Line2D([], [], ls="", marker="o", color="0.5", ms=size, label=label)
        mean = "EM" if self.groups.share is None else "posterior mean"
        if D != 2:
            yield Line2D([], [], color="black", lw=2.2, label=f"density by {mean}, its {word}s coloured")
        if D > 1:
            yield Line2D([], [], color="0.3", lw=1.5, label=f"{mean}, 1 and 2 sd")
        if self.groups.draws is not None:
            if D > 1:
                yield Line2D([], [], color="0.3", lw=0.6, alpha=0.5, label=f"{_ELLIPSE_DRAWS} posterior draws, 2 sd")
            if D != 2:
                yield Line2D([], [], color="0.35", lw=6, alpha=0.35, label="posterior of the density, 89%")


def _thinned(draws: GaussianMixture, n: int) -> GaussianMixture:
    """About n of the draws (chain, draw) spread evenly over all chains, batch shape (n,)."""
    chains, length = draws.batch_shape
    chain, draw = np.divmod(np.linspace(0, chains * length - 1, min(n, chains * length)).astype(int), length)
    return GaussianMixture(
        weights=draws.weights[chain, draw],
        means=draws.means[chain, draw],
        covariances=draws.covariances[chain, draw],
    )


def _quantities(source: GaussianMixture, fit: EMFit) -> Iterator[tuple[str, np.ndarray]]:
    """Name and values (..., K) of what `posterior` shows, of the fit's mixture or of draws."""
    features = fit.features[:_MARGINAL_FEATURES]
    if source.n_components > 1:
        yield "weight", source.weights
    for j, name in enumerate(features):
        yield f"mean\n{in_picture(name)}", source.means[..., j]
    sds = np.sqrt(np.einsum("...ii->...i", source.covariances))
    for j, name in enumerate(features):
        yield f"sd\n{in_picture(name)}", sds[..., j]
    if fit.n_features == 2 and not fit.covariance_model.diagonal:
        yield "correlation", source.covariances[..., 0, 1] / sds.prod(axis=-1)


def _marginal(ax: Axes, draws: np.ndarray, em: float | None, color: str) -> None:
    """Smoothed density of the draws, their 89% interval, and the EM estimate where there is one."""
    from scipy.stats import gaussian_kde

    # The curve goes no further than the draws, as some quantities end at 0 or 1.
    low, lower, upper, high = np.quantile(draws, [0.005, 0.055, 0.945, 0.995])
    grid = np.linspace(low, high, 200)
    ax.fill_between(grid, gaussian_kde(draws)(grid), color=color, alpha=0.35, lw=0)
    ax.plot([lower, upper], [0, 0], color=color, lw=3, solid_capstyle="butt", clip_on=False)
    if em is not None:
        ax.axvline(em, color="black", lw=1.5)
    ax.margins(x=0.1)
    ax.set_yticks([])
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_locator(MaxNLocator(3))
    ax.tick_params(labelsize="small")
    _plain(ax)
    ax.spines["left"].set_visible(False)


def _ellipses(mixture: GaussianMixture, k: int, pair: tuple[int, int], radius: float) -> np.ndarray:
    """Outline (..., 101, 2) of component k in two features, at so many sds from its mean."""
    two = mixture.marginal(pair)
    factor = np.linalg.cholesky(two.covariances[..., k, :, :])
    outline = two.means[..., k, :, None] + radius * factor @ _CIRCLE
    return np.swapaxes(outline, -1, -2)


def _edges(x: np.ndarray) -> list[float]:
    """Histogram edges, few enough to see."""
    edges = np.histogram_bin_edges(x, "auto")
    return (edges if len(edges) <= 81 else np.linspace(x.min(), x.max(), 81)).tolist()


def _color(k: int) -> str:
    return _COLORS[k % len(_COLORS)]


def _marker(k: int) -> str:
    return _MARKERS[k // len(_COLORS) % len(_MARKERS)]


def _plain(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
