"""What became of each fit of a selection and of its posterior, as values that sentences are made from."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from bayesgmm.bayes.verdict import Verdict
from bayesgmm.em.result import EMFit, Status
from bayesgmm.errors import BayesGMMError


class FitOutcome(enum.Enum):
    """How the EM fit of a covariance model and size ended; the value is its name in `Selection.table`.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> selection = bg.select(bg.datasets.old_faithful(), (1, 2), criteria="bic", n_replicates=0, rng=0)
    >>> selection.fit_states["VVV", 2].outcome is bg.FitOutcome.CONVERGED
    True
    """

    CONVERGED = "converged"
    EXHAUSTED = "stopped at max_iterations before it converged"
    SPURIOUS = "spurious"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class FitState:
    """How a fit ended.

    Attributes
    ----------
    outcome : FitOutcome
    detail : str
        Why it failed or is spurious; empty otherwise.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> bg.FitState(bg.FitOutcome.SPURIOUS, "17 parameters for 16 numbers").text
    'spurious: 17 parameters for 16 numbers'
    """

    outcome: FitOutcome
    detail: str = ""

    @property
    def text(self) -> str:
        """The same in words, as in the column ``status`` of the table."""
        return f"{self.outcome.value}: {self.detail}" if self.detail else self.outcome.value

    @property
    def left_out(self) -> bool:
        """Whether the fit is excluded from the choice by any criterion."""
        return self.outcome in (FitOutcome.SPURIOUS, FitOutcome.FAILED)


@dataclass(frozen=True, slots=True)
class PosteriorState:
    """What became of a posterior that was asked for, and of its evidence.

    Attributes
    ----------
    verdict : Verdict or None
        Whether to trust the draws; None where there are none.
    no_draws : str
        Why there are no draws; empty where there are.
    no_evidence : str
        Why there is no evidence although there are draws and it was asked for; empty otherwise.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> quick = {"posterior": "contenders", "sampling": {"method": "laplace"}, "n_replicates": 0, "rng": 0}
    >>> selection = bg.select(bg.datasets.old_faithful(), 2, criteria="bic", **quick)
    >>> selection.posterior_states["VVV", 2].verdict.convergence.name
    'APPROXIMATION_GOOD'
    >>> bg.PosteriorState(None, no_draws="the sampler failed").text
    'none: the sampler failed'
    """

    verdict: Verdict | None
    no_draws: str = ""
    no_evidence: str = ""

    @property
    def text(self) -> str:
        """The same in words, as in the column ``posterior`` of the table."""
        if self.verdict is None:
            return f"none: {self.no_draws}"
        return f"{self.verdict.text} No evidence: {self.no_evidence}" if self.no_evidence else self.verdict.text


def fit_state(result: EMFit | BayesGMMError) -> FitState:
    """How a fit ended, from the fit or from the error that there is in its place."""
    if isinstance(result, BayesGMMError):
        return FitState(FitOutcome.FAILED, str(result))
    n_values = result.total_weight * result.n_features
    if result.n_parameters >= n_values:
        return FitState(FitOutcome.SPURIOUS, f"{result.n_parameters} parameters for {n_values:.0f} numbers")
    if result.spurious:
        return FitState(FitOutcome.SPURIOUS, result.maxima[0].detail)
    return FitState(FitOutcome.EXHAUSTED if result.status is Status.EXHAUSTED else FitOutcome.CONVERGED)
