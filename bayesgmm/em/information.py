"""Standard errors of a maximum-likelihood mixture by its observed information.

The information is that of the covariance model's free parameters, exact and from one pass over the rows (Louis 1982);
where rows lack values, have errors of measurement or may be noise, a difference quotient of the exact score, which is
the kernel's statistics (Fisher's identity). The delta method carries it to weights, means and covariances.

References
----------
Louis, T. A. (1982). Finding the observed information matrix when using the EM algorithm. Journal of the Royal
Statistical Society B, 44, 226-233. https://doi.org/10.1111/j.2517-6161.1982.tb01203.x
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bayesgmm.covariance import CovarianceModel
from bayesgmm.errors import InputError
from bayesgmm.expectation import Parameters, Rows, Statistics
from bayesgmm.mixture import GaussianMixture
from bayesgmm.observations import Observations
from bayesgmm.passes import InMemory, Passes, Products, Request
from bayesgmm.second_order import SecondOrderTotals

_STEP = 1e-4  # of the difference quotient of the rows' score, over the square root of their number
_STEP_OF_BUILD = 1e-5  # of that of the covariances' derivatives


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
    at : GaussianMixture
    model : CovarianceModel
    size : int
        Number n of free parameters.
    jacobian : (K + K D + K D D, n)
        Derivative of weights, means and covariances, flattened, at the mixture.
    """

    def __init__(self, mixture: GaussianMixture, model: CovarianceModel) -> None:
        copies = {"VVV": mixture.n_components, "EEE": 1}.get(model.name)
        spread = _Spectra(mixture, model) if copies is None else _Entries(mixture, copies)
        self.at, self.model = mixture, model
        self._build, self._shape = _Build(mixture, spread), mixture.means.shape
        self.size = self._build.size
        self.jacobian = jacobian(self._build, np.zeros(self.size))

    def mixture(self, phi: np.ndarray) -> GaussianMixture:
        """The mixture with these parameters.

        Raises
        ------
        InputError
            If there is none, as where a weight would be negative.
        """
        weights, means, S, noise = self._split(self._build(phi.astype(complex)).real)
        rest = noise[0] if noise.size else None
        return GaussianMixture(weights, means, (S + np.swapaxes(S, 1, 2)) / 2, noise_weight=rest)

    def gradient(self, phi: np.ndarray, statistics: Statistics, total_weight: float) -> np.ndarray:
        """Gradient (n,) of the log-likelihood, from the statistics that the rows have under the mixture at phi."""
        local = self.jacobian if self._build.linear else jacobian(self._build, phi)
        return local.T @ self._by_entries(phi.astype(complex), statistics, total_weight).real

    def curvature(self, totals: SecondOrderTotals, total_weight: float) -> np.ndarray:
        """How the log-likelihood bends downwards (n, n) at the mixture, from what its rows add up to."""
        nowhere, statistics = np.zeros(self.size, complex), totals.statistics
        means = self.at.means

        def expected(phi: np.ndarray) -> np.ndarray:
            """Gradient by entries of what the log-likelihood of rows of known components is expected to be."""
            shifted = self._split(self._build(phi))[1]
            return self._by_entries(phi, _about(shifted, means, statistics), total_weight)

        H = self.jacobian.T @ jacobian(expected, nowhere.real) + self._build.bend(expected(nowhere).real)
        own = own_coordinates(self.at, self.jacobian, totals.diagonal)
        return -(H + H.T) / 2 - own.T @ totals.bend @ own

    def _split(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Weights, means, covariances and the noise's weight, if there is one, of all entries."""
        K, D = self._shape
        weights, means, S, noise = np.split(theta, np.cumsum([K, K * D, K * D * D]))
        return weights, means.reshape(K, D), S.reshape(K, D, D), noise

    def _by_entries(self, phi: np.ndarray, statistics: Statistics, total_weight: float) -> np.ndarray:
        """Gradient of the log-likelihood by all entries of the mixture at phi, which may be complex."""
        weights, _, S, noise = self._split(self._build(phi))
        precision, (counts, first, scatter) = np.linalg.inv(S), statistics
        d_means = np.einsum("kij,kj->ki", precision, first)
        d_covariances = 0.5 * (precision @ scatter @ precision - counts[:, None, None] * precision)
        d_noise = (total_weight - counts.sum()) / noise
        return np.concatenate((counts / weights, d_means.ravel(), d_covariances.ravel(), d_noise))

    def score_products(self, totals: SecondOrderTotals) -> np.ndarray:
        """Sum (n, n) of the products of the rows' scores."""
        own = own_coordinates(self.at, self.jacobian, totals.diagonal)
        return own.T @ totals.scores @ own


def own_coordinates(mixture: GaussianMixture, jacobian: np.ndarray, diagonal: bool) -> np.ndarray:
    """Derivatives (K m, n) of the components' own coordinates, those of `second_order`.

    Parameters
    ----------
    mixture : GaussianMixture
    jacobian : (K + K D + K D D, n)
        Derivatives of its weights, means and covariances, flattened.
    diagonal : bool
        Whether the coordinates are those of diagonal covariances.
    """
    (K, D), n = mixture.means.shape, jacobian.shape[1]
    weights, means, covariances = np.split(jacobian, np.cumsum([K, K * D]))
    P = mixture.precisions_cholesky
    shifts = np.swapaxes(P, 1, 2) @ means.reshape(K, D, n)
    changes = -np.einsum("kai,kabn,kbj->kijn", P, covariances.reshape(K, D, D, n), P, optimize=True)
    changes[:, np.arange(D), np.arange(D)] /= 2
    parts = (weights / mixture.weights[:, None])[:, None], shifts, changes[:, *own_entries(D, diagonal)]
    return np.concatenate(parts, axis=1).reshape(-1, n)


def own_entries(D: int, diagonal: bool) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the precision factor's entries that are coordinates of a component."""
    return (np.arange(D),) * 2 if diagonal else np.triu_indices(D)


def _about(means: np.ndarray, other: np.ndarray, statistics: Statistics) -> Statistics:
    """Statistics about these means (K, D), from those about others."""
    counts, first, scatter = statistics
    shift = other - means
    crossed = first[:, :, None] * shift[:, None, :]
    squared = counts[:, None, None] * shift[:, :, None] * shift[:, None, :]
    return Statistics(counts, first + counts[:, None] * shift, scatter + crossed + np.swapaxes(crossed, 1, 2) + squared)


def request_of(mixture: GaussianMixture, center: np.ndarray) -> Request:
    """What the rows are to be asked about a mixture."""
    offsets = mixture.means - center
    parameters = Parameters(mixture.log_scale, offsets, mixture.precisions_cholesky, mixture.log_noise_weight)
    return Request(parameters, diagonal=False)


def second_order(
    passes: Passes, mixture: GaussianMixture, model: CovarianceModel, center: np.ndarray, scores: bool = False
) -> SecondOrderTotals:
    """What the Hessian of the log-likelihood needs to know of all rows, from one pass over them."""
    products = Products.SCORES if scores else Products.BEND
    request = request_of(mixture, center)._replace(diagonal=model.diagonal, products=products)
    totals = passes.totals([request])[0]
    assert isinstance(totals, SecondOrderTotals)
    return totals


def plain(rows: Rows) -> bool:
    """Whether products of scores can be had of rows: they are complete and exact, and none may be noise."""
    return rows.patterns is None and rows.noise is None and not rows.labels.size


def curvature(free: FreeParameters, center: np.ndarray, table: Observations) -> np.ndarray:
    """How the table's log-likelihood bends downwards (n, n) at the mixture: at a maximum the observed information."""
    rows = table.rows(center)
    passes, h = InMemory(rows), _STEP / np.sqrt(table.total_weight)
    if plain(rows):
        return free.curvature(second_order(passes, free.at, free.model, center), table.total_weight)
    phi = np.zeros(free.size)
    weight_of_noise = free.at.noise_weight
    if weight_of_noise is not None and weight_of_noise <= h:
        raise InputError("the noise has no rows, and a weight at its border has no standard error; refit without noise")

    def score(shifted: np.ndarray) -> np.ndarray:
        totals = passes.totals([request_of(free.mixture(shifted), center)])
        return free.gradient(shifted, totals[0].statistics, table.total_weight)

    H = np.array([(score(phi + h * e) - score(phi - h * e)) / (2 * h) for e in np.eye(phi.size)])
    return -(H + H.T) / 2


def observed_information(
    mixture: GaussianMixture, model: CovarianceModel, table: Observations, robust: bool = False
) -> StandardErrors:
    """Standard errors at a maximum of the table's likelihood, by inverting its curvature there.

    Raises
    ------
    InputError
        If the information is not positive definite, or robust ones cannot be had of these rows.
    """
    center = mixture.clusters.mean
    if not robust:
        free = FreeParameters(mixture, model)
        return _standard_errors(free, curvature(free, center, table))
    rows = table.rows(center)
    if not plain(rows):
        raise InputError(
            "robust standard errors cannot be had where values are missing or measured with errors, or rows may be "
            "noise; use bootstrap()"
        )
    totals = second_order(InMemory(rows), mixture, model, center, scores=True)
    return of_totals(mixture, model, totals, table.total_weight, robust)


def of_totals(
    mixture: GaussianMixture, model: CovarianceModel, totals: SecondOrderTotals, total_weight: float, robust: bool
) -> StandardErrors:
    """Standard errors at a maximum of the likelihood, from what all rows add up to there.

    Raises
    ------
    InputError
        If the information is not positive definite.
    """
    free = FreeParameters(mixture, model)
    products = free.score_products(totals) if robust else None
    return _standard_errors(free, free.curvature(totals, total_weight), products)


def _standard_errors(
    free: FreeParameters, information: np.ndarray, products: np.ndarray | None = None
) -> StandardErrors:
    """By the inverse of the information H, or by H^-1 J H^-1 where there are products J of the rows' scores."""
    values = np.linalg.eigvalsh(information)
    if not values[0] > 1e-10 * values[-1]:
        raise InputError(
            "the observed information is not positive definite here: the fit is not at a well-determined maximum "
            "(not converged, or with parameters that the data do not identify); use bootstrap()"
        )
    if products is None:
        root = np.linalg.solve(np.linalg.cholesky(information), free.jacobian.T)
    else:
        spreads, axes = np.linalg.eigh(products)
        root_of_products = np.sqrt(np.maximum(spreads, 0.0))[:, None] * axes.T
        root = root_of_products @ np.linalg.solve(information, free.jacobian.T)
    return StandardErrors.of_root(root, *free.at.means.shape)


def jacobian(build: Callable[[np.ndarray], np.ndarray], phi: np.ndarray) -> np.ndarray:
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

    def bend(self, by_entries: np.ndarray) -> np.ndarray:
        """Second derivatives (size, size) at the mixture of the entries' product with constants, such as a gradient."""
        H, n, h = np.zeros((self.size, self.size)), self.covariances.size, _STEP_OF_BUILD
        if self.linear:
            return H
        K, D = self.mixture.means.shape
        of_covariances = by_entries[K + K * D :][: K * D * D]

        def slope(phi: np.ndarray) -> np.ndarray:
            return of_covariances @ jacobian(lambda phi: self.covariances(phi).ravel(), phi)

        H[-n:, -n:] = [(slope(h * e) - slope(-h * e)) / (2 * h) for e in np.eye(n)]
        return H


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
