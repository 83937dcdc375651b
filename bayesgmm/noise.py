"""`Noise`: where rows come from that belong to no cluster."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bayesgmm.errors import InputError


@dataclass(frozen=True)
class Noise:
    """Rows that belong to no cluster: uniform over a box with sides along the axes.

    Parameters
    ----------
    volume : float
        By how much the box is larger than the one between ``low`` and ``high``. The larger it is, the thinner the noise
        and the fewer rows are taken for it.
    low, high : sequence of D float, optional
        Two corners of the box; by default each column's least and largest value in the table that is fitted.

    Raises
    ------
    InputError
        If the volume is not positive, or the corners do not span a box.

    Notes
    -----
    Of a row with missing values the density is that over the columns that have one. Beyond the box it is taken to be
    the same as within, so that rows far out are noise rather than members of the cluster that is nearest. Another unit
    of a column changes nothing; other axes do, since a box about turned axes has another volume.

    References
    ----------
    Banfield, J. D., & Raftery, A. E. (1993). Model-based Gaussian and non-Gaussian clustering. Biometrics, 49, 803-821.
    https://doi.org/10.2307/2532201

    Examples
    --------
    >>> import bayesgmm as bg
    >>> box = bg.Noise(low=[0, 0], high=[2, 5])
    >>> box.log_density([[1.0, 3.0], [float("nan"), 3.0]]).round(3)
    array([-2.303, -1.609])
    """

    volume: float = 1.0
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.volume, bool) or not isinstance(self.volume, (int, float)) or not 0 < self.volume < math.inf:
            raise InputError(f"the volume of the noise must be a positive number, not {self.volume!r}")
        object.__setattr__(self, "volume", float(self.volume))
        if self.low is None and self.high is None:
            return
        corners = [np.asarray(corner, dtype=np.float64) for corner in (self.low, self.high) if corner is not None]
        if len(corners) < 2 or corners[0].ndim != 1 or corners[0].shape != corners[1].shape or not corners[0].size:
            raise InputError("low and high of the noise must be given together, one number each for every column")
        wrong = np.flatnonzero(~((corners[0] < corners[1]) & np.isfinite(corners).all(axis=0)))
        if wrong.size:
            j = int(wrong[0])
            raise InputError(
                f"the box of the noise has no width in column {j}: from {corners[0][j]} to {corners[1][j]}"
            )
        for name, corner in zip(("low", "high"), corners, strict=True):
            object.__setattr__(self, name, tuple(corner.tolist()))

    def within(self, low: np.ndarray, high: np.ndarray) -> Noise:
        """The noise with its own corners, or with these (D,) where it has none."""
        if self.low is None:
            return replace(self, low=tuple(low.tolist()), high=tuple(high.tolist()))
        if len(self.low) != len(low):
            raise InputError(f"the box of the noise has {len(self.low)} columns, the table {len(low)}")
        return self

    @property
    def middle(self) -> np.ndarray:
        """Where the box has its middle, (D,)."""
        return (np.array(self._corners[0]) + np.array(self._corners[1])) / 2

    @property
    def sides(self) -> np.ndarray:
        """Lengths of the box's sides (D,), all of them longer by the same factor where its volume is larger."""
        low, high = np.array(self._corners)
        return (high - low) * self.volume ** (1 / len(low))

    @property
    def _corners(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        if self.low is None or self.high is None:
            raise InputError("this noise has no box yet; fit it to a table, or give low and high")
        return self.low, self.high

    def log_density(self, X: Any) -> np.ndarray:
        """Log density (N,) of the values of each row of X (N, D) in nats; zero of a row without any."""
        values = np.asarray(X, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != len(self._corners[0]):
            raise InputError(f"the box of the noise has {len(self._corners[0])} columns, the table {values.shape[1:]}")
        return ~np.isnan(values) @ -np.log(self.sides)

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """Rows (..., D) from the box, as many as the shape says."""
        return self.middle + self.sides * (rng.random((*shape, len(self.sides))) - 0.5)

    def marginal(self, features: Sequence[int] | np.ndarray) -> Noise:
        """The noise in some of the features, given by their positions."""
        low, high = (tuple(corner[int(j)] for j in features) for corner in self._corners)
        return Noise(self.volume ** (len(low) / len(self._corners[0])), low, high)


def checked_noise(noise: Any, n_rows: int) -> Noise | np.ndarray | None:
    """What a ``noise`` argument says: a `Noise`, log densities (N,) of rows, or None.

    Raises
    ------
    InputError
        Naming the row whose density cannot be used.
    """
    if noise is None or noise is False:
        return None
    if noise is True:
        return Noise()
    if isinstance(noise, Noise):
        return noise
    try:
        log_density = np.array(noise, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"noise must be True, a Noise or a log density for each row, not {noise!r}") from error
    if log_density.shape != (n_rows,):
        raise InputError(f"noise must be True, a Noise or one log density for each of the {n_rows} rows")
    wrong = np.flatnonzero(~np.isfinite(log_density))
    if wrong.size:
        raise InputError(f"the noise's log density of row {wrong[0]} is {log_density[wrong[0]]}; it must be finite")
    log_density.flags.writeable = False
    return log_density
