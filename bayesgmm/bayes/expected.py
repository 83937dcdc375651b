"""The log posterior as EM's statistics tell it, without rows: its gradient, and all of its Hessian but what rows add.

Given which component each row is of, as far as a mixture can tell, the log-likelihood is a function of the statistics.
At that mixture it has the gradient of the real one (Fisher's identity), and its Hessian needs but `second_order` to be
the real one's (Louis 1982). A few labelled rows have any such statistics, so that `Density` takes them as its table.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from bayesgmm.bayes.density import Density
from bayesgmm.em.information import own_coordinates
from bayesgmm.expectation import NO_LABELS, Rows, Statistics
from bayesgmm.mixture import GaussianMixture
from bayesgmm.observations import Observations
from bayesgmm.second_order import SecondOrderTotals

_STEP = 1e-5  # of difference quotients in coordinates of order one
_STEP_OF_MEANS = 1e-3  # in standard deviations; the functions are no more than quadratic in these


@dataclass(frozen=True, eq=False)
class StandIns(Observations):
    """Rows of known components.

    Attributes
    ----------
    labels : (N,)
    """

    labels: np.ndarray = field(default_factory=lambda: NO_LABELS)

    def rows(
        self, center: np.ndarray, labels: np.ndarray | None = None, sample_weight: np.ndarray | None = None
    ) -> Rows:
        """The rows as the kernel reads them."""
        return super().rows(center, self.labels if labels is None else labels, sample_weight)


def stand_ins(means: np.ndarray, statistics: Statistics, features: tuple[str, ...]) -> StandIns:
    """Weighted rows, 2 D of each component, that have these statistics about these means (K, D)."""
    (K, D), (counts, first, scatter) = means.shape, statistics
    n = np.maximum(counts, 1e-300)[:, None]
    shift = first / n
    covariances = scatter / n[:, :, None] - shift[:, :, None] * shift[:, None, :]
    spreads, axes = np.linalg.eigh(covariances)
    away = axes * np.sqrt(D * np.maximum(spreads, 0.0))[:, None, :]
    middle = (means + shift)[:, None, :]
    values = np.concatenate([middle + np.swapaxes(away, 1, 2), middle - np.swapaxes(away, 1, 2)], axis=1)
    weight = np.repeat(counts / (2 * D), 2 * D)
    return StandIns(
        np.ascontiguousarray(values.reshape(-1, D)), features, weight, labels=np.repeat(np.arange(K), 2 * D)
    )


def prior_of(density: Density) -> Density:
    """The log prior alone, as the density has it."""
    return replace(density, table=replace(density.table, sample_weight=np.zeros(1)))


def expected(density: Density, mixture: GaussianMixture, statistics: Statistics) -> Density:
    """The log posterior if rows had, whatever the mixture, the statistics that they have under this one."""
    return replace(density, table=stand_ins(mixture.means, statistics, density.table.features))


def hessian_of(density: Density, theta: np.ndarray, totals: SecondOrderTotals) -> np.ndarray:
    """Hessian (n, n) of the log posterior at theta, from what its rows add up to there."""
    mixture = density.unpack(theta)
    without_rows = expected(density, mixture, totals.statistics)
    ahead, behind = _around(density, theta, mixture)
    slopes = [(without_rows(a)[1] - without_rows(b)[1]) for a, b in zip(ahead, behind, strict=True)]
    H = np.array(slopes) / np.diag(ahead - behind)[:, None]
    own = own_derivatives(density, theta, totals.diagonal)
    return (H + H.T) / 2 + own.T @ totals.bend @ own


def own_derivatives(density: Density, theta: np.ndarray, diagonal: bool) -> np.ndarray:
    """Derivatives (K m, n) at theta of the components' own coordinates, those of `second_order`."""
    mixture = density.unpack(theta)
    ahead, behind = _around(density, theta, mixture)
    jacobian = (_entries(density, ahead) - _entries(density, behind)) / np.diag(ahead - behind)[:, None]
    return own_coordinates(mixture, jacobian.T, diagonal)


def _around(density: Density, theta: np.ndarray, mixture: GaussianMixture) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, n) ahead of theta and behind it, a step of difference quotients along each coordinate."""
    step = _STEP * np.maximum(np.abs(theta), 1.0)
    of_means = slice(density.n_weights - 1, density.n_weights - 1 + mixture.means.size)
    step[of_means] = _STEP_OF_MEANS * np.sqrt(np.einsum("kii->ki", mixture.covariances)).ravel()
    return theta + np.diag(step), theta - np.diag(step)


def _entries(density: Density, thetas: np.ndarray) -> np.ndarray:
    """Weights, means and covariances, flattened, of many points (m, n)."""
    mixtures = density.unpack(thetas)
    return np.concatenate([getattr(mixtures, name).reshape(len(thetas), -1) for name in mixtures.parameters], axis=1)
