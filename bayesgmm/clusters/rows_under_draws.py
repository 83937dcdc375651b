"""Rows under every draw at once: responsibilities, and assignments drawn from them. The kernel's lanes are the draws.

The kernel of the E-step has one mixture and many rows; here a few rows meet thousands of mixtures, and what is
wanted of each row (quantiles, means) runs over the draws, which therefore lie side by side in memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from scipy.special import xlogy

from bayesgmm import native
from bayesgmm.bayes.posterior import posterior as as_posterior
from bayesgmm.errors import InputError
from bayesgmm.expectation import in_threads
from bayesgmm.mixture import GaussianMixture
from bayesgmm.native import address
from bayesgmm.noise import checked_noise
from bayesgmm.observations import Observations, any_rows, check_names

EIGHT = 8  # draws that lie side by side for the kernel
_TILE = 16  # rows that it works on at a time
_BLOCK_BYTES = 3e6  # of responsibilities that a thread holds at a time: they stay in the last cache
_LOWEST = -1e300  # stands for the logarithm of zero
_MOST_COMPONENTS = 255  # labels of drawn assignments are bytes


@dataclass(frozen=True, eq=False)
class Lanes:
    """Draws (S,) as the kernel reads them, eight side by side.

    Each array is (S/8, K, 1 + D + D(D+1)/2, 8): a scalar, the mean minus the center, and the columns of an upper
    triangle. The last eight are filled up with copies of the last draw.
    """

    mixture: GaussianMixture

    @cached_property
    def center(self) -> np.ndarray:
        """Mean of all draws' components, (D,), from which means and rows are taken."""
        return np.einsum("sk,skd->d", self.mixture.clusters.weights, self.mixture.means) / len(self.mixture.weights)

    @cached_property
    def factors(self) -> np.ndarray:
        """For complete rows: with log scales, and the upper Cholesky factors of the precisions."""
        return self._side_by_side(self.mixture.log_scale, self.mixture.precisions_cholesky)

    @cached_property
    def covariances(self) -> np.ndarray:
        """For rows with missing values or errors: with log weights and covariances."""
        with np.errstate(divide="ignore"):
            log_weights = np.maximum(np.log(self.mixture.weights), _LOWEST)
        return self._side_by_side(log_weights, self.mixture.covariances)

    def _side_by_side(self, scalars: np.ndarray, matrices: np.ndarray) -> np.ndarray:
        S, _, D = self.mixture.means.shape
        columns = [matrices[:, :, i, j] for j in range(D) for i in range(j + 1)]
        parts = scalars[..., None], self.mixture.means - self.center, np.stack(columns, axis=-1)
        flat = np.concatenate(parts, axis=-1)
        n = -(-S // EIGHT)
        flat = flat[np.minimum(np.arange(n * EIGHT), S - 1)].reshape(n, EIGHT, *flat.shape[1:])
        return np.ascontiguousarray(np.moveaxis(flat, 1, -1))


@dataclass(frozen=True, eq=False)
class Groups:
    """Which rows of a table share the columns that they have values in, and their errors.

    Rows without a value are one group, the last.
    """

    table: Observations

    @cached_property
    def of_row(self) -> np.ndarray:
        """The group of each row, (N,)."""
        patterns = self.table.groups
        of_row = np.full(self.table.n_observations, 0 if patterns is None else patterns.n)
        if patterns is not None:
            of_row[patterns.order] = np.repeat(np.arange(patterns.n), np.diff(patterns.start))
        return of_row

    def __getitem__(self, group: int) -> tuple[np.ndarray, np.ndarray | None]:
        """The columns that rows of a group have values in, and the covariance (D, D) of their errors, if any."""
        patterns = self.table.groups
        if patterns is None:
            return np.arange(self.table.n_features), None
        return patterns.group(group) if group < patterns.n else (np.empty(0, np.int64), None)


class Block(NamedTuple):
    """What some rows are under S draws.

    ``responsibilities`` (n, K, S); ``log_prob`` (n, S), log densities in nats; ``entropy`` (n, S), of the
    responsibilities, in nats; ``noise`` (n, S), the probability that the row is of no component, None without noise.
    """

    responsibilities: np.ndarray
    log_prob: np.ndarray
    entropy: np.ndarray
    noise: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class RowsUnderDraws:
    """Rows of a table, and the posterior draws under which to look at them.

    Rows with missing values or errors are looked at under the draws' mixtures of the values that they have. A row
    without any has the weights as responsibilities, and the log density zero.
    """

    lanes: Lanes
    table: Observations
    em: GaussianMixture | None
    shape: tuple[int, ...]  # of the draws' batch axes: (chain, draw)

    @property
    def mixture(self) -> GaussianMixture:
        """The draws, as one batch of mixtures (S,)."""
        return self.lanes.mixture

    @property
    def n_rows(self) -> int:
        """Number of rows N."""
        return self.table.n_observations

    @property
    def n_draws(self) -> int:
        """Number of draws S."""
        return len(self.mixture.weights)

    @cached_property
    def log_noise(self) -> np.ndarray | None:
        """Log density of the noise at each row (N,), in nats; None where the draws have none."""
        return self.mixture.with_noise(self.table).noise_density

    @property
    def n_groups(self) -> int:
        """Number of components, and one more where there is noise: what rows are assigned to."""
        return self.mixture.n_components + (self.mixture.noise_weight is not None)

    @cached_property
    def groups(self) -> Groups:
        """The rows that can be looked at together."""
        return Groups(self.table)

    def thinned(self, step: int) -> RowsUnderDraws:
        """The rows under every ``step``-th draw."""
        some = self.mixture[::step]
        return RowsUnderDraws(Lanes(some), self.table, self.em, some.batch_shape)

    def block(self, rows: Any = slice(None), draws: slice = slice(None), buffer: Block | None = None) -> Block:
        """Some of the rows under all draws, or under a slice of them that starts at a multiple of eight.

        The buffer, of `empty_block`, is overwritten; fresh memory costs more than the arithmetic.
        """
        start, stop, _ = draws.indices(self.n_draws)
        eights = slice(start // EIGHT, -(-stop // EIGHT))
        X, group = self.table.values[rows], self.groups.of_row[rows]
        room = Block(*(part[: len(X)] for part in (buffer or self.empty_block(len(X), stop - start))[:3]))
        order = np.argsort(group, kind="stable")
        edges = np.flatnonzero(np.diff(group[order], prepend=-1, append=-1))
        for begin, end in pairwise(edges.tolist()):
            some = order[begin:end]
            self._fill(Block(*(part[begin:end] for part in room[:3])), X[some], group[some[0]], eights)
        if len(edges) > 2 and (np.diff(order) < 0).any():
            room = Block(*(part[np.argsort(order)] for part in room[:3]))
        block = Block(*(part[..., : stop - start] for part in room[:3]))
        return block if self.log_noise is None else self._with_noise(block, self.log_noise[rows], slice(start, stop))

    def _with_noise(self, block: Block, log_noise: np.ndarray, draws: slice) -> Block:
        """What the rows are where they may also be noise, of these log densities (n,); overwrites the block."""
        of_noise = log_noise[:, None] + np.asarray(self.mixture.log_noise_weight)[draws]
        log_prob = np.logaddexp(block.log_prob, of_noise)
        noise, inside = np.exp(of_noise - log_prob), np.exp(block.log_prob - log_prob)
        block.responsibilities[...] *= inside[:, None]
        block.entropy[...] *= inside
        block.entropy[...] -= xlogy(inside, inside) + xlogy(noise, noise)
        block.log_prob[...] = log_prob
        return block._replace(noise=noise)

    def _fill(self, room: Block, X: np.ndarray, group: int, eights: slice) -> None:
        """Write what rows of one group are under eights of draws."""
        _, K, D = self.mixture.means.shape
        columns, errors = self.groups[group]
        complete = len(columns) == D and errors is None
        values = (self.lanes.factors if complete else self.lanes.covariances)[eights]
        rows = np.ascontiguousarray(X if complete else X[:, columns])
        given = native.Draws(K, D, len(values), address(self.lanes.center), address(values))
        to = native.Memberships(*map(address, room[:3]), room.log_prob.shape[1])
        if complete:
            native.memberships(address(rows), len(rows), given, to)
        else:
            seen = native.Seen(len(columns), address(columns, np.int64), None if errors is None else address(errors))
            native.memberships_seen(address(rows), len(rows), given, seen, to)

    def empty_block(self, n: int, S: int) -> Block:
        """Room for n rows under S draws: an odd number of cache lines a row, so that rows do not compete for them."""
        width = _width(S)
        return Block(np.empty((n, self.mixture.n_components, width)), np.empty((n, width)), np.empty((n, width)))

    def each_block(self, task: Callable[[np.ndarray, Block], None]) -> None:
        """Call ``task(rows, block)`` in threads for blocks of rows under all draws, with the rows' positions.

        Rows of a group come together. The blocks do not depend on the number of threads; their arrays may be
        overwritten.
        """
        N, order = self.n_rows, np.argsort(self.groups.of_row, kind="stable")
        n = int(_BLOCK_BYTES / (8 * _width(self.n_draws) * self.mixture.n_components))
        n = min(max(n // _TILE * _TILE, min(n, _TILE) // 4 * 4, 4), max(N, 1))
        buffers: deque[Block] = deque()

        def work(start: int) -> None:
            rows = order[start : start + n]
            buffer = buffers.pop() if buffers else self.empty_block(n, self.n_draws)
            task(rows, self.block(rows, buffer=buffer))
            buffers.append(buffer)

        in_threads(work, range(0, N, n))

    def mean_responsibilities(self) -> np.ndarray:
        """Probability of each component given each row, averaged over the draws, (N, K)."""
        out = np.empty((self.n_rows, self.mixture.n_components))

        def task(rows: np.ndarray, block: Block) -> None:
            out[rows] = block.responsibilities.mean(axis=-1)

        self.each_block(task)
        return out

    def point_labels(self) -> np.ndarray:
        """The component that each row most probably belongs to, (N,); K where it is more probably noise."""
        R = self.mean_responsibilities()
        return np.column_stack((R, 1 - R.sum(axis=1)))[:, : self.n_groups].argmax(axis=1)

    def log_predictive(self) -> np.ndarray:
        """Log posterior-predictive density of each row in nats, (N,): of the densities' mean over the draws."""
        out = np.empty(self.n_rows)

        def task(rows: np.ndarray, block: Block) -> None:
            out[rows] = log_mean_exp(block.log_prob)

        self.each_block(task)
        return out

    def assignments(self, rng: np.random.Generator) -> np.ndarray:
        """The component of each row in each draw, drawn from its responsibilities, (N, S); K where it is noise."""
        out = np.empty((self.n_rows, self.n_draws), np.uint8)
        seed = int(rng.integers(2**63))

        def task(rows: np.ndarray, block: Block) -> None:
            u = np.random.default_rng([seed, rows[0]]).random(block.log_prob.shape)
            component = np.zeros(u.shape, np.uint8)
            for k in range(self.n_groups - 1):
                u -= block.responsibilities[:, k]
                component += u > 0
            out[rows] = component

        self.each_block(task)
        return out


def _width(S: int) -> int:
    """Numbers that a line of S draws takes in a block."""
    return (-(-S // EIGHT) | 1) * EIGHT


def log_mean_exp(lines: np.ndarray) -> np.ndarray:
    """Logarithm of the mean of exp(lines) over the last axis; overwrites the lines."""
    largest = lines.max(axis=-1)
    lines -= largest[..., None]
    return largest + np.log(np.exp(lines, out=lines).mean(axis=-1))


def rows_under_mixtures(
    source: Any, X: Any, error_sd: Any = None, error_covariance: Any = None, noise: Any = None
) -> RowsUnderDraws:
    """Rows under the draws of a posterior; or under one mixture, an EM fit's or any, as if it were the only draw.

    Raises
    ------
    InputError
        As `rows_under_draws`, and where a single mixture is given without rows.
    """
    single = getattr(source, "mixture", source)
    if not isinstance(single, GaussianMixture) or single.batch_shape:
        return rows_under_draws(source, X, error_sd, error_covariance, noise)
    if X is None:
        raise InputError("a fit or a mixture has no rows of its own; give the table as the second argument")
    return rows_under_draws(single.reshape(1), X, error_sd, error_covariance, noise)


def rows_under_draws(
    posterior: Any, X: Any = None, error_sd: Any = None, error_covariance: Any = None, noise: Any = None
) -> RowsUnderDraws:
    """Rows and the draws of a posterior: rows given with their errors and noise density, or those the posterior is of.

    Of a posterior of a table in parts the latter are its sample.

    Raises
    ------
    InputError
        If there are no draws, no rows, or rows with other columns than the draws'.
    """
    drawn = as_posterior(posterior)
    own = drawn.table_or_sample
    if X is None and own is None:
        raise InputError("this posterior has no table with it; give the rows (N, D) as the second argument")
    if X is None and (error_sd is not None or error_covariance is not None):
        raise InputError("errors are of rows that are given with them; the posterior knows those of its own")
    table = any_rows(own if X is None else X, error_sd, error_covariance)
    if (log_density := checked_noise(noise, table.n_observations)) is not None:
        table = replace(table, noise=log_density)
    check_names(X, drawn.draws.features)
    if table.n_features != drawn.n_features:
        raise InputError(f"the table has {table.n_features} columns, the draws {drawn.n_features} features")
    if not table.n_observations:
        raise InputError("the table has no rows")
    if drawn.n_components > _MOST_COMPONENTS:
        raise InputError(f"at most {_MOST_COMPONENTS} components can be looked at row by row, not {drawn.n_components}")
    return RowsUnderDraws(Lanes(drawn.draws.reshape(-1)), table, drawn.em, drawn.draws.batch_shape)
