"""Priors as small frozen values in the user's units: a family a file, and `Priors`, which joins them."""

from bayesgmm.bayes.priors.hierarchical import HierarchicalInverseWishart
from bayesgmm.bayes.priors.inverse_wishart import InverseWishart
from bayesgmm.bayes.priors.joint import Priors, check_priors
from bayesgmm.bayes.priors.lkj import LKJ
from bayesgmm.bayes.priors.means import NormalMeans
from bayesgmm.bayes.priors.scales import Exponential, HalfNormal, LogNormal

__all__ = [
    "LKJ",
    "Exponential",
    "HalfNormal",
    "HierarchicalInverseWishart",
    "InverseWishart",
    "LogNormal",
    "NormalMeans",
    "Priors",
    "check_priors",
]
