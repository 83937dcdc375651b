"""`InverseWishart`: covariances of known scale. Their precisions have Bartlett's independent coordinates."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.special import gammaln

from bayesgmm.bayes import frames
from bayesgmm.bayes.coordinates import Layout, PrecisionCoordinates, Ratios, proportions
from bayesgmm.bayes.priors.covariances import ConjugatePrior, ScalePrior
from bayesgmm.bayes.priors.values import frozen, shown
from bayesgmm.covariance import CovarianceModel, precision_cholesky
from bayesgmm.errors import InputError
from bayesgmm.mixture import GaussianMixture


@dataclass(frozen=True, eq=False)
class InverseWishart(ConjugatePrior):
    """Inverse-Wishart prior of the component covariances; its mean is scale / (df - D - 1).

    Parameters
    ----------
    df : float
        Degrees of freedom, above D - 1. The larger they are, the more alike the covariances.
    scale : (D, D)
        Symmetric positive definite, in the features' units.

    Raises
    ------
    InputError
        Where the scale is not symmetric and positive definite, or there are too few degrees of freedom.

    See Also
    --------
    HierarchicalInverseWishart : Learns the scale from the rows.

    Notes
    -----
    Where the covariance model has diagonal covariances each variance has its inverse-Wishart margin, an inverse gamma
    ((df - D + 1)/2, scale_jj / 2). In a spherical model the variance has that of the average scale_jj.

    Models EEV, VEV, EVE and VVE have the priors of EEI, VEI, EVI and VVI for the variances along their axes, and all
    orientations of the axes are equally probable: along an axis q the scale is q' scale q, or its mean over the
    components where each has axes of its own. Turning the features leaves these priors as they are.

    References
    ----------
    Fraley, C., & Raftery, A. E. (2007). Bayesian regularization for normal mixture estimation and model-based
    clustering. Journal of Classification, 24, 155-181. https://doi.org/10.1007/s00357-007-0004-5

    Examples
    --------
    >>> import bayesgmm as bg
    >>> prior = bg.InverseWishart(df=5, scale=[[2.0, 0.5], [0.5, 1.0]])
    >>> print(prior)
    inverse Wishart(df 5, scale [[2, 0.5], [0.5, 1]])
    >>> X = bg.datasets.old_faithful()
    >>> means = bg.NormalMeans([3.5, 70.0], [5.0, 60.0])
    >>> priors = bg.Priors(1.0, means, bg.InverseWishart(5, [[0.5, 0.0], [0.0, 80.0]]))
    >>> bg.fit_em(X, 2, priors=priors, rng=0).mixture.weights.round(2)
    array([0.36, 0.64])
    """

    df: float
    scale: np.ndarray

    title: ClassVar[str] = "inverse-Wishart"

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", frozen(self.scale, "scale of the inverse Wishart", 2))
        D = len(self.scale)
        if self.scale.shape != (D, D) or not np.allclose(self.scale, self.scale.T):
            raise InputError("the scale of the inverse Wishart must be a symmetric (D, D) matrix")
        if not (np.linalg.eigvalsh(self.scale) > 0).all():
            raise InputError("the scale of the inverse Wishart must be positive definite")
        if not self.df > D - 1:
            raise InputError(f"the inverse Wishart needs more than D - 1 = {D - 1} degrees of freedom, not {self.df}")

    @property
    def n_features(self) -> int:
        """Number of features D."""
        return len(self.scale)

    @property
    def typical_scale(self) -> np.ndarray:
        """The scale matrix (D, D)."""
        return self.scale

    @property
    def floor(self) -> float:  # type: ignore[override]
        """Nothing is added to a known scale matrix."""
        return 0.0

    def __str__(self) -> str:
        return f"inverse Wishart(df {self.df:g}, scale {shown(self.scale)})"

    def equivalent_data(self, model: CovarianceModel) -> tuple[float, np.ndarray]:
        """Number of rows, and their scatter (D, D), that have the effect of this prior of a covariance on an M-step.

        Where axes are turned (EEV, VEV, EVE, VVE) that is the prior given the axes, without the factor that makes all
        orientations equally probable.
        """
        D = len(self.scale)
        diagonal = np.diag(np.diag(self.scale))
        if model.turned:
            return self.df - D + 3, self.scale
        if not model.diagonal:
            return self.df + D + 1, self.scale
        if model.shape != "I":
            return self.df - D + 3, diagonal
        return (self.df - D + 3) / D, np.eye(D) * np.diag(self.scale).mean() / D

    def equivalent_data_of_scale(self, model: CovarianceModel, n_components: int) -> tuple[float, np.ndarray]:
        """No degrees of freedom: the scatter is known."""
        return 0.0, np.eye(len(self.scale))

    def scale_prior(self, part_of: Callable[[np.ndarray], np.ndarray]) -> ScalePrior:
        """The scale matrix is known."""
        zeros = np.zeros_like(self.scale)
        return ScalePrior(0.0, zeros, zeros)

    def coordinates_in(self, layout: Layout, model: CovarianceModel) -> PrecisionCoordinates:
        """Bartlett's coordinates."""
        return BartlettCoordinates(**bartlett_parameters(self, layout, model))


def bartlett_parameters(prior: ConjugatePrior, layout: Layout, model: CovarianceModel) -> dict[str, Any]:
    """The fields of `BartlettCoordinates`, given the scale matrix or its prior mean."""
    K, D, scale = layout.n_components, layout.n_features, prior.typical_scale
    U = np.zeros((D, D))
    if model.diagonal or layout.frames:
        variances = np.full(D, np.diag(scale).mean()) if model.shape == "I" else np.diag(scale)
        np.fill_diagonal(U, 1 / np.sqrt(variances))
        degrees = np.full(D, prior.df - D + 1.0)
    else:
        precision_cholesky(scale, U)
        degrees = prior.df - np.arange(D - 1.0, -1.0, -1.0)
    dirichlet = {
        Ratios.NONE: np.empty(0),
        Ratios.VOLUMES: np.full(K, (prior.df - D + 1) / 2),
        Ratios.SQUARES: degrees / 2,
    }
    return {
        "layout": layout,
        "prior_a": degrees if layout.columns == D else degrees.mean(keepdims=True),
        "prior_b": np.zeros(layout.columns),
        "dirichlet": dirichlet[layout.ratios],
        "U": U,
        "scale": scale,
    }


@dataclass(frozen=True, eq=False)
class BartlettCoordinates(PrecisionCoordinates):
    """The precision U A A'U', with chi-square squares of A's diagonal and standard normal entries above it.

    With U U' the inverse of the scale matrix these are Bartlett's (1933) coordinates of a Wishart precision, all
    independent; ``prior_a`` holds the degrees of freedom of the squares.

    Parameters
    ----------
    U : (D, D)
        Upper triangular.
    scale : (D, D)
        The prior's scale matrix, relative to which precisions along turned axes are taken.
    """

    U: np.ndarray
    scale: np.ndarray

    kind: ClassVar[int] = 0

    def chart_fields(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The matrix U, and the scale matrix."""
        return {}, {"U": self.U, "scale": self.scale}

    @property
    def factor_log_constant(self) -> float:
        """Of chi-square and normal densities, in the logarithms of the squares."""
        d, n_above = self.prior_a, self.layout.sizes[1]
        squares = (d / 2 * math.log(2) + gammaln(d / 2)).sum()
        return -float(self.layout.copies * squares + n_above / 2 * math.log(2 * math.pi))

    def factor_draws(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Log squares and entries above the diagonal, (n, coordinates)."""
        squares, above = self.drawn_factors(n, rng)
        return np.concatenate([np.log(np.maximum(squares, 1e-300)).reshape(n, -1), above.reshape(n, -1)], axis=1)

    def drawn_factors(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Squares (n, copies, columns), and entries above the diagonal (n, above copies, entries)."""
        layout = self.layout
        above = rng.standard_normal((n, layout.above_copies, layout.off_diagonal))
        return rng.chisquare(self.prior_a, (n, layout.copies, layout.columns)), above

    def parts_of(self, mixture: GaussianMixture) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Log squares, entries above the diagonal, centered log ratios, and axes."""
        A = np.linalg.solve(self.U, mixture.precisions_cholesky)
        squares = 2 * np.log(np.diagonal(A, axis1=-2, axis2=-1))
        axes = np.empty((*mixture.batch_shape, 0, 1, 1))
        if self.layout.frames:
            axes, squares = frames.principal_axes(mixture.covariances, self.layout.frames)
            squares = squares + np.log(frames.mean_scale(axes, self.scale))[..., None, :]
        ratios = np.empty((*mixture.batch_shape, 0))
        if self.layout.ratios is Ratios.VOLUMES:
            volumes = squares.mean(axis=-1)
            ratios = volumes - volumes.mean(axis=-1, keepdims=True)
            squares = squares - ratios[..., None]
            A = A * np.exp(-0.5 * ratios)[..., None, None]
        elif self.layout.ratios is Ratios.SQUARES:
            ratios = squares - squares.mean(axis=-1, keepdims=True)
            squares = squares - ratios
        above = A[..., : self.layout.above_copies, *np.triu_indices(self.layout.n_features, 1)]
        return squares, above, ratios, axes

    def model_values(self, squares: np.ndarray, above: np.ndarray, ratios: np.ndarray) -> dict[str, np.ndarray]:
        """Squares, entries above the diagonal, and ratios, each where the model has them."""
        layout = self.layout
        values = {"precision_squares": np.exp(squares).reshape(layout.copies, layout.columns)}
        values |= self.model_ratios(ratios)
        if layout.off_diagonal:
            values["precision_off_diagonal"] = above.reshape(layout.above_copies, layout.off_diagonal)
        return values

    def model_ratios(self, ratios: np.ndarray) -> dict[str, np.ndarray]:
        """The model's Dirichlet vectors, if any."""
        vectors, _ = self.layout.ratio_shape
        return {"precision_ratios": proportions(ratios.reshape(vectors, -1))} if len(ratios) else {}

    def random_precisions(self) -> Any:
        """The factors U A as functions of independent random variables."""
        import pymc as pm

        layout = self.layout
        squares = pm.ChiSquared("precision_squares", self.prior_a, shape=(layout.copies, layout.columns))
        above = None
        if layout.off_diagonal:
            above = pm.Normal("precision_off_diagonal", shape=(layout.above_copies, layout.off_diagonal))
        return self.symbolic_precisions(squares, above)

    def symbolic_precisions(self, squares: Any, above: Any) -> Any:
        """The factors U A, times ratios that are random variables of the PyMC model in context."""
        import pymc as pm
        import pytensor.tensor as pt

        from bayesgmm.bayes import symbolic

        layout, copies = self.layout, self.layout.copies
        vectors, entries = layout.ratio_shape
        log_ratios: Any = 0.0
        if vectors:
            log_q = pt.log(pm.Dirichlet("precision_ratios", self.dirichlet, shape=(vectors, entries)))
            log_ratios = log_q - log_q.mean(axis=-1, keepdims=True)
        if layout.ratios is Ratios.SQUARES:
            squares, copies = squares * pt.exp(log_ratios), layout.n_components
        if layout.frames:
            relative = squares * pt.exp(log_ratios[0])[:, None] if layout.ratios is Ratios.VOLUMES else squares
            return frames.symbolic_factors(frames.random_frames(layout.frames, layout.n_features), relative, self.scale)
        A = symbolic.upper_triangular(squares, above, copies, layout.n_features)
        if layout.ratios is Ratios.VOLUMES:
            A = A * pt.exp(0.5 * log_ratios[0])[:, None, None]
        return symbolic.product(pt.as_tensor(self.U)[None], A)
