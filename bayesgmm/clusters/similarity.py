"""How probably two rows belong together: label-free, so it needs no relabelling."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from bayesgmm.clusters.rows_under_draws import RowsUnderDraws, rows_under_draws
from bayesgmm.errors import InputError
from bayesgmm.expectation import in_threads, n_threads

MEMORY_BUDGET = 2e9  # bytes of the matrix that is returned
_CHUNK_BYTES = 128e6  # of responsibilities multiplied at a time


def posterior_similarity(posterior: Any, X: Any = None, *, rows: Any = None, dtype: Any = np.float64) -> np.ndarray:
    """Posterior probability that two rows belong to the same component, for each pair of rows, (N, N).

    Parameters
    ----------
    posterior : DataTree, Posterior or GaussianMixture
        From `sample_posterior`, or a mixture whose batch axes are the draws; relabelled or not.
    X : (N, D) table, optional
        Rows to compare; by default those the posterior was fitted to.
    rows : sequence of int or boolean mask, optional
        Positions of the rows to compare, for a part of the matrix.
    dtype : {float64, float32}
        Single precision halves memory and time; it is off by about 1e-6.

    Returns
    -------
    (N, N) array
        Symmetric, with ones on the diagonal.

    Raises
    ------
    InputError
        If the rows cannot be used, or the matrix would exceed 2 GB; the message says what it would take.

    Notes
    -----
    Given the parameters, rows are assigned independently of one another, so entry i, j is the average over the draws of
    sum_k r_ik r_jk, without drawing any assignments; the diagonal is one. With the responsibilities of all draws side
    by side, (N, S K), this is one symmetric matrix product.

    References
    ----------
    Fritsch & Ickstadt (2009), Bayesian Analysis 4, 367-391. doi:10.1214/09-BA414

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> tree = bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), draws=500, chains=2, rng=0)
    >>> bg.posterior_similarity(tree, rows=[0, 1, 2]).round(2)
    array([[1., 0., 1.],
           [0., 1., 0.],
           [1., 0., 1.]])
    """
    if np.dtype(dtype) not in (np.dtype(np.float64), np.dtype(np.float32)):
        raise InputError(f"dtype must be float64 or float32, not {dtype!r}")
    draws = rows_under_draws(posterior, X)
    if rows is not None:
        draws = replace(draws, table=draws.table.take(_positions(rows, draws.n_rows)))
    N = draws.n_rows
    size = float(N) ** 2 * np.dtype(dtype).itemsize
    if size > MEMORY_BUDGET:
        most = int((MEMORY_BUDGET / np.dtype(dtype).itemsize) ** 0.5)
        raise InputError(
            f"the similarities of {N} rows take {size / 1e9:.1f} GB; choose at most {most} rows with rows="
            + ("" if np.dtype(dtype) == np.float32 else ", or halve the memory with dtype=numpy.float32")
        )
    return _similarity(draws, np.dtype(dtype))


def _similarity(draws: RowsUnderDraws, dtype: np.dtype) -> np.ndarray:
    from scipy.linalg.blas import dsyrk, ssyrk

    syrk = dsyrk if dtype == np.float64 else ssyrk
    N, K, S = draws.n_rows, draws.mixture.n_components, draws.n_draws
    chunk = int(_CHUNK_BYTES / (8 * N * K)) // 8 * 8
    chunk = min(max(chunk, 8), -(-S // 8) * 8)
    edges = np.linspace(0, N, 8 * n_threads() + 1).astype(int).tolist()
    ranges = [range(a, b) for a, b in pairwise(edges) if b > a]
    room = np.empty((N, K * chunk), dtype)
    out = np.zeros((N, N), dtype, order="F")
    for start in range(0, S, chunk):
        n = min(chunk, S - start)
        columns = room[:, : K * n] if n == chunk else np.empty((N, K * n), dtype)

        def fill(rows: range, columns: np.ndarray = columns, n: int = n, start: int = start) -> None:
            for i in rows[::32]:
                j = min(i + 32, rows.stop)
                R = draws.block(slice(i, j), slice(start, start + n)).responsibilities
                columns[i:j] = R.reshape(j - i, K * n)

        in_threads(fill, ranges)
        out = syrk(1.0 / S, columns.T, beta=1.0, c=out, trans=1, overwrite_c=1)  # fills the upper triangle
    for i in range(N):
        out[i + 1 :, i] = out[i, i + 1 :]
    np.minimum(out, 1.0, out=out)  # rounding
    np.fill_diagonal(out, 1.0)
    return out.T


def _positions(rows: Any, n: int) -> np.ndarray:
    """Row positions as an index array."""
    index = np.asarray(rows)
    if index.dtype == bool and index.shape == (n,):
        index = np.flatnonzero(index)
    if index.ndim != 1 or index.dtype.kind not in "iu" or not len(index):
        raise InputError(f"rows must be a list of row positions or a mask of {n} truth values")
    if index.min() < 0 or index.max() >= n:
        raise InputError(f"rows are positions 0..{n - 1}; {index[(index < 0) | (index >= n)][0]} is not one")
    return index
