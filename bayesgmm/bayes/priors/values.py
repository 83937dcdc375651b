"""The arrays that priors hold: checked and frozen where they enter, and shown to three digits."""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesgmm.errors import InputError


def frozen(value: Any, name: str, ndim: int) -> np.ndarray:
    """A read-only copy with float64 entries, or an `InputError` with the name where it is not finite of that rank."""
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must hold numbers") from error
    if array.ndim != ndim or not np.isfinite(array).all():
        raise InputError(f"{name} must be finite with {ndim} dimension{'s' * (ndim != 1)}, not of shape {array.shape}")
    array.flags.writeable = False
    return array


def shown(values: np.ndarray) -> str:
    """The array as text, each entry to three digits."""
    if values.ndim == 0:
        return f"{values:.3g}"
    return "[" + ", ".join(shown(v) for v in values) + "]"
