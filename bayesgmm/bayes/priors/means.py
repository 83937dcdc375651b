"""`NormalMeans`: the prior of the component means."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bayesgmm.bayes.priors.values import frozen, shown
from bayesgmm.errors import InputError


@dataclass(frozen=True, eq=False)
class NormalMeans:
    """Normal prior of the component means, independent and the same for every component.

    Parameters
    ----------
    location : (D,)
        Mean, in the features' units.
    scale : (D,), optional
        Standard deviations of independent features, in their units.
    covariance : (D, D), optional
        Symmetric positive definite, for features whose means are correlated. Give either this or ``scale``; the other
        one is then derived from it.

    Raises
    ------
    InputError
        Unless exactly one of scale and covariance is given, positive and of the location's size.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> bg.NormalMeans([0.0, 10.0], [1.0, 5.0]).covariance
    array([[ 1.,  0.],
           [ 0., 25.]])
    >>> print(bg.NormalMeans([0.0, 10.0], covariance=[[1.0, 2.0], [2.0, 25.0]]))
    Normal([0, 10], sd [1, 5], correlated)
    """

    location: np.ndarray
    scale: np.ndarray = field(default=None, metadata={"stored": False})  # type: ignore[arg-type]
    covariance: np.ndarray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        location = frozen(self.location, "location of the means' prior", 1)
        if (self.scale is None) == (self.covariance is None):
            raise InputError("the means' prior needs a scale or a covariance, one of them")
        if self.covariance is None:
            scale = frozen(self.scale, "scale of the means' prior", 1)
            covariance = frozen(np.diag(scale**2), "covariance of the means' prior", 2)
        else:
            covariance = frozen(self.covariance, "covariance of the means' prior", 2)
            scale = frozen(np.sqrt(np.maximum(np.diag(covariance), 0)), "scale of the means' prior", 1)
        if location.shape != scale.shape or not (scale > 0).all():
            raise InputError("the means' prior needs as many positive scales as locations")
        correlation = covariance / np.outer(scale, scale)
        if not (np.allclose(correlation, correlation.T) and np.linalg.eigvalsh(correlation)[0] > 0):
            raise InputError("the covariance of the means' prior must be symmetric and positive definite")
        for name, value in (("location", location), ("scale", scale), ("covariance", covariance)):
            object.__setattr__(self, name, value)

    @property
    def n_features(self) -> int:
        """Number of features D."""
        return len(self.location)

    @property
    def precision(self) -> np.ndarray:
        """Inverse of the covariance (D, D)."""
        correlation = self.covariance / np.outer(self.scale, self.scale)  # features may be in very different units
        return np.linalg.inv(correlation) / np.outer(self.scale, self.scale)

    @property
    def correlated(self) -> bool:
        """Whether any two features' means are correlated."""
        return bool(np.count_nonzero(self.covariance) > len(self.scale))

    @property
    def log_constant(self) -> float:
        """Log normalising constant of one mean's density, nats."""
        return -0.5 * float(self.n_features * math.log(2 * math.pi) + np.linalg.slogdet(self.covariance)[1])

    def draws(self, n: int, n_components: int, rng: np.random.Generator) -> np.ndarray:
        """Draws (n, K, D) of the means of K components."""
        return rng.multivariate_normal(self.location, self.covariance, (n, n_components), method="cholesky")

    def random_means(self) -> Any:
        """The random variable ``means`` (K, D) of the PyMC model in context, which has its dims."""
        import pymc as pm

        dims = ("component", "feature")
        if self.correlated:
            return pm.MvNormal("means", self.location, self.covariance, dims=dims)
        return pm.Normal("means", self.location, self.scale, dims=dims)

    def __str__(self) -> str:
        return f"Normal({shown(self.location)}, sd {shown(self.scale)}{', correlated' if self.correlated else ''})"
