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
from llvmlite import ir
from numba import carray, cfunc, njit, types
from numba.extending import intrinsic
from scipy.special import expit, gammaln, softmax

from bayesgmm.bayes.chart import SCALES, Chart, backward, forward, log_prior
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
from bayesgmm.expectation import Parameters, Statistics
from bayesgmm.mixture import GaussianMixture
from bayesgmm.numba_kernel import accumulate, copy_into, fill_log_prob
from bayesgmm.observations import Observations

# Layout of the table of integers that the compiled functions take: sizes and codes, then addresses of arrays.

_SIZES = (
    *("N", "D", "K", "n_weights", "n_left_out", "diagonal", "whitened"),
    *("kind", "scales", "copies", "columns", "ratios", "above_copies", "off_diagonal", "n_dirichlet"),
)
_ARRAYS = (
    *("X", "sample_weight", "center", "concentration", "location", "precision", "strength"),
    *("first", "second", "dirichlet", "beta", "U", "origin", "factor", "left_out_rows", "left_out_log_odds"),
)
(_N, _D, _K, _N_WEIGHTS, _N_LEFT_OUT, _DIAGONAL, _WHITENED) = range(7)
(_KIND, _SCALES, _COPIES, _COLUMNS, _RATIOS, _ABOVE_COPIES, _OFF, _N_DIRICHLET) = range(7, 15)
(_X, _WEIGHT, _CENTER, _CONCENTRATION, _LOCATION, _PRECISION, _STRENGTH) = range(15, 22)
(_FIRST, _SECOND, _DIRICHLET, _BETA, _U, _ORIGIN, _FACTOR, _LEFT_OUT, _LOG_ODDS, _TABLE) = range(22, 32)


@intrinsic
def _pointer(typing_context, address):
    """An integer address as a pointer to float64."""
    signature = types.CPointer(types.float64)(types.int64)
    return signature, lambda c, builder, s, args: builder.inttoptr(args[0], ir.DoubleType().as_pointer())


@njit(error_model="numpy")
def _chart(table, K, D):
    """The chart that a table describes."""
    columns, off = table[_COLUMNS], table[_OFF]
    return Chart(
        K - 1 + K * D,
        table[_KIND],
        table[_SCALES],
        table[_COPIES],
        columns,
        table[_RATIOS],
        table[_ABOVE_COPIES],
        off,
        carray(_pointer(table[_STRENGTH]), (2,))[0],
        carray(_pointer(table[_STRENGTH]), (2,))[1],
        carray(_pointer(table[_FIRST]), (columns,)),
        carray(_pointer(table[_SECOND]), (columns,)),
        carray(_pointer(table[_DIRICHLET]), (table[_N_DIRICHLET],)),
        carray(_pointer(table[_BETA]), (off,)),
        carray(_pointer(table[_U]), (D, D)),
    )


@njit(error_model="numpy")
def _log_weights(theta, K, log_weights):
    """Log weights (K,) from K - 1 log ratios to their geometric mean."""
    last = 0.0
    for k in range(K - 1):
        log_weights[k] = theta[k]
        last -= theta[k]
    log_weights[K - 1] = last
    largest = log_weights.max()
    total = 0.0
    for k in range(K):
        total += math.exp(log_weights[k] - largest)
    for k in range(K):
        log_weights[k] -= largest + math.log(total)


@njit(error_model="numpy")
def _leave_out(X, center, parameters, diagonal, log_odds, statistics):
    """log sum_i exp(log_odds_i) / p(x_i) over the rows of X, whose gradient is added to the statistics.

    Each row's share of the sum is a weight that its likelihood loses.
    """
    M, (K, D) = len(X), parameters.offsets.shape
    weight, largest, total = np.empty(M), -np.inf, 0.0
    fill_log_prob(X, center, parameters, diagonal, 0, M, weight)
    for i in range(M):
        weight[i] = log_odds[i] - weight[i]
        largest = max(largest, weight[i])
    for i in range(M):
        weight[i] = math.exp(weight[i] - largest)
        total += weight[i]
    for i in range(M):
        weight[i] /= -total
    lost = Statistics(np.empty(K), np.empty((K, D)), np.empty((K, D, D)))
    accumulate(X, weight, np.empty(0, np.int64), center, parameters, diagonal, 0, M, True, lost)
    for k in range(K):
        statistics.counts[k] += lost.counts[k]
        for i in range(D):
            statistics.first[k, i] += lost.first[k, i]
            for j in range(D):
                statistics.scatter[k, i, j] += lost.scatter[k, i, j]
    return largest + math.log(total)


@njit(error_model="numpy")
def _value_and_gradient(table, theta, gradient):
    N, D, K = table[_N], table[_D], table[_K]
    X = carray(_pointer(table[_X]), (N, D))
    row_weight = carray(_pointer(table[_WEIGHT]), (table[_N_WEIGHTS],))
    center = carray(_pointer(table[_CENTER]), (D,))
    concentration = carray(_pointer(table[_CONCENTRATION]), (K,))
    location, precision = carray(_pointer(table[_LOCATION]), (D,)), carray(_pointer(table[_PRECISION]), (D, D))
    chart = _chart(table, K, D)

    log_weights, A, P = np.empty(K), np.empty((K, D, D)), np.empty((K, D, D))
    log_scale, offsets = np.empty(K), np.empty((K, D))
    _log_weights(theta, K, log_weights)
    forward(theta, chart, A, P)
    for k in range(K):
        log_scale[k] = log_weights[k] - 0.5 * D * math.log(2.0 * math.pi)
        for j in range(D):
            log_scale[k] += math.log(P[k, j, j])
            offsets[k, j] = theta[K - 1 + k * D + j] - center[j]
    statistics = Statistics(np.empty(K), np.empty((K, D)), np.empty((K, D, D)))
    parameters = Parameters(log_scale, offsets, P)
    labels = np.empty(0, np.int64)
    value, _ = accumulate(X, row_weight, labels, center, parameters, table[_DIAGONAL] > 0, 0, N, True, statistics)
    if table[_N_LEFT_OUT]:
        left_out = carray(_pointer(table[_LEFT_OUT]), (table[_N_LEFT_OUT], D))
        log_odds = carray(_pointer(table[_LOG_ODDS]), (table[_N_LEFT_OUT],))
        value += _leave_out(left_out, center, parameters, table[_DIAGONAL] > 0, log_odds, statistics)
    counts, first, scatter = statistics
    gradient[:] = 0.0

    # Weights: Dirichlet density and the Jacobian of the log ratios, sum_k concentration_k log w_k.
    total = 0.0
    for k in range(K):
        value += concentration[k] * log_weights[k]
        total += concentration[k] + counts[k]
    last = concentration[K - 1] + counts[K - 1] - total * math.exp(log_weights[K - 1])
    for k in range(K - 1):
        gradient[k] = concentration[k] + counts[k] - total * math.exp(log_weights[k]) - last

    # Means: normal prior; likelihood P P' first.
    z = np.empty(D)
    for k in range(K):
        for j in range(D):
            z[j] = 0.0
            for i in range(j + 1):
                z[j] += P[k, i, j] * first[k, i]
        for i in range(D):
            s = 0.0
            for j in range(D):
                s -= precision[i, j] * (offsets[k, j] + center[j] - location[j])
            value += 0.5 * s * (offsets[k, i] + center[i] - location[i])
            for j in range(i, D):
                s += P[k, i, j] * z[j]
            gradient[K - 1 + k * D + i] = s

    # Precisions: their prior, and the likelihood through P.
    value += log_prior(theta, chart, K, D, gradient)
    dP = np.empty((D, D))
    for k in range(K):
        for i in range(D):
            for j in range(D):
                s = 0.0
                for m in range(j + 1):
                    s -= scatter[k, i, m] * P[k, m, j]
                dP[i, j] = s
        backward(theta, chart, counts, k, dP, A, P, gradient)
    return value


@njit(error_model="numpy")
def _to_theta(table, x, theta):
    """theta = origin + factor x where the coordinates are whitened, else x."""
    n = theta.size
    if not table[_WHITENED]:
        copy_into(theta, x)
        return
    origin, factor = carray(_pointer(table[_ORIGIN]), (n,)), carray(_pointer(table[_FACTOR]), (n, n))
    for i in range(n):
        s = origin[i]
        for j in range(n):
            s += factor[i, j] * x[j]
        theta[i] = s


_DOUBLES = types.CPointer(types.double)


@cfunc(types.int64(types.uint64, _DOUBLES, _DOUBLES, _DOUBLES, types.CPointer(types.int64)), cache=True)
def _log_density(n_dim, x_, gradient_, value_, table_):
    """Fill value and gradient at x; 0, or 1 where they are not finite."""
    n = types.intp(n_dim)
    table = carray(table_, (_TABLE,))
    x, gradient, value = carray(x_, (n,)), carray(gradient_, (n,)), carray(value_, (1,))
    theta, own = np.empty(n), np.empty(n)
    _to_theta(table, x, theta)
    value[0] = _value_and_gradient(table, theta, own)
    ok = np.isfinite(value[0])
    if table[_WHITENED]:
        factor = carray(_pointer(table[_FACTOR]), (n, n))
        gradient[:] = 0.0
        for i in range(n):
            for j in range(n):
                gradient[j] += factor[i, j] * own[i]
    else:
        copy_into(gradient, own)
    for i in range(n):
        ok = ok and np.isfinite(gradient[i])
    return 0 if ok else 1


@cfunc(types.int64(types.uint64, types.uint64, _DOUBLES, _DOUBLES, types.CPointer(types.int64)), cache=True)
def _expand(n_dim, n_expanded, x_, out_, table_):
    """Fill theta from the sampler's coordinates."""
    n = types.intp(n_dim)
    _to_theta(carray(table_, (_TABLE,)), carray(x_, (n,)), carray(out_, (n,)))
    return 0


@njit(cache=True, error_model="numpy")
def _unpack(thetas, K, D, chart, weights, means, covariances):
    A, P, inverse = np.empty((K, D, D)), np.empty((K, D, D)), np.empty((D, D))
    for s in range(thetas.shape[0]):
        _log_weights(thetas[s], K, weights[s])
        forward(thetas[s], chart, A, P)
        for k in range(K):
            weights[s, k] = math.exp(weights[s, k])
            for j in range(D):
                means[s, k, j] = thetas[s, K - 1 + k * D + j]
            for j in range(D):  # columns of the inverse of the upper triangular P
                for i in range(D - 1, -1, -1):
                    t = 1.0 if i == j else 0.0
                    for m in range(i + 1, j + 1):
                        t -= P[k, i, m] * inverse[m, j]
                    inverse[i, j] = t / P[k, i, i] if i <= j else 0.0
            for i in range(D):
                for j in range(D):
                    t = 0.0
                    for m in range(min(i, j) + 1):
                        t += inverse[m, i] * inverse[m, j]
                    covariances[s, k, i, j] = t


def mixtures(thetas: np.ndarray, K: int, D: int, coordinates: PrecisionCoordinates) -> GaussianMixture:
    """The mixtures (...) of coordinates theta (..., n)."""
    flat = np.ascontiguousarray(thetas, dtype=np.float64).reshape(-1, thetas.shape[-1])
    weights, means = np.empty((len(flat), K)), np.empty((len(flat), K, D))
    covariances = np.empty((len(flat), K, D, D))
    c = coordinates
    sizes = (c.kind, SCALES[c.scales], c.copies, c.columns, c.ratios, c.above_copies, c.off_diagonal)
    arrays = (np.ascontiguousarray(array) for array in (c.first, c.second, c.dirichlet, c.beta, c.U))
    _unpack(flat, K, D, Chart(K - 1 + K * D, *sizes, c.strength, c.floor, *arrays), weights, means, covariances)
    batch = thetas.shape[:-1]
    return GaussianMixture(
        weights=weights.reshape(*batch, K),
        means=means.reshape(*batch, K, D),
        covariances=covariances.reshape(*batch, K, D, D),
    )


@dataclass(frozen=True, eq=False)
class Density:
    """Log posterior density of a mixture, up to a constant, as a function of unconstrained coordinates.

    With ``origin`` (n,) and ``factor`` (n, n) it is a function of u, where theta = origin + factor u.
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
    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {
            "X": self.table.values,
            "sample_weight": self.table.sample_weight,
            "center": self.center,
            "concentration": self.priors.concentration,
            "location": self.priors.means.location,
            "precision": self.priors.means.precision,
            "strength": np.array([self.coordinates.strength, self.coordinates.floor]),
            **{name: getattr(self.coordinates, name) for name in ("first", "second", "dirichlet", "beta", "U")},
            "origin": np.zeros(1) if self.origin is None else self.origin,
            "factor": np.zeros(1) if self.factor is None else self.factor,
            "left_out_rows": self.table.values[:0] if self.left_out is None else self.table.values[self.left_out],
            "left_out_log_odds": np.zeros(0) if self.log_odds is None else self.log_odds,
        }
        return {name: np.ascontiguousarray(array, dtype=np.float64) for name, array in arrays.items()}

    @cached_property
    def address_table(self) -> np.ndarray:
        """Sizes and addresses for the compiled functions; keep this density alive while they may run."""
        N, D = self.table.values.shape
        c, K = self.coordinates, self.priors.n_components
        n_left_out = 0 if self.left_out is None else len(self.left_out)
        own = (N, D, K, self.table.sample_weight.size, n_left_out, self.model.diagonal, self.factor is not None)
        chart = (c.kind, SCALES[c.scales], c.copies, c.columns, c.ratios, c.above_copies, c.off_diagonal)
        addresses = (self._arrays[name].ctypes.data for name in _ARRAYS)
        return np.array([*own, *chart, len(c.dirichlet), *addresses], dtype=np.int64)

    compiled = (_log_density, _expand)

    def __call__(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """Value (nats) and gradient (n,) at x; -inf and NaN where they overflow."""
        x = np.ascontiguousarray(x, dtype=np.float64)
        gradient, value = np.empty(self.n_dim), np.empty(1)
        pointer = ctypes.POINTER(ctypes.c_double)
        failed = _log_density.ctypes(
            self.n_dim,
            x.ctypes.data_as(pointer),
            gradient.ctypes.data_as(pointer),
            value.ctypes.data_as(pointer),
            self.address_table.ctypes.data_as(ctypes.POINTER(ctypes.c_int64)),
        )
        return (-math.inf, gradient) if failed else (float(value[0]), gradient)

    def whitened(self, origin: np.ndarray, factor: np.ndarray) -> Density:
        """The same density as a function of u, theta = origin + factor u."""
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
