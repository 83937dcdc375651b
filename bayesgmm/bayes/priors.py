"""Priors as small frozen values in the user's units, and the default scaled from the data."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from bayesgmm.covariance import CovarianceModel
from bayesgmm.em.initialize import whole_table
from bayesgmm.errors import InputError
from bayesgmm.observations import observations, positive_integer


def _frozen(value: Any, name: str, ndim: int) -> np.ndarray:
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must hold numbers") from error
    if array.ndim != ndim or not np.isfinite(array).all():
        raise InputError(f"{name} must be finite with {ndim} dimension{'s' * (ndim != 1)}, not of shape {array.shape}")
    array.flags.writeable = False
    return array


def _values(part: Any) -> dict[str, Any]:
    return {field.name: np.asarray(getattr(part, field.name)).tolist() for field in fields(part)}


@dataclass(frozen=True, eq=False)
class NormalMeans:
    """Independent normal prior of the component means, the same for every component.

    Parameters
    ----------
    location : (D,)
    scale : (D,)
        Standard deviations.
    """

    location: np.ndarray
    scale: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "location", _frozen(self.location, "location of the means' prior", 1))
        object.__setattr__(self, "scale", _frozen(self.scale, "scale of the means' prior", 1))
        if self.location.shape != self.scale.shape or not (self.scale > 0).all():
            raise InputError("the means' prior needs as many positive scales as locations")


@dataclass(frozen=True, eq=False)
class InverseWishart:
    """Inverse-Wishart prior of the component covariances; its mean is scale / (df - D - 1).

    Parameters
    ----------
    df : float
        Degrees of freedom, above D - 1.
    scale : (D, D)
        Symmetric positive definite.

    Notes
    -----
    Where the covariance model has diagonal covariances each variance has its inverse-Wishart margin, an inverse gamma
    ((df - D + 1)/2, scale_jj / 2); a spherical one has that of the average scale_jj.
    """

    df: float
    scale: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", _frozen(self.scale, "scale of the inverse Wishart", 2))
        D = len(self.scale)
        if self.scale.shape != (D, D) or not np.allclose(self.scale, self.scale.T):
            raise InputError("the scale of the inverse Wishart must be a symmetric (D, D) matrix")
        if not (np.linalg.eigvalsh(self.scale) > 0).all():
            raise InputError("the scale of the inverse Wishart must be positive definite")
        if not self.df > D - 1:
            raise InputError(f"the inverse Wishart needs more than D - 1 = {D - 1} degrees of freedom, not {self.df}")

    def worth(self, model: CovarianceModel) -> tuple[float, np.ndarray]:
        """The rows, and their scatter (D, D), that the prior of one covariance is worth in an M-step.

        Models for which no proper prior is defined here take the inverse Wishart's density on their covariances.
        """
        D = len(self.scale)
        diagonal = np.diag(np.diag(self.scale))
        if not model.diagonal:
            return self.df + D + 1, self.scale
        if model.shape != "I":
            return self.df - D + 3, diagonal
        return (self.df - D + 3) / D, np.eye(D) * np.diag(self.scale).mean() / D


@dataclass(frozen=True, eq=False)
class Priors:
    """Independent priors of the weights, the means and the covariances.

    Parameters
    ----------
    concentration : (K,)
        Of the Dirichlet prior of the weights.
    means : NormalMeans
    covariances : InverseWishart

    Examples
    --------
    >>> import bayesgmm as bg
    >>> print(bg.Priors.weakly_informative(bg.datasets.old_faithful(), n_components=2))
    weights ~ Dirichlet(1, 1)
    means ~ Normal([3.35, 69.5], sd [3.5, 53])
    covariances ~ inverse Wishart(df 4, scale [[0.649, 6.96], [6.96, 92.1]])
    """

    concentration: np.ndarray
    means: NormalMeans
    covariances: InverseWishart

    def __post_init__(self) -> None:
        object.__setattr__(self, "concentration", _frozen(self.concentration, "concentration", 1))
        if not (self.concentration > 0).all():
            raise InputError("every concentration must be positive")
        if len(self.means.location) != len(self.covariances.scale):
            sizes = len(self.means.location), len(self.covariances.scale)
            raise InputError(f"the means' prior has {sizes[0]} features, the covariances' {sizes[1]}")

    @classmethod
    def weakly_informative(cls, X: Any, n_components: int) -> Priors:
        """Scaled from the data: Dirichlet(1); Normal(midrange, range^2); inverse Wishart(D + 2, S / K^(2/D)).

        S is the data's covariance (Fraley & Raftery 2007), so that a component is expected to fill 1/K of the volume.
        """
        K = positive_integer(n_components, "n_components")
        table = observations(X)
        low, high = table.values.min(axis=0), table.values.max(axis=0)
        D = table.n_features
        return cls(
            concentration=np.ones(K),
            means=NormalMeans((low + high) / 2, high - low),
            covariances=InverseWishart(D + 2, whole_table(table)[1] / K ** (2 / D)),
        )

    @property
    def n_components(self) -> int:
        """Number of components K."""
        return len(self.concentration)

    @property
    def n_features(self) -> int:
        """Number of features D."""
        return len(self.means.location)

    def to_json(self) -> str:
        """All values as text, from which `from_json` makes equal priors."""
        parts = {"means": self.means, "covariances": self.covariances}
        content = {name: {"kind": type(part).__name__, **_values(part)} for name, part in parts.items()}
        return json.dumps({"concentration": self.concentration.tolist(), **content})

    @classmethod
    def from_json(cls, text: str) -> Priors:
        """Priors from what `to_json` gave."""
        content = json.loads(text)
        kinds = {kind.__name__: kind for kind in (NormalMeans, InverseWishart)}
        parts = {name: kinds[content[name].pop("kind")](**content[name]) for name in ("means", "covariances")}
        return cls(np.array(content["concentration"]), **parts)

    def __str__(self) -> str:
        def show(values: np.ndarray) -> str:
            return "[" + ", ".join(f"{v:.3g}" for v in values) + "]"

        scale = "[" + ", ".join(show(row) for row in self.covariances.scale) + "]"
        return (
            f"weights ~ Dirichlet({show(self.concentration)[1:-1]})\n"
            f"means ~ Normal({show(self.means.location)}, sd {show(self.means.scale)})\n"
            f"covariances ~ inverse Wishart(df {self.covariances.df:g}, scale {scale})"
        )
