"""`GaussianMixture`: one immutable value, or with leading batch axes many, and what follows from its density."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from bayesgmm.errors import InputError
from bayesgmm.observations import numeric_table, positive_integer


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """A finite mixture of Gaussian densities, or a batch of them.

    Parameters
    ----------
    weights : (..., K)
        Mixing proportions, non-negative, summing to one.
    means : (..., K, D)
    covariances : (..., K, D, D)
        Symmetric positive definite.

    Raises
    ------
    InputError
        Where the shapes disagree or a component is not a density; the message names it.

    Notes
    -----
    Leading axes are batch axes: EM's answer has none, a posterior has ``(chain, draw)``. Every method keeps them first.
    The arrays are frozen.

    Examples
    --------
    >>> m = GaussianMixture(weights=[0.5, 0.5], means=[[0.0], [4.0]], covariances=[[[1.0]], [[1.0]]])
    >>> m.predict([[-1.0], [5.0]])
    array([0, 1])
    >>> m.responsibilities([[2.0]])
    array([[0.5, 0.5]])
    """

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray

    def __post_init__(self) -> None:
        for name in ("weights", "means", "covariances"):
            array = np.array(getattr(self, name), dtype=np.float64, order="C")
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        w, m, c = self.weights.shape, self.means.shape, self.covariances.shape
        if self.weights.ndim < 1 or self.means.ndim < 2 or m[:-1] != w or c != (*m, m[-1]) or 0 in m:
            raise InputError(
                f"weights {w}, means {m} and covariances {c} must have shapes (..., K), (..., K, D) and (..., K, D, D)"
            )
        if not (np.isfinite(self.weights).all() and (self.weights >= 0).all()):
            raise InputError("weights must be finite and not negative")
        sums = self.weights.sum(axis=-1)
        if not np.allclose(sums, 1.0, rtol=0, atol=1e-6):
            raise InputError(f"weights must sum to one, not {sums.flat[np.abs(sums - 1).argmax()]:g}")
        if not np.isfinite(self.means).all():
            raise InputError(f"the mean of component {np.argwhere(~np.isfinite(self.means))[0][-2]} is not finite")
        transposed = np.swapaxes(self.covariances, -1, -2)
        scale = np.sqrt(np.abs(np.einsum("...ii->...i", self.covariances)))
        asymmetric = ~(np.abs(self.covariances - transposed) <= 1e-8 * scale[..., :, None] * scale[..., None, :])
        if asymmetric.any():
            raise InputError(
                f"the covariance of component {np.argwhere(asymmetric)[0][-3]} is not symmetric and finite"
            )
        _ = self.precisions_cholesky

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes, ``()`` for a single mixture."""
        return self.weights.shape[:-1]

    @property
    def n_components(self) -> int:
        """Number of components K."""
        return self.means.shape[-2]

    @property
    def n_features(self) -> int:
        """Number of features D."""
        return self.means.shape[-1]

    @cached_property
    def precisions_cholesky(self) -> np.ndarray:
        """Upper triangular P (..., K, D, D) of each precision matrix P P'."""
        from bayesgmm.covariance import precision_cholesky

        D = self.n_features
        flat = self.covariances.reshape(-1, D, D)
        out = np.empty_like(flat)
        for i in range(len(flat)):
            if precision_cholesky(flat[i], out[i]) <= 0:
                index = np.unravel_index(i, self.weights.shape)
                where = f" (batch index {tuple(int(j) for j in index[:-1])})" if index[:-1] else ""
                raise InputError(f"the covariance of component {index[-1]}{where} is not positive definite")
        out.flags.writeable = False
        return out.reshape(self.covariances.shape)

    @property
    def mean(self) -> np.ndarray:
        """Mean of the mixture, (..., D)."""
        return np.einsum("...k,...kd->...d", self.weights, self.means)

    @property
    def covariance(self) -> np.ndarray:
        """Covariance of the mixture, (..., D, D): within plus between the components."""
        offsets = self.means - self.mean[..., None, :]
        between = np.einsum("...k,...ki,...kj->...ij", self.weights, offsets, offsets)
        return np.einsum("...k,...kij->...ij", self.weights, self.covariances) + between

    def log_joint(self, X: Any) -> np.ndarray:
        """log w_k + log N(x | mean_k, covariance_k) in nats, (..., N, K)."""
        from bayesgmm.expectation import log_joint

        return self._each(log_joint, X)

    def log_prob(self, X: Any) -> np.ndarray:
        """Log density of each row in nats, (..., N)."""
        from bayesgmm.expectation import log_prob

        return self._each(log_prob, X)

    def responsibilities(self, X: Any) -> np.ndarray:
        """Probability of each component given the row, (..., N, K); rows sum to one."""
        log_joint = self.log_joint(X)
        log_joint -= log_joint.max(axis=-1, keepdims=True)
        np.exp(log_joint, out=log_joint)
        log_joint /= log_joint.sum(axis=-1, keepdims=True)
        return log_joint

    def predict(self, X: Any) -> np.ndarray:
        """Most probable component of each row, (..., N)."""
        return self.log_joint(X).argmax(axis=-1)

    def log_likelihood(self, X: Any) -> np.ndarray:
        """Sum of the rows' log densities in nats, (...)."""
        return self.log_prob(X).sum(axis=-1)

    def sample(self, n: int, rng: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """Draw n rows from each mixture.

        Parameters
        ----------
        n : int
        rng : Generator, seed or None

        Returns
        -------
        X : (..., n, D)
        labels : (..., n)
            The components that the rows came from.
        """
        n = positive_integer(n, "n", least=0)
        rng = np.random.default_rng(rng)
        edges = np.cumsum(self.weights, axis=-1)[..., None, :-1]
        labels = (rng.random((*self.batch_shape, n, 1)) > edges).sum(axis=-1)
        factor = np.linalg.cholesky(self.covariances)
        pick = labels[..., None]
        means = np.take_along_axis(self.means, pick, axis=-2)
        factors = np.take_along_axis(factor, pick[..., None], axis=-3)
        noise = rng.standard_normal((*labels.shape, self.n_features))
        return means + np.einsum("...ij,...j->...i", factors, noise), labels

    def permute(self, order: Any) -> GaussianMixture:
        """The same mixture with component k the old ``order[..., k]``; one order (K,), or one per batch element."""
        order = np.broadcast_to(np.asarray(order, dtype=np.intp), self.weights.shape)
        if not np.array_equal(np.sort(order, axis=-1), np.broadcast_to(np.arange(self.n_components), order.shape)):
            raise InputError(
                f"an order of {self.n_components} components is a permutation of 0..{self.n_components - 1}"
            )
        return GaussianMixture(
            weights=np.take_along_axis(self.weights, order, axis=-1),
            means=np.take_along_axis(self.means, order[..., None], axis=-2),
            covariances=np.take_along_axis(self.covariances, order[..., None, None], axis=-3),
        )

    def marginal(self, features: Sequence[int]) -> GaussianMixture:
        """The mixture of some of the features, by position."""
        index = np.asarray(features, dtype=np.intp)
        return GaussianMixture(
            weights=self.weights,
            means=self.means[..., index],
            covariances=self.covariances[..., index[:, None], index],
        )

    def _each(self, function: Callable[..., np.ndarray], X: Any) -> np.ndarray:
        """Stack ``function(X, center, parameters, diagonal)`` over the batch."""
        from bayesgmm.expectation import Parameters

        X, _ = numeric_table(X)
        D, K = self.n_features, self.n_components
        if X.shape[1] != D:
            raise InputError(f"the table has {X.shape[1]} columns, the mixture {D} features")
        P = self.precisions_cholesky.reshape(-1, K, D, D)
        means, weights = self.means.reshape(-1, K, D), self.weights.reshape(-1, K)
        diagonal = not np.triu(P, 1).any()
        with np.errstate(divide="ignore"):
            log_scale = np.log(weights) + np.log(np.einsum("bkii->bki", P)).sum(-1) - 0.5 * D * np.log(2 * np.pi)
        centers = np.einsum("bk,bkd->bd", weights, means)
        results = [
            function(
                X,
                centers[b],
                Parameters(np.maximum(log_scale[b], -1e300), means[b] - centers[b], P[b]),
                diagonal,
            )
            for b in range(len(P))
        ]
        return np.stack(results).reshape(*self.batch_shape, *results[0].shape) if results else np.empty(0)
