"""`sample_posterior`: draws from around the EM fit, relabelled, checked, and laid out for ArviZ."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import xarray as xr

from bayesgmm import __version__
from bayesgmm.bayes.density import Density
from bayesgmm.bayes.diagnosis import diagnose
from bayesgmm.bayes.laplace import Mode, find_mode
from bayesgmm.bayes.model import build_model, check_priors
from bayesgmm.bayes.priors import Priors
from bayesgmm.bayes.relabel import exchangeable, relabelling
from bayesgmm.bayes.tree import as_mixture, draws_tree
from bayesgmm.em.fit import EMFit, fitted_table
from bayesgmm.em.initialize import whole_table
from bayesgmm.errors import ConvergenceWarning, InputError
from bayesgmm.expectation import n_threads
from bayesgmm.mixture import GaussianMixture
from bayesgmm.observations import positive_integer

_OVERDISPERSION = 1.5  # sd of the chains' starts in units of the normal approximation's
_TARGET_ACCEPT = 0.9  # shorter steps than usual, for the tails of small components
_STATISTICS = {
    "diverging": "diverging",
    "energy": "energy",
    "depth": "tree_depth",
    "n_steps": "n_steps",
    "step_size": "step_size",
    "mean_tree_accept": "acceptance_rate",
    "logp": "lp",
}


def sample_posterior(
    X: Any,
    fit: EMFit,
    priors: Priors | None = None,
    *,
    draws: int = 1000,
    tune: int = 500,
    chains: int = 4,
    sampler: str = "nutpie",
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
    draws, tune, chains : int
        Draws to keep and to tune with, per chain.
    sampler : {"nutpie", "pymc"}
        "nutpie" samples the compiled density, whitened by its curvature at the mode; "pymc" samples `build_model`'s
        model with PyMC's own NUTS.
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

    Warns
    -----
    ConvergenceWarning
        If the chains disagree, mix badly or diverge; the message says which.

    Raises
    ------
    InputError
        If table, fit and priors do not belong together, or the covariance model is not available.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> tree = bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), draws=500, chains=2, rng=0)
    >>> tree["posterior"]["weights"].mean(("chain", "draw")).round(1).values
    array([0.4, 0.6])
    """
    draws, chains = positive_integer(draws, "draws"), positive_integer(chains, "chains")
    tune = positive_integer(tune, "tune", least=0)
    if sampler not in ("nutpie", "pymc"):
        raise InputError(f"unknown sampler {sampler!r}; use 'nutpie' or 'pymc'")
    table = fitted_table(fit, X, None, ("labels", "fixed"), "the posterior")
    priors = check_priors(table, fit, priors)
    started = time.perf_counter()
    seed = int(np.random.default_rng(rng).integers(2**31))
    density = Density(table, whole_table(table)[0], priors, fit.covariance_model)
    mode = find_mode(density, density.pack(fit.mixture))
    if sampler == "nutpie":
        mixture, statistics = _nutpie(density, mode, draws, tune, chains, seed, progress)
    else:
        mixture, statistics = _pymc(X, fit, priors, density, mode, draws, tune, chains, seed)
    relabelled = relabelling(mixture, fit.mixture, method="hungarian" if exchangeable(priors) else "none")
    attributes = {
        "priors": str(priors),
        "prior_values": priors.to_json(),
        "sampler": sampler,
        "seed": seed,
        "tune": tune,
        "sampling_seconds": time.perf_counter() - started,
        **relabelled.attributes,
        "bayesgmm_version": __version__,
        f"{sampler}_version": version(sampler),
    }
    tree = draws_tree(table.values, fit, relabelled.mixture, statistics, attributes)
    verdict = diagnose(tree, priors)
    tree.attrs["convergence"] = verdict.text
    if not verdict.good:
        warnings.warn(verdict.text, ConvergenceWarning, stacklevel=2)
    return tree


def _nutpie(
    density: Density,
    mode: Mode,
    draws: int,
    tune: int,
    chains: int,
    seed: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[GaussianMixture, dict[str, np.ndarray]]:
    """Draws (chains, draws) and their statistics, by nutpie on the whitened density without any Python inside."""
    import nutpie
    from nutpie.compile_pymc import CompiledPyMCModel

    whitened = density.whitened(mode.origin, mode.factor)
    n = whitened.n_dim
    log_density, expand = whitened.compiled

    def start(chain_seed):
        return _OVERDISPERSION * np.random.default_rng(chain_seed).standard_normal(n)

    compiled = CompiledPyMCModel(
        dims={},
        compiled_logp_func=log_density,
        compiled_expand_func=expand,
        initial_point_func=start,
        shared_data={},
        shared_var_keys={},
        user_data=whitened.address_table,
        n_expanded=n,
        shape_info=(["theta"], [slice(0, n)], [(n,)]),
        logp_func=None,
        expand_func=None,
        _n_dim=n,
        _shapes={"theta": (n,)},
        _coords={},
    )
    total = chains * (draws + tune)

    def tell(chain_states):
        if progress is not None:
            progress(sum(state.finished_draws for state in chain_states), total)

    background = nutpie.sample(
        compiled,
        draws=draws,
        tune=tune,
        chains=chains,
        cores=min(chains, n_threads()),
        seed=seed,
        save_warmup=False,
        progress_bar=False,
        progress_callback=tell,
        blocking=False,
        target_accept=_TARGET_ACCEPT,
    )
    try:
        trace = background.wait()
    except BaseException:  # nutpie's own answer to Ctrl-C would be the half-filled trace
        background.cancel()
        raise
    if progress is not None:
        progress(total, total)
    statistics = trace["sample_stats"]
    kept = {new: statistics[old].values for old, new in _STATISTICS.items() if old in statistics}
    return density.unpack(trace["posterior"]["theta"].values), kept


def _pymc(
    X: Any,
    fit: EMFit,
    priors: Priors,
    density: Density,
    mode: Mode,
    draws: int,
    tune: int,
    chains: int,
    seed: int,
) -> tuple[GaussianMixture, dict[str, np.ndarray]]:
    """The same by PyMC's NUTS on the model, with the curvature at the mode as its mass matrix."""
    import pymc as pm

    rng = np.random.default_rng(seed)
    starts = [
        density.model_values(mode.origin + _OVERDISPERSION * mode.factor @ rng.standard_normal(density.n_dim))
        for _ in range(chains)
    ]
    with build_model(X, fit, priors):
        tree = pm.sample(
            draws,
            tune=tune,
            chains=chains,
            cores=1,
            step=pm.NUTS(scaling=mode.factor @ mode.factor.T, is_cov=True, target_accept=_TARGET_ACCEPT),
            initvals=starts,
            random_seed=seed,
            progressbar=False,
            compute_convergence_checks=False,
            quiet=True,
        )
    statistics = tree["sample_stats"]
    return as_mixture(tree), {name: statistics[name].values for name in _STATISTICS.values() if name in statistics}
