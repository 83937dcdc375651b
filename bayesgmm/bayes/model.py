"""`build_model`: the mixture as an ordinary `pm.Model`, to extend, to draw from its prior, to sample with anything."""

from __future__ import annotations

from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from bayesgmm.bayes.coordinates import precision_coordinates
from bayesgmm.bayes.likelihood import LogDensity
from bayesgmm.bayes.priors import Priors
from bayesgmm.em.fit import EMFit, fitted_table
from bayesgmm.errors import InputError
from bayesgmm.observations import Observations


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
        and ``observations`` (observation, feature). Its likelihood is the compiled kernel with its exact gradient. The
        covariances are deterministic functions of Bartlett's independent coordinates of the precisions.

    Raises
    ------
    InputError
        For a table that is not the fitted one, or a covariance model that is not available.
    """
    table = fitted_table(fit, X, None, ("labels", "fixed"), "the posterior")
    priors = check_priors(table, fit, priors)
    coordinates = precision_coordinates(fit.covariance_model, priors)
    K, D = fit.n_components, fit.n_features
    center = table.values.mean(axis=0)
    above, right = np.triu_indices(D, 1)
    features = list(table.features)
    coords = {
        "component": np.arange(K),
        "feature": features,
        "feature_bis": features,
        "observation": np.arange(table.n_observations),
    }

    def log_density(value, weights, means, P, center):
        diagonal = pt.diagonal(P, axis1=-2, axis2=-1)
        log_scale = pt.log(weights) + pt.log(diagonal).sum(axis=-1) - 0.5 * D * np.log(2 * np.pi)
        return LogDensity(fit.covariance_model.diagonal)(value, center, log_scale, means - center, P)

    def rows_of_mixture(weights, means, P, center, size):
        """A row is the mean of a drawn component plus P^-T times standard normal noise."""
        label = pm.Categorical.dist(p=weights, size=size)
        noise = pm.Normal.dist(size=(*label.shape, D))
        residual = pt.linalg.solve_triangular(P[label].swapaxes(-1, -2), noise, lower=True, b_ndim=1)
        return means[label] + residual

    with pm.Model(coords=coords) as model:
        if K > 1:
            weights = pm.Dirichlet("weights", a=priors.concentration, dims="component")
        else:
            weights = pm.Deterministic("weights", pt.ones(1), dims="component")
        means = pm.Normal("means", priors.means.location, priors.means.scale, dims=("component", "feature"))
        squares = pm.ChiSquared("precision_squares", coordinates.df, shape=(coordinates.copies, coordinates.columns))
        A = pt.zeros((coordinates.copies, D, D))
        A = A[:, np.arange(D), np.arange(D)].set(pt.broadcast_to(pt.sqrt(squares), (coordinates.copies, D)))
        if coordinates.off_diagonal:
            off_diagonal = pm.Normal("precision_off_diagonal", shape=(coordinates.copies, coordinates.off_diagonal))
            A = A[:, above, right].set(off_diagonal)
        P = pt.broadcast_to(pt.matmul(coordinates.U, A), (K, D, D))
        inverse = pt.linalg.inv(P)
        pm.Deterministic(
            "covariances",
            pt.matmul(inverse.transpose(0, 2, 1), inverse),
            dims=("component", "feature", "feature_bis"),
        )
        data = pm.Data("data", table.values, dims=("observation", "feature"))
        pm.CustomDist(
            "observations",
            weights,
            means,
            P,
            center,
            logp=log_density,
            dist=rows_of_mixture,
            signature="(k),(k,d),(k,d,d),(d)->(d)",
            observed=data,
            dims=("observation", "feature"),
        )
    return model


def check_priors(table: Observations, fit: EMFit, priors: Priors | None) -> Priors:
    """The priors to use, or an `InputError` where they are for another number of components or features."""
    if priors is None:
        return Priors.weakly_informative(table.values, fit.n_components)
    if (priors.n_components, priors.n_features) != (fit.n_components, fit.n_features):
        raise InputError(
            f"the priors are for K = {priors.n_components} components and D = {priors.n_features} features, "
            f"the fit has {fit.n_components} and {fit.n_features}"
        )
    return priors
