"""What the estimators share: everything that follows from the rows' probabilities and log densities."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, DensityMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from bayesgmm.errors import InputError
from bayesgmm.noise import Noise

FLOATS = [np.float64, np.float32]


class MixtureEstimator(ClassNamePrefixFeaturesOutMixin, TransformerMixin, DensityMixin, BaseEstimator, ABC):
    """A mixture with scikit-learn's interface; `predict_proba`, `score_samples` and ``fit`` are the subclass's."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    @abstractmethod
    def predict_proba(self, X: Any) -> np.ndarray:
        """Probability (N, K) of each component given the row; rows sum to one, or to what noise leaves of it."""

    @abstractmethod
    def score_samples(self, X: Any) -> np.ndarray:
        """Log density (N,) of each row, in nats."""

    def fit_predict(self, X: Any, y: Any = None, **parameters: Any) -> np.ndarray:
        """Fit, and return the labels (N,) of the rows, as `predict` has them.

        Parameters
        ----------
        X : (N, D) table
        y : ignored
        **parameters
            Of ``fit``.
        """
        return self.fit(X, y, **parameters).labels_

    def predict(self, X: Any) -> np.ndarray:
        """Label (N,) of the most probable component of each row; -1 where noise is more probable than any."""
        return labels_of(self.predict_proba(X))

    def transform(self, X: Any) -> np.ndarray:
        """The probabilities (N, K) of the components, as features for the next step of a pipeline."""
        return self.predict_proba(X)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Mean log density of the rows, in nats; larger is better.

        Parameters
        ----------
        X : (N, D) table
        y : ignored
        sample_weight : (N,), optional
        """
        log_prob = self.score_samples(X)
        weight = None if sample_weight is None else _check_sample_weight(sample_weight, X)
        return float(np.average(log_prob, weights=weight))

    def _rows_to_fit(self, X: Any) -> np.ndarray:
        """Checked rows (N, D), of which the number and the names of the columns are kept."""
        return self._validated(X, ensure_min_samples=2)

    def _named(self, X: np.ndarray) -> Any:
        """The checked rows with the names of their columns, if these have any."""
        if not hasattr(self, "feature_names_in_"):
            return X
        import pandas as pd

        return pd.DataFrame(X, columns=self.feature_names_in_)

    def _rows(self, X: Any) -> np.ndarray:
        """Rows (N, D) of the columns that were fitted."""
        check_is_fitted(self)
        return self._validated(X, reset=False)

    def _validated(self, X: Any, **checks: Any) -> np.ndarray:
        return validate_data(self, X, dtype=FLOATS, ensure_all_finite="allow-nan", **checks)

    def _seed(self) -> int:
        """A seed that ``random_state`` gives: the same each time where it is a whole number."""
        return int(check_random_state(self.random_state).randint(2**31 - 1))


def labels_of(probabilities: np.ndarray) -> np.ndarray:
    """Labels (N,) of the most probable components by their probabilities (N, K); -1 where what these leave is more."""
    of_noise = 1 - probabilities.sum(axis=1)
    return np.where(of_noise > probabilities.max(axis=1), -1, probabilities.argmax(axis=1))


def check_noise(noise: Any) -> None:
    """Refuse a ``noise`` that is neither a bool nor a `Noise`: rows to come need a density of it too.

    Raises
    ------
    InputError
    """
    if not isinstance(noise, (bool, np.bool_, Noise)):
        raise InputError(f"noise must be True, False or a bayesgmm.Noise, not {noise!r}")
