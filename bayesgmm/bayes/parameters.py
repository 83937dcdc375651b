"""EM beside the posterior, one row per free parameter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesgmm.bayes.posterior import posterior as as_posterior
from bayesgmm.errors import InputError
from bayesgmm.intervals import level, tails
from bayesgmm.mixture import GaussianMixture

if TYPE_CHECKING:
    import pandas as pd


def parameter_table(posterior: Any, ci_prob: float | None = None) -> pd.DataFrame:
    """The EM estimate of each parameter beside its posterior mean, sd and interval.

    Parameters
    ----------
    posterior : DataTree or Posterior
        From `sample_posterior`.
    ci_prob : float, optional
        Probability of the equal-tailed interval; ``arviz.rcParams["stats.ci_prob"]`` by default.

    Returns
    -------
    DataFrame
        Columns ``parameter``, ``component``, ``feature``, ``feature_bis`` (which parameter; None where it has no such
        index), ``em``, ``mean``, ``sd``, ``lower``, ``upper``, ``shift`` ((mean - em) / sd), ``ess_bulk``, ``r_hat``.
        Covariances are listed on and above the diagonal, or on it alone where the model has diagonal ones. The noise's
        weight, if there is noise, comes last.

    Raises
    ------
    InputError
        If the posterior has no EM fit.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> table = bg.parameter_table(bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), draws=500, chains=2, rng=0))
    >>> len(table), bool((table["shift"].abs() < 1).all())
    (12, True)
    """
    drawn = as_posterior(posterior)
    if drawn.em is None:
        raise InputError("parameter_table needs a posterior with its EM fit, as sample_posterior returns it")
    diagonal = drawn.covariance_model.diagonal
    table = describe(drawn.draws, drawn.features, ci_prob, diagonal=diagonal)
    em = np.array([np.asarray(getattr(drawn.em, name))[index] for name, index in _entries(drawn.em, diagonal)])
    table.insert(4, "em", em)
    shift = np.zeros(len(table))
    np.divide(table["mean"] - em, table["sd"], out=shift, where=table["sd"].to_numpy() > 0)
    table.insert(9, "shift", shift)
    return table


def describe(
    draws: GaussianMixture, features: Sequence[str], ci_prob: float | None = None, *, diagonal: bool = False
) -> pd.DataFrame:
    """Posterior mean, sd, interval, effective sample size and R-hat of each parameter of draws (chain, draw)."""
    import arviz as az
    import pandas as pd
    import xarray as xr

    dims = ("chain", "draw", "component", "feature", "feature_bis")
    values = {name: getattr(draws, name) for name in draws.parameters}
    posterior = xr.Dataset({name: (dims[: array.ndim], array) for name, array in values.items()})
    with np.errstate(invalid="ignore"):  # what is fixed, as the weight of a single component, has neither
        ess, r_hat = az.ess(posterior), az.rhat(posterior) if posterior.sizes["chain"] > 1 else None
    mean = {name: array.mean(axis=(0, 1)) for name, array in values.items()}
    sd = {name: array.std(axis=(0, 1), ddof=1) for name, array in values.items()}
    ends = {name: np.quantile(array, tails(level(ci_prob)), axis=(0, 1)) for name, array in values.items()}
    table = pd.DataFrame(
        {
            "parameter": name,
            "component": index[0] if index else None,
            "feature": features[index[1]] if len(index) > 1 else None,
            "feature_bis": features[index[2]] if len(index) > 2 else None,
            "mean": mean[name][index],
            "sd": sd[name][index],
            "lower": ends[name][0][index],
            "upper": ends[name][1][index],
            "ess_bulk": float(ess[name].values[index]),
            "r_hat": float(r_hat[name].values[index]) if r_hat is not None else np.nan,
        }
        for name, index in _entries(draws, diagonal)
    )
    return table if draws.noise_weight is None else table.astype({"component": "Int64"})  # the noise has none


def _entries(mixture: GaussianMixture, diagonal: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and index of each parameter: covariances on and above the diagonal, or on it alone."""
    for name in mixture.parameters:
        for index in np.ndindex(np.shape(getattr(mixture, name))[len(mixture.batch_shape) :]):
            if len(index) < 3 or index[1] == index[2] or (index[1] < index[2] and not diagonal):
                yield name, index
