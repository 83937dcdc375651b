"""Estimators with scikit-learn's interface: for its pipelines and searches, or in place of its own mixture.

`GaussianMixture` is EM with the parameters and attributes of ``sklearn.mixture.GaussianMixture``;
`GaussianMixturePosterior` has the posterior's uncertainty. They hold what `bayesgmm.fit_em` and
`bayesgmm.sample_posterior` return, and nothing else in the package knows of them. Needs scikit-learn, which
``pip install bayesgmm[sklearn]`` brings.
"""

from bayesgmm.sklearn.mixture import GaussianMixture
from bayesgmm.sklearn.posterior import GaussianMixturePosterior

__all__ = ["GaussianMixture", "GaussianMixturePosterior"]
