"""Pictures of the partitions of the rows that a posterior holds likely."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayesgmm.clusters.similarity import posterior_similarity
from bayesgmm.errors import InputError
from bayesgmm.names import counted, in_picture, percent
from bayesgmm.observations import numeric_table
from bayesgmm.plots.style import color, color_indices, figure_or_new, marker, plain

if TYPE_CHECKING:
    from bayesgmm.clusters.partition import CredibleBall, Partition


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
    figure = figure_or_new(figure, 6.4, 5.4)
    ax = figure.subplots()
    image = ax.imshow(together[np.ix_(order, order)], vmin=0, vmax=1, cmap="viridis", interpolation="nearest")
    figure.colorbar(image, ax=ax, shrink=0.9, label="probability of belonging together")
    ax.set(xticks=[], yticks=[], xlabel="rows, in the same order", xlim=(-0.5, N - 0.5))
    _bars(ax, partition)
    ax.set_title("Which rows belong together, ordered by the partition", fontsize="medium")
    return figure


def credible_ball(X: Any, partition: Partition, ball: CredibleBall, *, figure: Figure | None = None) -> Figure:
    """A partition beside the partitions in its credible ball that differ from it most.

    Two features are shown as they are, a single feature against the cluster's label, and more features along the first
    two principal axes.

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
    rows, names = numeric_table(X)
    if not len(rows) == len(partition.labels) == len(ball.upper):
        sizes = f"{len(partition.labels)} rows, the ball of {len(ball.upper)}"
        raise InputError(f"the table has {len(rows)} rows, the partition is of {sizes}")
    plane, axis_names = _plane(rows, names)
    panels = [(f"the partition: {counted(partition.n_clusters, 'cluster')}", partition.labels)]
    for name, labels, distance in (
        ("fewest clusters", ball.upper, ball.upper_distance),
        ("most clusters", ball.lower, ball.lower_distance),
        ("farthest", ball.horizontal, ball.horizontal_distance),
    ):
        panels.append((f"{name} in the ball: {len(np.unique(labels))}; distance {distance:.2f}", np.asarray(labels)))
    figure = figure_or_new(figure, 8.2, 6.6)
    axes = figure.subplots(2, 2, sharex=True, sharey=True).ravel()
    for ax, (title, labels) in zip(axes, panels, strict=True):
        _partition(ax, plane, labels, partition)
        ax.set_title(title, fontsize="medium")
        ax.set(xlabel=axis_names[0], ylabel=axis_names[1])
        ax.label_outer()
    if len(names) == 1:
        axes[0].set_yticks(range(max(int(labels.max()) for _, labels in panels) + 1))
        axes[0].margins(y=0.15)
    inside, radius = percent(ball.probability), f"{ball.radius:.2f}"
    title = f"{inside} of the posterior's partitions are within {radius} of the partition"
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def _bars(ax: Axes, partition: Partition) -> None:
    """Beside the matrix a bar for each cluster, with its size."""
    N, sizes = len(partition.labels), np.bincount(partition.labels)
    stops, indices = np.cumsum(sizes), color_indices(partition, partition.n_clusters)
    heights = _spread(stops - sizes / 2, 0.08 * N, end=N)
    for c, (n, stop, height) in enumerate(zip(sizes.tolist(), stops.tolist(), heights.tolist(), strict=True)):
        ends = [stop - n - 0.5, stop - 0.5]
        ax.plot([-0.02 * N] * 2, ends, color=color(indices[c]), lw=5, solid_capstyle="butt", clip_on=False)
        text = f"cluster {c}\n{counted(n, 'row')}"
        ax.text(-0.035 * N, height, text, ha="right", va="center", fontsize="small", linespacing=1.05)


def _spread(heights: np.ndarray, apart: float, end: float) -> np.ndarray:
    """Ascending heights at least so far apart: each is moved on from the one before, and back from the end."""
    spread = heights.copy()
    for i in range(1, len(spread)):
        spread[i] = max(spread[i], spread[i - 1] + apart)
    limit = end
    for i in reversed(range(len(spread))):
        spread[i] = min(spread[i], limit)
        limit = spread[i] - apart
    return spread


def _plane(rows: np.ndarray, names: tuple[str, ...]) -> tuple[np.ndarray, tuple[str, str]]:
    """Coordinates (N, 1) or (N, 2) to draw the rows at, and the names of both axes."""
    if len(names) == 1:
        return rows, (in_picture(names[0]), "cluster")
    if len(names) == 2:
        return rows, (in_picture(names[0]), in_picture(names[1]))
    standard = (rows - rows.mean(axis=0)) / np.maximum(rows.std(axis=0), 1e-300)
    return standard @ np.linalg.svd(standard, full_matrices=False)[2][:2].T, (
        "first principal axis",
        "second principal axis",
    )


def _partition(ax: Axes, plane: np.ndarray, labels: np.ndarray, partition: Partition) -> None:
    """The rows in the colours of one partition; where they have one coordinate, at the height of their cluster."""
    indices = _matched_colors(labels, partition)
    heights = plane[:, 1] if plane.shape[1] > 1 else labels
    for c in np.unique(labels):
        members, index = labels == c, indices[int(c)]
        look: dict[str, Any] = {"marker": marker(index), "color": color(index)}
        ax.scatter(plane[members, 0], heights[members], s=14, alpha=0.7, linewidths=0, **look)
    plain(ax)


def _matched_colors(labels: np.ndarray, partition: Partition) -> dict[int, int]:
    """The index of each cluster's colour: that of the partition's cluster it shares most rows with, or a new one."""
    clusters, codes = np.unique(labels, return_inverse=True)
    shared = np.zeros((len(clusters), partition.n_clusters), int)
    np.add.at(shared, (codes, partition.labels), 1)
    indices = color_indices(partition, partition.n_clusters)
    free = (index for index in count() if index not in indices)
    matched: dict[int, int] = {}
    for c in np.argsort(-shared.max(axis=1), kind="stable"):
        index = indices[int(shared[c].argmax())]
        matched[int(clusters[c])] = index if index not in matched.values() else next(free)
    return matched
