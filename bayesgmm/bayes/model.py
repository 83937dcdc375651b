"""`build_model`: the mixture as an ordinary `pm.Model`, to extend, to draw from its prior, to sample with anything."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt

from bayesgmm.bayes import symbolic
from bayesgmm.bayes.likelihood import LogDensity, groups
from bayesgmm.bayes.priors import Priors, check_priors
from bayesgmm.em.initialize import mean_and_covariance
from bayesgmm.em.result import EMFit, fitted_table
from bayesgmm.observations import Observations


def build_model(
    X: Any, fit: EMFit, priors: Priors | None = None, *, error_sd: Any = None, error_covariance: Any = None
) -> pm.Model:
    """The Bayesian Gaussian mixture with the assignments marginalised out, as a plain PyMC model.

    Parameters
    ----------
    X : (N, D) table
        Missing values are integrated over, not filled in.
    fit : EMFit
        Gives the number of components and the covariance model.
    priors : Priors, optional
        `Priors.weakly_informative` by default.
    error_sd : (D,) or (N, D), optional
        Standard deviations of the errors that the values were measured with; the mixture is of the true values.
    error_covariance : (D, D) or (N, D, D), optional
        Their covariances, instead.

    Returns
    -------
    pm.Model
        With ``weights`` (component), ``means`` (component, feature), ``covariances`` (component, feature, feature_bis)
        and ``observations`` (observation, feature). The likelihood is the compiled kernel, with its exact gradient. The
        covariances are deterministic functions of the free coordinates of the precisions; for an inverse Wishart these
        are the independent elements of Bartlett's decomposition. Where all values are known and exact the table is the
        model's data "data", which other rows may be set for. Predicted rows are complete, and have errors as the
        table's rows have.

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
    table = fitted_table(fit, X, None, ("labels", "fixed"), "the posterior", error_sd, error_covariance)
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
            mean_and_covariance(table)[0],
            logp=partial(_log_density, fit.covariance_model.diagonal, groups(table.patterns, D)),
            dist=partial(_measured_rows, table.errors),
            signature="(k),(k,d),(k,d,d),(d)->(d)",
            observed=_observed(table),
            dims=("observation", "feature"),
        )
    return model


def _observed(table: Observations) -> Any:
    """The rows: data of the model where they may be replaced, as no patterns belong to them.

    PyMC would make a parameter of each missing value of an array.
    """
    if table.patterns is None:
        return pm.Data("data", table.values, dims=("observation", "feature"))
    return pytensor.shared(table.values, name="data")


def _log_density(diagonal, groups, value, weights, means, P, center):
    """Log density of each row's values (N,) under the mixture."""
    log_scale = symbolic.log_scale(weights, P, value.shape[1])
    return LogDensity(diagonal)(value, center, *groups, log_scale, means - center, P)


def _measured_rows(errors, weights, means, P, _center, size):
    """Random rows: the mean of a drawn component plus P^-T times standard normal noise, plus errors as in the table."""
    label = pm.Categorical.dist(p=weights, size=size)
    noise = pm.Normal.dist(size=(*label.shape, means.shape[-1]))
    rows = means[label] + pt.linalg.solve_triangular(P[label].swapaxes(-1, -2), noise, lower=True, b_ndim=1)
    if errors is None:
        return rows
    noise = pm.Normal.dist(size=(*label.shape, means.shape[-1]))
    if errors.ndim == 2:
        return rows + np.sqrt(errors) * noise
    level, axes = np.linalg.eigh(errors)
    return rows + ((axes * np.sqrt(np.maximum(level, 0.0))[:, None, :]) * noise[..., None, :]).sum(axis=-1)
