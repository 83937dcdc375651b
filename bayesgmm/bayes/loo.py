"""`loo`: how well a mixture predicts a row that it has not seen, each row checked and where needed repaired.

Leave-one-out densities come from the draws of the whole table by importance sampling; `loo_repairs` has what is done
about rows for which that is not good enough.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection
from dataclasses import FrozenInstanceError, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from arviz_stats.base.array import array_stats
from arviz_stats.utils import ELPDDataLOO
from scipy.special import softmax

from bayesgmm.bayes.laplace import start_near
from bayesgmm.bayes.loo_repairs import REPAIRS, Estimate, Repair, RepairInputs
from bayesgmm.bayes.posterior import Posterior, posterior as as_posterior
from bayesgmm.bayes.psis import good_pareto_k, smoothed_loo
from bayesgmm.errors import ConvergenceWarning, InputError
from bayesgmm.mixture import GaussianMixture
from bayesgmm.names import counted
from bayesgmm.progress import Progress, of_stage

FEWEST_DRAWS = 30  # below which there is no tail to smooth
_BLOCK = 64e6  # bytes of the pointwise log-likelihood held at a time
_IN_WORDS = {
    Repair.MOMENT_MATCHING: "moment matching",
    Repair.MIXTURE: "sampling a mixture of their leave-one-out posteriors",
    Repair.REFIT: "sampling the posterior without the row",
}


class Frozen:
    """Of a dataclass whose base is not frozen: its fields cannot be set once it is made."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_made", True)

    def __setattr__(self, name: str, value: Any) -> None:
        if getattr(self, "_made", False):
            raise FrozenInstanceError(f"cannot assign to field {name!r}")
        object.__setattr__(self, name, value)


@dataclass(kw_only=True, repr=False)
class LOO(Frozen, ELPDDataLOO):
    """ArviZ's result of leave-one-out cross-validation, with what was done about each row; frozen.

    Attributes
    ----------
    elpd, se, p : float
        Expected log predictive density of a new row, summed over the rows (nats, larger is better), its standard error,
        and the effective number of parameters. Of rows with missing values it is that of their known ones, so it can be
        compared only between mixtures of the same values; a row without any contributes nothing.
    elpd_i, p_loo_i : DataArray (observation)
    pareto_k : DataArray (observation)
        Pareto k of the estimate that is used, or of the first estimate where none was good; ``influence_pareto_k`` is
        always that of the first estimate, from the draws as they were.
    method : DataArray (observation)
        A `Repair`: "psis", "moment matching", "mixture" or "refit".
    repairs : DataFrame
        One line for each attempt at a row whose first estimate was not good: ``row``, ``method``, ``elpd``,
        ``pareto_k``, ``mcse`` (Monte Carlo standard error, nats) and ``good``.
    untrusted : tuple of int
        The rows whose estimates cannot be trusted after all.
    text : str
        What was done, in words.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> tree = bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), draws=500, chains=2, rng=0)
    >>> result = bg.loo(tree)
    >>> result.untrusted, list(result.to_dataframe().columns)
    ((), ['elpd', 'p_loo', 'pareto_k', 'method', 'trusted'])
    """

    method: xr.DataArray
    repairs: pd.DataFrame
    untrusted: tuple[int, ...]

    @property
    def text(self) -> str:
        """What was done, in words."""
        N, first_k = self.n_data_points, np.asarray(self.influence_pareto_k)
        high = int((~(first_k <= self.good_k)).sum())
        if not high:
            text = f"All {N} rows have a Pareto k of at most {self.good_k:.2f}"
            return f"{text}: importance sampling from the draws is good for each."
        text = f"{high} of {N} rows had a Pareto k above {self.good_k:.2f}"
        trusted = np.delete(np.asarray(self.method), self.untrusted)
        counts = {repair: int((trusted == repair).sum()) for repair in REPAIRS}
        done = [f"{count} by {_IN_WORDS[repair]}" for repair, count in counts.items() if count]
        text += f"; repaired: {', '.join(done)}" if done else ""
        if not self.untrusted:
            return f"{text}."
        return f"{text}; not to be trusted: {some_rows(self.untrusted)}. See repairs; draw longer."

    def to_dataframe(self) -> pd.DataFrame:
        """The results for each row, one line per row.

        Returns
        -------
        DataFrame
            Columns ``elpd``, ``p_loo`` (nats), ``pareto_k``, ``method``, ``trusted``.
        """
        columns = {"elpd": self.elpd_i, "p_loo": self.p_loo_i, "pareto_k": self.pareto_k, "method": self.method}
        table = pd.DataFrame({name: np.asarray(array) for name, array in columns.items()})
        return table.assign(trusted=~table.index.isin(self.untrusted))

    def __str__(self) -> str:
        """ArviZ's summary and what was done."""
        return f"{super().__str__()}\n{self.text}"


def loo(
    posterior: Any,
    *,
    methods: Collection[str] = (Repair.MIXTURE, Repair.REFIT),
    rng: Any = None,
    progress: Progress | None = None,
) -> LOO:
    """Leave-one-out expected log predictive density of a posterior; every row is checked, and repaired where needed.

    Parameters
    ----------
    posterior : DataTree or Posterior
        From `sample_posterior`.
    methods : collection of str
        What may be done about rows whose Pareto k is too high, any of "moment matching", "mixture" and "refit", tried
        in this order. With none of them the result is that of ``arviz.loo``.
    rng : Generator, seed or None
        For the posteriors that have to be sampled anew.
    progress : callable, optional
        Called as ``progress("leave-one-out", done, total)`` with the number of rows settled so far and of all rows.

    Returns
    -------
    LOO
        ArviZ's `ELPDDataLOO` for ``arviz.compare`` and ``arviz.plot_khat``, with ``method``, ``repairs`` and ``text``.

    Warns
    -----
    ConvergenceWarning
        If the estimates of some rows cannot be trusted after all; the message names them.

    Raises
    ------
    InputError
        If there are no draws of a mixture, or fewer than 30, or of an approximation that is not good, or a method is
        unknown.

    Notes
    -----
    1. Pareto-smoothed importance sampling from the draws (Vehtari et al. 2024), in blocks of rows so that memory stays
       bounded. A row is good if its Pareto k is at most min(1 - 1/log10(draws), 0.7). Draws of a good approximation
       that come with importance weights are resampled by them first (after Magnusson et al. 2019).
    2. Moment matching, if asked for: half of the draws are shifted, scaled and rotated to the moments of the posterior
       without the row (Paananen et al. 2021). It needs no sampling, but on small tables takes longer than sampling anew
       would, and where a row's absence changes the posterior's shape it can be off by more than its error says. It is
       skipped where labels switched: relabelled draws have no smooth density.
    3. Draws from p(theta | X) sum_i c_i / p(x_i | theta) over the bad rows, a mixture of the posteriors without each
       (Silva & Zanella 2023) in about equal shares, c_i being the estimate of row i's predictive density so far. They
       are pooled with the posterior's own draws by bridge sampling (Meng & Wong 1996): relative to the pool the weights
       1 / p(x_i | theta) are bounded, and Pareto k is set to 0.
    4. Draws of the exact posterior without the row, pooled with the posterior's; where the two hardly overlap, draws of
       posteriors that give the row a part of its weight are added in between (Shirts & Chodera 2008).

    An estimate of 2 to 4 is good if its Monte Carlo standard error is below 0.1 nats, and if new chains agree about the
    row (R-hat at most 1.05).

    References
    ----------
    Vehtari, Gelman & Gabry (2017), Statistics and Computing 27, 1413-1432. doi:10.1007/s11222-016-9696-4

    Paananen, Piironen, Bürkner & Vehtari (2021), Statistics and Computing 31, 16. doi:10.1007/s11222-020-09982-2

    Magnusson, Andersen, Jonasson & Vehtari (2019), Proceedings of Machine Learning Research 97, 4244-4253.

    Silva & Zanella (2023), Journal of the American Statistical Association. doi:10.1080/01621459.2023.2257893

    Meng & Wong (1996), Statistica Sinica 6, 831-860.

    Shirts & Chodera (2008), Journal of Chemical Physics 129, 124105. doi:10.1063/1.2978177

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> tree = bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), draws=500, chains=2, rng=0)
    >>> result = bg.loo(tree)
    >>> round(result.elpd / 10), result.warning
    (-114, False)
    """
    methods = (methods,) if isinstance(methods, str) else methods
    unknown = set(methods) - set(REPAIRS)
    if unknown:
        raise InputError(f"methods is a collection of any of {', '.join(REPAIRS)}; not {sorted(unknown)[0]!r}")
    drawn = as_posterior(posterior)
    drawn.need_table("leave-one-out")
    table = drawn.table
    if table is None:
        raise InputError("loo needs a posterior with its table, as sample_posterior returns it")
    drawn = _of_posterior(drawn)
    if drawn.n_draws < FEWEST_DRAWS:
        raise InputError(f"leave-one-out needs at least {FEWEST_DRAWS} draws; there are {drawn.n_draws}")
    tell = of_stage(progress, "leave-one-out")
    good_k, efficiency = good_pareto_k(drawn.n_draws), _relative_efficiency(drawn.draws)
    rows = _Rows(*_smoothed(drawn, efficiency, good_k, tell), good_k=good_k, empty=table.empty)
    wanted = [repair for repair in REPAIRS if repair in methods]
    if wanted and rows.bad.any():
        inputs = _repair_inputs(drawn, efficiency, good_k)
        rng = np.random.default_rng(rng)
        for repair in wanted:
            if rows.bad.any():
                for row, estimate in REPAIRS[repair](inputs, np.flatnonzero(rows.bad), rows.elpd[rows.bad], rng):
                    rows.attempt(row, repair, estimate)
                    if not rows.bad[row]:
                        tell(int((~rows.bad).sum()), len(rows.bad))
    if rows.bad.any():
        tell(len(rows.bad), len(rows.bad))
    result = rows.result(drawn.n_draws)
    if result.untrusted:
        warnings.warn(result.text, ConvergenceWarning, stacklevel=2)
    return result


def has_loo(drawn: Posterior) -> bool:
    """Whether `loo` takes a posterior: every row is in memory, and its draws stand for the posterior."""
    good = drawn.verdict is not None and drawn.verdict.good
    return drawn.table is not None and (good or not drawn.sampling.approximate)


def _of_posterior(drawn: Posterior) -> Posterior:
    """The posterior with the draws that stand for it: those of an approximation resampled by their weights."""
    if not has_loo(drawn):
        reason = "" if drawn.verdict is None else f": {drawn.verdict.text}"
        raise InputError(
            f"loo needs draws of the posterior, or of a good approximation, which these are not{reason}; "
            "use method='nuts'"
        )
    log_weight = drawn.statistics.get("log_importance_weight")
    if log_weight is None:
        return drawn
    share = np.cumsum(softmax(log_weight))  # systematic resampling; what is drawn twice comes in a row
    picked = np.searchsorted(share, (np.arange(share.size) + 0.5) / share.size * share[-1])
    draws = drawn.draws.reshape(-1)[picked].reshape(*drawn.draws.batch_shape)
    return replace(drawn, draws=draws, log_likelihood=None)


class _Rows:
    """The rows' estimates while they are repaired."""

    def __init__(
        self, elpd: np.ndarray, pareto_k: np.ndarray, p_loo: np.ndarray, good_k: float, empty: np.ndarray
    ) -> None:
        self.elpd, self.pareto_k, self.good_k, self.empty = elpd, pareto_k, good_k, empty
        self.log_mean = elpd + p_loo  # log of the density's mean over the draws
        self.first_k = pareto_k.copy()
        self.bad = ~(pareto_k <= good_k)
        self.mcse = np.full(len(elpd), np.inf)
        self.method = np.full(len(elpd), str(Repair.NONE), dtype="<U15")
        self.attempts: list[dict[str, Any]] = []

    def attempt(self, row: int, repair: Repair, estimate: Estimate) -> None:
        """Take an estimate where it is good, or at least better than the one before."""
        good = estimate.good(self.good_k)
        self.attempts.append({"row": row, "method": str(repair), **estimate._asdict(), "good": good})
        if good or estimate.mcse < self.mcse[row]:
            self.elpd[row], self.mcse[row], self.method[row] = estimate.elpd, estimate.mcse, repair
        if good:
            self.pareto_k[row] = estimate.pareto_k
        self.bad[row] = not good

    def result(self, n_draws: int) -> LOO:
        """All of it as `LOO`."""
        p_loo_i = self.log_mean - self.elpd
        elpd, se, p = summary(self.elpd, p_loo_i, self.empty)
        return LOO(
            elpd=elpd,
            se=se,
            p=p,
            n_samples=n_draws,
            n_data_points=len(self.elpd),
            scale="log",
            warning=bool(self.bad.any()),
            good_k=self.good_k,
            elpd_i=per_row(self.elpd, "elpd_i"),
            pareto_k=per_row(self.pareto_k, "pareto_k"),
            p_loo_i=per_row(p_loo_i, "p_loo_i"),
            influence_pareto_k=per_row(self.first_k, "influence_pareto_k"),
            method=per_row(self.method, "method"),
            repairs=pd.DataFrame(self.attempts, columns=["row", "method", *Estimate._fields, "good"]),
            untrusted=tuple(np.flatnonzero(self.bad).tolist()),
        )


def summary(elpd: np.ndarray, p: np.ndarray, empty: np.ndarray) -> tuple[float, float, float]:
    """Totals of the rows' elpd and p (N,), with the standard error of the first; rows without values do not count."""
    total, se, p_total, _ = array_stats.loo_summary(np.delete(elpd, empty), np.delete(p, empty))
    return float(total), float(se), float(p_total)


def per_row(values: np.ndarray, name: str) -> xr.DataArray:
    """Numbers of the rows as ArviZ has them."""
    return xr.DataArray(values, {"observation": np.arange(len(values))}, ("observation",), name)


def some_rows(rows: Collection[int]) -> str:
    """So many rows, the first ten named.

    Examples
    --------
    >>> some_rows([3]), some_rows(range(12))
    ('1 row (3)', '12 rows (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ...)')
    """
    names = ", ".join(map(str, list(rows)[:10])) + (", ..." if len(rows) > 10 else "")
    return f"{counted(len(rows), 'row')} ({names})"


def _relative_efficiency(draws: GaussianMixture) -> float:
    """Effective draws per draw, averaged over the parameters as ``arviz.loo`` does."""
    if draws.batch_shape[0] == 1:
        return 1.0
    with np.errstate(invalid="ignore"):
        ess = [
            array_stats.ess(getattr(draws, name), chain_axis=0, draw_axis=1, method="mean").ravel()
            for name in draws.parameters
        ]
    return float(np.concatenate(ess).mean() / np.prod(draws.batch_shape))


def _smoothed(
    drawn: Posterior, efficiency: float, good_k: float, tell: Callable[[int, int], None]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log predictive density, Pareto k and effective number of parameters of each row, (N,) each, block by block."""
    table, stored = drawn.table, drawn.log_likelihood
    assert table is not None
    N = table.n_observations
    step = max(int(_BLOCK / (8 * drawn.n_draws)), 1)
    out = np.empty((3, N))

    def log_lik(a: int, b: int) -> np.ndarray:
        if stored is not None:
            block = np.asarray(stored[..., a:b], dtype=np.float64)
        else:
            block = drawn.draws.log_prob(table.take(np.arange(a, b)))
        return block.reshape(-1, b - a).T

    for a in range(0, N, step):
        b = min(a + step, N)
        out[:, a:b] = smoothed_loo(log_lik(a, b), efficiency)
        tell(int((out[1, :b] <= good_k).sum()), N)
    return out[0], out[1], out[2]


def _repair_inputs(drawn: Posterior, efficiency: float, good_k: float) -> RepairInputs:
    if drawn.em is None:
        raise InputError("loo needs a posterior with its EM fit to repair rows; or ask for none: methods=()")
    return RepairInputs(
        density=drawn.density,
        draws=drawn.draws,
        start=start_near(drawn.density, drawn.em),
        efficiency=efficiency,
        tune=drawn.sampling.tune,
        switched=drawn.labels is not None and drawn.labels.switch_rate > 0,
        good_k=good_k,
    )
