"""The 14 covariance models, volume x shape x orientation, and their maximum-likelihood covariances given scatters.

Covariance k is volume_k * Q_k diag(a_k) Q_k' with prod(a_k) = 1; each factor is absent (I), equal for all components
(E) or varying (V).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayesgmm import native
from bayesgmm.errors import InputError
from bayesgmm.names import did_you_mean
from bayesgmm.native import address

ALIASES = {"full": "VVV", "tied": "EEE", "diag": "VVI", "spherical": "VII"}
NAMES = tuple(
    volume + rest for rest in ("II", "EI", "VI", "EE", "VE", "EV", "VV") for volume in ("E", "V")
)  # simplest first
_CODES = {"I": 0, "E": 1, "V": 2}  # the Factor of src/covariance.hpp


@dataclass(frozen=True, slots=True)
class CovarianceModel:
    """One of the 14 covariance models: which factors of their covariances the components share.

    Covariance k is volume_k * Q_k diag(a_k) Q_k' with prod(a_k) = 1. Each factor is equal for all components (E) or
    varies between them (V); without a shape a_k (I) components are spherical, without an orientation Q_k (I) their axes
    are the features'.

    Parameters
    ----------
    volume : {"E", "V"}
    shape, orientation : {"I", "E", "V"}
        Together II, or {E, V} and {I, E, V}.

    Raises
    ------
    InputError
        For letters that are no model.

    References
    ----------
    Banfield & Raftery (1993), Biometrics 49:803-821, doi:10.2307/2532201.
    Celeux & Govaert (1995), Pattern Recognition 28:781-793, doi:10.1016/0031-3203(94)00125-6.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> bg.CovarianceModel.named("full").name
    'VVV'
    >>> bg.CovarianceModel("V", "E", "I").n_parameters(n_components=3, n_features=4)
    6
    """

    volume: str
    shape: str
    orientation: str

    def __post_init__(self) -> None:
        if self.volume + self.shape + self.orientation not in NAMES:
            raise InputError(f"no covariance model {self.volume}{self.shape}{self.orientation}; {_choices()}")

    @classmethod
    def named(cls, name: str | CovarianceModel) -> CovarianceModel:
        """The model of this name.

        Parameters
        ----------
        name : str or CovarianceModel
            Three letters, "full", "tied", "diag", "spherical", or for one feature "E" or "V"; upper or lower case.

        Raises
        ------
        InputError
            For a name that is none of these; the message lists them.
        """
        if isinstance(name, cls):
            return name
        if isinstance(name, str):
            letters = {"E": "EII", "V": "VII"}.get(name.upper()) or ALIASES.get(name.lower(), name.upper())
            if letters in NAMES:
                return cls(*letters)
        hint = did_you_mean(name, [*ALIASES, *NAMES]) if isinstance(name, str) else ""
        raise InputError(f"unknown covariance {name!r}{hint}; {_choices()}")

    @property
    def name(self) -> str:
        """The three letters."""
        return self.volume + self.shape + self.orientation

    def label(self, n_features: int) -> str:
        """The name to print: the three letters, or for one feature the volume's letter alone."""
        return self.name if n_features > 1 else self.volume

    def for_features(self, n_features: int) -> CovarianceModel:
        """The model for this many features: a single feature has neither shape nor orientation."""
        return self if n_features > 1 else CovarianceModel(self.volume, "I", "I")

    @property
    def diagonal(self) -> bool:
        """Whether every covariance is diagonal."""
        return self.orientation == "I"

    @property
    def turned(self) -> bool:
        """Whether one of shape and orientation is shared and the other is not, so that neither can do without axes."""
        return {self.shape, self.orientation} == {"E", "V"}

    @property
    def compiled(self) -> native.CovarianceModel:
        """The model as the compiled core takes it."""
        return native.CovarianceModel(_CODES[self.volume], _CODES[self.shape], _CODES[self.orientation])

    def n_parameters(self, n_components: int, n_features: int) -> int:
        """Number of free covariance parameters."""
        copies = {"I": 0, "E": 1, "V": n_components}
        return (
            copies[self.volume]
            + copies[self.shape] * (n_features - 1)
            + copies[self.orientation] * (n_features * (n_features - 1) // 2)
        )


def _choices() -> str:
    return f"use one of {', '.join(ALIASES)} or {', '.join(NAMES)}"


def precision_cholesky(covariance: np.ndarray, P: np.ndarray) -> float:
    """Fill P (D, D) with the upper triangular P of covariance^-1 = P P'; return the smallest relative pivot.

    A pivot is the variance that a feature has given the features before it, relative to its own variance. It is zero
    where the matrix is not positive definite, and then P must not be used.
    """
    factors, pivots = precisions_cholesky(covariance[None])
    P[:] = factors[0]
    return float(pivots[0])


def first_dependent(covariance: np.ndarray) -> int | None:
    """The first feature that is a linear combination of those before it, up to rounding; None if there is none."""
    sizes = range(1, len(covariance) + 1)
    singular = (d - 1 for d in sizes if precisions_cholesky(covariance[None, :d, :d])[1][0] <= 1e-13)
    return next(singular, None)


def precisions_cholesky(covariances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What `precision_cholesky` gives, of many covariances (n, D, D): factors P (n, D, D) and smallest pivots (n,)."""
    covariances = np.ascontiguousarray(covariances, dtype=np.float64)
    n, D, _ = covariances.shape
    P, pivots = np.empty_like(covariances), np.empty(n)
    native.precision_cholesky(address(covariances), n, D, address(P), address(pivots))
    return P, pivots


def constrained_covariances(
    model: CovarianceModel, counts: np.ndarray, W: np.ndarray, warm: bool, covariances: np.ndarray
) -> None:
    """The M-step: write into ``covariances`` those of a model that maximise -1/2 sum_k (n_k log|S_k| + tr(S_k^-1 W_k)).

    A singular scatter gives a singular or NaN covariance, which `precision_cholesky` finds.

    Parameters
    ----------
    model : CovarianceModel
    counts : (K,)
        Expected counts n_k.
    W : (K, D, D)
        Scatters about the components' means.
    warm : bool
        Whether to look for common axes from those of the ``covariances`` passed in. M-steps do so, lest one undo what
        the one before has found.
    covariances : (K, D, D)
        Overwritten by the result.
    """
    arrays = address(np.ascontiguousarray(counts)), address(W)
    native.constrained_covariances(model.compiled, *W.shape[:2], *arrays, warm, address(covariances))
