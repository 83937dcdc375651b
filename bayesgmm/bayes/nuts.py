"""NUTS on the compiled density (nutpie), or on the PyMC model (PyMC's own)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import cycle
from typing import Any

import numpy as np

from bayesgmm.bayes.chains import Chains
from bayesgmm.bayes.density import Density
from bayesgmm.bayes.laplace import Mode
from bayesgmm.bayes.nutpie_model import nutpie_model
from bayesgmm.errors import BayesGMMError, SamplingError
from bayesgmm.expectation import n_threads

LEAST_TUNE = 10  # steps; of fewer the step size learns nothing, and of none nutpie panics
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


def nutpie_draws(
    density: Density,
    mode: Mode,
    *,
    draws: int,
    tune: int,
    chains: int,
    seed: int,
    starts: np.ndarray | None = None,
    progress: Callable[[int], None] | None = None,
    on_part: Callable[[Chains], None] | None = None,
    seconds: float = 10.0,
) -> Chains:
    """Draws by nutpie on the density whitened at a mode.

    Chains start at coordinates ``starts`` (chains, n), or overdispersed about the mode. ``progress`` is called with the
    number of draws done, and ``on_part`` with the draws so far, every so many ``seconds``. An interrupt (Ctrl-C) ends
    the sampling: the draws so far are returned, incomplete, and it is raised only where there are none.

    Raises
    ------
    SamplingError
        If the sampler fails.
    """
    import nutpie

    whitened = density.whitened(mode.origin, mode.factor)
    n = whitened.n_dim
    given: Iterator[Any] = cycle(
        [None] if starts is None else list(np.linalg.solve(mode.factor, (starts - mode.origin).T).T.copy())
    )

    def start(chain_seed: int) -> np.ndarray:
        u = next(given)
        return _OVERDISPERSION * np.random.default_rng(chain_seed).standard_normal(n) if u is None else u

    def tell(chain_states: Any) -> None:
        if progress is not None:
            progress(sum(state.finished_draws for state in chain_states))

    with _own_errors():
        background = nutpie.sample(
            nutpie_model(whitened, start),
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
        while True:
            try:
                with _own_errors():
                    trace = background.wait(timeout=None if on_part is None else seconds)
                return _chains_of(trace)
            except TimeoutError:
                part = _so_far(background.inspect)
                if on_part is not None and part is not None:
                    on_part(part)
    except KeyboardInterrupt:
        part = _so_far(background.abort)
        if part is None:
            raise
        return part
    except BaseException:
        with suppress(SamplingError), _own_errors():
            background.cancel()
        raise


@contextmanager
def _own_errors() -> Iterator[None]:
    """What goes wrong in the sampler, a panic of its compiled part too, as this package's own error."""
    try:
        yield
    except (BayesGMMError, TimeoutError, KeyboardInterrupt):
        raise
    except BaseException as error:  # a panic is no Exception
        what = " ".join(str(error).split())[:200] or type(error).__name__
        raise SamplingError(
            f"the sampler nutpie failed: {what}. Try another rng or priors, or sampler='pymc'; if it fails for every "
            "rng, it is an error in bayesgmm or nutpie to report"
        ) from None


def _chains_of(trace: Any) -> Chains:
    group = trace["sample_stats"]
    statistics = {new: group[old].values for old, new in _STATISTICS.items() if old in group}
    return Chains(trace["posterior"]["theta"].values, statistics)


def _so_far(trace: Callable[[], Any]) -> Chains | None:
    """The draws there are so far, without ArviZ's warning that there are fewer draws than chains."""
    with _own_errors(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return _part_of(trace())


def _part_of(trace: Any) -> Chains | None:
    """Draws of the chains that have finished tuning, cut to the common length that keeps most draws.

    None while no length of at least four draws is there.
    """
    if "posterior" not in trace.children or "theta" not in trace["posterior"]:
        return None
    chains = _chains_of(trace)
    lengths = np.isfinite(chains.thetas).all(axis=2).sum(axis=1)
    length = max(lengths, key=lambda n: n * (lengths >= n).sum(), default=0)
    if length < 4:
        return None
    return chains.picked(np.s_[lengths >= length, :length])._replace(complete=False)


def pymc_draws(
    model: Any, density: Density, mode: Mode, *, draws: int, tune: int, chains: int, seed: int
) -> tuple[Any, dict[str, np.ndarray]]:
    """The posterior group and statistics by PyMC's NUTS on a model, with the curvature at the mode as mass matrix."""
    import pymc as pm

    rng = np.random.default_rng(seed)
    starts = [
        density.model_values(mode.origin + _OVERDISPERSION * mode.factor @ rng.standard_normal(density.n_dim))
        for _ in range(chains)
    ]
    with model:
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
    return tree, {name: statistics[name].values for name in _STATISTICS.values() if name in statistics}
