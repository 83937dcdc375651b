"""How good an approximation of a posterior is, by the tail of its draws' importance weights."""

from __future__ import annotations

import math

import numpy as np

from bayesgmm.bayes.verdict import Convergence, Verdict

_CLOSE = 0.1  # nats: where the log ratio's standard deviation is smaller, its tail does not matter
_NUTS = "Sample with method='nuts'."


def judged(
    name: str, log_ratio: np.ndarray, least_share: float = 0.0, widest: float = math.inf, advice: str = _NUTS
) -> tuple[np.ndarray, Verdict]:
    """Smoothed log importance weights of draws, and whether to trust the approximation that they are from.

    Parameters
    ----------
    name : str
        Of the approximation.
    log_ratio : (chain, draw)
        Log of the posterior's density over the approximation's, up to a constant, nats.
    least_share : float
        The weighted draws' effective sample size, as a share of their number, that the approximation needs as well.
    widest : float
        Standard deviation of the log ratio, in nats, that must not be reached either.
    advice : str
        What to do where it is not to be trusted.

    Notes
    -----
    The Pareto k of the weights must be below 0.7, or below what so many draws can tell (Vehtari et al. 2024), or the
    log ratio's standard deviation below 0.1: k knows no scale. Neither knows of modes that the approximation does not
    reach.

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
    spread, weights = float(log_ratio.std()), np.reshape(log_weight, log_ratio.shape)
    differs = f"over {log_ratio.size} draws its log density differs from the posterior's by a standard deviation of "
    differs += f"{spread:.2g} nats"
    reason, fault = f"its Pareto k is {float(pareto_k):.2f}, below {largest:.2f}.", ""
    if spread < _CLOSE:
        reason = f"{differs}."
    elif not pareto_k < largest:
        fault = f"its importance weights' Pareto k is {float(pareto_k):.2f}, not below {largest:.2f}."
    elif share < least_share:
        fault = f"by their importance weights its draws are worth {share:.0%} of their number, below {least_share:.0%}."
    elif spread >= widest:
        fault = f"{differs}, not below {widest:g}."
    if fault:
        return weights, Verdict(
            Convergence.APPROXIMATION_POOR, f"{name} is not to be trusted: {fault} {advice}".strip()
        )
    return weights, Verdict(Convergence.APPROXIMATION_GOOD, f"{name} is good: {reason}")
