"""Pictures of what priors expect."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from bayesgmm.bayes.priors import Priors
from bayesgmm.covariance import CovarianceModel
from bayesgmm.errors import InputError
from bayesgmm.mixture import GaussianMixture
from bayesgmm.names import counted, in_picture
from bayesgmm.observations import any_rows
from bayesgmm.plots.style import COLORS, bin_edges, ends, figure_or_new, outlines, plain

_MIXTURES = 1000  # drawn from the priors,
_CURVES = 30  # of which so many densities are drawn,
_OUTLINED = 5  # and the components of so many
_MOST_FEATURES = 4
_MOST_ROWS = 500  # beside the outlines


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

    Each of the first four features has the densities of mixtures drawn from the priors over the table's histogram, and
    below them the sds of their components beside the table's. Further panels show the components of a few mixtures over
    the rows, and how many components would hold at least one row of a table of this size. If the sds are far from any
    that a cluster could have, or no drawn mixture covers the rows, the priors say more than they should.

    Parameters
    ----------
    X : (N, D) table
    priors : Priors, optional
        `Priors.weakly_informative` by default.
    n_components : int, optional
        Needed unless the priors have a concentration for each component.
    covariance : str or CovarianceModel
    rng : Generator, seed or None
        For the mixtures that are drawn.
    figure : matplotlib.figure.Figure, optional
        To draw into; a new one by default.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If ``X`` is not a table of numbers, the priors are for other features, or the number of components is not known.

    References
    ----------
    Gabry, J., Simpson, D., Vehtari, A., Betancourt, M. & Gelman, A. (2019). Visualization in Bayesian workflow.
    Journal of the Royal Statistical Society A 182(2), 389-402. https://doi.org/10.1111/rssa.12378

    Examples
    --------
    >>> import bayesgmm as bg
    >>> figure = bg.plots.prior_check(bg.datasets.old_faithful(), n_components=2, rng=0)
    >>> figure.get_suptitle()
    'What the priors expect before they see the table: 2 components, covariance VVV'
    """
    table = any_rows(X)
    rows, names = table.values, table.features
    N, D = rows.shape
    priors, K = _priors_and_size(X, D, priors, n_components)
    rng = np.random.default_rng(rng)
    drawn = priors.sample(_MIXTURES, K, covariance, rng=rng)
    sds = np.sqrt(np.einsum("...ii->...i", drawn.covariances)).reshape(-1, D)
    low, high = ends(rows)
    reach = np.stack([2 * low - high, 2 * high - low], axis=1)  # as much room again on either side

    n_shown = min(D, _MOST_FEATURES)
    figure = figure_or_new(figure, max(3.1 * (n_shown + 1), 7.4), 5.8)
    grid = figure.subplots(2, n_shown + 1)
    for j in range(n_shown):
        _densities(grid[0, j], rows[:, j], drawn.marginal([j]), reach[j])
        _sds(grid[1, j], sds[:, j], float(np.nanstd(rows[:, j])))
        grid[0, j].set_xlabel(in_picture(names[j]))
        grid[1, j].set_xlabel(f"sd of a component,\n{in_picture(names[j])}")
    grid[0, 0].set_ylabel("density")
    _filled(grid[0, n_shown], priors.filled_components(N, K, rng=rng))
    if D == 1:
        grid[1, n_shown].remove()
    else:
        _outlines(grid[1, n_shown], rows, drawn, reach)
        grid[1, n_shown].set(xlabel=in_picture(names[0]), ylabel=in_picture(names[1]))
    figure.legend(handles=_handles(), loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    model = CovarianceModel.named(covariance).label(D)
    note = f"; the first {n_shown} of {D} features" if n_shown < D else ""
    title = f"What the priors expect before they see the table: {counted(K, 'component')}, covariance {model}{note}"
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium")
    return figure


def _priors_and_size(X: Any, D: int, priors: Priors | None, n_components: int | None) -> tuple[Priors, int]:
    """The priors, and the number of components that mixtures drawn from them have."""
    K = n_components or (0 if priors is None else priors.n_components)
    if K == 0:
        raise InputError("prior_check needs n_components, unless the priors have a concentration for each component")
    if priors is None:
        priors = Priors.weakly_informative(X, K)
    if priors.n_features != D:
        raise InputError(f"the priors are for {priors.n_features} features, the table has {D}")
    return priors, K


def _densities(ax: Axes, x: np.ndarray, drawn: GaussianMixture, reach: np.ndarray) -> None:
    """Densities of one feature over its histogram."""
    grid = np.linspace(reach[0], reach[1], 300)
    density = np.exp(drawn.log_prob(grid[:, None]))
    heights, *_ = ax.hist(x[~np.isnan(x)], bins=bin_edges(x), density=True, color="0.85")
    ax.plot(grid, density[:_CURVES].T, color=COLORS[0], lw=0.5, alpha=0.4)
    ax.plot(grid, density.mean(axis=0), color="black", lw=1.5)
    ax.set(xlim=reach, ylim=(0, 2 * np.max(heights)))  # a narrow component would flatten all else
    plain(ax)


def _sds(ax: Axes, sds: np.ndarray, sd_of_table: float) -> None:
    """The components' sds on a logarithmic axis, and the table's."""
    low, high = np.quantile(sds, [0.005, 0.995])
    edges = np.geomspace(min(low, sd_of_table) / 1.2, max(high, sd_of_table) * 1.2, 41)
    ax.hist(sds, bins=edges.tolist(), color=COLORS[0], alpha=0.6)
    ax.axvline(sd_of_table, color="0.3", lw=1.5, ls="--")
    ax.set(xscale="log", yticks=[], xlim=(edges[0], edges[-1]))
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    plain(ax)
    ax.spines["left"].set_visible(False)


def _filled(ax: Axes, probabilities: np.ndarray) -> None:
    """How probably 1, 2, ... components hold a row."""
    ax.bar(np.arange(1, len(probabilities)), probabilities[1:], color=COLORS[0])
    ax.set(xlabel="components that hold a row", ylabel="prior probability", ylim=(0, 1))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    plain(ax)


def _outlines(ax: Axes, rows: np.ndarray, drawn: GaussianMixture, reach: np.ndarray) -> None:
    """The components of a few drawn mixtures, each mixture in a colour of its own, over the rows; of two features."""
    some = rows[np.linspace(0, len(rows) - 1, min(len(rows), _MOST_ROWS)).astype(int)]
    ax.plot(*some[:, :2].T, ".", ms=2, color="0.6", zorder=0)
    for k in range(drawn.n_components):
        lines = list(outlines(drawn[:_OUTLINED], k, (0, 1), 2))
        ax.add_collection(LineCollection(lines, colors=COLORS[: len(lines)], linewidths=1.1))
    ax.set(xlim=reach[0], ylim=reach[1])
    ax.set_title(f"components of {_OUTLINED} mixtures, 2 sd", fontsize="small")
    plain(ax)


def _handles() -> list[Line2D]:
    """What bars and lines mean."""
    return [
        Line2D([], [], ls="", marker="s", ms=9, color="0.8", label="the table, and its sd (dashed)"),
        Line2D([], [], color="black", lw=1.5, label="prior mean of the density"),
        Line2D([], [], color=COLORS[0], lw=0.8, label="mixtures drawn from the priors"),
    ]
