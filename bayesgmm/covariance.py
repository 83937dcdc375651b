"""The 14 covariance models, volume x shape x orientation, and their maximum-likelihood covariances given scatters.

Covariance k is volume_k * Q_k diag(a_k) Q_k' with prod(a_k) = 1 (Banfield & Raftery 1993; Celeux & Govaert 1995); each
factor is absent (I), equal for all components (E) or varying (V).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayesgmm import native
from bayesgmm.errors import InputError
from bayesgmm.native import address

ALIASES = {"full": "VVV", "tied": "EEE", "diag": "VVI", "spherical": "VII"}
NAMES = tuple(
    volume + rest for rest in ("II", "EI", "VI", "EE", "VE", "EV", "VV") for volume in ("E", "V")
)  # simplest first
_CODES = {"I": 0, "E": 1, "V": 2}  # the Factor of src/covariance.hpp


@dataclass(frozen=True, slots=True)
class CovarianceModel:
    """One of the 14 covariance models, as three letters.

    Parameters
    ----------
    volume : {"E", "V"}
    shape, orientation : {"I", "E", "V"}
        Legal pairs are II and {E, V} x {I, E, V}.

    Examples
    --------
    >>> CovarianceModel.named("full").name
    'VVV'
    >>> CovarianceModel("V", "E", "I").n_parameters(n_components=3, n_features=4)
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
        """The model of a three-letter name, an alias (full, tied, diag, spherical), or E or V for one feature."""
        if isinstance(name, cls):
            return name
        if isinstance(name, str):
            letters = {"E": "EII", "V": "VII"}.get(name.upper()) or ALIASES.get(name.lower(), name.upper())
            if letters in NAMES:
                return cls(*letters)
        raise InputError(f"unknown covariance {name!r}; {_choices()}")

    @property
    def name(self) -> str:
        """The three letters."""
        return self.volume + self.shape + self.orientation

    def label(self, n_features: int) -> str:
        """The name to print: the three letters, or for one feature the volume's letter alone."""
        return self.name if n_features > 1 else self.volume

    def for_features(self, n_features: int) -> CovarianceModel:
        """The same model without what a single feature cannot have: shape and orientation."""
        return self if n_features > 1 else CovarianceModel(self.volume, "I", "I")

    @property
    def diagonal(self) -> bool:
        """Whether every covariance is diagonal."""
        return self.orientation == "I"

    @property
    def compiled(self) -> native.CovarianceModel:
        """As compiled code takes it."""
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
    """Fill P with the upper triangular P of covariance^-1 = P P'; return the smallest relative pivot.

    A pivot is the variance that a feature keeps given the features before it, relative to its own variance: zero where
    the matrix is not positive definite, and then P is not to be used.
    """
    factors, pivots = precisions_cholesky(covariance[None])
    P[:] = factors[0]
    return float(pivots[0])


def first_dependent(covariance: np.ndarray) -> int | None:
    """The first feature that is a linear combination of those before it, to rounding; None where none is."""
    sizes = range(1, len(covariance) + 1)
    singular = (d - 1 for d in sizes if precisions_cholesky(covariance[None, :d, :d])[1][0] <= 1e-13)
    return next(singular, None)


def precisions_cholesky(covariances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The factors of many covariances (n, D, D), and their smallest relative pivots (n,)."""
    covariances = np.ascontiguousarray(covariances, dtype=np.float64)
    n, D, _ = covariances.shape
    P, pivots = np.empty_like(covariances), np.empty(n)
    native.precision_cholesky(address(covariances), n, D, address(P), address(pivots))
    return P, pivots


def constrained_covariances(
    model: CovarianceModel, counts: np.ndarray, W: np.ndarray, warm: bool, covariances: np.ndarray
) -> None:
    """Covariances (K, D, D) of a model that maximise -1/2 sum_k (n_k log|S_k| + tr(S_k^-1 W_k)).

    Common axes are sought from those of the ``covariances`` passed in where these are ``warm``, so that no M-step loses
    what the one before had found. A singular scatter gives a singular or NaN covariance and is left to
    `precision_cholesky` to find.
    """
    arrays = address(np.ascontiguousarray(counts)), address(W)
    native.constrained_covariances(model.compiled, *W.shape[:2], *arrays, warm, address(covariances))
