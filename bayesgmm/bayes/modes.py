"""The modes that chains start from, and how sure the search for them is to have missed none."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from bayesgmm.alignment import cheapest_order, divergence
from bayesgmm.bayes.density import Density
from bayesgmm.bayes.laplace import Mode, find_mode, start_near
from bayesgmm.bayes.priors.covariances import ConjugatePrior
from bayesgmm.em.fit import fit_quietly
from bayesgmm.em.result import RIVALS, TELLING, EMFit, Maximum, chance_of_better
from bayesgmm.errors import DegenerateFitError
from bayesgmm.mixture import GaussianMixture

_WEIGHTLESS = 7.0  # nats of evidence by Laplace below the best mode's at which a mode is left out
_SAME = 0.1  # nats of symmetric divergence, per component, within which two modes are one
UNSURE = 0.1  # chance of a higher maximum above which the verdict says so
_BETTER = 0.5  # nats by which another maximum of the likelihood is worth a word
_CLIMBED = 10  # maxima of the posterior from which the likelihood is climbed


class Searched(NamedTuple):
    """What climbs to the maxima of the posterior have found, and of the likelihood.

    The climbs are EM's under the priors, which it approximates where they are hierarchical, and without LKJ's.
    """

    maxima: tuple[Maximum, ...] = ()  # distinct, within ten nats of the highest, which is first
    climbs: int = 0
    log_likelihood: float = -math.inf  # the highest of the likelihood, spurious ones left out, if looked for

    @property
    def chance(self) -> float:
        """Chance that a longer search would find a higher maximum; NaN where too few climbs tell of others."""
        if not self.maxima:
            return 0.0
        return math.nan if self.climbs < TELLING else chance_of_better([m.hits for m in self.maxima])

    @property
    def text(self) -> str:
        """How sure the search is."""
        if not self.maxima:
            return ""
        n, hits = len(self.maxima), self.maxima[0].hits
        others = f", one of {n} within {RIVALS:.0f} nats," if n > 1 else ""
        reached = f"The highest maximum{others} was reached by {hits} of {self.climbs} climbs"
        unsure = f"; the chance that there is a higher one is about {self.chance:.0%}"
        return f"{reached}{unsure if self.chance > UNSURE else ''}."


def search_modes(density: Density, fit: EMFit, rng: np.random.Generator) -> Searched:
    """Search the posterior as `fit_em` searches the likelihood, until a higher maximum is unlikely."""
    X, K, model = density.table, fit.n_components, fit.covariance_model
    priors = density.priors if isinstance(density.priors.covariances, ConjugatePrior) else None
    if K == 1 and X.complete and X.noise is None:
        return Searched()
    try:
        found = fit_quietly(X, K, model, priors=priors, rng=rng).maxima
    except DegenerateFitError:
        return Searched()
    sound = [maximum for maximum in found if not maximum.spurious]
    near = tuple(m for m in sound if m.log_likelihood > sound[0].log_likelihood - RIVALS)
    searched = Searched(near, sum(maximum.hits for maximum in found))
    if near and not fit.penalised:
        starts = [maximum.mixture for maximum in near[:_CLIMBED] if maximum.mixture is not None]
        with suppress(DegenerateFitError):
            best = fit_quietly(X, K, model, starts=starts)
            if not best.spurious:
                return searched._replace(log_likelihood=best.log_likelihood)
    return searched


def better_fit(fit: EMFit, searched: Searched) -> str:
    """That a search found a higher maximum of the likelihood than the fit's, and what to do; or nothing."""
    if searched.log_likelihood < fit.log_likelihood + _BETTER:
        return ""
    return (
        f"The fit is not the highest maximum of the likelihood: {searched.log_likelihood:.1f} was found, and it has "
        f"{fit.log_likelihood:.1f}. Refit with more starts (n_starts=1000)."
    )


def find_modes(
    density: Density, mixtures: Sequence[GaussianMixture], find: Callable[[GaussianMixture], Mode] | None = None
) -> list[Mode]:
    """Distinct modes near mixtures, the one of largest evidence by Laplace's approximation first.

    Modes with less than a thousandth of the first one's evidence are left out. ``find`` gives the mode near a mixture;
    otherwise it is the density's.
    """
    find = find or (lambda mixture: find_mode(density, start_near(density, mixture)))
    modes_with_mixtures: list[tuple[Mode, GaussianMixture]] = []

    def is_new(mixture: GaussianMixture) -> bool:
        others = (other for _, other in modes_with_mixtures)
        return all(_distance(mixture, other) > _SAME * mixture.n_components for other in others)

    for mixture in filter(is_new, mixtures):
        mode = find(mixture)
        if is_new(at_mode := density.unpack(mode.origin)):
            modes_with_mixtures.append((mode, at_mode))
    best = max(mode.log_integral for mode, _ in modes_with_mixtures)
    modes = [mode for mode, _ in modes_with_mixtures if mode.log_integral > best - _WEIGHTLESS]
    return sorted(modes, key=lambda mode: -mode.log_integral)


def candidates(fit: EMFit, searched: Searched, most: int) -> list[GaussianMixture]:
    """Mixtures near which modes may be: the fit, then by turns the highest maxima of the search and of the fit."""
    of_fit: list[GaussianMixture] = []
    if not fit.penalised:  # else the maxima's heights are not those of the likelihood
        near = (m for m in fit.maxima if 0 < fit.log_likelihood - m.log_likelihood < RIVALS and not m.spurious)
        of_fit = [m.mixture for m in near if m.mixture is not None]
    of_search = [m.mixture for m in searched.maxima if m.mixture is not None]
    turns = [mixture for i in range(most) for mixture in (*of_search[i : i + 1], *of_fit[i : i + 1])]
    return [fit.mixture, *turns][:most]


def _distance(mixture: GaussianMixture, other: GaussianMixture) -> float:
    """Total divergence of matched components, nats."""
    cost = divergence(mixture, other)
    return float(cost[cheapest_order(cost), np.arange(mixture.n_components)].sum())
