"""Rows under every draw at once: responsibilities, and assignments drawn from them. The kernel's lanes are the draws.

The kernel of the E-step has one mixture and many rows; here a few rows meet thousands of mixtures, and what is
wanted of each row (quantiles, means) runs over the draws, which therefore lie side by side in memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from bayesgmm import native
from bayesgmm.bayes.posterior import posterior as as_posterior
from bayesgmm.errors import InputError
from bayesgmm.expectation import in_threads
from bayesgmm.mixture import GaussianMixture
from bayesgmm.native import address
from bayesgmm.observations import check_names, numeric_table

EIGHT = 8  # draws that lie side by side for the kernel
_TILE = 16  # rows that it works on at a time
_BLOCK_BYTES = 3e6  # of responsibilities that a thread holds at a time: they stay in the last cache
_MOST_COMPONENTS = 255  # labels of drawn assignments are bytes


class Packed(NamedTuple):
    """Draws as the kernel reads them, eight side by side.

    ``values`` (S/8, K, 1 + D + D(D+1)/2, 8): log scale, mean minus ``center``, and the columns of the precision's upper
    Cholesky factor. The last eight are filled up with copies of the last draw.
    """

    center: np.ndarray
    values: np.ndarray


class Block(NamedTuple):
    """What some rows are under S draws.

    ``responsibilities`` (n, K, S); ``log_prob`` (n, S), log densities in nats; ``entropy`` (n, S), of the
    responsibilities, in nats.
    """

    responsibilities: np.ndarray
    log_prob: np.ndarray
    entropy: np.ndarray


@dataclass(frozen=True, eq=False)
class RowsUnderDraws:
    """Rows of a table, and the posterior draws under which to look at them, as one batch of mixtures (S,)."""

    mixture: GaussianMixture
    X: np.ndarray
    em: GaussianMixture | None
    shape: tuple[int, ...]  # of the draws' batch axes: (chain, draw)

    @property
    def n_draws(self) -> int:
        """Number of draws S."""
        return len(self.mixture.weights)

    def thinned(self, step: int) -> RowsUnderDraws:
        """The rows under every ``step``-th draw."""
        some = self.mixture[::step]
        return RowsUnderDraws(some, self.X, self.em, some.batch_shape)

    @cached_property
    def packed(self) -> Packed:
        """The draws as the kernel reads them."""
        S, K, D = self.mixture.means.shape
        P = self.mixture.precisions_cholesky
        center = np.einsum("sk,skd->d", self.mixture.weights, self.mixture.means) / S
        columns = [P[:, :, i, j] for j in range(D) for i in range(j + 1)]
        parts = self.mixture.log_scale[..., None], self.mixture.means - center, np.stack(columns, axis=-1)
        flat = np.concatenate(parts, axis=-1)
        groups = -(-S // EIGHT)
        flat = flat[np.minimum(np.arange(groups * EIGHT), S - 1)].reshape(groups, EIGHT, K, -1)
        return Packed(center, np.ascontiguousarray(np.moveaxis(flat, 1, -1)))

    def block(self, X: np.ndarray, draws: slice = slice(None), buffer: Block | None = None) -> Block:
        """The rows of X under all draws, or under a slice of them that starts at a multiple of eight.

        The buffer, of `empty_block`, is overwritten; fresh memory costs more than the arithmetic.
        """
        start, stop, _ = draws.indices(self.n_draws)
        values = self.packed.values[start // EIGHT : -(-stop // EIGHT)]
        R, log_prob, entropy = (a[: len(X)] for a in buffer or self.empty_block(len(X), stop - start))
        _, K, D = self.mixture.means.shape
        rows, center = np.ascontiguousarray(X), self.packed.center
        given = native.Draws(K, D, len(values), address(center), address(values))
        to = native.Memberships(address(R), address(log_prob), address(entropy), R.shape[-1])
        native.memberships(address(rows), len(rows), given, to)
        S = stop - start
        return Block(R[:, :, :S], log_prob[:, :S], entropy[:, :S])

    def empty_block(self, n: int, S: int) -> Block:
        """Room for n rows under S draws: an odd number of cache lines a row, so that rows do not compete for them."""
        width = (-(-S // EIGHT) | 1) * EIGHT
        return Block(np.empty((n, self.mixture.n_components, width)), np.empty((n, width)), np.empty((n, width)))

    def each_block(self, X: np.ndarray, task: Callable[[int, int, Block], None]) -> None:
        """Call ``task(start, stop, block)`` in threads for blocks of the rows of X, each under all draws.

        The blocks do not depend on the number of threads; their arrays may be overwritten.
        """
        n = int(_BLOCK_BYTES / (8 * self.n_draws * self.mixture.n_components))
        n = min(max(n // _TILE * _TILE, min(n, _TILE) // 4 * 4, 4), max(len(X), 1))
        buffers: deque[Block] = deque()

        def work(start: int) -> None:
            stop = min(start + n, len(X))
            buffer = buffers.pop() if buffers else self.empty_block(n, self.n_draws)
            task(start, stop, self.block(X[start:stop], buffer=buffer))
            buffers.append(buffer)

        in_threads(work, range(0, len(X), n))

    def log_predictive(self, X: np.ndarray) -> np.ndarray:
        """Log posterior-predictive density of each row of X in nats, (N,): of the densities' mean over the draws."""
        out = np.empty(len(X))
        self.each_block(X, lambda start, stop, block: np.copyto(out[start:stop], log_mean_exp(block.log_prob)))
        return out

    def mean_responsibilities(self, X: np.ndarray) -> np.ndarray:
        """Probability of each component given each row of X, averaged over the draws, (N, K)."""
        out = np.empty((len(X), self.mixture.n_components))
        self.each_block(X, lambda start, stop, block: np.copyto(out[start:stop], block.responsibilities.mean(axis=-1)))
        return out

    def assignments(self, rng: np.random.Generator) -> np.ndarray:
        """The component of each row in each draw, drawn from its responsibilities, (N, S)."""
        out = np.zeros((len(self.X), self.n_draws), np.uint8)
        seed = int(rng.integers(2**63))

        def task(start: int, stop: int, block: Block) -> None:
            u = np.random.default_rng([seed, start]).random((stop - start, self.n_draws))
            for k in range(block.responsibilities.shape[1] - 1):
                u -= block.responsibilities[:, k]
                out[start:stop] += u > 0

        self.each_block(self.X, task)
        return out


def log_mean_exp(lines: np.ndarray) -> np.ndarray:
    """Logarithm of the mean of exp(lines) over the last axis; overwrites the lines."""
    largest = lines.max(axis=-1)
    lines -= largest[..., None]
    return largest + np.log(np.exp(lines, out=lines).mean(axis=-1))


def rows_under_draws(posterior: Any, X: Any = None) -> RowsUnderDraws:
    """Rows and the draws of a posterior: rows that are given, or those the posterior is of.

    Raises
    ------
    InputError
        If there are no draws, no rows, or rows with other columns than the draws'.
    """
    drawn = as_posterior(posterior)
    if X is None and drawn.rows is None:
        raise InputError("this posterior has no table with it; give the rows (N, D) as the second argument")
    rows = drawn.rows if X is None else numeric_table(X)[0]
    assert rows is not None
    check_names(X, drawn.draws.features)
    if rows.shape[1] != drawn.n_features:
        raise InputError(f"the table has {rows.shape[1]} columns, the draws {drawn.n_features} features")
    if not len(rows):
        raise InputError("the table has no rows")
    if drawn.n_components > _MOST_COMPONENTS:
        raise InputError(f"at most {_MOST_COMPONENTS} components can be looked at row by row, not {drawn.n_components}")
    return RowsUnderDraws(drawn.draws.reshape(-1), rows, drawn.em, drawn.draws.batch_shape)
