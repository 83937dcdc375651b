"""How every picture looks: the figure, the colours and markers of components, parts of axes and legends, and draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bayesgmm.mixture import GaussianMixture
from bayesgmm.names import counted

if TYPE_CHECKING:
    from bayesgmm.clusters.partition import Partition

# The colours of Okabe and Ito, which colour-blind readers can tell apart (Wong, Nature Methods 8, 441, 2011,
# doi:10.1038/nmeth.1618), without yellow: it is too pale for lines.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = "os^Dv"
NOISE_COLOR = "0.45"  # of rows that belong to no cluster
_PROBABILITIES = (1.0, 0.75, 0.5)  # that a legend explains the sizes of points by
_MOST_BINS = 80  # of a histogram; more are too narrow to see
_CIRCLE = np.stack([np.cos(angle := np.linspace(0, 2 * np.pi, 101)), np.sin(angle)])  # (2, 101)


def figure_or_new(figure: Figure | None, width: float, height: float) -> Figure:
    """The figure to draw into: the given one, or a new one of so many inches.

    Legends stand outside of the axes, so a figure without a layout engine gets the constrained one.
    """
    if figure is None:
        return Figure(figsize=(width, height), layout="constrained")
    if isinstance(figure, Figure) and figure.get_layout_engine() is None:
        figure.set_layout_engine("constrained")
    return figure


def color(index: int) -> str:
    """The colour of component ``index``; they recur after six."""
    return COLORS[index % len(COLORS)]


def marker(index: int) -> str:
    """The marker of component ``index``; another one for every six components."""
    return MARKERS[index // len(COLORS) % len(MARKERS)]


def color_indices(partition: Partition | None, n_groups: int) -> Sequence[int]:
    """The index of each group's colour: a cluster has that of the component it matches, or one that is free."""
    if partition is None:
        return range(n_groups)
    components = partition.components.tolist()
    free = (index for index in count() if index not in components)
    return [index if index >= 0 else next(free) for index in components]


def plain(ax: Axes) -> None:
    """Take away the frame's upper and right side."""
    ax.spines[["top", "right"]].set_visible(False)


def bin_edges(x: np.ndarray) -> list[float]:
    """Edges of a histogram of x with few enough bins to see."""
    x = x[~np.isnan(x)]
    edges = np.histogram_bin_edges(x, "auto")
    return (edges if len(edges) <= _MOST_BINS + 1 else np.linspace(x.min(), x.max(), _MOST_BINS + 1)).tolist()


def ends(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest known value of each column, (D,) each; NaN where there is none."""
    return np.fmin.reduce(rows), np.fmax.reduce(rows)


def edge_ticks(ax: Axes, x: np.ndarray, y: np.ndarray, color: str) -> None:
    """At the edges of a scatter plot a tick for each row of which one of both values is missing."""
    look: dict[str, Any] = {"ls": "", "ms": 7, "color": color, "alpha": 0.8, "clip_on": False, "zorder": 3}
    below, beside = np.isnan(y) & ~np.isnan(x), np.isnan(x) & ~np.isnan(y)
    if below.any():
        ax.plot(x[below], np.zeros(below.sum()), marker="|", transform=ax.get_xaxis_transform(), **look)
    if beside.any():
        ax.plot(np.zeros(beside.sum()), y[beside], marker="_", transform=ax.get_yaxis_transform(), **look)


def missing_note(rows: np.ndarray) -> str:
    """How many of the rows lack a value of these columns (N, D), as another line of a title; "" where none does."""
    missing = np.isnan(rows)
    n, partly = int(missing.any(axis=1).sum()), bool((missing.any(axis=1) & ~missing.all(axis=1)).any())
    where = "ticks at the edges" if partly else "left out"
    return f"\n{counted(n, 'row')} lack{'s' * (n == 1)} a value: {where}" if n else ""


def noise_points(ax: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """Rows at x, y that belong to no cluster, if there are any: small grey crosses."""
    if len(x):
        ax.scatter(x, y, s=14, marker="x", color=NOISE_COLOR, linewidths=0.8, zorder=3)


def noise_handle(n_rows: int) -> Line2D:
    """A legend's entry for them."""
    label = f"belongs to no cluster ({counted(n_rows, 'row')})"
    return Line2D([], [], ls="", marker="x", color=NOISE_COLOR, ms=5, label=label)


def point_handle(index: int, label: str) -> Line2D:
    """A legend's entry for the points of component ``index``."""
    return Line2D([], [], ls="", marker=marker(index), color=color(index), ms=6, label=label)


def size_handles(word: str, area: Callable[[float], float]) -> Iterator[Line2D]:
    """A legend's entries for the sizes of points, whose area is a function of the label's uncertainty."""
    for probability in _PROBABILITIES:
        label = f"certain of its {word}" if probability == 1 else f"probability {probability:g}"
        yield Line2D([], [], ls="", marker="o", color="0.5", ms=float(np.sqrt(area(1 - probability))), label=label)


def spread(heights: np.ndarray, apart: float, end: float) -> np.ndarray:
    """Ascending heights at least so far apart: each is moved on from the one before, and back from the end.

    Examples
    --------
    >>> spread(np.array([1.0, 1.5, 9.5]), apart=2, end=9).tolist()
    [1.0, 3.0, 9.0]
    """
    moved = heights.copy()
    for i in range(1, len(moved)):
        moved[i] = max(moved[i], moved[i - 1] + apart)
    limit = end
    for i in reversed(range(len(moved))):
        moved[i] = min(moved[i], limit)
        limit = moved[i] - apart
    return moved


def outlines(mixture: GaussianMixture, k: int, pair: tuple[int, int], radius: float) -> np.ndarray:
    """Ellipses (..., 101, 2) around component k's mean in two features, ``radius`` sds away from it."""
    two = mixture.marginal(pair)
    factor = np.linalg.cholesky(two.covariances[..., k, :, :])
    ellipses = two.means[..., k, :, None] + radius * factor @ _CIRCLE
    return np.swapaxes(ellipses, -1, -2)


def parting_features(means: np.ndarray, rows: np.ndarray, n: int) -> list[int]:
    """The n features, in the table's order, in which the groups' means (K, D) are farthest apart in sds of the rows."""
    spread = means.std(axis=0) / np.maximum(np.nanstd(rows, axis=0), 1e-300)
    return np.sort(np.argsort(-spread, kind="stable")[:n]).tolist()


def thinned(draws: GaussianMixture, n: int) -> GaussianMixture:
    """About n of the draws (chain, draw), spread evenly over all chains, with batch shape (n,)."""
    flat = draws.reshape(-1)
    (total,) = flat.batch_shape
    return flat[np.linspace(0, total - 1, min(n, total)).astype(int)]
