"""Fits of many sizes and covariance models to one table, which share their starts; a failure is part of the result.

Besides the portfolio, a fit starts from its neighbours: from K - 1 components with one split, from K + 1 with two
merged, and from the best fit of a simpler covariance model. Fits to a table in parts are made to a sample of it first,
and then climb over all rows together. Nothing here chooses among the fits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations

import numpy as np

from bayesgmm.covariance import CovarianceModel
from bayesgmm.em.climber import Climber, make_climber
from bayesgmm.em.fit import enough_rows, fit_by_plan, order, starts_for
from bayesgmm.em.initialize import Candidates, Seeding, moments_of_mixture
from bayesgmm.em.large import Sample, on_all_rows
from bayesgmm.em.result import EMFit, merge_maxima
from bayesgmm.em.search import Plan
from bayesgmm.errors import BayesGMMError
from bayesgmm.expectation import NO_LABELS
from bayesgmm.mixture import GaussianMixture
from bayesgmm.observations import Observations
from bayesgmm.passes import Asking, together

type Key = tuple[str, int]  # the covariance model as it is printed, and the number of components
type FitCheckpoint = Callable[[Key, Callable[[], EMFit]], EMFit]  # gives the stored fit of a key, or calls the function

_SPLITS, _MERGES = 5, 3  # starts from the neighbours


@dataclass(frozen=True, eq=False)
class Grid:
    """What to fit: every covariance model with every number of components, all to one table.

    Attributes
    ----------
    table : Observations
    models : covariance models
    counts : increasing numbers of components
    n_starts : number of starts of each fit besides its neighbours; None for as many as it takes
    """

    table: Observations
    models: tuple[CovarianceModel, ...]
    counts: tuple[int, ...]
    n_starts: int | None

    def key(self, model: CovarianceModel, n_components: int) -> Key:
        """The key of the fit of this model and size."""
        return model.label(self.table.n_features), n_components

    @property
    def keys(self) -> list[Key]:
        """The keys of all fits, model by model."""
        return [self.key(model, K) for model in self.models for K in self.counts]


def fit_grid(
    grid: Grid, rng: np.random.Generator, checkpoint: FitCheckpoint, progress: Callable[[int, int], None]
) -> dict[Key, EMFit | BayesGMMError]:
    """The fit of every covariance model with every number of components, or the error that says why there is none.

    Parameters
    ----------
    grid : Grid
    rng : Generator
    checkpoint : callable
        Given a key and a function that makes the fit, returns the fit that an earlier run stored under this key, or
        calls the function.
    progress : callable
        Called with the number of fits done and their total.
    """
    table, counts, n_starts = grid.table, grid.counts, grid.n_starts
    seeds = rng.integers(2**63, size=max(counts)).tolist()
    seedings: dict[int, Seeding] = {}  # which all models share
    fits: dict[Key, EMFit | BayesGMMError] = {}

    def fit(model: CovarianceModel, K: int) -> EMFit:
        enough_rows(table, K)
        climber, spread = make_climber(table, model, K)
        rng = np.random.default_rng(seeds[K - 1])
        if K not in seedings:
            seedings[K] = Seeding(table, NO_LABELS, climber.center, spread, K, np.random.default_rng(seeds[K - 1]))
        starts = _from_simpler(fits, model, K, climber)
        smaller = fits.get(grid.key(model, K - 1))
        if isinstance(smaller, EMFit) and n_starts != 1:
            starts += _moments("split", splits(smaller.mixture), climber)
        return fit_by_plan(climber, Plan(starts, seedings[K], starts_for(table, K, n_starts)), rng)

    for model in sorted(grid.models, key=lambda model: model.n_parameters(2, 3)):
        for K in counts:
            key = grid.key(model, K)
            try:
                fits[key] = checkpoint(key, partial(fit, model, K))
            except BayesGMMError as error:
                fits[key] = error
            progress(len(fits), len(grid.keys))
        for K in sorted(set(counts) & {K - 1 for K in counts} - {1}, reverse=True) if n_starts != 1 else ():
            larger = fits[grid.key(model, K + 1)]
            if isinstance(larger, EMFit) and not larger.spurious:
                climber, _ = make_climber(table, model, K)
                starts = _moments("merged", merges(larger.mixture), climber)
                fits[grid.key(model, K)] = _better(fits[grid.key(model, K)], climber, starts, seeds[K - 1])
    return {key: fits[key] for key in grid.keys}


def climb_grid(sample: Sample, fits: Mapping[Key, EMFit | BayesGMMError]) -> Asking[dict[Key, EMFit | BayesGMMError]]:
    """The fits to all rows of a table in parts that climbs from fits to a sample of them find, in lockstep.

    Parameters
    ----------
    sample : Sample
    fits : mapping to EMFit
        Of the sample; errors stay as they are.
    """

    def climb(fit: EMFit | BayesGMMError) -> Asking[EMFit | BayesGMMError]:
        if not isinstance(fit, EMFit):
            return fit
        climber, spread = make_climber(sample.table, fit.covariance_model, fit.n_components)
        try:
            found = yield from on_all_rows(sample, climber, spread, fit)
        except BayesGMMError as error:
            return error
        return replace(found, mixture=found.mixture.permute(order(found.mixture)))

    results = yield from together([climb(fit) for fit in fits.values()])
    return dict(zip(fits, results, strict=True))


def _better(fit: EMFit | BayesGMMError, climber: Climber, starts: Candidates, seed: int) -> EMFit | BayesGMMError:
    """The fit or one from further starts, whichever is better, with the starts and maxima of both."""
    try:
        other = fit_by_plan(climber, Plan(starts), np.random.default_rng(seed))
    except BayesGMMError:
        return fit
    if not isinstance(fit, EMFit):
        return other
    best = max(other, fit, key=lambda f: (not f.spurious, f.log_likelihood - (1e-6 if f is other else 0.0)))
    return replace(
        best,
        starts=fit.starts + other.starts,
        maxima=merge_maxima(fit.maxima + other.maxima),
        search_end=fit.search_end,
    )


def _from_simpler(
    fits: dict[Key, EMFit | BayesGMMError], model: CovarianceModel, K: int, climber: Climber
) -> Candidates:
    """The best fit with as many components among the models that are special cases of this one, as a start."""
    simpler = [
        fit
        for (name, count), fit in fits.items()
        if count == K and isinstance(fit, EMFit) and not fit.spurious and contains(model, CovarianceModel.named(name))
    ]
    best = max(simpler, key=lambda fit: fit.log_likelihood, default=None)
    return [] if best is None or K == 1 else _moments(f"fit of {best.covariance_model.name}", [best.mixture], climber)


def contains(model: CovarianceModel, other: CovarianceModel) -> bool:
    """Whether the other model is a special case of this one.

    Examples
    --------
    >>> contains(CovarianceModel.named("VVV"), CovarianceModel.named("EEE"))
    True
    >>> contains(CovarianceModel.named("EEE"), CovarianceModel.named("VII"))
    False
    """
    factors = zip(model.name, other.name, strict=True)
    return all("IEV".index(outer) >= "IEV".index(inner) for outer, inner in factors)


def _moments(kind: str, mixtures: Sequence[GaussianMixture], climber: Climber) -> Candidates:
    total, center = climber.problem.total, climber.center
    return [(kind, moments_of_mixture(mixture, total, center)) for mixture in mixtures]


def splits(mixture: GaussianMixture) -> list[GaussianMixture]:
    """Mixtures in which one of the five largest components is replaced by two halves.

    The component is cut by the plane through its mean across its longest axis, and each half becomes a normal with the
    moments of a halved normal. Lengths are measured in units of the mixture's covariance, so that the longest axis does
    not change with the units or the axes of the features.

    Parameters
    ----------
    mixture : GaussianMixture
        Of K components, not a batch.

    Returns
    -------
    list of GaussianMixture
        Of K + 1 components each, with the mean and covariance of the mixture.
    """
    scale = np.linalg.cholesky(mixture.clusters.covariance)
    candidates = []
    for k in np.argsort(-mixture.weights, kind="stable")[:_SPLITS].tolist():
        within = np.linalg.solve(scale, np.linalg.solve(scale, mixture.covariances[k]).T)
        lengths, axes = np.linalg.eigh((within + within.T) / 2)
        half = np.sqrt(2 / np.pi * lengths[-1]) * (scale @ axes[:, -1])  # from the mean to that of one half
        weights, means, covariances = (
            np.concatenate((array, array[k : k + 1])) for array in (mixture.weights, mixture.means, mixture.covariances)
        )
        halves = [k, mixture.n_components]
        weights[halves] /= 2
        means[halves] += np.stack([-half, half])
        covariances[halves] -= np.outer(half, half)
        candidates.append(replace(mixture, weights=weights, means=means, covariances=covariances))
    return candidates


def merges(mixture: GaussianMixture) -> list[GaussianMixture]:
    """Mixtures in which two components are replaced by one with their joint moments.

    These are the three pairs that lose least by it, by Runnalls's bound of the Kullback-Leibler divergence.

    Parameters
    ----------
    mixture : GaussianMixture
        Of K >= 2 components, not a batch.

    Returns
    -------
    list of GaussianMixture
        Of K - 1 components each, with the mean and covariance of the mixture.

    References
    ----------
    Runnalls (2007), IEEE Transactions on Aerospace and Electronic Systems 43:989-999, doi:10.1109/TAES.2007.4383588.
    """
    log_det = np.linalg.slogdet(mixture.covariances)[1]

    def options() -> Iterator[tuple[float, GaussianMixture]]:
        for pair in combinations(range(mixture.n_components), 2):
            index = np.array(pair)
            w = mixture.weights[index]
            if not w.sum() > 0:
                continue
            one = GaussianMixture(w / w.sum(), mixture.means[index], mixture.covariances[index])
            rest = np.delete(np.arange(mixture.n_components), index)
            merged = replace(
                mixture,
                weights=np.append(mixture.weights[rest], w.sum()),
                means=np.concatenate((mixture.means[rest], one.mean[None])),
                covariances=np.concatenate((mixture.covariances[rest], one.covariance[None])),
            )
            yield float(w.sum() * np.linalg.slogdet(one.covariance)[1] - w @ log_det[index]), merged

    return [merged for _, merged in sorted(options(), key=lambda option: option[0])[:_MERGES]]
