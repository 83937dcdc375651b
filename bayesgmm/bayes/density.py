"""The log posterior density and its exact gradient in unconstrained coordinates, from one pass of the kernel.

The coordinates theta are in the order of the PyMC model's: log ratios of the weights to their geometric mean, all but
the last, which is the noise's where there is noise; the means (K, D); then those of `PrecisionCoordinates`: squares (or
standard deviations), entries above the diagonal, ratios and frames.

One C function, compiled with the package, serves all models and tables: nothing is compiled for a fit, and no Python
runs inside a sampler.
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from bayesgmm import native
from bayesgmm.bayes.coordinates import PrecisionCoordinates, dirichlet_log_constant, log_ratios, proportions
from bayesgmm.bayes.priors import Priors
from bayesgmm.covariance import CovarianceModel
from bayesgmm.expectation import in_threads, multiply_adds, n_threads
from bayesgmm.mixture import GaussianMixture
from bayesgmm.native import address
from bayesgmm.noise import Noise
from bayesgmm.observations import Observations


def _padded(factor: np.ndarray) -> np.ndarray:
    """A triangular factor as density.hpp has it: in single precision, padded with zeros to a multiple of 8 columns.

    It starts at the beginning of a cache line.
    """
    n = len(factor)
    width = -(-n // 8) * 8
    memory = np.zeros(width * width + 16, np.float32)
    start = -(memory.ctypes.data // 4) % 16
    padded = memory[start : start + width * width].reshape(width, width)
    padded[:n, :n] = np.tril(factor)
    return padded


@dataclass(frozen=True, eq=False)
class Density:
    """Log posterior density of a mixture, up to a constant, as a function of unconstrained coordinates.

    Parameters
    ----------
    table : Observations
        With noise if it has a density of it.
    center : (D,)
        Point from which the means' offsets are taken, near the rows.
    priors : Priors
        With a concentration for each component.
    model : CovarianceModel
        One that has a posterior under these priors.
    origin : (n,), optional
    factor : (n, n), optional
        Lower triangular. With these two it is a function of u, where theta = origin + factor u.
    left_out : (M,), optional
        Positions of rows.
    log_odds : (M,), optional
        With these two the density is multiplied by sum_i exp(log_odds_i) / p(x_i | theta) over the rows left out: a
        mixture of the posteriors that leave out one of these rows (Silva & Zanella 2023).

    References
    ----------
    Silva, L. A., & Zanella, G. (2024). Robust leave-one-out cross-validation for high-dimensional Bayesian models.
    Journal of the American Statistical Association, 119, 2369-2381. https://doi.org/10.1080/01621459.2023.2257893

    Examples
    --------
    >>> import bayesgmm as bg
    >>> from bayesgmm.observations import observations
    >>> X = bg.datasets.old_faithful()
    >>> fit, priors = bg.fit_em(X, 2, rng=0), bg.Priors.weakly_informative(X, 2)
    >>> density = Density(observations(X), X.mean(axis=0), priors, fit.covariance_model)
    >>> value, gradient = density(density.pack(fit.mixture))
    >>> round(value + density.log_constant, 1), gradient.shape
    (-1155.0, (11,))
    """

    table: Observations
    center: np.ndarray
    priors: Priors
    model: CovarianceModel
    origin: np.ndarray | None = None
    factor: np.ndarray | None = None
    left_out: np.ndarray | None = None
    log_odds: np.ndarray | None = None

    @cached_property
    def coordinates(self) -> PrecisionCoordinates:
        """The free coordinates of the precisions."""
        return self.priors.coordinates(self.model)

    @property
    def n_dim(self) -> int:
        """Number of coordinates n."""
        K, D = self.priors.n_components, self.priors.n_features
        return self.n_weights - 1 + K * D + sum(self.coordinates.layout.sizes)

    @cached_property
    def concentration(self) -> np.ndarray:
        """Of the weights' Dirichlet prior, (n_weights,)."""
        return self.priors.concentrations(noise=self.table.noise is not None)

    @property
    def n_weights(self) -> int:
        """Number of weights: the components', and the noise's where there is noise."""
        return self.concentration.size

    @cached_property
    def log_constant(self) -> float:
        """What is to be added to the value for the log of likelihood times normalised prior density of theta, nats."""
        means = self.priors.n_components * self.priors.means.log_constant
        return float(dirichlet_log_constant(self.concentration) + means + self.coordinates.log_constant)

    @cached_property
    def _compiled(self) -> tuple[native.Density, list[Any]]:
        """The density as compiled code reads it, and what it points to."""
        center = np.ascontiguousarray(self.center, dtype=np.float64)
        rows = self.table.rows(center)
        arrays = {
            "concentration": self.concentration,
            "location": self.priors.means.location,
            "precision": self.priors.means.precision,
        }
        if self.origin is not None:
            arrays["origin"] = self.origin
        if self.log_odds is not None:
            arrays["log_odds"] = self.log_odds
        places, contiguous = native.addresses(arrays)
        chart, arrays_of_chart = self.coordinates.compiled(self.n_weights)
        kept_alive: list[Any] = [rows, *contiguous, *arrays_of_chart]
        if self.factor is not None:
            factor = _padded(self.factor)
            kept_alive.append(factor)
            places["factor"] = address(factor, np.float32)
        struct = native.Density(
            chart=chart, rows=rows.compiled(), N=rows.n_read, diagonal=self.model.diagonal, **places
        )
        if self.left_out is not None:
            left_out = self.table.take(self.left_out).rows(center)
            struct.left_out = left_out.compiled()
            struct.n_left_out, struct.n_left_out_read = len(self.left_out), left_out.n_read
            kept_alive.append(left_out)
        return struct, kept_alive

    @property
    def handle(self) -> int:
        """Address of the density for `native.log_density` and `native.to_theta`, while this object is alive."""
        return ctypes.addressof(self._compiled[0])

    def __call__(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """Value (nats) and gradient (n,) at x.

        Where they are not finite the value is -inf and the gradient is not to be used.
        """
        x = np.ascontiguousarray(x, dtype=np.float64)
        if x.shape != (n := self.n_dim,):
            raise ValueError(f"{n} coordinates are needed, not an array of shape {x.shape}")
        out = np.empty(1 + n)  # value and gradient, side by side since asking for an address takes long
        value = address(out)
        status = native.log_density(n, address(x), value + 8, value, self.handle)
        return (-math.inf if status else float(out[0])), out[1:]

    def log_densities(self, thetas: np.ndarray) -> np.ndarray:
        """Values (...) at many points (..., n), nats, taken in threads."""
        flat = thetas.reshape(-1, thetas.shape[-1])
        ends = np.linspace(0, len(flat), n_threads() + 1).astype(int).tolist()
        _ = self.handle  # made once, before threads ask for it
        parts = in_threads(lambda ends: [self(theta)[0] for theta in flat[slice(*ends)]], list(pairwise(ends)))
        return np.concatenate(parts).reshape(thetas.shape[:-1])

    def expanded(self, x: np.ndarray) -> np.ndarray:
        """The coordinates theta (n,) that belong to the coordinates x (n,) of which this is a function."""
        x, theta = np.ascontiguousarray(x, dtype=np.float64), np.empty(self.n_dim)
        native.to_theta(self.n_dim, self.n_dim, address(x), address(theta), self.handle)
        return theta

    def whitened(self, origin: np.ndarray, factor: np.ndarray) -> Density:
        """The same density as a function of u, theta = origin + factor u, with a lower triangular factor."""
        return replace(self, origin=origin, factor=factor)

    @property
    def multiply_adds(self) -> float:
        """About how many multiply-adds one evaluation takes, by which budgets are set; as of full covariances."""
        N, D = self.table.values.shape
        return multiply_adds(N, self.priors.n_components, D, diagonal=False)

    def pack(self, mixture: GaussianMixture) -> np.ndarray:
        """The coordinates theta (..., n) of mixtures (...) that the covariance model can express."""
        weights = mixture.weights
        if self.n_weights > mixture.n_components:
            weights = np.concatenate([weights, np.asarray(mixture.noise_weight)[..., None]], axis=-1)
        parts = log_ratios(weights), mixture.means.reshape(*mixture.batch_shape, -1)
        return np.concatenate([*parts, self.coordinates.pack(mixture)], axis=-1)

    def model_values(self, theta: np.ndarray) -> dict[str, np.ndarray]:
        """The variables of `build_model`'s model at the coordinates theta (n,)."""
        K, D, sizes = self.priors.n_components, self.priors.n_features, self.coordinates.layout.sizes
        weights, means, *parts, frames = np.split(theta, np.cumsum([self.n_weights - 1, K * D, *sizes[:-1]]))
        names = {K: "weights", K + 1: "shares"}
        values = {names[self.n_weights]: proportions(weights)} if self.n_weights > 1 else {}
        values |= {"means": means.reshape(K, D)} | self.coordinates.model_values(*parts)
        return values | ({"frames": frames.reshape(self.coordinates.layout.frame_shape)} if frames.size else {})

    def unpack(self, thetas: np.ndarray) -> GaussianMixture:
        """The mixtures (...) of coordinates theta (..., n)."""
        noise = self.table.noise if isinstance(self.table.noise, Noise) else None
        return self.coordinates.mixtures(thetas, self.n_weights, noise)
