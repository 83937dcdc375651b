"""What all climbs of one table share: its rows, the origin and units of the moments, priors and fixed parts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from bayesgmm.covariance import CovarianceModel, first_dependent, precision_cholesky, precisions_cholesky
from bayesgmm.em import ascent
from bayesgmm.em.initialize import mean_and_covariance
from bayesgmm.em.spurious import THIN, least_width, log_chance_subsets, log_subsets, widths
from bayesgmm.errors import InputError
from bayesgmm.expectation import NO_LABELS, Parameters, Rows, expected_statistics, log_joint
from bayesgmm.mixture import GaussianMixture
from bayesgmm.noise import Noise
from bayesgmm.observations import Observations

TOLERANCE = 1e-6  # nats that may be left to gain where a climb ends, unless told otherwise
MAX_ITERATIONS = 10_000
SHORT_TOLERANCE = 1e-2  # nats, of a short run that sees a sample of the rows
_SHORT = 30  # iterations of a short run
_SHORT_ROWS = 500, 100  # rows per component, and more per feature, beyond which short runs see a sample
_ROUNDED = 1 / math.sqrt(12)  # of a step: the sd that rounding alone gives a feature; flagged two standard errors below
_NOTHING = 1e-300  # a weight whose log is finite
_SPREAD_ROWS = 50_000  # that the origin and the units of the moments are taken from


@dataclass(frozen=True, eq=False)
class Climber:
    """Climbs the likelihood of one table, or under priors the posterior density, from whatever moments it is given.

    Attributes
    ----------
    table : Observations
    labels : (N,) components of the rows, -1 where unknown; or empty
    center : (D,) of the table, from which the means of the moments are offset
    model : CovarianceModel
    problem : Problem
    """

    table: Observations
    labels: np.ndarray
    center: np.ndarray
    model: CovarianceModel
    problem: ascent.Problem

    def climb(self, moments: np.ndarray, row_weights: np.ndarray | None = None) -> tuple[ascent.Outcomes, ascent.State]:
        """Climb from each of the moments (S, size), with row weights (S, N) of their own where given."""
        weights = self.table.sample_weight[None] if row_weights is None else row_weights
        return ascent.climb(self._rows, weights, self.problem, moments, self._compiled)

    @cached_property
    def _rows(self) -> Rows:
        return self.table.rows(self.center, self.labels)

    @cached_property
    def _compiled(self) -> ascent.Compiled:
        return self.problem.compiled()

    def mixture(
        self, outcomes: ascent.Outcomes, which: Any, features: tuple[str, ...] | None = None
    ) -> GaussianMixture:
        """Where climbs ended, in the table's units: one of them by its number, or several as a batch."""
        weights, means = outcomes.weights[which], outcomes.offsets[which] + self.center
        rest = np.maximum(1 - weights.sum(axis=-1), 0.0) if self.problem.noise else None
        noise = self.table.noise if isinstance(self.table.noise, Noise) else None
        return GaussianMixture(weights, means, outcomes.covariances[which], features, rest, noise)

    @property
    def has_one_maximum(self) -> bool:
        """Whether every climb leads to the same maximum.

        That of one Gaussian, unless values are missing (Murray 1977) or there is noise; or where all rows are labelled.
        """
        if self.labels.size and self.labels.min() >= 0:
            return True
        K = self.problem.penalty.concentration.size
        return K == 1 and self.table.complete and self.table.noise is None

    @property
    def prefers_an_order(self) -> bool:
        """Whether priors tell components apart by their concentrations, and nothing else does."""
        known = self.labels.size or self.problem.fixed.has_weight.any() or self.problem.fixed.has_mean.any()
        concentration = self.problem.penalty.concentration
        return bool(np.ptp(concentration) > 0) and not known and not self.problem.fixed.has_covariance.any()

    def in_best_order(self, moments: np.ndarray) -> np.ndarray:
        """Moments (S, size) with the components in the order that the priors like best.

        The more concentrated weight goes to the larger component, since sums of products are largest then.
        """
        if not self.prefers_an_order:
            return moments
        (S, _), (K, D) = moments.shape, self.problem.fixed.offsets.shape
        parts = np.split(moments, [K, K + K * D], axis=1)
        rank = np.argsort(np.argsort(self.problem.penalty.concentration, kind="stable"))
        order = np.argsort(parts[0], axis=1, kind="stable")[:, rank]
        own = np.arange(S)[:, None]
        return np.concatenate([part.reshape(S, K, -1)[own, order].reshape(S, -1) for part in parts], axis=1)

    def limited(self, max_iterations: int) -> Climber:
        """The same climber with ``max_iterations``, unless it has fewer already."""
        fewer = min(max_iterations, self.problem.max_iterations)
        return replace(self, problem=self.problem._replace(max_iterations=fewer))

    @property
    def sample_size(self) -> int | None:
        """Number of rows that short runs over a long table see; None where they would see all of them."""
        N, D = self.table.values.shape
        n_rows = (_SHORT_ROWS[0] + _SHORT_ROWS[1] * D) * self.problem.penalty.concentration.size
        return n_rows if n_rows < N else None

    def short(self, rng: np.random.Generator) -> Climber:
        """The climber of short runs; of a long table it sees a sample of the rows."""
        table, n_rows = self.table, self.sample_size
        if n_rows is None:
            return self.limited(_SHORT)
        picked = np.sort(rng.choice(table.n_observations, n_rows, replace=False))
        weight = table.sample_weight if table.sample_weight.size == 1 else table.sample_weight[picked]
        scale = table.total_weight / (len(picked) if weight.size == 1 else weight.sum())
        labels = self.labels[picked] if self.labels.size else self.labels
        problem = self.limited(_SHORT).problem
        if problem.tolerance > 0:
            problem = problem._replace(tolerance=max(problem.tolerance, SHORT_TOLERANCE))
        sample = table.take(picked, weight * scale)
        return Climber(sample, labels, self.center, self.model, problem)

    def log_likelihood(self, mixture: GaussianMixture) -> tuple[float, float]:
        """Log-likelihood of the rows as points, and the sum of their largest log responsibilities, in nats."""
        offsets = mixture.means - self.center
        parameters = Parameters(mixture.log_scale, offsets, mixture.precisions_cholesky, mixture.log_noise_weight)
        rows = self.table.rows(self.center, self.labels)
        return expected_statistics(rows, parameters, self.model.diagonal, moments=False)[:2]

    def why_spurious(self, outcomes: ascent.Outcomes) -> list[str | None]:
        """Of each climb, which component makes its maximum spurious, and why; None if none does."""
        if self.problem.penalty.rows > 0:
            return [None] * len(outcomes.weights)  # priors keep the likelihood bounded
        counts, errors = self._least_counts(outcomes), self.table.least_errors
        observed = outcomes.covariances + (0.0 if errors is None else np.diag(errors))
        rounded = self._rounded(observed, outcomes, counts)
        few, singular, by_chance = np.zeros((3, *counts.shape), dtype=np.bool_)
        spurious, free = rounded.any(axis=2), ~self.problem.fixed.has_covariance
        if self.model.volume == "V":  # equal volumes keep the likelihood bounded
            D, width = self.table.n_features, widths(observed, outcomes.weights)
            few, singular = counts < D + 1, width < least_width(counts, D)
            spurious |= few | singular
            for i, k in np.argwhere((width < THIN) & ~spurious & free).tolist():
                if not (spurious[i, :k] & free[:k]).any():  # the first one is told of
                    by_chance[i, k] = spurious[i, k] = self._is_chance(outcomes, i, k, float(counts[i, k]))
        reasons = list[str | None]()
        for i, k in enumerate((spurious & free).argmax(axis=1).tolist()):
            if not (spurious[i, k] and free[k]):
                reasons.append(None)
            elif rounded[i, k].any():
                feature = self.table.features[int(rounded[i, k].argmax())]
                reasons.append(f"component {k} is narrower than the steps in which {feature!r} is recorded")
            elif few[i, k]:
                rows, least = f"{counts[i, k]:.1f} effective rows", self.table.n_features + 1
                reasons.append(f"component {k} holds {rows}, fewer than D + 1 = {least}")
            elif singular[i, k]:
                reasons.append(f"component {k} ({counts[i, k]:.1f} effective rows) has a near-singular covariance")
            else:
                near = f"among so many rows chance puts some {counts[i, k]:.1f} as close together"
                reasons.append(f"component {k} is thin, but {near}")
        return reasons

    def _rounded(self, observed: np.ndarray, outcomes: ascent.Outcomes, counts: np.ndarray) -> np.ndarray:
        """Which components are narrower in which features than rounding alone would make them, (S, K, D).

        The sd of a feature is that given all others, and counts if it is less than half the table's. Where the table's
        own is below rounding's, the feature shares its rounding with others, and nothing follows.
        """
        (S, K, D), offsets = outcomes.offsets.shape, outcomes.offsets
        share = outcomes.weights / outcomes.weights.sum(axis=1, keepdims=True)
        apart = offsets - np.einsum("sk,ski->si", share, offsets)[:, None]
        whole = np.einsum("sk,skij->sij", share, observed) + np.einsum("sk,ski,skj->sij", share, apart, apart)
        if self.model.diagonal:
            whole *= np.eye(D)
        all_of_them = np.concatenate((observed, whole[:, None]), axis=1).reshape(-1, D, D)
        precision = (precisions_cholesky(all_of_them)[0] ** 2).sum(axis=2).reshape(S, K + 1, D)
        own, of_whole = precision[:, :-1], precision[:, -1:]
        # the size rests on so many rows
        n_rows = np.maximum(counts if "V" in self.model.name[:2] else counts.sum(axis=1, keepdims=True), 1.0)
        sd = _ROUNDED * (1 - 2 / np.sqrt(2 * n_rows)).clip(0) * np.sqrt((1 - D / n_rows).clip(0))
        narrow = own * (sd[:, :, None] * self.table.resolution) ** 2 > 1
        shared = of_whole * (_ROUNDED * self.table.resolution) ** 2 > 1
        return narrow & ~shared & (4 * of_whole < own)

    def _is_chance(self, outcomes: ascent.Outcomes, i: int, k: int, n_rows: float) -> bool:
        """Whether some subset of the rows would be expected to gain as much as climb i's component k by chance alone.

        The gain is over the mixture in which it is merged with another one, whichever loses least, and over where a
        climb from there leads if it has no thin component. Labelled rows are not chosen.
        """
        weights, offsets, covariances = outcomes.weights[i], outcomes.offsets[i], outcomes.covariances[i]
        table, others = self.table, np.delete(np.arange(len(weights)), k)
        pair = weights[k] + weights[others]
        share, apart = weights[k] / np.maximum(pair, _NOTHING), offsets[k] - offsets[others]
        means = offsets[others] + share[:, None] * apart
        between = (share * (1 - share))[:, None, None] * apart[:, :, None] * apart[:, None]
        within = covariances[others] + share[:, None, None] * (covariances[k] - covariances[others])
        merged = self._log_joint(pair, means, within + between)
        joint, noise = self._log_joint(weights, offsets, covariances), np.full(len(merged), -np.inf)
        free = np.ones(len(joint), dtype=np.bool_)
        if self.labels.size:
            free = self.labels < 0
            known = self.labels[:, None]
            joint[(known >= 0) & (known != np.arange(len(weights)))] = -np.inf
            merged[(known >= 0) & (known != others) & (known != k)] = -np.inf
        if table.noise_density is not None:
            noise = np.where(free, math.log(max(1 - weights.sum(), _NOTHING)) + table.noise_density, -np.inf)
        whole = np.logaddexp(np.logaddexp.reduce(joint, axis=1), noise)[:, None]
        shares, kept = np.exp(joint - whole), np.ones((len(weights), len(others)))
        kept[k], kept[others, np.arange(len(others))] = 0.0, 0.0
        rest = shares @ kept + np.exp(noise[:, None] - whole)  # of all but the two that are merged
        with np.errstate(divide="ignore"):
            lost = -np.logaddexp(np.log(rest), merged - whole)
        weight = table.weight_of_rows * (self.problem.total / table.total_weight)
        losses = weight @ lost
        n_subsets = log_subsets(float(weight @ free), float((weight * free) @ shares[:, k]))

        def by_chance(gain: float) -> bool:
            return log_chance_subsets(n_rows, n_subsets, gain + n_subsets, table.n_features, self.model) > 0

        if by_chance(float(losses.min())):
            return True
        j = int(losses.argmin())
        fewer = [np.delete(part, k, axis=0) for part in (weights, offsets, covariances)]
        for part, value in zip(fewer, (pair, means, within + between), strict=True):
            part[j] = value[j]
        end = self._climbed_from(*fewer)
        if end is None:
            return False
        here, there = (self.log_likelihood(self.mixture(*at))[0] for at in ((outcomes, i), (end, 0)))
        return by_chance(self.problem.total / table.total_weight * (here - there))

    def _climbed_from(
        self, weights: np.ndarray, offsets: np.ndarray, covariances: np.ndarray
    ) -> ascent.Outcomes | None:
        """Where a climb over the table's rows from a mixture of fewer components leads.

        None where it degenerates, where it ends with a thin component, so that it says nothing of mixtures without one,
        and where rows are labelled or parts fixed.
        """
        problem, (K, D), former = self.problem, offsets.shape, len(self.problem.fixed.has_mean)
        if self.labels.size or any(given.any() for given in problem.fixed[::2]):
            return None
        units = np.split(problem.metric, [former, former + former * D])
        total = self.table.total_weight  # the problem's is that of all rows, where these are a sample
        fewer = problem._replace(
            total=total,
            metric=np.concatenate([unit[: len(unit) // former * K] for unit in units]),
            penalty=problem.penalty._replace(concentration=problem.penalty.concentration[:K]),
            fixed=ascent.Fixed(*(part[:K] for part in problem.fixed)),
        )
        moments = np.concatenate((weights * total, offsets.ravel(), covariances.ravel()))
        end = replace(self, problem=fewer).climb(moments[None])[0]
        if end.codes[0] == ascent.DEGENERATE or widths(end.covariances[0], end.weights[0]).min() < THIN:
            return None
        return end

    def _log_joint(self, weights: np.ndarray, offsets: np.ndarray, covariances: np.ndarray) -> np.ndarray:
        """Log weight plus log density (N, K) of components with these parameters at each row."""
        P, D = precisions_cholesky(covariances)[0], self.table.n_features
        log_scale = np.log(np.maximum(weights, _NOTHING)) + np.log(np.einsum("kjj->kj", P)).sum(axis=1)
        log_scale -= D / 2 * math.log(2 * math.pi)
        return log_joint(self.table.rows(self.center), Parameters(log_scale, offsets, P))

    def _least_counts(self, outcomes: ascent.Outcomes) -> np.ndarray:
        """Expected number of rows (S, K) of each component; with missing values, of those that a covariance rests on.

        That is the least number of rows with values of both of two columns.
        """
        if self.table.complete:
            return outcomes.moments[:, : outcomes.weights.shape[1]]
        patterns, least = self.table.missing_patterns, np.empty_like(outcomes.weights)
        weight = self.table.weight_of_rows * (self.problem.total / self.table.total_weight)
        known = (~self.table.missing[patterns.order[patterns.start[:-1]]]).astype(float)
        for i in range(len(least)):
            expected = self.mixture(outcomes, i).responsibilities(self.table) * weight[:, None]
            of_pattern = np.add.reduceat(expected[patterns.order], patterns.start[:-1])  # (n, K)
            if self.model.diagonal:
                least[i] = (of_pattern.T @ known).min(axis=1)
            else:
                least[i] = [(known.T @ (known * r[:, None])).min() for r in of_pattern.T]
        return least


def make_climber(
    table: Observations,
    model: CovarianceModel,
    K: int,
    labels: np.ndarray = NO_LABELS,
    fixed: Mapping[str, Any] | None = None,
    priors: Any = None,
    row_variance: np.ndarray | float = 0.0,
    tolerance: float = TOLERANCE,
    max_iterations: int = MAX_ITERATIONS,
) -> tuple[Climber, np.ndarray]:
    """The climber of a table, and the covariance (D, D) that set its units.

    Parameters
    ----------
    table, model, K
        What to fit, and how many components.
    labels : (N,) components, -1 where unknown; or empty
    fixed : mapping of "weights", "means", "covariances"; NaN for components that are free
    priors : Priors, optional
    row_variance : (D,) of the blob that each row counts as; zero where rows are points
    tolerance : nats that may be left to gain where a climb ends
    max_iterations : of a climb

    Raises
    ------
    InputError
        If columns are collinear, or the priors or fixed parts cannot be used.
    """
    if priors is None and not model.diagonal:
        _refuse_unpaired(table)
    center, spread = center_and_spread(table)
    row_variance = np.broadcast_to(np.asarray(row_variance, dtype=np.float64), center.shape)
    spread = spread + np.diag(row_variance)
    problem = ascent.Problem(
        model=model,
        total=table.total_weight,
        center=center,
        reference=_reference(spread, model, table.features, priors is not None),
        metric=metric(table.total_weight, spread, K),
        row_variance=row_variance,
        mean_error=table.mean_error,
        penalty=_penalty(priors, model, center, K),
        fixed=_fixed_parts(fixed, model, center, K, table.noise is not None),
        tolerance=tolerance,
        max_iterations=max_iterations,
        noise=table.noise is not None,
    )
    return Climber(table, labels, center, model, problem), spread


def _refuse_unpaired(table: Observations) -> None:
    """Refuse two columns that no row has values of both of: nothing says how they vary together."""
    if table.complete:
        return
    known = (~table.missing).astype(float)
    apart = np.argwhere(np.triu(known.T @ known == 0))
    if len(apart):
        i, j = apart[0]
        raise InputError(
            f"no row has values of both {table.features[i]!r} and {table.features[j]!r}, so that their correlation "
            "cannot be estimated; leave one out, give priors, or use covariance 'diag' or 'spherical'"
        )


def center_and_spread(table: Observations) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and covariance (D, D) that set origin and units; of a long table, those of evenly spaced rows."""
    step = table.n_observations // _SPREAD_ROWS
    if step > 1:
        weight = table.sample_weight if table.sample_weight.size == 1 else table.sample_weight[::step].copy()
        if weight.sum() > 0:
            center, spread = mean_and_covariance(table.take(np.arange(0, table.n_observations, step), weight))
            if precision_cholesky(spread, np.empty_like(spread)) > 1e-6:
                return center, spread
    return mean_and_covariance(table)


def _reference(spread: np.ndarray, model: CovarianceModel, features: tuple[str, ...], priors: bool) -> np.ndarray:
    """Diagonal of the precision factor of the data's covariance, against which a component's collapse is judged."""
    P = np.empty_like(spread)
    scales = 1 / np.sqrt(np.diag(spread))
    if model.diagonal:
        return scales
    if precision_cholesky(spread, P) > 1e-13:
        return np.diag(P).copy()
    if priors:
        return scales
    first = first_dependent(spread)
    assert first is not None
    raise InputError(
        f"column {features[first]!r} is a linear combination of the columns before it, so that no covariance "
        f"{model.name} can be estimated; leave it out, give priors, or use covariance 'diag' or 'spherical'"
    )


def metric(total: float, spread: np.ndarray, K: int) -> np.ndarray:
    """Units in which the residuals of the moments are comparable: shares of rows, and the data's sds."""
    scale = np.sqrt(np.diag(spread))
    return np.concatenate(
        (np.full(K, 1 / total), np.tile(1 / scale, K), np.tile((1 / np.outer(scale, scale)).ravel(), K))
    )


def _penalty(priors: Any, model: CovarianceModel, center: np.ndarray, K: int) -> ascent.Penalty:
    """The priors as the M-step sees them; without priors, everything is zero and leaves the likelihood alone."""
    D = len(center)
    if priors is None:
        return ascent.Penalty(
            np.zeros(K), np.zeros(D), np.zeros((D, D)), 0.0, np.zeros((D, D)), 0.0, np.eye(D), np.zeros((D, D)), 0.0
        )
    if not hasattr(priors, "concentration"):
        raise InputError(f"priors must be a Priors value, as Priors.weakly_informative gives, not {priors!r}")
    if not hasattr(priors.covariances, "equivalent_data"):
        raise InputError(
            f"EM maximises under inverse-Wishart priors of the covariances only, not {priors.covariances.title} ones; "
            "fit without priors, and give them to sample_posterior"
        )
    priors = priors.for_components(K)
    if (priors.n_components, priors.n_features) != (K, D):
        raise InputError(
            f"the priors are for {priors.n_components} components and {priors.n_features} features, not {K} and {D}"
        )
    rows, scatter = priors.covariances.equivalent_data(model)
    degrees, scale = priors.covariances.equivalent_data_of_scale(model, K)
    factor = np.empty_like(scale)
    precision_cholesky(scale, factor)
    return ascent.Penalty(
        concentration=priors.concentration - 1,
        location=priors.means.location - center,
        precision=priors.means.precision,
        rows=float(rows),
        scatter=scatter,
        degrees=float(degrees),
        scale_precision=factor @ factor.T,
        floor=priors.covariances.floor * scatter,
        noise=priors.noise_concentration - 1,
    )


def _fixed_parts(
    fixed: Mapping[str, Any] | None, model: CovarianceModel, center: np.ndarray, K: int, noise: bool
) -> ascent.Fixed:
    """The parts that stay as given, means as offsets from the center."""
    D = len(center)
    shapes = {"weights": (K,), "means": (K, D), "covariances": (K, D, D)}
    flags, values = {}, {}
    fixed = fixed or {}
    if unknown := set(fixed) - set(shapes):
        raise InputError(f"fixed has no part {sorted(unknown)[0]!r}; use weights, means, covariances")
    for name, shape in shapes.items():
        value = np.array(fixed.get(name, np.full(shape, np.nan)), dtype=np.float64)
        if value.shape != shape:
            raise InputError(f"fixed {name} have shape {value.shape}, not {shape} (NaN for what is free)")
        flags[name] = ~np.isnan(value).reshape(K, -1).any(axis=1)
        values[name] = np.nan_to_num(value)
    weights = values["weights"][flags["weights"]]
    one = flags["weights"].all() and not noise
    if (weights <= 0).any() or weights.sum() > 1 + 1e-9 or (one and abs(weights.sum() - 1) > 1e-6):
        raise InputError("fixed weights must be positive and sum to one, or to less where others or noise are free")
    has_covariance = flags["covariances"]
    if has_covariance.any() and not has_covariance.all() and "E" in model.name:
        raise InputError(f"single covariances cannot be fixed in {model.name}, whose components share parts of them")
    for k in np.flatnonzero(has_covariance):
        if not precision_cholesky(values["covariances"][k], np.empty((D, D))) > 0:
            raise InputError(f"the fixed covariance of component {k} is not positive definite")
    return ascent.Fixed(
        has_weight=flags["weights"],
        weights=values["weights"],
        has_mean=flags["means"],
        offsets=values["means"] - center,
        has_covariance=has_covariance,
        covariances=values["covariances"],
    )
