"""Which number of components and which covariance model: several criteria side by side, and how sure each one is."""

from bayesgmm.selection.criteria import CRITERIA, Criterion
from bayesgmm.selection.driver import select
from bayesgmm.selection.overfitted import Overfitted
from bayesgmm.selection.result import Recommendation, Selection
from bayesgmm.selection.stacking import stacking_weights
from bayesgmm.selection.states import FitOutcome, FitState, PosteriorState

__all__ = [
    "CRITERIA",
    "Criterion",
    "FitOutcome",
    "FitState",
    "Overfitted",
    "PosteriorState",
    "Recommendation",
    "Selection",
    "select",
    "stacking_weights",
]
