"""What every family of covariance priors has, and what more those have that EM and Gibbs sampling can use."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import numpy as np

from bayesgmm.bayes.coordinates import Layout, PrecisionCoordinates
from bayesgmm.covariance import NAMES, CovarianceModel
from bayesgmm.errors import InputError


class CovariancePrior(ABC):
    """A prior of the component covariances."""

    title: ClassVar[str]  # of the family, as messages have it
    unsupported: ClassVar[tuple[str, ...]] = ()  # models that have no posterior under this family

    @property
    @abstractmethod
    def n_features(self) -> int | None:
        """Number of features D; None where the prior serves any number."""

    @abstractmethod
    def coordinates_in(self, layout: Layout, model: CovarianceModel) -> PrecisionCoordinates:
        """The coordinates of a covariance model that has this layout, with this prior."""

    def coordinates(self, model: CovarianceModel, n_components: int, n_features: int) -> PrecisionCoordinates:
        """The coordinates of a covariance model, or an `InputError` that names the models there are."""
        model = model.for_features(n_features)
        if model.name in self.unsupported:
            possible = (name for name in NAMES if name not in self.unsupported)
            raise InputError(
                f"the posterior of covariance {model.name} is not available with {self.title} covariances; fit one of "
                f"{', '.join(possible)}, or give an inverse-Wishart prior"
            )
        return self.coordinates_in(Layout.of(model, n_components, n_features), model)


class ScalePrior(NamedTuple):
    """The Wishart prior of the scale matrix B of conjugate covariances, as far as a covariance model uses B."""

    df: float  # 0 where B is known
    inverse_scale: np.ndarray  # (D, D)
    floor: np.ndarray  # (D, D), added to B


class ConjugatePrior(CovariancePrior):
    """Covariances that are inverse Wishart given their scale matrix, so that the prior acts as rows of data do."""

    df: float
    floor: float

    @property
    @abstractmethod
    def typical_scale(self) -> np.ndarray:
        """The scale matrix (D, D), or its prior mean where it has a prior itself."""

    @abstractmethod
    def equivalent_data(self, model: CovarianceModel) -> tuple[float, np.ndarray]:
        """Number of rows, and their scatter (D, D), that have the effect of this prior of a covariance on an M-step."""

    @abstractmethod
    def equivalent_data_of_scale(self, model: CovarianceModel, n_components: int) -> tuple[float, np.ndarray]:
        """Degrees of freedom and scale matrix (D, D) of that scatter's own prior, given K precisions' degrees as well.

        Zero degrees of freedom where the scatter is known.
        """

    @abstractmethod
    def scale_prior(self, part_of: Callable[[np.ndarray], np.ndarray]) -> ScalePrior:
        """The scale matrix's prior, where ``part_of`` gives the part of a matrix (D, D) that a model uses."""
