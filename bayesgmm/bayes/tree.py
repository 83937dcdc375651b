"""The `DataTree` of a posterior: how it is laid out for ArviZ, and written to a file."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from bayesgmm.bayes.posterior import ERRORS, NOISE, Posterior
from bayesgmm.em.record import fit_to_arrays
from bayesgmm.files import beside
from bayesgmm.mixture import GaussianMixture
from bayesgmm.observations import Observations

LOG_LIKELIHOOD_BUDGET = 500e6  # bytes: the pointwise log-likelihood is stored only while it fits
_BLOCK = 16e6  # bytes of it that are held in double precision at a time
_CHUNK_DRAWS, _CHUNK_ROWS = 4096, 16  # of pointwise log-likelihoods, compressed at a time
# Higher levels of compression take longer and gain a hundredth.
_COMPRESSED: dict[str, Any] = {"zlib": True, "shuffle": True, "complevel": 1}
_DIMS = {
    "weights": ("component",),
    "means": ("component", "feature"),
    "covariances": ("component", "feature", "feature_bis"),
    "noise_weight": (),
}
_CRITERIA = ("log_likelihood", "bic", "aic", "icl", "n_parameters")


def tree_of(drawn: Posterior, attributes: dict[str, Any], *, log_likelihood: bool = True) -> xr.DataTree:
    """The tree of a posterior that has its rows, or a sample of them, and its fit.

    `posterior` makes the same posterior of it.

    Parameters
    ----------
    drawn : Posterior
    attributes : dict
        What else is to be told of the draws.
    log_likelihood : bool
        Whether to store each row's log density under each draw, in single precision, if it takes at most 500 MB.
    """
    table, (chains, draws) = drawn.table_or_sample, drawn.draws.batch_shape
    assert table is not None
    assert drawn.fit is not None
    N = table.n_observations
    draw = {"chain": np.arange(chains), "draw": np.arange(draws)}
    component = {"component": np.arange(drawn.n_components)}
    feature = {"feature": list(drawn.features), "feature_bis": list(drawn.features)}
    # ArviZ and code written for NUTS ask for divergences; draws without trajectories have none.
    statistics = {"diverging": np.zeros((chains, draws), dtype=np.bool_), **drawn.statistics}
    groups = {
        "posterior": xr.Dataset(
            {name: (("chain", "draw", *_DIMS[name]), getattr(drawn.draws, name)) for name in drawn.draws.parameters},
            coords={**draw, **component, **feature},
        ),
        "sample_stats": xr.Dataset(
            {name: (("chain", "draw"), values) for name, values in statistics.items()}, coords=draw
        ),
        "observed_data" if drawn.source is None else "sample": xr.Dataset(
            {"observations": (("observation", "feature"), table.values), **_errors(table), **_noise(table)},
            coords={"observation": np.arange(N), "feature": list(drawn.features)},
        ),
        "em": _fit_group(drawn, {**component, **feature}),
    }
    if drawn.source is not None:
        attributes = attributes | {"source": drawn.source.to_json()}
    elif log_likelihood and 4.0 * N * chains * draws <= LOG_LIKELIHOOD_BUDGET:
        groups["log_likelihood"] = xr.Dataset(
            {"observations": (("chain", "draw", "observation"), _log_likelihood(drawn.draws, table))},
            coords={**draw, "observation": np.arange(N)},
        )
    elif log_likelihood:
        attributes = attributes | {"log_likelihood": "not stored: it would exceed the memory budget"}
    if drawn.draws.noise is not None:
        attributes = attributes | {"noise": json.dumps(asdict(drawn.draws.noise))}
    tree = xr.DataTree.from_dict(groups)
    tree.attrs.update(attributes)
    return tree


def _errors(table: Observations) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """The errors of the values, as the argument of `sample_posterior` that they came in."""
    if table.errors is None:
        return {}
    dims = ("feature",) if table.errors.ndim == 2 else ("feature", "feature_bis")
    values = np.sqrt(table.errors) if table.errors.ndim == 2 else table.errors
    shared = len(values) < table.n_observations
    return {ERRORS[len(dims) - 1]: (dims, values[0]) if shared else (("observation", *dims), values)}


def _noise(table: Observations) -> dict[str, tuple[str, np.ndarray]]:
    """The log density of the noise at each row where it was given as that; a `Noise` is told by an attribute."""
    return {NOISE: ("observation", table.noise)} if isinstance(table.noise, np.ndarray) else {}


def _log_likelihood(draws: GaussianMixture, table: Observations) -> np.ndarray:
    """Log density of each row under each draw, (chain, draw, N), in single precision: to about 1e-6 nats.

    It is worked out for some draws at a time, so that it is never all there in double precision, twice as large.
    """
    flat, n_draws, N = draws.reshape(-1), int(np.prod(draws.batch_shape)), table.n_observations
    out = np.empty((n_draws, N), np.float32)
    step = max(int(_BLOCK / (8 * N)), 1)
    for first in range(0, n_draws, step):
        some = slice(first, first + step)
        out[some] = flat[some].log_prob(table)
    return out.reshape(*draws.batch_shape, N)


def _fit_group(drawn: Posterior, coords: dict[str, Any]) -> xr.Dataset:
    """The EM fit: its estimates, its maxima, and everything else as a record that `fit_from_arrays` reads."""
    fit = drawn.fit
    assert fit is not None
    arrays = fit_to_arrays(fit)
    record = str(arrays.pop("record"))
    dims = {"log_likelihood_path": ("iteration",), **_DIMS}
    dims |= {f"maxima_{name}": ("maximum", *dims) for name, dims in _DIMS.items()}
    return xr.Dataset(
        {name: (dims[name], array) for name, array in arrays.items()},
        coords=coords,
        attrs={
            "covariance_model": fit.covariance_model.name,
            "status": fit.status.value,
            **{name: getattr(fit, name) for name in _CRITERIA},
            "record": record,
        },
    )


def write_tree(tree: xr.DataTree, path: Path) -> None:
    """Write a tree, compressed, to a netCDF file, which is whole or as it was before."""
    encoding = {
        group.path: {
            name: _encoding(array) for name, array in group.data_vars.items() if array.dtype.kind == "f" and array.ndim
        }
        for group in tree.subtree
    }
    with beside(path) as temporary:
        tree.to_netcdf(temporary, engine="h5netcdf", encoding=encoding)


def _encoding(array: xr.DataArray) -> dict[str, Any]:
    """How to store an array: compressed, and pointwise log-likelihoods with many draws of a few rows side by side.

    The draws of one row begin with the same digits, so that it takes two thirds of the time and 15% less room.
    """
    if array.dims != ("chain", "draw", "observation"):
        return _COMPRESSED
    _, draws, rows = array.shape
    return _COMPRESSED | {"chunksizes": (1, min(draws, _CHUNK_DRAWS), min(rows, _CHUNK_ROWS))}
