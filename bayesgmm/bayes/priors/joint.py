"""`Priors`: independent priors of the weights, the means and the covariances, and the default scaled from the data."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from bayesgmm.bayes.coordinates import PrecisionCoordinates, log_ratios
from bayesgmm.bayes.priors.covariances import CovariancePrior
from bayesgmm.bayes.priors.hierarchical import HierarchicalInverseWishart
from bayesgmm.bayes.priors.inverse_wishart import InverseWishart
from bayesgmm.bayes.priors.lkj import LKJ
from bayesgmm.bayes.priors.means import NormalMeans
from bayesgmm.bayes.priors.scales import Exponential, HalfNormal, LogNormal
from bayesgmm.bayes.priors.values import frozen, shown
from bayesgmm.covariance import CovarianceModel, first_dependent
from bayesgmm.em.initialize import mean_and_covariance
from bayesgmm.em.result import EMFit
from bayesgmm.errors import InputError
from bayesgmm.mixture import GaussianMixture
from bayesgmm.observations import Observations, observations, positive_integer

_MEANS_SPREAD = 4.0  # sd of the means' default prior, in the table's sds
_FLOOR = 1e-4  # of the covariances' default prior


@dataclass(frozen=True, eq=False)
class Priors:
    """Independent priors of the weights, the means and the covariances.

    Parameters
    ----------
    concentration : float or (K,)
        Of the Dirichlet prior of the weights; a number serves any number of components. Below 1 it favours weights near
        zero, that is, empty components.
    means : NormalMeans
    covariances : InverseWishart, HierarchicalInverseWishart or LKJ
    noise_concentration : float
        Of the noise's weight, in the same Dirichlet prior; it counts only where there is noise.

    Raises
    ------
    InputError
        Where a part is of another kind, a concentration is not positive, or the parts are for different numbers of
        features.

    See Also
    --------
    Priors.weakly_informative : The default, scaled from a table.
    plots.prior_check : Tables, densities and outlines of components that the priors expect.

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
    covariances: CovariancePrior
    noise_concentration: float = field(default=1.0, metadata={"unless": 1.0})

    def __post_init__(self) -> None:
        dimensions = min(np.ndim(self.concentration), 1)
        object.__setattr__(self, "concentration", frozen(self.concentration, "concentration", dimensions))
        if not isinstance(self.means, NormalMeans):
            raise InputError(f"the means' prior must be NormalMeans, not {self.means!r}")
        if not isinstance(self.covariances, CovariancePrior):
            kinds = "InverseWishart, HierarchicalInverseWishart or LKJ"
            raise InputError(f"the covariances' prior must be {kinds}, not {self.covariances!r}")
        object.__setattr__(self, "noise_concentration", float(self.noise_concentration))
        if not ((self.concentration > 0).all() and self.noise_concentration > 0):
            raise InputError("every concentration must be positive")
        sizes = len(self.means.location), self.covariances.n_features
        if sizes[1] not in (sizes[0], None):
            raise InputError(f"the means' prior has {sizes[0]} features, the covariances' {sizes[1]}")

    @classmethod
    def weakly_informative(cls, X: Any, n_components: int) -> Priors:
        """Priors scaled from the data: wide ones of weights and means, and covariances that learn their common size.

        Parameters
        ----------
        X : (N, D) table
            Missing values are no obstacle: mean and covariance are then those of one Gaussian that fits the known ones
            best. Errors of measurement are a part of the table's spread.
        n_components : int
            K.

        Returns
        -------
        Priors

        Raises
        ------
        InputError
            Where a column is a linear combination of others, so that the data's covariance is singular.

        Notes
        -----
        Weights are Dirichlet(1). Means are normal about the data's mean with 16 times its covariance S, so with four
        times the table's standard deviations: about the range of the data. Covariances are
        `HierarchicalInverseWishart` with D + 2 degrees of freedom: components are expected to be alike in size and
        shape, but which size is learned from the rows. The scale matrix has D degrees of freedom, as few as a whole
        number can be, and the mean S / K^(2/D) (Fraley & Raftery 2007), so that before any row is seen a component is
        expected to fill 1/K of the table's volume. The floor is a ten-thousandth of that; it matters to components a
        hundredth as wide as expected.

        A linear map of the features leaves the posterior as it is, where the covariance model can follow the map. EVV
        is the exception, because its shapes depend on the axes. EEV, VEV, EVE and VVE follow turns and changes of the
        unit that all features have.

        References
        ----------
        Fraley, C., & Raftery, A. E. (2007). Bayesian regularization for normal mixture estimation and model-based
        clustering. Journal of Classification, 24, 155-181. https://doi.org/10.1007/s00357-007-0004-5

        Examples
        --------
        >>> import bayesgmm as bg
        >>> bg.Priors.weakly_informative(bg.datasets.old_faithful(), n_components=2).means.scale.round(1)
        array([ 4.6, 54.3])
        """
        K = positive_integer(n_components, "n_components")
        table = observations(X)
        mean, spread = mean_and_covariance(table)
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

    def concentrations(self, *, noise: bool) -> np.ndarray:
        """Concentration of each component's weight, and of the noise's if there is noise; there must be a K."""
        return np.append(self.concentration, self.noise_concentration) if noise else self.concentration

    @property
    def exchangeable(self) -> bool:
        """Whether the components may be relabelled without changing the prior."""
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
        n = positive_integer(draws, "draws")
        priors = self.for_components(positive_integer(n_components or self.n_components, "n_components"))
        rng = np.random.default_rng(rng)
        coordinates = priors.coordinates(CovarianceModel.named(covariance))
        weights = log_ratios(rng.dirichlet(priors.concentration, n))
        means = priors.means.draws(n, priors.n_components, rng)
        thetas = np.concatenate([weights, means.reshape(n, -1), coordinates.prior_draws(n, rng)], axis=1)
        return coordinates.mixtures(thetas, priors.n_components)

    def filled_components(
        self, n_observations: int, n_components: int | None = None, *, draws: int = 10_000, rng: Any = None
    ) -> np.ndarray:
        """Prior probability (K + 1,) that 0, 1, ..., K components hold at least one of N rows.

        It is estimated by drawing weights and then counts. With the small concentrations of overfitted mixtures
        (Rousseau & Mengersen 2011) this is the prior on the number of clusters.

        Parameters
        ----------
        n_observations : int
            N.
        n_components : int, optional
            K, where the concentration is a single number.
        draws : int
            Weights to draw; the standard errors are at most 1 / (2 sqrt(draws)).
        rng : Generator, seed or None

        Returns
        -------
        ndarray (K + 1,)

        References
        ----------
        Rousseau, J., & Mengersen, K. (2011). Asymptotic behaviour of the posterior distribution in overfitted mixture
        models. Journal of the Royal Statistical Society, Series B, 73, 689-710.
        https://doi.org/10.1111/j.1467-9868.2011.00781.x

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
        return self.means.n_features

    def coordinates(self, model: CovarianceModel) -> PrecisionCoordinates:
        """The free coordinates of a covariance model's precisions under these priors; there must be a K."""
        return self.covariances.coordinates(model, self.n_components, self.n_features)

    def to_json(self) -> str:
        """All values as JSON text, from which `from_json` makes equal priors.

        Examples
        --------
        >>> import bayesgmm as bg
        >>> priors = bg.Priors(1.0, bg.NormalMeans([0.0], [2.0]), bg.InverseWishart(3, [[1.0]]))
        >>> str(bg.Priors.from_json(priors.to_json())) == str(priors)
        True
        """
        return json.dumps(_plain(self))

    @classmethod
    def from_json(cls, text: str) -> Priors:
        """Priors from the text that `to_json` gave."""
        return _built(json.loads(text))

    def __str__(self) -> str:
        return (
            f"weights ~ Dirichlet({shown(np.atleast_1d(self.concentration))[1:-1]})\n"
            f"means ~ {self.means}\n"
            f"covariances ~ {self.covariances}"
        )


def check_priors(table: Observations, fit: EMFit, priors: Priors | None) -> Priors:
    """The priors to use, or an `InputError` where they are for another number of components or features."""
    if priors is None:
        return Priors.weakly_informative(table, fit.n_components)
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
    """A prior as what JSON can hold: its kind and the values that it was made from."""
    if type(value).__name__ not in _KINDS:
        return np.asarray(value).tolist()
    parts = {part.name: getattr(value, part.name) for part in fields(value) if part.metadata.get("stored", True)}
    for part in fields(value):  # so that the text is what it was before there was this part
        if "unless" in part.metadata and parts[part.name] == part.metadata["unless"]:
            del parts[part.name]
    return {"kind": type(value).__name__} | {name: _plain(part) for name, part in parts.items()}


def _built(value: Any) -> Any:
    """The prior that `_plain` gave this for."""
    if not isinstance(value, dict):
        return value
    content = {name: _built(part) for name, part in value.items() if name != "kind"}
    return _KINDS[value["kind"]](**content)
