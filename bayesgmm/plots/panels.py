"""The panels of `plots.clusters`: the rows, and what is fitted and sampled, in one feature or in a pair of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D

from bayesgmm.bayes.posterior import Posterior
from bayesgmm.clusters.partition import Partition
from bayesgmm.clusters.rows_under_draws import rows_under_draws
from bayesgmm.clusters.shares import cluster_counts, cluster_mixture, shares
from bayesgmm.intervals import tails
from bayesgmm.mixture import GaussianMixture
from bayesgmm.names import counted, in_picture, percent
from bayesgmm.plots.style import (
    NOISE_COLOR,
    bin_edges,
    color,
    color_indices,
    edge_ticks,
    ends,
    marker,
    noise_handle,
    noise_points,
    outlines,
    plain,
    point_handle,
    size_handles,
    thinned,
)

_POINTS = 5000  # more would cover one another
_DENSITY_DRAWS = 200


@dataclass(frozen=True, eq=False)
class Groups:
    """What rows are coloured and outlined by: components, or the clusters of a partition.

    Attributes
    ----------
    word : {"component", "cluster"}
    color_indices : sequence of int
    centre : GaussianMixture
        EM's components, or the clusters' mean over the draws.
    outlined : GaussianMixture or None
        The groups under a few of the draws, of batch shape (n,); None without a posterior.
    mixtures : GaussianMixture or None
        The components under more of them, of batch shape (S,).
    shares : (K, C, S) or None
        Under these draws, the share that each cluster has of each component; None where components are shown.
    """

    word: str
    color_indices: Sequence[int]
    centre: GaussianMixture
    outlined: GaussianMixture | None = None
    mixtures: GaussianMixture | None = None
    shares: np.ndarray | None = None

    @classmethod
    def components(cls, em: GaussianMixture, posterior: Posterior | None, n_draws: int) -> Groups:
        """The components of the EM fit, outlined by so many draws of them where there is a posterior."""
        indices = range(em.n_components)
        if posterior is None:
            return cls("component", indices, em)
        outlined, mixtures = thinned(posterior.draws, n_draws), thinned(posterior.draws, _DENSITY_DRAWS)
        return cls("component", indices, em, outlined, mixtures)

    @classmethod
    def clusters(cls, partition: Partition, posterior: Posterior, n_draws: int) -> Groups:
        """The clusters of a partition, each with its mean over all draws, outlined by so many of them."""
        clusters, mixtures = cluster_mixture(posterior, partition), thinned(posterior.draws, _DENSITY_DRAWS)
        means = {name: getattr(clusters, name).mean(axis=(0, 1)) for name in clusters.parameters}
        centre = GaussianMixture(**means, noise=clusters.noise)
        share = shares(cluster_counts(rows_under_draws(mixtures, posterior.table_or_sample), partition))
        indices = color_indices(partition, partition.n_clusters)
        return cls("cluster", indices, centre, thinned(clusters, n_draws), mixtures, share)

    @property
    def estimate(self) -> str:
        """Where the centre is from, in words."""
        return "EM" if self.shares is None else "posterior mean"

    def densities(self, j: int, x: np.ndarray) -> np.ndarray:
        """What each group adds to the density of feature j at x (n,): by EM, or on average over the draws, (n, C)."""
        if self.shares is None or self.mixtures is None:
            return np.exp(self.centre.marginal([j]).log_joint(x[:, None]))
        joint = np.exp(self.mixtures.marginal([j]).log_joint(x[:, None]))  # (S, n, K)
        return np.einsum("snk,kcs->nc", joint, self.shares) / len(joint)

    def noise_density(self, j: int) -> float:
        """What the noise adds to that, everywhere the same; none where its density is known at rows only."""
        mixture = self.centre if self.mixtures is None or self.shares is None else self.mixtures
        if mixture.noise is None:
            return 0.0
        return float(np.mean(mixture.noise_weight) / mixture.noise.marginal([j]).sides[0])


class Panels:
    """The rows of a table with their labels, and the groups they are drawn with.

    Parameters
    ----------
    rows : (N, D)
    features : D names
    labels : (N,)
        The group of each row, -1 where it belongs to none.
    certainty : (N,)
        Probability of that group.
    groups : Groups
    ci_prob : float
        Of the band of densities.
    """

    def __init__(
        self,
        rows: np.ndarray,
        features: Sequence[str],
        labels: np.ndarray,
        certainty: np.ndarray,
        groups: Groups,
        ci_prob: float,
    ):
        self.rows, self.features, self.labels, self.groups, self.ci_prob = rows, features, labels, groups, ci_prob
        self.uncertainty = 1 - certainty
        drawn = np.linspace(0, len(rows) - 1, min(len(rows), _POINTS)).astype(int)
        self.drawn = drawn[np.argsort(self.uncertainty[drawn])]  # the uncertain on top
        self.limits = _limits(rows, groups.centre)

    def area(self, uncertainty: Any) -> Any:
        """Of a point, in square points: the larger the less certain its label is."""
        smallest = np.clip(5000 / len(self.drawn), 3, 16)
        return smallest * (1 + 8 * np.asarray(uncertainty))

    def points(self, ax: Axes, x: np.ndarray, y: np.ndarray) -> None:
        """The rows at x, y (N,), over all lines: none is to be hidden by what is fitted to it."""
        for k, index in enumerate(self.groups.color_indices):
            members = self.drawn[self.labels[self.drawn] == k]
            ax.scatter(
                x[members],
                y[members],
                s=self.area(self.uncertainty[members]),
                marker=marker(index),
                color=color(index),
                alpha=0.65,
                linewidths=0,
                zorder=3,
            )
        members = self.drawn[self.labels[self.drawn] == -1]
        noise_points(ax, x[members], y[members])

    def pair(self, ax: Axes, i: int, j: int) -> None:
        """Feature j against feature i."""
        x, y = self.rows[:, i], self.rows[:, j]
        self.points(ax, x, y)
        members = self.drawn[self.labels[self.drawn] == -1]
        edge_ticks(ax, x[members], y[members], NOISE_COLOR)
        for k, index in enumerate(self.groups.color_indices):
            members = self.drawn[self.labels[self.drawn] == k]
            edge_ticks(ax, x[members], y[members], color(index))
            if self.groups.outlined is not None:
                lines = list(outlines(self.groups.outlined, k, (i, j), 2))
                ax.add_collection(LineCollection(lines, colors=color(index), linewidths=0.6, alpha=0.15, zorder=1))
            for radius in (1, 2):
                ax.plot(*outlines(self.groups.centre, k, (i, j), radius).T, color=color(index), lw=1.3, zorder=2)
        x_name, y_name = (in_picture(self.features[f]) for f in (i, j))
        ax.set(xlabel=x_name, xlim=self.limits[i], ylabel=y_name, ylim=self.limits[j])
        plain(ax)

    def density(self, ax: Axes, j: int, *, rug: bool) -> None:
        """Histogram of feature j under the densities, the rows below it where there is to be a rug."""
        x = self.rows[:, j]
        low, high = self.limits[j]
        grid = np.linspace(low, high, 400)
        heights, *_ = ax.hist(x[~np.isnan(x)], bins=bin_edges(x), density=True, color="0.88", zorder=0)
        if self.groups.mixtures is not None:
            density = _density(self.groups.mixtures.marginal([j]), grid)
            band = np.quantile(density, tails(self.ci_prob), axis=0)
            ax.fill_between(grid, *band, color="0.35", alpha=0.35, lw=0)
        parts = self.groups.densities(j, grid)
        ax.plot(grid, parts.sum(axis=1) + self.groups.noise_density(j), color="black", lw=2.2)
        for index, part in zip(self.groups.color_indices, parts.T, strict=True):
            ax.plot(grid, part, color=color(index), lw=1.2)
        if rug:
            self.points(ax, x, np.full(len(x), -0.04 * np.max(heights)))
            ax.axhline(0, color="0.6", lw=0.6)
        ax.set(xlabel=in_picture(self.features[j]), xlim=self.limits[j], ylabel="density")
        plain(ax)

    def legend(self) -> Iterator[Line2D]:
        """What the colours, sizes and lines mean."""
        groups, D = self.groups, len(self.features)
        n_noise, *sizes = np.bincount(self.labels + 1, minlength=1 + len(groups.color_indices)).tolist()
        for k, (index, n) in enumerate(zip(groups.color_indices, sizes, strict=True)):
            yield point_handle(index, f"{groups.word} {k} ({counted(n, 'row')})")
        if n_noise:
            yield noise_handle(n_noise)
        if len(groups.color_indices) > 1:
            yield from size_handles(groups.word, self.area)
        if D != 2:
            parts = f", its {groups.word}s coloured" if len(groups.color_indices) > 1 else ""
            yield Line2D([], [], color="black", lw=2.2, label=f"density by {groups.estimate}{parts}")
        if D > 1:
            yield Line2D([], [], color="0.3", lw=1.5, label=f"{groups.estimate}, 1 and 2 sd")
        if groups.outlined is not None and D > 1:
            label = f"{counted(len(groups.outlined.weights), 'posterior draw')}, 2 sd"
            yield Line2D([], [], color="0.3", lw=0.6, alpha=0.5, label=label)
        if groups.outlined is not None and D != 2:
            label = f"posterior of the density, {percent(self.ci_prob)}"
            yield Line2D([], [], color="0.35", lw=6, alpha=0.35, label=label)


def _density(mixtures: GaussianMixture, x: np.ndarray) -> np.ndarray:
    """Density (S, n) of mixtures of one feature; without the noise where that is known at rows only."""
    if mixtures.noise is None:
        return np.exp(mixtures.log_joint(x[:, None])).sum(axis=-1)
    return np.exp(mixtures.log_prob(x[:, None]))


def _limits(rows: np.ndarray, centre: GaussianMixture) -> np.ndarray:
    """Ends (D, 2) of each feature's axis: room for the rows and for the centre; a single draw may lie anywhere."""
    two_sd = 2 * np.sqrt(np.einsum("kii->ki", centre.covariances))
    low, high = ends(rows)
    low = np.fmin(low, (centre.means - two_sd).min(axis=0))
    high = np.fmax(high, (centre.means + two_sd).max(axis=0))
    margin = 0.07 * (high - low)
    return np.stack([low - margin, high + margin], axis=1)
