"""Starts for EM: moments that a climb can begin from, the portfolio's or the user's own.

Seeds are drawn in whitened coordinates, where distances do not change with the units or the axes, so that X and X A + b
get the same starts. Nothing here climbs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bayesgmm import native
from bayesgmm.covariance import precision_cholesky
from bayesgmm.errors import InputError
from bayesgmm.expectation import Parameters, expected_statistics
from bayesgmm.mixture import GaussianMixture
from bayesgmm.native import address
from bayesgmm.observations import Observations

type Candidates = list[tuple[str, np.ndarray]]  # moments to climb from, and what kind of start they are

_GAUSSIAN_STEPS = 200  # of EM to the covariance of an incomplete table, which only sets units
_SEEDING_ROWS = 2000  # rows per component that seeding looks at
_NEIGHBOUR_ROWS = 300  # rows whose near neighbours are compared
_KMEANS = 2  # the kind of start that k-means++ is, as `_partition` counts them
_WARD_ROWS = 600  # rows that the hierarchical start, quadratic in them, looks at
_NOISE_SHARES = 0.25, 0.5, 0.75  # of the rows, the most isolated, start as noise; no one share finds every maximum


def mean_and_covariance(table: Observations) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and covariance (D, D) of a table's values, exact even where the mean is large beside the spread.

    The kernel sums deviations from a center, at first the first row that counts. Where the mean turns out to lie
    more than ten standard deviations from it, the sums are taken again about that mean. With missing values they are
    the maximum-likelihood estimates of one Gaussian, by EM from the columns' own means and variances: the covariance of
    pairs of columns, each from other rows, need not be one. Errors are part of the values' spread.
    """
    if not table.complete:
        return _of_incomplete(table)
    D = table.n_features
    center = table.values[int(np.argmax(table.sample_weight > 0)) if table.sample_weight.size > 1 else 0].copy()
    one = Parameters(np.zeros(1), np.zeros((1, D)), np.eye(D)[None])
    while True:
        _, _, (counts, first, scatter) = expected_statistics(replace(table, errors=None, noise=None).rows(center), one)
        shift = first[0] / counts[0]
        covariance = scatter[0] / counts[0] - np.outer(shift, shift)
        center += shift
        if (shift**2 <= 100 * np.diag(covariance)).all():
            return center, covariance


def _of_incomplete(table: Observations) -> tuple[np.ndarray, np.ndarray]:
    """`mean_and_covariance` of a table with missing values."""
    table, D = replace(table, errors=None, noise=None), table.n_features
    known, weight = ~table.missing, np.broadcast_to(table.sample_weight, table.n_observations)
    total = weight @ known
    center = np.array([np.average(x[k], weights=weight[k]) for x, k in zip(table.values.T, known.T, strict=True)])
    deviations = np.where(known, table.values - center, 0.0)
    covariance, offset, P = np.diag(weight @ deviations**2 / total), np.zeros(D), np.zeros((D, D))
    rows = table.rows(center)
    for _ in range(_GAUSSIAN_STEPS):
        if not precision_cholesky(covariance, P) > 1e-13:
            break
        one = Parameters(np.log(np.diag(P)).sum(keepdims=True), offset[None], P[None])
        _, _, (counts, first, scatter) = expected_statistics(rows, one)
        shift = first[0] / counts[0]
        offset = offset + shift
        before, covariance = covariance, scatter[0] / counts[0] - np.outer(shift, shift)
        sd = np.sqrt(np.diag(covariance))
        if np.abs(covariance - before).max(initial=0.0) <= 1e-6 * sd.min() ** 2 and (np.abs(shift) <= 1e-6 * sd).all():
            break
    return center + offset, covariance


def completed(table: Observations, rng: np.random.Generator | None = None) -> np.ndarray:
    """The table's values (N, D), with missing ones filled in from those of the same row as under one Gaussian.

    By their expectation, or drawn where there is a generator. Only starts are made of them.
    """
    if table.complete:
        return table.values
    center, covariance = mean_and_covariance(table)
    values = np.where(table.missing, center, table.values)
    for columns, rows in table.missing_columns():
        there = np.setdiff1d(np.arange(table.n_features), columns)
        gain = np.linalg.lstsq(covariance[np.ix_(there, there)], covariance[np.ix_(there, columns)], rcond=None)[0]
        filled = center[columns] + (table.values[np.ix_(rows, there)] - center[there]) @ gain
        if rng is not None:
            rest = covariance[np.ix_(columns, columns)] - covariance[np.ix_(columns, there)] @ gain
            level, axes = np.linalg.eigh((rest + rest.T) / 2)
            deviates = rng.standard_normal((len(rows), len(columns)))
            filled += deviates @ (axes * np.sqrt(np.maximum(level, 0.0))).T
        values[np.ix_(rows, columns)] = filled
    return values


def _plus_plus(Z: np.ndarray, seeds: np.ndarray, seeded: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    """Labels (N,) of the rows of Z by nearest seed, missing seeds drawn by k-means++ (Arthur & Vassilvitskii 2007).

    ``seeded`` (K,) says which of the ``seeds`` (K, D) are there; the others are drawn with ``uniforms`` (K,) and
    written into ``seeds``.
    """
    labels, Z = np.empty(len(Z), np.int64), np.ascontiguousarray(Z)
    seeding = address(seeds), address(seeded, np.bool_), address(uniforms)
    native.plus_plus(address(Z), *Z.shape, len(seeds), *seeding, address(labels, np.int64))
    return labels


def _ward_merges(Z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Merges (N - 1, 2) of Ward's clustering and their heights (N - 1,), not in order of height.

    A merge names its two clusters by the least row of each.
    """
    merges, heights, Z = np.empty((len(Z) - 1, 2), np.int64), np.empty(len(Z) - 1), np.ascontiguousarray(Z)
    native.ward(address(Z), *Z.shape, address(merges, np.int64), address(heights))
    return merges, heights


def _ward(Z: np.ndarray, n_clusters: int) -> np.ndarray:
    """Labels (N,) of Ward's hierarchical clustering: the merges in order of height, down to ``n_clusters``."""
    merges, heights = _ward_merges(Z)
    roots = np.arange(len(Z))
    for keep, gone in merges[np.argsort(heights, kind="stable")[: len(Z) - n_clusters]].tolist():
        while roots[keep] != keep:
            keep = roots[keep]
        roots[gone] = keep
    while (roots[roots] != roots).any():
        roots = roots[roots]
    return np.unique(roots, return_inverse=True)[1]


def moments_of_labels(X: np.ndarray, labels: np.ndarray, n_components: int) -> np.ndarray:
    """Counts, means and covariances of labelled rows, flattened.

    To each covariance the pooled covariance is added as if it came from D + 1 more rows, which keeps a cluster of few
    rows from starting with a singular one.
    """
    (N, D), K = X.shape, n_components
    z = np.empty(K * (1 + D + D * D))
    labels = np.ascontiguousarray(labels, dtype=np.int64)
    native.moments_of_labels(address(X), address(labels, np.int64), N, D, K, address(z))
    return z


class Seeding:
    """Rows that starts of one table and number of components are made from, in two whitened coordinate systems.

    Missing values are filled in, in two ways by turns. Where there is noise, it has the most isolated rows at first,
    and the others are clustered.

    Parameters
    ----------
    table : Observations
    labels : (N,) components where known, which these rows keep in every start; -1 where unknown; or empty
    center, covariance : (D,), (D, D) of the table
    n_components : int
    rng : Generator
        Draws the rows that are looked at where there are many, and what is filled in.

    Attributes
    ----------
    rows : (n, D) offsets from the center
    total : sum of the weights of all rows of the table
    """

    def __init__(
        self,
        table: Observations,
        labels: np.ndarray,
        center: np.ndarray,
        covariance: np.ndarray,
        n_components: int,
        rng: np.random.Generator,
    ) -> None:
        self.n_components, self.total = n_components, table.total_weight
        self._table, self._labels = _seeding_rows(table, labels, _SEEDING_ROWS * n_components, rng)
        self.rows = completed(self._table) - center
        self._views = list(self._whitened(center, covariance, rng))

    def _whitened(
        self, center: np.ndarray, covariance: np.ndarray, rng: np.random.Generator
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
        """The rows (n, D), the same in whitened coordinates, and how isolated they are where there is noise."""
        complete, noise = self._table.complete, self._table.noise is not None
        one = self.n_components == 1 and complete and not noise
        whiteners = [np.eye(len(center))] if one else _whiteners(self.rows, covariance, rng)
        fillings = [self.rows] if complete else [self.rows, completed(self._table, rng) - center]  # other clusters
        for whitener in whiteners:
            for X in fillings:
                Z = X @ whitener
                yield X, Z, _isolation(Z, self._labels, rng) if noise else None

    def portfolio(self, n_starts: int, rng: np.random.Generator) -> Candidates:
        """Named moments: Ward's clustering, k-means++ and random partitions, in turn in the two coordinate systems."""
        return [self._start(i, i, rng) for i in range(n_starts)]

    def seeded(self, n: int, rng: np.random.Generator) -> Candidates:
        """``n`` named moments of partitions by seeds of k-means++."""
        return [self._start(i, _KMEANS, rng) for i in range(n)]

    def _start(self, i: int, kind: int, rng: np.random.Generator) -> tuple[str, np.ndarray]:
        """Moments of a partition of the i-th view of the rows."""
        (X, Z, isolation), known, K = self._views[i % len(self._views)], self._labels, self.n_components
        if isolation is not None:
            clustered = _least(isolation, 1 - _NOISE_SHARES[i % len(_NOISE_SHARES)], K + 1)
            X, Z, known = X[clustered], Z[clustered], known[clustered] if known.size else known
        name, partition = _partition(kind, Z, known, K, rng)
        if known.size:
            partition = np.where(known >= 0, known, partition)
        moments = moments_of_labels(X, partition, K)
        moments[:K] *= len(X) / len(self.rows) * self.total / moments[:K].sum()
        return name, moments


def _isolation(Z: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Squared distance (N,) of each row of Z to a near neighbour in a sample, -1 for rows of a known component.

    Rows far from others are the likeliest noise (Byers & Raftery 1998).
    """
    sample = Z if len(Z) <= _NEIGHBOUR_ROWS else Z[rng.choice(len(Z), _NEIGHBOUR_ROWS, replace=False)]
    nearness = min(max(Z.shape[1] + 1, int(np.sqrt(len(sample)) / 2)), len(sample) - 1)
    distance = (Z**2).sum(axis=1)[:, None] + (sample**2).sum(axis=1) - 2 * (Z @ sample.T)
    neighbour = np.partition(distance, nearness, axis=1)[:, nearness]
    return np.where(labels >= 0, -1.0, neighbour) if labels.size else neighbour


def _least(values: np.ndarray, share: float, at_least: int) -> np.ndarray:
    """Positions of the least values, in order: this share of them, but some at least."""
    n = max(round(share * len(values)), min(at_least, len(values)), int((values < 0).sum()))
    return np.sort(np.argsort(values, kind="stable")[:n])


def _seeding_rows(
    table: Observations, labels: np.ndarray, n_rows: int, rng: np.random.Generator
) -> tuple[Observations, np.ndarray]:
    """Rows for seeding and their labels: at most ``n_rows`` unlabelled ones, drawn by weight, and all labelled ones."""
    N, weighted = table.n_observations, table.sample_weight.size > 1
    if n_rows >= N and not weighted:
        return table, labels
    probability = table.weight_of_rows / table.total_weight if weighted else None
    picked = np.sort(rng.choice(N, min(n_rows, N), p=probability))
    if labels.size:
        picked = np.union1d(picked, np.flatnonzero(labels >= 0))
        labels = labels[picked]
    return table.take(picked), labels


def _partition(
    i: int, Z: np.ndarray, labels: np.ndarray, n_components: int, rng: np.random.Generator
) -> tuple[str, np.ndarray]:
    """What start i of a portfolio is called, and its partition (N,) of rows in whitened coordinates."""
    if i < 2 and not labels.size and len(Z) > n_components > 1:
        return "hierarchical", _ward_of_a_sample(Z, n_components, rng)
    if i % 5 == 4:
        return "random partition", rng.integers(n_components, size=len(Z))
    seeds, seeded = np.zeros((n_components, Z.shape[1])), np.zeros(n_components, dtype=np.bool_)
    for k in np.unique(labels[labels >= 0]):
        seeds[k], seeded[k] = Z[labels == k].mean(axis=0), True
    return "k-means++", _plus_plus(Z, seeds, seeded, rng.random(n_components))


def _ward_of_a_sample(Z: np.ndarray, n_clusters: int, rng: np.random.Generator) -> np.ndarray:
    """Labels (N,) of Ward's clustering; of many rows it sees a sample, to whose nearest cluster mean each row goes."""
    if len(Z) <= _WARD_ROWS:
        return _ward(Z, n_clusters)
    sample = Z[np.sort(rng.choice(len(Z), _WARD_ROWS, replace=False))]
    labels = _ward(sample, n_clusters)
    means = np.stack([sample[labels == k].mean(axis=0) for k in range(n_clusters)])
    return _plus_plus(Z, means, np.ones(n_clusters, dtype=np.bool_), np.empty(0))


def _whiteners(X: np.ndarray, covariance: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Maps (D, D) to two coordinate systems in which distances do not depend on the units or the axes of X.

    In the first the whole table has unit covariance, which squeezes clusters that lie far apart along one axis. In the
    second the differences between near neighbours have unit covariance. They estimate the covariance within clusters
    before there are any clusters (after Art, Gnanadesikan & Kettenring 1982), so that clusters stand apart.
    """
    D = len(covariance)
    whole = np.empty((D, D))
    if precision_cholesky(covariance, whole) <= 1e-13:  # collinear columns: only their scales can be removed
        whole = np.diag(1.0 / np.sqrt(np.diag(covariance)))
        return [whole, whole]
    sample = X if len(X) <= _NEIGHBOUR_ROWS else X[rng.choice(len(X), _NEIGHBOUR_ROWS, replace=False)]
    n_neighbours = max(D + 1, int(np.sqrt(len(sample)) / 2))
    if len(sample) <= 2 * n_neighbours:
        return [whole, whole]
    local, candidate = whole, np.empty((D, D))
    for _ in range(4):
        Z = sample @ local
        norms = (Z**2).sum(axis=1)
        distance = norms[:, None] + norms - 2 * (Z @ Z.T)
        np.fill_diagonal(distance, np.inf)
        neighbours = np.argpartition(distance, n_neighbours, axis=1)[:, :n_neighbours]
        difference = (sample[:, None] - sample[neighbours]).reshape(-1, D)
        if precision_cholesky(difference.T @ difference / len(difference), candidate) <= 1e-9:
            break  # neighbours are equal in some direction, as rounded measurements are
        local = candidate.copy()
    return [whole, local]


def user_starts(
    starts: Sequence[Any], table: Observations, center: np.ndarray, row_variance: np.ndarray, n_components: int
) -> Candidates:
    """Named moments of the user's own starts: labels (N,), responsibilities (N, K) or a `GaussianMixture`.

    ``row_variance`` (D,) is that of the rows as blobs, zero where they are points.

    Raises
    ------
    InputError
        Naming the start that cannot be used, and the row where there is one.
    """
    if isinstance(starts, (str, bytes, GaussianMixture)) or not isinstance(starts, Sequence) or not len(starts):
        raise InputError("starts must be a list of labels (N,), responsibilities (N, K) or GaussianMixture values")
    return [_user_start(start, i, table, center, row_variance, n_components) for i, start in enumerate(starts)]


def _user_start(
    start: Any, i: int, table: Observations, center: np.ndarray, row_variance: np.ndarray, K: int
) -> tuple[str, np.ndarray]:
    N, D = table.values.shape
    if isinstance(start, GaussianMixture):
        if start.means.shape != (K, D):
            raise InputError(f"starts[{i}] has means of shape {start.means.shape}, not ({K}, {D})")
        return "given mixture", moments_of_mixture(start, table.total_weight, center, row_variance)
    array = np.asarray(start)
    if array.shape == (N,) and array.dtype.kind in "iub":
        least = 0 if table.noise is None else -1
        if array.min() < least or array.max() >= K:
            row = int(np.flatnonzero((array < least) | (array >= K))[0])
            or_noise = "" if table.noise is None else ", or -1 for noise"
            raise InputError(f"starts[{i}] has label {array[row]} at row {row}; labels are 0..{K - 1}{or_noise}")
        return "given labels", _moments_of_responsibilities(np.eye(K + 1)[array, :K], table, center)
    if array.shape == (N, K) and array.dtype.kind in "fiub":
        if not (np.isfinite(array).all() and (array >= 0).all()):
            raise InputError(f"starts[{i}] has responsibilities that are negative or not finite")
        return "given responsibilities", _moments_of_responsibilities(array.astype(float), table, center)
    raise InputError(
        f"starts[{i}] must be whole-number labels ({N},), responsibilities ({N}, {K}) or a GaussianMixture, "
        f"not {type(start).__name__} of shape {array.shape}"
    )


def moments_of_mixture(
    mixture: GaussianMixture, total: float, center: np.ndarray, row_variance: np.ndarray | float = 0.0
) -> np.ndarray:
    """The moments that a table of ``total`` rows drawn from the mixture would have.

    Where rows are blobs of ``row_variance`` (D,), which the M-step adds, the centres of the blobs have them.
    """
    covariances = mixture.covariances - row_variance * np.eye(mixture.n_features)
    return np.concatenate((mixture.weights * total, (mixture.means - center).ravel(), covariances.ravel()))


def _moments_of_responsibilities(R: np.ndarray, table: Observations, center: np.ndarray) -> np.ndarray:
    X = completed(table) - center
    R = R * table.weight_of_rows[:, None]
    counts = np.maximum(R.sum(axis=0), 1e-300)  # an empty component is anywhere
    means = R.T @ X / counts[:, None]
    S = np.stack([(X - means[k]).T @ ((X - means[k]) * R[:, [k]]) / counts[k] for k in range(R.shape[1])])
    return np.concatenate((counts, means.ravel(), S.ravel()))
