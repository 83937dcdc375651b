"""Which component a row belongs to, averaged over the posterior, with intervals and the kinds of doubt told apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bayesgmm.errors import InputError
from bayesgmm.mixture import GaussianMixture
from bayesgmm.observations import numeric_table

_BLOCK_BYTES = 64e6  # of responsibilities held at a time


@dataclass(frozen=True, slots=True, eq=False)
class Assignments:
    """Posterior assignment of rows to components.

    Attributes
    ----------
    probabilities : (N, K)
        Responsibilities averaged over the posterior draws; rows sum to one.
    lower, upper : (N, K)
        Equal-tailed credible interval of each responsibility, of probability ``ci_prob``.
    labels : (N,)
        Most probable component.
    entropy : (N,)
        Of ``probabilities``, in nats: all the doubt about a row.
    mutual_information : (N,)
        The part of it that comes from not knowing the parameters; the rest is overlap of the components.
    ci_prob : float
    """

    probabilities: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    labels: np.ndarray
    entropy: np.ndarray
    mutual_information: np.ndarray
    ci_prob: float


def assign(tree: Any, X_new: Any = None, ci_prob: float = 0.89) -> Assignments:
    """Assign rows to components with the posterior's uncertainty.

    Parameters
    ----------
    tree : DataTree or GaussianMixture
        From `sample_posterior`, or a mixture whose batch axes are the draws.
    X_new : (N, D) table, optional
        Rows to assign; by default those the posterior was fitted to.
    ci_prob : float
        Probability of the equal-tailed intervals.

    Returns
    -------
    Assignments

    Raises
    ------
    InputError
        If the rows cannot be used, or a mixture is given without rows.

    Notes
    -----
    The entropy of the averaged probabilities splits into the expected entropy of the responsibilities and the mutual
    information of assignment and parameters (Depeweg et al. 2018). Rows are worked in blocks, so that memory stays
    bounded whatever N.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> tree = bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), draws=500, chains=2, rng=0)
    >>> bg.assign(tree, [[2.0, 55.0], [4.3, 80.0]]).labels
    array([0, 1])
    """
    if not 0 < ci_prob < 1:
        raise InputError(f"ci_prob must be between 0 and 1, not {ci_prob!r}")
    if hasattr(tree, "mixture"):
        raise InputError("assign needs posterior draws; for an EM fit alone use fit.mixture.responsibilities(X)")
    if isinstance(tree, GaussianMixture):
        draws = tree
        if X_new is None:
            raise InputError("assign(mixture) needs the rows to assign as its second argument")
    else:
        draws = GaussianMixture(
            **{name: tree["posterior"][name].values for name in ("weights", "means", "covariances")}
        )
    X, names = numeric_table(tree["observed_data"]["observations"].values if X_new is None else X_new)
    if hasattr(X_new, "columns"):
        expected = [str(name) for name in tree["posterior"]["feature"].values] if tree is not draws else list(names)
        if list(names) != expected:
            raise InputError(f"the columns {list(names)} are not those that were fitted, {expected}")
    N, K = len(X), draws.n_components
    n_draws = int(np.prod(draws.batch_shape))
    block = max(int(_BLOCK_BYTES / (8 * n_draws * K)), 1)
    probabilities, lower, upper = np.empty((N, K)), np.empty((N, K)), np.empty((N, K))
    entropy, overlap = np.empty(N), np.empty(N)
    tails = [(1 - ci_prob) / 2, (1 + ci_prob) / 2]
    for start in range(0, N, block):
        rows = slice(start, start + block)
        R = draws.responsibilities(X[rows]).reshape(n_draws, -1, K)
        probabilities[rows] = R.mean(axis=0)
        entropy[rows] = _entropy(probabilities[rows])
        overlap[rows] = _entropy(R).mean(axis=0)
        lower[rows], upper[rows] = np.quantile(R, tails, axis=0, overwrite_input=True)
    return Assignments(
        probabilities=probabilities,
        lower=lower,
        upper=upper,
        labels=probabilities.argmax(axis=1),
        entropy=entropy,
        mutual_information=np.maximum(entropy - overlap, 0.0),
        ci_prob=ci_prob,
    )


def _entropy(p: np.ndarray) -> np.ndarray:
    """Entropy in nats over the last axis."""
    return -(p * np.log(np.maximum(p, 1e-300))).sum(axis=-1)
