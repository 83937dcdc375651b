"""The mode of the posterior and the curvature there: where sampling starts, and in which units it steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np

from bayesgmm.bayes.approximation import judged
from bayesgmm.bayes.chains import Chains
from bayesgmm.bayes.density import Density
from bayesgmm.bayes.expected import expected, hessian_of
from bayesgmm.bayes.verdict import Verdict
from bayesgmm.covariance import constrained_covariances
from bayesgmm.em.information import plain, second_order
from bayesgmm.mixture import GaussianMixture
from bayesgmm.passes import InMemory, Passes

_FLAT, _WIDER = 1e-3, 0.1  # of the errors' variance: a component is flat below the one, and widened by the other
_EXACT_PAYS = 2e7  # multiply-adds of a pass, times coordinates, above which one pass beats a difference quotient


class Mode(NamedTuple):
    """The normal approximation at the mode, theta = origin + factor u with u standard normal."""

    origin: np.ndarray  # (n,)
    factor: np.ndarray  # (n, n), lower triangular
    value: float  # log posterior at the origin, nats
    around: Around | None = None  # what the log posterior is there, where it was climbed to

    @property
    def log_integral(self) -> float:
        """Laplace's approximation to the log integral of the density around the mode, nats, without its constant."""
        n = len(self.origin)
        return self.value + 0.5 * n * math.log(2 * math.pi) + float(np.linalg.slogdet(self.factor)[1])


def start_near(density: Density, mixture: GaussianMixture) -> np.ndarray:
    """Coordinates theta (n,) to climb from: a mixture's, widened by a share of the errors where one is all but flat.

    Where a variance is not above the errors of measurement EM may end at none at all, at the border of the coordinates;
    the prior keeps the mode away from there.
    """
    error = density.table.mean_error
    P = mixture.precisions_cholesky
    if np.linalg.eigvalsh(np.swapaxes(P, 1, 2) @ error @ P).max() < 1 / _FLAT:
        return density.pack(mixture)
    covariances = np.empty_like(mixture.covariances)
    constrained_covariances(density.model, np.ones(len(P)), mixture.covariances + _WIDER * error, False, covariances)
    return density.pack(replace(mixture, covariances=covariances))


class Around(NamedTuple):
    """What the log posterior is around a point."""

    value: float  # nats
    gradient: np.ndarray  # (n,)
    hessian: Callable[[np.ndarray], np.ndarray]  # (n, n); where it is a difference quotient, by these steps (n,)


def around(density: Density, theta: np.ndarray) -> Around:
    """What the log posterior is around theta.

    Its Hessian is exact where all rows are complete and exact, enough to pay for it, and none is left out.
    """
    value, gradient = density(theta)
    rows = density.table.rows(density.center)
    by_statistics = plain(rows) and density.left_out is None
    if not by_statistics or density.n_dim * density.multiply_adds < _EXACT_PAYS:
        return Around(value, gradient, lambda step: hessian(density, theta, step))

    def exact(_step: np.ndarray) -> np.ndarray:
        mixture = density.unpack(theta)
        return hessian_of(density, theta, second_order(InMemory(rows), mixture, density.model, density.center))

    return Around(value, gradient, exact)


def around_rows(prior: Density, passes: Passes, theta: np.ndarray) -> Around:
    """What the log posterior of rows is around theta, from one pass over them; its Hessian is exact."""
    mixture = prior.unpack(theta)
    totals = second_order(passes, mixture, prior.model, prior.center)
    gradient = expected(prior, mixture, totals.statistics)(theta)[1]
    value = totals.log_likelihood + prior(theta)[0]
    return Around(value, gradient, lambda _step: hessian_of(prior, theta, totals))


def hessian(density: Density, theta: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Hessian (n, n) of the log posterior: central differences of its exact gradient, by ``step`` (n,), symmetrised."""
    rows = []
    for i, h in enumerate(step):
        shift = np.zeros_like(theta)
        shift[i] = h
        rows.append((density(theta + shift)[1] - density(theta - shift)[1]) / (2 * h))
    H = np.array(rows)
    return (H + H.T) / 2


def find_mode(density: Density, theta: np.ndarray, max_steps: int = 20, tolerance: float = 1e-4) -> Mode:
    """The mode that Newton's method finds from theta, and the curvature there, as `climb_to_mode`."""
    return climb_to_mode(partial(around, density), theta, max_steps, tolerance)


def climb_to_mode(
    look: Callable[[np.ndarray], Around], theta: np.ndarray, max_steps: int = 20, tolerance: float = 1e-4
) -> Mode:
    """The mode that Newton's method finds from theta, and the curvature there.

    Steps are shortened until the log posterior rises; the search ends when a step would gain less than ``tolerance``
    nats. Where the curvature is not negative definite (in directions that are weakly identified) each eigenvalue is
    replaced by its absolute value.
    """
    here = look(theta)
    step = np.full(theta.shape, 1e-4)
    for _ in range(max_steps):
        H = here.hessian(step)
        sizes = 1 / np.sqrt(np.maximum(np.abs(np.diag(H)), 1e-12))  # units in which the curvatures are comparable
        values, vectors = np.linalg.eigh(-H * sizes[:, None] * sizes)
        values = np.maximum(np.abs(values), 1e-3)
        factor = (sizes[:, None] * vectors) / np.sqrt(values)
        step = 1e-3 * np.sqrt((factor**2).sum(axis=1))
        whitened = factor.T @ here.gradient
        if 0.5 * whitened @ whitened < tolerance:
            break
        move, length = factor @ whitened, 1.0
        while length > 1e-6:
            candidate = theta + length * move
            there = look(candidate)
            if there.value > here.value:
                break
            length /= 2
        else:
            break
        theta, here = candidate, there
    return Mode(theta, _triangular(factor), here.value, here)


def _triangular(factor: np.ndarray) -> np.ndarray:
    """The lower triangular L, of positive diagonal, with L L' = factor factor'."""
    R = np.linalg.qr(factor.T, mode="r")
    return np.ascontiguousarray((R * np.where(np.diag(R) < 0, -1.0, 1.0)[:, None]).T)


def laplace_draws(density: Density, mode: Mode, *, chains: int, draws: int, seed: int) -> tuple[Chains, Verdict]:
    """Draws of the normal approximation at the mode, and by the tail of their importance weights how good it is.

    Their statistics are the log posterior "lp" and the smoothed "log_importance_weight".
    """
    u = np.random.default_rng(seed).standard_normal((chains, draws, density.n_dim))
    thetas = mode.origin + u @ mode.factor.T
    values = density.log_densities(thetas)
    log_weight, verdict = judged("Laplace's approximation", values - mode.value + 0.5 * (u**2).sum(axis=2))
    return Chains(thetas, {"lp": values, "log_importance_weight": log_weight}), verdict
