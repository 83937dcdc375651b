"""How many components the rows fill in a mixture that has too many, under a prior that favours empty ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from bayesgmm.covariance import CovarianceModel
from bayesgmm.em.grid import Key
from bayesgmm.em.result import EMFit
from bayesgmm.errors import InputError
from bayesgmm.mixture import GaussianMixture
from bayesgmm.progress import of_stage
from bayesgmm.selection.run import Run

_LEAST_COMPONENTS = 10  # that the mixture has
_SWEEPS = 10  # of the Gibbs sampler for each draw
_AGREE = 1.05  # R-hat below which its chains agree
_LENGTHS = {"chains": 4, "draws": 1000, "tune": 500}


@dataclass(frozen=True, slots=True, eq=False)
class Overfitted:
    """How many components the rows fill in a mixture that has too many, under a prior that favours empty ones.

    Attributes
    ----------
    covariance, n_components : str, int
        The mixture.
    probabilities, prior : (n_components + 1,)
        Posterior and prior probability that 0, 1, ..., ``n_components`` components hold at least one row.
    filled : (chain, draw)
        The number of components that hold a row in each draw.
    concentration : (chain, draw)
        The concentration of the Dirichlet prior of the weights in each draw; its own prior is exponential with mean
        0.05.
    r_hat, ess : float
        Convergence of ``filled``: R-hat, below 1.05 where the chains agree, and the effective sample size.

    References
    ----------
    Rousseau, J. & Mengersen, K. (2011). Asymptotic behaviour of the posterior distribution in overfitted mixture
    models. Journal of the Royal Statistical Society B 73, 689-710. https://doi.org/10.1111/j.1467-9868.2011.00781.x

    Malsiner-Walli, G., Frühwirth-Schnatter, S. & Grün, B. (2016). Model-based clustering based on sparse finite
    Gaussian mixtures. Statistics and Computing 26, 303-324. https://doi.org/10.1007/s11222-014-9500-2

    Examples
    --------
    >>> import bayesgmm as bg
    >>> quick = {"sampling": {"draws": 100, "tune": 100}, "n_replicates": 0, "rng": 0}
    >>> selection = bg.select(bg.datasets.old_faithful(), 2, criteria="bic", overfitted=True, **quick)
    >>> selection.overfitted.n_components, int(selection.overfitted.probabilities.argmax())
    (10, 3)
    """

    covariance: str
    n_components: int
    probabilities: np.ndarray
    prior: np.ndarray
    filled: np.ndarray
    concentration: np.ndarray
    r_hat: float
    ess: float

    @property
    def converged(self) -> bool:
        """Whether the chains agree on how many components are filled."""
        return self.r_hat < _AGREE


def overfitted_mixture(run: Run, fits: Mapping[Key, EMFit], order: Sequence[Key]) -> Overfitted:
    """Draw how many components are filled, for the best covariance model that can be sampled so.

    Parameters
    ----------
    run : Run
    fits : mapping of (covariance, n_components) to EMFit
        Chains start from those of several sizes, the largest first.
    order : sequence of (covariance, n_components)
        From the best fit to the worst.

    Raises
    ------
    InputError
        If no fit is of a covariance model that can be sampled so.
    """
    import arviz as az

    from bayesgmm.bayes.gibbs import MODELS
    from bayesgmm.bayes.sparse import filled_prior

    name = next((name for name, _ in order if CovarianceModel.named(name).name in MODELS), None)
    if name is None:
        raise InputError(f"the overfitted mixture needs a fit of one of the covariance models {', '.join(MODELS)}")
    mixtures = {K: fit.mixture for (model, K), fit in fits.items() if model == name}
    sizes = sorted(mixtures, reverse=True)
    K = max(sizes[0], _LEAST_COMPONENTS)
    lengths = {length: int(run.sampling.get(length, default)) for length, default in _LENGTHS.items()}
    part = f"overfitted {name} {K} {lengths} {sizes}"
    arrays = run.checkpoints.arrays(part, partial(_draw, run, CovarianceModel.named(name), K, mixtures, **lengths))
    filled = arrays["filled"]
    if np.ptp(filled) == 0:
        r_hat, ess = 1.0, float(filled.size)
    else:
        r_hat, ess = (float(statistic(filled.astype(float))) for statistic in (az.rhat, az.ess))
    return Overfitted(
        covariance=name,
        n_components=K,
        probabilities=np.bincount(filled.ravel(), minlength=K + 1) / filled.size,
        prior=filled_prior(
            run.table.n_observations - len(run.table.empty), K, np.random.default_rng(run.seeds.overfitted)
        ),
        filled=filled,
        concentration=arrays["concentration"],
        r_hat=r_hat,
        ess=ess,
    )


def _draw(
    run: Run,
    model: CovarianceModel,
    K: int,
    mixtures: Mapping[int, GaussianMixture],
    *,
    chains: int,
    draws: int,
    tune: int,
) -> dict[str, np.ndarray]:
    """How many components hold a row and the concentration of the weights (chain, draw), by Gibbs sampling."""
    from bayesgmm.bayes.priors import Priors
    from bayesgmm.bayes.sparse import filled_draws

    table, sizes = run.table, sorted(mixtures, reverse=True)
    labels = np.empty((chains, table.n_observations), np.int64)
    means = np.tile(np.nanmean(table.values, axis=0), (chains, K, 1))
    for c in range(chains):
        mixture = mixtures[sizes[c * len(sizes) // chains]]
        labels[c], means[c, : mixture.n_components] = mixture.predict(table), mixture.means
    priors, rng = Priors.weakly_informative(table, K), np.random.default_rng(run.seeds.overfitted)
    tell = of_stage(run.progress, f"sparse weights, K={K}")
    filled, concentration = filled_draws(
        table, priors, model, labels, means, rng, draws=draws, tune=tune, thin=_SWEEPS, tell=tell
    )
    return {"filled": filled, "concentration": concentration}
