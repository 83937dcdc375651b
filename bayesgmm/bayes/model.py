"""`build_model`: the mixture as an ordinary `pm.Model`, to extend, to draw from its prior, to sample with anything."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt

from bayesgmm.bayes import symbolic
from bayesgmm.bayes.likelihood import LogDensity, further_data
from bayesgmm.bayes.priors import Priors, check_priors
from bayesgmm.em.initialize import mean_and_covariance
from bayesgmm.em.result import EMFit, fitted_table
from bayesgmm.noise import Noise
from bayesgmm.observations import Observations


def build_model(
    X: Any,
    fit: EMFit,
    priors: Priors | None = None,
    *,
    error_sd: Any = None,
    error_covariance: Any = None,
    noise: Any = None,
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
    noise : (N,), optional
        Log density of the noise at each row, where the fit was made with one.

    Returns
    -------
    pm.Model
        With ``weights`` (component), ``means`` (component, feature), ``covariances`` (component, feature, feature_bis)
        and ``observations`` (observation, feature). The likelihood is the compiled kernel, with its exact gradient. The
        covariances are deterministic functions of the free coordinates of the precisions; for an inverse Wishart these
        are the independent elements of Bartlett's decomposition. Where all values are known and exact, and there is no
        noise, the table is the model's data "data", which other rows may be set for. Predicted rows are complete, and
        have errors as the table's rows have. Of a fit with noise ``shares`` are the weights and, last, the
        ``noise_weight``; predicted rows are NaN where they are noise that has a density at the table's rows only.

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
    table = fitted_table(fit, X, None, ("labels", "fixed"), "the posterior", error_sd, error_covariance, noise)
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
        shares = _shares(priors, table)
        means = priors.means.random_means()
        P = pt.broadcast_to(coordinates.random_precisions(), (K, D, D))
        inverse = pt.linalg.inv(P)
        pm.Deterministic(
            "covariances",
            symbolic.product(inverse.transpose(0, 2, 1), inverse),
            dims=("component", "feature", "feature_bis"),
        )
        data = further_data(table.groups, table.noise_density, D)
        pm.CustomDist(
            "observations",
            shares,
            means,
            P,
            mean_and_covariance(table)[0],
            logp=partial(_log_density, fit.covariance_model.diagonal, data),
            dist=partial(_measured_rows, table.errors, table.noise),
            signature="(w),(k,d),(k,d,d),(d)->(d)",
            observed=_observed(table),
            dims=("observation", "feature"),
        )
    return model


def _observed(table: Observations) -> Any:
    """The rows: data of the model where they may be replaced, as neither patterns nor a noise's density belong to them.

    PyMC would make a parameter of each missing value of an array.
    """
    if table.patterns is None and table.noise is None:
        return pm.Data("data", table.values, dims=("observation", "feature"))
    return pytensor.shared(table.values, name="data")


def _shares(priors: Priors, table: Observations) -> Any:
    """The components' weights, and after them the noise's where there is noise."""
    K, noise = priors.n_components, table.noise is not None
    if K == 1 and not noise:
        return pm.Deterministic("weights", pt.ones(1), dims="component")
    concentration = priors.concentrations(noise=noise)
    if not noise:
        return pm.Dirichlet("weights", a=concentration, dims="component")
    shares = pm.Dirichlet("shares", a=concentration)
    pm.Deterministic("weights", shares[:K], dims="component")
    pm.Deterministic("noise_weight", shares[K])
    return shares


def _log_density(diagonal, data, value, shares, means, P, center):
    """Log density of each row's values (N,) under the mixture."""
    K = P.shape[0]
    log_scale = symbolic.log_scale(shares[:K], P, value.shape[1])
    if data[-1].get_value(borrow=True).size:
        log_scale = pt.concatenate([log_scale, pt.log(shares[K:])])
    return LogDensity(diagonal)(value, center, *data, log_scale, means - center, P)


def _measured_rows(errors, noise, shares, means, P, _center, size):
    """Random rows: the mean of a drawn component plus P^-T times standard normal noise, plus errors as in the table.

    Or, for the label after the components', rows from the noise's box, or NaN where its density elsewhere is not known.
    """
    label = pm.Categorical.dist(p=shares, size=size)
    rows = _random_rows(pt.minimum(label, means.shape[0] - 1), means, P)
    if noise is not None:
        uniform = pm.Uniform.dist(size=rows.shape)
        outside = noise.middle + noise.sides * (uniform - 0.5) if isinstance(noise, Noise) else np.nan
        rows = pt.where(pt.eq(label, means.shape[0])[..., None], outside, rows)
    if errors is None:
        return rows
    deviates = pm.Normal.dist(size=(*label.shape, means.shape[-1]))
    if errors.ndim == 2:
        return rows + np.sqrt(errors) * deviates
    level, axes = np.linalg.eigh(errors)
    return rows + ((axes * np.sqrt(np.maximum(level, 0.0))[:, None, :]) * deviates[..., None, :]).sum(axis=-1)


def _random_rows(label, means, P):
    """Rows of the components that they are labelled with."""
    deviates = pm.Normal.dist(size=(*label.shape, means.shape[-1]))
    return means[label] + pt.linalg.solve_triangular(P[label].swapaxes(-1, -2), deviates, lower=True, b_ndim=1)
