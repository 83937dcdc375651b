"""`sample_posterior`: draws from around the EM fit, relabelled, checked, and laid out for ArviZ."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import reduce
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from scipy.special import softmax

from bayesgmm import __version__
from bayesgmm.bayes.density import Density
from bayesgmm.bayes.diagnosis import diagnose, separate_modes
from bayesgmm.bayes.evidence import evidence_of_draws
from bayesgmm.bayes.laplace import Mode
from bayesgmm.bayes.modes import UNSURE, Searched, better_fit, candidates, find_modes, search_modes
from bayesgmm.bayes.nuts import LEAST_TUNE, Draws, nutpie_draws, pymc_draws
from bayesgmm.bayes.priors import Priors, check_priors
from bayesgmm.bayes.relabel import relabelling
from bayesgmm.bayes.tree import as_mixture, draws_tree, write_tree
from bayesgmm.em.fit import EMFit, fitted_table
from bayesgmm.em.initialize import whole_table
from bayesgmm.errors import BayesGMMError, ConvergenceWarning, InputError
from bayesgmm.observations import positive_integer

_LEFT = 0.05  # share of the posterior in modes without chains that is too large


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
    progress: Callable[[int, int], None] | None = None,
) -> xr.DataTree:
    """Draw from the posterior of the mixture that EM fitted.

    Parameters
    ----------
    X : (N, D) table
        The table that was fitted.
    fit : EMFit
        Gives K, the covariance model, the starting point and the components' numbers.
    priors : Priors, optional
        `Priors.weakly_informative` by default.
    method : {"nuts", "laplace"}
        "laplace" draws from the normal approximation at the posterior mode instead, in milliseconds, and tells by a
        Pareto k (Vehtari et al. 2024) how far to trust it; ``sample_stats`` then holds log importance weights.
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
        Called with the number of draws done, tuning included, and their total ("nutpie" only).

    Returns
    -------
    xarray.DataTree
        Groups ``posterior`` (weights, means, covariances), ``sample_stats``, ``log_likelihood`` (pointwise, marginal
        over the assignments, in nats), ``observed_data`` and ``em`` (the fit). Its attributes are ``priors`` and
        ``convergence`` (both in words; see `diagnose`), ``seed``, and what `relabel` tells of the labels
        (``relabelling``, "none" where the prior tells the components apart, ``switch_rate``, ``ambiguous_rate``,
        ``margin_mean``, ``margin_min``).

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
        If table, fit and priors do not belong together, or the covariance model is not available.
    SamplingError
        If the sampler fails.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> tree = bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), draws=500, chains=2, rng=0)
    >>> tree["posterior"]["weights"].mean(("chain", "draw")).round(1).values
    array([0.4, 0.6])
    """
    draws, chains = positive_integer(draws, "draws"), positive_integer(chains, "chains")
    tune = positive_integer(tune, "tune", least=LEAST_TUNE)
    if sampler not in ("nutpie", "pymc"):
        raise InputError(f"unknown sampler {sampler!r}; use 'nutpie' or 'pymc'")
    if method not in ("nuts", "laplace"):
        raise InputError(f"unknown method {method!r}; use 'nuts' or 'laplace'")
    table = fitted_table(fit, X, None, ("labels", "fixed"), "the posterior")
    priors = check_priors(table, fit, priors)
    started = time.perf_counter()
    seed = int(np.random.default_rng(rng).integers(2**31))
    density = Density(table, whole_table(table)[0], priors, fit.covariance_model)
    earlier = None if out is None or not Path(out).exists() else _earlier(Path(out), density, fit)
    if earlier is not None and "partial" not in earlier.attrs:
        return earlier
    searched = search_modes(density, fit, np.random.default_rng([seed, 2])) if method == "nuts" else Searched()
    modes = find_modes(density, candidates(fit, searched, 2 * chains))
    chosen = modes[:chains]
    numbers = "hungarian" if priors.exchangeable else "none"

    def tree_of(drawn: Draws, *, final: bool = True) -> xr.DataTree:
        found = relabelling(density.unpack(drawn.thetas), fit.mixture, method=numbers)
        c, n = drawn.thetas.shape[:2]
        attributes = {
            "priors": str(priors),
            "prior_values": priors.to_json(),
            "method": method,
            "sampler": sampler,
            "seed": seed,
            "tune": tune,
            "sampling_seconds": time.perf_counter() - started,
            **found.attributes,
            "bayesgmm_version": __version__,
            f"{sampler}_version": version(sampler),
        }
        if len(chosen) > 1:
            copies = math.lgamma(fit.n_components + 1) if priors.exchangeable else 0.0
            each = (f"{mode.log_integral + density.log_constant + copies:.1f}" for mode in chosen)
            attributes["maxima"] = f"log evidence by Laplace of the maxima near which chains start: {', '.join(each)}"
        if searched.text:
            attributes["search"] = searched.text
        if not drawn.complete:
            attributes["partial"] = f"interrupted with {n} of {draws} draws in {c} of {chains} chains"
        return draws_tree(table.values, fit, found.mixture, drawn.statistics, attributes, log_likelihood=final)

    if method == "laplace":
        drawn, verdict = _laplace(density, modes[0], draws, chains, seed)
    elif sampler == "pymc":
        from bayesgmm.bayes.model import build_model  # PyMC takes seconds to import

        sampled, statistics = pymc_draws(
            build_model(X, fit, priors), density, modes[0], draws=draws, tune=tune, chains=chains, seed=seed
        )
        drawn = Draws(density.pack(as_mixture(sampled)), statistics)
    else:
        drawn = _by_nutpie(
            density, chosen, draws, tune, chains, seed, earlier, progress, None if out is None else Path(out), tree_of
        )
    tree = tree_of(drawn)
    if method == "nuts":
        apart = False
        if sampler == "nutpie" and len(chosen) > 1 and drawn.complete and len(groups := separate_modes(tree)) > 1:
            apart = True
            drawn, text = _weighted(density, fit, drawn, groups, seed)
            tree = tree_of(drawn)
            tree.attrs["modes"] = text
        verdict = _verdict(tree, priors, searched, modes, chains if apart else len(modes))
        if better := better_fit(fit, searched):
            tree.attrs["better_fit"] = better
            warnings.warn(better, ConvergenceWarning, stacklevel=2)
    tree.attrs["convergence"] = verdict.text
    if out is not None:
        write_tree(tree, Path(out))
    if not verdict.good:
        warnings.warn(verdict.text, ConvergenceWarning, stacklevel=2)
    return tree


class Verdict(NamedTuple):
    """Whether to trust the draws, and why, in words."""

    good: bool
    text: str


def _verdict(tree: xr.DataTree, priors: Priors, searched: Searched, modes: list[Mode], n_started: int) -> Verdict:
    """Whether the chains converged, and the modes that they keep to are all there are, as far as can be told."""
    diagnosis = diagnose(tree, priors)
    sentences, doubts = [diagnosis.text, tree.attrs.get("modes", "")], []
    if "partial" in tree.attrs:
        doubts.append(tree.attrs["partial"])
    left = softmax([mode.log_integral for mode in modes])[n_started:].sum()
    if left > _LEFT:
        doubts.append(f"{left:.0%} of the posterior, by Laplace's approximation, is in modes without chains")
        sentences.append(f"Sample with chains={len(modes)}, one for each mode.")
    if searched.chance > UNSURE:
        sentences.append(searched.text)
        if "modes" in tree.attrs:
            doubts.append("a mode may have been missed")
    text = " ".join(filter(None, sentences))
    if doubts:
        link = ", though " if diagnosis.good else ". "
        text = text.removeprefix("Converged: " if diagnosis.good else "Not converged. ")
        text = f"Not converged: {', and '.join(doubts)}{link}{text}"
    return Verdict(diagnosis.good and not doubts, text)


def _laplace(density: Density, mode: Mode, draws: int, chains: int, seed: int) -> tuple[Draws, Verdict]:
    """Draws of the normal approximation at the mode, and by the tail of their importance weights how good it is."""
    from arviz_stats.base import array_stats  # type: ignore[attr-defined]

    u = np.random.default_rng(seed).standard_normal((chains, draws, density.n_dim))
    thetas = mode.origin + u @ mode.factor.T
    values = np.array([density(theta)[0] for theta in thetas.reshape(-1, density.n_dim)]).reshape(chains, draws)
    log_ratio = values - mode.value + 0.5 * (u**2).sum(axis=2)
    log_weight, k = array_stats.psislw(log_ratio.ravel(), axis=-1)
    good_k = min(1 - 1 / math.log10(max(values.size, 11)), 0.7)
    good = bool(k < good_k)
    words = "good: its" if good else "not to be trusted: its importance weights'"
    advice = "" if good else " Sample with method='nuts'."
    bound = f"{'below' if good else 'above'} {good_k:.2f}"
    text = f"Laplace's approximation is {words} Pareto k is {float(k):.2f}, {bound}.{advice}"
    statistics = {"lp": values, "log_importance_weight": np.reshape(log_weight, values.shape)}
    return Draws(thetas, statistics), Verdict(good, text)


def _by_nutpie(
    density: Density,
    modes: list[Mode],
    draws: int,
    tune: int,
    chains: int,
    seed: int,
    earlier: xr.DataTree | None,
    progress: Callable[[int, int], None] | None,
    out: Path | None,
    tree_of: Callable[..., xr.DataTree],
) -> Draws:
    """All chains: first those that an earlier run has begun, then each mode's share of the others."""
    jobs: list[tuple[Mode, int, Draws | None]] = []
    begun = 0
    if earlier is not None:
        statistics = {str(name): array.values for name, array in earlier["sample_stats"].data_vars.items()}
        old = Draws(density.pack(as_mixture(earlier)), statistics).of_chains(chains)
        begun = len(old.thetas)
        jobs = [(modes[0], begun, old)]
    share = np.arange(chains - begun) % len(modes)
    jobs += [(mode, n, None) for m, mode in enumerate(modes) if (n := int((share == m).sum()))]
    total, before = chains * (draws + tune), 0
    finished: list[Draws] = []
    for i, (mode, n, prefix) in enumerate(jobs):
        have = 0 if prefix is None else prefix.thetas.shape[1]
        if prefix is not None and have >= draws:
            finished.append(prefix.cut(draws))
            continue

        def together(part: Draws, prefix: Draws | None = prefix, others: tuple[Draws, ...] = tuple(finished)) -> Draws:
            joined = part if prefix is None else prefix.then(part)
            return reduce(Draws.beside, (*others, joined))

        def tell(now: int, before: int = before + n * have) -> None:
            if progress is not None:
                progress(before + now, total)

        def keep(part: Draws, together: Callable[[Draws], Draws] = together) -> None:
            if out is not None:
                write_tree(tree_of(together(part), final=False), out)

        drawn = nutpie_draws(
            density,
            mode,
            draws=draws - have,
            tune=tune,
            chains=n,
            seed=seed if i == have == 0 else int(np.random.default_rng([seed, i, have]).integers(2**31)),
            starts=None if prefix is None else prefix.thetas[:, -1],
            progress=tell,
            on_part=None if out is None else keep,
        )
        before += n * (draws + tune)
        finished.append(drawn if prefix is None else prefix.then(drawn))
        if not drawn.complete:
            break
    together_all = reduce(Draws.beside, finished)
    if progress is not None and together_all.complete:
        progress(total, total)
    return together_all


def _weighted(density: Density, fit: EMFit, drawn: Draws, groups: list[np.ndarray], seed: int) -> tuple[Draws, str]:
    """Draws of modes that chains do not move between, in proportion to the modes' evidence; and this in words."""
    chains, draws = drawn.statistics["lp"].shape
    rng = np.random.default_rng([seed, 1])
    target = fit.mixture if density.priors.exchangeable else None

    def log_evidence(group: np.ndarray) -> float:
        thetas, heights = drawn.thetas[group], drawn.statistics["lp"][group]
        for method in ("bridge", "laplace"):  # the second where draws are too few, or too sticky
            with suppress(BayesGMMError):
                estimates = evidence_of_draws(density, thetas, heights, target, method, rng).estimates
                if known := [float(e.value) for e in estimates.values() if math.isfinite(e.value)]:
                    return known[0]
        return -math.inf

    values = [log_evidence(group) for group in groups]
    weights = softmax(values)
    owner = rng.permuted(np.repeat(np.arange(len(groups)), multinomial_share(weights, draws)))
    source = np.empty((chains, draws, 2), dtype=np.intp)  # chain and draw that each new draw is
    for c in range(chains):
        for m, group in enumerate(groups):
            place = np.flatnonzero(owner == m)
            source[c, place, 0] = group[c % len(group)]
            source[c, place, 1] = np.arange(len(place)) * draws // max(len(place), 1)
    pick = source[..., 0], source[..., 1]
    each = "; ".join(
        f"chain{'s' * (len(group) > 1)} {', '.join(map(str, group))}: log evidence {value:.1f}, weight {weight:.2g}"
        for group, value, weight in zip(groups, values, weights, strict=True)
    )
    text = (
        f"The posterior has {len(groups)} modes that chains do not move between ({each}); draws are taken from each in "
        "proportion to its evidence."
    )
    return Draws(drawn.thetas[pick], {name: v[pick] for name, v in drawn.statistics.items()}), text


def multinomial_share(weights: np.ndarray, n: int) -> np.ndarray:
    """Whole numbers nearest to n times the weights that sum to n (largest remainders)."""
    share = np.floor(weights * n).astype(np.intp)
    share[np.argsort(share - weights * n)[: n - share.sum()]] += 1
    return share


def _earlier(path: Path, density: Density, fit: EMFit) -> xr.DataTree:
    """The posterior in a file, or an `InputError` where it is not one of the same table, model and priors."""
    try:
        with xr.open_datatree(path, engine="h5netcdf") as file:
            tree = file.load()
        same = (
            np.array_equal(np.asarray(tree["observed_data"]["observations"]), density.table.values)
            and tree["em"].attrs["covariance_model"] == fit.covariance_model.name
            and tree.attrs["prior_values"] == density.priors.to_json()
        )
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{path} is there already and holds no posterior; give another out=, or remove it") from error
    if not same:
        raise InputError(
            f"{path} holds the posterior of another table, model or prior; give another out=, or remove it"
        )
    return tree
