"""Which component a row belongs to, averaged over the posterior, with intervals and the kinds of doubt told apart."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesgmm.bayes.posterior import posterior as as_posterior
from bayesgmm.clusters.partition import Partition
from bayesgmm.clusters.rows_under_draws import Block, RowsUnderDraws, log_mean_exp, rows_under_draws
from bayesgmm.clusters.shares import by_cluster, cluster_counts, shares
from bayesgmm.intervals import level, tails
from bayesgmm.names import counted
from bayesgmm.observations import measured

if TYPE_CHECKING:
    import pandas as pd

_PREDICTIVE_ROWS = 10_000  # drawn from the posterior predictive: tail probabilities have an sd of at most 0.005
_FEWEST_PREDICTIVE_ROWS = 1000  # to compare with rows that share their missing values and errors
_FEWEST_DRAWS = 64


@dataclass(frozen=True, slots=True, eq=False)
class Assignments:
    """Posterior assignment of rows to components, or to the clusters of a partition in their place.

    Attributes
    ----------
    probabilities : (N, K)
        Responsibilities averaged over the posterior draws; rows sum to one, or with noise to 1 - ``noise``.
    lower, upper : (N, K)
        Equal-tailed credible interval of each responsibility, of probability ``ci_prob``.
    labels : (N,)
        Label of the most probable component or cluster, -1 where a row is more probably noise; for the partition's own
        rows, the cluster that they are in.
    label_probability, label_lower, label_upper : (N,)
        Probability of that component or cluster, or of noise, and its interval.
    entropy : (N,)
        Entropy of ``probabilities`` in nats: the whole uncertainty about a row's assignment.
    overlap : (N,)
        The part of ``entropy`` that would remain if the parameters were known, because components overlap.
    mutual_information : (N,)
        The part of ``entropy`` that comes from not knowing the parameters; more rows would reduce it.
    log_prob : (N,)
        Log posterior-predictive density of the row, in nats.
    tail_probability : (N,)
        Probability that a new row from the posterior predictive has no higher density than this one: near zero for an
        outlier. NaN where the noise has a density only at given rows, so that no new rows can be drawn.
    ci_prob : float
    partition : Partition or None
        The partition whose clusters take the place of the components, if one was given to `assign`.
    noise, noise_lower, noise_upper : (N,) or None
        Probability that the row belongs to no component, and its interval; None where the draws have no noise.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> tree = bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), method="laplace", rng=0)
    >>> assignments = bg.assign(tree, rng=0)
    >>> assignments
    Assignments(272 rows to 2 components, ci_prob=0.89)
    >>> assignments.labels[:4], int((assignments.label_probability < 0.9).sum())
    (array([1, 0, 1, 0]), 1)
    """

    probabilities: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    labels: np.ndarray
    entropy: np.ndarray
    overlap: np.ndarray
    mutual_information: np.ndarray
    log_prob: np.ndarray
    tail_probability: np.ndarray
    ci_prob: float
    partition: Partition | None = None
    noise: np.ndarray | None = None
    noise_lower: np.ndarray | None = None
    noise_upper: np.ndarray | None = None

    def __repr__(self) -> str:
        N, K = self.probabilities.shape
        return f"Assignments({N} rows to {counted(K, self.group)}, ci_prob={self.ci_prob:g})"

    @property
    def group(self) -> str:
        """What rows are assigned to: "component" or "cluster"."""
        return "component" if self.partition is None else "cluster"

    @property
    def label_probability(self) -> np.ndarray:
        """Probability of each row's label, (N,)."""
        return self._of_label(self.probabilities, self.noise)

    @property
    def label_lower(self) -> np.ndarray:
        """Lower end of its interval, (N,)."""
        return self._of_label(self.lower, self.noise_lower)

    @property
    def label_upper(self) -> np.ndarray:
        """Upper end of its interval, (N,)."""
        return self._of_label(self.upper, self.noise_upper)

    def to_dataframe(self) -> pd.DataFrame:
        """The results for each row, one line per row.

        Returns
        -------
        DataFrame
            Columns ``label``, its ``probability`` with ``lower`` and ``upper``, ``probability_0``, ``probability_1``,
            ..., ``lower_0``, ..., ``upper_0``, ..., ``entropy``, ``overlap``, ``mutual_information``, ``log_prob``,
            ``tail_probability``; with noise also ``noise``, ``noise_lower``, ``noise_upper``.
        """
        import pandas as pd

        names = ["entropy", "overlap", "mutual_information", "log_prob", "tail_probability"]
        names += ["noise", "noise_lower", "noise_upper"] if self.noise is not None else []
        label = {
            "label": self.labels,
            "probability": self.label_probability,
            "lower": self.label_lower,
            "upper": self.label_upper,
        }
        parts = {"probability": self.probabilities, "lower": self.lower, "upper": self.upper}
        each = {f"{name}_{k}": column for name, values in parts.items() for k, column in enumerate(values.T)}
        return pd.DataFrame(label | each | {name: getattr(self, name) for name in names})

    def _of_label(self, values: np.ndarray, noise: np.ndarray | None) -> np.ndarray:
        if noise is not None:
            values = np.column_stack((values, noise))  # the label -1 is its last column
        return values[np.arange(len(values)), self.labels]


def assign(
    posterior: Any,
    X_new: Any = None,
    ci_prob: float | None = None,
    *,
    error_sd: Any = None,
    error_covariance: Any = None,
    noise: Any = None,
    partition: Partition | None = None,
    rng: Any = None,
) -> Assignments:
    """Assign rows to components, or to the clusters of a partition, with the posterior's uncertainty.

    Parameters
    ----------
    posterior : DataTree, Posterior or GaussianMixture
        From `sample_posterior`, or a mixture whose batch axes are the draws.
    X_new : (N, D) table, optional
        Rows to assign, with missing values or without; by default those the posterior was fitted to.
    ci_prob : float, optional
        Probability of the equal-tailed intervals; ``arviz.rcParams["stats.ci_prob"]`` by default.
    error_sd : (D,) or (N, D), optional
        Standard deviations of the errors that the values of ``X_new`` were measured with.
    error_covariance : (D, D) or (N, D, D), optional
        Their covariances, instead.
    noise : (N,), optional
        Log density of the noise at each row of ``X_new``, in nats, where the fit was made with one at its rows.
    partition : Partition, optional
        From `partition`, of the rows the posterior was fitted to (of ``X_new`` where the draws are a mixture): assigns
        to its clusters. Use it where the draws do not keep the components apart.
    rng : Generator, seed or None
        For the rows drawn from the posterior predictive to estimate tail probabilities.

    Returns
    -------
    Assignments

    Raises
    ------
    InputError
        If the rows cannot be used, a mixture is given without rows, or the partition is of other rows.

    Notes
    -----
    Under one draw the probability that row i belongs with cluster c is sum_k r_ik N_ck / N_k, with N_ck the sum of the
    responsibilities r_jk over the rows of the cluster and N_k that over all rows: the expected share of the rows of its
    component that lie in the cluster. It does not depend on the components' labels.

    The entropy of the averaged probabilities splits into the expected entropy of the responsibilities (overlap) and the
    mutual information of assignment and parameters (Depeweg et al. 2018).

    Tail probabilities compare the row with 10 000 rows drawn from the posterior predictive: rank (1 + number with no
    higher density) / 10 001, with a standard error of sqrt(p (1 - p) / 10 000). Rows that the posterior was fitted to
    have raised their own density, so their tail probabilities are a little too large. Rows with missing values or
    errors are compared with new rows that lack the same values and have the same errors. Where many such patterns would
    take long, there are fewer of these (1000 at least), and fewer of the draws (64 at least).

    A row without any value has the weights as responsibilities, and the tail probability one.

    Rows are processed in blocks, so memory stays bounded for any N.

    References
    ----------
    Depeweg, Hernández-Lobato, Doshi-Velez & Udluft (2018), Decomposition of uncertainty in Bayesian deep learning.
    Proceedings of Machine Learning Research 80, 1184-1193.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> tree = bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), draws=500, chains=2, rng=0)
    >>> a = bg.assign(tree, [[2.0, 55.0], [4.3, 80.0], [5.0, 40.0]], rng=0)
    >>> a.labels, a.tail_probability < 0.001
    (array([0, 1, 1]), array([False, False,  True]))
    """
    ci_prob = level(ci_prob)
    draws = rows_under_draws(posterior, X_new, error_sd, error_covariance, noise)
    share = None
    if partition is not None:
        fitted = draws if X_new is None or as_posterior(posterior).table is None else rows_under_draws(posterior)
        share = shares(cluster_counts(fitted, partition))
    N, K = draws.n_rows, draws.mixture.n_components if partition is None else partition.n_clusters
    probabilities, lower, upper = np.empty((N, K)), np.empty((N, K)), np.empty((N, K))
    overlap, log_prob, of_noise = np.empty(N), np.empty(N), np.zeros((3, N))
    noisy = draws.log_noise is not None
    free = K if K != 2 or noisy else 1  # of two components the second's interval mirrors the first's

    def task(rows: np.ndarray, block: Block) -> None:
        R, H = block.responsibilities, block.entropy
        if share is not None:
            R = by_cluster(R, share)
            H = _entropy(R, axis=1)
            if block.noise is not None:
                H += _entropy(block.noise[:, None], axis=1)
        if block.noise is not None:
            of_noise[0, rows] = block.noise.mean(axis=-1)
            of_noise[1:, rows] = equal_tailed(block.noise.copy(), ci_prob)
        probabilities[rows] = R.mean(axis=-1)
        overlap[rows] = H.mean(axis=-1)
        log_prob[rows] = log_mean_exp(block.log_prob)
        lower[rows, :free], upper[rows, :free] = equal_tailed(R[:, :free], ci_prob)

    draws.each_block(task)
    if free < K:
        lower[:, 1], upper[:, 1] = 1 - upper[:, 0], 1 - lower[:, 0]
    shown = np.column_stack((probabilities, of_noise[0])) if noisy else probabilities
    entropy, labels = _entropy(shown), shown.argmax(axis=1)
    labels[labels == K] = -1
    return Assignments(
        probabilities=probabilities,
        lower=lower,
        upper=upper,
        labels=labels if partition is None or fitted is not draws else partition.labels,
        entropy=entropy,
        overlap=np.minimum(overlap, entropy),
        mutual_information=np.maximum(entropy - overlap, 0.0),
        log_prob=log_prob,
        tail_probability=_tail_probability(draws, log_prob, np.random.default_rng(rng)),
        ci_prob=ci_prob,
        partition=partition,
        **(dict(zip(("noise", "noise_lower", "noise_upper"), of_noise, strict=True)) if noisy else {}),
    )


def equal_tailed(values: np.ndarray, ci_prob: float) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the equal-tailed interval over the last axis, whose entries are reordered in place.

    As `numpy.quantile`, which is an order of magnitude slower: one selection for each end, and the neighbours to
    interpolate with are a minimum and a maximum of what the selections have set apart.
    """
    n = values.shape[-1]
    position = (n - 1) * (1 + ci_prob) / 2
    above = min(int(position), n - 2)
    below = n - 1 - above  # the mirror image: the lower end lies between entries below - 1 and below
    if below > above:  # a handful of draws
        lower, upper = np.quantile(values, tails(ci_prob), axis=-1)
        return lower, upper
    values.partition(above, axis=-1)
    share, top = position - above, values[..., above].copy()
    upper = top + share * (values[..., above + 1 :].min(axis=-1) - top)
    rest = values[..., : above + 1]
    rest.partition(below, axis=-1)
    bottom = rest[..., below].copy()
    return bottom + share * (rest[..., :below].max(axis=-1) - bottom), upper


def _tail_probability(draws: RowsUnderDraws, log_prob: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rank of each density among those of rows drawn from the posterior predictive, of the values that the row has."""
    if draws.log_noise is not None and draws.mixture.noise is None:
        return np.full(draws.n_rows, np.nan)
    drawn, groups, D = _predictive_rows(draws, rng), draws.groups, draws.mixture.n_features
    present = [g for g in np.unique(groups.of_row).tolist() if len(groups[g][0])]
    complete = [g for g in present if draws.table.errors is None and len(groups[g][0]) == D]
    others = [g for g in present if g not in complete]
    out = np.ones(draws.n_rows)

    def rank(some: list[int], draws: RowsUnderDraws, log_prob: np.ndarray, drawn: np.ndarray) -> None:
        for g in some:
            new = replace(draws, table=measured(drawn, *groups[g], rng))
            rows = np.flatnonzero(groups.of_row == g)
            rank = np.searchsorted(np.sort(new.log_predictive()), log_prob[rows], side="right")
            out[rows] = (1 + rank) / (1 + len(drawn))

    rank(complete, draws, log_prob, drawn)
    if others:  # take about as long as complete rows
        thinned = draws.thinned(max(min(len(others), draws.n_draws // _FEWEST_DRAWS), 1))
        affordable = _PREDICTIVE_ROWS * draws.n_draws // (len(others) * thinned.n_draws)
        some = drawn[:: _PREDICTIVE_ROWS // min(max(affordable, _FEWEST_PREDICTIVE_ROWS), _PREDICTIVE_ROWS)]
        rank(others, thinned, log_prob if len(others) == 1 else thinned.log_predictive(), some)
    return out


def _predictive_rows(draws: RowsUnderDraws, rng: np.random.Generator) -> np.ndarray:
    """Rows drawn from the posterior predictive, evenly over the draws and in their order."""
    S, D = draws.n_draws, draws.mixture.n_features
    s = np.arange(_PREDICTIVE_ROWS) * S // _PREDICTIVE_ROWS
    edges = np.cumsum(draws.mixture.weights[s, : draws.n_groups - 1], axis=1)
    group = (rng.random((_PREDICTIVE_ROWS, 1)) > edges).sum(axis=1)
    k = np.minimum(group, draws.mixture.n_components - 1)
    factor = np.linalg.cholesky(draws.mixture.covariances[s, k])
    deviates = rng.standard_normal((_PREDICTIVE_ROWS, D))
    rows = draws.mixture.means[s, k] + np.einsum("nij,nj->ni", factor, deviates)
    outside = group > k
    if draws.mixture.noise is not None:
        rows[outside] = draws.mixture.noise.sample((int(outside.sum()),), rng)
    return rows


def _entropy(p: np.ndarray, axis: int = -1) -> np.ndarray:
    """Entropy in nats over an axis."""
    return -(p * np.log(np.maximum(p, 1e-300))).sum(axis=axis)


def filled_components(posterior: Any, X: Any = None, *, rng: Any = None) -> np.ndarray:
    """Posterior probability (K + 1,) that 0, 1, ..., K components hold at least one of the rows.

    Estimated from one assignment of all rows for each posterior draw. Under a prior of sparse weights (a concentration
    well below one) this is the posterior of the number of clusters (Malsiner-Walli, Frühwirth-Schnatter & Grün 2016).

    Parameters
    ----------
    posterior : DataTree, Posterior or GaussianMixture
        From `sample_posterior`, or a mixture whose batch axes are the draws.
    X : (N, D) table, optional
        The rows; needed with a mixture.
    rng : Generator, seed or None

    Returns
    -------
    (K + 1,) array
        They sum to one.

    Raises
    ------
    InputError
        If the rows cannot be used, or a mixture is given without rows.

    References
    ----------
    Malsiner-Walli, Frühwirth-Schnatter & Grün (2016), Statistics and Computing 26, 303-324.
    doi:10.1007/s11222-014-9500-2

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> tree = bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), draws=500, chains=2, rng=0)
    >>> bg.filled_components(tree, rng=0)
    array([0., 0., 1.])
    """
    draws = rows_under_draws(posterior, X)
    assigned = draws.assignments(np.random.default_rng(rng))
    K = draws.mixture.n_components
    present = np.stack([(assigned == k).any(axis=0) for k in range(K)])
    return np.bincount(present.sum(axis=0), minlength=K + 1) / draws.n_draws
