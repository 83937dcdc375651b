"""A climb of few passes over all rows, steered by the curvature that a random sample of them has.

In coordinates in which the sample's information is the identity all directions are as steep as each other, and
quasi-Newton steps converge in a few passes where EM, whose steps are short along overlapping components, takes dozens.
"""

from __future__ import annotations

import math

import numpy as np

from bayesgmm.covariance import CovarianceModel
from bayesgmm.em.information import FreeParameters, curvature, request_of
from bayesgmm.errors import InputError
from bayesgmm.mixture import GaussianMixture
from bayesgmm.observations import Observations
from bayesgmm.passes import Asking

_PASSES_OF_A_ROUND = 15  # after which the sample's curvature is taken anew, where the climb has come to
_SHORTEST = 1e-3  # share of a step that is tried before a round is given up
_LEAST_BEND = 1e-9  # of the largest
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
    n_passes, settled = 0, False
    while n_passes < max_passes and not settled:
        whitened = _Whitened(n_rows, center, FreeParameters(mixture, model), sample)
        mixture, n_made, settled = yield from _climb(
            whitened, tolerance, min(_PASSES_OF_A_ROUND, max_passes - n_passes)
        )
        n_passes += n_made
    return mixture


class _Whitened:
    """The log-likelihood of all rows in coordinates u, in which the sample's bends as much in every direction.

    Away from its maximum it may bend upwards in some. There it is taken to bend downwards as much, so that steps lead
    uphill (Dauphin et al. 2014).
    """

    def __init__(self, n_rows: float, center: np.ndarray, free: FreeParameters, sample: Observations) -> None:
        bends, axes = np.linalg.eigh(curvature(free, center, sample) * (n_rows / sample.total_weight))
        bends = np.maximum(np.abs(bends), _LEAST_BEND * np.abs(bends).max())
        self.whitener = axes / np.sqrt(bends)
        self.n_rows, self.center, self.free = float(n_rows), center, free

    def mixture(self, u: np.ndarray) -> GaussianMixture:
        return self.free.mixture(self.whitener @ u)

    def look(self, u: np.ndarray) -> Asking[tuple[float, np.ndarray]]:
        """Height and slope at u; -inf where there is no mixture."""
        try:
            there = self.mixture(u)
        except InputError:
            return -math.inf, np.zeros(len(u))
        (totals,) = yield [request_of(there, self.center)]
        gradient = self.free.gradient(self.whitener @ u, totals.statistics, self.n_rows)
        return totals.log_likelihood, self.whitener.T @ gradient


def _climb(whitened: _Whitened, tolerance: float, max_passes: int) -> Asking[tuple[GaussianMixture, int, bool]]:
    """The highest mixture of a round, how many passes it took, and whether only the tolerance is left to gain."""
    u = np.zeros(whitened.free.size)
    (height, slope), n_passes = (yield from whitened.look(u)), 1
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    while (promised := float(slope @ (step := _uphill(slope, pairs)))) / 2 >= tolerance:
        t = 1.0
        while n_passes < max_passes and t > _SHORTEST:
            other, other_slope = yield from whitened.look(u + t * step)
            n_passes += 1
            if other >= height + _SUFFICIENT * t * promised:
                break
            t /= 4
        else:
            return whitened.mixture(u), n_passes, False
        change, bend = t * step, slope - other_slope
        if change @ bend > 1e-12 * np.sqrt((change @ change) * (bend @ bend)):
            pairs.append((change, bend))
        u, height, slope = u + change, other, other_slope
    return whitened.mixture(u), n_passes, True


def _uphill(slope: np.ndarray, pairs: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """The slope times the inverse curvature, which is the identity but for what the pairs of differences say."""
    q, factors = slope.copy(), []
    for change, bend in reversed(pairs):
        factors.append(float(change @ q) / float(change @ bend))
        q -= factors[-1] * bend
    for (change, bend), factor in zip(pairs, reversed(factors), strict=True):
        q += (factor - float(bend @ q) / float(change @ bend)) * change
    return q
