"""The log integral of a posterior density over one tile of labellings, from draws: bridge, THAMES, Laplace.

Where the prior is the same for every component the posterior consists of K! copies of one tile: the parameters whose
components the Hungarian method matches in their own order to those of a target mixture. Relabelled draws lie in that
tile; every method here integrates over it.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, gammaln

from bayesgmm.alignment import divergence, match
from bayesgmm.bayes import frames
from bayesgmm.bayes.density import Density
from bayesgmm.bayes.laplace import find_mode
from bayesgmm.bayes.priors import InverseWishart, Priors
from bayesgmm.em.fit import fit_quietly
from bayesgmm.errors import DegenerateFitError
from bayesgmm.mixture import GaussianMixture

_PROPOSALS = 2000  # per half of the draws, fewer where a pass over the table is long
_MULTIPLY_ADDS = 1e10  # that the passes of one half may take
_KEPT = 0.6  # share of the posterior in THAMES' region: the best for a normal, P(chi-square_n < n + 1), is near it
_MOST_COMPONENTS = 6  # of the proposal
_NEGLIGIBLE = 50.0  # nats below the lowest draw


class Estimate(NamedTuple):
    """A log integral and its standard error, nats."""

    value: float
    se: float


FAILED = Estimate(math.nan, math.inf)


@dataclass(frozen=True, eq=False)
class Tile:
    """The region C of coordinates whose components are matched in their own order to the target's; all without one.

    Where covariances have turned axes these are also in increasing order of the precision, and each is within a right
    angle of the reference's. Integrals are then over points, which have turns from the reference's axes in place of
    frames, half as many numbers; elsewhere points are the density's coordinates.
    """

    density: Density
    target: GaussianMixture | None
    reference: np.ndarray | None = None  # (n,), packed coordinates whose axes the others are compared to

    @property
    def log_labellings(self) -> float:
        """Log of the number of labellings, K!."""
        return 0.0 if self.target is None else math.lgamma(self.target.n_components + 1)

    @property
    def log_copies(self) -> float:
        """Log of the number of tiles: the labellings, times the copies of axes."""
        return self.log_labellings + self.density.coordinates.log_copies

    def holds(self, thetas: np.ndarray) -> np.ndarray:
        """Which of thetas (S, n) lie in C, (S,)."""
        inside = np.ones(len(thetas), dtype=bool)
        if (self.target is None and self.reference is None) or not len(thetas):
            return inside
        mixtures = self.density.unpack(thetas)
        if self.target is not None:
            inside = (match(mixtures, self.target) == np.arange(self.target.n_components)).all(axis=-1)
        if self.reference is not None:
            frames_of = self.density.coordinates.frames_of
            axes = frames.axes_of(frames_of(thetas))
            signs = frames.nearest(axes[..., :-1], frames_of(self.reference))
            inside &= frames.in_order(axes, mixtures.covariances) & (signs > 0).all(axis=(-3, -2, -1))
        return inside

    @property
    def n_dim(self) -> int:
        """Number of coordinates of a point."""
        return self.density.n_dim - self.density.coordinates.layout.sizes[-1] // 2

    def points(self, thetas: np.ndarray, log_values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The points (..., n_dim) of packed coordinates (..., n) in C, and the density's values as one of points."""
        if self.reference is None:
            return thetas, log_values
        points, further = self.density.coordinates.turns(thetas, self.reference)
        return points, log_values + further

    def into(self, mixtures: GaussianMixture) -> np.ndarray:
        """The coordinates (..., n) in C of mixtures (...)."""
        if self.target is not None:
            mixtures = mixtures.permute(match(mixtures, self.target))
        thetas = self.density.pack(mixtures)
        return thetas if self.reference is None else self.density.coordinates.aligned(thetas, self.reference)

    def log_values(self, points: np.ndarray, least: float) -> np.ndarray:
        """The density's values (S,) at points (S, n_dim), -inf where they are below ``least`` or not in C."""
        thetas, further = points, np.zeros(len(points))
        if self.reference is not None:
            thetas, further = self.density.coordinates.from_turns(points, self.reference)
        values = self.density.log_densities(thetas) + further
        values[values < least] = -math.inf
        candidates = np.flatnonzero(values > -math.inf)
        values[candidates[~self.holds(thetas[candidates])]] = -math.inf
        return values


def into_tile(
    density: Density,
    thetas: np.ndarray,
    log_values: np.ndarray,
    target: GaussianMixture | None,
) -> tuple[np.ndarray, np.ndarray, Tile]:
    """The draws relabelled to the target, the density's values there, and the tile that the draws are then in.

    A target with equal components does not tell labels apart; the best draw then takes its place. Where covariances
    have turned axes the coordinates are packed ones.
    """
    if target is not None and target.n_components == 1:
        target = None
    best = density.unpack(thetas[np.unravel_index(log_values.argmax(), log_values.shape)])
    if target is not None:
        apart = divergence(target, target)[~np.eye(target.n_components, dtype=bool)].min()
        target = best if apart < 1e-6 else target
    tile = Tile(density, target)
    if density.coordinates.layout.frames:
        tile = replace(tile, reference=tile.into(best))
        thetas = tile.into(density.unpack(thetas))
        return thetas, density.log_densities(thetas), tile
    if target is None:
        return thetas, log_values, tile
    draws = density.unpack(thetas)
    moved = (match(draws, target) != np.arange(target.n_components)).any()
    return tile.into(draws) if moved else thetas, log_values, tile


def n_proposals(density: Density) -> int:
    """Evaluations of the density that a half of the draws is worth."""
    return int(np.clip(_MULTIPLY_ADDS / density.multiply_adds, 250, _PROPOSALS))


def _effective(values: np.ndarray, method: str = "mean") -> float:
    """Effective sample size of values (chains, draws)."""
    import arviz as az

    return float(az.ess(values, method=method))


def _relative_variance(values: np.ndarray, count: float) -> float:
    """Squared relative error of the mean of values, by their number or effective number."""
    return float(values.var() / (count * values.mean() ** 2)) if count > 0 and values.mean() > 0 else math.inf


class _Half(NamedTuple):
    """Half of the draws of every chain."""

    thetas: np.ndarray  # (chains, draws, n)
    log_values: np.ndarray  # (chains, draws)

    @property
    def flat(self) -> np.ndarray:
        """Coordinates (S, n)."""
        return self.thetas.reshape(-1, self.thetas.shape[-1])


def by_sampling(
    thetas: np.ndarray, log_values: np.ndarray, tile: Tile, rng: np.random.Generator
) -> dict[str, Estimate]:
    """Estimates by method, each the mean of two: half of the draws prepares what the other half estimates."""
    thetas, log_values = tile.points(thetas, log_values)
    middle = thetas.shape[1] // 2
    halves = _Half(thetas[:, :middle], log_values[:, :middle]), _Half(thetas[:, middle:], log_values[:, middle:])
    pairs: dict[str, list[Estimate]] = {"bridge": [], "thames": []}
    for prepare, draws in (halves, halves[::-1]):
        proposal = _proposal(prepare.flat, draws.flat, rng)
        pairs["bridge"].append(_bridge(proposal, prepare, draws, tile, rng))
        pairs["thames"].append(_thames(proposal, prepare, draws, tile, rng))
    return {name: _mean(*pair) for name, pair in pairs.items()}


def _mean(a: Estimate, b: Estimate) -> Estimate:
    """Mean of two estimates, with the greater of the errors that they state and that their difference shows."""
    se = max(math.hypot(a.se, b.se), abs(a.value - b.value)) / 2 if math.isfinite(a.se + b.se) else math.inf
    return Estimate((a.value + b.value) / 2, se) if math.isfinite(se) else FAILED


def _bridge(proposal: _Proposal, prepare: _Half, draws: _Half, tile: Tile, rng: np.random.Generator) -> Estimate:
    """The optimal bridge between the posterior and a proposal fitted to other draws of it.

    The estimate solves Meng & Wong's (1996) equation, written as the logistic regression that tells draws from
    proposals (Geyer 1994); the error is Fruehwirth-Schnatter's (2004), with the effective size of the draws.
    """
    proposed = proposal.sample(n_proposals(tile.density), rng)
    values = tile.log_values(proposed, prepare.log_values.min() - _NEGLIGIBLE)
    if values.max() == -math.inf:
        return FAILED
    at_draws = draws.log_values - proposal.log_prob(draws.flat).reshape(draws.log_values.shape)
    at_proposed = values - proposal.log_prob(proposed)
    m, size = len(proposed), _effective(at_draws, "bulk")
    offset = math.log(size / m)

    def excess(log_z: float) -> float:
        return m * expit(at_proposed + offset - log_z).mean() - size * expit(log_z - offset - at_draws).mean()

    finite = np.append(at_draws, at_proposed[np.isfinite(at_proposed)])
    log_z = brentq(excess, finite.min() - 50 - abs(offset), finite.max() + 50 + abs(offset), xtol=1e-10)
    over_proposed, over_draws = expit(at_proposed + offset - log_z), expit(log_z - offset - at_draws)
    variance = _relative_variance(over_proposed, m) + _relative_variance(over_draws, _effective(over_draws))
    return Estimate(log_z, math.sqrt(variance))


@dataclass(frozen=True, eq=False)
class _Proposal:
    """A Gaussian mixture in units in which the draws' covariance is the identity."""

    origin: np.ndarray
    factor: np.ndarray
    mixture: GaussianMixture

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Coordinates (n, n_dim)."""
        return self.origin + self.mixture.sample(n, rng=rng)[0] @ self.factor.T

    def log_prob(self, thetas: np.ndarray) -> np.ndarray:
        """Log density of coordinates (S, n_dim), nats."""
        return self.mixture.log_prob(self._whitened(thetas)) - np.linalg.slogdet(self.factor)[1]

    def predict(self, thetas: np.ndarray) -> np.ndarray:
        """The fitted component nearest to coordinates (S, n_dim), (S,)."""
        return self.mixture.predict(self._whitened(thetas)) % (self.mixture.n_components // 2)

    def _whitened(self, thetas: np.ndarray) -> np.ndarray:
        return np.linalg.solve(self.factor, (thetas - self.origin).T).T


def _proposal(thetas: np.ndarray, others: np.ndarray, rng: np.random.Generator) -> _Proposal:
    """The mixture fitted to thetas (S, n) that describes other draws best, with a tenth of it wider."""
    S, n = thetas.shape
    origin, factor = thetas.mean(axis=0), np.linalg.cholesky(np.cov(thetas.T).reshape(n, n))
    rows, held_out = (np.linalg.solve(factor, (t - origin).T).T for t in (thetas, others))
    best, best_score, failures = GaussianMixture(np.ones(1), np.zeros((1, n)), np.eye(n)[None]), -math.inf, 0
    for components in range(1, max(2, S // (5 * n) + 1)):
        weak = Priors.weakly_informative(rows, components)
        scale = np.cov(rows.T).reshape(n, n) / components ** (2 / n)
        priors = replace(weak, covariances=InverseWishart(n + 2, scale))
        score = -math.inf
        with suppress(DegenerateFitError):  # then fewer components must do
            fit = fit_quietly(rows, components, priors=priors, n_starts=10, max_iterations=100, rng=rng).mixture
            score = fit.log_prob(held_out).mean()
        if score > best_score + 0.01:
            best, best_score, failures = fit, score, 0
        else:
            failures += 1
        if failures == 2 or components == _MOST_COMPONENTS:
            break
    wide = GaussianMixture(
        np.concatenate([0.9 * best.weights, 0.1 * best.weights]),
        np.concatenate([best.means, best.means]),
        np.concatenate([best.covariances, 2 * best.covariances]),
    )
    return _Proposal(origin, factor, wide)


def _thames(proposal: _Proposal, prepare: _Half, draws: _Half, tile: Tile, rng: np.random.Generator) -> Estimate:
    """One over the mean of 1 / density over draws in a region, times its volume (reciprocal importance sampling).

    The region (Metodiev et al. 2025) is where an ellipsoid, a highest-density region and C meet, fitted to other draws;
    its volume is a share of the ellipsoid's, by uniform points. Any region is right, so it is put where it is best:
    around all draws or around those of one component of the proposal.
    """
    labels, values = proposal.predict(prepare.flat), prepare.log_values.ravel()
    groups = [np.ones(labels.shape, dtype=bool)]
    if len(np.unique(labels)) > 1:
        groups += [labels == j for j in np.unique(labels)]
    rich = [group for group in groups if len(np.unique(values[group])) > 4 * tile.n_dim]
    regions = [_region(prepare, group) for group in rich]
    if len(regions) > 1:
        trials = [_reciprocal(region, prepare, tile, n_proposals(tile.density) // 10, rng).se for region in regions]
        regions = [regions[int(np.argmin(trials))]]
    return _reciprocal(regions[0], draws, tile, n_proposals(tile.density), rng)


class _Region(NamedTuple):
    """An ellipsoid, factor times a ball about the origin, and the least density in it."""

    origin: np.ndarray  # (n,)
    factor: np.ndarray  # (n, n)
    radius: float
    least: float  # nats

    def distance(self, thetas: np.ndarray) -> np.ndarray:
        """Distance from the center of thetas (S, n), (S,); within the ellipsoid it is at most the radius."""
        return np.linalg.norm(np.linalg.solve(self.factor, (thetas - self.origin).T), axis=0)


def _region(prepare: _Half, group: np.ndarray) -> _Region:
    """The region of highest density of a group of draws, and the ellipsoid about them."""
    thetas, log_values = prepare.flat[group], prepare.log_values.ravel()[group]
    least = float(np.quantile(log_values, 1 - _KEPT))
    high = thetas[log_values >= least]
    n = high.shape[1]
    region = _Region(high.mean(axis=0), np.linalg.cholesky(np.cov(high.T).reshape(n, n)), 0.0, least)
    return region._replace(radius=float(np.quantile(region.distance(high), 0.9)))


def _reciprocal(region: _Region, draws: _Half, tile: Tile, n_points: int, rng: np.random.Generator) -> Estimate:
    """Reciprocal importance sampling in a region, its volume by uniform points in the ellipsoid."""
    origin, factor, radius, least = region
    n = len(origin)
    points = rng.standard_normal((n_points, n))
    points *= (radius * rng.random(n_points) ** (1 / n) / np.linalg.norm(points, axis=1))[:, None]
    share = (tile.log_values(origin + points @ factor.T, least) >= least).mean()
    near = (region.distance(draws.flat) <= radius).reshape(draws.log_values.shape)
    inside = near & (draws.log_values >= least)
    if share == 0 or not inside.any():
        return FAILED
    log_volume = n * math.log(radius) + np.linalg.slogdet(factor)[1] + 0.5 * n * math.log(math.pi)
    log_volume += math.log(share) - gammaln(n / 2 + 1)
    over = np.where(inside, np.exp(np.minimum(least - draws.log_values, 0.0)), 0.0)
    variance = _relative_variance(over, _effective(over)) + (1 - share) / (share * n_points)
    return Estimate(log_volume + least - math.log(over.mean()), math.sqrt(variance))


def by_laplace(
    density: Density, thetas: np.ndarray, log_values: np.ndarray, tile: Tile, rng: np.random.Generator
) -> Estimate:
    """The integral over C of the normal approximation at the highest mode that the best draw leads to.

    Where components coincide at the mode it is on C's border and only a share of the normal lies within.
    """
    mode = find_mode(density, thetas[np.unravel_index(log_values.argmax(), log_values.shape)])
    if not tile.holds(mode.origin[None])[0]:
        mode = find_mode(density, tile.into(density.unpack(mode.origin)))
    points = mode.origin + rng.standard_normal((_PROPOSALS, density.n_dim)) @ mode.factor.T
    low, high = thetas.min(axis=(0, 1)), thetas.max(axis=(0, 1))  # beyond them matrices may be singular
    share = tile.holds(np.clip(points, low, high)).mean()
    log_integral = mode.log_integral + density.coordinates.laplace_excess
    return Estimate(log_integral + math.log(share), math.nan) if share > 0 else FAILED
