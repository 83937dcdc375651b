"""The level of credible and confidence intervals: one default for the whole package, which is ArviZ's."""

from __future__ import annotations

from numbers import Real

from bayesgmm.errors import InputError


def level(ci_prob: float | None) -> float:
    """The probability of an interval: as given, or ``arviz.rcParams["stats.ci_prob"]`` where it is None.

    Raises
    ------
    InputError
        Unless it is between 0 and 1.

    Examples
    --------
    >>> level(0.5)
    0.5
    """
    if ci_prob is None:
        from arviz_base import rcParams

        return float(rcParams["stats.ci_prob"])
    if isinstance(ci_prob, bool) or not isinstance(ci_prob, Real) or not 0 < ci_prob < 1:
        raise InputError(f"ci_prob must be between 0 and 1, not {ci_prob!r}")
    return float(ci_prob)


def tails(ci_prob: float) -> tuple[float, float]:
    """Probabilities of the two ends of an equal-tailed interval: what lies below each.

    Examples
    --------
    >>> tails(0.5)
    (0.25, 0.75)
    """
    return (1 - ci_prob) / 2, (1 + ci_prob) / 2
