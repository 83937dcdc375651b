"""How well two partitions of the same rows agree; and how well the posterior agrees with known labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bayesgmm.clusters.rows_under_draws import rows_under_draws
from bayesgmm.errors import InputError
from bayesgmm.intervals import level, tails


def adjusted_rand(a: Any, b: Any) -> float:
    """Adjusted Rand index of two labellings (N,): 1 for the same partition, 0 on average for unrelated ones.

    Parameters
    ----------
    a, b : (N,)
        Labels: numbers or text.

    Raises
    ------
    InputError
        If they are not one label for each of the same rows.

    References
    ----------
    Hubert & Arabie (1985), Journal of Classification 2, 193-218. doi:10.1007/BF01908075

    Examples
    --------
    >>> import bayesgmm as bg
    >>> bg.adjusted_rand([0, 0, 1, 1], ["b", "b", "a", "a"])
    1.0
    """
    return float(_adjusted_rand(_table(a, b)))


def variation_of_information(a: Any, b: Any) -> float:
    """Variation of information of two labellings (N,) in nats: 0 for the same partition, log N at most.

    What each labelling says about a row that the other does not, H(a | b) + H(b | a); a metric.

    Parameters
    ----------
    a, b : (N,)
        Labels: numbers or text.

    Raises
    ------
    InputError
        If they are not one label for each of the same rows.

    References
    ----------
    Meilă (2007), Journal of Multivariate Analysis 98, 873-895. doi:10.1016/j.jmva.2006.11.013

    Examples
    --------
    >>> import bayesgmm as bg
    >>> round(bg.variation_of_information([0, 0, 1, 1], [0, 1, 0, 1]), 4)
    1.3863
    """
    return float(_variation_of_information(_table(a, b)))


def misclassification(a: Any, b: Any) -> float:
    """Share of rows on which two labellings (N,) differ under the best one-to-one matching of their clusters.

    Rows of a cluster that is left without a partner count as wrong.

    Parameters
    ----------
    a, b : (N,)
        Labels: numbers or text.

    Raises
    ------
    InputError
        If they are not one label for each of the same rows.

    References
    ----------
    Meilă & Heckerman (2001), Machine Learning 42, 9-29.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> bg.misclassification([0, 0, 1, 1], ["b", "b", "b", "a"])
    0.25
    """
    return float(_misclassification(_table(a, b)))


@dataclass(frozen=True, slots=True)
class Score:
    """A score of the point labels, and of the partitions drawn from the posterior.

    Attributes
    ----------
    point : float
        Score of the point labels.
    mean, lower, upper : float
        Posterior mean of the score and its equal-tailed interval.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> tree = bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), method="laplace", rng=0)
    >>> score = bg.partition_scores(tree, X["eruptions"] > 3, rng=0).adjusted_rand
    >>> score.point, score.lower > 0.98
    (1.0, True)
    """

    point: float
    mean: float
    lower: float
    upper: float


@dataclass(frozen=True, slots=True)
class PartitionScores:
    """Agreement with known labels.

    Attributes
    ----------
    adjusted_rand, variation_of_information, misclassification : Score
    ci_prob : float
        Probability of the intervals.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> tree = bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), method="laplace", rng=0)
    >>> scores = bg.partition_scores(tree, X["eruptions"] > 3, rng=0)
    >>> scores.adjusted_rand.point, scores.misclassification.point
    (1.0, 0.0)
    """

    adjusted_rand: Score
    variation_of_information: Score
    misclassification: Score
    ci_prob: float


def partition_scores(
    posterior: Any, labels: Any, X: Any = None, *, point: Any = None, ci_prob: float | None = None, rng: Any = None
) -> PartitionScores:
    """How well the clusters agree with known labels, with posterior uncertainty.

    Parameters
    ----------
    posterior : DataTree, Posterior or GaussianMixture
        From `sample_posterior`, or a mixture whose batch axes are the draws; relabelled or not.
    labels : (N,)
        Known classes: numbers or text.
    X : (N, D) table, optional
        Rows that the labels are of; by default those the posterior was fitted to.
    point : (N,), optional
        Labels to score as the point estimate, such as ``partition(tree).labels``; by default each row's most probable
        component.
    ci_prob : float, optional
        Probability of the equal-tailed intervals; ``arviz.rcParams["stats.ci_prob"]`` by default.
    rng : Generator, seed or None
        For drawing one assignment of all rows from each posterior draw.

    Returns
    -------
    PartitionScores

    Raises
    ------
    InputError
        If the labels are not one for each row.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> tree = bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), draws=500, chains=2, rng=0)
    >>> scores = bg.partition_scores(tree, X["eruptions"] > 3, rng=0)
    >>> scores.misclassification.point, scores.misclassification.upper < 0.01
    (0.0, True)
    """
    ci_prob = level(ci_prob)
    draws = rows_under_draws(posterior, X)
    N, K = draws.n_rows, draws.n_groups
    classes, C = label_codes(labels, "labels")
    if len(classes) != N:
        raise InputError(f"there are {len(classes)} labels for {N} rows")
    if point is None:
        point = draws.point_labels()
    best = _table(point, classes)
    z = draws.assignments(np.random.default_rng(rng))
    tables = np.empty((draws.n_draws, K, C))
    for s in range(draws.n_draws):
        tables[s] = np.bincount(z[:, s] * np.int64(C) + classes, minlength=K * C).reshape(K, C)

    def score(function: Any) -> Score:
        values = function(tables)
        lower, upper = np.quantile(values, tails(ci_prob))
        return Score(float(function(best)), float(values.mean()), float(lower), float(upper))

    return PartitionScores(
        score(_adjusted_rand), score(_variation_of_information), score(_misclassification), ci_prob=ci_prob
    )


def label_codes(labels: Any, name: str) -> tuple[np.ndarray, int]:
    """Labels as integers 0, 1, ..., and how many there are."""
    values = np.asarray(labels)
    if values.ndim != 1 or not values.size:
        raise InputError(f"{name} must be one label for each row, (N,); got shape {values.shape}")
    missing = values != values if values.dtype.kind in "fO" else np.zeros(values.shape, bool)
    missing = missing | np.array([v is None for v in values]) if values.dtype.kind == "O" else missing
    if np.any(missing):
        raise InputError(f"{name} has no label for row {np.flatnonzero(missing)[0]}")
    values = values.astype(str) if values.dtype.kind == "O" else values
    distinct, codes = np.unique(values, return_inverse=True)
    return codes, len(distinct)


def _table(a: Any, b: Any) -> np.ndarray:
    """Contingency table of two labellings."""
    (a, A), (b, B) = label_codes(a, "the first labelling"), label_codes(b, "the second labelling")
    if len(a) != len(b):
        raise InputError(f"the labellings are of {len(a)} and {len(b)} rows; both must be of the same")
    return np.bincount(a * B + b, minlength=A * B).reshape(A, B).astype(float)


def _adjusted_rand(table: np.ndarray) -> np.ndarray:
    """Of tables (..., A, B)."""

    def pairs(n: np.ndarray) -> np.ndarray:
        return n * (n - 1) / 2

    both = pairs(table).sum(axis=(-2, -1))
    a, b = pairs(table.sum(axis=-1)).sum(axis=-1), pairs(table.sum(axis=-2)).sum(axis=-1)
    total = np.maximum(pairs(table.sum(axis=(-2, -1))), 1)
    chance, most = a * b / total, (a + b) / 2
    same = most == chance  # both all in one cluster or both all apart: the partitions are equal
    return np.where(same, 1.0, (both - chance) / np.where(same, 1.0, most - chance))


def _variation_of_information(table: np.ndarray) -> np.ndarray:
    """Of tables (..., A, B), in nats."""
    p = table / table.sum(axis=(-2, -1), keepdims=True)
    both, a, b = _negentropy(p).sum(axis=-1), _negentropy(p.sum(axis=-1)), _negentropy(p.sum(axis=-2))
    return np.maximum(a + b - 2 * both, 0.0)


def _negentropy(p: np.ndarray) -> np.ndarray:
    """Sum of p log p over the last axis."""
    return (p * np.log(np.where(p > 0, p, 1.0))).sum(axis=-1)


def _misclassification(table: np.ndarray) -> np.ndarray:
    """Of tables (..., A, B)."""
    from scipy.optimize import linear_sum_assignment

    flat = table.reshape(-1, *table.shape[-2:])
    matched = np.array([t[linear_sum_assignment(t, maximize=True)].sum() for t in flat])
    return 1 - matched.reshape(table.shape[:-2]) / table.sum(axis=(-2, -1))
