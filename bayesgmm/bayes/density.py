"""The log posterior density and its exact gradient in unconstrained coordinates, from one pass of the kernel.

Coordinates theta, in the order of the PyMC model's: K - 1 log ratios of the weights to their geometric mean, the means
(K, D), then those of `PrecisionCoordinates`: squares (or standard deviations), entries above the diagonal, ratios.
What is compiled is one C function for all models and tables: nothing is compiled per fit, no Python runs in a sampler.
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.special import expit, gammaln, softmax

from bayesgmm import native
from bayesgmm.bayes.coordinates import (
    BARTLETT,
    CORRELATIONS,
    MARGINAL,
    SQUARES,
    VOLUMES,
    PrecisionCoordinates,
    precision_coordinates,
)
from bayesgmm.bayes.priors import Priors
from bayesgmm.covariance import CovarianceModel
from bayesgmm.mixture import GaussianMixture
from bayesgmm.native import address
from bayesgmm.observations import Observations

_SCALES = {"HalfNormal": 0, "LogNormal": 1, "Exponential": 2}  # as chart.hpp numbers them


def _addresses(arrays: dict[str, np.ndarray], held: list[np.ndarray]) -> dict[str, int]:
    """Where the arrays are as contiguous float64, which are put into ``held``."""
    held += (contiguous := [np.ascontiguousarray(array, dtype=np.float64) for array in arrays.values()])
    return dict(zip(arrays, map(address, contiguous), strict=True))


def _chart(K: int, D: int, c: PrecisionCoordinates, held: list[np.ndarray]) -> native.Chart:
    """The coordinates as compiled code takes them, while the arrays put into ``held`` are kept."""
    sizes = {name: getattr(c, name) for name in ("kind", "ratios", "copies", "columns", "above_copies", "off_diagonal")}
    arrays = {name: getattr(c, name) for name in ("first", "second", "dirichlet", "beta", "U")}
    return native.Chart(
        K=K,
        D=D,
        scales=_SCALES.get(c.scales, 0),
        n_dirichlet=len(c.dirichlet),
        strength=c.strength,
        floor=c.floor,
        **sizes,
        **_addresses(arrays, held),
    )


def mixtures(thetas: np.ndarray, K: int, D: int, coordinates: PrecisionCoordinates) -> GaussianMixture:
    """The mixtures (...) of coordinates theta (..., n)."""
    batch, flat = thetas.shape[:-1], np.ascontiguousarray(thetas, dtype=np.float64).reshape(-1, thetas.shape[-1])
    weights, means, covariances = (np.empty((len(flat), K, *shape)) for shape in ((), (D,), (D, D)))
    held: list[np.ndarray] = []
    chart = _chart(K, D, coordinates, held)
    native.mixtures(chart, address(flat), len(flat), address(weights), address(means), address(covariances))
    return GaussianMixture(
        weights=weights.reshape(*batch, K),
        means=means.reshape(*batch, K, D),
        covariances=covariances.reshape(*batch, K, D, D),
    )


def _filled_up(factor: np.ndarray) -> np.ndarray:
    """A triangular factor as density.hpp has it: single precision, zeros at its ends, from a cache line on."""
    n = len(factor)
    m = -(-n // 8) * 8
    memory = np.zeros(m * m + 16, np.float32)
    first = -(memory.ctypes.data // 4) % 16
    filled = memory[first : first + m * m].reshape(m, m)
    filled[:n, :n] = np.tril(factor)
    return filled


@dataclass(frozen=True, eq=False)
class Density:
    """Log posterior density of a mixture, up to a constant, as a function of unconstrained coordinates.

    With ``origin`` (n,) and ``factor`` (n, n), lower triangular, it is a function of u with theta = origin + factor u.
    With ``left_out`` (M,), rows by number, and ``log_odds`` (M,) it is that density times sum_i exp(log_odds_i) /
    p(x_i | theta): a mixture of the posteriors that leave out one of these rows (Silva & Zanella 2023).
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
        return precision_coordinates(self.model, self.priors)

    @property
    def n_dim(self) -> int:
        """Number of coordinates n."""
        K, D = self.priors.n_components, self.priors.n_features
        return K - 1 + K * D + sum(self.coordinates.sizes)

    @cached_property
    def log_constant(self) -> float:
        """What the value lacks, in nats, of the log of likelihood times normalised prior density of theta."""
        K, a, D = self.priors.n_components, self.priors.concentration, self.priors.n_features
        weights = math.log(K) + gammaln(a.sum()) - gammaln(a).sum()
        means = -0.5 * K * (D * math.log(2 * math.pi) + np.linalg.slogdet(self.priors.means.covariance)[1])
        return float(weights + means + self.coordinates.log_constant)

    @cached_property
    def _compiled(self) -> tuple[native.Density, list[np.ndarray]]:
        """The density as compiled code reads it, and the arrays that it points to."""
        (N, D), K = self.table.values.shape, self.priors.n_components
        held: list[np.ndarray] = []
        arrays = {
            "X": self.table.values,
            "weight": self.table.sample_weight,
            "center": self.center,
            "concentration": self.priors.concentration,
            "location": self.priors.means.location,
            "precision": self.priors.means.precision,
        }
        if self.origin is not None:
            arrays["origin"] = self.origin
        if self.left_out is not None and self.log_odds is not None:
            arrays |= {"left_out": self.table.values[self.left_out], "log_odds": self.log_odds}
        at = _addresses(arrays, held)
        if self.factor is not None:
            held.append(factor := _filled_up(self.factor))
            at["factor"] = address(factor, np.float32)
        rows = native.Rows(at.pop("X"), at.pop("center"), at.pop("weight"), self.table.sample_weight.size, None)
        struct = native.Density(
            chart=_chart(K, D, self.coordinates, held),
            rows=rows,
            N=N,
            diagonal=self.model.diagonal,
            n_left_out=0 if self.left_out is None else len(self.left_out),
            **at,
        )
        return struct, held

    @property
    def handle(self) -> int:
        """Address of the density for `native.log_density` and `native.to_theta`, while this object is alive."""
        return ctypes.addressof(self._compiled[0])

    def __call__(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """Value (nats) and gradient (n,) at x; -inf and whatever came out where they are not finite."""
        x = np.ascontiguousarray(x, dtype=np.float64)
        if x.shape != (n := self.n_dim,):
            raise ValueError(f"{n} coordinates are needed, not an array of shape {x.shape}")
        out = np.empty(1 + n)  # value and gradient, side by side since asking for an address takes long
        at = address(out)
        status = native.log_density(n, address(x), at + 8, at, self.handle)
        return (-math.inf if status else float(out[0])), out[1:]

    def expanded(self, x: np.ndarray) -> np.ndarray:
        """The coordinates theta (n,) of the coordinates x (n,) that this is a function of."""
        x, theta = np.ascontiguousarray(x, dtype=np.float64), np.empty(self.n_dim)
        native.to_theta(self.n_dim, self.n_dim, address(x), address(theta), self.handle)
        return theta

    def whitened(self, origin: np.ndarray, factor: np.ndarray) -> Density:
        """The same density as a function of u, theta = origin + factor u, with a lower triangular factor."""
        return replace(self, origin=origin, factor=factor)

    def pack(self, mixture: GaussianMixture) -> np.ndarray:
        """The coordinates theta (..., n) of mixtures (...) that the covariance model can express."""
        c, D = self.coordinates, self.priors.n_features
        log_weights = np.log(np.maximum(mixture.weights, 1e-300))
        ratios = np.empty((*mixture.batch_shape, 0))
        if c.kind == CORRELATIONS:
            covariances = mixture.covariances[..., : c.copies, :, :]
            sds = np.sqrt(np.diagonal(covariances, axis1=-2, axis2=-1))
            squares = np.log(sds)
            L = np.linalg.cholesky(covariances) / sds[..., None]
            left = np.cumsum(L**2, axis=-1) - L**2  # of each row's unit length, used up by the entries to the left
            z = np.clip(L / np.sqrt(np.maximum(1 - left, 1e-300)), -1 + 1e-12, 1 - 1e-12)
            above = 2 * np.arctanh(z[..., *np.tril_indices(D, -1)])
        else:
            A = np.linalg.solve(c.U, mixture.precisions_cholesky)
            squares = 2 * np.log(np.diagonal(A, axis1=-2, axis2=-1))
            if c.ratios == VOLUMES:
                volumes = squares.mean(axis=-1)
                ratios = volumes - volumes.mean(axis=-1, keepdims=True)
                squares = squares - ratios[..., None]
                A = A * np.exp(-0.5 * ratios)[..., None, None]
            elif c.ratios == SQUARES:
                ratios = squares - squares.mean(axis=-1, keepdims=True)
                squares = squares - ratios
            above = A[..., : c.above_copies, *np.triu_indices(D, 1)]
        parts = (
            (log_weights - log_weights.mean(axis=-1, keepdims=True))[..., :-1],
            mixture.means,
            squares[..., : c.copies, : c.columns],
            above[..., : c.off_diagonal],
            ratios[..., :-1],
        )
        return np.concatenate([part.reshape(*mixture.batch_shape, -1) for part in parts], axis=-1)

    def model_values(self, theta: np.ndarray) -> dict[str, np.ndarray]:
        """The variables of `build_model`'s model at the coordinates theta (n,)."""
        c, K, D = self.coordinates, self.priors.n_components, self.priors.n_features
        parts = np.split(theta, np.cumsum([K - 1, K * D, *c.sizes[:-1]]))
        log_weights, means, squares, above, ratios = parts
        values = {"weights": softmax(np.append(log_weights, -log_weights.sum()))} if K > 1 else {}
        values["means"] = means.reshape(K, D)
        if c.kind == CORRELATIONS:
            values["standard_deviations"] = np.exp(squares).reshape(c.copies, c.columns)
            if c.off_diagonal:
                values["half_partial_correlations"] = expit(above).reshape(c.above_copies, c.off_diagonal)
            return values
        if c.kind == MARGINAL:
            values["precision_coordinates"] = np.concatenate([squares, above])
        else:
            values["precision_squares"] = np.exp(squares).reshape(c.copies, c.columns)
        if len(ratios):
            ratios = ratios.reshape(c.vectors, -1)
            values["precision_ratios"] = softmax(np.c_[ratios, -ratios.sum(axis=1)], axis=1)
        if c.kind == BARTLETT and c.off_diagonal:
            values["precision_off_diagonal"] = above.reshape(c.above_copies, c.off_diagonal)
        return values

    def unpack(self, thetas: np.ndarray) -> GaussianMixture:
        """The mixtures (...) of coordinates theta (..., n)."""
        return mixtures(thetas, self.priors.n_components, self.priors.n_features, self.coordinates)
