"""An `EMFit` as named arrays, for files that hold arrays (npz, netCDF), and the same fit back from them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from bayesgmm.checkpoints import Checkpoints
from bayesgmm.covariance import CovarianceModel
from bayesgmm.em.result import EMFit, Maximum, SearchEnd, Start, Status
from bayesgmm.mixture import PARAMETERS, GaussianMixture
from bayesgmm.noise import Noise
from bayesgmm.observations import Missing
from bayesgmm.tables import StandIn

_OF_ITS_OWN = ("mixture", "covariance_model", "status", "search_end", "log_likelihood_path", "starts", "maxima")


def fit_to_arrays(fit: EMFit) -> dict[str, np.ndarray]:
    """A fit as named arrays; `fit_from_arrays` makes an equal fit of them, to the last digit.

    Parameters
    ----------
    fit : EMFit

    Returns
    -------
    dict of str to ndarray
        ``weights`` (K,), ``means`` (K, D), ``covariances`` (K, D, D) and ``log_likelihood_path`` (n_iterations + 1,);
        ``maxima_weights`` (M, K), ``maxima_means`` (M, K, D) and ``maxima_covariances`` (M, K, D, D) of the M maxima
        that come with their parameters; with noise ``noise_weight`` () and ``maxima_noise_weight`` (M,), too; and
        ``record``, everything else as a single string of JSON.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> fit = bg.fit_em(bg.datasets.old_faithful(), 2, rng=0)
    >>> fit_from_arrays(fit_to_arrays(fit)).bic == fit.bic
    True
    """
    record: dict[str, Any] = {f.name: getattr(fit, f.name) for f in fields(fit) if f.name not in _OF_ITS_OWN}
    record["covariance_model"], record["status"] = fit.covariance_model.name, fit.status.name
    record["search_end"] = fit.search_end.name
    record["mixture_features"], record["missing"] = fit.mixture.features, asdict(fit.missing)
    record["noise"] = None if fit.mixture.noise is None else asdict(fit.mixture.noise)
    record["starts"] = [(s.kind, s.status.name, s.log_likelihood, s.n_iterations, s.detail) for s in fit.starts]
    record["maxima"] = [(m.log_likelihood, m.hits, m.spurious, m.detail, m.mixture is not None) for m in fit.maxima]
    mixtures = [maximum.mixture for maximum in fit.maxima if maximum.mixture is not None]
    arrays = {name: np.asarray(getattr(fit.mixture, name)) for name in fit.mixture.parameters}
    if mixtures:
        arrays |= {f"maxima_{name}": np.stack([getattr(m, name) for m in mixtures]) for name in fit.mixture.parameters}
    return arrays | {"log_likelihood_path": fit.log_likelihood_path, "record": np.array(json.dumps(record))}


def fit_from_arrays(arrays: Mapping[str, np.ndarray]) -> EMFit:
    """The fit that `fit_to_arrays` turned into these arrays.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        Others than those of `fit_to_arrays` are ignored.

    Raises
    ------
    KeyError
        If an array is missing.
    """
    record = json.loads(str(arrays["record"]))
    features = record.pop("mixture_features")
    noise = Noise(**box) if (box := record.pop("noise", None)) else None
    best = _mixture(arrays, noise, features)
    path = np.array(arrays["log_likelihood_path"], dtype=float)
    path.flags.writeable = False
    starts = tuple(Start(kind, Status[status], *rest) for kind, status, *rest in record.pop("starts"))
    maxima = tuple(_maxima(record.pop("maxima"), arrays, noise))
    model, status = CovarianceModel.named(record.pop("covariance_model")), Status[record.pop("status")]
    missing, search_end = Missing(**_with_tuples(record.pop("missing"))), SearchEnd[record.pop("search_end")]
    record["stand_ins"] = [StandIn(*one) for one in record["stand_ins"]]
    found: dict[str, Any] = {"starts": starts, "maxima": maxima, "search_end": search_end}
    return EMFit(best, model, status, log_likelihood_path=path, missing=missing, **found, **_with_tuples(record))


def kept_fit(checkpoints: Checkpoints, key: object, make: Callable[[], EMFit]) -> EMFit:
    """The fit that is stored by this key, or the one that ``make`` returns, which is then stored."""
    fits: list[EMFit] = []

    def arrays_of_new_fit() -> dict[str, np.ndarray]:
        fits.append(make())
        return fit_to_arrays(fits[0])

    arrays = checkpoints.arrays(f"fit {key}", arrays_of_new_fit)
    return fits[0] if fits else fit_from_arrays(arrays)


def _with_tuples(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with tuples for lists, which are all that JSON knows."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in record.items()}


def _maxima(records: list[list[Any]], arrays: Mapping[str, np.ndarray], noise: Noise | None) -> Iterator[Maximum]:
    """The maxima of these records, with their parameters where they had any."""
    names, i = [*PARAMETERS, "noise_weight"] if "noise_weight" in arrays else PARAMETERS, 0
    for log_likelihood, hits, spurious, detail, has_parameters in records:
        mixture = None
        if has_parameters:
            mixture = _mixture({name: arrays[f"maxima_{name}"][i] for name in names}, noise)
            i += 1
        yield Maximum(log_likelihood, hits, spurious, detail, mixture)


def _mixture(
    arrays: Mapping[str, np.ndarray], noise: Noise | None, features: tuple[str, ...] | None = None
) -> GaussianMixture:
    """The mixture with these parameters, and with a weight of noise where there is one among them."""
    weights, means, covariances = (arrays[name] for name in PARAMETERS)
    return GaussianMixture(weights, means, covariances, features, arrays.get("noise_weight"), noise)
