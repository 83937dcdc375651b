"""Where EM starts under scikit-learn's names: the portfolio or one of its four ways, with any part replaced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans, kmeans_plusplus

from bayesgmm.em import ascent
from bayesgmm.em.climber import Climber
from bayesgmm.em.fit import starts_for
from bayesgmm.em.initialize import Candidates, Seeding, completed, user_starts
from bayesgmm.expectation import NO_LABELS
from bayesgmm.observations import Observations

PORTFOLIO = "portfolio"
_PORTFOLIO_STARTS = 20  # at least
_NOISE_SHARE = 0.1  # that the noise starts with where nothing says which rows are noise


@dataclass(frozen=True, eq=False)
class GivenParts:
    """What a user wants components to start from: ``weights`` (K,), ``means`` (K, D), ``covariances`` (K, D, D).

    What the weights leave of one is the noise's.
    """

    weights: np.ndarray | None
    means: np.ndarray | None
    covariances: np.ndarray | None

    @property
    def any(self) -> bool:
        """Whether a part is given."""
        return any(part is not None for part in (self.weights, self.means, self.covariances))

    @property
    def all(self) -> bool:
        """Whether every part is given."""
        return all(part is not None for part in (self.weights, self.means, self.covariances))

    def instead(self, moments: np.ndarray, climber: Climber) -> np.ndarray:
        """Moments from which EM's first parameters have these parts, and the others as before.

        Components of the moments take the place of the given means that are near them; without given means they take
        the order of their own in the first column.
        """
        K, D = climber.problem.penalty.concentration.size, climber.table.n_features
        counts, means, covariances = (part.reshape(K, -1) for part in np.split(moments, [K, K + K * D]))
        if self.any:
            unit = climber.problem.metric[K : K + D]
            order = np.lexsort(means.T[::-1])
            if self.means is not None:
                order = linear_sum_assignment(cdist((self.means - climber.center) * unit, means * unit))[1]
            counts, means, covariances = counts[order], means[order], covariances[order]
        if self.weights is not None:
            counts = self.weights * climber.table.total_weight
        if self.means is not None:
            means = self.means - climber.center
        if self.covariances is not None:
            covariances = self.covariances - np.diag(climber.problem.row_variance)
        return np.concatenate([part.ravel() for part in (counts, means, covariances)])


def share_of_clusters(climber: Climber) -> float:
    """Share of the rows that the components start with, where nothing says which rows are noise."""
    return 1.0 if climber.table.noise is None else 1.0 - _NOISE_SHARE


def candidates(
    init_params: str, n_init: int, climber: Climber, spread: np.ndarray, given: GivenParts, random_state: Any
) -> Candidates:
    """Named moments to climb from.

    Parameters
    ----------
    init_params : {"portfolio", "kmeans", "k-means++", "random", "random_from_data"}
    n_init : int
        Starts; at least 20 of the portfolio, and one where there is nothing to choose from.
    climber : Climber
    spread : (D, D)
        Covariance of the table.
    given : GivenParts
    random_state : RandomState
    """
    table, K = climber.table, climber.problem.penalty.concentration.size
    if given.all:
        return [("given", given.instead(np.zeros(climber.problem.metric.size), climber))]
    if init_params == PORTFOLIO:
        n_starts = starts_for(table, K, max(_PORTFOLIO_STARTS, n_init)) or 1
        rng = np.random.default_rng(random_state.randint(2**31 - 1))
        named = Seeding(table, NO_LABELS, climber.center, spread, K, rng).portfolio(n_starts, rng)
    else:
        share = share_of_clusters(climber)
        starts = [share * _responsibilities(init_params, table, K, random_state) for _ in range(n_init)]
        moments = user_starts(starts, table, climber.center, climber.problem.row_variance, K)
        named = [(init_params, z) for _, z in moments]
    return [(kind, given.instead(z, climber)) for kind, z in named]


def contenders(
    climber: Climber, named: Candidates, max_iter: int, only_one: bool, rng: np.random.Generator
) -> Candidates:
    """The starts to climb from: all, or the one whose short run leads.

    Only that one where climbs of ``max_iter`` iterations tell no more than short runs do, or ``only_one`` is wanted.
    """
    short = climber.short(rng)
    if len(named) == 1 or not (only_one or max_iter <= short.problem.max_iterations):
        return named
    outcomes, _ = short.climb(np.stack([z for _, z in named]))
    values = np.where(outcomes.codes == ascent.DEGENERATE, -np.inf, outcomes.progress["value"])
    return [named[int(values.argmax())]]


def iterations_before_collapse(climber: Climber, moments: np.ndarray) -> int:
    """How many iterations a climb can do before a component collapses; -1 where not even the first parameters are."""
    outcomes, _ = climber.climb(moments[None])
    reached = int(outcomes.progress["iteration"][0])
    sound = (
        n for n in range(reached, -1, -1) if climber.limited(n).climb(moments[None])[0].codes[0] != ascent.DEGENERATE
    )
    return next(sound, -1)


def _responsibilities(init_params: str, table: Observations, K: int, random_state: Any) -> np.ndarray:
    """Responsibilities (N, K) to start from; rows that are not looked at have none."""
    X, N, weight = completed(table), table.n_observations, table.weight_of_rows
    if init_params == "random":
        R = random_state.uniform(size=(N, K))
        return R / R.sum(axis=1, keepdims=True)
    if init_params == "kmeans":
        labels = KMeans(K, n_init=1, random_state=random_state).fit(X, sample_weight=weight).labels_
        return np.eye(K)[labels]
    if init_params == "k-means++":
        _, rows = kmeans_plusplus(X, K, sample_weight=weight, random_state=random_state)
    else:
        rows = random_state.choice(N, K, replace=False, p=weight / weight.sum())
    R = np.zeros((N, K))
    R[rows, np.arange(K)] = 1
    return R
