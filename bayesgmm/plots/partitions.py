"""Pictures of the partitions of the rows that a posterior holds likely."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import linear_sum_assignment

from bayesgmm.clusters.similarity import posterior_similarity
from bayesgmm.errors import InputError
from bayesgmm.names import counted, in_picture, listed, percent
from bayesgmm.observations import any_rows
from bayesgmm.plots.style import (
    NOISE_COLOR,
    color,
    color_indices,
    edge_ticks,
    figure_or_new,
    marker,
    missing_note,
    noise_points,
    plain,
    spread,
)

if TYPE_CHECKING:
    from bayesgmm.clusters.partition import CredibleBall, Partition

_LISTED_ROWS = 5  # in a panel's title


def similarity(posterior: Any, partition: Partition, *, figure: Figure | None = None) -> Figure:
    """The probability of every pair of rows to belong together, with the rows ordered by a partition.

    Parameters
    ----------
    posterior : DataTree or Posterior
        From `sample_posterior`.
    partition : Partition
        From `partition`; a cluster's bar has the colour of the component that it matches.
    figure : matplotlib.figure.Figure, optional
        To draw into; a new one by default.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If the partition is of other rows than the posterior, or there are too many for a matrix of all pairs.

    References
    ----------
    Fritsch, A. & Ickstadt, K. (2009). Improved criteria for clustering based on the posterior similarity matrix.
    Bayesian Analysis 4(2), 367-391. https://doi.org/10.1214/09-BA414

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> tree = bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), draws=500, chains=2, rng=0)
    >>> figure = bg.plots.similarity(tree, bg.partition(tree, rng=0))
    >>> figure.axes[0].get_title()
    'Which rows belong together, ordered by the partition'
    """
    together = posterior_similarity(posterior, dtype=np.float32)
    N = len(together)
    if len(partition.labels) != N:
        raise InputError(f"the partition is of {len(partition.labels)} rows, the posterior of {N}")
    inside = (together * (partition.labels[:, None] == partition.labels)).sum(axis=1) / together.sum(axis=1)
    order = np.lexsort((-inside, partition.labels))  # within a cluster, its surest rows first
    figure = figure_or_new(figure, 6.6, 5.2)
    ax = figure.subplots()
    # A matrix that fills its axes has a colour bar of its own height, whatever the figure's shape.
    look: dict[str, Any] = {"cmap": "viridis", "interpolation": "nearest", "aspect": "auto"}
    image = ax.imshow(together[np.ix_(order, order)], vmin=0, vmax=1, **look)
    figure.colorbar(image, ax=ax, label="probability of belonging together")
    ax.set(xticks=[], yticks=[], xlabel="rows, in the same order", xlim=(-0.5, N - 0.5))
    _bars(ax, partition)
    ax.set_title("Which rows belong together, ordered by the partition", fontsize="medium")
    return figure


def credible_ball(X: Any, partition: Partition, ball: CredibleBall, *, figure: Figure | None = None) -> Figure:
    """A partition beside the partitions in its credible ball that differ from it most, with the rows that differ.

    Two features are shown as they are, a single feature against its cluster, and more features along the first two
    principal axes, on which rows with a missing value have no place. Partitions that are the same have one panel; the
    rows that are in another cluster than the partition has them in are ringed.

    Parameters
    ----------
    X : (N, D) table
    partition : Partition
        Of its rows.
    ball : CredibleBall
        From `credible_ball`.
    figure : matplotlib.figure.Figure, optional
        To draw into; a new one by default.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If ``X`` is not a table of numbers, or partition and ball are of other rows.

    References
    ----------
    Wade, S. & Ghahramani, Z. (2018). Bayesian cluster analysis: point estimation and credible balls (with discussion).
    Bayesian Analysis 13(2), 559-626. https://doi.org/10.1214/17-BA1073

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> tree = bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), draws=500, chains=2, rng=0)
    >>> best = bg.partition(tree, rng=0)
    >>> figure = bg.plots.credible_ball(X, best, bg.credible_ball(tree, best, rng=0))
    >>> figure.axes[0].get_title()
    'the partition: 2 clusters'
    """
    table = any_rows(X)
    rows, names = table.values, table.features
    if not len(rows) == len(partition.labels) == len(ball.upper):
        sizes = f"{len(partition.labels)} rows, the ball of {len(ball.upper)}"
        raise InputError(f"the table has {len(rows)} rows, the partition is of {sizes}")
    plane, axis_names = _plane(rows, names)
    extremes = _extremes(partition, ball)
    n_rows, n_columns = (1, 1 + len(extremes)) if len(extremes) < 3 else (2, 2)
    figure = figure_or_new(figure, 4.1 * n_columns + 0.4 * (n_columns == 1), 3.3 * n_rows + 0.6)
    axes = figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False).ravel()
    panels = [(f"the partition: {counted(partition.n_clusters, 'cluster')}", np.arange(0), partition.labels)]
    for title, labels in extremes:
        moved = np.flatnonzero(labels != partition.labels)
        panels.append((f"{title}\n{_rows_that_differ(moved)}", moved, labels))
    for ax, (title, moved, labels) in zip(axes, panels, strict=True):
        _partition(ax, plane, labels, moved, partition)
        ax.set_title(title, fontsize="medium")
        ax.set(xlabel=axis_names[0], ylabel=axis_names[1])
        ax.label_outer()
    if len(names) == 1:
        axes[0].set_yticks(range(max(int(labels.max()) for _, _, labels in panels) + 1))
        axes[0].margins(y=0.15)
    inside, radius = percent(ball.probability), f"{ball.radius:.2f}"
    title = f"{inside} of the posterior's partitions are within {radius} of the partition; the extreme ones of these"
    figure.suptitle(title + missing_note(plane), x=0.01, ha="left")
    return figure


def _bars(ax: Axes, partition: Partition) -> None:
    """Beside the matrix a bar for each cluster, and for the rows of none, with its size."""
    N, sizes = len(partition.labels), np.bincount(partition.labels + 1, minlength=1 + partition.n_clusters)
    names = ["no cluster", *(f"cluster {c}" for c in range(partition.n_clusters))]
    colors = [NOISE_COLOR, *map(color, color_indices(partition, partition.n_clusters))]
    stops, present = np.cumsum(sizes)[sizes > 0], np.flatnonzero(sizes)
    sizes = sizes[present]
    heights = spread(stops - sizes / 2, 0.08 * N, end=N)
    for c, n, stop, height in zip(present, sizes.tolist(), stops.tolist(), heights.tolist(), strict=True):
        ends = [stop - n - 0.5, stop - 0.5]
        ax.plot([-0.02 * N] * 2, ends, color=colors[c], lw=5, solid_capstyle="butt", clip_on=False)
        text = f"{names[c]}\n{counted(n, 'row')}"
        ax.text(-0.035 * N, height, text, ha="right", va="center", fontsize="small", linespacing=1.05)


def _plane(rows: np.ndarray, names: tuple[str, ...]) -> tuple[np.ndarray, tuple[str, str]]:
    """Coordinates (N, 1) or (N, 2) to draw the rows at, and the names of both axes."""
    if len(names) == 1:
        return rows, (in_picture(names[0]), "cluster")
    if len(names) == 2:
        return rows, (in_picture(names[0]), in_picture(names[1]))
    complete = rows[~np.isnan(rows).any(axis=1)]
    if len(complete) < 2:
        return rows[:, :2], (in_picture(names[0]), in_picture(names[1]))
    center, sd = complete.mean(axis=0), np.maximum(complete.std(axis=0), 1e-300)
    axes = np.linalg.svd((complete - center) / sd, full_matrices=False)[2][:2]
    return (rows - center) / sd @ axes.T, ("first principal axis", "second principal axis")


def _extremes(partition: Partition, ball: CredibleBall) -> list[tuple[str, np.ndarray]]:
    """The different partitions among the extreme ones of the ball: what each is, and its labels, the partition's."""
    named: dict[bytes, tuple[list[str], float, np.ndarray]] = {}
    for name, labels, distance in (
        ("fewest clusters", ball.upper, ball.upper_distance),
        ("most clusters", ball.lower, ball.lower_distance),
        ("farthest", ball.horizontal, ball.horizontal_distance),
    ):
        matched = _matched(np.asarray(labels), partition)
        names, *_ = named.setdefault(matched.tobytes(), ([], distance, matched))
        names.append(name)
    return [
        (
            f"{listed(names)}:\n{counted(len(np.unique(labels[labels >= 0])), 'cluster')}, distance {distance:.2f}",
            labels,
        )
        for names, distance, labels in named.values()
    ]


def _rows_that_differ(moved: np.ndarray) -> str:
    """How many rows there are, and which are the first."""
    if not len(moved):
        return "no row differs"
    which = ", ".join(map(str, moved[:_LISTED_ROWS])) + ", ..." * (len(moved) > _LISTED_ROWS)
    return f"{counted(len(moved), 'row')} ringed: {which}"


def _partition(ax: Axes, plane: np.ndarray, labels: np.ndarray, moved: np.ndarray, partition: Partition) -> None:
    """The rows in the colours of one partition, those that moved ringed; at their cluster's height in one dimension."""
    indices = list(color_indices(partition, partition.n_clusters))
    free = (index for index in count() if index not in indices)
    indices += [next(free) for _ in range(int(labels.max()) + 1 - len(indices))]
    heights = plane[:, 1] if plane.shape[1] > 1 else labels
    outside = labels == -1
    noise_points(ax, plane[outside, 0], heights[outside])
    for c in np.unique(labels[~outside]):
        members = labels == c
        look: dict[str, Any] = {"marker": marker(indices[c]), "color": color(indices[c])}
        ax.scatter(plane[members, 0], heights[members], s=14, alpha=0.7, linewidths=0, **look)
        if plane.shape[1] > 1:
            edge_ticks(ax, plane[members, 0], heights[members], color(indices[c]))
    ax.scatter(plane[moved, 0], heights[moved], s=60, facecolors="none", edgecolors="black", linewidths=0.8)
    plain(ax)


def _matched(labels: np.ndarray, partition: Partition) -> np.ndarray:
    """The labels with the numbers of the partition's clusters that they share most rows with, and new numbers after."""
    outside = labels == -1
    clusters, codes = np.unique(labels, return_inverse=True)
    shared = np.zeros((len(clusters), partition.n_clusters), int)
    both = ~outside & (partition.labels >= 0)
    np.add.at(shared, (codes[both], partition.labels[both]), 1)
    ours, theirs = linear_sum_assignment(-shared)
    numbers = np.full(len(clusters), -1)
    numbers[ours] = np.where(shared[ours, theirs] > 0, theirs, -1)
    numbers[numbers < 0] = partition.n_clusters + np.arange((numbers < 0).sum())
    return np.where(outside, -1, numbers[codes])
