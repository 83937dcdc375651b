"""What can be done about rows whose leave-one-out density the draws of the whole table do not give well enough.

The rungs of a ladder: the draws are moved to where they are needed; the posteriors without the bad rows are sampled
together, as a mixture; or one by one, with bridges between them and the whole posterior.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from enum import StrEnum
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from arviz_stats.base.array import array_stats
from scipy.optimize import minimize
from scipy.special import logsumexp

from bayesgmm.bayes.density import Density
from bayesgmm.bayes.laplace import find_mode
from bayesgmm.bayes.monte_carlo import LARGEST_R_HAT, r_hat, sum_error
from bayesgmm.bayes.nuts import nutpie_draws
from bayesgmm.errors import InputError
from bayesgmm.mixture import GaussianMixture

_LARGEST_MCSE = 0.1  # nats: Monte Carlo standard error that a row's estimate may have
_MIXED_ROWS = 200  # at most that one mixture leaves out
_STATES = 10  # at most between which and the posterior a refitted row's weight goes from one to zero
_TRANSFORMATIONS = 30  # at most, per row


class Repair(StrEnum):
    """The method that a row's leave-one-out density comes from.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> [repair.value for repair in bg.Repair]
    ['psis', 'moment matching', 'mixture', 'refit']
    """

    NONE = "psis"  # the draws of the whole table, by importance sampling
    MOMENT_MATCHING = "moment matching"
    MIXTURE = "mixture"
    REFIT = "refit"


class Estimate(NamedTuple):
    """Log predictive density of a row (nats), Pareto k of its weights, and its Monte Carlo standard error (nats)."""

    elpd: float
    pareto_k: float
    mcse: float

    def good(self, good_k: float) -> bool:
        """Whether it may be used, given up to which Pareto k so many draws will do."""
        return self.pareto_k <= good_k and self.mcse < _LARGEST_MCSE


class RepairInputs(NamedTuple):
    """What the repairs start from."""

    density: Density
    draws: GaussianMixture  # batch (chain, draw)
    start: np.ndarray  # (n,) coordinates of the EM fit
    efficiency: float  # effective draws per draw
    tune: int
    switched: bool  # whether draws were relabelled
    good_k: float


def _psis(log_ratios: np.ndarray, efficiency: float) -> tuple[np.ndarray, float]:
    """Smoothed log weights (chain, draw), summing to one, and Pareto k (0 where there is no tail to fit)."""
    try:
        weights, k = array_stats.psislw(-log_ratios, r_eff=efficiency, axis=(-2, -1))
    except ValueError:  # the largest ratios are all the same
        return log_ratios - logsumexp(log_ratios), 0.0
    return weights, float(k)


# Rung 1: moment matching.


def _matched(
    inputs: RepairInputs, rows: np.ndarray, _elpd: np.ndarray, rng: np.random.Generator
) -> Iterator[tuple[int, Estimate]]:
    if inputs.switched:
        return
    coordinates = inputs.density.coordinates
    thetas = coordinates.stretched(coordinates.aligned(inputs.density.pack(inputs.draws), inputs.start), rng)
    log_density = inputs.density.log_densities(thetas)
    for row in rows.tolist():
        try:
            yield row, _moment_matched(inputs, row, thetas, log_density)
        except (InputError, np.linalg.LinAlgError):  # the draws were moved to where there are no covariances
            continue


def _moment_matched(inputs: RepairInputs, row: int, thetas: np.ndarray, log_density: np.ndarray) -> Estimate:
    """Moment matching with the split transformation (Paananen et al. 2021).

    A transformation, mean + A (theta - first mean), is tried by its mean alone, with the variances and with the
    covariance of the weighted draws; whichever first lowers the Pareto k is kept, and the search starts again.
    """
    density, efficiency = inputs.density, inputs.efficiency
    x = density.table.take(np.array([row]))
    n = thetas.shape[-1]

    def log_lik(thetas: np.ndarray) -> np.ndarray:
        return density.unpack(thetas).log_prob(x)[..., 0]

    center = thetas.mean(axis=(0, 1))
    A, mean, moved = np.eye(n), center, thetas
    weights, k = _psis(-log_lik(thetas), efficiency)
    for _ in range(_TRANSFORMATIONS):
        if k <= inputs.good_k:
            break
        for step, target in _moments(moved, np.exp(weights)):
            candidate = target + (moved - mean) @ step.T
            tried, tried_k = _psis(
                _finite(density.log_densities(candidate) - log_lik(candidate) - log_density), efficiency
            )
            if tried_k < k:
                A, mean, moved, weights, k = step @ A, target, candidate, tried, tried_k
                break
        else:
            break
    # The first half of each chain is moved, the second stays; all are weighed against the mixture of both halves.
    half = thetas.shape[1] // 2
    both = np.concatenate((moved[:, :half], thetas[:, half:]), axis=1)
    back = center + np.linalg.solve(A, (both - mean)[..., None])[..., 0]
    log_posterior, log_det = density.log_densities(both), np.linalg.slogdet(A)[1]
    origin = np.concatenate((log_density[:, :half], density.log_densities(back[:, half:])), axis=1)
    lik = log_lik(both)
    weights, split_k = _psis(_finite(log_posterior - lik - np.logaddexp(log_posterior, origin - log_det)), efficiency)
    weighted = weights + lik
    elpd = float(logsumexp(weighted))
    influence = np.exp(weighted - elpd) - np.exp(weights)
    return Estimate(elpd, max(k, split_k), sum_error((influence[:, :half], influence[:, half:])))


def _finite(log_ratios: np.ndarray) -> np.ndarray:
    """Log ratios with none where a density overflowed."""
    return np.where(np.isfinite(log_ratios), log_ratios, -1e300)


def _moments(draws: np.ndarray, weights: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Linear maps (n, n) and means (n,) that give draws (..., n) ever more of the weighted draws' moments."""
    flat, w = draws.reshape(-1, draws.shape[-1]), weights.ravel() / weights.sum()
    mean = w @ flat
    yield np.eye(len(mean)), mean
    spread, weighted = np.cov(flat, rowvar=False, ddof=0).reshape(len(mean), -1), ((flat - mean).T * w) @ (flat - mean)
    yield np.diag(np.sqrt(np.diag(weighted) / np.diag(spread))), mean
    yield np.linalg.cholesky(weighted) @ np.linalg.inv(np.linalg.cholesky(spread)), mean


# Rungs 2 and 3: sampling without the rows, together or one at a time.


def _mixed(
    inputs: RepairInputs, rows: np.ndarray, elpd: np.ndarray, rng: np.random.Generator
) -> Iterator[tuple[int, Estimate]]:
    """Mixture importance sampling (Silva & Zanella 2023), at most 200 rows to a mixture."""
    for a in range(0, len(rows), _MIXED_ROWS):
        some, log_odds = rows[a : a + _MIXED_ROWS], elpd[a : a + _MIXED_ROWS]
        density, x = inputs.density, inputs.density.table.take(some)
        drawn = _drawn(inputs, replace(density, left_out=some, log_odds=log_odds), rng)
        log_lik = np.stack([inputs.draws.log_prob(x), drawn.log_prob(x)])  # (2, chain, draw, row)
        log_ratio = logsumexp(log_odds - log_lik, axis=-1)
        pool = _pool(np.stack([np.zeros_like(log_ratio), log_ratio]))
        for i, row in enumerate(some.tolist()):
            yield row, _without(pool, log_lik[..., i])


def _refitted(
    inputs: RepairInputs, rows: np.ndarray, _elpd: np.ndarray, rng: np.random.Generator
) -> Iterator[tuple[int, Estimate]]:
    """Draws without the row; and where they are too far from the posterior's, with a part of its weight in between.

    The two neighbours get one in between whose densities differ most: (t - s)(E_t log p(x) - E_s log p(x)) is Jeffreys'
    divergence of the posteriors that give the row weights t and s.
    """
    density, N = inputs.density, inputs.density.table.n_observations
    for row in rows.tolist():
        x = density.table.take(np.array([row]))
        log_lik = {1.0: inputs.draws.log_prob(x)[..., 0]}  # by the row's weight
        added = 0.0
        for _ in range(_STATES - 1):
            weight = np.ones(N)
            weight[row] = added
            drawn = _drawn(inputs, replace(density, table=replace(density.table, sample_weight=weight)), rng)
            log_lik[added] = drawn.log_prob(x)[..., 0]
            row_weights = sorted(log_lik, reverse=True)
            every = np.stack([log_lik[t] for t in row_weights])
            estimate = _without(_pool(np.stack([(t - 1) * every for t in row_weights])), every)
            if estimate.mcse < _LARGEST_MCSE or np.isinf(estimate.mcse):  # more in between mends no disagreement
                break
            gaps = [(t - s) * (log_lik[t].mean() - log_lik[s].mean()) for t, s in pairwise(row_weights)]
            widest = int(np.argmax(gaps))
            added = (row_weights[widest] + row_weights[widest + 1]) / 2
        yield row, estimate


def _drawn(inputs: RepairInputs, density: Density, rng: np.random.Generator) -> GaussianMixture:
    """As many draws of another density as there are of the posterior."""
    chains, draws = inputs.draws.batch_shape
    mode = find_mode(density, inputs.start)
    seed = int(rng.integers(2**31))
    drawn = nutpie_draws(density, mode, draws=draws, tune=inputs.tune, chains=chains, seed=seed)
    return density.unpack(drawn.thetas)


class _Pool(NamedTuple):
    """Draws (state, chain, draw) of several densities as one sample of their average."""

    log_weight: np.ndarray  # (state, chain, draw), of the first density relative to the average; they sum to one
    origin: np.ndarray  # (state, state, chain, draw), probability that a draw is from each state
    information: np.ndarray  # (state - 1, state - 1), of the normalising constants


def _pool(log_ratio: np.ndarray) -> _Pool:
    """Pool draws of densities whose log ratios to the first are (state, state, chain, draw), draws along the second.

    The normalising constants maximise the likelihood of which draw is from which density (Shirts & Chodera 2008).
    """
    states = len(log_ratio)
    n = log_ratio[0, 0].size
    flat = log_ratio.reshape(states, -1)

    def origin(log_z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        joint = flat - np.append(0.0, log_z)[:, None]
        total = logsumexp(joint, axis=0)
        return np.exp(joint - total), total

    def objective(log_z: np.ndarray) -> tuple[float, np.ndarray]:
        p, total = origin(log_z)
        return float(total.mean() + log_z.sum() / states), 1 / states - p[1:].mean(axis=1)

    def hessian(log_z: np.ndarray) -> np.ndarray:
        p = origin(log_z)[0][1:]
        return np.diag(p.mean(axis=1)) - p @ p.T / flat.shape[1]

    start = np.diagonal(log_ratio.mean(axis=(2, 3)))[1:]
    log_z = minimize(objective, start, jac=True, hess=hessian, method="trust-exact", options={"gtol": 1e-10}).x
    p, total = origin(log_z)
    shape = log_ratio.shape[1:]
    log_weight = -np.log(n) - total.reshape(shape)
    return _Pool(log_weight, p.reshape(states, *shape), flat.shape[1] * hessian(log_z))


def _without(pool: _Pool, log_lik: np.ndarray) -> Estimate:
    """The estimate of a row's predictive density from its log density under each pooled draw (state, chain, draw).

    Relative to the pool the weights are bounded, so that they have no Pareto k to speak of: it is set to 0, as
    ``arviz.reloo`` does. Where the chains of the last state, that without the row, disagree about it, the error is not
    row_weights: it is set to infinity.
    """
    inverse = pool.log_weight - log_lik
    log_mean = logsumexp(inverse) - logsumexp(pool.log_weight)
    share = np.exp(inverse - logsumexp(inverse))
    free = pool.origin[1:]
    slope = np.linalg.solve(pool.information, (share * free).sum(axis=(1, 2, 3)))
    error = sum_error(share + np.tensordot(slope, free, axes=1))
    if log_lik.shape[1] > 1 and r_hat(log_lik[-1]) > LARGEST_R_HAT:
        error = np.inf
    return Estimate(-float(log_mean), 0.0, error)


REPAIRS: dict[Repair, Callable[..., Iterator[tuple[int, Estimate]]]] = {
    Repair.MOMENT_MATCHING: _matched,
    Repair.MIXTURE: _mixed,
    Repair.REFIT: _refitted,
}
"""What can be done about rows, in the order in which it is tried."""
