"""EM beside the posterior, one row per free parameter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bayesgmm.bayes.relabel import VARIABLES
from bayesgmm.bayes.tree import as_mixture
from bayesgmm.em.fit import EMFit
from bayesgmm.errors import InputError
from bayesgmm.mixture import GaussianMixture

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
    if not 0 < ci_prob < 1:
        raise InputError(f"ci_prob must be between 0 and 1, not {ci_prob!r}")
    if not isinstance(fit, EMFit):
        raise InputError(f"compare(fit, tree) needs the EM fit first, not {type(fit).__name__}")
    drawn = tree["em"].attrs["covariance_model"]
    if drawn != fit.covariance_model.name:
        raise InputError(f"the posterior is of covariance {drawn}, the fit of {fit.covariance_model.name}")
    draws = as_mixture(tree)
    if draws.means.shape[2:] != fit.mixture.means.shape:
        raise InputError(f"the posterior has means of shape {draws.means.shape[2:]}, the fit {fit.mixture.means.shape}")
    diagonal = fit.covariance_model.diagonal
    frame = describe(draws, fit.features, ci_prob, diagonal=diagonal)
    em = np.array([getattr(fit.mixture, name)[index] for name, index in _entries(fit.mixture, diagonal)])
    frame.insert(4, "em", em)
    shift = np.zeros(len(frame))
    np.divide(frame["mean"] - em, frame["sd"], out=shift, where=frame["sd"].to_numpy() > 0)
    frame.insert(9, "shift", shift)
    return frame


def describe(
    draws: GaussianMixture, features: Sequence[str], ci_prob: float = 0.89, *, diagonal: bool = False
) -> pd.DataFrame:
    """Posterior mean, sd, interval, effective sample size and R-hat of each parameter of draws (chain, draw)."""
    import arviz as az
    import pandas as pd
    import xarray as xr

    dims = ("chain", "draw", "component", "feature", "feature_bis")
    values = {name: getattr(draws, name) for name in VARIABLES}
    posterior = xr.Dataset({name: (dims[: array.ndim], array) for name, array in values.items()})
    with np.errstate(invalid="ignore"):  # what is fixed, as the weight of a single component, has neither
        ess, r_hat = az.ess(posterior), az.rhat(posterior) if posterior.sizes["chain"] > 1 else None
    mean = {name: array.mean(axis=(0, 1)) for name, array in values.items()}
    sd = {name: array.std(axis=(0, 1), ddof=1) for name, array in values.items()}
    tails = [(1 - ci_prob) / 2, (1 + ci_prob) / 2]
    ends = {name: np.quantile(array, tails, axis=(0, 1)) for name, array in values.items()}
    return pd.DataFrame(
        {
            "parameter": name,
            "component": index[0],
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


def _entries(mixture: GaussianMixture, diagonal: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and index of each parameter: covariances on and above the diagonal, or on it alone."""
    for name in VARIABLES:
        for index in np.ndindex(getattr(mixture, name).shape[len(mixture.batch_shape) :]):
            if len(index) < 3 or index[1] == index[2] or (index[1] < index[2] and not diagonal):
                yield name, index
