"""EM beside the posterior, one row per free parameter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bayesgmm.bayes.relabel import VARIABLES
from bayesgmm.em.fit import EMFit
from bayesgmm.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr


def compare(fit: EMFit, tree: xr.DataTree, ci_prob: float = 0.89) -> pd.DataFrame:
    """The EM estimate of each parameter beside its posterior mean, sd and interval.

    Parameters
    ----------
    fit : EMFit
    tree : DataTree
        The posterior that `sample_posterior` drew from this fit.
    ci_prob : float
        Probability of the equal-tailed interval.

    Returns
    -------
    DataFrame
        Columns ``parameter``, ``component``, ``feature``, ``feature_bis`` (which parameter; None where it has no such
        index), ``em``, ``mean``, ``sd``, ``lower``, ``upper``, ``shift`` ((mean - em) / sd), ``ess_bulk``, ``r_hat``.
        Covariances are listed on and above the diagonal, or on it alone where the model has diagonal ones.

    Raises
    ------
    InputError
        If fit and tree are not of the same size.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> fit = bg.fit_em(X, 2, rng=0)
    >>> table = bg.compare(fit, bg.sample_posterior(X, fit, draws=500, chains=2, rng=0))
    >>> len(table), bool((table["shift"].abs() < 1).all())
    (12, True)
    """
    import arviz as az
    import pandas as pd

    if not 0 < ci_prob < 1:
        raise InputError(f"ci_prob must be between 0 and 1, not {ci_prob!r}")
    if not isinstance(fit, EMFit):
        raise InputError(f"compare(fit, tree) needs the EM fit first, not {type(fit).__name__}")
    drawn = tree["em"].attrs["covariance_model"]
    if drawn != fit.covariance_model.name:
        raise InputError(f"the posterior is of covariance {drawn}, the fit of {fit.covariance_model.name}")
    posterior = tree["posterior"].to_dataset()[list(VARIABLES)]
    if posterior["means"].shape[2:] != fit.mixture.means.shape:
        raise InputError(
            f"the posterior has means of shape {posterior['means'].shape[2:]}, the fit {fit.mixture.means.shape}"
        )
    with np.errstate(invalid="ignore"):  # what is fixed, as the weight of a single component, has neither
        ess, r_hat = az.ess(posterior), az.rhat(posterior) if posterior.sizes["chain"] > 1 else None
    features = fit.features
    rows = []
    for name in VARIABLES:
        draws = posterior[name].values
        mean, sd = draws.mean(axis=(0, 1)), draws.std(axis=(0, 1), ddof=1)
        lower, upper = np.quantile(draws, [(1 - ci_prob) / 2, (1 + ci_prob) / 2], axis=(0, 1))
        em = getattr(fit.mixture, name)
        for index in np.ndindex(em.shape):
            if len(index) == 3 and (index[1] > index[2] or (fit.covariance_model.diagonal and index[1] < index[2])):
                continue
            rows.append(
                {
                    "parameter": name,
                    "component": index[0],
                    "feature": features[index[1]] if len(index) > 1 else None,
                    "feature_bis": features[index[2]] if len(index) > 2 else None,
                    "em": em[index],
                    "mean": mean[index],
                    "sd": sd[index],
                    "lower": lower[index],
                    "upper": upper[index],
                    "shift": (mean[index] - em[index]) / sd[index] if sd[index] > 0 else 0.0,
                    "ess_bulk": float(ess[name].values[index]),
                    "r_hat": float(r_hat[name].values[index]) if r_hat is not None else np.nan,
                }
            )
    return pd.DataFrame(rows)
