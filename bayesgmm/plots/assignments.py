"""Pictures of which component or cluster each row belongs to, and how surely."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayesgmm.bayes.posterior import Posterior, posterior as as_posterior
from bayesgmm.clusters.rows_under_draws import rows_under_draws
from bayesgmm.clusters.shares import by_cluster, cluster_counts, cluster_mixture, shares
from bayesgmm.errors import InputError
from bayesgmm.names import in_picture, percent
from bayesgmm.observations import positive_integer
from bayesgmm.plots.style import color, color_indices, figure_or_new, marker, plain, point_handle, size_handles, thinned

if TYPE_CHECKING:
    from bayesgmm.clusters.assignment import Assignments
    from bayesgmm.clusters.partition import Partition

_MAP_DRAWS = 200  # that the map of the doubt is averaged over
_MAP_POINTS = 120  # along each axis
_NEGLIGIBLE = 0.01  # upper end of an interval that is left out


def uncertainty(posterior: Any, assignments: Assignments, *, figure: Figure | None = None) -> Figure:
    """Where the assignment is in doubt: larger points, and for two features a darker map, mean less certain.

    Of more than two features, the two that separate the components best are shown, without the map; a single feature is
    plotted against the uncertainty.

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
    rows, doubt = rows_under_draws(drawn).X, 1 - assignments.label_probability
    if len(doubt) != len(rows):
        raise InputError(f"the assignments are of {len(doubt)} rows, the posterior of {len(rows)}")
    indices = color_indices(partition, assignments.probabilities.shape[1])
    figure = figure_or_new(figure, 7.2, 5.2)
    ax = figure.subplots()
    mapped = rows.shape[1] == 2 and len(indices) > 1
    if mapped:
        _map_of_doubt(ax, rows, drawn, partition, len(indices))
    first, *others = _parting_features(rows, drawn, partition)
    y = rows[:, others[0]] if others else doubt
    handles = []
    for k, index in enumerate(indices):
        members = assignments.labels == k
        look: dict[str, Any] = {"marker": marker(index), "color": color(index), "alpha": 0.7, "linewidths": 0}
        ax.scatter(rows[members, first], y[members], s=_area(doubt[members]), **look)
        handles.append(point_handle(index, f"{assignments.group} {k}"))
    handles += size_handles(assignments.group, _area)
    figure.legend(handles=handles, loc="outside right center", fontsize="small", frameon=False)
    y_name = in_picture(drawn.features[others[0]]) if others else "1 - probability of the row's label"
    ax.set(xlabel=in_picture(drawn.features[first]), ylabel=y_name)
    note = "; the darker, the less sure a row there would be" if mapped else ""
    figure.suptitle(f"Larger: less sure which {assignments.group}{note}", fontsize="medium", x=0.01, ha="left")
    plain(ax)
    return figure


def least_certain(assignments: Assignments, *, rows: int = 20, figure: Figure | None = None) -> Figure:
    """The probabilities of each component or cluster, with intervals, of the rows that are least certain.

    Probabilities whose interval ends below 1% are left out.

    Parameters
    ----------
    assignments : Assignments
        From `assign`, whose argument ``ci_prob`` sets the probability of the intervals.
    rows : int
        How many to show.
    figure : matplotlib.figure.Figure, optional
        To draw into; a new one by default.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If ``rows`` is not a positive integer.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> tree = bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), draws=500, chains=2, rng=0)
    >>> figure = bg.plots.least_certain(bg.assign(tree, ci_prob=0.5), rows=5)
    >>> figure.axes[0].get_xlabel()
    'probability of the component, with 50% interval'
    """
    a = assignments
    shown = np.argsort(a.label_probability, kind="stable")[: positive_integer(rows, "rows")]
    K = a.probabilities.shape[1]
    figure = figure_or_new(figure, 6.6, 1.3 + max(0.26, 0.035 * K) * len(shown))
    ax = figure.subplots()
    apart = 0.7 / K
    handles = []
    for k, index in enumerate(color_indices(a.partition, K)):
        heights = np.arange(len(shown)) + (k - (K - 1) / 2) * apart
        likely = a.upper[shown, k] >= _NEGLIGIBLE
        some = shown[likely]
        ax.hlines(heights[likely], a.lower[some, k], a.upper[some, k], color=color(index), lw=1.6, alpha=0.6)
        ax.plot(a.probabilities[some, k], heights[likely], ls="", ms=5, marker=marker(index), color=color(index))
        handles.append(point_handle(index, f"{a.group} {k}"))
    for height in range(1, len(shown), 2):
        ax.axhspan(height - 0.5, height + 0.5, color="0.95", lw=0, zorder=0)
    ax.set_yticks(np.arange(len(shown)), [f"row {i}" for i in shown])
    ax.set(xlim=(-0.02, 1.02), xlabel=f"probability of the {a.group}, with {percent(a.ci_prob)} interval")
    ax.set_ylim(len(shown) - 0.5, -0.5)
    ax.set_title("The least certain rows (counted from 0)", fontsize="medium")
    figure.legend(handles=handles, loc="outside lower center", ncols=min(K, 4), frameon=False, fontsize="small")
    plain(ax)
    return figure


def _area(doubt: Any) -> Any:
    """Of a point, in square points."""
    return 12 + 100 * np.asarray(doubt)


def _parting_features(rows: np.ndarray, posterior: Posterior, partition: Partition | None) -> Sequence[int]:
    """The two features, in their order, in which the components' means are farthest apart in sds of the rows."""
    if partition is not None:
        means = cluster_mixture(posterior, partition).means.mean(axis=(0, 1))
    else:
        means = posterior.draws.means.mean(axis=(0, 1)) if posterior.em is None else posterior.em.means
    spread = means.std(axis=0) / np.maximum(rows.std(axis=0), 1e-300)
    return np.sort(np.argsort(-spread, kind="stable")[:2]).tolist()


def _map_of_doubt(ax: Axes, rows: np.ndarray, posterior: Posterior, partition: Partition | None, n_groups: int) -> None:
    """How unsure a row at each point of the plane would be: white where certain, grey where any group is as likely."""
    low, high = rows.min(axis=0), rows.max(axis=0)
    margin = 0.08 * (high - low)
    axes = [np.linspace(start, stop, _MAP_POINTS) for start, stop in zip(low - margin, high + margin, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    draws = rows_under_draws(thinned(posterior.draws, _MAP_DRAWS), rows)
    probabilities = draws.block(points.reshape(-1, 2)).responsibilities  # (points, K, draws)
    if partition is not None:
        probabilities = by_cluster(probabilities, shares(cluster_counts(draws, partition)))
    doubt = 1 - probabilities.mean(axis=-1).max(axis=-1).reshape(points.shape[:2])
    look: dict[str, Any] = {"cmap": "Greys", "vmin": 0, "vmax": 2 * (1 - 1 / n_groups), "shading": "gouraud"}
    ax.pcolormesh(*axes, doubt.T, rasterized=True, zorder=0, **look)
