"""Priors as small frozen values in the user's units, and the default scaled from the data."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from bayesgmm.covariance import CovarianceModel, first_dependent
from bayesgmm.em.fit import EMFit
from bayesgmm.em.initialize import whole_table
from bayesgmm.errors import InputError
from bayesgmm.mixture import GaussianMixture
from bayesgmm.observations import Observations, observations, positive_integer


def _frozen(value: Any, name: str, ndim: int) -> np.ndarray:
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must hold numbers") from error
    if array.ndim != ndim or not np.isfinite(array).all():
        raise InputError(f"{name} must be finite with {ndim} dimension{'s' * (ndim != 1)}, not of shape {array.shape}")
    array.flags.writeable = False
    return array


def _show(values: np.ndarray) -> str:
    if values.ndim == 0:
        return f"{values:.3g}"
    return "[" + ", ".join(_show(v) for v in values) + "]"


_MEANS_SPREAD = 4.0  # sd of the means' default prior, in the table's sds
_FLOOR = 1e-4  # of the covariances' default prior


@dataclass(frozen=True, eq=False)
class NormalMeans:
    """Normal prior of the component means, independent and the same for every component.

    Parameters
    ----------
    location : (D,)
    scale : (D,), optional
        Standard deviations of independent features.
    covariance : (D, D), optional
        Symmetric positive definite, in place of ``scale``, which then is the roots of its diagonal.

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
    """

    location: np.ndarray
    scale: np.ndarray = None  # type: ignore[assignment]
    covariance: np.ndarray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        location = _frozen(self.location, "location of the means' prior", 1)
        if (self.scale is None) == (self.covariance is None):
            raise InputError("the means' prior needs a scale or a covariance, one of them")
        if self.covariance is None:
            scale = _frozen(self.scale, "scale of the means' prior", 1)
            covariance = _frozen(np.diag(scale**2), "covariance of the means' prior", 2)
        else:
            covariance = _frozen(self.covariance, "covariance of the means' prior", 2)
            scale = _frozen(np.sqrt(np.maximum(np.diag(covariance), 0)), "scale of the means' prior", 1)
        if location.shape != scale.shape or not (scale > 0).all():
            raise InputError("the means' prior needs as many positive scales as locations")
        correlation = covariance / np.outer(scale, scale)
        if not (np.allclose(correlation, correlation.T) and np.linalg.eigvalsh(correlation)[0] > 0):
            raise InputError("the covariance of the means' prior must be symmetric and positive definite")
        for name, value in (("location", location), ("scale", scale), ("covariance", covariance)):
            object.__setattr__(self, name, value)

    @property
    def precision(self) -> np.ndarray:
        """Inverse of the covariance (D, D)."""
        correlation = self.covariance / np.outer(self.scale, self.scale)  # features may be in very different units
        return np.linalg.inv(correlation) / np.outer(self.scale, self.scale)

    @property
    def correlated(self) -> bool:
        """Whether any two features' means are correlated."""
        return bool(np.count_nonzero(self.covariance) > len(self.scale))

    def __str__(self) -> str:
        return f"Normal({_show(self.location)}, sd {_show(self.scale)}{', correlated' if self.correlated else ''})"


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

    title = "inverse-Wishart"

    @property
    def n_features(self) -> int:
        """Number of features D."""
        return len(self.scale)

    @property
    def typical_scale(self) -> np.ndarray:
        """The scale matrix (D, D)."""
        return self.scale

    def __str__(self) -> str:
        return f"inverse Wishart(df {self.df:g}, scale {_show(self.scale)})"

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

    def worth_of_scale(self, model: CovarianceModel, n_components: int) -> tuple[float, np.ndarray]:
        """No degrees of freedom: the scatter is known."""
        return 0.0, np.eye(len(self.scale))


@dataclass(frozen=True, eq=False)
class HierarchicalInverseWishart:
    """Inverse-Wishart covariances whose scale matrix, the same for all components, has a Wishart prior itself.

    Covariances given B are inverse Wishart(df, B); B is Wishart(scale_df, scale_matrix), of mean M = scale_df
    scale_matrix. The components so learn their common size from each other. With one feature it is Richardson & Green's
    (1997) prior: a variance's inverse is Gamma(df / 2, B / 2), and B Gamma(scale_df / 2, 1 / (2 scale_matrix)).

    Parameters
    ----------
    df, scale_df : float
        Degrees of freedom, above D - 1.
    scale_matrix : (D, D)
        Symmetric positive definite.
    floor : float
        The product of all components' densities is multiplied by exp(-floor tr(M inverse covariance) / 2) for each.
        Covariances are then inverse Wishart(df, B + floor M), and small B less probable. With 0 the posterior of a
        table in which more than about K df rows are equal, or lie in one plane, is not proper: a component may shrink
        on them without end.
    """

    df: float
    scale_df: float
    scale_matrix: np.ndarray
    floor: float = 0.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.floor) and self.floor >= 0):
            raise InputError(f"the floor of the hierarchical prior must be a share, at least 0, not {self.floor}")
        scale = InverseWishart(self.df, self.scale_matrix).scale
        InverseWishart(self.scale_df, scale)
        object.__setattr__(self, "scale_matrix", scale)

    title = "hierarchical inverse-Wishart"

    @property
    def n_features(self) -> int:
        """Number of features D."""
        return len(self.scale_matrix)

    @property
    def typical_scale(self) -> np.ndarray:
        """Prior mean of the scale matrix (D, D)."""
        return self.scale_df * self.scale_matrix

    def worth(self, model: CovarianceModel) -> tuple[float, np.ndarray]:
        """The rows, and their expected scatter (D, D), that the prior of one covariance is worth in an M-step."""
        return InverseWishart(self.df, self.typical_scale).worth(model)

    def worth_of_scale(self, model: CovarianceModel, n_components: int) -> tuple[float, np.ndarray]:
        """Degrees of freedom and scale matrix (D, D) of that scatter's own prior, given K precisions' degrees as well.

        Given the precisions the scatter has mean degrees (scale^-1 + sum of precisions)^-1: Wishart, or in a diagonal
        model a chi-square of its own for each feature, in a spherical one a single one.
        """
        D, copies = self.n_features, 1 if model.volume == "E" else n_components
        own = self.df - D + 1 if model.diagonal else self.df
        scale = np.diag(np.diag(self.scale_matrix)) if model.diagonal else self.scale_matrix
        if model.diagonal and model.shape == "I":
            return (self.scale_df + copies * own) / D, np.eye(D) * np.diag(scale).mean()
        return self.scale_df + copies * own, scale

    def __str__(self) -> str:
        at_least = f" + {self.floor:g} of its mean" if self.floor else ""
        return (
            f"inverse Wishart(df {self.df:g}, scale B{at_least}), "
            f"B ~ Wishart(df {self.scale_df:g}, {_show(self.scale_matrix)})"
        )


class _Scales:
    """A prior of standard deviations: parameters as numbers, or one for each feature."""

    def __post_init__(self) -> None:
        for field in fields(self):  # type: ignore[arg-type]
            value = np.asarray(getattr(self, field.name), dtype=np.float64)
            value = _frozen(value, f"{field.name} of {type(self).__name__}", 1 if value.ndim else 0)
            if field.name != "location" and not (value > 0).all():
                raise InputError(f"{field.name} of {type(self).__name__} must be positive, not {value}")
            object.__setattr__(self, field.name, value)

    @property
    def parameters(self) -> tuple[np.ndarray, np.ndarray]:
        """First and second parameter."""
        values = [getattr(self, field.name) for field in fields(self)]  # type: ignore[arg-type]
        return values[0], values[-1]

    def __str__(self) -> str:
        values = (f"{field.name} {_show(getattr(self, field.name))}" for field in fields(self))  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(values)})"


@dataclass(frozen=True, eq=False)
class HalfNormal(_Scales):
    """Standard deviations with a half-normal prior of the given ``scale``, a number or (D,), in the feature's units."""

    scale: Any
    __str__ = _Scales.__str__


@dataclass(frozen=True, eq=False)
class LogNormal(_Scales):
    """Standard deviations whose logarithm is Normal(``location``, ``scale``), numbers or (D,)."""

    location: Any
    scale: Any
    __str__ = _Scales.__str__


@dataclass(frozen=True, eq=False)
class Exponential(_Scales):
    """Standard deviations with an exponential prior of the given ``rate``, a number or (D,), one over their mean."""

    rate: Any
    __str__ = _Scales.__str__


@dataclass(frozen=True, eq=False)
class LKJ:
    """Correlations with the LKJ prior (Lewandowski, Kurowicka & Joe 2009), independent of the standard deviations.

    Parameters
    ----------
    eta : float
        1 is uniform over correlation matrices, larger values favour weak correlations.
    scales : HalfNormal, LogNormal or Exponential
        Of the standard deviations. A spherical model takes the average of its parameters over the features.
    """

    eta: float
    scales: HalfNormal | LogNormal | Exponential

    def __post_init__(self) -> None:
        if not (np.isfinite(self.eta) and self.eta > 0):
            raise InputError(f"eta of the LKJ prior must be positive, not {self.eta}")
        if not isinstance(self.scales, _Scales):
            raise InputError(
                f"scales of the LKJ prior must be HalfNormal, LogNormal or Exponential, not {self.scales!r}"
            )

    title = "LKJ"

    @property
    def n_features(self) -> int | None:
        """Number of features D; None where the scales are given as numbers for all."""
        sizes = {p.size for p in self.scales.parameters if p.ndim}
        if len(sizes) > 1:
            raise InputError(f"the scales of the LKJ prior are given for {min(sizes)} and for {max(sizes)} features")
        return sizes.pop() if sizes else None

    def __str__(self) -> str:
        return f"standard deviations {self.scales}, correlations LKJ({self.eta:g})"


@dataclass(frozen=True, eq=False)
class Priors:
    """Independent priors of the weights, the means and the covariances.

    Parameters
    ----------
    concentration : float or (K,)
        Of the Dirichlet prior of the weights; a number serves any number of components. Below 1 it favours empty ones.
    means : NormalMeans
    covariances : InverseWishart, HierarchicalInverseWishart or LKJ

    Examples
    --------
    >>> import bayesgmm as bg
    >>> print(bg.Priors.weakly_informative(bg.datasets.old_faithful(), n_components=2))
    weights ~ Dirichlet(1, 1)
    means ~ Normal([3.49, 70.9], sd [4.56, 54.3], correlated)
    covariances ~ inverse Wishart(df 4, scale B + 0.0001 of its mean), B ~ Wishart(df 2, [[0.324, 3.48], [3.48, 46]])
    """

    concentration: np.ndarray
    means: NormalMeans
    covariances: InverseWishart | HierarchicalInverseWishart | LKJ

    def __post_init__(self) -> None:
        dimensions = min(np.ndim(self.concentration), 1)
        object.__setattr__(self, "concentration", _frozen(self.concentration, "concentration", dimensions))
        if not isinstance(self.means, NormalMeans):
            raise InputError(f"the means' prior must be NormalMeans, not {self.means!r}")
        if not isinstance(self.covariances, InverseWishart | HierarchicalInverseWishart | LKJ):
            kinds = "InverseWishart, HierarchicalInverseWishart or LKJ"
            raise InputError(f"the covariances' prior must be {kinds}, not {self.covariances!r}")
        if not (self.concentration > 0).all():
            raise InputError("every concentration must be positive")
        sizes = len(self.means.location), self.covariances.n_features
        if sizes[1] not in (sizes[0], None):
            raise InputError(f"the means' prior has {sizes[0]} features, the covariances' {sizes[1]}")

    @classmethod
    def weakly_informative(cls, X: Any, n_components: int) -> Priors:
        """Scaled from the data: wide priors of weights and means, and covariances that learn their common size.

        Weights are Dirichlet(1). Means are normal about the data's mean with 16 times its covariance S: a standard
        deviation of four of the table's, about its range. A linear map of the features that the covariance model can
        follow leaves the posterior as it is, but for EVV, whose shapes depend on the axes.
        Covariances are `HierarchicalInverseWishart` with D + 2 degrees of freedom: components are expected to be alike
        in size and shape, but which size is learned from the rows. Its scale matrix has D degrees of freedom, as few as
        a whole number can be, and the mean S / K^(2/D), with S the data's covariance (Fraley & Raftery 2007), so that
        before any row is seen a component is expected to fill 1/K of the table's volume. A ten-thousandth of that is
        its floor, which matters to components a hundredth as wide as expected.
        """
        K = positive_integer(n_components, "n_components")
        table = observations(X)
        mean, spread = whole_table(table)
        D = table.n_features
        if (j := first_dependent(spread)) is not None:
            raise InputError(
                f"priors cannot be scaled by this table: in its {table.n_observations} rows column "
                f"{table.features[j]!r} is a linear combination of the columns before it; leave it out, or give Priors "
                "with scales of your own"
            )
        return cls(
            concentration=np.ones(K),
            means=NormalMeans(mean, covariance=_MEANS_SPREAD**2 * spread),
            covariances=HierarchicalInverseWishart(D + 2, D, spread / K ** (2 / D) / D, _FLOOR),
        )

    @property
    def n_components(self) -> int:
        """Number of components K; 0 where one concentration serves any number."""
        return self.concentration.size if self.concentration.ndim else 0

    @property
    def exchangeable(self) -> bool:
        """Whether the components may be renumbered without changing the prior."""
        return bool(np.ptp(self.concentration) == 0)

    def for_components(self, n_components: int) -> Priors:
        """The same priors with a concentration for each component."""
        if self.concentration.ndim:
            return self
        return replace(self, concentration=np.full(n_components, self.concentration))

    def sample(
        self,
        draws: int,
        n_components: int | None = None,
        covariance: str | CovarianceModel = "full",
        *,
        rng: Any = None,
    ) -> GaussianMixture:
        """Draw mixtures from the priors, to see what they say before any table is fitted.

        Parameters
        ----------
        draws : int
        n_components : int, optional
            K, where the concentration is a single number.
        covariance : str or CovarianceModel
        rng : Generator, seed or None

        Returns
        -------
        GaussianMixture
            With batch shape (draws,); its ``sample`` gives tables as the priors expect them.

        Examples
        --------
        >>> import bayesgmm as bg
        >>> priors = bg.Priors.weakly_informative(bg.datasets.old_faithful(), n_components=2)
        >>> priors.sample(100, rng=0).batch_shape
        (100,)
        """
        from bayesgmm.bayes.coordinates import precision_coordinates
        from bayesgmm.bayes.density import mixtures

        n = positive_integer(draws, "draws")
        priors = self.for_components(positive_integer(n_components or self.n_components, "n_components"))
        rng = np.random.default_rng(rng)
        coordinates = precision_coordinates(CovarianceModel.named(covariance), priors)
        K, D = priors.n_components, priors.n_features
        log_weights = np.log(np.maximum(rng.dirichlet(priors.concentration, n), 1e-300))
        means = rng.multivariate_normal(priors.means.location, priors.means.covariance, (n, K), method="cholesky")
        ratios = (log_weights - log_weights.mean(axis=1, keepdims=True))[:, :-1]
        thetas = np.concatenate([ratios, means.reshape(n, -1), coordinates.prior_draws(n, rng)], axis=1)
        return mixtures(thetas, K, D, coordinates)

    def filled_components(
        self, n_observations: int, n_components: int | None = None, *, draws: int = 10_000, rng: Any = None
    ) -> np.ndarray:
        """Prior probability (K + 1,) that 0, 1, ..., K components hold at least one of N rows.

        By drawing weights and then counts; with the sparse concentrations of overfitted mixtures (Rousseau & Mengersen
        2011) this is the prior on the number of clusters.

        Examples
        --------
        >>> import bayesgmm as bg
        >>> priors = bg.Priors.weakly_informative(bg.datasets.old_faithful(), n_components=2)
        >>> priors.filled_components(272, rng=0).round(2)
        array([0.  , 0.01, 0.99])
        """
        rng = np.random.default_rng(rng)
        priors = self.for_components(positive_integer(n_components or self.n_components, "n_components"))
        weights = rng.dirichlet(priors.concentration, positive_integer(draws, "draws"))
        filled = (rng.multinomial(positive_integer(n_observations, "n_observations"), weights) > 0).sum(axis=1)
        return np.bincount(filled, minlength=priors.n_components + 1) / draws

    @property
    def n_features(self) -> int:
        """Number of features D."""
        return len(self.means.location)

    def to_json(self) -> str:
        """All values as text, from which `from_json` makes equal priors."""
        return json.dumps(_plain(self))

    @classmethod
    def from_json(cls, text: str) -> Priors:
        """Priors from what `to_json` gave."""
        return _built(json.loads(text))

    def __str__(self) -> str:
        return (
            f"weights ~ Dirichlet({_show(np.atleast_1d(self.concentration))[1:-1]})\n"
            f"means ~ {self.means}\n"
            f"covariances ~ {self.covariances}"
        )


def check_priors(table: Observations, fit: EMFit, priors: Priors | None) -> Priors:
    """The priors to use, or an `InputError` where they are for another number of components or features."""
    if priors is None:
        return Priors.weakly_informative(table.values, fit.n_components)
    priors = priors.for_components(fit.n_components)
    if (priors.n_components, priors.n_features) != (fit.n_components, fit.n_features):
        raise InputError(
            f"the priors are for K = {priors.n_components} components and D = {priors.n_features} features, "
            f"the fit has {fit.n_components} and {fit.n_features}"
        )
    return priors


_KINDS = {
    kind.__name__: kind
    for kind in (
        Priors,
        NormalMeans,
        InverseWishart,
        HierarchicalInverseWishart,
        LKJ,
        HalfNormal,
        LogNormal,
        Exponential,
    )
}


def _plain(value: Any) -> Any:
    if type(value).__name__ in _KINDS:
        given = (f.name for f in fields(value) if not (isinstance(value, NormalMeans) and f.name == "scale"))
        return {"kind": type(value).__name__} | {name: _plain(getattr(value, name)) for name in given}
    return np.asarray(value).tolist()


def _built(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    content = {name: _built(part) for name, part in value.items() if name != "kind"}
    return _KINDS[value["kind"]](**content)
