"""Pictures of the parameters' posterior."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from bayesgmm.bayes.posterior import posterior as as_posterior
from bayesgmm.bayes.quantities import Quantity, quantities
from bayesgmm.clusters.shares import cluster_mixture
from bayesgmm.intervals import level, tails
from bayesgmm.names import in_picture, percent
from bayesgmm.plots.style import color, color_indices, figure_or_new, plain

if TYPE_CHECKING:
    from bayesgmm.clusters.partition import Partition

_MOST_FEATURES, _MOST_GROUPS = 3, 6


def posterior(
    posterior: Any,
    *,
    partition: Partition | None = None,
    ci_prob: float | None = None,
    figure: Figure | None = None,
) -> Figure:
    r"""Posterior density of the weight, means and sds of each component or cluster, with the EM estimate as a line.

    For two features, the correlation is shown too. At most six components and three features are shown; the title says
    if there are more.

    Parameters
    ----------
    posterior : DataTree or Posterior
        From `sample_posterior`.
    partition : Partition, optional
        Shows the weight, means and sds of its clusters (`cluster_mixture`) in place of the components'.
    ci_prob : float, optional
        Probability of the equal-tailed intervals; ``arviz.rcParams["stats.ci_prob"]`` by default.
    figure : matplotlib.figure.Figure, optional
        To draw into; a new one by default.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> tree = bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), draws=500, chains=2, rng=0)
    >>> figure = bg.plots.posterior(tree)
    >>> [ax.get_title().replace("\n", " ") for ax in figure.axes[:3]]
    ['weight', 'mean eruptions', 'mean waiting']
    """
    drawn, ci_prob = as_posterior(posterior), level(ci_prob)
    draws = drawn.draws if partition is None else cluster_mixture(drawn, partition)
    features, diagonal = drawn.features[:_MOST_FEATURES], drawn.covariance_model.diagonal
    em = drawn.em if partition is None else None
    columns = list(quantities(draws, features, diagonal=diagonal))
    word, indices = "component" if partition is None else "cluster", color_indices(partition, draws.n_components)
    n_rows = min(draws.n_components, _MOST_GROUPS)
    figure = figure_or_new(figure, 1.9 * len(columns) + 0.8, 1.2 * n_rows + 1.5)
    grid = figure.subplots(n_rows, len(columns), squeeze=False)
    for ax, quantity in zip(grid[0], columns, strict=True):
        ax.set_title(_heading(quantity), fontsize="medium")
    for k in range(n_rows):
        grid[k, 0].set_ylabel(f"{word} {k}", color=color(indices[k]))
        for ax, quantity in zip(grid[k], columns, strict=True):
            _marginal(ax, quantity.values[..., k].ravel(), ci_prob, color(indices[k]))
    if em is not None:
        for column, estimate in enumerate(quantities(em, features, diagonal=diagonal)):
            for k in range(n_rows):
                grid[k, column].axvline(estimate.values[k], color="black", lw=1.5)
    limits = [(n_rows, draws.n_components, f"{word}s"), (len(features), drawn.n_features, "features")]
    notes = [f"; the first {some} of {every} {what}" for some, every, what in limits if some < every]
    figure.suptitle(("Posterior" if partition is None else "Posterior of the clusters") + "".join(notes))
    handles = _handles(ci_prob, em=em is not None)
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    return figure


def _heading(quantity: Quantity) -> str:
    """The name of a quantity, above that of its feature."""
    return quantity.name if quantity.feature is None else f"{quantity.name}\n{in_picture(quantity.feature)}"


def _marginal(ax: Axes, draws: np.ndarray, ci_prob: float, color: str) -> None:
    """Smoothed density of the draws, and their interval."""
    from scipy.stats import gaussian_kde

    # The curve goes no further than the draws, as some quantities end at 0 or 1.
    low, high = np.quantile(draws, [0.005, 0.995])
    grid = np.linspace(low, high, 200)
    ax.fill_between(grid, gaussian_kde(draws)(grid), color=color, alpha=0.35, lw=0)
    interval = np.quantile(draws, tails(ci_prob))
    ax.plot(interval, [0, 0], color=color, lw=3, solid_capstyle="butt", clip_on=False)
    ax.margins(x=0.1)
    ax.set_yticks([])
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_locator(MaxNLocator(3))
    ax.tick_params(labelsize="small")
    plain(ax)
    ax.spines["left"].set_visible(False)


def _handles(ci_prob: float, *, em: bool) -> list[Line2D]:
    """What curves, bars and lines mean."""
    handles = [
        Line2D([], [], color="0.5", lw=4, alpha=0.4, label="posterior density"),
        Line2D([], [], color="0.3", lw=3, label=f"{percent(ci_prob)} interval"),
    ]
    return [*handles, Line2D([], [], color="black", lw=1.5, label="EM estimate")] if em else handles
