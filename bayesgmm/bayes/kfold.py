"""`kfold`: how well a mixture predicts rows that it has not seen, from posteriors without each fold."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from arviz_stats.utils import ELPDDataLOOKFold
from scipy.special import logsumexp

from bayesgmm.bayes.density import Density
from bayesgmm.bayes.laplace import Mode, find_mode, start_near
from bayesgmm.bayes.loo import FEWEST_DRAWS, Frozen, per_row, some_rows, summary
from bayesgmm.bayes.monte_carlo import LARGEST_R_HAT, mean_error, r_hat
from bayesgmm.bayes.nuts import LEAST_TUNE, nutpie_draws
from bayesgmm.bayes.priors import Priors, check_priors
from bayesgmm.bayes.psis import good_pareto_k, smoothed_loo
from bayesgmm.em.fit import fit_em
from bayesgmm.em.initialize import mean_and_covariance
from bayesgmm.em.result import EMFit, fitted_table
from bayesgmm.errors import ConvergenceWarning, InputError
from bayesgmm.observations import observations, positive_integer
from bayesgmm.progress import Progress, of_stage


@dataclass(kw_only=True, repr=False)
class KFold(Frozen, ELPDDataLOOKFold):
    """ArviZ's result of K-fold cross-validation, with the folds; frozen.

    Attributes
    ----------
    elpd, se, p : float
        As in `LOO`.
    elpd_i, p_kfold_i : DataArray (observation)
    folds : (N,) int
        The fold of each row.
    fold_table : DataFrame
        ``fold``, ``n_rows`` held out, their ``elpd`` (nats), its Monte Carlo standard error ``mcse``, ``r_hat``, and
        the largest ``pareto_k`` of the densities that were averaged for a row.
    disagreeing : tuple of int
        Folds in which the chains disagree about the held-out rows (R-hat above 1.05).
    untrusted : tuple of int
        Rows whose density varies too much from draw to draw for its mean to be trusted.
    text : str
        How far the result can be trusted, in words.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> result = bg.kfold(X, bg.fit_em(X, 2, rng=0), n_folds=2, draws=200, chains=2, rng=0)
    >>> result.fold_table["n_rows"].tolist(), list(result.to_dataframe().columns)
    ([136, 136], ['elpd', 'p_kfold', 'fold', 'trusted'])
    """

    folds: np.ndarray
    fold_table: pd.DataFrame
    disagreeing: tuple[int, ...]
    untrusted: tuple[int, ...]

    @property
    def text(self) -> str:
        """How far the result can be trusted, in words."""
        error = float(np.sqrt((self.fold_table["mcse"] ** 2).sum()))
        text = f"The Monte Carlo standard error of the sum over {self.n_folds} folds is {error:.2g} nats."
        if self.disagreeing:
            text += f" The chains disagree about the rows of fold {', '.join(map(str, self.disagreeing))}: draw longer "
            text += "(tune, draws)."
        if self.untrusted:
            text += f" Not to be trusted: {some_rows(self.untrusted)}, whose density varies too much from draw to draw "
            text += f"for a mean (Pareto k above {good_pareto_k(self.n_samples):.2f}); loo bridges such gaps."
        return text

    def to_dataframe(self) -> pd.DataFrame:
        """The results for each row, one line per row.

        Returns
        -------
        DataFrame
            Columns ``elpd``, ``p_kfold`` (nats), ``fold``, ``trusted``.
        """
        columns = {"elpd": self.elpd_i, "p_kfold": self.p_kfold_i, "fold": self.folds}
        table = pd.DataFrame({name: np.asarray(array) for name, array in columns.items()})
        return table.assign(trusted=~table.index.isin(self.untrusted))

    def __str__(self) -> str:
        """ArviZ's summary and how the folds went."""
        return f"{super().__str__()}\n{self.text}"


def kfold(
    X: Any,
    fit: EMFit | int,
    priors: Priors | None = None,
    *,
    covariance: str = "full",
    n_folds: int = 10,
    folds: Any = None,
    stratify: bool = False,
    draws: int = 500,
    tune: int = 300,
    chains: int = 4,
    error_sd: Any = None,
    error_covariance: Any = None,
    noise: Any = None,
    rng: Any = None,
    progress: Progress | None = None,
) -> KFold:
    """Expected log predictive density by K-fold cross-validation: each fold predicted from draws without its rows.

    Parameters
    ----------
    X : (N, D) table
        Of rows with missing values those that are known are predicted.
    fit : EMFit or int
        The fit of the table, or a number of components to fit with the priors.
    priors : Priors, optional
        The same for every fold; `Priors.weakly_informative` of the whole table by default, as for `loo`.
    covariance : str
        Covariance model to fit where a number of components is given.
    n_folds : int
        From 2 to N.
    folds : (N,) int, optional
        The fold of each row, instead of random ones; compare models on the same folds.
    stratify : bool
        Spread the rows of each of the fit's clusters evenly over the folds.
    draws, tune, chains : int
        For each fold's posterior: draws to keep and draws to tune with, both per chain, and the number of chains.
    error_sd : (D,) or (N, D), optional
        Standard deviations of the errors that the values were measured with; the mixture is of the true values.
    error_covariance : (D, D) or (N, D, D), optional
        Their covariances, instead.
    noise : bool, Noise or (N,), optional
        As in `fit_em`, where a number of components is given; else the log density of the noise at each row, where the
        fit was made with one.
    rng : Generator, seed or None
    progress : callable, optional
        Called as ``progress("folds", done, total)`` with the number of posteriors sampled so far and their total, which
        is one more than the number of folds.

    Returns
    -------
    KFold
        ArviZ's `ELPDDataLOOKFold` for ``arviz.compare``, with ``folds``, ``fold_table`` and ``text``.

    Warns
    -----
    ConvergenceWarning
        If in some fold the chains disagree about the rows held out (R-hat above 1.05), or a row is so far out that its
        density cannot be averaged over the draws.

    Raises
    ------
    InputError
        If table, fit and priors do not belong together, or the folds are not those of this table.

    Notes
    -----
    A fold's rows are held out by giving them weight 0. Sampling starts at the mode of the posterior of the remaining
    rows, which is found by climbing from the fit of the whole table.

    References
    ----------
    Vehtari, Gelman & Gabry (2017), Statistics and Computing 27, 1413-1432. doi:10.1007/s11222-016-9696-4

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> result = bg.kfold(X, bg.fit_em(X, 2, rng=0), n_folds=5, draws=200, chains=2, rng=0)
    >>> len(result.fold_table), round(result.elpd, -2)
    (5, -1100.0)
    """
    draws, chains = positive_integer(draws, "draws", least=FEWEST_DRAWS), positive_integer(chains, "chains")
    tune = positive_integer(tune, "tune", least=LEAST_TUNE)
    rng = np.random.default_rng(rng)
    table = observations(X, None, error_sd, error_covariance, noise)
    if not isinstance(fit, EMFit):
        priors = priors if priors is not None else Priors.weakly_informative(table, fit)
        fit = fit_em(table, fit, covariance, priors=priors, rng=rng)
    table = fitted_table(fit, table, None, ("labels", "fixed"), "cross-validation")
    density = Density(table, mean_and_covariance(table)[0], check_priors(table, fit, priors), fit.covariance_model)
    N = table.n_observations
    if folds is None:
        strata = fit.mixture.predict(table) if stratify else None
        folds = _random_folds(N, positive_integer(n_folds, "n_folds", least=2), strata, rng)
    folds = _checked_folds(folds, N)
    names = np.unique(folds).tolist()
    sampler = _Sampler(density, find_mode(density, start_near(density, fit.mixture)), draws, tune, chains, rng)

    tell = of_stage(progress, "folds")
    elpd, lines, untrusted = np.empty(N), [], []
    for done, name in enumerate(names):
        rows = np.flatnonzero(folds == name)
        log_lik = sampler.log_prob(np.where(folds == name, 0.0, 1.0), rows)
        elpd[rows] = logsumexp(log_lik, axis=(0, 1)) - np.log(draws * chains)
        influence = np.exp(log_lik - elpd[rows]).sum(axis=-1)
        pareto_k = smoothed_loo(-log_lik.reshape(-1, len(rows)).T, 1.0)[1]
        untrusted += rows[pareto_k > good_pareto_k(draws * chains)].tolist()
        line = {"fold": name, "n_rows": len(rows), "elpd": elpd[rows].sum(), "mcse": mean_error(influence)}
        lines.append({**line, "r_hat": r_hat(influence) if chains > 1 else np.nan, "pareto_k": pareto_k.max()})
        tell(done + 1, len(names) + 1)
    log_lik = sampler.log_prob(np.ones(N), np.arange(N))
    p = logsumexp(log_lik, axis=(0, 1)) - np.log(draws * chains) - elpd
    tell(len(names) + 1, len(names) + 1)

    fold_table = pd.DataFrame(lines)
    disagreeing = tuple(fold_table["fold"][fold_table["r_hat"] > LARGEST_R_HAT].tolist())
    total, se, p_total = summary(elpd, p, table.empty)
    result = KFold(
        elpd=total,
        se=se,
        p=p_total,
        n_samples=draws * chains,
        n_data_points=N,
        scale="log",
        warning=bool(disagreeing or untrusted),
        good_k=None,  # type: ignore[arg-type]  # as in ArviZ's own
        elpd_i=per_row(elpd, "elpd_i"),
        p_kfold_i=per_row(p, "p_kfold_i"),
        n_folds=len(names),
        folds=folds,
        fold_table=fold_table,
        disagreeing=disagreeing,
        untrusted=tuple(sorted(untrusted)),
    )
    if result.warning:
        warnings.warn(result.text, ConvergenceWarning, stacklevel=2)
    return result


def _random_folds(N: int, n_folds: int, strata: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """The fold of each row (N,) at random, the rows of each stratum spread evenly where there are strata (N,)."""
    if n_folds > N:
        raise InputError(f"{n_folds} folds of {N} rows: some would be empty")
    shuffled = rng.permutation(N)
    if strata is not None:
        shuffled = shuffled[np.argsort(strata[shuffled], kind="stable")]
    folds = np.empty(N, dtype=np.int64)
    folds[shuffled] = np.arange(N) % n_folds
    return folds


def _checked_folds(folds: Any, N: int) -> np.ndarray:
    """The fold of each row, read-only."""
    folds = np.array(folds)
    if folds.shape != (N,) or folds.dtype.kind not in "iu":
        raise InputError(f"folds must be {N} whole numbers, the fold of each row, not of shape {folds.shape}")
    if len(np.unique(folds)) < 2:
        raise InputError("at least two folds are needed; all rows are in one")
    folds.flags.writeable = False
    return folds


class _Sampler(NamedTuple):
    """Draws from posteriors in which some rows have no weight."""

    density: Density  # of all rows
    mode: Mode  # of all rows, from which the others are climbed to
    draws: int
    tune: int
    chains: int
    rng: np.random.Generator

    def log_prob(self, row_weight: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Log densities (chain, draw, rows) under draws of the posterior in which rows have these weights (N,)."""
        table = self.density.table
        density = replace(self.density, table=replace(table, sample_weight=row_weight))
        mode = find_mode(density, self.mode.origin)
        seed = int(self.rng.integers(2**31))
        drawn = nutpie_draws(density, mode, draws=self.draws, tune=self.tune, chains=self.chains, seed=seed)
        return density.unpack(drawn.thetas).log_prob(table.take(rows))
