"""`sample_posterior`: draws from around the EM fit, relabelled, checked, and laid out for ArviZ."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from scipy.special import softmax

from bayesgmm.alignment import cheapest_order, divergence
from bayesgmm.bayes import many_rows
from bayesgmm.bayes.chains import Chains
from bayesgmm.bayes.density import Density
from bayesgmm.bayes.diagnosis import diagnose, separate_modes
from bayesgmm.bayes.findings import Diagnosis
from bayesgmm.bayes.gibbs import check_gibbs, why_not
from bayesgmm.bayes.laplace import Mode, laplace_draws
from bayesgmm.bayes.many_rows import LARGEST_ELSEWHERE, ManyRows, elsewhere, judged_modes
from bayesgmm.bayes.mode_weights import ModeWeights, weigh_modes
from bayesgmm.bayes.modes import UNSURE, Searched, candidates, find_modes, search_modes
from bayesgmm.bayes.nuts import LEAST_TUNE, nutpie_draws
from bayesgmm.bayes.posterior import Posterior, posterior
from bayesgmm.bayes.priors import Priors, check_priors
from bayesgmm.bayes.run import Earlier, Outlet, Run, Size, earlier_draws, interrupted
from bayesgmm.bayes.samplers import by_gibbs, by_nutpie, by_pymc
from bayesgmm.bayes.subset import LARGEST, check_subset, n_rows, promising, subset
from bayesgmm.bayes.tree import write_tree
from bayesgmm.bayes.variational import variational_draws
from bayesgmm.bayes.verdict import Convergence, Verdict
from bayesgmm.em.initialize import mean_and_covariance
from bayesgmm.em.result import EMFit, check_fitted_parts, fitted_table
from bayesgmm.errors import ConvergenceWarning, InputError
from bayesgmm.observations import positive_integer
from bayesgmm.parts import Parts
from bayesgmm.progress import Progress, of_stage
from bayesgmm.sources import parts_of

_SAMPLERS: dict[str, Callable[[Run, Outlet, Earlier | None], Chains]] = {
    "nutpie": by_nutpie,
    "pymc": by_pymc,
    "gibbs": by_gibbs,
}
_METHODS = ("auto", "nuts", "subset", "laplace", "variational")
_INSTEAD_OF_NUTS = "As the table has many rows, it took the place of NUTS on all of them, which takes longer."
_NO_SUBSET = (
    "method='subset' is for complete and exact rows, of fits without noise, samples by nutpie, and does not continue "
    "draws that out= holds; use method='nuts'"
)
_LONGER = 4  # times as many draws of a weighted posterior, which takes little time, where chains have not converged
_CHEAPER = 4  # times fewer rows to read are worth an approximation: weights take as long as thousands of densities
_UNSUPPORTED = ("labels", "fixed")  # constraints of a fit
_FEWEST_AGAIN = 200  # draws of a chain, below which they are too few whichever sampler they are from
_LARGEST_UNVISITED = 0.05  # share of the posterior that modes without chains may have


def sample_posterior(
    X: Any,
    fit: EMFit,
    priors: Priors | None = None,
    *,
    method: str = "auto",
    draws: int = 1000,
    tune: int = 500,
    chains: int = 4,
    sampler: str = "auto",
    out: str | Path | None = None,
    error_sd: Any = None,
    error_covariance: Any = None,
    noise: Any = None,
    rng: Any = None,
    progress: Progress | None = None,
) -> xr.DataTree:
    """Draw from the posterior of the mixture that EM fitted.

    Parameters
    ----------
    X : (N, D) table, or a table in parts
        The table that was fitted. Missing values are integrated over, as missing at random. Of a table in parts, which
        is what `open_table` takes, all rows are read some ten times.
    fit : EMFit
        Gives K, the covariance model, the starting point and the components' labels.
    priors : Priors, optional
        `Priors.weakly_informative` by default.
    method : {"auto", "nuts", "subset", "laplace", "variational"}
        "nuts" samples the posterior. "laplace" draws from the normal approximation at the posterior mode instead, in
        milliseconds, and tells by a Pareto k (Vehtari et al. 2024) how far to trust it; ``sample_stats`` then holds log
        importance weights. Of a table in parts 200 draws are checked so, which also moves the approximation to the
        posterior's mean, and no weights are kept. "subset" samples by NUTS a posterior of a few thousand weighted rows,
        which has at the mode the value's slope and curvature that the posterior of all rows has. 200 of the draws are
        checked over all rows, and move the others to their mean. It is for at most 50 free parameters, and for rows
        that are complete and exact. "auto" is "laplace" for tables in parts, and "subset" where the check refuses that;
        it tries the first for complete and exact tables in memory of 10 000 rows and more, the second where that takes
        a quarter of the rows or less, and where neither will do, as for other tables, is "nuts". The verdict says what
        was done. "variational" draws from the mean-field approximation, which is judged in the same way, and
        resamples the draws by their importance weights where these can be trusted; it is available for EII, VII, EEI,
        VVI, EEE and VVV under inverse-Wishart priors, of fits without noise.
    draws, tune, chains : int
        Draws to keep and to tune with, per chain, and chains. At least 10 tuning draws are needed to find a step size.
    sampler : {"auto", "nutpie", "pymc", "gibbs"}
        "nutpie" samples the compiled density by NUTS, whitened by its curvature at the mode; "pymc" samples
        `build_model`'s model with PyMC's own NUTS. "gibbs" samples the rows' assignments and the components given them,
        so that components may empty, merge and move elsewhere, and true values that are not known; it needs
        inverse-Wishart covariances, hierarchical or not, one of the covariance models EII, VII, EEI, VVI, EEE and VVV,
        and a fit without noise. Its sweeps are doubled until R-hat is below 1.01 and effective sample sizes are above
        100 per chain, or some eight seconds' worth of them are done; ``tune`` and ``draws`` are then spread evenly over
        all of them. "auto" is "nutpie", and "gibbs" where its draws (200 or more of each chain) have not converged and
        the prior and the model allow; the verdict tells which the draws are from.
    out : path, optional
        netCDF file, to which draws are written as they come. An interrupted run of the same table, model and priors
        continues from it ("nutpie" and "auto"), and a finished posterior in it is returned as it is. Of a table in
        parts each reading of the rows is kept in a directory beside the file, named like it with ``.passes`` at the
        end, from which the same call goes on; it may be removed once the posterior is there.
    error_sd : (D,) or (N, D), optional
        Standard deviations of the errors that the values were measured with; the mixture is of the true values.
    error_covariance : (D, D) or (N, D, D), optional
        Their covariances, instead.
    noise : (N,), optional
        Log density of the noise at each row, where the fit was made with one; a fit's `Noise` need not be given again.
    rng : Generator, seed or None
    progress : callable, optional
        Called as ``progress("posterior", done, total)`` with the number of draws done, tuning included, and their
        total; Gibbs sampling after NUTS is the stage "Gibbs sampling" (not with "pymc").

    Returns
    -------
    xarray.DataTree
        Groups ``posterior`` (weights, means, covariances, and the noise_weight of a fit with noise), ``sample_stats``,
        ``log_likelihood`` (pointwise, marginal over the assignments, in nats), ``observed_data`` and ``em`` (the fit).
        For a table in parts there is instead of the two in the middle a ``sample`` of 10 000 rows or so, which is what
        `diagnose`, `assign` without rows, and pictures look at, and an attribute ``source`` that says which table it
        was.
        Its attributes are ``priors`` (in words), ``verdict`` (a name of `Convergence`, such as "CONVERGED") and
        ``convergence`` (the verdict in words, see `diagnose`), ``seed``, and what `relabel` tells of the labels
        (``relabelling``, "none" where the prior tells the components apart, ``switch_rate``, ``ambiguous_rate``,
        ``margin_mean``, ``margin_min``). `posterior` reads all of it back. If interrupted (Ctrl-C), the function
        returns the draws made so far, with the attribute ``partial``.

    Warns
    -----
    ConvergenceWarning
        If the chains disagree, mix badly or diverge, or stay in separate modes of which some may have been missed; the
        message says which. Also if the search finds a higher maximum of the likelihood than the fit.

    Raises
    ------
    InputError
        If table, fit and priors do not belong together, or the covariance model has no posterior under an LKJ prior, or
        not with this sampler.
    SamplingError
        If the sampler fails.

    Notes
    -----
    EM searches for the maxima under the priors, until the chance that there is a higher one is below 2 %; the
    attribute ``search`` says how often the highest was reached. Chains start from the modes near these maxima, and near
    the fit's own, that are within 10 nats of the best; ``maxima`` has the log evidence of each by Laplace's
    approximation, all K! labellings counted. Where chains stay in separate modes, draws are taken from the modes in
    proportion to their evidence by bridge sampling, and the attribute ``modes`` says so.

    References
    ----------
    Hoffman & Gelman (2014), The No-U-Turn sampler. Journal of Machine Learning Research 15, 1593-1623.

    Diebolt & Robert (1994), Estimation of finite mixture distributions through Bayesian sampling. Journal of the Royal
    Statistical Society B 56, 363-375.

    Neal (2000), Journal of Computational and Graphical Statistics 9, 249-265. doi:10.1080/10618600.2000.10474879

    Jauch, Hoff & Dunson (2021), Monte Carlo simulation on the Stiefel manifold via polar expansion. Journal of
    Computational and Graphical Statistics 30, 622-631. doi:10.1080/10618600.2020.1859382

    Good (1953), Biometrika 40, 237-264. doi:10.1093/biomet/40.3-4.237

    Deville & Särndal (1992), Calibration estimators in survey sampling. Journal of the American Statistical
    Association 87, 376-382. doi:10.1080/01621459.1992.10475217

    Vehtari, Simpson, Gelman, Yao & Gabry (2024), Pareto smoothed importance sampling. Journal of Machine Learning
    Research 25(72), 1-58.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> tree = bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), draws=500, chains=2, rng=0)
    >>> tree["posterior"]["weights"].mean(("chain", "draw")).round(1).values
    array([0.4, 0.6])
    """
    size = Size(
        draws=positive_integer(draws, "draws"),
        tune=positive_integer(tune, "tune", least=LEAST_TUNE),
        chains=positive_integer(chains, "chains"),
    )
    if sampler != "auto" and sampler not in _SAMPLERS:
        raise InputError(f"unknown sampler {sampler!r}; use 'auto', {', '.join(map(repr, _SAMPLERS))}")
    if method not in _METHODS:
        raise InputError(f"unknown method {method!r}; use {', '.join(map(repr, _METHODS[:-1]))} or {_METHODS[-1]!r}")
    started, file = time.perf_counter(), None if out is None else Path(out)
    if (parts := parts_of(X)) is not None:
        given = {"error_sd": error_sd, "error_covariance": error_covariance, "noise": noise}
        check_fitted_parts(fit, parts, given, _UNSUPPORTED, "the posterior")
        if method not in ("auto", "subset", "laplace"):
            raise InputError(
                f"method={method!r} reads all rows tens of thousands of times; a table in parts has method='laplace' "
                "and method='subset'. If the table fits, read it into memory, or else a random sample of it"
            )
        tree, verdict = _sample_parts(parts, fit, priors, method, size, file, rng, progress, started)
        if not verdict.good:
            warnings.warn(verdict.text, ConvergenceWarning, stacklevel=2)
        return tree
    table = fitted_table(fit, X, None, _UNSUPPORTED, "the posterior", error_sd, error_covariance, noise)
    density = Density(table, mean_and_covariance(table)[0], check_priors(table, fit, priors), fit.covariance_model)
    if sampler == "gibbs" and method in ("auto", "nuts"):
        check_gibbs(density)
    earlier = None if file is None or not file.exists() else earlier_draws(file, density)
    if earlier is not None and earlier.complete:
        return earlier.tree
    seed = int(np.random.default_rng(rng).integers(2**31))
    tell = of_stage(progress, "posterior")
    tell(0, size.total)
    refused = ""
    if method in ("auto", "subset"):
        rows = many_rows.of_memory(density, seed)
        if method == "subset" and (rows is None or sampler not in ("auto", "nutpie") or earlier is not None):
            raise InputError(_NO_SUBSET)
        tried = sampler == "auto" and earlier is None and density.table.n_observations >= many_rows.MANY
        if rows is not None and (tried or method == "subset"):
            run = Run(density, fit, Searched(), [], size, method, "nutpie", seed, started)
            drawn = _of_many_rows(rows, run, tell)
            if method == "subset" or drawn.verdict.convergence is not Convergence.APPROXIMATION_POOR:
                tell(size.total, size.total)
                if not drawn.verdict.good:
                    warnings.warn(drawn.verdict.text, ConvergenceWarning, stacklevel=2)
                return _told(drawn.adding(_INSTEAD_OF_NUTS) if method == "auto" else drawn, file)
            refused = f"It was sampled by NUTS, as an approximation would not do: {drawn.verdict.text}"
        method = "nuts"
    searched = search_modes(density, fit, np.random.default_rng([seed, 2])) if method == "nuts" else Searched()
    modes = [] if method == "variational" else find_modes(density, candidates(fit, searched, 2 * size.chains))
    first = "nutpie" if sampler == "auto" else sampler
    run = Run(density, fit, searched, modes, size, method, first, seed, started)
    if method != "nuts":
        approximation = {"chains": size.chains, "draws": size.draws, "seed": seed}
        if method == "laplace":
            chains_drawn, verdict = laplace_draws(density, modes[0], **approximation)
        else:
            chains_drawn, verdict = variational_draws(density, fit.mixture, **approximation)
        tree = run.tree(replace(run.posterior(chains_drawn), verdict=verdict), None)
    else:
        sampled = _sample(run, Outlet(run, file, tell), earlier)
        if sampler == "auto" and sampled.failed and not why_not(density):
            sampled = _sample_again(sampled, progress)
        if refused:
            sampled = sampled.adding(refused)
        verdict = sampled.verdict
        tree = sampled.run.tree(replace(sampled.drawn, verdict=verdict), sampled.weights)
    if file is not None:
        write_tree(tree, file)
    if "better_fit" in tree.attrs:
        warnings.warn(tree.attrs["better_fit"], ConvergenceWarning, stacklevel=2)
    if not verdict.good:
        warnings.warn(verdict.text, ConvergenceWarning, stacklevel=2)
    return tree


def _sample_parts(
    parts: Parts,
    fit: EMFit,
    priors: Priors | None,
    method: str,
    size: Size,
    file: Path | None,
    rng: Any,
    progress: Progress | None,
    started: float,
) -> tuple[xr.DataTree, Verdict]:
    """Draws of an approximation to the posterior of a table in parts, and whether to trust them."""
    seed, kept = many_rows.seed_and_passes(rng, file)
    table = many_rows.LargeTable.of(parts, fit, seed, progress, kept)
    rows = table.posterior(fit, priors)
    if file is not None and file.exists():
        earlier = earlier_draws(file, rows.prior, table.source)
        return earlier.tree, posterior(earlier.tree).verdict or Verdict(Convergence.UNCHECKED, "")
    run = Run(rows.prior, fit, Searched(), [], size, method, "nutpie", seed, started, table.shown, table.source)
    drawn = _of_many_rows(rows, run, of_stage(progress, "posterior"))
    if drawn.verdict.convergence is Convergence.APPROXIMATION_POOR:
        drawn = drawn.adding(many_rows.ADVICE)
    return _told(drawn, file), drawn.verdict


class _Approximated(NamedTuple):
    """Draws of an approximation of a posterior of many rows, and whether to trust them."""

    run: Run
    chains: Chains
    verdict: Verdict

    def adding(self, sentence: str) -> _Approximated:
        """The same with another sentence at the end of its verdict."""
        return self._replace(verdict=replace(self.verdict, text=f"{self.verdict.text} {sentence}"))


def _of_many_rows(rows: ManyRows, run: Run, tell: Callable[[int, int], None]) -> _Approximated:
    """Draws by Laplace's approximation or, where it is not to be trusted and that may do, by NUTS on weighted rows.

    The run's method, where it is not "auto", says which of the two.
    """
    run = replace(run, modes=many_rows.modes_of(rows, run.fit))
    mode, size = run.modes[0], run.size
    if run.method == "subset":
        if len(mode.origin) > LARGEST:
            raise InputError(
                f"method='subset' is for at most {LARGEST} free parameters, and these are {len(mode.origin)}; "
                "use fewer components, or the same covariance for all"
            )
        return _by_subset(rows, run, subset(rows, mode, run.seed), tell)
    found = many_rows.checked(rows, mode, run.seed)
    chains = found.draws(chains=size.chains, draws=size.draws, seed=run.seed)
    normal = _Approximated(replace(run, method="laplace"), chains, judged_modes(run.modes, found.verdict))
    if run.method == "laplace" or found.verdict.good or elsewhere(run.modes) > LARGEST_ELSEWHERE:
        return normal
    in_memory = run.source is None
    if len(mode.origin) > LARGEST or (in_memory and _CHEAPER * n_rows(mode) > rows.parts.n_observations):
        return normal
    weighted = subset(rows, mode, run.seed)
    if not promising(weighted, found):
        return normal.adding("Nor would a few weighted rows stand for all of them.")
    drawn = _by_subset(rows, replace(run, method="subset"), weighted, tell)
    if drawn.verdict.convergence is Convergence.APPROXIMATION_POOR:
        return normal.adding(drawn.verdict.text)
    return drawn.adding(f"This was done as {normal.verdict.text}")


def _by_subset(rows: ManyRows, run: Run, weighted: Density, tell: Callable[[int, int], None]) -> _Approximated:
    """Draws by NUTS from the posterior of weighted rows; one of four where as many as asked for are not enough."""
    size = run.size
    for longer in (1, _LONGER):
        chains = nutpie_draws(
            weighted,
            run.modes[0],
            draws=longer * size.draws,
            tune=longer * size.tune,
            chains=size.chains,
            seed=run.seed,
            progress=_slower(tell, longer, size.total),
        ).picked(np.s_[:, longer - 1 :: longer])
        diagnosis = diagnose(run.posterior(chains))
        if diagnosis.good or size.draws < _FEWEST_AGAIN or not chains.complete:
            break
    if not chains.complete:
        text = f"Not converged: {interrupted(size, run.posterior(chains))}."
        return _Approximated(run, chains, Verdict(Convergence.NOT_CONVERGED, text))
    chains, verdict = check_subset(rows, weighted, chains)
    verdict = judged_modes(run.modes, verdict)
    convergence = diagnosis.convergence if verdict.good and not diagnosis.good else verdict.convergence
    of_sampling = replace(diagnosis, findings=tuple(f for f in diagnosis.findings if f.symptom.fault))
    return _Approximated(run, chains, Verdict(convergence, f"{verdict.text} {of_sampling.text}"))


def _slower(tell: Callable[[int, int], None], times: int, total: int) -> Callable[[int], None]:
    """What tells how many draws are done where so many times as many are made as are wanted."""
    return lambda done: tell(done // times, total)


def _told(drawn: _Approximated, file: Path | None) -> xr.DataTree:
    """The tree of draws of an approximation, which is written to a file if there are all of them."""
    tree = drawn.run.tree(replace(drawn.run.posterior(drawn.chains), verdict=drawn.verdict), None)
    if file is not None and drawn.chains.complete:
        write_tree(tree, file)
    return tree


@dataclass(frozen=True, eq=False)
class _Sampled:
    """Draws by one sampler, what was found about them, and the verdict."""

    run: Run
    drawn: Posterior
    weights: ModeWeights | None  # where chains did not move between modes
    diagnosis: Diagnosis
    verdict: Verdict

    @property
    def failed(self) -> bool:
        """Whether all draws asked for are there, and many, and yet they did not converge."""
        many = self.drawn.sampling.complete and self.run.size.draws >= _FEWEST_AGAIN
        return many and self.verdict.convergence is Convergence.NOT_CONVERGED

    @property
    def numbers(self) -> str:
        """How well its chains mix."""
        if self.diagnosis.good:
            return "its chains agree, but may have missed modes"
        r_hat = "" if self.diagnosis.r_hat is None else f"R-hat up to {self.diagnosis.r_hat:.3f}, "
        return f"{r_hat}effective sample sizes down to {self.diagnosis.ess:.0f}"

    def adding(self, sentence: str) -> _Sampled:
        """The same with another sentence at the end of its verdict."""
        return replace(self, verdict=replace(self.verdict, text=f"{self.verdict.text} {sentence}"))


def _sample(run: Run, outlet: Outlet, earlier: Earlier | None = None) -> _Sampled:
    """Draws by the run's sampler, modes that chains do not move between weighed, and the verdict."""
    chains = _SAMPLERS[run.sampler](run, outlet, earlier)
    drawn, weights = run.posterior(chains), None
    may_stay_apart = run.sampler == "gibbs" or (run.sampler == "nutpie" and len(run.starts) > 1)
    if may_stay_apart and chains.complete:
        groups = separate_modes(drawn.draws, drawn.statistics["lp"])
        if len(groups) > 1:
            chains, weights = weigh_modes(run.density, run.fit, chains, groups, run.seed)
            drawn = run.posterior(chains)
    diagnosis = diagnose(drawn)
    modes, visited = _visited_first(run, drawn)
    verdict = _verdict(
        diagnosis,
        interrupted="" if chains.complete else interrupted(run.size, drawn),
        modes=modes,
        visited=visited,
        searched=run.searched,
        weights=weights,
    )
    return _Sampled(run, drawn, weights, diagnosis, verdict)


def _sample_again(sampled: _Sampled, progress: Progress | None) -> _Sampled:
    """By Gibbs sampling, which may be better; the verdict says so. Where it is interrupted, the draws there are."""
    run = replace(sampled.run, method="gibbs", sampler="gibbs")
    other = None
    with suppress(KeyboardInterrupt):
        other = _sample(run, Outlet(run, None, of_stage(progress, "Gibbs sampling")))
    if other is None or not other.drawn.sampling.complete:
        sampling = replace(sampled.drawn.sampling, complete=False)
        return replace(sampled, drawn=replace(sampled.drawn, sampling=sampling)).adding(
            "Gibbs sampling of the assignments, which may do better, was interrupted."
        )
    if other.verdict.good or other.diagnosis.ess > sampled.diagnosis.ess:
        return other.adding(
            f"These draws are from Gibbs sampling of the assignments, as NUTS did not converge ({sampled.numbers})."
        )
    return sampled.adding(
        f"These draws are from NUTS; Gibbs sampling of the assignments did no better ({other.numbers})."
    )


def _visited_first(run: Run, drawn: Posterior) -> tuple[list[Mode], int]:
    """The modes that chains started from (or by Gibbs sampling came to), then the others; how many the first are."""
    if run.sampler != "gibbs" or len(run.modes) == 1:
        return run.modes, len(run.starts)
    thinned = drawn.draws[:, :: max(drawn.draws.batch_shape[1] // 100, 1)]
    distance = []
    for mode in run.modes:
        cost = divergence(thinned, run.density.unpack(mode.origin))
        matched = np.take_along_axis(cost, cheapest_order(cost)[..., None, :], axis=-2)
        distance.append(matched.sum(axis=(-2, -1)))
    near = set(np.argmin(distance, axis=0).ravel().tolist())
    return [run.modes[m] for m in sorted(range(len(run.modes)), key=lambda m: m not in near)], len(near)


def _verdict(
    diagnosis: Diagnosis,
    *,
    interrupted: str,
    modes: list[Mode],
    visited: int,
    searched: Searched,
    weights: ModeWeights | None,
) -> Verdict:
    """Whether the chains converged, and the modes that they visit are all there are, as far as can be told."""
    doubts, advice = [interrupted] if interrupted else [], []
    unvisited = softmax([mode.log_integral for mode in modes])[visited:].sum()
    if unvisited > _LARGEST_UNVISITED:
        doubts.append(f"{unvisited:.0%} of the posterior, by Laplace's approximation, is in modes without chains")
        advice.append(f"Sample with chains={len(modes)}, one for each mode.")
    if searched.chance > UNSURE:
        advice.append(searched.text)
        if weights is not None:
            doubts.append("a mode may have been missed")
    convergence = Convergence.NOT_CONVERGED if doubts and diagnosis.good else diagnosis.convergence
    further = [*([] if weights is None else [weights.text]), *advice]
    return Verdict(convergence, " ".join([_opening(diagnosis, doubts), *further]))


def _opening(diagnosis: Diagnosis, doubts: list[str]) -> str:
    """What the diagnosis says, after the doubts that it knows nothing of."""
    if not doubts:
        return diagnosis.text
    link = ", though " if diagnosis.good else ". "
    reasons = diagnosis.text if diagnosis.convergence is Convergence.UNCHECKED else diagnosis.reasons
    return f"Not converged: {', and '.join(doubts)}{link}{reasons}"
