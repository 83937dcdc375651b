"""How good an approximation of a posterior is, by the tail of its draws' importance weights."""

from __future__ import annotations

import math

import numpy as np

from bayesgmm.bayes.verdict import Convergence, Verdict


def judged(name: str, log_ratio: np.ndarray, least_share: float = 0.0) -> tuple[np.ndarray, Verdict]:
    """Smoothed log importance weights of draws, and whether to trust the approximation that they are from.

    Parameters
    ----------
    name : str
        Of the approximation.
    log_ratio : (chain, draw)
        Log of the posterior's density over the approximation's, up to a constant, nats.
    least_share : float
        The weighted draws' effective sample size, as a share of their number, that the approximation needs as well.

    Notes
    -----
    The Pareto k of the weights must be below 0.7, or below what so many draws can tell (Vehtari et al. 2024). It knows
    nothing of modes that the approximation does not reach.

    References
    ----------
    Vehtari, A., Simpson, D., Gelman, A., Yao, Y., & Gabry, J. (2024). Pareto smoothed importance sampling. Journal of
    Machine Learning Research, 25(72), 1-58.
    """
    from arviz_stats.base import array_stats  # type: ignore[attr-defined]

    log_weight, pareto_k = array_stats.psislw(-log_ratio.ravel(), axis=-1)  # it takes the ratios' inverses
    weight = np.exp(log_weight - log_weight.max())
    share = weight.sum() ** 2 / (weight**2).sum() / log_ratio.size
    largest = min(1 - 1 / math.log10(max(log_ratio.size, 11)), 0.7)
    good = pareto_k < largest and share >= least_share
    if good:
        text = f"{name} is good: its Pareto k is {float(pareto_k):.2f}, below {largest:.2f}."
    elif pareto_k < largest:
        text = f"{name} is not to be trusted: by their importance weights its draws are worth {share:.0%} of their "
        text += f"number, below {least_share:.0%}."
    else:
        text = f"{name} is not to be trusted: its importance weights' Pareto k is {float(pareto_k):.2f}, not below "
        text += f"{largest:.2f}."
    convergence = Convergence.APPROXIMATION_GOOD if good else Convergence.APPROXIMATION_POOR
    return np.reshape(log_weight, log_ratio.shape), Verdict(
        convergence, text if good else f"{text} Sample with method='nuts'."
    )
