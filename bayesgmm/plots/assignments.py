"""Pictures of which component or cluster each row belongs to, and how surely."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from bayesgmm.bayes.posterior import Posterior, posterior as as_posterior
from bayesgmm.clusters.rows_under_draws import Block, log_mean_exp, rows_under_draws
from bayesgmm.clusters.shares import by_cluster, cluster_counts, cluster_mixture, shares
from bayesgmm.errors import InputError
from bayesgmm.names import counted, in_picture, percent
from bayesgmm.observations import any_rows, positive_integer
from bayesgmm.plots.style import (
    NOISE_COLOR,
    color,
    color_indices,
    edge_ticks,
    ends,
    figure_or_new,
    marker,
    missing_note,
    noise_handle,
    noise_points,
    parting_features,
    plain,
    point_handle,
    size_handles,
    thinned,
)

if TYPE_CHECKING:
    from bayesgmm.clusters.assignment import Assignments
    from bayesgmm.clusters.partition import Partition

_MAP_DRAWS = 200  # that the map of the doubt is averaged over
_MAP_POINTS = 200  # along each axis
_OUTSIDE, _FURTHER = 0.01, 3.0  # it ends so many nats below the density that this share of the rows does not reach
_PALE_GREYS = ListedColormap(np.linspace(1, 0.45, 256)[:, None].repeat(3, axis=1))  # rows stand out from the darkest
_NEGLIGIBLE = 0.01  # upper end of an interval that is left out
_CERTAIN = 0.99  # probability from which a row is not among the least certain,
_ALWAYS = 3  # but so many are shown
_MOST_VALUES = 3  # of a row that are shown beside it


def uncertainty(posterior: Any, assignments: Assignments, *, figure: Figure | None = None) -> Figure:
    """Where the assignment is in doubt: larger points, and for two features a darker map, mean less certain.

    The map ends where rows become unlikely, and a line shows where the likeliest component changes. Of more than two
    features, the two that separate the components best are shown, without the map; a single feature is plotted against
    the uncertainty.

    Parameters
    ----------
    posterior : DataTree or Posterior
        From `sample_posterior`.
    assignments : Assignments
        Of the rows that were fitted, to components or to clusters.
    figure : matplotlib.figure.Figure, optional
        To draw into; a new one by default.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If the assignments are of other rows than the posterior.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> tree = bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), draws=500, chains=2, rng=0)
    >>> figure = bg.plots.uncertainty(tree, bg.assign(tree))
    >>> figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()
    ('eruptions', 'waiting')
    """
    drawn, partition = as_posterior(posterior), assignments.partition
    rows, doubt = rows_under_draws(drawn).table.values, 1 - assignments.label_probability
    if len(doubt) != len(rows):
        raise InputError(f"the assignments are of {len(doubt)} rows, the posterior of {len(rows)}")
    indices = color_indices(partition, assignments.probabilities.shape[1])
    figure = figure_or_new(figure, 7.2, 5.2)
    ax = figure.subplots()
    known = assignments.noise is None or drawn.draws.noise is not None  # at each point what would be noise
    mapped = rows.shape[1] == 2 and len(indices) > 1 and known
    if mapped:
        _map_of_doubt(ax, rows, drawn, assignments)
    shown = parting_features(_means(drawn, partition), rows, 2)
    first, *others = shown
    y = rows[:, others[0]] if others else doubt
    handles = []
    for k, index in enumerate(indices):
        members = assignments.labels == k
        look: dict[str, Any] = {"marker": marker(index), "color": color(index), "alpha": 0.7, "linewidths": 0}
        ax.scatter(rows[members, first], y[members], s=_area(doubt[members]), **look)
        if others:
            edge_ticks(ax, rows[members, first], y[members], color(index))
        handles.append(point_handle(index, f"{assignments.group} {k}"))
    outside = assignments.labels == -1
    if outside.any():
        noise_points(ax, rows[outside, first], y[outside])
        if others:
            edge_ticks(ax, rows[outside, first], y[outside], NOISE_COLOR)
        handles.append(noise_handle(int(outside.sum())))
    handles += size_handles(assignments.group, _area)
    figure.legend(handles=handles, loc="outside right center", fontsize="small", frameon=False)
    y_name = in_picture(drawn.features[others[0]]) if others else "1 - probability of the row's label"
    ax.set(xlabel=in_picture(drawn.features[first]), ylabel=y_name)
    title = f"The larger a point, the less sure its {assignments.group}"
    if mapped:
        title += "; the darker, the less sure a row there would be;\na line where the likeliest changes"
    figure.suptitle(title + missing_note(rows[:, shown]), fontsize="medium", x=0.01, ha="left")
    plain(ax)
    return figure


def least_certain(assignments: Assignments, X: Any = None, *, rows: int = 20, figure: Figure | None = None) -> Figure:
    """The probabilities of each component or cluster, with intervals, of the rows that are least certain.

    Rows whose label has a probability of 0.99 or more are left out, but for the three least certain; so are
    probabilities whose interval ends below 1%.

    Parameters
    ----------
    assignments : Assignments
        From `assign`, whose argument ``ci_prob`` sets the probability of the intervals.
    X : (N, D) table, optional
        The rows that were assigned: adds the values of their first features.
    rows : int
        How many to show at most.
    figure : matplotlib.figure.Figure, optional
        To draw into; a new one by default.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If ``rows`` is not a positive integer, or ``X`` has other rows than the assignments.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> tree = bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), draws=500, chains=2, rng=0)
    >>> figure = bg.plots.least_certain(bg.assign(tree, ci_prob=0.5), X, rows=2)
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['row 243 (2.9, 63)', 'row 23 (3.067, 69)']
    """
    a, K = assignments, assignments.probabilities.shape[1]
    order = np.argsort(a.label_probability, kind="stable")
    n_doubtful = int((a.label_probability < _CERTAIN).sum())
    shown = order[: min(positive_integer(rows, "rows"), max(n_doubtful, _ALWAYS))]
    names, features = _row_names(a, X, shown)
    figure = figure_or_new(figure, 7.2, 1.5 + max(0.26, 0.035 * K) * len(shown))
    ax = figure.subplots()
    apart = 0.7 / K
    handles = []
    for k, index in enumerate(color_indices(a.partition, K)):
        heights = np.arange(len(shown)) + (k - (K - 1) / 2) * apart
        likely = a.upper[shown, k] >= _NEGLIGIBLE
        some = shown[likely]
        ax.hlines(heights[likely], a.lower[some, k], a.upper[some, k], color=color(index), lw=1.6, alpha=0.6)
        ax.plot(a.probabilities[some, k], heights[likely], ls="", ms=5, marker=marker(index), color=color(index))
        if likely.any():
            handles.append(point_handle(index, f"{a.group} {k}"))
    if a.noise is not None and a.noise_lower is not None and a.noise_upper is not None:
        heights = np.arange(len(shown)) + K / 2 * apart
        ax.hlines(heights, a.noise_lower[shown], a.noise_upper[shown], color=NOISE_COLOR, lw=1.6, alpha=0.6)
        noise_points(ax, a.noise[shown], heights)
        handles.append(noise_handle(int((a.labels == -1).sum())))
    for height in range(1, len(shown), 2):
        ax.axhspan(height - 0.5, height + 0.5, color="0.95", lw=0, zorder=0)
    for height, row in enumerate(shown):
        label = a.labels[row] if a.labels[row] >= 0 else "none"
        ax.text(1.04, height, f"{label}: {a.label_probability[row]:.3f}", va="center", fontsize="small")
    ax.set_yticks(np.arange(len(shown)), names)
    ax.set(xlim=(-0.02, 1.02), xlabel=f"probability of the {a.group}, with {percent(a.ci_prob)} interval")
    ax.set_ylim(len(shown) - 0.5, -0.5)
    title = (
        f"The least certain: {counted(n_doubtful, 'row')} of {len(order)} with a probability below {_CERTAIN:g}\n"
        f"Rows count from 0{features}"
    )
    figure.suptitle(title, fontsize="medium", x=0.01, ha="left", linespacing=1.4)
    figure.legend(handles=handles, loc="outside lower center", ncols=min(K, 4), frameon=False, fontsize="small")
    plain(ax)
    return figure


def _row_names(a: Assignments, X: Any, shown: np.ndarray) -> tuple[list[str], str]:
    """What each row is called, and which features its name has the values of."""
    names = [f"row {i}" for i in shown]
    if X is None:
        return names, ""
    table = any_rows(X)
    values, features = table.values, table.features
    if len(values) != len(a.labels):
        raise InputError(f"the assignments are of {len(a.labels)} rows, the table has {len(values)}")
    beside = [", ".join("missing" if np.isnan(x) else f"{x:.4g}" for x in values[i, :_MOST_VALUES]) for i in shown]
    which = ", ".join(in_picture(name) for name in features[:_MOST_VALUES])
    return [f"{name} ({of_row})" for name, of_row in zip(names, beside, strict=True)], f" ({which})"


def _area(doubt: Any) -> Any:
    """Of a point, in square points."""
    return 12 + 100 * np.asarray(doubt)


def _means(posterior: Posterior, partition: Partition | None) -> np.ndarray:
    """Means (K, D) of the components, by EM if there is a fit, or of the clusters."""
    if partition is not None:
        return cluster_mixture(posterior, partition).means.mean(axis=(0, 1))
    return posterior.draws.means.mean(axis=(0, 1)) if posterior.em is None else posterior.em.means


def _map_of_doubt(ax: Axes, rows: np.ndarray, posterior: Posterior, a: Assignments) -> None:
    """How unsure a row at each point of the plane would be, where rows are likely; a line where its label changes."""
    low, high = ends(rows)
    margin = 0.08 * (high - low)
    axes = [np.linspace(start, stop, _MAP_POINTS) for start, stop in zip(low - margin, high + margin, strict=True)]
    points = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
    draws = rows_under_draws(thinned(posterior.draws, _MAP_DRAWS), posterior.table_or_sample)
    share = None if a.partition is None else shares(cluster_counts(draws, a.partition))
    n_groups = a.probabilities.shape[1] + (a.noise is not None)
    probabilities, log_density = np.empty((len(points), n_groups)), np.empty(len(points))

    def task(some: np.ndarray, block: Block) -> None:
        each = block.responsibilities if share is None else by_cluster(block.responsibilities, share)
        each = each.mean(axis=-1)
        probabilities[some] = each if block.noise is None else np.column_stack((each, block.noise.mean(axis=-1)))
        log_density[some] = log_mean_exp(block.log_prob)

    replace(draws, table=any_rows(points)).each_block(task)
    complete = rows[~np.isnan(rows).any(axis=1)]
    typical = complete if len(complete) else posterior.draws.means.reshape(-1, 2)
    likely = np.quantile(replace(draws, table=any_rows(typical)).log_predictive(), _OUTSIDE) - _FURTHER

    def on_grid(values: np.ndarray) -> np.ndarray:
        return values.reshape(_MAP_POINTS, _MAP_POINTS)

    levels = np.linspace(0, 1 - 1 / n_groups, 11)
    shade = ax.contourf(*axes, on_grid(1 - probabilities.max(axis=1)), levels, cmap=_PALE_GREYS, zorder=0)
    drawn = [shade]
    for k in range(n_groups):
        ahead = probabilities[:, k] - np.delete(probabilities, k, axis=1).max(axis=1)
        drawn.append(ax.contour(*axes, on_grid(ahead), [0], colors="0.3", linewidths=0.9, zorder=0))
    inside = ax.contourf(*axes, on_grid(log_density), [likely, np.inf], colors="none", zorder=0)
    for artist in drawn:
        artist.set_clip_path(inside.get_paths()[0], ax.transData)
    scale = ax.figure.colorbar(shade, ax=ax, format="%.2g", shrink=0.55, anchor=(0.0, 0.0), ticks=levels[::2])
    scale.set_label(f"1 - probability of the likeliest {a.group}", fontsize="small")
    scale.ax.tick_params(labelsize="small")
