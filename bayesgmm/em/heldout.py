"""How well fits predict rows of a table in parts that they have not seen, and what one gains over another."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from bayesgmm import native
from bayesgmm.checkpoints import Checkpoints, described
from bayesgmm.em.grid import Key
from bayesgmm.em.information import request_of
from bayesgmm.em.result import EMFit
from bayesgmm.expectation import NO_LABELS, Pass, Rows
from bayesgmm.native import address
from bayesgmm.parts import Parts
from bayesgmm.passes import SURVEY_ROWS, Request, held_out
from bayesgmm.patterns import Patterns


@dataclass(frozen=True, eq=False)
class HeldOut:
    """How well fits predict rows that they have not seen, by the rows' log densities in nats.

    Attributes
    ----------
    n_rows : int
        Number of rows that were held out.
    keys : tuple of (covariance, n_components)
        The S fits.
    log_density : (S,)
        Mean over the rows of the log density under each fit.
    se : (S,)
        Standard errors of these means.
    se_of_gain : (S, S)
        Standard errors of their differences, from paired rows.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X, _ = bg.fit_em(bg.datasets.old_faithful(), 2, rng=0).mixture.sample(20_000, rng=0)
    >>> selection = bg.select(lambda: iter([X]), (1, 2), rng=0)
    >>> gain, se = selection.held_out.gain(("VVV", 2), over=("VVV", 1))
    >>> 0.4 < gain < 0.6, se < 0.02
    (True, True)
    """

    n_rows: int
    keys: tuple[Key, ...]
    log_density: np.ndarray
    se: np.ndarray
    se_of_gain: np.ndarray

    def gain(self, key: Key, over: Key) -> tuple[float, float]:
        """What a fit gains over another, in nats per row, and its standard error."""
        i, j = self.keys.index(key), self.keys.index(over)
        return float(self.log_density[i] - self.log_density[j]), float(self.se_of_gain[i, j])


def score(
    parts: Parts,
    seed: int,
    fits: Mapping[Key, EMFit],
    center: np.ndarray,
    progress: Callable[[int, int], None],
    checkpoints: Checkpoints,
) -> HeldOut:
    """The log densities of all rows that were held out, under all fits, from one reading.

    Parameters
    ----------
    parts : Parts
    seed : int
        By which rows were held out.
    fits : mapping to EMFit
    center : (D,)
        Origin of the means' offsets.
    progress : callable
        Told how many rows have been read, and how many there are.
    checkpoints : Checkpoints
        Where what the reading finds is kept.
    """
    look = _Look(tuple(request_of(fit.mixture, center) for fit in fits.values()), center, seed)

    def read() -> dict[str, np.ndarray]:
        found = parts.fold(look, _Sums.add, SURVEY_ROWS, progress)
        return {"n_rows": np.array(found.n_rows), "sums": found.high}

    found = checkpoints.arrays(f"held-out {json.dumps(described(look))}", read)
    n, S = int(found["n_rows"]), len(look.requests)
    means, products = np.split(found["sums"] / n, [S + 1])
    covariance = products.reshape(S + 1, S + 1) - np.outer(means, means)
    of_deviations, with_common = covariance[:S, :S], covariance[:S, S]
    own = np.diag(of_deviations)
    variances = own + 2 * with_common + covariance[S, S]
    of_gains = own[:, None] + own - 2 * of_deviations
    se, se_of_gain = (np.sqrt(np.maximum(v, 0.0) / n) for v in (variances, of_gains))
    log_density = means[:S] + means[S]
    for array in (log_density, se, se_of_gain):
        array.flags.writeable = False
    return HeldOut(n, tuple(fits), log_density, se, se_of_gain)


class _Sums:
    """Sums over rows (n, S + 1) and of the products of their columns, in twice the precision."""

    def __init__(self, rows: np.ndarray) -> None:
        self.n_rows = len(rows)
        self.high = np.concatenate((rows.sum(axis=0), (rows.T @ rows).ravel()))
        self.low = np.zeros_like(self.high)

    def add(self, other: _Sums) -> None:
        """Add those over other rows."""
        self.n_rows += other.n_rows
        native.add_totals(self.high.size, *map(address, (self.high, self.low, other.high, other.low)))


@dataclass(frozen=True)
class _Look:
    """Finds, of the rows that were held out, how far the log density under each fit is from their mean, and the mean.

    What fits differ by is small beside what rows do; its squares would be lost among those of the log densities.
    """

    requests: tuple[Request, ...]
    center: np.ndarray
    seed: int

    def __call__(self, values: np.ndarray, start: int) -> _Sums:
        picked = values[held_out(self.seed, start, start + len(values)) & ~np.isnan(values).all(axis=1)]
        rows, n = Rows(picked, np.ones(1), NO_LABELS, self.center, Patterns.of_values(picked)), len(picked)
        log_densities = np.zeros((len(self.requests), n))
        for request, out in zip(self.requests, log_densities, strict=True):
            over = Pass(rows, request.parameters, request.diagonal)
            native.log_prob(over.compiled, over.mixture, 0, n, address(out))
        common = log_densities.mean(axis=0)
        return _Sums(np.concatenate((log_densities - common, common[None])).T)
