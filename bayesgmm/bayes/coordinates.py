"""Which free coordinates the covariances of a model have under its prior: shared by the density and the PyMC model.

Under the Wishart family the precision of component k is P P' with P = U A, U U' the inverse of the scale matrix and A
upper triangular. For the inverse Wishart A has Bartlett's distribution: squares of its diagonal chi-square, entries
above it standard normal, all independent. A model with shared, diagonal or spherical covariances keeps fewer of them.
VEI and VEE multiply one A by relative volumes, distributed as those of independent spherical covariances would be; EVI
and EVV give the squares of each component the same product, their ratios distributed as free ones would be: in either
case a Dirichlet vector, in log ratios to its geometric mean. Under the hierarchical prior the scale matrix is
integrated out: all of it, its diagonal (diagonal models), or, where the squares have one product (spherical models, EVI
and EVV), the one factor by which it is larger or smaller than expected. Under `LKJ` the coordinates are standard
deviations and partial correlations (Lewandowski, Kurowicka & Joe 2009).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from scipy.integrate import quad
from scipy.special import betaln, gammaln, logsumexp

from bayesgmm.bayes.priors import LKJ, InverseWishart, Priors
from bayesgmm.covariance import CovarianceModel, precision_cholesky
from bayesgmm.errors import InputError

SUPPORTED = ("EII", "VII", "EEI", "VEI", "EVI", "VVI", "EEE", "VEE", "EVV", "VVV")
_NOT_LKJ = ("VEI", "EVI", "VEE", "EVV")  # models whose covariances are not independent draws of one prior

BARTLETT, MARGINAL, CORRELATIONS = range(3)  # inverse Wishart; with its scale matrix integrated out; LKJ
NONE, VOLUMES, SQUARES = range(3)  # what the Dirichlet vectors are the ratios of


@dataclass(frozen=True, eq=False)
class PrecisionCoordinates:
    """Shape of the precision coordinates and their prior.

    Attributes
    ----------
    kind : BARTLETT, MARGINAL or CORRELATIONS
    copies : rows of squares (of standard deviations): K, or 1 where all components share them
    columns : D, or 1 where one variance serves all features
    ratios : NONE, VOLUMES or SQUARES
    above_copies, off_diagonal : rows of entries above the diagonal and their number: D (D - 1) / 2, or 0
    first, second : (columns,) parameters of the squares' (standard deviations') prior; degrees of freedom come first
    dirichlet : (size,) concentration of the ratios
    beta : (off_diagonal,) parameter of the partial correlations' symmetric beta prior
    U : (D, D) upper triangular
    strength : degrees of freedom of the scale matrix's own Wishart prior
    floor : share of the scale matrix's mean that is added to it
    """

    kind: int
    n_components: int
    copies: int
    columns: int
    ratios: int
    above_copies: int
    off_diagonal: int
    first: np.ndarray
    second: np.ndarray
    dirichlet: np.ndarray
    beta: np.ndarray
    U: np.ndarray
    strength: float = 0.0
    floor: float = 0.0
    scales: str = ""

    @property
    def vectors(self) -> int:
        """Number of Dirichlet vectors."""
        return {NONE: 0, VOLUMES: 1, SQUARES: self.n_components}[self.ratios]

    @property
    def scale_matrix_is_full(self) -> bool:
        """Whether a hierarchical scale matrix has entries off its diagonal to learn, not only sizes."""
        return self.off_diagonal > 0 and self.columns > 1

    @cached_property
    def sizes(self) -> tuple[int, int, int]:
        """How many coordinates the squares, the entries above the diagonal and the ratios take."""
        ratios = self.vectors * (len(self.dirichlet) - 1)
        return self.copies * self.columns, self.above_copies * self.off_diagonal, ratios

    @property
    def log_constant(self) -> float:
        """Logarithm of the prior's normalising constant in these coordinates."""
        a = self.dirichlet
        ratios = math.log(len(a)) + gammaln(a.sum()) - gammaln(a).sum() if self.vectors else 0.0
        return float(self.own_constant + self.vectors * ratios)

    @property
    def own_constant(self) -> float:
        """The same without the ratios."""
        above = self.sizes[1]
        d, D, value = self.first, len(self.U), 0.0
        if self.kind == BARTLETT:
            value -= self.copies * (d / 2 * math.log(2) + gammaln(d / 2)).sum() + above / 2 * math.log(2 * math.pi)
        elif self.kind == MARGINAL:
            size, n_matrices = (D, 1) if self.scale_matrix_is_full else (1, self.columns)
            df, g, alone = d[-1], self.strength, 0 if self.scale_matrix_is_full else above

            def log_gamma(a: float) -> float:
                return gammaln((a - np.arange(size)) / 2).sum()

            each = log_gamma(self.copies * df + alone + g) - self.copies * log_gamma(df) - log_gamma(g)
            value += n_matrices * (each + size * g / 2 * math.log(g))
            value -= above / 2 * math.log(math.pi)
            value -= n_matrices * _log_mean_acceptance(g, g * self.floor, (self.copies * df + alone) / 2, size)
        else:
            value += self.copies * _LOG_CONSTANTS[self.scales](self.first, self.second).sum()
            value -= self.above_copies * betaln(self.beta, self.beta).sum()
        return float(value)

    def prior_draws(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draws (n, coordinates) from the prior."""
        own = self.own_draws(n, rng)
        if not self.vectors:
            return own
        log_q = np.log(np.maximum(rng.dirichlet(self.dirichlet, (n, self.vectors)), 1e-300))
        ratios = (log_q - log_q.mean(axis=-1, keepdims=True))[..., :-1].reshape(n, -1)
        return np.concatenate([own, ratios], axis=1)

    def own_draws(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """The same without the ratios: log squares or log standard deviations, and the entries above the diagonal."""
        above = rng.standard_normal((n, self.above_copies, self.off_diagonal))
        if self.kind == CORRELATIONS:
            draw = {
                "HalfNormal": lambda s: np.abs(rng.normal(0, self.first, s)),
                "LogNormal": lambda s: rng.lognormal(self.first, self.second, s),
                "Exponential": lambda s: rng.exponential(1 / self.first, s),
            }[self.scales]
            squares = np.log(draw((n, self.copies, self.columns)))
            u = rng.beta(self.beta, self.beta, above.shape)
            above = np.log(u) - np.log1p(-u)
        else:
            chi_square = rng.chisquare(self.first, (n, self.copies, self.columns))
            if self.kind == MARGINAL:
                chi_square, above = self._given_scale_matrices(chi_square, above, rng)
            squares = np.log(np.maximum(chi_square, 1e-300))
        return np.concatenate([squares.reshape(n, -1), above.reshape(n, -1)], axis=1)

    def _given_scale_matrices(self, squares, above, rng):
        """Bartlett's squares and entries above, about a drawn scale matrix C C' in place of the identity."""
        n, D, g = len(squares), len(self.U), self.strength
        size = D if self.scale_matrix_is_full else 1
        power = (self.copies * self.first[-1] + (0 if size > 1 else self.sizes[1])) / 2
        W = np.empty((n, 1 if size > 1 else self.columns, size, size))
        if (chance := _log_mean_acceptance(g, g * self.floor, power, size)) < math.log(1e-4):
            raise InputError(
                f"the floor of the hierarchical prior, {self.floor:g}, is too large to draw from it: one draw in "
                f"{math.exp(-chance):.0f} would do; give a smaller one, or an inverse Wishart"
            )
        missing = np.ones(W.shape[:2], dtype=bool)
        while missing.any():  # the floor makes small scale matrices less probable
            drawn = _wishart(g, size, int(missing.sum()), rng)
            kept = np.log(rng.random(len(drawn))) < _log_acceptance(drawn, g * self.floor, power)
            places = np.argwhere(missing)[kept]
            W[places[:, 0], places[:, 1]] = drawn[kept]
            missing[places[:, 0], places[:, 1]] = False
        W = W / g + self.floor * np.eye(size)
        if size == 1:
            scale = W[:, None, :, 0, 0]
            return squares / scale, above / np.sqrt(scale[..., :1])
        A = np.zeros((n, self.copies, D, D))
        A[..., np.arange(D), np.arange(D)] = np.sqrt(squares)
        A[..., *np.triu_indices(D, 1)] = above
        A = np.linalg.solve(np.swapaxes(np.linalg.cholesky(W), -1, -2), A)
        return np.diagonal(A, axis1=-2, axis2=-1) ** 2, A[..., *np.triu_indices(D, 1)]


def _wishart(df: float, size: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draws (n, size, size) of the Wishart distribution about the identity, by Bartlett's decomposition."""
    C = np.zeros((n, size, size))
    C[:, np.arange(size), np.arange(size)] = np.sqrt(rng.chisquare(df - np.arange(size), (n, size)))
    C[:, *np.tril_indices(size, -1)] = rng.standard_normal((n, size * (size - 1) // 2))
    return C @ np.swapaxes(C, -1, -2)


def _log_acceptance(W: np.ndarray, floor: float, power: float) -> np.ndarray:
    """Log of (|W| / |W + floor I|)^power for matrices W (n, size, size): what a floor leaves of their probability."""
    return power * (np.linalg.slogdet(W)[1] - np.linalg.slogdet(W + floor * np.eye(W.shape[-1]))[1])


@lru_cache
def _log_mean_acceptance(df: float, floor: float, power: float, size: int) -> float:
    """Log of its mean over the Wishart distribution; of matrices by 20 000 fixed draws, to about 0.002."""
    if floor == 0:
        return 0.0
    if size > 1:
        log_ratio = _log_acceptance(_wishart(df, size, 20_000, np.random.default_rng(0)), floor, power)
        return float(logsumexp(log_ratio) - math.log(len(log_ratio)))

    def integrand(log_w: float) -> float:
        w = math.exp(log_w)
        return math.exp(df / 2 * log_w - w / 2 - df / 2 * math.log(2) - gammaln(df / 2) - power * math.log1p(floor / w))

    places = [math.log(floor), math.log(df)]
    low, high = places[0] - 80, math.log(df + 40 * math.sqrt(df) + 100)
    return math.log(quad(integrand, low, high, points=places, limit=400, epsabs=0, epsrel=1e-11)[0])


_LOG_CONSTANTS = {
    "HalfNormal": lambda s, _: 0.5 * math.log(2 / math.pi) - np.log(s),
    "LogNormal": lambda _, s: -0.5 * math.log(2 * math.pi) - np.log(s),
    "Exponential": lambda rate, _: np.log(rate),
}


def precision_coordinates(model: CovarianceModel, priors: Priors) -> PrecisionCoordinates:
    """The coordinates of a covariance model, or an `InputError` that names the models there are."""
    prior, K, D = priors.covariances, priors.n_components, priors.n_features
    model = model.for_features(D)
    possible = [name for name in SUPPORTED if not (isinstance(prior, LKJ) and name in _NOT_LKJ)]
    if model.name not in possible:
        raise InputError(
            f"the posterior of covariance {model.name} is not available with {prior.title} covariances; fit one of "
            f"{', '.join(possible)}" + (", or give an inverse-Wishart prior" if model.name in SUPPORTED else "")
        )
    ratios = {"VE": VOLUMES, "EV": SQUARES}.get(model.volume + model.shape, NONE)
    copies = K if model.volume == "V" and ratios == NONE else 1
    columns = 1 if model.shape == "I" or ratios == SQUARES else D
    above = 0 if model.diagonal else D * (D - 1) // 2
    shape: dict[str, Any] = {
        "n_components": K,
        "copies": copies,
        "columns": columns,
        "ratios": ratios,
        "above_copies": K if model.orientation == "V" else 1,
        "off_diagonal": above,
    }
    none = np.empty(0)
    if isinstance(prior, LKJ):
        first, second = (np.broadcast_to(p, D) for p in prior.scales.parameters)
        if columns == 1:
            first, second = first.mean(keepdims=True), second.mean(keepdims=True)
        column = np.tril_indices(D, -1)[1][:above]
        beta = prior.eta + (D - 2 - column) / 2
        name = type(prior.scales).__name__
        return PrecisionCoordinates(
            CORRELATIONS, first=first, second=second, dirichlet=none, beta=beta, U=np.eye(D), scales=name, **shape
        )
    scale, strength, floor = prior.typical_scale, getattr(prior, "scale_df", 0.0), getattr(prior, "floor", 0.0)
    U = np.zeros((D, D))
    if model.diagonal:
        variances = np.full(D, np.diag(scale).mean()) if model.shape == "I" else np.diag(scale)
        np.fill_diagonal(U, 1 / np.sqrt(variances))
        degrees = np.full(D, prior.df - D + 1.0)
    else:
        precision_cholesky(scale, U)
        degrees = prior.df - np.arange(D - 1.0, -1.0, -1.0)
    dirichlet = {NONE: none, VOLUMES: np.full(K, (prior.df - D + 1) / 2), SQUARES: degrees / 2}[ratios]
    return PrecisionCoordinates(
        BARTLETT if isinstance(prior, InverseWishart) else MARGINAL,
        first=degrees if columns == D else degrees.mean(keepdims=True),
        second=np.zeros(columns),
        dirichlet=dirichlet,
        beta=none,
        U=U,
        strength=strength,
        floor=floor,
        **shape,
    )
