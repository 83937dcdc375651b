"""The log posterior density and its exact gradient in unconstrained coordinates, from one pass of the kernel.

Coordinates theta, in the order of the PyMC model's: K - 1 log ratios of the weights to their geometric mean, the means
(K, D), logs of the squared diagonal of Bartlett's factor A (copies, columns), and A above its diagonal (copies, M).
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

from bayesgmm.bayes.coordinates import PrecisionCoordinates, precision_coordinates
from bayesgmm.bayes.priors import Priors
from bayesgmm.covariance import CovarianceModel, copy_into
from bayesgmm.expectation import Parameters, Statistics, accumulate, fill_log_prob
from bayesgmm.mixture import GaussianMixture
from bayesgmm.observations import Observations

# Layout of the table of sizes and addresses that the compiled function takes.

_ARRAYS = (
    "X",
    "sample_weight",
    "center",
    "concentration",
    "location",
    "scale",
    "df",
    "U",
    "origin",
    "factor",
    "left_out_rows",
    "left_out_log_odds",
)
_N, _D, _K, _COPIES, _COLUMNS, _OFF, _DIAGONAL, _N_WEIGHTS, _WHITENED = range(9)
_X, _WEIGHT, _CENTER, _CONCENTRATION, _LOCATION, _SCALE, _DF, _U, _ORIGIN, _FACTOR = range(9, 19)
_LEFT_OUT, _LOG_ODDS, _N_LEFT_OUT, _TABLE = range(19, 23)


@intrinsic
def _pointer(typing_context, address):
    """An integer address as a pointer to float64."""
    signature = types.CPointer(types.float64)(types.int64)
    return signature, lambda c, builder, s, args: builder.inttoptr(args[0], ir.DoubleType().as_pointer())


@njit(error_model="numpy")
def _bartlett(theta, K, D, copies, columns, off_diagonal, U, A, P):
    """A (copies, D, D) and P (K, D, D) = U A from the coordinates; the position of the log squares."""
    start = K - 1 + K * D
    above = start + copies * columns
    for c in range(copies):
        m = 0
        for i in range(D):
            for j in range(D):
                A[c, i, j] = 0.0
            A[c, i, i] = math.exp(0.5 * theta[start + c * columns + (i if columns > 1 else 0)])
            if off_diagonal:
                for j in range(i + 1, D):
                    A[c, i, j] = theta[above + c * off_diagonal + m]
                    m += 1
    for k in range(K):
        a = A[k if copies > 1 else 0]
        for i in range(D):
            for j in range(D):
                s = 0.0
                for m in range(i, j + 1):
                    s += U[i, m] * a[m, j]
                P[k, i, j] = s
    return start


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
    N, D, K, copies, columns, off = (
        table[_N],
        table[_D],
        table[_K],
        table[_COPIES],
        table[_COLUMNS],
        table[_OFF],
    )
    X = carray(_pointer(table[_X]), (N, D))
    row_weight = carray(_pointer(table[_WEIGHT]), (table[_N_WEIGHTS],))
    center = carray(_pointer(table[_CENTER]), (D,))
    concentration = carray(_pointer(table[_CONCENTRATION]), (K,))
    location, scale = carray(_pointer(table[_LOCATION]), (D,)), carray(_pointer(table[_SCALE]), (D,))
    df, U = carray(_pointer(table[_DF]), (columns,)), carray(_pointer(table[_U]), (D, D))

    log_weights, A, P = np.empty(K), np.empty((copies, D, D)), np.empty((K, D, D))
    log_scale, offsets = np.empty(K), np.empty((K, D))
    _log_weights(theta, K, log_weights)
    squares = _bartlett(theta, K, D, copies, columns, off, U, A, P)
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
            standard = (offsets[k, i] + center[i] - location[i]) / scale[i]
            value -= 0.5 * standard * standard
            s = -standard / scale[i]
            for j in range(i, D):
                s += P[k, i, j] * z[j]
            gradient[K - 1 + k * D + i] = s

    # Precisions: chi-square squares on the log scale, standard normal entries above; likelihood through P = U A.
    above = squares + copies * columns
    for c in range(copies):
        for j in range(columns):
            t = theta[squares + c * columns + j]
            value += 0.5 * (df[j] * t - math.exp(t))
            gradient[squares + c * columns + j] += 0.5 * (df[j] - math.exp(t))
        for m in range(off):
            t = theta[above + c * off + m]
            value -= 0.5 * t * t
            gradient[above + c * off + m] -= t
    dP = np.empty((D, D))
    for k in range(K):
        c = k if copies > 1 else 0
        for i in range(D):
            for j in range(D):
                s = 0.0
                for m in range(j + 1):
                    s -= scatter[k, i, m] * P[k, m, j]
                dP[i, j] = s
        m = 0
        for i in range(D):
            for j in range(i, D):
                s = 0.0
                for p in range(i + 1):
                    s += U[p, i] * dP[p, j]
                if i == j:
                    position = squares + c * columns + (i if columns > 1 else 0)
                    gradient[position] += 0.5 * (s * A[c, i, i] + counts[k])
                elif off:
                    gradient[above + c * off + m] += s
                    m += 1
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
def _unpack(thetas, K, D, copies, columns, off_diagonal, U, weights, means, covariances):
    A, P, inverse = np.empty((copies, D, D)), np.empty((K, D, D)), np.empty((D, D))
    for s in range(thetas.shape[0]):
        _log_weights(thetas[s], K, weights[s])
        for k in range(K):
            weights[s, k] = math.exp(weights[s, k])
            for j in range(D):
                means[s, k, j] = thetas[s, K - 1 + k * D + j]
        _bartlett(thetas[s], K, D, copies, columns, off_diagonal, U, A, P)
        for k in range(K):
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
        c, K, D = self.coordinates, self.priors.n_components, self.priors.n_features
        return K - 1 + K * D + c.copies * (c.columns + c.off_diagonal)

    @cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {
            "X": self.table.values,
            "sample_weight": self.table.sample_weight,
            "center": self.center,
            "concentration": self.priors.concentration,
            "location": self.priors.means.location,
            "scale": self.priors.means.scale,
            "df": self.coordinates.df,
            "U": self.coordinates.U,
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
        c = self.coordinates
        sizes = (N, D, self.priors.n_components, c.copies, c.columns, c.off_diagonal)
        flags = (self.model.diagonal, self.table.sample_weight.size, self.factor is not None)
        addresses = (self._arrays[name].ctypes.data for name in _ARRAYS)
        n_left_out = 0 if self.left_out is None else len(self.left_out)
        return np.array([*sizes, *flags, *addresses, n_left_out], dtype=np.int64)

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
        log_weights = np.log(np.maximum(mixture.weights, 1e-12))
        A = np.linalg.solve(c.U, mixture.precisions_cholesky[..., : c.copies, :, :])
        log_squares = 2 * np.log(np.diagonal(A, axis1=-2, axis2=-1))[..., : c.columns]
        above = A[..., *np.triu_indices(D, 1)][..., : c.off_diagonal]
        parts = (
            (log_weights - log_weights.mean(axis=-1, keepdims=True))[..., :-1],
            mixture.means,
            log_squares,
            above,
        )
        return np.concatenate([part.reshape(*mixture.batch_shape, -1) for part in parts], axis=-1)

    def model_values(self, theta: np.ndarray) -> dict[str, np.ndarray]:
        """The variables of `build_model`'s model at the coordinates theta (n,)."""
        c, K, D = self.coordinates, self.priors.n_components, self.priors.n_features
        ratios, means, log_squares, above = np.split(theta, np.cumsum([K - 1, K * D, c.copies * c.columns]))
        exponentials = np.exp(np.append(ratios, -ratios.sum()))
        values = {
            "weights": exponentials / exponentials.sum(),
            "means": means.reshape(K, D),
            "precision_squares": np.exp(log_squares).reshape(c.copies, c.columns),
            "precision_off_diagonal": above.reshape(c.copies, c.off_diagonal),
        }
        absent = [] if K > 1 else ["weights"]
        absent += [] if c.off_diagonal else ["precision_off_diagonal"]
        return {name: value for name, value in values.items() if name not in absent}

    def unpack(self, thetas: np.ndarray) -> GaussianMixture:
        """The mixtures (...) of coordinates theta (..., n)."""
        c, K, D = self.coordinates, self.priors.n_components, self.priors.n_features
        flat = np.ascontiguousarray(thetas, dtype=np.float64).reshape(-1, self.n_dim)
        weights, means = np.empty((len(flat), K)), np.empty((len(flat), K, D))
        covariances = np.empty((len(flat), K, D, D))
        _unpack(flat, K, D, c.copies, c.columns, c.off_diagonal, c.U, weights, means, covariances)
        batch = thetas.shape[:-1]
        return GaussianMixture(
            weights=weights.reshape(*batch, K),
            means=means.reshape(*batch, K, D),
            covariances=covariances.reshape(*batch, K, D, D),
        )
