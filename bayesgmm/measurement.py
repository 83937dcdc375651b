"""Errors of measurement as they are given, standard deviations or covariances, checked once."""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesgmm.errors import InputError


def error_variances(
    error_sd: Any, error_covariance: Any, missing: np.ndarray, features: tuple[str, ...]
) -> np.ndarray | None:
    """Variances (N or 1, D) or covariances (N or 1, D, D) of the errors of a table's values; None where there are none.

    Entries that belong to missing values do not count, and may be NaN; they become zero.

    Parameters
    ----------
    error_sd : (D,) or (N, D), or None
        Standard deviations of independent errors.
    error_covariance : (D, D) or (N, D, D), or None
        Covariances of the errors.
    missing : (N, D) bool
    features : names of the columns

    Raises
    ------
    InputError
        Naming the row and the column.
    """
    if error_sd is None and error_covariance is None:
        return None
    if error_sd is not None and error_covariance is not None:
        raise InputError("give error_sd or error_covariance, not both")
    if error_sd is not None:
        return _variances(_numbers(error_sd, "error_sd"), missing, features)
    return _covariances(_numbers(error_covariance, "error_covariance"), missing)


def _numbers(value: Any, name: str) -> np.ndarray:
    try:
        return np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must hold numbers") from error


def _variances(sd: np.ndarray, missing: np.ndarray, features: tuple[str, ...]) -> np.ndarray | None:
    N, D = missing.shape
    if sd.shape not in ((D,), (N, D)):
        raise InputError(f"error_sd has shape {sd.shape}; ({D},) or ({N}, {D}) is needed")
    sd = sd.reshape(-1, D)
    if len(sd) == N:
        sd[missing] = 0.0
    wrong = np.argwhere(~(np.isfinite(sd) & (sd >= 0)))
    if len(wrong):
        row, j = wrong[0]
        where = f"column {features[j]!r}" + (f", row {row}" if len(sd) == N else "")
        raise InputError(f"error_sd of {where} is {sd[row, j]:g}; standard deviations are finite and not negative")
    return sd**2 if sd.any() else None


def _covariances(S: np.ndarray, missing: np.ndarray) -> np.ndarray | None:
    N, D = missing.shape
    if S.shape not in ((D, D), (N, D, D)):
        raise InputError(
            f"error_covariance has shape {S.shape}; ({D}, {D}) or ({N}, {D}, {D}) is needed"
            + ("; for standard deviations use error_sd" if S.shape in ((D,), (N, D)) else "")
        )
    S = S.reshape(-1, D, D)
    if len(S) == N:
        S[missing[:, :, None] | missing[:, None, :]] = 0.0
    wrong = ~(
        np.isfinite(S).all(axis=(1, 2)) & (np.abs(S - np.swapaxes(S, 1, 2)) <= 1e-8 * np.abs(S).max()).all(axis=(1, 2))
    )
    if not wrong.any():
        S = (S + np.swapaxes(S, 1, 2)) / 2
        lowest = np.linalg.eigvalsh(S)[:, 0]
        wrong = lowest < -1e-9 * np.maximum(np.einsum("ijj->i", S), 0.0)
    if wrong.any():
        of_row = f" of row {int(wrong.argmax())}" if len(S) == N else ""
        raise InputError(f"error_covariance{of_row} is not a covariance: finite, symmetric, without negative variances")
    return S if S.any() else None


def covariances_of(errors: np.ndarray) -> np.ndarray:
    """The errors as covariances (N or 1, D, D)."""
    return errors if errors.ndim == 3 else errors[:, :, None] * np.eye(errors.shape[1])
