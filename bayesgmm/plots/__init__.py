"""Pictures of a fit and its posterior: functions that return a `matplotlib.figure.Figure`; no display needed.

A component has the same colour and marker in every picture, and a cluster those of the component that it matches.
Where the draws do not keep the components apart, give assignments to a partition's clusters: `assign(posterior,
partition=partition(posterior))`.
"""

from bayesgmm.plots.assignments import least_certain, uncertainty
from bayesgmm.plots.fits import clusters, em_path
from bayesgmm.plots.partitions import credible_ball, similarity
from bayesgmm.plots.posteriors import posterior
from bayesgmm.plots.priors import prior_check
from bayesgmm.plots.selections import averaged, criteria, predictions

__all__ = [
    "averaged",
    "clusters",
    "credible_ball",
    "criteria",
    "em_path",
    "least_certain",
    "posterior",
    "predictions",
    "prior_check",
    "similarity",
    "uncertainty",
]
