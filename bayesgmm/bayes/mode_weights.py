"""How much of the posterior each mode holds where chains stay in theirs, and draws in proportion to that."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from bayesgmm.bayes.chains import Chains
from bayesgmm.bayes.density import Density
from bayesgmm.bayes.evidence import evidence_of_draws
from bayesgmm.em.result import EMFit
from bayesgmm.errors import BayesGMMError


@dataclass(frozen=True, slots=True)
class ModeWeights:
    """Modes that chains do not move between, the highest first, and what each weighs.

    Attributes
    ----------
    chains : tuple of tuple of int
        The chains in each mode.
    log_evidence : tuple of float
        Of each mode, in nats.
    weights : tuple of float
        Share of the posterior that each holds.
    """

    chains: tuple[tuple[int, ...], ...]
    log_evidence: tuple[float, ...]
    weights: tuple[float, ...]

    @property
    def text(self) -> str:
        """The modes and their weights in words."""
        each = "; ".join(
            f"chain{'s' * (len(chains) > 1)} {', '.join(map(str, chains))}: log evidence {value:.1f}, weight {w:.2g}"
            for chains, value, w in zip(self.chains, self.log_evidence, self.weights, strict=True)
        )
        return (
            f"The posterior has {len(self.chains)} modes that chains do not move between ({each}); draws are taken "
            "from each in proportion to its evidence."
        )


def weigh_modes(
    density: Density, fit: EMFit, chains: Chains, groups: list[np.ndarray], seed: int
) -> tuple[Chains, ModeWeights]:
    """Draws of the whole posterior from chains that each stay in a mode, and the modes' weights.

    Parameters
    ----------
    density : Density
    fit : EMFit
        Whose labels the modes are weighed under, where the prior does not tell the components apart.
    chains : Chains
    groups : list of int arrays
        The chains in each mode.
    seed : int
    """
    rng = np.random.default_rng([seed, 1])
    target = fit.mixture if density.priors.exchangeable else None

    def log_evidence(group: np.ndarray) -> float:
        part = chains.picked(group)
        for method in ("bridge", "laplace"):  # the second where draws are too few, or too sticky
            with suppress(BayesGMMError):
                evidence = evidence_of_draws(density, part.thetas, part.statistics["lp"], target, method, rng=rng)
                if known := [float(e.value) for e in evidence.estimates.values() if math.isfinite(e.value)]:
                    return known[0]
        return -math.inf

    values = [log_evidence(group) for group in groups]
    weights = softmax(values)
    picked = _in_proportion(weights, groups, chains, rng)
    modes = tuple(tuple(map(int, group)) for group in groups)
    return picked, ModeWeights(modes, tuple(values), tuple(map(float, weights)))


def _in_proportion(weights: np.ndarray, groups: list[np.ndarray], chains: Chains, rng: np.random.Generator) -> Chains:
    """As many draws of as many chains, each chain with its share of every mode's draws."""
    n_draws = chains.n_draws
    mode_of_draw = rng.permuted(np.repeat(np.arange(len(groups)), multinomial_share(weights, n_draws)))
    source_chain, source_draw = np.empty((2, chains.n_chains, n_draws), dtype=np.intp)
    for c in range(chains.n_chains):
        for m, group in enumerate(groups):
            places = np.flatnonzero(mode_of_draw == m)
            source_chain[c, places] = group[c % len(group)]
            source_draw[c, places] = np.arange(len(places)) * n_draws // max(len(places), 1)
    return chains.picked((source_chain, source_draw))


def multinomial_share(weights: np.ndarray, n: int) -> np.ndarray:
    """Whole numbers nearest to n times the weights that sum to n (largest remainders)."""
    share = np.floor(weights * n).astype(np.intp)
    share[np.argsort(share - weights * n)[: n - share.sum()]] += 1
    return share
