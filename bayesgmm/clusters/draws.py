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
from bayesgmm.errors import InputError
from bayesgmm.expectation import in_threads
from bayesgmm.mixture import GaussianMixture
from bayesgmm.native import address
from bayesgmm.observations import numeric_table

EIGHT = 8  # draws that lie side by side for the kernel
_TILE = 16  # rows that it works on at a time
_BLOCK_BYTES = 3e6  # of responsibilities that a thread holds at a time: they stay in the last cache
_LOWEST = -1e300  # stands for log 0 where an infinity would turn into NaN


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
class Draws:
    """Posterior draws as one mixture of batch shape (S,), the rows in question, and the EM fit where there is one."""

    mixture: GaussianMixture
    X: np.ndarray
    em: GaussianMixture | None
    shape: tuple[int, ...]  # of the batch: (chain, draw)

    @property
    def n_draws(self) -> int:
        """Number of draws S."""
        return len(self.mixture.weights)

    def thinned(self, step: int) -> Draws:
        """Every ``step``-th draw."""
        m = self.mixture
        some = GaussianMixture(m.weights[::step], m.means[::step], m.covariances[::step])
        return Draws(some, self.X, self.em, some.batch_shape)

    @cached_property
    def packed(self) -> Packed:
        """The draws as the kernel reads them."""
        S, K, D = self.mixture.means.shape
        P = self.mixture.precisions_cholesky
        center = np.einsum("sk,skd->d", self.mixture.weights, self.mixture.means) / S
        with np.errstate(divide="ignore"):
            scale = np.log(self.mixture.weights) + np.log(np.einsum("skii->ski", P)).sum(-1)
        scale = np.maximum(scale - 0.5 * D * np.log(2 * np.pi), _LOWEST)
        columns = [P[:, :, i, j] for j in range(D) for i in range(j + 1)]
        flat = np.concatenate([scale[..., None], self.mixture.means - center, np.stack(columns, axis=-1)], axis=-1)
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


def posterior_draws(tree: Any, X: Any, caller: str) -> Draws:
    """The draws of a tree or of a batch of mixtures, and the rows to look at: given, or those the tree was fitted to.

    Raises
    ------
    InputError
        If there are no draws, no rows, or rows with other columns than the draws'.
    """
    if hasattr(tree, "mixture"):
        raise InputError(
            f"{caller} needs posterior draws, not an EM fit; draw them with sample_posterior(X, fit), "
            "or use fit.mixture.responsibilities(X)"
        )
    em = None
    if isinstance(tree, GaussianMixture):
        draws, expected = tree, None
        if X is None:
            raise InputError(f"{caller}(mixture) needs the rows as its second argument")
        if not draws.batch_shape or 0 in draws.batch_shape:
            raise InputError(f"{caller} needs a batch of mixtures, one for each draw; this one has no batch axis")
    elif hasattr(tree, "children") and "posterior" in tree.children:
        draws = _mixture_of(tree["posterior"])
        expected = [str(name) for name in tree["posterior"]["feature"].values]
        em = _mixture_of(tree["em"]) if "em" in tree.children else None
    else:
        raise InputError(
            f"{caller} needs the DataTree of sample_posterior or a GaussianMixture with batch axes, "
            f"not a {type(tree).__name__}"
        )
    rows, names = numeric_table(tree["observed_data"]["observations"].values if X is None else X)
    if hasattr(X, "columns") and expected is not None and list(names) != expected:
        raise InputError(f"the columns {list(names)} are not those that were fitted, {expected}")
    K, D = draws.n_components, draws.n_features
    if rows.shape[1] != D:
        raise InputError(f"the table has {rows.shape[1]} columns, the draws {D} features")
    if not len(rows):
        raise InputError("the table has no rows")
    if K > 255:
        raise InputError(f"{caller} takes at most 255 components, not {K}")
    flat = draws
    if len(draws.batch_shape) != 1:
        flat = GaussianMixture(
            draws.weights.reshape(-1, K), draws.means.reshape(-1, K, D), draws.covariances.reshape(-1, K, D, D)
        )
    return Draws(flat, rows, em, draws.batch_shape)


def _mixture_of(group: Any) -> GaussianMixture:
    return GaussianMixture(**{name: group[name].values for name in ("weights", "means", "covariances")})
