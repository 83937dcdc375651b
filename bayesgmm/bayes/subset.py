"""A few weighted rows that stand for all of them, so that NUTS takes a fraction of the time.

Rows are drawn at random, the more often the more the log-likelihood bends with them, and weighted by the inverse of how
often. Then the weights are moved as little as will do for the log-likelihood of these rows to have at the mode, as
nearly as so few rows can, slope and curvature of that of all rows (calibration, Deville & Särndal 1992; Rao & Singh
1997). What is left of the difference is of third order. Weights stay positive, so that the posterior of the weighted
rows is as proper as any. That of a plain sample with a parabola added for the same slope and curvature is not: far out
the parabola wins.

References
----------
Deville, J.-C., & Särndal, C.-E. (1992). Calibration estimators in survey sampling. Journal of the American Statistical
Association, 87, 376-382. https://doi.org/10.1080/01621459.1992.10475217

Rao, J. N. K., & Singh, A. C. (1997). A ridge-shrinkage method for range-restricted weight calibration in survey
sampling. Proceedings of the Section on Survey Research Methods, American Statistical Association, 57-65.

Quiroz, M., Kohn, R., Villani, M., & Tran, M.-N. (2019). Speeding up MCMC by efficient data subsampling. Journal of the
American Statistical Association, 114, 831-843. https://doi.org/10.1080/01621459.2018.1448827
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.special import softmax

from bayesgmm.bayes.approximation import judged
from bayesgmm.bayes.chains import Chains
from bayesgmm.bayes.density import Density
from bayesgmm.bayes.expected import own_derivatives
from bayesgmm.bayes.laplace import Mode
from bayesgmm.bayes.many_rows import CHECKED, WIDEST, Checked, ManyRows
from bayesgmm.bayes.verdict import Verdict
from bayesgmm.em.information import own_entries, request_of, second_order
from bayesgmm.expectation import NO_LABELS, Parameters, Rows, Statistics, log_prob
from bayesgmm.mixture import GaussianMixture
from bayesgmm.observations import Observations
from bayesgmm.passes import SURVEY_ROWS
from bayesgmm.second_order import SecondOrderTotals

_PAIRS = 8  # of draws on either side of the mode, by which it is judged how the log-likelihood of a row bends
_EVEN = 0.1  # of the mean influence, that each row is taken to have at least
_FEWEST_ROWS = 5000
_ROWS_OF_A_CONDITION = 5
LARGEST = 50  # coordinates: with more, their pairs are more conditions than so few rows can meet
_LEAST_WEIGHT = 0.1  # of what a weight was
_PROMISING = 0.3  # nats: sd of the difference of the log posteriors, below which NUTS is tried
_BLOCK = 1024  # rows that are worked on at a time
_MOST_STEPS = 20
_EXACT = 1e-3  # of what chance would make of the difference in slope or curvature
_SHORTEST = 1e-6  # share of a step that is tried
_RIDGE = 1e-6  # inverse of what a squared unit missing to a total counts, beside squared changes of weights


def n_rows(mode: Mode) -> int:
    """About how many rows are drawn."""
    n = len(mode.origin)
    return _FEWEST_ROWS + _ROWS_OF_A_CONDITION * (n * (n + 1) // 2)


def subset(rows: ManyRows, mode: Mode, seed: int) -> Density:
    """The log posterior of some weighted rows, to second order that of all rows about a mode; from two passes."""
    prior = rows.prior
    totals = second_order(rows.passes, prior.unpack(mode.origin), prior.model, prior.center)
    return replace(prior, table=_calibrated(prior, mode, totals, _drawn(rows, mode, seed)))


def promising(weighted: Density, laplace: Checked) -> bool:
    """Whether weighted rows tell closely what the log posterior of all rows is at draws of Laplace's approximation."""
    return float((weighted.log_densities(laplace.thetas) - laplace.heights).std()) < _PROMISING


def check_subset(rows: ManyRows, weighted: Density, chains: Chains) -> tuple[Chains, Verdict]:
    """Draws of the posterior of weighted rows, moved to the mean of that of all rows, and whether to trust them.

    That is judged by the log posterior of some of them over all rows, from one pass.
    """
    flat = chains.thetas.reshape(-1, weighted.n_dim)
    thetas = flat[np.linspace(0, len(flat) - 1, CHECKED).astype(int)]
    ratio = rows.values(thetas) - weighted.log_densities(thetas)
    name = f"NUTS on {weighted.table.n_observations} weighted rows in place of all {rows.parts.n_observations}"
    log_weight, verdict = judged(name, ratio, widest=WIDEST, advice="")
    if verdict.good:
        chains = chains._replace(thetas=chains.thetas + softmax(log_weight) @ (thetas - thetas.mean(axis=0)))
    return chains, verdict


@dataclass(frozen=True)
class _Influence:
    """How much the log-likelihood of rows bends between draws on either side of a mode.

    Attributes
    ----------
    mixtures : tuple of Parameters
        The mode's, then pairs of draws.
    diagonal : bool
    center : (D,)
    """

    mixtures: tuple[Parameters, ...]
    diagonal: bool
    center: np.ndarray

    def __call__(self, values: np.ndarray) -> np.ndarray:
        rows, one = Rows(values, np.ones(1), NO_LABELS, self.center), self.mixtures
        middle, squares = log_prob(rows, one[0], self.diagonal), np.zeros(len(values))
        for ahead, behind in zip(one[1::2], one[2::2], strict=True):
            squares += (log_prob(rows, ahead, self.diagonal) + log_prob(rows, behind, self.diagonal) - 2 * middle) ** 2
        return np.sqrt(squares)


@dataclass(frozen=True)
class _Draw:
    """Draws some rows of a block, and tells the inverse of the chance that each of them had."""

    influence: _Influence
    even: float  # influence that is added to each row's
    scale: float  # chance of a row of unit influence
    seed: int

    def __call__(self, values: np.ndarray, start: int) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        chance = np.minimum(self.scale * (self.influence(values) + self.even), 1.0)
        drawn = np.random.default_rng([self.seed, 6, start // SURVEY_ROWS]).random(len(values)) < chance
        return {start: (values[drawn], 1 / chance[drawn])}


def _drawn(rows: ManyRows, mode: Mode, seed: int) -> Observations:
    """Rows drawn by their influence, weighted by the inverse of the chance that they had."""
    prior, N = rows.prior, rows.parts.n_observations
    steps = np.random.default_rng([seed, 4]).standard_normal((_PAIRS, prior.n_dim)) @ mode.factor.T
    thetas = mode.origin + np.stack([steps, -steps], axis=1).reshape(-1, prior.n_dim)
    mixtures = [request_of(prior.unpack(theta), prior.center).parameters for theta in (mode.origin, *thetas)]
    influence = _Influence(tuple(mixtures), prior.model.diagonal, prior.center)
    of_sample = influence(rows.sample.values)
    even, share = _EVEN * float(of_sample.mean()), min(n_rows(mode) / N, 1.0)
    scale = share / (of_sample.mean() + even)
    for _ in range(_MOST_STEPS):  # until the chances, none of which is above one, are of so many rows
        scale *= share / np.minimum(scale * (of_sample + even), 1.0).mean()
    draw = _Draw(influence, even, float(scale), seed)
    found = rows.parts.fold(draw, dict.update, SURVEY_ROWS, lambda done, total: None)
    values, weight = (np.concatenate([found[start][i] for start in sorted(found)]) for i in range(2))
    return Observations(np.ascontiguousarray(values), rows.parts.features, weight, rows.parts.named)


def _calibrated(prior: Density, mode: Mode, totals: SecondOrderTotals, drawn: Observations) -> Observations:
    """The rows with weights by which they have, at the mode, what all rows add up to."""
    mixture = prior.unpack(mode.origin)
    own = own_derivatives(prior, mode.origin, totals.diagonal) @ mode.factor
    bend, scores = own.T @ totals.bend @ own, _scores_of(mixture, totals.statistics, totals.diagonal)
    terms, weight = _Terms(mixture, own, totals.diagonal), drawn.sample_weight
    pairs = np.triu_indices(len(bend))
    weights = calibrated(terms(drawn.values), np.concatenate([scores, bend[pairs]]), weight)
    return replace(drawn, sample_weight=weights)


def calibrated(terms: np.ndarray, totals: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The weights (n,) near given ones with which the rows' terms add up to totals.

    Parameters
    ----------
    terms : (n, p)
    totals : (p,)
    weight : (n,)
        Positive.

    Returns
    -------
    (n,)
        Each at least a tenth of what it was.

    Notes
    -----
    With terms in units of what chance makes of their sums, the least sum of (w - weight)^2 / weight, plus a million
    times that of the squares of what is missing to the totals, is that of w = weight max(1 + terms b, 1/10), with as
    many unknowns b as there are totals. These are the maximum of a concave function, which Newton's method climbs. That
    a little may be missing (ridge calibration, Rao & Singh 1997) keeps weights moderate where so few rows can hardly
    meet all totals.
    """
    size = np.sqrt(weight @ terms**2)
    terms, totals = terms / np.where(size > 0, size, 1.0), totals / np.where(size > 0, size, 1.0)

    def dual(factor: np.ndarray, b: np.ndarray) -> float:
        """What the b sought are the maximum of."""
        least = np.maximum(factor, _LEAST_WEIGHT)
        return float(totals @ b - weight @ (least * (factor - least / 2)) - _RIDGE * (b @ b) / 2)

    b, factor = np.zeros(terms.shape[1]), np.ones(len(terms))
    height = dual(factor, b)
    for _ in range(_MOST_STEPS):
        missing = totals - (weight * np.maximum(factor, _LEAST_WEIGHT)) @ terms - _RIDGE * b
        if np.abs(missing).max() < _EXACT:
            break
        products = _products(terms, np.where(factor > _LEAST_WEIGHT, weight, 0.0))
        products[np.diag_indices_from(products)] += _RIDGE
        step = cho_solve(cho_factor(products), missing)
        along, length = terms @ step, 1.0
        while length > _SHORTEST and (there := dual(factor + length * along, b + length * step)) <= height:
            length /= 2
        if length <= _SHORTEST:
            break
        b, factor, height = b + length * step, factor + length * along, there
    return weight * np.maximum(factor, _LEAST_WEIGHT)


def _products(terms: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weighted sum (p, p) over rows of the products of their terms (n, p)."""
    total = np.zeros((terms.shape[1],) * 2)
    for start in range(0, len(terms), _BLOCK):
        root = terms[start : start + _BLOCK] * np.sqrt(weight[start : start + _BLOCK])[:, None]
        total += root.T @ root
    return total


@dataclass(frozen=True)
class _Terms:
    """What rows add to the log-likelihood's slope and curvature at a mixture.

    Attributes
    ----------
    mixture : GaussianMixture
    own : (K m, q)
        Derivatives of the components' own coordinates, those of `second_order`, along some directions.
    diagonal : bool
        Whether the coordinates are those of diagonal covariances.
    """

    mixture: GaussianMixture
    own: np.ndarray
    diagonal: bool

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Scores and pairs of the bend, (n, K m + q (q + 1) / 2)."""
        pairs = np.triu_indices(self.own.shape[1])
        blocks = (self._of(values[start : start + _BLOCK]) for start in range(0, len(values), _BLOCK))
        return np.concatenate([np.concatenate([v, bend[:, *pairs]], axis=1) for v, bend in blocks])

    def _of(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores (n, K m) of rows, and blockdiag(r_k T_k T_k') - v v' along the directions (n, q, q)."""
        K, D = self.mixture.means.shape
        r = self.mixture.responsibilities(values)
        z = np.einsum("nkj,kji->nki", values[:, None] - self.mixture.means, self.mixture.precisions_cholesky)
        i, j = own_entries(D, self.diagonal)
        T = np.concatenate([np.ones((*r.shape, 1)), z, (i == j) - z[..., i] * z[..., j]], axis=-1)
        along = np.einsum("nkm,kmq->nkq", T, self.own.reshape(K, T.shape[-1], -1))
        score = np.einsum("nk,nkq->nq", r, along)
        bend = np.einsum("nkp,nkq->npq", r[..., None] * along, along, optimize=True)
        return (r[..., None] * T).reshape(len(values), -1), bend - score[:, :, None] * score[:, None, :]


def _scores_of(mixture: GaussianMixture, statistics: Statistics, diagonal: bool) -> np.ndarray:
    """Sum (K m,) of the rows' scores in the components' own coordinates, from their statistics."""
    (counts, first, scatter), P = statistics, mixture.precisions_cholesky
    i, j = own_entries(mixture.n_features, diagonal)
    z, zz = np.einsum("kj,kji->ki", first, P), np.einsum("kab,kai,kbj->kij", scatter, P, P)
    return np.concatenate([counts[:, None], z, counts[:, None] * (i == j) - zz[:, i, j]], axis=1).ravel()
