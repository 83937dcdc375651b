"""`HierarchicalInverseWishart`: covariances that learn their common size from each other.

The scale matrix is integrated out in closed form: all of it, its diagonal (diagonal models), or, where the squares have
one product (spherical models, EVI and EVV), the one factor by which it is larger or smaller than expected.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from scipy.integrate import quad
from scipy.special import gammaln, logsumexp

from bayesgmm.bayes.coordinates import Layout, PrecisionCoordinates
from bayesgmm.bayes.priors.covariances import ConjugatePrior, ScalePrior
from bayesgmm.bayes.priors.inverse_wishart import BartlettCoordinates, InverseWishart, bartlett_parameters
from bayesgmm.bayes.priors.values import shown
from bayesgmm.covariance import CovarianceModel
from bayesgmm.errors import InputError

_LEAST_ACCEPTANCE = 1e-4  # share of the scale matrices drawn that a floor must leave, for prior draws to be had


@dataclass(frozen=True, eq=False)
class HierarchicalInverseWishart(ConjugatePrior):
    """Inverse-Wishart covariances whose scale matrix, the same for all components, itself has a Wishart prior.

    Covariances given B are inverse Wishart(df, B); B is Wishart(scale_df, scale_matrix), of mean M = scale_df
    scale_matrix. In this way the components learn their common size from each other.

    Parameters
    ----------
    df, scale_df : float
        Degrees of freedom, above D - 1.
    scale_matrix : (D, D)
        Symmetric positive definite, in the features' units.
    floor : float
        The product of all components' densities is multiplied by exp(-floor tr(M inverse covariance) / 2) for each
        component. Covariances are then inverse Wishart(df, B + floor M), and small B are less probable. With a floor of
        0 the posterior is not proper where more than about K df rows of a table are equal or lie in one plane: a
        component may shrink on them without end.

    Raises
    ------
    InputError
        Where the scale matrix is not symmetric and positive definite, there are too few degrees of freedom, or the
        floor is negative.

    Notes
    -----
    Models EEV, VEV, EVE and VVE have the priors of EEI, VEI, EVI and VVI along their axes, of uniform orientation; see
    `InverseWishart`. Each axis learns its size; in EVE one size is learned for all.

    With one feature this is the prior of Richardson & Green (1997): a variance's inverse is Gamma(df / 2, B / 2), and B
    is Gamma(scale_df / 2, 1 / (2 scale_matrix)).

    References
    ----------
    Richardson, S., & Green, P. J. (1997). On Bayesian analysis of mixtures with an unknown number of components.
    Journal of the Royal Statistical Society, Series B, 59, 731-792. https://doi.org/10.1111/1467-9868.00095

    Examples
    --------
    >>> import bayesgmm as bg
    >>> prior = bg.HierarchicalInverseWishart(df=4, scale_df=2, scale_matrix=[[0.3, 0.0], [0.0, 46.0]])
    >>> print(prior)
    inverse Wishart(df 4, scale B), B ~ Wishart(df 2, [[0.3, 0], [0, 46]])
    >>> bg.Priors(1.0, bg.NormalMeans([3.5, 70.0], [5.0, 60.0]), prior).sample(100, n_components=3, rng=0).batch_shape
    (100,)
    """

    df: float
    scale_df: float
    scale_matrix: np.ndarray
    floor: float = 0.0

    title: ClassVar[str] = "hierarchical inverse-Wishart"

    def __post_init__(self) -> None:
        if not (np.isfinite(self.floor) and self.floor >= 0):
            raise InputError(f"the floor of the hierarchical prior must be a share, at least 0, not {self.floor}")
        scale = InverseWishart(self.df, self.scale_matrix).scale
        InverseWishart(self.scale_df, scale)
        object.__setattr__(self, "scale_matrix", scale)

    @property
    def n_features(self) -> int:
        """Number of features D."""
        return len(self.scale_matrix)

    @property
    def typical_scale(self) -> np.ndarray:
        """Prior mean of the scale matrix (D, D)."""
        return self.scale_df * self.scale_matrix

    def __str__(self) -> str:
        floor = f" + {self.floor:g} of its mean" if self.floor else ""
        return (
            f"inverse Wishart(df {self.df:g}, scale B{floor}), "
            f"B ~ Wishart(df {self.scale_df:g}, {shown(self.scale_matrix)})"
        )

    def equivalent_data(self, model: CovarianceModel) -> tuple[float, np.ndarray]:
        """Number of rows, and their expected scatter (D, D), that have the effect of this prior on an M-step."""
        return InverseWishart(self.df, self.typical_scale).equivalent_data(model)

    def equivalent_data_of_scale(self, model: CovarianceModel, n_components: int) -> tuple[float, np.ndarray]:
        """Degrees of freedom and scale matrix (D, D) of that scatter's own prior, given K precisions' degrees as well.

        Given the precisions the scatter has mean degrees (scale^-1 + sum of precisions)^-1: Wishart, or in a diagonal
        model a chi-square of its own for each feature, in a spherical one a single one.
        """
        D, copies = self.n_features, 1 if model.volume == "E" else n_components
        df = self.df - D + 1 if model.diagonal or model.turned else self.df
        scale = np.diag(np.diag(self.scale_matrix)) if model.diagonal else self.scale_matrix
        if model.diagonal and model.shape == "I":
            return (self.scale_df + copies * df) / D, np.eye(D) * np.diag(scale).mean()
        return self.scale_df + copies * df, scale

    def scale_prior(self, part_of: Callable[[np.ndarray], np.ndarray]) -> ScalePrior:
        """The Wishart prior of the scale matrix; by the pseudo-inverse, as a spherical part has a corner only."""
        scale = part_of(self.scale_matrix)
        inverse = np.ascontiguousarray(np.linalg.pinv(scale))
        return ScalePrior(self.scale_df, inverse, self.floor * self.scale_df * scale)

    def coordinates_in(self, layout: Layout, model: CovarianceModel) -> PrecisionCoordinates:
        """Bartlett's coordinates, with the scale matrix integrated out of their density."""
        return MarginalCoordinates(
            **bartlett_parameters(self, layout, model), scale_df=self.scale_df, floor=float(self.floor)
        )


@dataclass(frozen=True, eq=False)
class MarginalCoordinates(BartlettCoordinates):
    """The coordinates of `BartlettCoordinates` with the scale matrix integrated out, so that they are not independent.

    Parameters
    ----------
    scale_df : float
        Degrees of freedom of the scale matrix's own Wishart prior.
    floor : float
        Share of the scale matrix's mean that is added to it.
    """

    scale_df: float
    floor: float

    kind: ClassVar[int] = 1

    @property
    def scale_matrix_is_full(self) -> bool:
        """Whether the scale matrix has entries off its diagonal to learn, not only sizes."""
        return self.layout.off_diagonal > 0 and self.layout.columns > 1

    @property
    def _matrix_size(self) -> int:
        """Rows of the scale matrix, or 1 where it is made of sizes that are learned apart."""
        return self.layout.n_features if self.scale_matrix_is_full else 1

    @property
    def _shared_entries(self) -> int:
        """Entries above the diagonal that depend on the one size that is learned."""
        return 0 if self.scale_matrix_is_full else self.layout.sizes[1]

    @property
    def _power(self) -> float:
        """The power of the scale matrix's determinant in the product of the components' densities."""
        return (self.layout.copies * self.prior_a[-1] + self._shared_entries) / 2

    @property
    def _log_acceptance(self) -> float:
        """Log probability, nats, that the floor leaves a scale matrix drawn from the Wishart distribution."""
        return _log_mean_acceptance(self.scale_df, self.scale_df * self.floor, self._power, self._matrix_size)

    def chart_fields(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The scale matrix's degrees of freedom and floor, and U."""
        numbers, arrays = super().chart_fields()
        return numbers | {"scale_df": self.scale_df, "floor": self.floor}, arrays

    @property
    def factor_log_constant(self) -> float:
        """Of the closed form of the integral over the scale matrix, and of what the floor leaves of its prior."""
        copies, df, g, size = self.layout.copies, self.prior_a[-1], self.scale_df, self._matrix_size
        n_matrices = 1 if self.scale_matrix_is_full else self.layout.columns

        def log_gamma(a: float) -> float:
            return gammaln((a - np.arange(size)) / 2).sum()

        each = log_gamma(copies * df + self._shared_entries + g) - copies * log_gamma(df) - log_gamma(g)
        value = n_matrices * (each + size * g / 2 * math.log(g))
        value -= self.layout.sizes[1] / 2 * math.log(math.pi)
        return float(value - n_matrices * self._log_acceptance)

    def drawn_factors(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Bartlett's squares and entries above the diagonal, about drawn scale matrices in place of the identity."""
        squares, above = super().drawn_factors(n, rng)
        W = self._drawn_scale_matrices(n, rng)
        if not self.scale_matrix_is_full:
            scale = W[:, None, :, 0, 0]
            return squares / scale, above / np.sqrt(scale[..., :1])
        D = self.layout.n_features
        A = np.zeros((n, self.layout.copies, D, D))
        A[..., np.arange(D), np.arange(D)] = np.sqrt(squares)
        A[..., *np.triu_indices(D, 1)] = above
        A = np.linalg.solve(np.swapaxes(np.linalg.cholesky(W), -1, -2), A)
        return np.diagonal(A, axis1=-2, axis2=-1) ** 2, A[..., *np.triu_indices(D, 1)]

    def _drawn_scale_matrices(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draws (n, matrices, size, size) of the scale matrix over its mean, floor included, by rejection."""
        g, size = self.scale_df, self._matrix_size
        W = np.empty((n, 1 if self.scale_matrix_is_full else self.layout.columns, size, size))
        if self._log_acceptance < math.log(_LEAST_ACCEPTANCE):
            raise InputError(
                f"the floor of the hierarchical prior, {self.floor:g}, is too large to draw from it: one draw in "
                f"{math.exp(-self._log_acceptance):.0f} would do; give a smaller one, or an inverse Wishart"
            )
        missing = np.ones(W.shape[:2], dtype=bool)
        while missing.any():  # the floor makes small scale matrices less probable
            drawn = _wishart(g, size, int(missing.sum()), rng)
            accepted = np.log(rng.random(len(drawn))) < _log_acceptance(drawn, g * self.floor, self._power)
            places = np.argwhere(missing)[accepted]
            W[places[:, 0], places[:, 1]] = drawn[accepted]
            missing[places[:, 0], places[:, 1]] = False
        return W / g + self.floor * np.eye(size)

    def model_values(self, squares: np.ndarray, above: np.ndarray, ratios: np.ndarray) -> dict[str, np.ndarray]:
        """The vector of all coordinates but the ratios, and these."""
        return {"precision_coordinates": np.concatenate([squares, above])} | self.model_ratios(ratios)

    def random_precisions(self) -> Any:
        """The factors U A as functions of one vector of dependent coordinates."""
        import pymc as pm

        def draw(_zeros: np.ndarray, rng: Any = None, size: Any = None) -> np.ndarray:
            shape = tuple(size or ())
            return self.factor_draws(math.prod(shape), rng).reshape(*shape, -1)

        coordinates = pm.CustomDist(
            "precision_coordinates",
            np.zeros(sum(self.layout.sizes[:2])),
            logp=lambda values, zeros: self._symbolic_log_density(values),
            random=draw,
            signature="(n)->(n)",
        )
        return self.symbolic_precisions(*self._split(coordinates))

    def _split(self, values: Any) -> tuple[Any, Any]:
        """Squares and entries above the diagonal (None without any) from the vector of the coordinates."""
        import pytensor.tensor as pt

        layout, n_squares = self.layout, self.layout.sizes[0]
        squares = pt.exp(values[:n_squares]).reshape((layout.copies, layout.columns))
        if not layout.off_diagonal:
            return squares, None
        return squares, values[n_squares:].reshape((layout.above_copies, layout.off_diagonal))

    def _symbolic_log_density(self, values: Any) -> Any:
        """Log prior density of the vector of the coordinates, nats, as a PyTensor graph."""
        import pytensor.tensor as pt

        from bayesgmm.bayes import symbolic

        layout, g = self.layout, self.scale_df
        squares, above = self._split(values)
        squares_above = 0.0 if above is None else (above**2).sum()
        value = 0.5 * (self.prior_a * pt.log(squares)).sum() - 0.5 * self.floor * squares.sum()
        value = value - 0.5 * self.floor * squares_above + self.factor_log_constant
        if not self.scale_matrix_is_full:
            power, total = layout.copies * self.prior_a + layout.sizes[1] + g, g + squares.sum(axis=0) + squares_above
            return value - 0.5 * (power * pt.log(total)).sum()
        D = layout.n_features
        A = symbolic.upper_triangular(squares, above, layout.copies, D)
        total = g * pt.eye(D) + symbolic.product(A, A.transpose(0, 2, 1)).sum(axis=0)
        return value - 0.5 * (layout.copies * self.prior_a[-1] + g) * pt.linalg.slogdet(total)[1]


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
    """Log of the mean of that over the Wishart distribution; of matrices by 20 000 fixed draws, to about 0.002."""
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
