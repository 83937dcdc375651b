"""Which free coordinates the covariances of a model have under its prior: shared by the density and the PyMC model.

The precision of component k is P P' with P = U A, U U' the inverse of the prior's scale matrix and A upper triangular.
Under the inverse Wishart A has Bartlett's distribution: squares of its diagonal chi-square, entries above it standard
normal, all independent. A model with shared or diagonal or spherical covariances keeps fewer of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayesgmm.bayes.priors import Priors
from bayesgmm.covariance import CovarianceModel, precision_cholesky
from bayesgmm.errors import InputError

SUPPORTED = ("EII", "VII", "EEI", "VVI", "EEE", "VVV")


@dataclass(frozen=True, eq=False)
class PrecisionCoordinates:
    """Shape of the precision coordinates and their prior.

    Attributes
    ----------
    copies : K, or 1 where all components share one covariance
    columns : D, or 1 where one variance serves all features
    df : (columns,) degrees of freedom of the squared diagonal
    off_diagonal : entries above the diagonal: D (D - 1) / 2, or 0
    U : (D, D) upper triangular
    """

    copies: int
    columns: int
    df: np.ndarray
    off_diagonal: int
    U: np.ndarray


def precision_coordinates(model: CovarianceModel, priors: Priors) -> PrecisionCoordinates:
    """The coordinates of a covariance model, or an `InputError` that names the models there are."""
    model = model.for_features(priors.n_features)
    if model.name not in SUPPORTED:
        raise InputError(
            f"the posterior of covariance {model.name} is not available; fit one of {', '.join(SUPPORTED)} "
            "(spherical, diag, tied, full and their equal-volume kin)"
        )
    K, D = priors.n_components, priors.n_features
    df, scale = priors.covariances.df, priors.covariances.scale
    U = np.empty((D, D))
    if not model.diagonal:
        precision_cholesky(scale, U)
        degrees = df - np.arange(D - 1, -1, -1)
    else:
        variances = np.full(D, np.diag(scale).mean()) if model.shape == "I" else np.diag(scale)
        U = np.diag(1 / np.sqrt(variances))
        degrees = np.full(1 if model.shape == "I" else D, df - D + 1)
    return PrecisionCoordinates(
        copies=1 if model.volume == "E" else K,
        columns=len(degrees),
        df=degrees,
        off_diagonal=0 if model.diagonal else D * (D - 1) // 2,
        U=U,
    )
