"""`build_model`: the mixture as an ordinary `pm.Model`, to extend, to draw from its prior, to sample with anything."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from bayesgmm.bayes import symbolic
from bayesgmm.bayes.likelihood import LogDensity
from bayesgmm.bayes.priors import Priors, check_priors
from bayesgmm.em.result import EMFit, fitted_table


def build_model(X: Any, fit: EMFit, priors: Priors | None = None) -> pm.Model:
    """The Bayesian Gaussian mixture with the assignments marginalised out, as a plain PyMC model.

    Parameters
    ----------
    X : (N, D) table
    fit : EMFit
        Gives the number of components and the covariance model.
    priors : Priors, optional
        `Priors.weakly_informative` by default.

    Returns
    -------
    pm.Model
        With ``weights`` (component), ``means`` (component, feature), ``covariances`` (component, feature, feature_bis)
        and ``observations`` (observation, feature). The likelihood is the compiled kernel, with its exact gradient. The
        covariances are deterministic functions of the free coordinates of the precisions; for an inverse Wishart these
        are the independent elements of Bartlett's decomposition.

    Raises
    ------
    InputError
        For a table that is not the fitted one, or a covariance model that has no posterior under an LKJ prior.

    See Also
    --------
    sample_posterior : Draws from the same posterior without compiling a model.

    References
    ----------
    Bartlett (1933), Proceedings of the Royal Society of Edinburgh 53, 260-283 (free coordinates of a Wishart matrix).

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> model = bg.build_model(X, bg.fit_em(X, 2, rng=0))
    >>> [variable.name for variable in model.free_RVs]
    ['weights', 'means', 'precision_coordinates']
    >>> model.named_vars_to_dims["covariances"]
    ('component', 'feature', 'feature_bis')
    """
    table = fitted_table(fit, X, None, ("labels", "fixed"), "the posterior")
    priors = check_priors(table, fit, priors)
    coordinates = priors.coordinates(fit.covariance_model)
    K, D = fit.n_components, fit.n_features
    features = list(table.features)
    coords = {
        "component": np.arange(K),
        "feature": features,
        "feature_bis": features,
        "observation": np.arange(table.n_observations),
    }
    with pm.Model(coords=coords) as model:
        if K > 1:
            weights = pm.Dirichlet("weights", a=priors.concentration, dims="component")
        else:
            weights = pm.Deterministic("weights", pt.ones(1), dims="component")
        means = priors.means.random_means()
        P = pt.broadcast_to(coordinates.random_precisions(), (K, D, D))
        inverse = pt.linalg.inv(P)
        pm.Deterministic(
            "covariances",
            symbolic.product(inverse.transpose(0, 2, 1), inverse),
            dims=("component", "feature", "feature_bis"),
        )
        pm.CustomDist(
            "observations",
            weights,
            means,
            P,
            table.values.mean(axis=0),
            logp=partial(_log_density, fit.covariance_model.diagonal, D),
            dist=partial(_rows_of_mixture, D),
            signature="(k),(k,d),(k,d,d),(d)->(d)",
            observed=pm.Data("data", table.values, dims=("observation", "feature")),
            dims=("observation", "feature"),
        )
    return model


def _log_density(diagonal, n_features, value, weights, means, P, center):
    """Log density of each row (N,) under the mixture."""
    log_scale = symbolic.log_scale(weights, P, n_features)
    return LogDensity(diagonal)(value, center, log_scale, means - center, P)


def _rows_of_mixture(n_features, weights, means, P, _center, size):
    """Random rows: the mean of a drawn component plus P^-T times standard normal noise."""
    label = pm.Categorical.dist(p=weights, size=size)
    noise = pm.Normal.dist(size=(*label.shape, n_features))
    residual = pt.linalg.solve_triangular(P[label].swapaxes(-1, -2), noise, lower=True, b_ndim=1)
    return means[label] + residual
