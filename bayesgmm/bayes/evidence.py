"""The marginal likelihood (log evidence) of a mixture from its posterior draws, by methods that check one another.

Where the prior is the same for every component the posterior consists of K! copies of one tile: the parameters whose
components the Hungarian method matches in their own order to those of a target mixture. Relabelled draws lie in that
tile, C; so the evidence is K! times the integral over C, and every method here integrates over C.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, gammaln

from bayesgmm.alignment import divergence, match
from bayesgmm.bayes.density import Density
from bayesgmm.bayes.laplace import find_mode
from bayesgmm.bayes.priors import InverseWishart, Priors
from bayesgmm.bayes.relabel import mixture_of
from bayesgmm.bayes.tree import as_mixture, density_of
from bayesgmm.em.fit import fit_quietly
from bayesgmm.errors import DegenerateFitError, InputError
from bayesgmm.mixture import GaussianMixture

if TYPE_CHECKING:
    import xarray as xr

METHODS = {"bridge": "bridge sampling", "thames": "THAMES", "laplace": "Laplace's approximation"}
_LARGEST_ERROR = 0.5  # nats: a Bayes factor known to a factor of 1.6
_PROPOSALS = 2000  # per half of the draws, fewer where a pass over the table is long
_MULTIPLY_ADDS = 1e10  # that the passes of one half may take
_KEPT = 0.6  # share of the posterior in THAMES' region: the best for a normal, P(chi-square_n < n + 1), is near it
_FAILURE = {
    "bridge": "no proposal fell where the posterior is",
    "thames": "no region was found that is rich in draws and whose volume could be estimated",
    "laplace": "the normal approximation at the mode lies outside the region of the draws' labelling",
}
_MOST_COMPONENTS = 6  # of the proposal
_NEGLIGIBLE = 50.0  # nats below the lowest draw


class Estimate(NamedTuple):
    """A log integral and its standard error, nats."""

    value: float
    se: float


_FAILED = Estimate(math.nan, math.inf)


@dataclass(frozen=True, eq=False)
class Evidence:
    """Log marginal likelihood of a mixture, and whether to trust it.

    Attributes
    ----------
    value : float
        Log evidence in nats, all labellings included.
    se : float
        Monte Carlo standard error in nats; NaN for Laplace's approximation, whose error is unknown.
    method : {"bridge", "thames", "laplace"}
        That ``value`` is from.
    estimates : mapping from method to (value, se)
        All that was computed; independent methods should agree within their errors.
    log_copies : float
        What ``value`` contains for the labellings: log K!, or 0 where the prior tells the components apart.
    faults : tuple of str
        Why not to trust it; empty if nothing speaks against it.
    """

    value: float
    se: float
    method: str
    estimates: Mapping[str, Estimate]
    log_copies: float
    faults: tuple[str, ...]

    @property
    def trusted(self) -> bool:
        """Whether no check failed."""
        return not self.faults

    def __str__(self) -> str:
        def show(method: str) -> str:
            value, se = self.estimates[method]
            if not math.isfinite(value):
                return "failed"
            return f"{value:.2f}" + (f", standard error {se:.2g}" if math.isfinite(se) else "")

        others = "".join(f"; {METHODS[name]} {show(name)}" for name in self.estimates if name != self.method)
        text = f"log evidence {show(self.method)} (nats, {METHODS[self.method]}{others})"
        if self.log_copies:
            text += f"\nincludes log K! = {self.log_copies:.2f} for the labellings of the components"
        return text + "".join(f"\nNot to be trusted: {fault}." for fault in self.faults)


def log_evidence(tree: xr.DataTree, method: str = "bridge", rng: Any = None) -> Evidence:
    """Log marginal likelihood of the mixture whose posterior was drawn: log of the integral of likelihood x prior.

    Parameters
    ----------
    tree : DataTree
        From `sample_posterior`.
    method : {"bridge", "thames", "laplace"}
        Bridge sampling from a Gaussian mixture fitted to the draws (Meng & Wong 1996; Gronau et al. 2017); reciprocal
        importance sampling in a truncated ellipsoid (THAMES; Metodiev et al. 2024, 2025); or the normal approximation
        at the mode, the quickest. The first two are always both computed, to check one another.
    rng : Generator, seed or None

    Returns
    -------
    Evidence
        ``value`` and ``se`` in nats; ``faults`` says in words why not to trust it; print it.

    Raises
    ------
    InputError
        For an unknown method, too few draws, or draws that are not of the posterior.

    Notes
    -----
    No method sees a part of the posterior that the draws never visited. Evidence depends on the prior, also on its
    width: compare models under priors that you mean. Where the prior tells components apart draws are not relabelled,
    and the evidence is that of the labellings which the chains visited.

    Half of each chain's draws prepares what the other half estimates, and the other way round (Overstall & Forster
    2010). The error of bridge sampling is Fruehwirth-Schnatter's (2004).

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> tree = bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), draws=500, chains=2, rng=0)
    >>> evidence = bg.log_evidence(tree, rng=0)
    >>> round(evidence.value), round(evidence.se, 1)
    (-1167, 0.0)
    """
    _check_method(method)
    if not {"posterior", "sample_stats", "em", "observed_data"} <= set(getattr(tree, "children", ())):
        raise InputError(f"log_evidence needs the tree that sample_posterior returned, not {type(tree).__name__}")
    if method != "laplace" and tree.attrs.get("method") == "laplace":
        raise InputError(
            f"{METHODS[method]} needs draws of the posterior, but these are of its normal approximation; sample with "
            "method='nuts', or ask for log_evidence(tree, 'laplace')"
        )
    density, draws = density_of(tree), as_mixture(tree)
    thetas = _coordinates(density, draws)
    if "lp" in tree["sample_stats"]:
        log_values = np.asarray(tree["sample_stats"]["lp"])
    else:
        every = -(-thetas[..., 0].size // (2 * _n_proposals(density)))
        thetas = thetas[:, :: max(every, 1)]
        log_values = _values(density, thetas)
    target = mixture_of(tree["em"]) if density.priors.exchangeable else None
    evidence = evidence_of_draws(density, thetas, log_values, target, method, rng)
    if not tree.attrs.get("convergence", "Converged").startswith("Converged") and method != "laplace":
        unconverged = "the chains did not converge, see the attribute convergence of the tree"
        evidence = replace(evidence, faults=(*evidence.faults, unconverged))
    return evidence


def evidence_of_draws(
    density: Density,
    thetas: np.ndarray,
    log_values: np.ndarray,
    target: GaussianMixture | None,
    method: str = "bridge",
    rng: Any = None,
) -> Evidence:
    """The evidence by draws of some chains: of the whole posterior, or of the mode in which these chains sit.

    Parameters
    ----------
    density : Density
    thetas : (chains, draws, n)
        Coordinates.
    log_values : (chains, draws)
        The density's value at them, nats.
    target : GaussianMixture or None
        Draws are relabelled to it; None where the prior is not the same for every component.
    method, rng
        As for `log_evidence`.

    Returns
    -------
    Evidence
        Of the whole tile of labellings, K! times the integral over it. Of chains that sit in one mode it is the
        evidence of that mode; the modes' exponentials add up, and are the weights of their chains.

    Raises
    ------
    InputError
        For an unknown method, or too few draws.
    """
    _check_method(method)
    rng = np.random.default_rng(rng)
    if thetas.shape != (*log_values.shape, density.n_dim) or log_values.ndim != 2:
        raise InputError(
            f"coordinates {thetas.shape} and log values {log_values.shape} must have shapes (chains, draws, "
            f"{density.n_dim}) and (chains, draws)"
        )
    if not (np.isfinite(thetas).all() and np.isfinite(log_values).all()):
        raise InputError("the coordinates of every draw and the density there must be finite")
    thetas, tile = _into_tile(density, thetas, log_values, target)
    constant = density.log_constant + tile.log_copies
    if method == "laplace":
        estimates = {"laplace": _laplace(density, thetas, log_values, tile, rng)}
    else:
        n, middle = density.n_dim, log_values.shape[1] // 2
        distinct = min(len(np.unique(half)) for half in (log_values[:, :middle], log_values[:, middle:]))
        if middle < 4 or distinct < 5 * (n + 1):
            raise InputError(
                f"{log_values.size} draws, {distinct} of them distinct in a half of each chain, are too few for the "
                f"evidence of a posterior with {n} coordinates; at least {5 * (n + 1)} are needed, better thousands"
            )
        estimates = _crossed(thetas, log_values, tile, rng)
    estimates = {name: Estimate(value + constant, se) for name, (value, se) in estimates.items()}
    value, se = estimates[method]
    return Evidence(value, se, method, estimates, tile.log_copies, tuple(_faults(estimates, method)))


def _check_method(method: str) -> None:
    if method not in METHODS:
        raise InputError(f"unknown method {method!r}; use one of {', '.join(map(repr, METHODS))}")


def _faults(estimates: Mapping[str, Estimate], method: str) -> list[str]:
    """What speaks against the estimates, in words."""
    faults = []
    value, se = estimates[method]
    if not math.isfinite(value):
        faults.append(f"{METHODS[method]} failed: {_FAILURE[method]}")
    elif se > _LARGEST_ERROR:
        faults.append(f"the standard error of {se:.2g} exceeds {_LARGEST_ERROR} nats; draw more")
    for other, (second, second_se) in estimates.items():
        gap, error = abs(value - second), math.hypot(se, second_se)
        if other != method and not math.isfinite(second):
            faults.append(f"{METHODS[other]} could not confirm it: {_FAILURE[other]}")
        elif other != method and gap > max(4 * error, 0.1):
            faults.append(f"{METHODS[method]} and {METHODS[other]} differ by {gap:.2g} nats, {gap / error:.0f} errors")
    return faults


@dataclass(frozen=True, eq=False)
class _Tile:
    """The region C of coordinates whose components are matched in their own order to the target's; all without one."""

    density: Density
    target: GaussianMixture | None

    @property
    def log_copies(self) -> float:
        """Log of the number of tiles, K!."""
        return 0.0 if self.target is None else math.lgamma(self.target.n_components + 1)

    def holds(self, thetas: np.ndarray) -> np.ndarray:
        """Which of thetas (S, n) lie in C, (S,)."""
        if self.target is None or not len(thetas):
            return np.ones(len(thetas), dtype=bool)
        order = match(self.density.unpack(thetas), self.target)
        return (order == np.arange(self.target.n_components)).all(axis=-1)

    def log_values(self, thetas: np.ndarray, least: float) -> np.ndarray:
        """The density's values (S,) at thetas (S, n), -inf where they are below ``least`` or theta is not in C."""
        values = _values(self.density, thetas)
        values[values < least] = -math.inf
        candidates = np.flatnonzero(values > -math.inf)
        values[candidates[~self.holds(thetas[candidates])]] = -math.inf
        return values


def _into_tile(
    density: Density, thetas: np.ndarray, log_values: np.ndarray, target: GaussianMixture | None
) -> tuple[np.ndarray, _Tile]:
    """The draws relabelled to the target, and the tile they are then in.

    A target with equal components does not tell labels apart; the best draw then takes its place.
    """
    if target is None or target.n_components == 1:
        return thetas, _Tile(density, None)
    apart = divergence(target, target)[~np.eye(target.n_components, dtype=bool)].min()
    if apart < 1e-6:
        target = density.unpack(thetas[np.unravel_index(log_values.argmax(), log_values.shape)])
    draws = density.unpack(thetas)
    order = match(draws, target)
    moved = (order != np.arange(target.n_components)).any()
    return _coordinates(density, draws.permute(order)) if moved else thetas, _Tile(density, target)


def _coordinates(density: Density, draws: GaussianMixture) -> np.ndarray:
    """The coordinates (..., n) of draws, whose weights may be tiny where the concentration is."""
    thetas, log_weights = density.pack(draws), np.log(np.maximum(draws.weights, 1e-300))
    thetas[..., : draws.n_components - 1] = (log_weights - log_weights.mean(axis=-1, keepdims=True))[..., :-1]
    return thetas


def _values(density: Density, thetas: np.ndarray) -> np.ndarray:
    """The density's value (...) at thetas (..., n), nats."""
    flat = thetas.reshape(-1, thetas.shape[-1])
    return np.array([density(theta)[0] for theta in flat]).reshape(thetas.shape[:-1])


def _n_proposals(density: Density) -> int:
    """Evaluations of the density that a half of the draws is worth."""
    N, D = density.table.values.shape
    work = N * density.priors.n_components * (10 + D * (D + 4))
    return int(np.clip(_MULTIPLY_ADDS / work, 250, _PROPOSALS))


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


def _crossed(thetas: np.ndarray, log_values: np.ndarray, tile: _Tile, rng: np.random.Generator) -> dict[str, Estimate]:
    """Estimates by method, each the mean of two: half of the draws prepares what the other half estimates."""
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
    return Estimate((a.value + b.value) / 2, se) if math.isfinite(se) else _FAILED


def _bridge(proposal: _Proposal, prepare: _Half, draws: _Half, tile: _Tile, rng: np.random.Generator) -> Estimate:
    """The optimal bridge between the posterior and a proposal fitted to other draws of it.

    The estimate solves Meng & Wong's (1996) equation, written as the logistic regression that tells draws from
    proposals (Geyer 1994); the error is Fruehwirth-Schnatter's (2004), with the effective size of the draws.
    """
    proposed = proposal.sample(_n_proposals(tile.density), rng)
    values = tile.log_values(proposed, prepare.log_values.min() - _NEGLIGIBLE)
    if values.max() == -math.inf:
        return _FAILED
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
        return self.origin + self.mixture.sample(n, rng)[0] @ self.factor.T

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


def _thames(proposal: _Proposal, prepare: _Half, draws: _Half, tile: _Tile, rng: np.random.Generator) -> Estimate:
    """One over the mean of 1 / density over draws in a region, times its volume (reciprocal importance sampling).

    The region (Metodiev et al. 2025) is where an ellipsoid, a highest-density region and C meet, fitted to other draws;
    its volume is a share of the ellipsoid's, by uniform points. Any region is right, so it is put where it is best:
    around all draws or around those of one component of the proposal.
    """
    labels, values = proposal.predict(prepare.flat), prepare.log_values.ravel()
    groups = [np.ones(labels.shape, dtype=bool)]
    if len(np.unique(labels)) > 1:
        groups += [labels == j for j in np.unique(labels)]
    rich = [group for group in groups if len(np.unique(values[group])) > 4 * tile.density.n_dim]
    regions = [_region(prepare, group) for group in rich]
    if len(regions) > 1:
        trials = [_reciprocal(region, prepare, tile, _n_proposals(tile.density) // 10, rng).se for region in regions]
        regions = [regions[int(np.argmin(trials))]]
    return _reciprocal(regions[0], draws, tile, _n_proposals(tile.density), rng)


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
    kept = thetas[log_values >= least]
    n = kept.shape[1]
    region = _Region(kept.mean(axis=0), np.linalg.cholesky(np.cov(kept.T).reshape(n, n)), 0.0, least)
    return region._replace(radius=float(np.quantile(region.distance(kept), 0.9)))


def _reciprocal(region: _Region, draws: _Half, tile: _Tile, n_points: int, rng: np.random.Generator) -> Estimate:
    """Reciprocal importance sampling in a region, its volume by uniform points in the ellipsoid."""
    origin, factor, radius, least = region
    n = len(origin)
    points = rng.standard_normal((n_points, n))
    points *= (radius * rng.random(n_points) ** (1 / n) / np.linalg.norm(points, axis=1))[:, None]
    share = (tile.log_values(origin + points @ factor.T, least) >= least).mean()
    near = (region.distance(draws.flat) <= radius).reshape(draws.log_values.shape)
    inside = near & (draws.log_values >= least)
    if share == 0 or not inside.any():
        return _FAILED
    log_volume = n * math.log(radius) + np.linalg.slogdet(factor)[1] + 0.5 * n * math.log(math.pi)
    log_volume += math.log(share) - gammaln(n / 2 + 1)
    over = np.where(inside, np.exp(np.minimum(least - draws.log_values, 0.0)), 0.0)
    variance = _relative_variance(over, _effective(over)) + (1 - share) / (share * n_points)
    return Estimate(log_volume + least - math.log(over.mean()), math.sqrt(variance))


def _laplace(
    density: Density, thetas: np.ndarray, log_values: np.ndarray, tile: _Tile, rng: np.random.Generator
) -> Estimate:
    """The integral over C of the normal approximation at the highest mode that the best draw leads to.

    Where components coincide at the mode it is on C's border and only a share of the normal lies within.
    """
    mode = find_mode(density, thetas[np.unravel_index(log_values.argmax(), log_values.shape)])
    if tile.target is not None and not tile.holds(mode.origin[None])[0]:
        at_mode = density.unpack(mode.origin)
        mode = find_mode(density, density.pack(at_mode.permute(match(at_mode, tile.target))))
    points = mode.origin + rng.standard_normal((_PROPOSALS, density.n_dim)) @ mode.factor.T
    low, high = thetas.min(axis=(0, 1)), thetas.max(axis=(0, 1))  # beyond them matrices may be singular
    share = tile.holds(np.clip(points, low, high)).mean()
    return Estimate(mode.log_integral + math.log(share), math.nan) if share > 0 else _FAILED
