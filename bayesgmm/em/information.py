"""Uncertainty from EM alone: standard errors by the observed information, the bootstrap, a test of K against K + 1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bayesgmm.alignment import match
from bayesgmm.covariance import CovarianceModel
from bayesgmm.em import ascent
from bayesgmm.em.fit import EMFit, fit_em, fit_quietly, fitted_table, prepare
from bayesgmm.em.initialize import NO_LABELS, moments_of_mixture
from bayesgmm.errors import InputError
from bayesgmm.expectation import Parameters, expected_statistics
from bayesgmm.mixture import GaussianMixture
from bayesgmm.observations import Observations, positive_integer

_CHUNK_BYTES = 16e6  # of replicates' row weights held at a time


@dataclass(frozen=True, slots=True, eq=False)
class StandardErrors:
    """Large-sample standard errors of a fit, in the units of the table.

    Attributes
    ----------
    weights : (K,)
    means : (K, D)
    covariances : (K, D, D)
    covariance_matrix : (K + K D + K D D,) * 2
        Of weights, means and covariances, each flattened, one after the other.
    """

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray
    covariance_matrix: np.ndarray


def observed_information(fit: EMFit, X: Any, sample_weight: Any = None) -> StandardErrors:
    """Invert the observed information of the covariance model's free parameters and carry it to all parameters.

    The information is the difference quotient of the exact score, which is the kernel's statistics (Fisher's identity).
    """
    table = fitted_table(fit, X, sample_weight, ("labels", "fixed", "priors"), "standard_errors")
    phi, build = _free_parameters(fit)
    linear = _linear(fit.covariance_model)
    center = fit.mixture.mean
    J = _jacobian(build, phi)

    def score(shifted: np.ndarray) -> np.ndarray:
        theta = build(shifted.astype(complex)).real
        return (J if linear else _jacobian(build, shifted)).T @ _score(theta, fit, table, center)

    h = 1e-4 / np.sqrt(table.total_weight)
    H = np.array([(score(phi + h * e) - score(phi - h * e)) / (2 * h) for e in np.eye(phi.size)])
    information = -(H + H.T) / 2
    values = np.linalg.eigvalsh(information)
    if not values[0] > 1e-10 * values[-1]:
        raise InputError(
            "the observed information is not positive definite here: the fit is not at a well-determined maximum "
            "(not converged, or with parameters that the data do not identify); use bootstrap()"
        )
    full = J @ np.linalg.solve(information, J.T)
    K, D = fit.mixture.means.shape
    errors = np.sqrt(np.maximum(np.diag(full), 0.0))
    weights, means, covariances = np.split(errors, [K, K + K * D])
    return StandardErrors(weights, means.reshape(K, D), covariances.reshape(K, D, D), full)


def _score(theta: np.ndarray, fit: EMFit, table: Observations, center: np.ndarray) -> np.ndarray:
    """Gradient of the log-likelihood in weights, means and covariances (flattened), taken as free of one another."""
    K, D = fit.mixture.means.shape
    weights, means, S = theta[:K], theta[K : K + K * D].reshape(K, D), theta[K + K * D :].reshape(K, D, D)
    m = GaussianMixture(weights, means, (S + np.swapaxes(S, 1, 2)) / 2)
    P = m.precisions_cholesky
    parameters = Parameters(m.log_scale, means - center, P)
    _, _, (counts, first, scatter) = expected_statistics(
        table.values, table.sample_weight, NO_LABELS, center, parameters
    )
    precision = P @ np.swapaxes(P, 1, 2)
    d_means = np.einsum("kij,kj->ki", precision, first)
    d_covariances = 0.5 * (precision @ scatter @ precision - counts[:, None, None] * precision)
    return np.concatenate((counts / weights, d_means.ravel(), d_covariances.ravel()))


def _linear(model: CovarianceModel) -> bool:
    """Whether the free parameters can be the distinct covariance entries themselves."""
    return model.name in ("VVV", "EEE")


def _jacobian(build: Callable[[np.ndarray], np.ndarray], phi: np.ndarray) -> np.ndarray:
    """Derivative of build at phi to machine precision, by complex steps (Squire & Trapp 1998)."""
    return np.stack([build(phi + 1e-30j * e).imag / 1e-30 for e in np.eye(phi.size)], axis=1)


def _free_parameters(fit: EMFit) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Free parameters phi of a fit, of order one, and the function from phi, complex or real, to all parameters."""
    m, model = fit.mixture, fit.covariance_model
    K, D = m.means.shape
    sds = np.sqrt(np.einsum("kii->ki", m.covariances))
    copies = {"I": 0, "E": 1, "V": K}
    above = np.triu_indices(D, 1)
    upper = np.triu_indices(D)
    if _linear(model):
        n = 1 if model.volume == "E" else K
        start = np.zeros((n, len(upper[0])))
    else:
        n, start = 0, np.zeros((0, 0))
        lam = np.exp(np.linalg.slogdet(m.covariances)[1] / D)
        if model.orientation == "I":
            axes = np.broadcast_to(np.eye(D), (K, D, D))
        elif model.orientation == "E":
            axes = np.broadcast_to(np.linalg.eigh(m.covariances.mean(axis=0))[1], (K, D, D))
        else:
            axes = np.linalg.eigh(m.covariances)[1]
        shapes = np.einsum("kij,kil,klj->kj", axes, m.covariances, axes) / lam[:, None]

    sizes = (copies[model.volume], copies[model.shape] * (D - 1), copies[model.orientation] * len(above[0]))

    def covariances(rest: np.ndarray) -> np.ndarray:
        if _linear(model):
            shift = np.zeros((n, D, D), dtype=rest.dtype)
            shift[:, *upper] = rest.reshape(n, -1)
            shift[:, *above[::-1]] = shift[:, *above]
            return m.covariances + np.broadcast_to(shift, (K, D, D)) * (sds[:, :, None] * sds[:, None, :])[: n or 1]
        volume, shape, rotation = np.split(rest, np.cumsum(sizes[:2]))
        log_volume = np.broadcast_to(volume.reshape(-1, 1), (K, 1))
        log_shape = np.zeros((K, D), dtype=rest.dtype)
        if shape.size:
            log_shape = np.broadcast_to(np.insert(shape.reshape(-1, D - 1), D - 1, 0, axis=1), (K, D)).copy()
            log_shape -= log_shape.mean(axis=1, keepdims=True)
        Q = axes.astype(rest.dtype)
        if rotation.size:
            G = np.zeros((sizes[2] // len(above[0]), D, D), dtype=rest.dtype)
            G[:, *above] = rotation.reshape(len(G), -1) / 2
            G = G - np.swapaxes(G, 1, 2)
            Q = Q @ np.linalg.solve(np.eye(D) - G, np.eye(D) + G)  # Cayley's chart of the rotations
        spectrum = lam[:, None] * shapes * np.exp(log_volume + log_shape)
        return (Q * spectrum[:, None, :]) @ np.swapaxes(Q, 1, 2)

    def build(phi: np.ndarray) -> np.ndarray:
        w = m.weights[:-1] + phi[: K - 1]
        means = m.means + phi[K - 1 : K - 1 + K * D].reshape(K, D) * sds
        return np.concatenate((w, [1 - w.sum()], means.ravel(), covariances(phi[K - 1 + K * D :]).ravel()))

    return np.zeros(K - 1 + K * D + (start.size if _linear(model) else sum(sizes))), build


@dataclass(frozen=True, slots=True, eq=False)
class Bootstrap:
    """Bootstrap replicates of a fit.

    Attributes
    ----------
    mixture : GaussianMixture
        Batch shape (n,), components matched to the fit's; n is the number of replicates that did not collapse.
    log_likelihood : (n,)
    n_collapsed : int
    method : str
    """

    mixture: GaussianMixture
    log_likelihood: np.ndarray
    n_collapsed: int
    method: str

    def standard_errors(self) -> dict[str, np.ndarray]:
        """Standard deviation over the replicates of ``weights``, ``means`` and ``covariances``."""
        return {name: getattr(self.mixture, name).std(axis=0, ddof=1) for name in ("weights", "means", "covariances")}

    def intervals(self, ci_prob: float = 0.89) -> dict[str, np.ndarray]:
        """Percentile intervals (2, ...) of ``weights``, ``means`` and ``covariances``."""
        tails = [(1 - ci_prob) / 2, (1 + ci_prob) / 2]
        names = ("weights", "means", "covariances")
        return {name: np.quantile(getattr(self.mixture, name), tails, axis=0) for name in names}


def bootstrap(
    fit: EMFit,
    X: Any,
    *,
    method: str = "nonparametric",
    n_replicates: int = 999,
    sample_weight: Any = None,
    tolerance: float = 1e-4,
    rng: Any = None,
    progress: Callable[[int, int], None] | None = None,
) -> Bootstrap:
    """Refit a mixture to replicates of its table, each from the fit itself.

    Parameters
    ----------
    fit : EMFit
    X : (N, D) table
        The table that was fitted.
    method : {"nonparametric", "weighted", "parametric"}
        Rows drawn with replacement; exponential row weights (weighted likelihood, Newton & Raftery 1994), under which
        no row is ever left out; or new tables drawn from the fit.
    n_replicates : int
    sample_weight : (N,), optional
        As in the fit.
    tolerance : float
        Of each refit, in nats.
    rng : Generator, seed or None
    progress : callable, optional
        Called with the number of replicates done and their total.

    Returns
    -------
    Bootstrap

    Raises
    ------
    InputError
        For an unknown method, a table that does not belong to the fit, or if every replicate collapsed.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> errors = bg.bootstrap(bg.fit_em(X, 2, rng=0), X, rng=0).standard_errors()
    >>> errors["means"].round(1)
    array([[0. , 0.6],
           [0. , 0.5]])
    """
    n_replicates = positive_integer(n_replicates, "n_replicates", least=2)
    if method not in ("nonparametric", "weighted", "parametric"):
        raise InputError(f"unknown method {method!r}; use 'nonparametric', 'weighted' or 'parametric'")
    table = fitted_table(fit, X, sample_weight, ("labels", "fixed", "priors"), "bootstrap")
    rng = np.random.default_rng(rng)
    climber, _ = prepare(table, fit.covariance_model, fit.n_components, tolerance=tolerance, max_iterations=1000)
    N, total = table.n_observations, table.total_weight
    start = moments_of_mixture(fit.mixture, total, climber.center)
    chunk = 1 if method == "parametric" else max(int(_CHUNK_BYTES / (8 * N)), 1)
    probabilities = np.broadcast_to(table.sample_weight / total, N)
    outcomes: list[ascent.Outcomes] = []
    for done in range(0, n_replicates, chunk):
        size = min(chunk, n_replicates - done)
        if method == "parametric":
            values = fit.mixture.sample(N, rng)[0]
            values.flags.writeable = False
            climber = replace(climber, table=Observations(values, table.features, np.full(1, total / N)))
            outcomes.append(climber.climb(start[None])[0])
        else:
            if method == "nonparametric":
                weights = rng.multinomial(N, probabilities, size=size) * (total / N)
            else:
                weights = rng.standard_exponential((size, N)) * probabilities
                weights *= total / weights.sum(axis=1, keepdims=True)
            outcomes.append(climber.climb(np.broadcast_to(start, (size, start.size)).copy(), weights)[0])
        if progress is not None:
            progress(done + size, n_replicates)
    ends, _, weights, offsets, covariances = (np.concatenate(part) for part in zip(*outcomes, strict=True))
    kept = ends["code"] != ascent.DEGENERATE
    if not kept.any():
        raise InputError(
            "a component collapsed in every bootstrap replicate; use method='weighted' or fewer components"
        )
    mixture = GaussianMixture(weights[kept], offsets[kept] + climber.center, covariances[kept])
    mixture = mixture.permute(match(mixture, fit.mixture))
    return Bootstrap(mixture, ends["log_likelihood"][kept], int((~kept).sum()), method)


@dataclass(frozen=True, slots=True, eq=False)
class LikelihoodRatioTest:
    """Bootstrap test of K components against K + 1.

    Attributes
    ----------
    statistic : twice the difference in log-likelihood
    replicates : (n,) the same on tables drawn from the fit with K
    p_value : share of the replicates that reach the statistic, the table itself counted in
    """

    statistic: float
    replicates: np.ndarray
    p_value: float


def bootstrap_lrt(
    X: Any,
    n_components: int,
    covariance: str | CovarianceModel = "full",
    *,
    n_replicates: int = 199,
    n_starts: int = 20,
    rng: Any = None,
    progress: Callable[[int, int], None] | None = None,
) -> LikelihoodRatioTest:
    """Test ``n_components`` against one more by the parametric bootstrap of the likelihood ratio (McLachlan 1987).

    Parameters
    ----------
    X : (N, D) table
    n_components : int
        K of the null hypothesis.
    covariance : str or CovarianceModel
    n_replicates : int
    n_starts : int
        Starts of every fit, to the table and to the replicates alike.
    rng : Generator, seed or None
    progress : callable, optional
        Called with the number of replicates done and their total.

    Returns
    -------
    LikelihoodRatioTest

    Raises
    ------
    InputError, DegenerateFitError
        As `fit_em`.
    """
    n_replicates = positive_integer(n_replicates, "n_replicates")
    K = positive_integer(n_components, "n_components")
    rng = np.random.default_rng(rng)
    small = fit_em(X, K, covariance, n_starts=n_starts, rng=rng)
    large = fit_quietly(X, K + 1, covariance, n_starts=n_starts, rng=rng)  # doubtful where K are enough
    replicates = np.empty(n_replicates)
    for r in range(n_replicates):
        values, _ = small.mixture.sample(small.n_observations, rng)
        null, alternative = (fit_quietly(values, k, covariance, n_starts=n_starts, rng=rng) for k in (K, K + 1))
        replicates[r] = 2 * (alternative.log_likelihood - null.log_likelihood)
        if progress is not None:
            progress(r + 1, n_replicates)
    statistic = 2 * (large.log_likelihood - small.log_likelihood)
    return LikelihoodRatioTest(statistic, replicates, (1 + (replicates >= statistic).sum()) / (1 + n_replicates))
