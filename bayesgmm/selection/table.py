"""The table of a selection: a row per fit, to which every criterion adds its columns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesgmm.covariance import CovarianceModel
from bayesgmm.em.grid import Key
from bayesgmm.em.result import EMFit
from bayesgmm.errors import BayesGMMError, DegenerateFitError, InputError
from bayesgmm.selection.states import FitState

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = ("covariance", "n_components", "log_likelihood", "n_parameters", "bic", "aic", "icl", "status")


def em_table(
    results: Mapping[Key, EMFit | BayesGMMError], states: Mapping[Key, FitState], n_features: int
) -> pd.DataFrame:
    """What EM found: a row per covariance model and size, with NaN where a fit failed."""
    import pandas as pd

    rows = []
    for (covariance, K), result in results.items():
        row = {name: getattr(result, name, math.nan) for name in ("log_likelihood", "bic", "aic", "icl")}
        row |= {"covariance": covariance, "n_components": K, "status": states[covariance, K].text}
        own_parameters = CovarianceModel.named(covariance).n_parameters(K, n_features)
        row["n_parameters"] = getattr(result, "n_parameters", K - 1 + K * n_features + own_parameters)
        rows.append(row)
    return pd.DataFrame(rows, columns=list(_COLUMNS))


def add_column(table: pd.DataFrame, column: str, values: Mapping[Key, Any]) -> None:
    """Put a column before the last one, ``status``, with NaN where a fit has no value."""
    table.insert(len(table.columns) - 1, column, [values.get(key, math.nan) for key in keys_of(table)])


def keys_of(table: pd.DataFrame) -> list[Key]:
    """The covariance model and the number of components of each row."""
    return [(str(name), int(K)) for name, K in zip(table["covariance"], table["n_components"], strict=True)]


def se_of_sum(terms: np.ndarray) -> float:
    """Standard error of the sum of N independent terms (N,)."""
    return math.sqrt(len(terms) * terms.var())


def none_succeeded(results: Mapping[Key, EMFit | BayesGMMError]) -> BayesGMMError:
    """The error to raise where every fit failed."""
    first = next(error for error in results.values() if isinstance(error, BayesGMMError))
    if len(results) == 1:
        return first
    kind = InputError if isinstance(first, InputError) else DegenerateFitError
    return kind(f"none of the {len(results)} fits succeeded; the first: {first}")
