"""Whether draws are to be trusted, as a value; what was found about them is `findings`'."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Convergence(Enum):
    """Whether the draws represent the posterior; the value says so in a few words.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> bg.Convergence.NOT_CONVERGED.value, bg.Convergence.NOT_CONVERGED.good
    ('the chains did not converge', False)
    """

    CONVERGED = "the chains converged"
    NOT_CONVERGED = "the chains did not converge"
    UNCHECKED = "too few draws to tell whether the chains converged"
    APPROXIMATION_GOOD = "the approximation is good"
    APPROXIMATION_POOR = "the approximation is not to be trusted"

    @property
    def good(self) -> bool:
        """Whether the draws may be used as draws of the posterior."""
        return self in (Convergence.CONVERGED, Convergence.APPROXIMATION_GOOD)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether to trust the draws of a posterior.

    Attributes
    ----------
    convergence : Convergence
    text : str
        The verdict in sentences, with its reasons and what to do.
    good : bool
        Whether the draws may be used as draws of the posterior.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> tree = bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), method="laplace", rng=0)
    >>> verdict = bg.posterior(tree).verdict
    >>> verdict.good, verdict.convergence.value
    (True, 'the approximation is good')
    """

    convergence: Convergence
    text: str

    @property
    def good(self) -> bool:
        """Whether the draws may be used as draws of the posterior."""
        return self.convergence.good

    @property
    def attributes(self) -> dict[str, str]:
        """The verdict as attributes of a posterior's tree."""
        return {"verdict": self.convergence.name, "convergence": self.text}
