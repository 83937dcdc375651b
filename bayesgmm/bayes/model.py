"""`build_model`: the mixture as an ordinary `pm.Model`, to extend, to draw from its prior, to sample with anything."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from bayesgmm.bayes.coordinates import (
    CORRELATIONS,
    MARGINAL,
    SQUARES,
    VOLUMES,
    PrecisionCoordinates,
    precision_coordinates,
)
from bayesgmm.bayes.likelihood import LogDensity
from bayesgmm.bayes.priors import Priors, check_priors
from bayesgmm.em.fit import EMFit, fitted_table


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
        dims, location = ("component", "feature"), priors.means.location
        if priors.means.correlated:
            means = pm.MvNormal("means", location, priors.means.covariance, dims=dims)
        else:
            means = pm.Normal("means", location, priors.means.scale, dims=dims)
        P = pt.broadcast_to(_precisions(coordinates, K, D), (K, D, D))
        inverse = pt.linalg.inv(P)
        pm.Deterministic(
            "covariances",
            _product(inverse.transpose(0, 2, 1), inverse),
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


def _product(a, b):
    """Products (K, D, D) of small matrices, as sums: PyTensor takes half a minute to compile a product."""
    return (a[:, :, :, None] * b[:, None, :, :]).sum(axis=2)


def _precisions(c: PrecisionCoordinates, K: int, D: int):
    """The precisions' Cholesky factors P (K or 1, D, D) as functions of random variables."""
    if c.kind == CORRELATIONS:
        distribution = {"HalfNormal": pm.HalfNormal, "LogNormal": pm.LogNormal, "Exponential": pm.Exponential}[c.scales]
        parameters = {"HalfNormal": ("sigma",), "LogNormal": ("mu", "sigma"), "Exponential": ("lam",)}[c.scales]
        given = dict(zip(parameters, (c.first, c.second), strict=False))
        sds = distribution("standard_deviations", shape=(c.copies, c.columns), **given)
        L = [[0.0] * D for _ in range(D)]
        if c.off_diagonal:
            half = pm.Beta("half_partial_correlations", c.beta, c.beta, shape=(c.above_copies, c.off_diagonal))
            z = iter([2 * half[:, m] - 1 for m in range(c.off_diagonal)])
        for i in range(D):
            sd, rest = sds[:, i if c.columns > 1 else 0], 1.0
            for j in range(i if c.off_diagonal else 0):
                partial = next(z)
                L[i][j] = sd * partial * rest
                rest = rest * pt.sqrt(1 - partial**2)
            L[i][i] = sd * rest
        zero = pt.zeros_like(sds[:, 0])
        lower = pt.stack([pt.stack([zero + entry for entry in row], axis=-1) for row in L], axis=-2)
        return pt.linalg.inv(lower).transpose(0, 2, 1)

    def diagonal_and_above(squares, above):
        A = pt.zeros((K if c.ratios == SQUARES else c.copies, D, D))
        A = A[:, np.arange(D), np.arange(D)].set(pt.broadcast_to(pt.sqrt(squares), A.shape[:2]))
        return A if above is None else A[:, *np.triu_indices(D, 1)].set(above)

    above = None
    if c.kind == MARGINAL:
        n_squares = c.sizes[0]

        def split(values):
            squares = pt.exp(values[:n_squares]).reshape((c.copies, c.columns))
            return squares, values[n_squares:].reshape((c.above_copies, c.off_diagonal)) if c.off_diagonal else None

        def log_density(values, _):
            squares, above = split(values)
            value = 0.5 * (c.first * pt.log(squares)).sum() - 0.5 * c.floor * squares.sum()
            if above is not None:
                value = value - 0.5 * c.floor * (above**2).sum()
            if not c.scale_matrix_is_full:
                power, total = c.copies * c.first + c.sizes[1] + c.strength, c.strength + squares.sum(axis=0)
                if above is not None:
                    total = total + (above**2).sum()
                return value - 0.5 * (power * pt.log(total)).sum() + c.own_constant
            A = diagonal_and_above(squares, above)
            total = c.strength * pt.eye(D) + _product(A, A.transpose(0, 2, 1)).sum(axis=0)
            return value - 0.5 * (c.copies * c.first[-1] + c.strength) * pt.linalg.slogdet(total)[1] + c.own_constant

        def draw(zeros, rng=None, size=None):
            size = tuple(size or ())
            return c.own_draws(math.prod(size), rng).reshape(*size, -1)

        n = n_squares + c.sizes[1]
        values = pm.CustomDist(
            "precision_coordinates", np.zeros(n), logp=log_density, random=draw, signature="(n)->(n)"
        )
        squares, above = split(values)
    else:
        squares = pm.ChiSquared("precision_squares", c.first, shape=(c.copies, c.columns))
    if c.kind != MARGINAL and c.off_diagonal:
        above = pm.Normal("precision_off_diagonal", shape=(c.above_copies, c.off_diagonal))
    log_ratios = 0.0
    if c.ratios:
        q = pt.log(pm.Dirichlet("precision_ratios", c.dirichlet, shape=(c.vectors, len(c.dirichlet))))
        log_ratios = q - q.mean(axis=-1, keepdims=True)
    if c.ratios == SQUARES:
        squares = squares * pt.exp(log_ratios)
    A = diagonal_and_above(squares, above)
    if c.ratios == VOLUMES:
        A = A * pt.exp(0.5 * log_ratios[0])[:, None, None]
    return _product(pt.as_tensor(c.U)[None], A)
