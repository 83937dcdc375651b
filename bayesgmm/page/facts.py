"""What a page tells, as one value: made from an analysis, from a fit alone, or from a selection. No word of prose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bayesgmm.bayes.posterior import posterior
from bayesgmm.bayes.quantities import quantities
from bayesgmm.em.result import EMFit
from bayesgmm.errors import InputError
from bayesgmm.intervals import level, tails
from bayesgmm.mixture import GaussianMixture
from bayesgmm.observations import check_names
from bayesgmm.page.comparison import Comparison
from bayesgmm.page.rows import Rows
from bayesgmm.page.similarities import Similarities, similarities
from bayesgmm.plots.panels import Groups
from bayesgmm.plots.style import parting_features
from bayesgmm.summary.analysis import Analysis, left_out, summarise
from bayesgmm.tables import values_and_names

if TYPE_CHECKING:
    import pandas as pd

    from bayesgmm.selection import Selection

_DESCRIBED = 8  # features whose means and sds are shown
_OUTLINED_DRAWS, _OUTLINE_NUMBERS = 20, 20_000  # draws whose components are outlined, and numbers they may take
_HALF = 0.5  # probability of the inner interval
_CURVE_POINTS = 200


@dataclass(frozen=True, slots=True, eq=False)
class Described:
    """One quantity of every group: EM's estimate, and quantiles of its posterior.

    Attributes
    ----------
    name : {"weight", "mean", "sd", "correlation"}
    feature : str or None
    em : (K,) or None
    quantiles : (5, K) or None
        Lower end of the interval, lower quartile, median, upper quartile, upper end.
    mean, sd : (K,) or None
        Of the posterior.
    """

    name: str
    feature: str | None
    em: np.ndarray | None
    quantiles: np.ndarray | None
    mean: np.ndarray | None
    sd: np.ndarray | None


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """Densities of the only feature, at ``x`` (n,).

    Attributes
    ----------
    x : (n,)
    groups : (n, K)
        What each group adds to the density.
    band : (2, n) or None
        Ends of the interval of the density.
    """

    x: np.ndarray
    groups: np.ndarray
    band: np.ndarray | None


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """What a page tells.

    Attributes
    ----------
    source : str
        The table's name.
    fit : EMFit
    features : tuple of str
    rows : Rows
    groups : Groups
        Components or clusters: their colours, outlines and densities, as in the other pictures.
    shown : sequence of int
        Positions of the features that can be drawn.
    described : sequence of int
        Positions of those whose means and sds are shown.
    quantities : tuple of Described
    curves : Curves or None
        Where there is a single feature.
    ci_prob : float
    similarities : Similarities or None
    analysis : Analysis or None
        Where there are draws.
    selection : Comparison or None
        Where there are several fits, of which this is the one to report.
    run : mapping
        What else is known of how it was made.
    """

    source: str
    fit: EMFit
    features: tuple[str, ...]
    rows: Rows
    groups: Groups
    shown: Sequence[int]
    described: Sequence[int]
    quantities: tuple[Described, ...]
    curves: Curves | None
    ci_prob: float
    similarities: Similarities | None = None
    analysis: Analysis | None = None
    selection: Comparison | None = None
    run: Mapping[str, Any] = field(default_factory=dict)

    @property
    def group(self) -> str:
        """What rows belong to: "component" or "cluster"."""
        return self.groups.word

    @property
    def n_choices(self) -> int:
        """Number of things that a row may belong to: the groups, and noise if there is any."""
        return self.n_groups + (self.groups.centre.noise_weight is not None or self.rows.n_noise > 0)

    def leading(self, n: int) -> list[int]:
        """Which of the shown features differ most between the groups, as positions among the shown."""
        means = self.groups.centre.means[:, self.shown]
        return parting_features(means, _without_gaps(self.rows.values[:, self.shown]), n)

    @property
    def n_groups(self) -> int:
        """Number of components, or of clusters."""
        return self.groups.centre.n_components


def facts_of_analysis(
    analysis: Analysis, source: str, *, ids: Sequence[str] | None = None, run: Mapping[str, Any] | None = None
) -> Facts:
    """The facts of a posterior and what follows from it."""
    a, drawn, fit = analysis.assignments, analysis.posterior, analysis.fit
    assert drawn.rows is not None
    rows = Rows.assigned(drawn.rows, a, ids)
    room = _OUTLINE_NUMBERS // (analysis.draws.n_components * rows.n_features_shown * (rows.n_features_shown + 3) // 2)
    n_outlined = min(max(room, 1), _OUTLINED_DRAWS)
    if a.partition is None:
        groups, em = Groups.components(fit.mixture, drawn, n_outlined), drawn.em
    else:
        groups, em = Groups.clusters(a.partition, drawn, n_outlined), None
    return _facts(
        source,
        fit,
        rows,
        groups,
        _Estimates(em, analysis.draws, analysis.ci_prob),
        run,
        similarities=similarities(drawn, a) if analysis.draws.n_components > 1 else None,
        analysis=analysis,
    )


def facts_of_fit(
    fit: EMFit,
    X: Any,
    source: str,
    *,
    error_sd: Any = None,
    error_covariance: Any = None,
    ids: Sequence[str] | None = None,
    run: Mapping[str, Any] | None = None,
) -> Facts:
    """The facts of an EM fit alone, to rows with these errors: no intervals, and no doubt about the parameters."""
    values, _ = values_and_names(X)
    check_names(X, fit.mixture.features)
    noisy = fit.mixture.noise_weight is not None
    errors: dict[str, Any] = {"error_sd": error_sd, "error_covariance": error_covariance}
    noise = fit.mixture.noise_probability(values, **errors) if noisy else None
    rows = Rows.fitted(values, fit.mixture.responsibilities(values, **errors), noise, ids)
    groups = Groups.components(fit.mixture, None, 0)
    return _facts(source, fit, rows, groups, _Estimates(fit.mixture, None, level(None)), run)


def facts_of_selection(
    selection: Selection,
    X: Any,
    source: str,
    *,
    error_sd: Any = None,
    error_covariance: Any = None,
    ids: Sequence[str] | None = None,
    run: Mapping[str, Any] | None = None,
    rng: Any = 0,
) -> Facts:
    """The facts of the fit to report, with its posterior if there is one, and those of the selection."""
    best = selection.recommend()
    key = best.covariance, best.n_components
    if key in selection.posteriors:
        tree = selection.posteriors[key]
        analysis = summarise(_as_frame(X, best.fit.features), tree, posterior(tree), selection.loos.get(key), rng)
        facts = facts_of_analysis(analysis, source, ids=ids, run=run)
    else:
        errors: dict[str, Any] = {"error_sd": error_sd, "error_covariance": error_covariance}
        facts = facts_of_fit(best.fit, X, source, **errors, ids=ids, run=run)
    return replace(facts, selection=Comparison.of(selection))


def facts_of_posterior(
    tree: Any,
    source: str,
    *,
    ids: Sequence[str] | None = None,
    run: Mapping[str, Any] | None = None,
    seconds: Mapping[str, float] | None = None,
    rng: Any = 0,
) -> Facts:
    """The facts of a posterior of which nothing else is known yet."""
    drawn = posterior(tree)
    if drawn.fit is None or drawn.rows is None:
        raise InputError("a page needs a posterior with its table and its EM fit, as sample_posterior returns it")
    analysis = summarise(_as_frame(drawn.rows, drawn.features), tree, drawn, left_out(drawn, rng), rng, seconds)
    return facts_of_analysis(analysis, source, ids=ids, run=run)


class _Estimates(NamedTuple):
    """What is known of the groups' parameters: EM's estimate, draws, and the probability of every interval."""

    em: GaussianMixture | None
    draws: GaussianMixture | None
    ci_prob: float


def _facts(
    source: str,
    fit: EMFit,
    rows: Rows,
    groups: Groups,
    estimates: _Estimates,
    run: Mapping[str, Any] | None,
    **more: Any,
) -> Facts:
    """The facts that every page tells, and those that only draws know."""
    shown, described = _features(rows, groups.centre)
    return Facts(
        source=source,
        fit=fit,
        features=fit.features,
        rows=rows,
        groups=groups,
        shown=shown,
        described=described,
        quantities=_described(estimates, fit, described),
        curves=_curves(rows.values, groups, estimates.ci_prob) if fit.n_features == 1 else None,
        ci_prob=estimates.ci_prob,
        run=run or {},
        **more,
    )


def _as_frame(X: Any, features: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    return X if isinstance(X, pd.DataFrame) else pd.DataFrame(values_and_names(X)[0], columns=list(features))


def _features(rows: Rows, centre: GaussianMixture) -> tuple[list[int], list[int]]:
    """The features that can be drawn, as far as the page has room, and those that are described."""
    most = rows.n_features_shown
    values = _without_gaps(rows.values)
    return parting_features(centre.means, values, most), parting_features(centre.means, values, min(most, _DESCRIBED))


def _without_gaps(values: np.ndarray) -> np.ndarray:
    """The values with the mean of its column in place of each that is missing."""
    return np.where(np.isfinite(values), values, np.nanmean(values, axis=0))


def _described(estimated: _Estimates, fit: EMFit, described: Sequence[int]) -> tuple[Described, ...]:
    """Weight, means and sds of each group, by EM and under the draws, as far as there are both."""
    em, draws, ci_prob = estimated
    names, diagonal = [fit.features[j] for j in described], fit.covariance_model.diagonal
    estimates = [] if em is None else list(quantities(em.marginal(described), names, diagonal=diagonal))
    if draws is None:
        return tuple(Described(e.name, e.feature, e.values, None, None, None) for e in estimates)
    (low, high), (lower, upper) = tails(ci_prob), tails(_HALF)
    found = []
    for i, sampled in enumerate(quantities(draws.marginal(described), names, diagonal=diagonal)):
        flat = sampled.values.reshape(-1, draws.n_components)
        quantiles = np.quantile(flat, [low, lower, 0.5, upper, high], axis=0)
        estimate = estimates[i].values if estimates else None
        found.append(Described(sampled.name, sampled.feature, estimate, quantiles, flat.mean(axis=0), flat.std(axis=0)))
    return tuple(found)


def _curves(values: np.ndarray, groups: Groups, ci_prob: float) -> Curves:
    """The density of the only feature, divided among the groups, and as a band of the draws."""
    low, high = np.nanmin(values), np.nanmax(values)
    margin = 0.07 * (high - low)
    x = np.linspace(low - margin, high + margin, _CURVE_POINTS)
    band = None
    if groups.mixtures is not None:
        band = np.quantile(np.exp(groups.mixtures.log_prob(x[:, None])), tails(ci_prob), axis=0)
    return Curves(x, groups.densities(0, x), band)
