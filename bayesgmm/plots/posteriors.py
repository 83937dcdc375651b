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
from bayesgmm.plots.style import color, color_indices, figure_or_new, marker, plain

if TYPE_CHECKING:
    from bayesgmm.clusters.partition import Partition

_MOST_FEATURES, _MOST_GROUPS = 6, 12
_HALF = 0.5  # probability of the thick part of a bar


def posterior(
    posterior: Any,
    *,
    partition: Partition | None = None,
    ci_prob: float | None = None,
    figure: Figure | None = None,
) -> Figure:
    """Posterior of the weight, means and sds of each component or cluster as bars, with the EM estimate as a tick.

    All components of a quantity are on one scale. For two features, the correlation is shown too. At most twelve
    components and six features are shown; the title says if there are more.

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
    >>> [ax.get_title() for ax in figure.axes]
    ['mean eruptions', 'sd eruptions', 'mean waiting', 'sd waiting', 'weight', 'correlation']
    """
    drawn, ci_prob = as_posterior(posterior), level(ci_prob)
    draws = drawn.draws if partition is None else cluster_mixture(drawn, partition)
    features, diagonal = drawn.features[:_MOST_FEATURES], drawn.covariance_model.diagonal
    em = drawn.em if partition is None else None
    sampled = _in_pairs(quantities(draws, features, diagonal=diagonal))
    estimated = [None] * len(sampled) if em is None else _in_pairs(quantities(em, features, diagonal=diagonal))
    word, indices = "component" if partition is None else "cluster", color_indices(partition, draws.n_components)
    K = min(draws.n_components, _MOST_GROUPS)
    n_rows = -(-len(sampled) // 2)
    figure = figure_or_new(figure, 8.4, (0.22 * K + 0.75) * n_rows + 0.9)
    axes = figure.subplots(n_rows, 2, sharey=True, squeeze=False).ravel()
    for ax, quantity, estimate in zip(axes, sampled, estimated, strict=False):
        _forest(ax, quantity.values.reshape(-1, draws.n_components)[:, :K], ci_prob, indices)
        if estimate is not None:
            ax.plot(estimate.values[:K], np.arange(K), "|", color="black", ms=11, mew=1.5)
        ax.set_title(_heading(quantity), fontsize="medium")
    axes[0].set_yticks(np.arange(K), [f"{word} {k}" for k in range(K)])
    axes[0].set_ylim(K - 0.5, -0.5)
    for ax in axes[len(sampled) :]:
        ax.remove()
    limits = [(K, draws.n_components, f"{word}s"), (len(features), drawn.n_features, "features")]
    notes = [f"; the first {some} of {every} {what}" for some, every, what in limits if some < every]
    figure.suptitle(("Posterior" if partition is None else "Posterior of the clusters") + "".join(notes))
    handles = _handles(ci_prob, em=em is not None)
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize="small")
    return figure


def _in_pairs(described: Any) -> list[Quantity]:
    """The mean and the sd of each feature side by side, and last what is of no feature."""
    by_feature: dict[str | None, list[Quantity]] = {}
    for quantity in described:
        by_feature.setdefault(quantity.feature, []).append(quantity)
    of_none = by_feature.pop(None, [])
    return [*(quantity for both in by_feature.values() for quantity in both), *of_none]


def _heading(quantity: Quantity) -> str:
    """The name of a quantity and of its feature."""
    return quantity.name if quantity.feature is None else f"{quantity.name} {in_picture(quantity.feature)}"


def _forest(ax: Axes, draws: np.ndarray, ci_prob: float, indices: Any) -> None:
    """For each column of the draws (n, K) a bar from one end of its interval to the other, its middle half thick."""
    for k, values in enumerate(draws.T):
        look: dict[str, Any] = {"color": color(indices[k]), "solid_capstyle": "butt"}
        for probability, width in ((ci_prob, 2), (_HALF, 6)):
            ax.plot(np.quantile(values, tails(probability)), [k, k], lw=width, alpha=0.75, **look)
        ax.plot(np.median(values), k, marker=marker(indices[k]), ms=4, color="white", mec=look["color"])
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.tick_params(axis="both", labelsize="small", left=False)
    ax.grid(axis="x", color="0.92", lw=0.8)
    ax.set_axisbelow(True)
    plain(ax)
    ax.spines["left"].set_visible(False)


def _handles(ci_prob: float, *, em: bool) -> list[Line2D]:
    """What bars, points and ticks mean."""
    handles = [
        Line2D([], [], color="0.5", ls="", marker="o", ms=4, mfc="white", label="posterior median"),
        Line2D([], [], color="0.5", lw=6, label=f"{percent(_HALF)} interval"),
        Line2D([], [], color="0.5", lw=2, label=f"{percent(ci_prob)} interval"),
    ]
    tick = Line2D([], [], color="black", ls="", marker="|", ms=11, mew=1.5, label="EM estimate")
    return [*handles, tick] if em else handles
