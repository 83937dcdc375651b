"""`LKJ`: standard deviations and correlations with priors of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.special import betaln, expit

from bayesgmm.bayes.coordinates import Layout, PrecisionCoordinates
from bayesgmm.bayes.priors.covariances import CovariancePrior
from bayesgmm.bayes.priors.scales import ScalesPrior
from bayesgmm.covariance import CovarianceModel
from bayesgmm.errors import InputError
from bayesgmm.mixture import GaussianMixture


@dataclass(frozen=True, eq=False)
class LKJ(CovariancePrior):
    """Correlations with the LKJ prior, independent of the standard deviations.

    Parameters
    ----------
    eta : float
        1 is uniform over correlation matrices, larger values favour weak correlations.
    scales : HalfNormal, LogNormal or Exponential
        Prior of the standard deviations. A spherical model takes the average of its parameters over the features.

    Raises
    ------
    InputError
        Where eta is not positive, or the scales are of another kind.

    Notes
    -----
    Components must be independent draws of one prior, or all equal: models VEI, EVI, VEE, EVV, EEV, VEV, EVE and VVE
    have no posterior under this prior. EM cannot maximise under it either; it fits without priors.

    References
    ----------
    Lewandowski, D., Kurowicka, D., & Joe, H. (2009). Generating random correlation matrices based on vines and extended
    onion method. Journal of Multivariate Analysis, 100, 1989-2001. https://doi.org/10.1016/j.jmva.2009.04.008

    Examples
    --------
    >>> import bayesgmm as bg
    >>> prior = bg.LKJ(eta=2, scales=bg.HalfNormal([1.0, 15.0]))
    >>> priors = bg.Priors(1.0, bg.NormalMeans([3.5, 70.0], [5.0, 60.0]), prior)
    >>> print(priors)
    weights ~ Dirichlet(1)
    means ~ Normal([3.5, 70], sd [5, 60])
    covariances ~ standard deviations HalfNormal(scale [1, 15]), correlations LKJ(2)
    >>> priors.sample(100, n_components=2, rng=0).covariances.shape
    (100, 2, 2, 2)
    """

    eta: float
    scales: ScalesPrior

    title: ClassVar[str] = "LKJ"
    # their covariances are no independent draws of one prior
    unsupported: ClassVar[tuple[str, ...]] = ("VEI", "EVI", "VEE", "EVV", "EEV", "VEV", "EVE", "VVE")

    def __post_init__(self) -> None:
        if not (np.isfinite(self.eta) and self.eta > 0):
            raise InputError(f"eta of the LKJ prior must be positive, not {self.eta}")
        if not isinstance(self.scales, ScalesPrior):
            raise InputError(
                f"scales of the LKJ prior must be HalfNormal, LogNormal or Exponential, not {self.scales!r}"
            )

    @property
    def n_features(self) -> int | None:
        """Number of features D; None where the scales are given as numbers for all."""
        sizes = {p.size for p in self.scales.parameters if p.ndim}
        if len(sizes) > 1:
            raise InputError(f"the scales of the LKJ prior are given for {min(sizes)} and for {max(sizes)} features")
        return sizes.pop() if sizes else None

    def __str__(self) -> str:
        return f"standard deviations {self.scales}, correlations LKJ({self.eta:g})"

    def coordinates_in(self, layout: Layout, model: CovarianceModel) -> PrecisionCoordinates:
        """Log standard deviations and logits of partial correlations."""
        D = layout.n_features
        a, b = (np.broadcast_to(parameter, D) for parameter in self.scales.parameters)
        if layout.columns == 1:
            a, b = a.mean(keepdims=True), b.mean(keepdims=True)
        column = np.tril_indices(D, -1)[1][: layout.off_diagonal]
        return CorrelationCoordinates(
            layout=layout,
            prior_a=a,
            prior_b=b,
            dirichlet=np.empty(0),
            beta=self.eta + (D - 2 - column) / 2,
            scales=self.scales,
        )


@dataclass(frozen=True, eq=False)
class CorrelationCoordinates(PrecisionCoordinates):
    """Log standard deviations in place of the squares, logits of partial correlations in place of entries above.

    Partial correlations, mapped to (0, 1), have independent beta priors (Lewandowski, Kurowicka & Joe 2009).

    Parameters
    ----------
    beta : (off_diagonal,)
        Both parameters of each partial correlation's beta prior.
    scales : ScalesPrior
        Prior of the standard deviations, with parameters ``prior_a`` and ``prior_b``.
    """

    beta: np.ndarray
    scales: ScalesPrior

    kind: ClassVar[int] = 2

    def chart_fields(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Family of the standard deviations' prior, and the beta priors."""
        return {"scales": self.scales.code}, {"beta": self.beta, "U": np.eye(self.layout.n_features)}

    @property
    def factor_log_constant(self) -> float:
        """Of the standard deviations' and the beta densities."""
        value = self.layout.copies * self.scales.log_constant(self.prior_a, self.prior_b).sum()
        return float(value - self.layout.above_copies * betaln(self.beta, self.beta).sum())

    def factor_draws(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Log standard deviations and logits of partial correlations, (n, coordinates)."""
        layout = self.layout
        sds = self.scales.draws(self.prior_a, self.prior_b, (n, layout.copies, layout.columns), rng)
        u = rng.beta(self.beta, self.beta, (n, layout.above_copies, layout.off_diagonal))
        logits = np.log(u) - np.log1p(-u)
        return np.concatenate([np.log(sds).reshape(n, -1), logits.reshape(n, -1)], axis=1)

    def parts_of(self, mixture: GaussianMixture) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Log standard deviations and logits of partial correlations; no ratios, no axes."""
        covariances = mixture.covariances[..., : self.layout.copies, :, :]
        sds = np.sqrt(np.diagonal(covariances, axis1=-2, axis2=-1))
        L = np.linalg.cholesky(covariances) / sds[..., None]
        used = np.cumsum(L**2, axis=-1) - L**2  # of each row's unit length, by the entries to the left
        z = np.clip(L / np.sqrt(np.maximum(1 - used, 1e-300)), -1 + 1e-12, 1 - 1e-12)
        logits = 2 * np.arctanh(z[..., *np.tril_indices(self.layout.n_features, -1)])
        none = np.empty((*mixture.batch_shape, 0))
        return np.log(sds), logits, none, none

    def model_values(self, squares: np.ndarray, above: np.ndarray, ratios: np.ndarray) -> dict[str, np.ndarray]:
        """Standard deviations, and partial correlations mapped to (0, 1)."""
        layout = self.layout
        values = {"standard_deviations": np.exp(squares).reshape(layout.copies, layout.columns)}
        if layout.off_diagonal:
            values["half_partial_correlations"] = expit(above).reshape(layout.above_copies, layout.off_diagonal)
        return values

    def random_precisions(self) -> Any:
        """The transposed inverses of the covariances' lower Cholesky factors."""
        import pymc as pm
        import pytensor.tensor as pt

        layout, partial = self.layout, None
        shape = layout.copies, layout.columns
        sds = self.scales.random_scales("standard_deviations", self.prior_a, self.prior_b, shape)
        if layout.off_diagonal:
            shape = layout.above_copies, layout.off_diagonal
            partial = 2 * pm.Beta("half_partial_correlations", self.beta, self.beta, shape=shape) - 1
        rows = _symbolic_cholesky(sds, partial, layout)
        zero = pt.zeros_like(sds[:, 0])
        lower: Any = pt.stack([pt.stack([zero + entry for entry in row], axis=-1) for row in rows], axis=-2)
        inverse: Any = pt.linalg.inv(lower)
        return inverse.transpose(0, 2, 1)


def _symbolic_cholesky(sds: Any, partial: Any, layout: Layout) -> list[list[Any]]:
    """Entries of the covariances' lower Cholesky factors: each row shares out its length by partial correlations."""
    import pytensor.tensor as pt

    D = layout.n_features
    rows: list[list[Any]] = [[0.0] * D for _ in range(D)]
    entries = iter(range(layout.off_diagonal))
    for i, row in enumerate(rows):
        sd, rest = sds[:, i if layout.columns > 1 else 0], 1.0
        for j in range(i if layout.off_diagonal else 0):
            correlation = partial[:, next(entries)]
            row[j] = sd * correlation * rest
            rest = rest * pt.sqrt(1 - correlation**2)
        row[i] = sd * rest
    return rows
