"""`GaussianMixturePosterior`: the posterior of a mixture with scikit-learn's interface."""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesgmm.bayes.posterior import posterior
from bayesgmm.bayes.priors import Priors
from bayesgmm.bayes.sample import sample_posterior
from bayesgmm.clusters.assignment import assign
from bayesgmm.clusters.rows_under_draws import rows_under_draws
from bayesgmm.em.fit import FitSettings, fit_quietly
from bayesgmm.em.result import EMFit
from bayesgmm.errors import BayesGMMError
from bayesgmm.observations import positive_integer
from bayesgmm.sklearn.estimator import MixtureEstimator, check_noise, labels_of


class GaussianMixturePosterior(MixtureEstimator):
    """Gaussian mixture with the uncertainty of its posterior: probabilities and densities averaged over draws of it.

    Parameters
    ----------
    n_components : int
        K >= 1.
    covariance_type : str
        "full", "tied", "diag", "spherical", or one of the 14 three-letter names.
    priors : Priors, optional
        `bayesgmm.Priors.weakly_informative` by default.
    method : {"nuts", "laplace", "variational"}
        "laplace" and "variational" take milliseconds, and say whether they are to be trusted.
    draws, tune, chains : int
    sampler : {"auto", "nutpie", "pymc", "gibbs"}
        These five as in `bayesgmm.sample_posterior`.
    n_init : int
        Starts of the EM fit that the draws begin around and take their labels from; None for as many as it takes.
    noise : bool or Noise
        Whether rows may belong to no component, which have the label -1; as in `GaussianMixture`. Not with the method
        "variational" and the sampler "gibbs".
    random_state : int, RandomState or None

    Attributes
    ----------
    posterior_ : bayesgmm.Posterior
        The draws and everything known about them; ``posterior_.verdict`` says whether to trust them. All functions of
        the package take it: ``bayesgmm.assign(model.posterior_)``.
    tree_ : xarray.DataTree
        The same for ArviZ.
    em_ : bayesgmm.EMFit
    labels_ : (N,)
        The most probable component of each row, -1 where noise is more probable.
    n_features_in_ : int
    feature_names_in_ : (D,)
        Where the table has names.

    See Also
    --------
    GaussianMixture : EM alone, in milliseconds.
    bayesgmm.sample_posterior : the function behind this class.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> from bayesgmm.sklearn import GaussianMixturePosterior
    >>> X = bg.datasets.old_faithful().to_numpy()
    >>> model = GaussianMixturePosterior(2, method="laplace", random_state=0).fit(X)
    >>> model.predict_proba([[2.0, 55.0], [4.5, 80.0]]).round(2)
    array([[1., 0.],
           [0., 1.]])
    >>> lower, upper = model.predict_interval([[3.0, 65.0]])
    >>> lower.shape, model.posterior_.verdict.good
    ((1, 2), True)
    """

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: str = "full",
        priors: Priors | None = None,
        method: str = "nuts",
        draws: int = 1000,
        tune: int = 500,
        chains: int = 4,
        sampler: str = "auto",
        n_init: int | None = FitSettings.n_starts,
        noise: Any = False,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.priors = priors
        self.method = method
        self.draws = draws
        self.tune = tune
        self.chains = chains
        self.sampler = sampler
        self.n_init = n_init
        self.noise = noise
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> GaussianMixturePosterior:
        """Fit by EM and draw from the posterior around the fit.

        Parameters
        ----------
        X : (N, D) table
            NaN where a value is missing: such values are integrated over, here and in the other methods.
        y : ignored

        Raises
        ------
        ValueError
            Naming the parameter, row or column that cannot be used.

        Warns
        -----
        bayesgmm.ConvergenceWarning
            If the draws are not to be trusted.
        """
        check_noise(self.noise)
        X = self._rows_to_fit(X)
        named, seed = self._named(X), self._seed()
        self.em_ = self._em(named, seed)
        self.tree_ = sample_posterior(
            named,
            self.em_,
            self.priors,
            method=self.method,
            draws=self.draws,
            tune=self.tune,
            chains=self.chains,
            sampler=self.sampler,
            rng=seed,
        )
        self.posterior_ = posterior(self.tree_)
        self._n_features_out = self.n_components
        self.labels_ = labels_of(self._averaged(X))
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probability (N, K) of each component given the row, averaged over the posterior.

        Rows sum to one, or to what noise leaves of it.
        """
        return self._averaged(self._rows(X))

    def predict_interval(self, X: Any, ci_prob: float | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Equal-tailed credible intervals of the probabilities.

        Parameters
        ----------
        X : (N, D) table
        ci_prob : float, optional
            Probability of the intervals; by default ``arviz.rcParams["stats.ci_prob"]``.

        Returns
        -------
        lower, upper : (N, K)
        """
        X = self._rows(X)
        assigned = assign(self.posterior_, X, ci_prob, rng=0)  # for tail probabilities, which are not asked for
        return assigned.lower.astype(X.dtype, copy=False), assigned.upper.astype(X.dtype, copy=False)

    def score_samples(self, X: Any) -> np.ndarray:
        """Log posterior-predictive density (N,) of each row, in nats."""
        X = self._rows(X)
        return rows_under_draws(self.posterior_, X).log_predictive().astype(X.dtype, copy=False)

    def _averaged(self, X: np.ndarray) -> np.ndarray:
        """Responsibilities (N, K) of checked rows, averaged over the draws."""
        return rows_under_draws(self.posterior_, X).mean_responsibilities().astype(X.dtype, copy=False)

    def _em(self, X: Any, seed: int) -> EMFit:
        """The fit that draws begin around: where the likelihood has no sound maximum, that under the default priors."""
        n_starts = None if self.n_init is None else positive_integer(self.n_init, "n_init")
        settings: dict[str, Any] = {"n_starts": n_starts, "noise": self.noise, "rng": seed}
        try:
            fit = fit_quietly(X, self.n_components, self.covariance_type, **settings)
        except BayesGMMError:
            fit = None
        if fit is not None and not fit.spurious:
            return fit
        priors = Priors.weakly_informative(X, positive_integer(self.n_components, "n_components"))
        return fit_quietly(X, self.n_components, self.covariance_type, priors=priors, **settings)
