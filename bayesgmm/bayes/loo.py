"""`loo` and `kfold`: how well a mixture predicts rows that it has not seen, with what each estimate may be trusted for.

Leave-one-out densities come from the draws of the whole table by importance sampling. Where its check fails the row
climbs a ladder: the posteriors without the bad rows are sampled together, then one by one with bridges between them and
the whole posterior. (Moving the draws to where they are needed is there too, for whoever asks for it.)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from arviz_stats.base.array import array_stats
from arviz_stats.utils import ELPDDataLOO, ELPDDataLOOKFold
from scipy.optimize import minimize
from scipy.special import logsumexp

from bayesgmm.bayes.density import Density
from bayesgmm.bayes.laplace import find_mode
from bayesgmm.bayes.nuts import LEAST_TUNE, nutpie_draws
from bayesgmm.bayes.priors import Priors, check_priors
from bayesgmm.bayes.psis import smoothed_loo
from bayesgmm.bayes.tree import as_mixture, density_of
from bayesgmm.em.fit import EMFit, fit_em, fitted_table
from bayesgmm.em.initialize import whole_table
from bayesgmm.errors import ConvergenceWarning, InputError
from bayesgmm.expectation import in_threads, n_threads
from bayesgmm.mixture import GaussianMixture
from bayesgmm.observations import positive_integer

METHODS = ("moment matching", "mixture", "refit")
_BLOCK = 64e6  # bytes of the pointwise log-likelihood held at a time
_LARGEST_MCSE = 0.1  # nats: Monte Carlo standard error that a row's estimate may have
_LARGEST_R_HAT = 1.05  # that chains without some rows may have in the rows' log densities
_MIXED_ROWS = 200  # at most that one mixture leaves out
_STATES = 10  # at most between which and the posterior a refitted row's weight goes from one to zero
_TRANSFORMATIONS = 30  # at most, per row
_FEWEST_DRAWS = 30  # below which there is no tail to smooth
_IN_WORDS = {
    "moment matching": "moment matching",
    "mixture": "sampling a mixture of their leave-one-out posteriors",
    "refit": "sampling the posterior without the row",
}


@dataclass(kw_only=True, repr=False)
class LOO(ELPDDataLOO):
    """ArviZ's result of leave-one-out cross-validation, with what was done about each row.

    Attributes
    ----------
    elpd, se, p : float
        Expected log predictive density of a new row, summed over the rows (nats, larger is better), its standard error,
        and the effective number of parameters.
    elpd_i, p_loo_i : DataArray (observation)
    pareto_k : DataArray (observation)
        Of the estimate, and of the first one where none was good; ``influence_pareto_k`` is the first one's, from the
        draws as they were.
    method : DataArray (observation)
        "psis", "moment matching", "mixture" or "refit".
    repairs : DataFrame
        One line for each attempt at a row whose first estimate was not good: ``row``, ``method``, ``elpd``,
        ``pareto_k``, ``mcse`` (Monte Carlo standard error, nats) and ``good``.
    text : str
        The same in words.
    """

    method: xr.DataArray | None = None
    repairs: pd.DataFrame | None = None
    text: str = ""

    def __str__(self) -> str:
        """ArviZ's summary and what was done."""
        return f"{super().__str__()}\n{self.text}"


@dataclass(kw_only=True, repr=False)
class KFold(ELPDDataLOOKFold):
    """ArviZ's result of K-fold cross-validation, with the folds.

    Attributes
    ----------
    elpd, se, p : float
        As for `LOO`.
    elpd_i, p_kfold_i : DataArray (observation)
    folds : (N,) int
        The fold of each row.
    fold_table : DataFrame
        ``fold``, ``n_rows`` held out, their ``elpd`` (nats), its Monte Carlo standard error ``mcse``, ``r_hat``, and
        the largest ``pareto_k`` of the densities that were averaged for a row.
    text : str
        What to make of it, in words.
    """

    folds: np.ndarray | None = None
    fold_table: pd.DataFrame | None = None
    text: str = ""

    def __str__(self) -> str:
        """ArviZ's summary and how the folds went."""
        return f"{super().__str__()}\n{self.text}"


class _Estimate(NamedTuple):
    """Log predictive density of a row (nats), Pareto k of its weights, and its Monte Carlo standard error (nats)."""

    elpd: float
    pareto_k: float
    mcse: float

    def good(self, good_k: float) -> bool:
        return self.pareto_k <= good_k and self.mcse < _LARGEST_MCSE


class _Posterior(NamedTuple):
    """What the ladder climbs from."""

    density: Density
    mixture: GaussianMixture  # batch (chain, draw)
    start: np.ndarray  # (n,) coordinates of the EM fit
    efficiency: float  # effective draws per draw
    tune: int
    switched: bool  # whether draws were renumbered
    good_k: float


def loo(
    tree: xr.DataTree,
    *,
    methods: Collection[str] = METHODS[1:],
    rng: Any = None,
    progress: Callable[[int, int], None] | None = None,
) -> LOO:
    """Leave-one-out expected log predictive density of a posterior, every row of it checked and where needed repaired.

    Parameters
    ----------
    tree : DataTree
        From `sample_posterior`.
    methods : collection of str
        What may be done about rows whose Pareto k is too high, any of "moment matching", "mixture" and "refit", tried
        in this order. With none of them the result is that of ``arviz.loo``.
    rng : Generator, seed or None
        For what has to be sampled anew.
    progress : callable, optional
        Called with the number of rows that are settled and the number of rows.

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
        If the tree has no draws of a mixture, or fewer than 30, or a method is unknown.

    Notes
    -----
    1. Pareto-smoothed importance sampling from the draws (Vehtari et al. 2024), in blocks of rows so that memory stays
       bounded. A row is good if its Pareto k is at most min(1 - 1/log10(draws), 0.7).
    2. Moment matching, if asked for: the draws are shifted, scaled and rotated to the moments of the posterior without
       the row, half of them stay (Paananen et al. 2021). It samples nothing, but takes longer than sampling small
       tables, and where a row's absence changes the posterior's shape it can be off by more than its error says. Left
       out where labels switched: renumbered draws have no smooth density.
    3. Draws from p(theta | X) sum_i c_i / p(x_i | theta) over the bad rows, a mixture of the posteriors without each
       (Silva & Zanella 2023) in about equal shares, c_i being the estimate of row i's predictive density so far. They
       are pooled with the posterior's own draws by bridge sampling (Meng & Wong 1996): relative to the pool the weights
       1 / p(x_i | theta) are bounded, and Pareto k is set to 0.
    4. Draws of the exact posterior without the row, pooled with the posterior's; where the two hardly overlap, draws of
       posteriors that give the row a part of its weight are added in between (Shirts & Chodera 2008).

    An estimate of 2 to 4 is good if its Monte Carlo standard error is below 0.1 nats, and if new chains agree about the
    row (R-hat at most 1.05).

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
    unknown = set(methods) - set(METHODS)
    if unknown:
        raise InputError(f"methods is a collection of any of {', '.join(METHODS)}; not {sorted(unknown)[0]!r}")
    if not isinstance(tree, xr.DataTree) or not {"posterior", "observed_data"} <= set(tree.children):
        raise InputError(f"loo needs the DataTree that sample_posterior returned, not {type(tree).__name__}")
    if tree.attrs.get("method") == "laplace":
        raise InputError("loo needs draws from the posterior, not from its normal approximation; use method='nuts'")
    mixture, rows = as_mixture(tree), tree["observed_data"].to_dataset()["observations"]
    n_draws, N = int(np.prod(mixture.batch_shape)), len(rows)
    if n_draws < _FEWEST_DRAWS:
        raise InputError(f"leave-one-out needs at least {_FEWEST_DRAWS} draws; the tree has {n_draws}")
    good_k = _good_k(n_draws)
    efficiency = _relative_efficiency(tree)
    elpd, pareto_k, p_loo = _smoothed(tree, mixture, efficiency, good_k, progress)
    log_mean, first_k = elpd + p_loo, pareto_k.copy()
    bad = ~(pareto_k <= good_k)
    settled, attempts, method = int((~bad).sum()), [], np.full(N, "psis", dtype="<U15")
    rng, mcse = np.random.default_rng(rng), np.full(N, np.inf)
    posterior = None
    for name in METHODS:
        if name not in methods or not bad.any():
            continue
        if posterior is None:
            posterior = _posterior(tree, mixture, efficiency, good_k)
        for row, estimate in _RUNGS[name](posterior, np.flatnonzero(bad), elpd[bad], rng):
            good = estimate.good(good_k)
            attempts.append({"row": row, "method": name, **estimate._asdict(), "good": good})
            if good or estimate.mcse < mcse[row]:
                elpd[row], mcse[row], method[row] = estimate.elpd, estimate.mcse, name
            if good:
                pareto_k[row] = estimate.pareto_k
            bad[row] = not good
            settled += good
            if progress is not None and good:
                progress(settled, N)
    if progress is not None and settled < N:
        progress(N, N)
    text = _in_words(N, first_k, good_k, method, bad)
    if bad.any():
        warnings.warn(text, ConvergenceWarning, stacklevel=2)
    total, se, p, _ = array_stats.loo_summary(elpd, log_mean - elpd)

    def per_row(values: np.ndarray, name: str) -> xr.DataArray:
        return xr.DataArray(values, {"observation": rows["observation"].values}, ("observation",), name)

    return LOO(
        elpd=float(total),
        se=float(se),
        p=float(p),
        n_samples=n_draws,
        n_data_points=N,
        scale="log",
        warning=bool(bad.any()),
        good_k=good_k,
        elpd_i=per_row(elpd, "elpd_i"),
        pareto_k=per_row(pareto_k, "pareto_k"),
        p_loo_i=per_row(log_mean - elpd, "p_loo_i"),
        influence_pareto_k=per_row(first_k, "influence_pareto_k"),
        method=per_row(method, "method"),
        repairs=pd.DataFrame(attempts, columns=["row", "method", *_Estimate._fields, "good"]),
        text=text,
    )


def _in_words(N: int, first_k: np.ndarray, good_k: float, method: np.ndarray, bad: np.ndarray) -> str:
    high = int((~(first_k <= good_k)).sum())
    if not high:
        text = f"All {N} rows have a Pareto k of at most {good_k:.2f}"
        return f"{text}: importance sampling from the draws is good for each."
    text = f"{high} of {N} rows had a Pareto k above {good_k:.2f}"
    counts = {name: int(((method == name) & ~bad).sum()) for name in METHODS}
    done = [f"{count} by {_IN_WORDS[name]}" for name, count in counts.items() if count]
    text += f"; repaired: {', '.join(done)}" if done else ""
    if not bad.any():
        return f"{text}."
    return f"{text}; not to be trusted: {_listed(np.flatnonzero(bad).tolist())}. See repairs; draw longer."


def _listed(rows: list[int]) -> str:
    names = ", ".join(map(str, rows[:10])) + (", ..." if len(rows) > 10 else "")
    return f"{len(rows)} row{'s' * (len(rows) > 1)} ({names})"


def _good_k(n_draws: int) -> float:
    """Pareto k up to which so many draws will do (Vehtari et al. 2024)."""
    return float(min(1 - 1 / np.log10(n_draws), 0.7))


def _relative_efficiency(tree: xr.DataTree) -> float:
    """Effective draws per draw, averaged over the parameters as ``arviz.loo`` does."""
    posterior = tree["posterior"].to_dataset()
    chains, draws = posterior.sizes["chain"], posterior.sizes["draw"]
    if chains == 1:
        return 1.0
    with np.errstate(invalid="ignore"):
        ess = [
            array_stats.ess(variable.values, chain_axis=0, draw_axis=1, method="mean").ravel()
            for variable in posterior.data_vars.values()
        ]
    return float(np.concatenate(ess).mean() / (chains * draws))


def _smoothed(
    tree: xr.DataTree,
    mixture: GaussianMixture,
    efficiency: float,
    good_k: float,
    progress: Callable[[int, int], None] | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log predictive density, Pareto k and effective number of parameters of each row, (N,) each, block by block."""
    X = tree["observed_data"].to_dataset()["observations"].values
    stored = tree["log_likelihood"].to_dataset()["observations"] if "log_likelihood" in tree.children else None
    N = len(X)
    step = max(int(_BLOCK / (8 * np.prod(mixture.batch_shape))), 1)
    out = np.empty((3, N))
    for a in range(0, N, step):
        b = min(a + step, N)
        block = mixture.log_prob(X[a:b]) if stored is None else stored[..., a:b].values.astype(np.float64)
        out[:, a:b] = smoothed_loo(block.reshape(-1, b - a).T, efficiency)
        if progress is not None:
            progress(int((out[1, :b] <= good_k).sum()), N)
    return out[0], out[1], out[2]


def _posterior(tree: xr.DataTree, mixture: GaussianMixture, efficiency: float, good_k: float) -> _Posterior:
    density, em = density_of(tree), tree["em"].to_dataset()
    fit = GaussianMixture(em["weights"].values, em["means"].values, em["covariances"].values)
    return _Posterior(
        density=density,
        mixture=mixture,
        start=density.pack(fit),
        efficiency=efficiency,
        tune=int(tree.attrs.get("tune", 500)),
        switched=tree.attrs.get("switch_rate", 0.0) > 0,
        good_k=good_k,
    )


def _psis(log_ratios: np.ndarray, efficiency: float) -> tuple[np.ndarray, float]:
    """Smoothed log weights (chain, draw), summing to one, and Pareto k (0 where there is no tail to fit)."""
    try:
        weights, k = array_stats.psislw(-log_ratios, r_eff=efficiency, axis=(-2, -1))
    except ValueError:  # the largest ratios are all the same
        return log_ratios - logsumexp(log_ratios), 0.0
    return weights, float(k)


def _mcse(values: np.ndarray) -> float:
    """Monte Carlo standard error of the mean of (chain, draw) values."""
    return float(array_stats.mcse(values, chain_axis=0, draw_axis=1, method="mean"))


def _r_hat(values: np.ndarray) -> float:
    """R-hat of (chain, draw) values."""
    return float(array_stats.rhat(values, chain_axis=0, draw_axis=1))


def _stratified_error(parts: Iterable[np.ndarray]) -> float:
    """Monte Carlo standard error of the sum of all parts, (chain, draw) each."""
    return float(np.sqrt(sum((_mcse(part) * part.size) ** 2 for part in parts)))


def _values(density: Density, thetas: np.ndarray) -> np.ndarray:
    """The log density (...) at coordinates (..., n)."""
    flat = thetas.reshape(-1, thetas.shape[-1])
    ends = np.linspace(0, len(flat), n_threads() + 1).astype(int).tolist()
    _ = density.handle  # made once, before threads ask for it
    parts = in_threads(lambda ends: [density(theta)[0] for theta in flat[slice(*ends)]], list(pairwise(ends)))
    return np.concatenate(parts).reshape(thetas.shape[:-1])


# Rung 1: moment matching.


def _matched(
    posterior: _Posterior, rows: np.ndarray, elpd: np.ndarray, rng: np.random.Generator
) -> Iterator[tuple[int, _Estimate]]:
    if posterior.switched:
        return
    thetas = posterior.density.pack(posterior.mixture)
    log_density = _values(posterior.density, thetas)
    for row in rows.tolist():
        try:
            yield row, _moment_matched(posterior, row, thetas, log_density)
        except (InputError, np.linalg.LinAlgError):  # the draws were moved to where there are no covariances
            continue


def _moment_matched(posterior: _Posterior, row: int, thetas: np.ndarray, log_density: np.ndarray) -> _Estimate:
    """Moment matching with the split transformation (Paananen et al. 2021).

    A transformation, mean + A (theta - first mean), is tried by its mean alone, with the variances and with the
    covariance of the weighted draws; whichever first lowers the Pareto k is kept, and the search starts again.
    """
    density, efficiency = posterior.density, posterior.efficiency
    x = density.table.values[[row]]
    n = thetas.shape[-1]

    def log_lik(thetas: np.ndarray) -> np.ndarray:
        return density.unpack(thetas).log_prob(x)[..., 0]

    center = thetas.mean(axis=(0, 1))
    A, mean, moved = np.eye(n), center, thetas
    weights, k = _psis(-log_lik(thetas), efficiency)
    for _ in range(_TRANSFORMATIONS):
        if k <= posterior.good_k:
            break
        for step, target in _moments(moved, np.exp(weights)):
            candidate = target + (moved - mean) @ step.T
            tried, tried_k = _psis(_finite(_values(density, candidate) - log_lik(candidate) - log_density), efficiency)
            if tried_k < k:
                A, mean, moved, weights, k = step @ A, target, candidate, tried, tried_k
                break
        else:
            break
    # The first half of each chain is moved, the second stays; all are weighed against the mixture of both halves.
    half = thetas.shape[1] // 2
    both = np.concatenate((moved[:, :half], thetas[:, half:]), axis=1)
    back = center + np.linalg.solve(A, (both - mean)[..., None])[..., 0]
    own, log_det = _values(density, both), np.linalg.slogdet(A)[1]
    origin = np.concatenate((log_density[:, :half], _values(density, back[:, half:])), axis=1)
    lik = log_lik(both)
    weights, split_k = _psis(_finite(own - lik - np.logaddexp(own, origin - log_det)), efficiency)
    weighted = weights + lik
    elpd = float(logsumexp(weighted))
    influence = np.exp(weighted - elpd) - np.exp(weights)
    return _Estimate(elpd, max(k, split_k), _stratified_error((influence[:, :half], influence[:, half:])))


def _finite(log_ratios: np.ndarray) -> np.ndarray:
    """Log ratios with none where a density overflowed."""
    return np.where(np.isfinite(log_ratios), log_ratios, -1e300)


def _moments(draws: np.ndarray, weights: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Linear maps (n, n) and means (n,) that give draws (..., n) ever more of the weighted draws' moments."""
    flat, w = draws.reshape(-1, draws.shape[-1]), weights.ravel() / weights.sum()
    mean = w @ flat
    yield np.eye(len(mean)), mean
    spread, weighted = np.cov(flat, rowvar=False, ddof=0).reshape(len(mean), -1), ((flat - mean).T * w) @ (flat - mean)
    yield np.diag(np.sqrt(np.diag(weighted) / np.diag(spread))), mean
    yield np.linalg.cholesky(weighted) @ np.linalg.inv(np.linalg.cholesky(spread)), mean


# Rungs 2 and 3: sampling without the rows, together or one at a time.


def _mixed(
    posterior: _Posterior, rows: np.ndarray, elpd: np.ndarray, rng: np.random.Generator
) -> Iterator[tuple[int, _Estimate]]:
    """Mixture importance sampling (Silva & Zanella 2023), at most 200 rows to a mixture."""
    for a in range(0, len(rows), _MIXED_ROWS):
        some, log_odds = rows[a : a + _MIXED_ROWS], elpd[a : a + _MIXED_ROWS]
        density, x = posterior.density, posterior.density.table.values[some]
        drawn = _drawn(posterior, replace(density, left_out=some, log_odds=log_odds), rng)
        log_lik = np.stack([posterior.mixture.log_prob(x), drawn.log_prob(x)])  # (2, chain, draw, row)
        log_ratio = logsumexp(log_odds - log_lik, axis=-1)
        pool = _pool(np.stack([np.zeros_like(log_ratio), log_ratio]))
        for i, row in enumerate(some.tolist()):
            yield row, _without(pool, log_lik[..., i])


def _refitted(
    posterior: _Posterior, rows: np.ndarray, elpd: np.ndarray, rng: np.random.Generator
) -> Iterator[tuple[int, _Estimate]]:
    """Draws without the row; and where they are too far from the posterior's, with a part of its weight in between.

    The two neighbours get one in between whose densities differ most: (t - s)(E_t log p(x) - E_s log p(x)) is Jeffreys'
    divergence of the posteriors that give the row weights t and s.
    """
    density, N = posterior.density, posterior.density.table.n_observations
    for row in rows.tolist():
        x = density.table.values[[row]]
        log_lik = {1.0: posterior.mixture.log_prob(x)[..., 0]}  # by the row's weight
        added = 0.0
        for _ in range(_STATES - 1):
            weight = np.ones(N)
            weight[row] = added
            drawn = _drawn(posterior, replace(density, table=replace(density.table, sample_weight=weight)), rng)
            log_lik[added] = drawn.log_prob(x)[..., 0]
            known = sorted(log_lik, reverse=True)
            every = np.stack([log_lik[t] for t in known])
            estimate = _without(_pool(np.stack([(t - 1) * every for t in known])), every)
            if estimate.mcse < _LARGEST_MCSE or np.isinf(estimate.mcse):  # more in between mends no disagreement
                break
            gaps = [(t - s) * (log_lik[t].mean() - log_lik[s].mean()) for t, s in pairwise(known)]
            widest = int(np.argmax(gaps))
            added = (known[widest] + known[widest + 1]) / 2
        yield row, estimate


def _drawn(posterior: _Posterior, density: Density, rng: np.random.Generator) -> GaussianMixture:
    """As many draws of another density as there are of the posterior."""
    chains, draws = posterior.mixture.batch_shape
    mode = find_mode(density, posterior.start)
    seed = int(rng.integers(2**31))
    drawn = nutpie_draws(density, mode, draws=draws, tune=posterior.tune, chains=chains, seed=seed)
    return density.unpack(drawn.thetas)


class _Pool(NamedTuple):
    """Draws (state, chain, draw) of several densities as one sample of their average."""

    log_weight: np.ndarray  # (state, chain, draw), of the first density relative to the average; they sum to one
    origin: np.ndarray  # (state, state, chain, draw), probability that a draw is from each state
    information: np.ndarray  # (state - 1, state - 1), of the normalising constants


def _pool(log_ratio: np.ndarray) -> _Pool:
    """Pool draws of densities whose log ratios to the first are (state, state, chain, draw), draws along the second.

    The normalising constants maximise the likelihood of which draw is from which density (Shirts & Chodera 2008).
    """
    states = len(log_ratio)
    n = log_ratio[0, 0].size
    flat = log_ratio.reshape(states, -1)

    def origin(log_z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        joint = flat - np.append(0.0, log_z)[:, None]
        total = logsumexp(joint, axis=0)
        return np.exp(joint - total), total

    def objective(log_z: np.ndarray) -> tuple[float, np.ndarray]:
        p, total = origin(log_z)
        return float(total.mean() + log_z.sum() / states), 1 / states - p[1:].mean(axis=1)

    def hessian(log_z: np.ndarray) -> np.ndarray:
        p = origin(log_z)[0][1:]
        return np.diag(p.mean(axis=1)) - p @ p.T / flat.shape[1]

    start = np.diagonal(log_ratio.mean(axis=(2, 3)))[1:]
    log_z = minimize(objective, start, jac=True, hess=hessian, method="trust-exact", options={"gtol": 1e-10}).x
    p, total = origin(log_z)
    shape = log_ratio.shape[1:]
    log_weight = -np.log(n) - total.reshape(shape)
    return _Pool(log_weight, p.reshape(states, *shape), flat.shape[1] * hessian(log_z))


def _without(pool: _Pool, log_lik: np.ndarray) -> _Estimate:
    """The estimate of a row's predictive density from its log density under each pooled draw (state, chain, draw).

    Relative to the pool the weights are bounded, so that they have no Pareto k to speak of: it is set to 0, as
    ``arviz.reloo`` does. Where the chains of the last state, that without the row, disagree about it, the error is not
    known: it is set to infinity.
    """
    inverse = pool.log_weight - log_lik
    log_mean = logsumexp(inverse) - logsumexp(pool.log_weight)
    share = np.exp(inverse - logsumexp(inverse))
    free = pool.origin[1:]
    slope = np.linalg.solve(pool.information, (share * free).sum(axis=(1, 2, 3)))
    error = _stratified_error(share + np.tensordot(slope, free, axes=1))
    if log_lik.shape[1] > 1 and _r_hat(log_lik[-1]) > _LARGEST_R_HAT:
        error = np.inf
    return _Estimate(-float(log_mean), 0.0, error)


_RUNGS = {"moment matching": _matched, "mixture": _mixed, "refit": _refitted}


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
    rng: Any = None,
    progress: Callable[[int, int], None] | None = None,
) -> KFold:
    """Expected log predictive density by K-fold cross-validation: each fold predicted from draws without its rows.

    Parameters
    ----------
    X : (N, D) table
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
        Of each fold's posterior, per chain.
    rng : Generator, seed or None
    progress : callable, optional
        Called with the number of posteriors sampled and their total, one more than there are folds.

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
    A fold's rows get weight 0. Its posterior is sampled from its own mode, which is climbed to from the whole table's
    fit.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> result = bg.kfold(X, bg.fit_em(X, 2, rng=0), n_folds=5, draws=200, chains=2, rng=0)
    >>> len(result.fold_table), round(result.elpd, -2)
    (5, -1100.0)
    """
    draws, chains = positive_integer(draws, "draws", least=_FEWEST_DRAWS), positive_integer(chains, "chains")
    good_k = _good_k(draws * chains)
    tune = positive_integer(tune, "tune", least=LEAST_TUNE)
    rng = np.random.default_rng(rng)
    if not isinstance(fit, EMFit):
        priors = priors if priors is not None else Priors.weakly_informative(X, fit)
        fit = fit_em(X, fit, covariance, priors=priors, rng=rng)
    table = fitted_table(fit, X, None, ("labels", "fixed"), "cross-validation")
    priors = check_priors(table, fit, priors)
    N = table.n_observations
    if folds is None:
        n_folds = positive_integer(n_folds, "n_folds", least=2)
        if n_folds > N:
            raise InputError(f"{n_folds} folds of {N} rows: some would be empty")
        shuffled = rng.permutation(N)
        if stratify:
            shuffled = shuffled[np.argsort(fit.mixture.predict(table.values)[shuffled], kind="stable")]
        folds = np.empty(N, dtype=np.int64)
        folds[shuffled] = np.arange(N) % n_folds
    folds = np.array(folds)
    if folds.shape != (N,) or folds.dtype.kind not in "iu":
        raise InputError(f"folds must be {N} whole numbers, the fold of each row, not of shape {folds.shape}")
    names = np.unique(folds)
    if len(names) < 2:
        raise InputError("at least two folds are needed; all rows are in one")
    folds.flags.writeable = False
    whole = Density(table, whole_table(table)[0], priors, fit.covariance_model)
    full_mode = find_mode(whole, whole.pack(fit.mixture))

    def log_prob(held_out: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Log densities (chain, draw, rows) under draws of the posterior without the rows held out."""
        weight = np.where(held_out, 0.0, 1.0)
        density = replace(whole, table=replace(table, sample_weight=weight))
        mode = find_mode(density, full_mode.origin)
        seed = int(rng.integers(2**31))
        drawn = nutpie_draws(density, mode, draws=draws, tune=tune, chains=chains, seed=seed)
        mixture = density.unpack(drawn.thetas)
        return mixture.log_prob(table.values[rows])

    elpd, lines, heavy = np.empty(N), [], []
    for i, name in enumerate(names.tolist()):
        rows = np.flatnonzero(folds == name)
        log_lik = log_prob(folds == name, rows)
        elpd[rows] = logsumexp(log_lik, axis=(0, 1)) - np.log(draws * chains)
        influence = np.exp(log_lik - elpd[rows]).sum(axis=-1)
        r_hat = _r_hat(influence) if chains > 1 else np.nan
        k = smoothed_loo(-log_lik.reshape(-1, len(rows)).T, 1.0)[1]
        heavy += rows[k > good_k].tolist()
        line = {"fold": name, "n_rows": len(rows), "elpd": elpd[rows].sum(), "mcse": _mcse(influence)}
        lines.append({**line, "r_hat": r_hat, "pareto_k": k.max()})
        if progress is not None:
            progress(i + 1, len(names) + 1)
    log_lik = log_prob(np.zeros(N, dtype=bool), np.arange(N))
    p = logsumexp(log_lik, axis=(0, 1)) - np.log(draws * chains) - elpd
    if progress is not None:
        progress(len(names) + 1, len(names) + 1)
    fold_table = pd.DataFrame(lines)
    error = float(np.sqrt((fold_table["mcse"] ** 2).sum()))
    disagree = fold_table["fold"][fold_table["r_hat"] > _LARGEST_R_HAT].tolist()
    text = f"The Monte Carlo standard error of the sum over {len(names)} folds is {error:.2g} nats."
    if disagree:
        text += (
            f" The chains disagree about the rows of fold {', '.join(map(str, disagree))}: draw longer (tune, draws)."
        )
    if heavy:
        text += (
            f" Not to be trusted: {_listed(sorted(heavy))}, whose density varies too much from draw to draw for a mean"
        )
        text += f" (Pareto k above {good_k:.2f}); loo bridges such gaps."
    if disagree or heavy:
        warnings.warn(text, ConvergenceWarning, stacklevel=2)
    total, se, p_total, _ = array_stats.loo_summary(elpd, p)

    def per_row(values: np.ndarray, name: str) -> xr.DataArray:
        return xr.DataArray(values, {"observation": np.arange(N)}, ("observation",), name)

    return KFold(
        elpd=float(total),
        se=float(se),
        p=float(p_total),
        n_samples=draws * chains,
        n_data_points=N,
        scale="log",
        warning=bool(disagree or heavy),
        good_k=None,  # type: ignore[arg-type]  # as in ArviZ's own
        elpd_i=per_row(elpd, "elpd_i"),
        p_kfold_i=per_row(p, "p_kfold_i"),
        n_folds=len(names),
        folds=folds,
        fold_table=fold_table,
        text=text,
    )
