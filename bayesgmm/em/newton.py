"""A climb of few passes over all rows, steered by the curvature that a random sample of them has.

In coordinates in which the sample's information is the identity all directions are as steep as each other, and
quasi-Newton steps converge in a few passes where EM, whose steps are short along overlapping components, takes dozens.
They are taken in the components' shares of the rows' moments, in which the ridges of overlapping components are
straight.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bayesgmm.covariance import CovarianceModel
from bayesgmm.em.information import FreeParameters, curvature, jacobian, own_coordinates, request_of
from bayesgmm.errors import InputError
from bayesgmm.expectation import Totals
from bayesgmm.mixture import GaussianMixture
from bayesgmm.observations import Observations
from bayesgmm.passes import Asking

_PASSES_OF_A_ROUND = 15  # after which the sample's curvature is taken anew, where the climb has come to
_SHORTEST = 1e-3  # share of a step that is tried before a round is given up
_LEAST_BEND = 1e-9  # of what there would be if rows told their component
_SUFFICIENT = 1e-4  # share of the rise that the slope promises


def steered_climb(
    n_rows: float,
    center: np.ndarray,
    mixture: GaussianMixture,
    model: CovarianceModel,
    sample: Observations,
    tolerance: float,
    max_passes: int,
) -> Asking[GaussianMixture]:
    """The mixture after quasi-Newton steps (L-BFGS) up the log-likelihood of all rows, each of which asks for a pass.

    Parameters
    ----------
    n_rows : float
        Number of all rows.
    center : (D,)
        Origin of the passes' offsets.
    mixture : GaussianMixture
        A maximum of the sample's likelihood, where the climb begins.
    model : CovarianceModel
    sample : Observations
        A random sample of the rows.
    tolerance : float
        Nats that may be left to gain, by the curvature's own estimate.
    max_passes : int

    Returns
    -------
    GaussianMixture
        The highest that was found.

    References
    ----------
    Dauphin et al. (2014), Advances in Neural Information Processing Systems 27 (absolute curvature).
    Liu & Nocedal (1989), Mathematical Programming 45:503-528, doi:10.1007/BF01589116.
    """
    (totals,) = yield [request_of(mixture, center)]
    n_passes, settled = 1, False
    while n_passes < max_passes and not settled:
        whitened = _Whitened(n_rows, center, _Moments(mixture, model), sample)
        most = min(_PASSES_OF_A_ROUND, max_passes - n_passes)
        there, n_made, settled = yield from _climb(whitened, totals, tolerance, most)
        if there.totals is totals:
            break
        mixture, totals, n_passes = there.mixture, there.totals, n_passes + n_made
    return mixture


class _Moments:
    """Coordinates v of mixtures about one of them: changes of the components' shares of the rows' moments.

    They are a component's weight, and its weight times its mean and its second moments, in the units of the free
    parameters, with which they agree to first order. The moments of the whole mixture, which rows say most clearly, are
    sums of them. Where components overlap, the log-likelihood has a ridge along which these sums stay as they are:
    straight in these coordinates, and curved in the parameters themselves. Models that restrict the spectra of the
    covariances keep their own coordinates for these.
    """

    def __init__(self, mixture: GaussianMixture, model: CovarianceModel) -> None:
        self.at, self.free = mixture, FreeParameters(mixture, model)

    def parameters(self, v: np.ndarray) -> np.ndarray:
        """The free parameters (n,) at v, which may be complex."""
        (K, D), (i, j) = self.at.means.shape, np.triu_indices(self.at.n_features)
        of_weights, of_means, of_covariances = np.split(v, [K - 1, K - 1 + K * D])
        weights = self.at.weights + np.append(of_weights, -of_weights.sum())
        share = (self.at.weights / weights)[:, None]
        shifts = share * of_means.reshape(K, D)
        squares = shifts[:, i] * shifts[:, j]
        if self.free.model.name == "VVV":
            of_covariances = (share * of_covariances.reshape(K, -1) - squares).ravel()
        elif self.free.model.name == "EEE":
            of_covariances = of_covariances - weights @ squares
        return np.concatenate((of_weights, shifts.ravel(), of_covariances))


class _Point(NamedTuple):
    """Where a climb may be: in its coordinates, as a mixture, what all rows add up to there, and the slope."""

    u: np.ndarray
    mixture: GaussianMixture
    totals: Totals
    slope: np.ndarray


class _Whitened:
    """The log-likelihood of all rows in coordinates u, in which the sample's bends as much in every direction.

    Away from its maximum it may bend upwards in some. There it is taken to bend downwards as much, so that steps lead
    uphill (Dauphin et al. 2014). Bends are compared with those that there would be if rows told their component.
    """

    def __init__(self, n_rows: float, center: np.ndarray, moments: _Moments, sample: Observations) -> None:
        self.n_rows, self.center, self.moments = float(n_rows), center, moments
        free, weights = moments.free, moments.at.weights
        own = own_coordinates(moments.at, free.jacobian, free.model.diagonal)
        root = np.repeat(np.sqrt(weights), len(own) // len(weights))[:, None] * own
        units = np.linalg.inv(np.linalg.qr(root, mode="r"))
        bends, axes = np.linalg.eigh(units.T @ curvature(free, center, sample) @ units / sample.total_weight)
        self.whitener = units @ axes / np.sqrt(n_rows * np.maximum(np.abs(bends), _LEAST_BEND))

    def mixture(self, u: np.ndarray) -> GaussianMixture:
        """The mixture at u."""
        return self.moments.free.mixture(self.moments.parameters(self.whitener @ u))

    def point(self, u: np.ndarray, mixture: GaussianMixture, totals: Totals) -> _Point:
        """The point at u, which is this mixture, under which all rows add up to this."""
        v, moments = self.whitener @ u, self.moments
        slope = moments.free.gradient(moments.parameters(v), totals.statistics, self.n_rows)
        return _Point(u, mixture, totals, self.whitener.T @ (jacobian(moments.parameters, v).T @ slope))

    def look(self, u: np.ndarray) -> Asking[_Point | None]:
        """The point at u; None where there is no mixture."""
        try:
            there = self.mixture(u)
        except InputError:
            return None
        (totals,) = yield [request_of(there, self.center)]
        return self.point(u, there, totals)


def _climb(whitened: _Whitened, totals: Totals, tolerance: float, max_passes: int) -> Asking[tuple[_Point, int, bool]]:
    """The highest point of a round, how many passes it took, and whether only the tolerance is left to gain."""
    here, n_passes = whitened.point(np.zeros(whitened.moments.free.size), whitened.moments.at, totals), 0
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    while (promised := float(here.slope @ (step := _uphill(here.slope, pairs)))) / 2 >= tolerance:
        t = 1.0
        while n_passes < max_passes and t > _SHORTEST:
            there = yield from whitened.look(here.u + t * step)
            n_passes += 1
            least = here.totals.log_likelihood + _SUFFICIENT * t * promised
            if there is not None and there.totals.log_likelihood >= least:
                break
            t /= 4
        else:
            return here, n_passes, False
        change, bend = there.u - here.u, here.slope - there.slope
        if change @ bend > 1e-12 * np.sqrt((change @ change) * (bend @ bend)):
            pairs.append((change, bend))
        here = there
    return here, n_passes, True


def _uphill(slope: np.ndarray, pairs: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """The slope times the inverse curvature, which is the identity but for what the pairs of differences say."""
    q, factors = slope.copy(), []
    for change, bend in reversed(pairs):
        factors.append(float(change @ q) / float(change @ bend))
        q -= factors[-1] * bend
    for (change, bend), factor in zip(pairs, reversed(factors), strict=True):
        q += (factor - float(bend @ q) / float(change @ bend)) * change
    return q
