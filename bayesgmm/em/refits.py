"""Fits that see other rows: all rows without one fold, or as many rows drawn with replacement.

A fold must not have been seen by the fit that is judged on it, not even by its starts: refits that climb from the fit
to all rows stay at maxima that the held-out rows chose, and flatter large mixtures by tens of nats. So every fold has
a grid of its own. A replicate shows how the fit itself varies, so its climb starts from the fit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np

from bayesgmm.em import ascent
from bayesgmm.em.climber import make_climber
from bayesgmm.em.grid import Grid, Key, fit_grid
from bayesgmm.em.initialize import moments_of_mixture
from bayesgmm.em.result import EMFit
from bayesgmm.errors import BayesGMMError
from bayesgmm.observations import Observations, observations

type ArraysCheckpoint = Callable[[str, Callable[[], dict[str, np.ndarray]]], dict[str, np.ndarray]]

_CHUNK_BYTES = 32e6  # of row weights held at once


def held_out_log_density(
    grid: Grid,
    n_folds: int,
    rng: np.random.Generator,
    checkpoint: ArraysCheckpoint,
    progress: Callable[[int, int], None],
) -> dict[Key, np.ndarray | BayesGMMError]:
    """Log density (N,) of each row, in nats, under the fit to the other folds; the error where a fold has no such fit.

    Parameters
    ----------
    grid : Grid
    n_folds : int
        Number of random parts of the rows, as equal in size as can be, each of which is left out once.
    rng : Generator
    checkpoint : callable
        Given the name of a part of the work and a function that does it, returns the arrays that an earlier run stored
        under this name, or calls the function.
    progress : callable
        Called with the number of folds done and their total.

    References
    ----------
    Smyth (2000), Statistics and Computing 10:63-72, doi:10.1023/A:1008940618127.
    """
    N = grid.table.n_observations
    fold = rng.permutation(np.arange(N) % n_folds)
    seeds = rng.integers(2**63, size=n_folds).tolist()
    name = f"{' '.join(model.name for model in grid.models)}, K = {list(grid.counts)}, {grid.n_starts} starts"
    log_densities: dict[Key, np.ndarray | BayesGMMError] = {key: np.empty(N) for key in grid.keys}
    for f in range(n_folds):
        of_fold = checkpoint(f"fold {f} of {n_folds}: {name}", partial(_held_out, grid, fold == f, seeds[f]))
        for i, key in enumerate(grid.keys):
            all_rows, held_out = log_densities[key], of_fold[str(i)]
            if held_out.dtype.kind == "U":
                log_densities[key] = BayesGMMError(str(held_out))
            elif isinstance(all_rows, np.ndarray):
                all_rows[fold == f] = held_out
        progress(f + 1, n_folds)
    return log_densities


def _held_out(grid: Grid, left_out: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Log densities of the rows left out, under each fit to the others; where that failed, the reason in words.

    Fits go by their position among the grid's keys, since arrays are stored by name.
    """
    table, seen, held_out = grid.table, ~left_out, grid.table.take(left_out)
    fits: dict[Key, EMFit | BayesGMMError]
    try:
        rest = replace(grid, table=observations(table.take(seen)))
        fits = fit_grid(rest, np.random.default_rng(seed), lambda key, make: make(), lambda done, total: None)
    except BayesGMMError as error:
        fits = dict.fromkeys(grid.keys, error)
    return {
        str(i): fit.mixture.log_prob(held_out) if isinstance(fit, EMFit) else np.array(str(fit))
        for i, fit in enumerate(fits[key] for key in grid.keys)
    }


class Replicates(NamedTuple):
    """Log-likelihood and ``map_log_responsibility`` (n,) of tables of rows drawn with replacement, as `EMFit` has them.

    The first pair is of refits to these tables, NaN where a component collapsed; the second of the fit itself on them.
    """

    log_likelihood: np.ndarray
    map_log_responsibility: np.ndarray
    unfitted_log_likelihood: np.ndarray
    unfitted_map_log_responsibility: np.ndarray

    def centred(self, fit: EMFit) -> tuple[np.ndarray, np.ndarray]:
        """The first pair, shifted so that it varies about the fit's own values as those of new tables would.

        Refits overshoot: their log-likelihood exceeds the fit's by about half a nat per parameter, more for many
        components (Ishiguro, Sakamoto & Kitagawa 1997), and that mean excess is subtracted. Where a component
        collapsed, the fit itself stands in for the refit (Kishino, Miyata & Hasegawa 1990).

        References
        ----------
        Ishiguro, Sakamoto & Kitagawa (1997), Annals of the Institute of Statistical Mathematics 49:411-434,
        doi:10.1023/A:1003158526504.
        Kishino, Miyata & Hasegawa (1990), Journal of Molecular Evolution 31:151-160, doi:10.1007/BF02109483.
        """
        refitted = np.isfinite(self.log_likelihood)

        def shifted(values: np.ndarray, unfitted: np.ndarray, of_fit: float) -> np.ndarray:
            excess = float(values[refitted].mean()) - of_fit if refitted.any() else 0.0
            return np.where(refitted, values - excess, unfitted)

        return (
            shifted(self.log_likelihood, self.unfitted_log_likelihood, fit.log_likelihood),
            shifted(self.map_log_responsibility, self.unfitted_map_log_responsibility, fit.map_log_responsibility),
        )


def replicates(fit: EMFit, table: Observations, n_replicates: int, seed: int) -> Replicates:
    """Refits to rows drawn with replacement, each climbing from the fit.

    Parameters
    ----------
    fit : EMFit
    table : Observations
        The table that was fitted.
    n_replicates : int
    seed : int
        The same seed draws the same rows whatever the fit.
    """
    climber, _ = make_climber(table, fit.covariance_model, fit.n_components, tolerance=1e-4, max_iterations=1000)
    N, total = table.n_observations, table.total_weight
    rng = np.random.default_rng(seed)
    start = moments_of_mixture(fit.mixture, total, climber.center)
    probabilities = table.weight_of_rows / total
    log_joint = fit.mixture.log_joint(table)
    log_prob = fit.mixture.log_prob(table)
    of_rows = np.stack((log_prob, log_joint.max(axis=1) - log_prob))  # (2, N)
    columns = np.full((4, n_replicates), np.nan)
    chunk = max(int(_CHUNK_BYTES / (8 * N)), 1)
    for first in range(0, n_replicates, chunk):
        size = min(chunk, n_replicates - first)
        weights = rng.multinomial(N, probabilities, size=size) * (total / N)
        outcomes = climber.climb(np.tile(start, (size, 1)), weights)[0]
        sound = outcomes.codes != ascent.DEGENERATE
        part = columns[:, first : first + size]
        part[:2, sound] = [outcomes.progress[name][sound] for name in Replicates._fields[:2]]
        part[2:] = of_rows @ weights.T
    return Replicates(*columns)
