"""The criteria that a mixture can be chosen by: what each asks, how it is read, and what it is called where."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Criterion:
    """A column of `Selection.table` to choose by.

    Attributes
    ----------
    column : str
        Its name in the table.
    sign : int
        1 where larger is better, -1 where smaller is.
    title : str
        What it is called at the beginning of a sentence.
    question : str
        Which question it answers.
    panel : str
        What it is called in a picture.
    heading : str
        What it is called over a column in the terminal, on up to two lines.
    tie : float
        A fit ties with the best if it is less than this behind, in the criterion's unit.
    tie_se : float
        A fit ties with the best if it is less than this many standard errors of the difference behind.
    needs_posterior : bool
        Whether it comes from posterior draws rather than from EM.
    per_row : bool
        Whether it is a mean over rows rather than a sum.
    """

    column: str
    sign: int
    title: str
    question: str
    panel: str
    heading: str
    tie: float
    tie_se: float
    needs_posterior: bool = False
    per_row: bool = False

    @property
    def unit(self) -> str:
        """What its differences are counted in."""
        return "nats a row" if self.per_row else "nats" if self.sign > 0 else self.title

    def in_words(self, difference: float) -> str:
        """A difference (>= 0) with its digits, without its unit."""
        return f"{difference:.2g}" if self.per_row else f"{difference:.1f}"

    @property
    def title_within(self) -> str:
        """What it is called within a sentence."""
        return self.title[0].lower() + self.title[1:] if self.title.startswith("The ") else self.title


_BARE = 2.0  # of BIC, ICL, AIC and twice log evidence: "not worth more than a bare mention" (Kass & Raftery 1995)

CRITERIA = {
    "bic": Criterion(
        column="bic",
        sign=-1,
        title="BIC",
        question="which mixture do these rows speak for, each component a cluster",
        panel="BIC",
        heading="BIC",
        tie=_BARE,
        tie_se=0.0,
    ),
    "icl": Criterion(
        column="icl",
        sign=-1,
        title="ICL",
        question="which clusters stand apart, so that it is clear which row belongs where",
        panel="ICL",
        heading="ICL",
        tie=_BARE,
        tie_se=0.0,
    ),
    "aic": Criterion(
        column="aic",
        sign=-1,
        title="AIC",
        question="which mixture predicts new rows; it tends to too many components",
        panel="AIC",
        heading="AIC",
        tie=_BARE,
        tie_se=0.0,
    ),
    "cv": Criterion(
        column="cv_log_density",
        sign=1,
        title="The held-out log density",
        question="which mixture predicts rows that it has not seen",
        panel="held-out density",
        heading="held-out\nlog density",
        tie=0.0,
        tie_se=2.0,
    ),
    "loo": Criterion(
        column="elpd_loo",
        sign=1,
        title="LOO",
        question="which posterior, all its draws together, predicts new rows",
        panel="LOO elpd",
        heading="LOO\nelpd",
        tie=0.0,
        tie_se=2.0,
        needs_posterior=True,
    ),
    "evidence": Criterion(
        column="log_evidence",
        sign=1,
        title="The evidence",
        question="which mixture and prior together made these rows most likely",
        panel="log evidence",
        heading="log\nevidence",
        tie=_BARE / 2,
        tie_se=2.0,
        needs_posterior=True,
    ),
    "held_out": Criterion(
        column="held_out_log_density",
        sign=1,
        title="The held-out log density per row",
        question="which mixture predicts rows that it has not seen",
        panel="held-out density per row",
        heading="held-out\nper row",
        tie=0.0,
        tie_se=2.0,
        per_row=True,
    ),
}
DEFAULT, DEFAULT_IN_PARTS = ("bic", "icl", "cv"), ("held_out", "icl", "bic")  # of a table in memory, and in parts
_STRENGTHS = ((_BARE, "barely"), (6.0, "positively"), (10.0, "strongly"), (math.inf, "very strongly"))


def strength(difference: float) -> str:
    """How strongly a difference of BIC, ICL or AIC (>= 0) speaks for the better fit, as an adverb.

    References
    ----------
    Kass, R. E. & Raftery, A. E. (1995). Bayes factors. Journal of the American Statistical Association 90, 773-795.
    https://doi.org/10.1080/01621459.1995.10476572

    Examples
    --------
    >>> strength(1.2), strength(30.0)
    ('barely', 'very strongly')
    """
    return next(adverb for limit, adverb in _STRENGTHS if difference < limit)
