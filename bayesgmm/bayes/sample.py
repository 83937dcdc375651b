"""`sample_posterior`: draws from around the EM fit, relabelled, checked, and laid out for ArviZ."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import reduce
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from scipy.special import softmax

from bayesgmm import __version__
from bayesgmm.bayes.chains import Chains
from bayesgmm.bayes.density import Density
from bayesgmm.bayes.diagnosis import diagnose, separate_modes
from bayesgmm.bayes.findings import Diagnosis
from bayesgmm.bayes.laplace import Mode, laplace_draws
from bayesgmm.bayes.mode_weights import ModeWeights, weigh_modes
from bayesgmm.bayes.modes import UNSURE, Searched, better_fit, candidates, find_modes, search_modes
from bayesgmm.bayes.nuts import LEAST_TUNE, nutpie_draws, pymc_draws
from bayesgmm.bayes.posterior import Posterior, Sampling, posterior
from bayesgmm.bayes.priors import Priors, check_priors
from bayesgmm.bayes.relabel import relabelling
from bayesgmm.bayes.tree import tree_of, write_tree
from bayesgmm.bayes.variational import variational_draws
from bayesgmm.bayes.verdict import Convergence, Verdict
from bayesgmm.checkpoints import fingerprint
from bayesgmm.em.initialize import mean_and_covariance
from bayesgmm.em.result import EMFit, fitted_table
from bayesgmm.errors import ConvergenceWarning, InputError
from bayesgmm.observations import positive_integer
from bayesgmm.progress import Progress, of_stage

_LARGEST_UNVISITED = 0.05  # share of the posterior that modes without chains may have


def sample_posterior(
    X: Any,
    fit: EMFit,
    priors: Priors | None = None,
    *,
    method: str = "nuts",
    draws: int = 1000,
    tune: int = 500,
    chains: int = 4,
    sampler: str = "nutpie",
    out: str | Path | None = None,
    rng: Any = None,
    progress: Progress | None = None,
) -> xr.DataTree:
    """Draw from the posterior of the mixture that EM fitted.

    Parameters
    ----------
    X : (N, D) table
        The table that was fitted.
    fit : EMFit
        Gives K, the covariance model, the starting point and the components' labels.
    priors : Priors, optional
        `Priors.weakly_informative` by default.
    method : {"nuts", "laplace", "variational"}
        "laplace" draws from the normal approximation at the posterior mode instead, in milliseconds, and tells by a
        Pareto k (Vehtari et al. 2024) how far to trust it; ``sample_stats`` then holds log importance weights.
        "variational" draws from the mean-field approximation, likewise judged, and resamples the draws by their
        importance weights where these can be trusted; it is there for EII, VII, EEI, VVI, EEE and VVV under
        inverse-Wishart priors.
    draws, tune, chains : int
        Draws to keep and to tune with, per chain; at least 10 to tune with, for the step size to be found.
    sampler : {"nutpie", "pymc"}
        "nutpie" samples the compiled density, whitened by its curvature at the mode; "pymc" samples `build_model`'s
        model with PyMC's own NUTS.
    out : path, optional
        netCDF file. Draws are written to it as they come; those of an interrupted run of the same table, model and
        priors are taken up from it, and a finished posterior in it is returned as it is ("nutpie" only).
    rng : Generator, seed or None
    progress : callable, optional
        Called as ``progress("posterior", done, total)`` with the number of draws done, tuning included, and their total
        ("nutpie" only).

    Returns
    -------
    xarray.DataTree
        Groups ``posterior`` (weights, means, covariances), ``sample_stats``, ``log_likelihood`` (pointwise, marginal
        over the assignments, in nats), ``observed_data`` and ``em`` (the fit). Its attributes are ``priors`` (in
        words), ``verdict`` (a name of `Convergence`, such as "CONVERGED") and ``convergence`` (the verdict in words,
        see `diagnose`), ``seed``, and what `relabel` tells of the labels (``relabelling``, "none" where the prior tells
        the components apart, ``switch_rate``, ``ambiguous_rate``, ``margin_mean``, ``margin_min``). `posterior` reads
        all of it back.

        EM searches for the maxima under the priors, until a further climb would hardly find another, and ``search``
        says how sure it is. Chains start from the modes near them and near the fit's own maxima, if within 10 nats of
        the best, and ``maxima`` has each one's log evidence by Laplace's approximation (all K! labellings counted);
        should chains stay apart, ``modes`` says so, and draws are taken from the modes in proportion to their evidence
        by bridge sampling. Interrupted (Ctrl-C), what there is comes back, with an attribute ``partial``.

    Warns
    -----
    ConvergenceWarning
        If the chains disagree, mix badly or diverge, or keep to modes of which some may have been missed; the message
        says which. Also if the search finds a higher maximum of the likelihood than the fit is.

    Raises
    ------
    InputError
        If table, fit and priors do not belong together, or the covariance model has no posterior under an LKJ prior.
    SamplingError
        If the sampler fails.

    References
    ----------
    Hoffman & Gelman (2014), The No-U-Turn sampler. Journal of Machine Learning Research 15, 1593-1623.

    Jauch, Hoff & Dunson (2021), Monte Carlo simulation on the Stiefel manifold via polar expansion. Journal of
    Computational and Graphical Statistics 30, 622-631. doi:10.1080/10618600.2020.1859382

    Good (1953), Biometrika 40, 237-264. doi:10.1093/biomet/40.3-4.237

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
    size = _Size(
        draws=positive_integer(draws, "draws"),
        tune=positive_integer(tune, "tune", least=LEAST_TUNE),
        chains=positive_integer(chains, "chains"),
    )
    if sampler not in ("nutpie", "pymc"):
        raise InputError(f"unknown sampler {sampler!r}; use 'nutpie' or 'pymc'")
    if method not in ("nuts", "laplace", "variational"):
        raise InputError(f"unknown method {method!r}; use 'nuts', 'laplace' or 'variational'")
    started = time.perf_counter()
    table = fitted_table(fit, X, None, ("labels", "fixed"), "the posterior")
    density = Density(table, mean_and_covariance(table)[0], check_priors(table, fit, priors), fit.covariance_model)
    file = None if out is None else Path(out)
    earlier = None if file is None or not file.exists() else _earlier(file, density)
    if earlier is not None and earlier.complete:
        return earlier.tree
    seed = int(np.random.default_rng(rng).integers(2**31))
    tell = of_stage(progress, "posterior")
    tell(0, size.chains * (size.draws + size.tune))
    searched = search_modes(density, fit, np.random.default_rng([seed, 2])) if method == "nuts" else Searched()
    modes = [] if method == "variational" else find_modes(density, candidates(fit, searched, 2 * size.chains))
    run = _Run(density, fit, searched, modes, size, method, sampler, seed, started)

    weights = None
    if method != "nuts":
        approximation = {"chains": size.chains, "draws": size.draws, "seed": seed}
        if method == "laplace":
            chains_drawn, verdict = laplace_draws(density, modes[0], **approximation)
        else:
            chains_drawn, verdict = variational_draws(density, fit.mixture, **approximation)
        drawn = run.posterior(chains_drawn)
    else:
        sample = _by_pymc if sampler == "pymc" else _by_nutpie
        chains_drawn = sample(run, _Outlet(run, file, tell), earlier)
        drawn = run.posterior(chains_drawn)
        if sampler == "nutpie" and len(run.starts) > 1 and chains_drawn.complete:
            groups = separate_modes(drawn.draws, drawn.statistics["lp"])
            if len(groups) > 1:
                chains_drawn, weights = weigh_modes(density, fit, chains_drawn, groups, seed)
                drawn = run.posterior(chains_drawn)
        verdict = _verdict(
            diagnose(drawn),
            interrupted="" if chains_drawn.complete else _interrupted(size, drawn),
            modes=modes,
            visited=len(modes[: size.chains]) if weights is None else size.chains,
            searched=searched,
            weights=weights,
        )
    tree = run.tree(replace(drawn, verdict=verdict), weights)
    if file is not None:
        write_tree(tree, file)
    if "better_fit" in tree.attrs:
        warnings.warn(tree.attrs["better_fit"], ConvergenceWarning, stacklevel=2)
    if not verdict.good:
        warnings.warn(verdict.text, ConvergenceWarning, stacklevel=2)
    return tree


class _Size(NamedTuple):
    """How much to draw: draws to keep and to tune with, of each chain, and chains."""

    draws: int
    tune: int
    chains: int


@dataclass(frozen=True, eq=False)
class _Run:
    """What all steps of one sampling have in common."""

    density: Density
    fit: EMFit
    searched: Searched
    modes: list[Mode]  # all that are worth a chain, the highest first
    size: _Size
    method: str
    sampler: str
    seed: int
    started: float

    @property
    def starts(self) -> list[Mode]:
        """The modes that chains start from."""
        return self.modes[: self.size.chains]

    def posterior(self, chains: Chains) -> Posterior:
        """The draws, relabelled as the fit, and what they are of."""
        method = "hungarian" if self.density.priors.exchangeable else "none"
        relabelled = relabelling(self.density.unpack(chains.thetas), self.fit.mixture, method=method)
        seconds = time.perf_counter() - self.started
        return Posterior(
            draws=relabelled.mixture,
            rows=self.density.table.values,
            features=self.fit.features,
            em=self.fit.mixture,
            fit=self.fit,
            covariance_model=self.fit.covariance_model,
            priors=self.density.priors,
            labels=relabelled.labels,
            sampling=Sampling(self.method, self.sampler, self.seed, self.size.tune, seconds, chains.complete),
            statistics=chains.statistics,
        )

    def tree(self, drawn: Posterior, weights: ModeWeights | None, *, log_likelihood: bool = True) -> xr.DataTree:
        """The posterior as it is returned."""
        attributes = dict(self._attributes(drawn, weights))
        return tree_of(drawn, attributes, log_likelihood=log_likelihood)

    def _attributes(self, drawn: Posterior, weights: ModeWeights | None) -> Iterator[tuple[str, Any]]:
        """What is to be told of the draws, by name."""
        yield "priors", str(self.density.priors)
        yield "prior_values", self.density.priors.to_json()
        yield "fingerprint", _fingerprint(self.density)
        sampling = drawn.sampling
        yield from {"method": self.method, "sampler": self.sampler, "seed": self.seed, "tune": self.size.tune}.items()
        yield "sampling_seconds", sampling.seconds
        assert drawn.labels is not None
        yield from drawn.labels.attributes.items()
        yield "bayesgmm_version", __version__
        yield f"{self.sampler}_version", version(self.sampler)
        if len(self.starts) > 1:
            copies = math.lgamma(self.fit.n_components + 1) if self.density.priors.exchangeable else 0.0
            axes = self.density.coordinates.laplace_excess + self.density.coordinates.log_copies
            constant = self.density.log_constant + copies + axes
            each = (f"{mode.log_integral + constant:.1f}" for mode in self.starts)
            yield "maxima", f"log evidence by Laplace of the maxima near which chains start: {', '.join(each)}"
        if self.searched.text:
            yield "search", self.searched.text
        if better := better_fit(self.fit, self.searched):
            yield "better_fit", better
        if not sampling.complete:
            yield "partial", _interrupted(self.size, drawn)
        if weights is not None:
            yield "modes", weights.text
        if drawn.verdict is not None:
            yield from drawn.verdict.attributes.items()


def _interrupted(size: _Size, drawn: Posterior) -> str:
    chains, draws = drawn.draws.batch_shape
    return f"interrupted with {draws} of {size.draws} draws in {chains} of {size.chains} chains"


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


class _Earlier(NamedTuple):
    """What an earlier run has left in a file."""

    tree: xr.DataTree
    chains: Chains
    complete: bool


def _earlier(file: Path, density: Density) -> _Earlier:
    """The posterior in a file, or an `InputError` where it is not one of the same table, model and priors."""
    try:
        with xr.open_datatree(file, engine="h5netcdf") as stored:
            tree = stored.load()
        drawn, fingerprint_of_file = posterior(tree), tree.attrs["fingerprint"]
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{file} is there already and holds no posterior; give another out=, or remove it") from error
    if fingerprint_of_file != _fingerprint(density):
        raise InputError(
            f"{file} holds the posterior of another table, model or prior; give another out=, or remove it"
        )
    chains = Chains(density.pack(drawn.draws), dict(drawn.statistics))
    return _Earlier(tree, chains, drawn.sampling.complete)


def _fingerprint(density: Density) -> str:
    """What tells posteriors of another table, model or prior apart."""
    return fingerprint(density.table, density.model.name, density.priors.to_json())


class _Outlet(NamedTuple):
    """Where draws go while there are more to come."""

    run: _Run
    file: Path | None
    progress: Callable[[int, int], None]

    def write(self, chains: Chains) -> None:
        """Write what there is to the file, if there is one."""
        if self.file is not None:
            write_tree(self.run.tree(self.run.posterior(chains), None, log_likelihood=False), self.file)


def _by_pymc(run: _Run, _outlet: _Outlet, _earlier: _Earlier | None) -> Chains:
    """All chains by PyMC's own sampler."""
    from bayesgmm.bayes.model import build_model  # PyMC takes seconds to import

    model = build_model(run.density.table.values, run.fit, run.density.priors)
    draws, tune, chains = run.size
    sampled, statistics = pymc_draws(
        model, run.density, run.modes[0], draws=draws, tune=tune, chains=chains, seed=run.seed
    )
    return Chains(run.density.pack(posterior(sampled).draws), statistics)


class _Job(NamedTuple):
    """Chains to draw from one mode's normal approximation, and what there is of them already."""

    mode: Mode
    n_chains: int
    begun: Chains | None = None

    @property
    def n_begun(self) -> int:
        """Draws of each chain that are there already."""
        return 0 if self.begun is None else self.begun.n_draws


def _jobs(run: _Run, earlier: _Earlier | None) -> Iterator[_Job]:
    """First the chains that an earlier run has begun, then each mode's share of the others."""
    remaining = run.size.chains
    if earlier is not None:
        begun = earlier.chains.picked(np.s_[:remaining])
        remaining -= begun.n_chains
        yield _Job(run.starts[0], begun.n_chains, begun)
    share = np.arange(remaining) % len(run.starts)
    for m, mode in enumerate(run.starts):
        if n := int((share == m).sum()):
            yield _Job(mode, n)


def _by_nutpie(run: _Run, outlet: _Outlet, earlier: _Earlier | None) -> Chains:
    """All chains, one job after the other."""
    draws, tune, _ = run.size
    total, done = run.size.chains * (draws + tune), 0
    finished: list[Chains] = []
    for i, job in enumerate(_jobs(run, earlier)):
        if job.begun is not None and job.n_begun >= draws:
            finished.append(job.begun.cut(draws))
            continue

        def all_so_far(part: Chains, job: _Job = job, others: tuple[Chains, ...] = tuple(finished)) -> Chains:
            return reduce(Chains.beside, (*others, part if job.begun is None else job.begun.then(part)))

        def write(part: Chains, all_so_far: Callable[[Chains], Chains] = all_so_far) -> None:
            outlet.write(all_so_far(part))

        def tell(n: int, before: int = done + job.n_chains * job.n_begun) -> None:
            outlet.progress(before + n, total)

        chains = nutpie_draws(
            run.density,
            job.mode,
            draws=draws - job.n_begun,
            tune=tune,
            chains=job.n_chains,
            seed=run.seed if i == job.n_begun == 0 else _seed(run.seed, i, job.n_begun),
            starts=None if job.begun is None else job.begun.thetas[:, -1],
            progress=tell,
            on_part=None if outlet.file is None else write,
        )
        done += job.n_chains * (draws + tune)
        finished.append(chains if job.begun is None else job.begun.then(chains))
        if not chains.complete:
            break
    together = reduce(Chains.beside, finished)
    if together.complete:
        outlet.progress(total, total)
    return together


def _seed(*numbers: int) -> int:
    return int(np.random.default_rng(numbers).integers(2**31))
