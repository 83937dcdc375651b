"""Pictures of a fit: the table with what was fitted to it, and how EM got there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bayesgmm.bayes.posterior import Posterior, posterior as as_posterior
from bayesgmm.clusters.assignment import assign
from bayesgmm.errors import InputError
from bayesgmm.intervals import level
from bayesgmm.names import counted
from bayesgmm.noise import checked_noise
from bayesgmm.observations import Observations, any_rows, check_names
from bayesgmm.plots.panels import Groups, Panels
from bayesgmm.plots.style import COLORS, figure_or_new, missing_note, parting_features, plain

if TYPE_CHECKING:
    from bayesgmm.clusters.assignment import Assignments
    from bayesgmm.em.result import EMFit

_ELLIPSE_DRAWS, _GRID_DRAWS = 50, 15  # in one panel; in the small ones of a grid more would be a smear
_PAIRED_FEATURES = 4  # a grid of more pairs is too small to read


def clusters(
    X: Any,
    fit: EMFit,
    posterior: Any = None,
    assignments: Assignments | None = None,
    *,
    ci_prob: float | None = None,
    error_sd: Any = None,
    error_covariance: Any = None,
    noise: Any = None,
    figure: Figure | None = None,
) -> Figure:
    """The table coloured by component or by cluster, with the fitted and the sampled components drawn over it.

    One feature gives densities over a histogram, two a scatter plot, more a grid of pairs of the four that tell the
    components apart best. The less certain a row's component is, the larger its point; a row of which one of two values
    is missing is a tick at the edge. A row that belongs to no cluster is a grey cross. At most 5000 rows are shown.

    Parameters
    ----------
    X : (N, D) table
    fit : EMFit
    posterior : DataTree, Posterior or GaussianMixture, optional
        From `sample_posterior`: adds the ellipses of some draws, and where densities are shown a band for those of
        the draws.
    assignments : Assignments, optional
        Of the rows of ``X``, to components or to clusters; by default from ``posterior``, or without one from the fit's
        responsibilities. Clusters of a partition take the place of EM's components: each is outlined by its mean and
        covariance (`cluster_mixture`) under each draw, and by their mean over the draws.
    ci_prob : float, optional
        Probability of the band; ``arviz.rcParams["stats.ci_prob"]`` by default.
    error_sd, error_covariance : optional
        Errors of the values, as `fit_em` takes them.
    noise : (N,), optional
        Log density of the noise at each row, where the fit was made with one.
    figure : matplotlib.figure.Figure, optional
        To draw into; a new one by default.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If ``X`` is not a table of numbers with the fit's features, the assignments are of other rows, or clusters are
        given without ``posterior``.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> figure = bg.plots.clusters(X, bg.fit_em(X, 2, rng=0))
    >>> figure.get_suptitle(), figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()
    ('2 components, covariance VVV', 'eruptions', 'waiting')
    """
    table = _table_of(any_rows(X, error_sd, error_covariance), fit)
    if noise is not None:
        table = replace(table, noise=checked_noise(noise, table.n_observations))
    rows = table.values
    ci_prob = level(ci_prob)
    drawn = None if posterior is None else as_posterior(posterior)
    if assignments is None and drawn is not None:
        assignments = assign(drawn, table)
    groups = _groups(fit, drawn, assignments)
    labels, certainty = _labels(table, fit, assignments)
    panels = Panels(rows, fit.features, labels, certainty, groups, ci_prob)
    shown = parting_features(groups.centre.means, rows, _PAIRED_FEATURES)
    figure = figure_or_new(figure, *((8.5, 5) if len(shown) < 3 else (3.0 * len(shown), 2.6 * len(shown))))
    if len(shown) == 1:
        panels.density(figure.subplots(), 0, rug=True)
    elif len(shown) == 2:
        panels.pair(figure.subplots(), 0, 1)
    else:
        _pairs(figure, panels, shown)
    figure.suptitle(_title(fit, panels) + missing_note(rows[:, shown]), x=0.01, ha="left")
    handles = list(panels.legend())
    if len(shown) < 3:
        figure.legend(handles=handles, loc="outside right upper", fontsize="small", frameon=False)
    else:
        figure.legend(handles=handles, loc="upper right", bbox_to_anchor=(0.98, 0.93), frameon=False)
    return figure


def em_path(fit: EMFit, *, figure: Figure | None = None) -> Figure:
    """The log-likelihood at each EM iteration, and on a log scale how far below its limit it still was.

    Parameters
    ----------
    fit : EMFit
    figure : matplotlib.figure.Figure, optional
        To draw into; a new one by default.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> import bayesgmm as bg
    >>> figure = bg.plots.em_path(bg.fit_em(bg.datasets.old_faithful(), 2, rng=0))
    >>> figure.get_suptitle()
    'Log-likelihood -1130.2640: converged'
    """
    path = fit.log_likelihood_path
    iterations = np.arange(len(path))
    limit = path[-1] + (fit.remaining_gain if np.isfinite(fit.remaining_gain) else 0.0)
    away = limit - path > 1e-12 * abs(limit)  # a difference that is more than rounding errors
    climbs = path[-1] - path[0] > 1e-6  # else a log scale would show rounding errors
    n_panels = 2 if climbs else 1

    figure = figure_or_new(figure, 4.5 * n_panels, 3.8)
    axes = figure.subplots(1, n_panels, squeeze=False)[0]
    axes[0].plot(iterations, path, "o-", ms=3, color=COLORS[0])
    axes[0].set_ylabel("log-likelihood (nats)")
    axes[0].ticklabel_format(axis="y", useOffset=False)
    if climbs:
        axes[1].semilogy(iterations[away], (limit - path)[away], "o-", ms=3, color=COLORS[0])
        axes[1].set_ylabel("below its limit by (nats, log scale)")
    else:
        axes[0].set_ylim(path[-1] - 1, path[-1] + 1)
    for ax in axes:
        ax.set_xlabel("EM iteration of the best start")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        plain(ax)
    figure.suptitle(f"Log-likelihood {fit.log_likelihood:.4f}: {fit.status.value.partition(':')[0]}")
    return figure


def _table_of(table: Observations, fit: EMFit) -> Observations:
    """The table, checked to have the fit's features."""
    if table.n_features != fit.n_features:
        raise InputError(f"the table has {table.n_features} columns, the fit {fit.n_features} features")
    check_names(table, fit.mixture.features)
    return table


def _groups(fit: EMFit, posterior: Posterior | None, assignments: Assignments | None) -> Groups:
    """Components, or clusters where the assignments are to those of a partition."""
    n_draws = _ELLIPSE_DRAWS if fit.n_features <= 2 else _GRID_DRAWS
    if assignments is None or assignments.partition is None:
        return Groups.components(fit.mixture, posterior, n_draws)
    if posterior is None:
        raise InputError("clusters of a partition are outlined by their posterior: give the posterior too")
    return Groups.clusters(assignments.partition, posterior, n_draws)


def _labels(table: Observations, fit: EMFit, assignments: Assignments | None) -> tuple[np.ndarray, np.ndarray]:
    """The label of each row, and its probability: by the assignments, or by EM."""
    if assignments is None:
        shares, of_noise = fit.mixture.responsibilities(table), fit.mixture.noise_probability(table)
        return fit.mixture.predict(table), np.maximum(shares.max(axis=1), of_noise)
    if len(assignments.labels) != table.n_observations:
        raise InputError(f"the assignments are of {len(assignments.labels)} rows, the table has {table.n_observations}")
    return assignments.labels, assignments.label_probability


def _pairs(figure: Figure, panels: Panels, features: Sequence[int]) -> None:
    """Densities on the diagonal of a grid, and below it every pair of features."""
    grid = figure.subplots(len(features), len(features))
    for i, feature in enumerate(features):
        panels.density(grid[i, i], feature, rug=False)
        for j in range(i):
            grid[i, j].sharex(grid[j, j])
            grid[i, j].sharey(grid[i, 0])
            panels.pair(grid[i, j], features[j], feature)
            grid[j, i].remove()
            if j > 0:
                grid[i, j].set_ylabel("")
        if i < len(features) - 1:
            for ax in grid[i, : i + 1]:
                ax.set_xlabel("")


def _title(fit: EMFit, panels: Panels) -> str:
    """What is shown, and what is left out."""
    title = f"{counted(fit.n_components, 'component')}, covariance {fit.covariance_model.label(fit.n_features)}"
    if panels.groups.word == "cluster":
        n_clusters = len(panels.groups.color_indices)
        title = f"{counted(n_clusters, 'cluster')} of the partition\nmixture of {title}"
    if fit.n_features > _PAIRED_FEATURES:
        title += f"; the {_PAIRED_FEATURES} of {fit.n_features} features that tell them apart best"
    if len(panels.drawn) < len(panels.rows):
        title += f"; {len(panels.drawn)} of {len(panels.rows)} rows"
    return title
