"""The `DataTree` of a posterior: how draws are laid out for ArviZ, and what can be had back from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from bayesgmm.bayes.density import Density
from bayesgmm.bayes.priors import Priors
from bayesgmm.bayes.relabel import mixture_of
from bayesgmm.covariance import CovarianceModel
from bayesgmm.em.fit import EMFit
from bayesgmm.em.initialize import whole_table
from bayesgmm.files import beside
from bayesgmm.mixture import GaussianMixture
from bayesgmm.observations import observations

_COMPRESSED = {"zlib": True, "shuffle": True, "complevel": 1}  # higher levels take longer and gain a hundredth
LOG_LIKELIHOOD_BUDGET = 500e6  # bytes: the pointwise log-likelihood is stored only while it fits


def draws_tree(
    X: np.ndarray,
    fit: EMFit,
    mixture: GaussianMixture,
    statistics: dict[str, np.ndarray],
    attributes: dict[str, Any],
    *,
    log_likelihood: bool = True,
) -> xr.DataTree:
    """The tree of draws, their statistics, the table and the fit."""
    chains, draws = mixture.batch_shape
    N, K = len(X), fit.n_components
    draw = {"chain": np.arange(chains), "draw": np.arange(draws)}
    component = {"component": np.arange(K)}
    feature = {"feature": list(fit.features), "feature_bis": list(fit.features)}
    dims = {
        "weights": ("component",),
        "means": ("component", "feature"),
        "covariances": ("component", "feature", "feature_bis"),
    }
    groups = {
        "posterior": xr.Dataset(
            {name: (("chain", "draw", *dims[name]), getattr(mixture, name)) for name in dims},
            coords={**draw, **component, **feature},
        ),
        "sample_stats": xr.Dataset(
            {name: (("chain", "draw"), values) for name, values in statistics.items()}, coords=draw
        ),
        "observed_data": xr.Dataset(
            {"observations": (("observation", "feature"), X)},
            coords={"observation": np.arange(N), "feature": list(fit.features)},
        ),
        "em": xr.Dataset(
            {name: (dims[name], getattr(fit.mixture, name)) for name in dims}
            | {"log_likelihood_path": (("iteration",), fit.log_likelihood_path)},
            coords={**component, **feature},
            attrs={
                "covariance_model": fit.covariance_model.name,
                "status": fit.status.value,
                "log_likelihood": fit.log_likelihood,
                "bic": fit.bic,
                "aic": fit.aic,
                "icl": fit.icl,
                "n_parameters": fit.n_parameters,
            },
        ),
    }
    if log_likelihood and 4.0 * N * chains * draws <= LOG_LIKELIHOOD_BUDGET:
        groups["log_likelihood"] = xr.Dataset(  # in single precision: a row's is known to 1e-6 nats
            {"observations": (("chain", "draw", "observation"), mixture.log_prob(X).astype(np.float32))},
            coords={**draw, "observation": np.arange(N)},
        )
    elif log_likelihood:
        attributes = attributes | {"log_likelihood": "not stored: it would exceed the memory budget"}
    tree = xr.DataTree.from_dict(groups)
    tree.attrs.update(attributes)
    return tree


def write_tree(tree: xr.DataTree, path: Path) -> None:
    """Write a tree, compressed, to a netCDF file, which is whole or as it was before."""
    encoding = {
        group.path: {
            name: _COMPRESSED for name, array in group.data_vars.items() if array.dtype.kind == "f" and array.ndim
        }
        for group in tree.subtree
    }
    with beside(path) as temporary:
        tree.to_netcdf(temporary, engine="h5netcdf", encoding=encoding)


def as_mixture(tree: xr.DataTree) -> GaussianMixture:
    """The posterior draws of a tree as one `GaussianMixture` with batch shape (chain, draw).

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> tree = bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), draws=500, chains=2, rng=0)
    >>> bg.as_mixture(tree).batch_shape
    (2, 500)
    """
    return mixture_of(tree["posterior"].to_dataset())


def density_of(tree: xr.DataTree) -> Density:
    """The log posterior density that the draws of a tree are from, from its data, priors and covariance model."""
    table = observations(tree["observed_data"]["observations"].values)
    model = CovarianceModel.named(tree["em"].attrs["covariance_model"])
    return Density(table, whole_table(table)[0], Priors.from_json(tree.attrs["prior_values"]), model)
