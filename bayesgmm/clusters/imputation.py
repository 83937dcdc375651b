"""What missing values may have been, and the true values behind measured ones: imputation with its uncertainty."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bayesgmm.clusters.rows_under_draws import Lanes, RowsUnderDraws, rows_under_mixtures
from bayesgmm.expectation import in_threads
from bayesgmm.intervals import level, tails
from bayesgmm.mixture import GaussianMixture
from bayesgmm.names import counted
from bayesgmm.observations import positive_integer

if TYPE_CHECKING:
    import pandas as pd

MISSING_AT_RANDOM = (
    "Imputed values assume that whether a value is missing depends on observed values alone; where values are missing "
    "for what they are, as when high ones are not recorded, they mislead."
)
_MOST_DRAWS = 1000  # that a posterior is thinned to
_CHUNK_BYTES = 1e7  # of conditional means that a thread holds at a time
_MOST_STEPS = 200  # of the search for a quantile; bisection alone takes about 60


@dataclass(frozen=True, slots=True, eq=False)
class Imputation:
    """A table with its missing values filled in, and how sure each is; `impute` makes it.

    Attributes
    ----------
    values : (N, D)
        The mean of what each missing value may have been; observed values as they are. Where values were measured with
        errors, the mean of the true value instead.
    sd : (N, D)
        Its standard deviation; zero of values that are observed without error.
    lower, upper : (N, D)
        Equal-tailed interval that holds it with probability ``ci_prob``; of known values, these themselves.
    missing : (N, D) bool
        Which values were missing.
    features : tuple of D str
        Names of the columns.
    ci_prob : float

    Examples
    --------
    >>> import bayesgmm as bg
    >>> fit = bg.fit_em(bg.datasets.old_faithful(), 2, rng=0)
    >>> imputed = bg.impute(fit, [[4.5, None], [2.0, 55.0]])
    >>> imputed
    Imputation(1 of 4 values missing, ci_prob=0.89)
    >>> imputed.values.round(1), imputed.sd.round(1)
    (array([[ 4.5, 81.1],
           [ 2. , 55. ]]), array([[0. , 5.6],
           [0. , 0. ]]))
    """

    values: np.ndarray
    sd: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    missing: np.ndarray
    features: tuple[str, ...]
    ci_prob: float
    _rows: RowsUnderDraws

    def __repr__(self) -> str:
        n = int(self.missing.sum())
        return f"Imputation({n} of {counted(self.missing.size, 'value')} missing, ci_prob={self.ci_prob:g})"

    def draws(self, m: int, *, rng: Any = None) -> np.ndarray:
        """Draw complete tables, in which the unknown values of a row are drawn together.

        Analyse each, and how the results differ says what the missing values leave open (multiple imputation).

        Parameters
        ----------
        m : int
            Number of tables; each is from another draw of a posterior, as long as there are as many.
        rng : Generator, seed or None

        Returns
        -------
        (m, N, D) array

        Examples
        --------
        >>> import bayesgmm as bg
        >>> fit = bg.fit_em(bg.datasets.old_faithful(), 2, rng=0)
        >>> bg.impute(fit, [[4.5, None], [2.0, 55.0]]).draws(100, rng=0).std(axis=0).round()
        array([[0., 5.],
               [0., 0.]])
        """
        m, rng = positive_integer(m, "m"), np.random.default_rng(rng)
        S = self._rows.n_draws
        mixtures = self._rows.mixture[np.arange(m) * S // m]
        rows = replace(self._rows, lanes=Lanes(mixtures))
        out = np.repeat(rows.table.values[None], m, axis=0)
        each = np.arange(m)
        for some, group in _inferred(rows):
            given = Conditional.of(rows, group)
            R = rows.block(some).responsibilities  # (n, K, m)
            root = _square_root(given.covariances)
            k = (rng.random((len(some), 1, m)) > np.cumsum(R, axis=1)[:, :-1]).sum(axis=1)  # (n, m)
            noise = rng.standard_normal((*k.shape, len(given.columns)))
            x = given.means(rows.table.values[some])[np.arange(len(some))[:, None], each, k]
            x += np.einsum("nsij,nsj->nsi", root[each, k], noise)
            out[np.ix_(each, some, given.columns)] = np.moveaxis(x, 1, 0)
        return out

    def to_dataframe(self) -> pd.DataFrame:
        """One line for each value that is not known exactly.

        Returns
        -------
        DataFrame
            Columns ``row``, ``column``, ``missing``, ``value``, ``sd``, ``lower``, ``upper``.
        """
        import pandas as pd

        row, j = np.nonzero(self.sd > 0)
        head = {"row": row, "column": np.array(self.features, dtype=object)[j], "missing": self.missing[row, j]}
        parts = {"value": self.values, "sd": self.sd, "lower": self.lower, "upper": self.upper}
        return pd.DataFrame(head | {name: part[row, j] for name, part in parts.items()})


def impute(
    source: Any, X: Any = None, ci_prob: float | None = None, *, error_sd: Any = None, error_covariance: Any = None
) -> Imputation:
    """Fill in missing values, each with its uncertainty.

    Parameters
    ----------
    source : EMFit, GaussianMixture, DataTree or Posterior
        A fit or a mixture; or the posterior from `sample_posterior`, which adds what is not known of the parameters.
    X : (N, D) table, optional
        The rows; needed unless the source is a posterior, which has its own.
    ci_prob : float, optional
        Probability of the intervals; ``arviz.rcParams["stats.ci_prob"]`` by default.
    error_sd : (D,) or (N, D), optional
        Standard deviations of the errors that the values of ``X`` were measured with. With them the true values of
        observed cells are inferred, too: they lie nearer to the components than what was measured.
    error_covariance : (D, D) or (N, D, D), optional
        Their covariances, instead.

    Returns
    -------
    Imputation

    Raises
    ------
    InputError
        If there are no rows, or they cannot be used.

    Notes
    -----
    Under a mixture the unknown values of a row, given what is observed of it, have a mixture of the components'
    conditional normal distributions with the row's responsibilities as weights; from a posterior it is the average of
    these over the draws (1000 of them, evenly spaced, where there are more). Means and standard deviations are those of
    this mixture; the ends of the intervals are its quantiles, found as roots of its distribution function. The
    parameters are taken as the fitted table has them: new rows do not change what is known of them.

    A row that may be noise is taken to be of a cluster all the same: noise would say nothing of its values.

    All this takes values to be missing at random: whether one is missing may depend on observed values, not on itself.
    Where values are missing for what they are, as when high ones are not recorded, imputed values mislead.

    References
    ----------
    Little & Rubin (2019), Statistical Analysis with Missing Data, 3rd edition. doi:10.1002/9781119482260

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful().to_numpy()
    >>> X[0, 1] = float("nan")
    >>> imputed = bg.impute(bg.fit_em(X, 2, rng=0), X, ci_prob=0.9)
    >>> imputed.to_dataframe().round(1)
       row column  missing  value   sd  lower  upper
    0    0     x1     True   76.1  5.6   66.9   85.2
    """
    ci_prob = level(ci_prob)
    rows = rows_under_mixtures(source, X, error_sd, error_covariance)
    rows = rows.thinned(-(-rows.n_draws // _MOST_DRAWS))
    rows = replace(rows, lanes=Lanes(rows.mixture.clusters))
    known = rows.table.values
    values, lower, upper, sd = known.copy(), known.copy(), known.copy(), np.zeros_like(known)

    def task(item: tuple[np.ndarray, int]) -> None:
        some, given = item[0], Conditional.of(rows, item[1])
        weights = rows.block(some).responsibilities.reshape(len(some), -1) / rows.n_draws  # (n, K S)
        means, sds = given.means(known[some]), np.sqrt(np.einsum("skii->ski", given.covariances))
        for i, j in enumerate(given.columns):
            mixed = _Mixed(weights, np.swapaxes(means[..., i], 1, 2).reshape(len(some), -1), sds[..., i].T.ravel())
            values[some, j], sd[some, j] = mixed.mean, mixed.sd
            lower[some, j], upper[some, j] = (mixed.quantile(p) for p in tails(ci_prob))

    in_threads(task, list(_inferred(rows)))
    return Imputation(values, sd, lower, upper, rows.table.missing, rows.table.features, ci_prob, rows)


class Conditional(NamedTuple):
    """Under (S, K) components, the unknown values of rows that share missing columns and errors, given observed ones.

    Attributes
    ----------
    columns : (u,)
        The columns with unknown values: missing, or measured with an error.
    observed : (d,)
        Those with observed values.
    mixture : GaussianMixture
    gain : (S, K, u, d)
        Of the unknown values' means, for a unit of an observed value.
    covariances : (S, K, u, u)
    """

    columns: np.ndarray
    observed: np.ndarray
    mixture: GaussianMixture
    gain: np.ndarray
    covariances: np.ndarray

    @classmethod
    def of(cls, rows: RowsUnderDraws, group: int) -> Conditional:
        """Condition each component of each draw on what is observed of a group of rows.

        The covariance of what remains is a sum of squares, so that nothing cancels where errors are small.
        """
        mixture, (observed, errors) = rows.mixture, rows.groups[group]
        S, D = mixture.covariances, mixture.n_features
        columns = _unknown(rows, group)
        E = np.zeros((D, D)) if errors is None else errors
        E = E[np.ix_(observed, observed)]
        within = S[..., observed[:, None], observed] + E
        gain = np.swapaxes(np.linalg.solve(within, S[..., observed[:, None], columns]), -1, -2)
        left = np.broadcast_to(np.eye(D)[columns], (*gain.shape[:-1], D)).copy()
        left[..., observed] -= gain
        covariances = left @ S @ np.swapaxes(left, -1, -2) + gain @ E @ np.swapaxes(gain, -1, -2)
        return cls(columns, observed, mixture, gain, covariances)

    def means(self, X: np.ndarray) -> np.ndarray:
        """Conditional means (n, S, K, u) for rows X (n, D)."""
        offsets = X[:, None, None, self.observed] - self.mixture.means[..., self.observed]
        return self.mixture.means[..., self.columns] + np.einsum("skuo,nsko->nsku", self.gain, offsets)


def _unknown(rows: RowsUnderDraws, group: int) -> np.ndarray:
    """The columns (u,) with unknown values of rows of a group: missing, or measured with an error."""
    observed, errors = rows.groups[group]
    unknown = np.ones(rows.table.n_features, bool)
    unknown[observed] = False if errors is None else np.diag(errors)[observed] > 0
    return np.flatnonzero(unknown)


def _inferred(rows: RowsUnderDraws) -> Iterator[tuple[np.ndarray, int]]:
    """Positions of rows with unknown values, not too many at a time, all of a group, and its number."""
    (S, K, D), of_row = rows.mixture.means.shape, rows.groups.of_row
    order = np.argsort(of_row, kind="stable")
    edges = np.flatnonzero(np.diff(of_row[order], prepend=-1, append=-1))
    most = max(int(_CHUNK_BYTES / (8 * S * K * D)), 1)
    for begin, end in pairwise(edges.tolist()):
        group = int(of_row[order[begin]])
        if len(_unknown(rows, group)):
            yield from ((order[start : min(start + most, end)], group) for start in range(begin, end, most))


class _Mixed(NamedTuple):
    """Univariate mixtures of M normal distributions: ``weights`` and ``means`` (n, M), ``sds`` (M,)."""

    weights: np.ndarray
    means: np.ndarray
    sds: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        return (self.weights * self.means).sum(axis=1)

    @property
    def sd(self) -> np.ndarray:
        spread = self.sds**2 + (self.means - self.mean[:, None]) ** 2
        return np.sqrt((self.weights * spread).sum(axis=1))

    def quantile(self, p: float) -> np.ndarray:
        """Quantiles (n,): roots of the distribution function, by Newton's method within a shrinking bracket."""
        from scipy.special import ndtr, ndtri

        ends = self.means + ndtri(p) * self.sds
        low, high = ends.min(axis=1), ends.max(axis=1)  # between the components' own quantiles
        x = np.clip(self.mean + ndtri(p) * self.sd, low, high)
        going = np.arange(len(x))
        for _ in range(_MOST_STEPS):
            w, z = self.weights[going], (x[going, None] - self.means[going]) / self.sds
            excess = (w * ndtr(z)).sum(axis=1) - p
            slope = (w * np.exp(-0.5 * z**2) / self.sds).sum(axis=1) / np.sqrt(2 * np.pi)
            low[going] = np.where(excess < 0, x[going], low[going])
            high[going] = np.where(excess > 0, x[going], high[going])
            with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
                step = x[going] - excess / slope
            inside = (step >= low[going]) & (step <= high[going])
            x[going] = np.where(inside, step, 0.5 * (low[going] + high[going]))
            width = high[going] - low[going]
            going = going[(np.abs(excess) > 1e-13) & (width > 1e-14 * np.abs(x[going]))]
            if not len(going):
                break
        return x


def _square_root(covariances: np.ndarray) -> np.ndarray:
    """A square root R of each covariance R R', which may be singular."""
    values, vectors = np.linalg.eigh(covariances)
    return vectors * np.sqrt(np.maximum(values, 0.0))[..., None, :]
