"""Standard errors of a maximum-likelihood mixture by its observed information.

The information is that of the covariance model's free parameters, a difference quotient of the exact score, which is
the kernel's statistics (Fisher's identity). The delta method carries it to weights, means and covariances.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bayesgmm.covariance import CovarianceModel
from bayesgmm.errors import InputError
from bayesgmm.expectation import Parameters, Totals
from bayesgmm.mixture import GaussianMixture
from bayesgmm.observations import Observations
from bayesgmm.passes import InMemory, Request

_STEP = 1e-4  # of the difference quotient, over the square root of the number of rows


@dataclass(frozen=True, eq=False)
class StandardErrors:
    """Standard errors of the parameters of a mixture, in the units of the table.

    Attributes
    ----------
    weights : (K,)
    means : (K, D)
    covariances : (K, D, D)
    root : (n, K + K D + K D D)
        Matrix whose product root' root is ``covariance_matrix``; n is the number of free parameters or of replicates.
    noise_weight : float or None
        Where the mixture has noise, which is then the last column of ``root``.
    covariance_matrix : (K + K D + K D D,) * 2
        Of weights, means and covariances, each flattened, one after the other, and of the noise's weight where there is
        one.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> errors = bg.fit_em(X, 2, rng=0).standard_errors(X)
    >>> errors.weights.round(3), errors.covariance_matrix.shape
    (array([0.029, 0.029]), (14, 14))
    >>> errors
    StandardErrors(K=2, D=2, weights=[0.029 0.029])
    """

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray
    root: np.ndarray
    noise_weight: float | None = None

    def __repr__(self) -> str:
        (K, D), noise = self.means.shape, "" if self.noise_weight is None else f", noise_weight={self.noise_weight:.3g}"
        return f"StandardErrors(K={K}, D={D}, weights={np.array2string(self.weights, precision=3)}{noise})"

    @classmethod
    def of_root(cls, root: np.ndarray, n_components: int, n_features: int) -> StandardErrors:
        """The standard errors whose covariance matrix is root' root."""
        K, D = n_components, n_features
        weights, means, covariances, noise = np.split(
            np.sqrt((root**2).sum(axis=0)), np.cumsum([K, K * D, K * D * D]).tolist()
        )
        of_noise = float(noise[0]) if noise.size else None
        return cls(weights, means.reshape(K, D), covariances.reshape(K, D, D), root, of_noise)

    @cached_property
    def covariance_matrix(self) -> np.ndarray:
        """Covariances of the estimates of all parameters."""
        return self.root.T @ self.root


class FreeParameters:
    """The free parameters phi of a mixture's covariance model about that mixture, where all of them are zero.

    Parameters
    ----------
    mixture : GaussianMixture
    model : CovarianceModel

    Attributes
    ----------
    size : int
        Number n of free parameters.
    jacobian : (K + K D + K D D, n)
        Derivative of weights, means and covariances, flattened, at the mixture.
    """

    def __init__(self, mixture: GaussianMixture, model: CovarianceModel) -> None:
        copies = {"VVV": mixture.n_components, "EEE": 1}.get(model.name)
        spread = _Spectra(mixture, model) if copies is None else _Entries(mixture, copies)
        self._build, self._shape = _Build(mixture, spread), mixture.means.shape
        self.size = self._build.size
        self.jacobian = _jacobian(self._build, np.zeros(self.size))

    def mixture(self, phi: np.ndarray) -> GaussianMixture:
        """The mixture with these parameters.

        Raises
        ------
        InputError
            If there is none, as where a weight would be negative.
        """
        K, D = self._shape
        theta = self._build(phi.astype(complex)).real
        weights, means, S, noise = np.split(theta, np.cumsum([K, K * D, K * D * D]).tolist())
        S = S.reshape(K, D, D)
        rest = noise[0] if noise.size else None
        return GaussianMixture(weights, means.reshape(K, D), (S + np.swapaxes(S, 1, 2)) / 2, noise_weight=rest)

    def gradient(self, phi: np.ndarray, totals: Totals, total_weight: float) -> np.ndarray:
        """Gradient (n,) of the log-likelihood, from what the rows add up to under the mixture at phi."""
        m, statistics = self.mixture(phi), totals.statistics
        precision = m.precisions_cholesky @ np.swapaxes(m.precisions_cholesky, 1, 2)
        d_means = np.einsum("kij,kj->ki", precision, statistics.first)
        d_covariances = 0.5 * (
            precision @ statistics.scatter @ precision - statistics.counts[:, None, None] * precision
        )
        d_noise = [] if m.noise_weight is None else [(total_weight - statistics.counts.sum()) / m.noise_weight]
        by_theta = np.concatenate((statistics.counts / m.weights, d_means.ravel(), d_covariances.ravel(), d_noise))
        local = self.jacobian if self._build.linear else _jacobian(self._build, phi)
        return local.T @ by_theta


def request_of(mixture: GaussianMixture, center: np.ndarray) -> Request:
    """What the rows are to be asked about a mixture."""
    offsets = mixture.means - center
    parameters = Parameters(mixture.log_scale, offsets, mixture.precisions_cholesky, mixture.log_noise_weight)
    return Request(parameters, diagonal=False)


def curvature(free: FreeParameters, center: np.ndarray, table: Observations) -> np.ndarray:
    """How the table's log-likelihood bends downwards (n, n) at the mixture: at a maximum the observed information."""
    passes, h = InMemory(table.rows(center)), _STEP / np.sqrt(table.total_weight)
    phi = np.zeros(free.size)
    weight_of_noise = free.mixture(phi).noise_weight
    if weight_of_noise is not None and weight_of_noise <= h:
        raise InputError("the noise has no rows, and a weight at its border has no standard error; refit without noise")

    def score(shifted: np.ndarray) -> np.ndarray:
        totals = passes.totals([request_of(free.mixture(shifted), center)])
        return free.gradient(shifted, totals[0], table.total_weight)

    H = np.array([(score(phi + h * e) - score(phi - h * e)) / (2 * h) for e in np.eye(phi.size)])
    return -(H + H.T) / 2


def observed_information(mixture: GaussianMixture, model: CovarianceModel, table: Observations) -> StandardErrors:
    """Standard errors at a maximum of the table's likelihood, by inverting its curvature there.

    Raises
    ------
    InputError
        If the information is not positive definite.
    """
    free = FreeParameters(mixture, model)
    information = curvature(free, mixture.clusters.mean, table)
    values = np.linalg.eigvalsh(information)
    if not values[0] > 1e-10 * values[-1]:
        raise InputError(
            "the observed information is not positive definite here: the fit is not at a well-determined maximum "
            "(not converged, or with parameters that the data do not identify); use bootstrap()"
        )
    root = np.linalg.solve(np.linalg.cholesky(information), free.jacobian.T)
    return StandardErrors.of_root(root, mixture.n_components, mixture.n_features)


def _jacobian(build: Callable[[np.ndarray], np.ndarray], phi: np.ndarray) -> np.ndarray:
    """Derivative of build at phi to machine precision, by complex steps (Squire & Trapp 1998)."""
    return np.stack([build(phi + 1e-30j * e).imag / 1e-30 for e in np.eye(phi.size)], axis=1)


class _Build:
    """The function from free parameters phi, complex or real, to weights, means and covariances, flattened, and noise.

    The free parameters are of order one, and all zero at the mixture.
    """

    def __init__(self, mixture: GaussianMixture, covariances: _Entries | _Spectra) -> None:
        self.mixture, self.covariances = mixture, covariances
        self.linear = isinstance(covariances, _Entries)
        K, D = mixture.means.shape
        self.free_weights = K - (mixture.noise_weight is None)
        self.size = self.free_weights + K * D + covariances.size

    def __call__(self, phi: np.ndarray) -> np.ndarray:
        (K, D), n = self.mixture.means.shape, self.free_weights
        of_weights, of_means, of_covariances = np.split(phi, [n, n + K * D])
        weights = self.mixture.weights[:n] + of_weights
        weights = np.append(weights, 1 - weights.sum())
        means = self.mixture.means + of_means.reshape(K, D) * _sds(self.mixture)
        covariances = self.covariances(of_covariances)
        return np.concatenate((weights[:K], means.ravel(), covariances.ravel(), weights[K:]))


class _Entries:
    """Covariances, all free or all equal, by their distinct entries in units of the standard deviations."""

    def __init__(self, mixture: GaussianMixture, copies: int) -> None:
        self.mixture, self.copies = mixture, copies
        self.size = copies * (mixture.n_features * (mixture.n_features + 1) // 2)

    def __call__(self, phi: np.ndarray) -> np.ndarray:
        K, D = self.mixture.means.shape
        above, sds = np.triu_indices(D, 1), _sds(self.mixture)
        shift = np.zeros((self.copies, D, D), dtype=phi.dtype)
        shift[:, *np.triu_indices(D)] = phi.reshape(self.copies, -1)
        shift[:, *above[::-1]] = shift[:, *above]
        units = (sds[:, :, None] * sds[:, None, :])[: self.copies]
        return self.mixture.covariances + np.broadcast_to(shift, (K, D, D)) * units


class _Spectra:
    """Covariances by the logarithms of their volumes and shapes, and by rotations of their axes."""

    def __init__(self, mixture: GaussianMixture, model: CovarianceModel) -> None:
        K, D = mixture.means.shape
        self.volumes = np.exp(np.linalg.slogdet(mixture.covariances)[1] / D)
        if model.orientation == "I":
            self.axes = np.broadcast_to(np.eye(D), (K, D, D))
        elif model.orientation == "E":
            self.axes = np.broadcast_to(np.linalg.eigh(mixture.covariances.mean(axis=0))[1], (K, D, D))
        else:
            self.axes = np.linalg.eigh(mixture.covariances)[1]
        along_axes = np.einsum("kij,kil,klj->kj", self.axes, mixture.covariances, self.axes)
        self.shapes = along_axes / self.volumes[:, None]
        copies = {"I": 0, "E": 1, "V": K}
        angles = copies[model.orientation] * (D * (D - 1) // 2)
        self.sizes = copies[model.volume], copies[model.shape] * (D - 1), angles
        self.size = sum(self.sizes)

    def __call__(self, phi: np.ndarray) -> np.ndarray:
        K, D = self.shapes.shape
        volume, shape, angles = np.split(phi, np.cumsum(self.sizes[:2]))
        log_volume = np.broadcast_to(volume.reshape(-1, 1), (K, 1))
        log_shape = np.zeros((K, D), dtype=phi.dtype)
        if shape.size:
            log_shape = np.broadcast_to(np.insert(shape.reshape(-1, D - 1), D - 1, 0, axis=1), (K, D)).copy()
            log_shape -= log_shape.mean(axis=1, keepdims=True)
        axes = self.axes @ _rotations(angles, D) if angles.size else self.axes
        spectrum = self.volumes[:, None] * self.shapes * np.exp(log_volume + log_shape)
        return (axes * spectrum[:, None, :]) @ np.swapaxes(axes, 1, 2)


def _rotations(angles: np.ndarray, D: int) -> np.ndarray:
    """Rotations (n, D, D) of angles (n D (D - 1) / 2,), by Cayley's chart."""
    above = np.triu_indices(D, 1)
    generators = np.zeros((angles.size // len(above[0]), D, D), dtype=angles.dtype)
    generators[:, *above] = angles.reshape(len(generators), -1) / 2
    generators = generators - np.swapaxes(generators, 1, 2)
    return np.linalg.solve(np.eye(D) - generators, np.eye(D) + generators)


def _sds(mixture: GaussianMixture) -> np.ndarray:
    """Standard deviations (K, D) of each component's features."""
    return np.sqrt(np.einsum("kii->ki", mixture.covariances))
