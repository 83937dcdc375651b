"""`GaussianMixture`: an immutable mixture, or with leading batch axes many, and what follows from its density."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from bayesgmm import expectation
from bayesgmm.errors import InputError
from bayesgmm.intervals import level
from bayesgmm.noise import Noise, checked_noise
from bayesgmm.observations import Observations, any_rows, check_names, measured, positive_integer

_LOWEST = -1e300  # stands for the logarithm of zero
_FEWEST_SAMPLES = 1000  # of rows that lack the same values, to compare a row with


PARAMETERS = ("weights", "means", "covariances")  # of a mixture, in the order in which it takes them


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """A finite mixture of Gaussian densities, or a batch of them.

    Parameters
    ----------
    weights : (..., K)
        Mixing proportions, non-negative, summing to one, together with the noise's if there is noise.
    means : (..., K, D)
    covariances : (..., K, D, D)
        Symmetric positive definite.
    features : sequence of D str, optional
        Names of the features. With them, a table whose columns have other names, or the same names in another order, is
        refused; a table without names, such as an array, is not. The mixture of a fit has the names of the table's
        columns, if there are any.
    noise_weight : (...), optional
        Share of rows that belong to no component; None where there is no noise.
    noise : Noise, optional
        Where such rows come from. Without it the methods that need their density take it as an argument ``noise``.

    Raises
    ------
    InputError
        If the shapes disagree, the weights do not sum to one, or a component is not a density; the message names it.

    Notes
    -----
    Leading axes are batch axes: the mixture of an EM fit has none, the draws of a posterior have ``(chain, draw)``. The
    results of all methods have the batch axes first, too. The arrays are read-only.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> m = bg.GaussianMixture(weights=[0.5, 0.5], means=[[0.0], [4.0]], covariances=[[[1.0]], [[1.0]]])
    >>> m.predict([[-1.0], [5.0]])
    array([0, 1])
    >>> m.responsibilities([[2.0]])
    array([[0.5, 0.5]])
    """

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray
    features: tuple[str, ...] | None = None
    noise_weight: Any = None
    noise: Noise | None = None

    def __post_init__(self) -> None:
        for name in PARAMETERS:
            array = np.array(getattr(self, name), dtype=np.float64, order="C")
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        if self.noise_weight is not None:
            object.__setattr__(self, "noise_weight", _frozen(np.array(self.noise_weight, dtype=np.float64)))
        self._check_shapes_and_names()
        self._check_values()
        _ = self.precisions_cholesky

    def _check_shapes_and_names(self) -> None:
        w, m, c = self.weights.shape, self.means.shape, self.covariances.shape
        if self.weights.ndim < 1 or self.means.ndim < 2 or m[:-1] != w or c != (*m, m[-1]) or 0 in m:
            raise InputError(
                f"weights {w}, means {m} and covariances {c} must have shapes (..., K), (..., K, D) and (..., K, D, D)"
            )
        if self.features is not None:
            object.__setattr__(self, "features", tuple(str(name) for name in self.features))
            if len(set(self.features)) != len(self.features) or len(self.features) != m[-1]:
                raise InputError(f"features must be {m[-1]} different names, not {list(self.features)}")
        if np.shape(self.noise_weight) != (w[:-1] if self.noise_weight is not None else ()):
            raise InputError(f"noise_weight {np.shape(self.noise_weight)} must have the batch shape {w[:-1]}")
        if self.noise is not None and self.noise_weight is None:
            raise InputError("a mixture with noise needs a noise_weight")
        if self.noise is not None and len(self.noise.sides) != m[-1]:
            raise InputError(f"the box of the noise has {len(self.noise.sides)} columns, the mixture {m[-1]} features")

    def _check_values(self) -> None:
        if not (np.isfinite(self.weights).all() and (self.weights >= 0).all()):
            raise InputError("weights must be finite and not negative")
        sums = self.weights.sum(axis=-1)
        if self.noise_weight is not None:
            if not ((self.noise_weight >= 0) & (self.noise_weight < 1)).all():
                raise InputError("noise_weight must be at least 0, and less than 1")
            sums = sums + self.noise_weight
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

    def _rearranged(self, of_array: Callable[[np.ndarray, int], np.ndarray]) -> GaussianMixture:
        """The same components in another arrangement, neither checked nor factored again.

        ``of_array`` makes each new array from the array and the number of its axes that are not batch axes.
        """
        mixture = object.__new__(GaussianMixture)
        mixture.__dict__.update(features=self.features, noise=self.noise, noise_weight=None)
        if self.noise_weight is not None:
            mixture.__dict__["noise_weight"] = _frozen(of_array(np.asarray(self.noise_weight), 0))
        for name, event_axes in (("weights", 1), ("means", 2), ("covariances", 3), ("precisions_cholesky", 3)):
            array = np.ascontiguousarray(of_array(getattr(self, name), event_axes))
            array.flags.writeable = False
            mixture.__dict__[name] = array
        return mixture

    def __getitem__(self, index: Any) -> GaussianMixture:
        """A part of the batch: ``mixture[0, 5]`` is one of its mixtures, ``mixture[:, ::10]`` a smaller batch.

        Examples
        --------
        >>> batch = GaussianMixture(np.ones((4, 1)), np.arange(4.0).reshape(4, 1, 1), np.ones((4, 1, 1, 1)))
        >>> batch[2].means, batch[1:].batch_shape
        (array([[2.]]), (3,))
        """
        chosen = np.arange(math.prod(self.batch_shape)).reshape(self.batch_shape)[index]
        return self._rearranged(lambda array, n: array.reshape(-1, *array.shape[array.ndim - n :])[chosen])

    def reshape(self, *batch_shape: int) -> GaussianMixture:
        """The same mixtures with other batch axes: ``mixture.reshape(-1)`` has one."""
        return self._rearranged(lambda array, n: array.reshape(*batch_shape, *array.shape[array.ndim - n :]))

    def __repr__(self) -> str:
        if self.batch_shape:
            return f"GaussianMixture(K={self.n_components}, D={self.n_features}, batch_shape={self.batch_shape})"
        names = [*PARAMETERS, "features"] + ["noise_weight", "noise"] * (self.noise_weight is not None)
        return f"GaussianMixture({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the leading axes, ``()`` for a single mixture."""
        return self.weights.shape[:-1]

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the arrays that say what this mixture is."""
        return PARAMETERS if self.noise_weight is None else (*PARAMETERS, "noise_weight")

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
        from bayesgmm.covariance import precisions_cholesky

        D = self.n_features
        out, pivots = precisions_cholesky(self.covariances.reshape(-1, D, D))
        if not (pivots > 0).all():
            index = np.unravel_index(int(np.argmin(pivots > 0)), self.weights.shape)
            where = f" (batch index {tuple(int(j) for j in index[:-1])})" if index[:-1] else ""
            raise InputError(f"the covariance of component {index[-1]}{where} is not positive definite")
        out.flags.writeable = False
        return out.reshape(self.covariances.shape)

    @property
    def log_scale(self) -> np.ndarray:
        """Log of each component's weight times its density at its own mean, (..., K), in nats.

        That is log w_k + log|P_k| - D/2 log 2 pi, or -1e300 for a weight of zero: an infinity would turn into NaN.
        """
        log_determinant = np.log(np.einsum("...ii->...i", self.precisions_cholesky)).sum(-1)
        with np.errstate(divide="ignore"):
            return np.maximum(
                np.log(self.weights) + log_determinant - 0.5 * self.n_features * np.log(2 * np.pi), _LOWEST
            )

    @property
    def clusters(self) -> GaussianMixture:
        """The mixture of the components alone: what rows come from that are no noise."""
        if self.noise_weight is None:
            return self
        mixture = self._rearranged(lambda array, _: array)
        weights = _frozen(self.weights / self.weights.sum(axis=-1, keepdims=True))
        mixture.__dict__.update(weights=weights, noise_weight=None, noise=None)
        return mixture

    @property
    def log_noise_weight(self) -> Any:
        """Log weight of the noise in nats, (...), or -1e300 for a weight of zero; zero where there is no noise."""
        if self.noise_weight is None:
            return np.zeros(self.batch_shape)[()]
        with np.errstate(divide="ignore"):
            return np.maximum(np.log(self.noise_weight), _LOWEST)

    @property
    def mean(self) -> np.ndarray:
        """Mean of the mixture, (..., D)."""
        within = np.einsum("...k,...kd->...d", self.weights, self.means)
        return within if self.noise_weight is None else within + self._noise_share * self._box.middle

    @property
    def covariance(self) -> np.ndarray:
        """Covariance of the mixture, (..., D, D): that within the components plus that between their means."""
        mean = self.mean
        offsets = self.means - mean[..., None, :]
        between = np.einsum("...k,...ki,...kj->...ij", self.weights, offsets, offsets)
        total = np.einsum("...k,...kij->...ij", self.weights, self.covariances) + between
        if self.noise_weight is None:
            return total
        offset = self._box.middle - mean
        of_noise = np.diag(self._box.sides**2 / 12) + offset[..., :, None] * offset[..., None, :]
        return total + self._noise_share[..., None] * of_noise

    @property
    def _noise_share(self) -> np.ndarray:
        """The noise's weight with an axis for features, (..., 1)."""
        return np.asarray(self.noise_weight)[..., None]

    @property
    def _box(self) -> Noise:
        """The noise as a distribution, which it is only where its density is known everywhere."""
        if self.noise is None:
            raise InputError("this noise has a density only at the rows of the table; fit with noise=Noise() for more")
        return self.noise

    def log_joint(self, X: Any, *, error_sd: Any = None, error_covariance: Any = None) -> np.ndarray:
        """log w_k + log N(x | mean_k, covariance_k) in nats, (..., N, K).

        Parameters
        ----------
        X : (N, D) table
            Of a row's missing values the density is integrated over; a row without any value has log w_k.
        error_sd : (D,) or (N, D), optional
            Standard deviations of the errors that the values were measured with; the mixture is of the true values.
        error_covariance : (D, D) or (N, D, D), optional
            Their covariances, instead.
        """
        return self._each(expectation.log_joint, self._rows(X, error_sd, error_covariance))

    def log_prob(self, X: Any, *, error_sd: Any = None, error_covariance: Any = None, noise: Any = None) -> np.ndarray:
        """Log density of each row's values in nats, (..., N).

        Parameters
        ----------
        X, error_sd, error_covariance
            As in `log_joint`.
        noise : (N,), optional
            Log density of the noise at each row, in nats, where the mixture has a weight of the noise and no `Noise`.
        """
        return self._each(expectation.log_prob, self.with_noise(self._rows(X, error_sd, error_covariance, noise)))

    def responsibilities(
        self, X: Any, *, error_sd: Any = None, error_covariance: Any = None, noise: Any = None
    ) -> np.ndarray:
        """Probability of each component given the row, (..., N, K); parameters as in `log_prob`.

        Rows sum to one, or with noise to 1 - `noise_probability`.
        """
        return self._memberships(X, error_sd, error_covariance, noise)[..., : self.n_components]

    def noise_probability(
        self, X: Any, *, error_sd: Any = None, error_covariance: Any = None, noise: Any = None
    ) -> np.ndarray:
        """Probability that the row belongs to no component, (..., N); parameters as in `log_prob`."""
        return self._memberships(X, error_sd, error_covariance, noise)[..., self.n_components :].sum(axis=-1)

    def predict(self, X: Any, *, error_sd: Any = None, error_covariance: Any = None, noise: Any = None) -> np.ndarray:
        """Label of the most probable component of each row, (..., N); parameters as in `log_prob`.

        It is -1 where no component is as probable as the noise.
        """
        label = self._memberships(X, error_sd, error_covariance, noise).argmax(axis=-1)
        return np.where(label < self.n_components, label, -1)

    def log_likelihood(
        self, X: Any, *, error_sd: Any = None, error_covariance: Any = None, noise: Any = None
    ) -> np.ndarray:
        """Sum of the rows' log densities in nats, (...); parameters as in `log_prob`."""
        return self.log_prob(X, error_sd=error_sd, error_covariance=error_covariance, noise=noise).sum(axis=-1)

    def sample(self, n: int, *, rng: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """Draw n rows from each mixture.

        Parameters
        ----------
        n : int
        rng : Generator, seed or None

        Returns
        -------
        X : (..., n, D)
        labels : (..., n)
            The components that the rows came from, -1 for noise.
        """
        n = positive_integer(n, "n", least=0)
        rng = np.random.default_rng(rng)
        n_edges = self.n_components - (self.noise_weight is None)
        edges = np.cumsum(self.weights, axis=-1)[..., None, :n_edges]
        labels = (rng.random((*self.batch_shape, n, 1)) > edges).sum(axis=-1)
        factor = np.linalg.cholesky(self.covariances)
        pick = np.minimum(labels, self.n_components - 1)[..., None]
        means = np.take_along_axis(self.means, pick, axis=-2)
        factors = np.take_along_axis(factor, pick[..., None], axis=-3)
        deviates = rng.standard_normal((*labels.shape, self.n_features))
        rows = means + np.einsum("...ij,...j->...i", factors, deviates)
        outside = labels == self.n_components
        if outside.any():
            rows[outside] = self._box.sample((int(outside.sum()),), rng)
            labels[outside] = -1
        return rows, labels

    def permute(self, order: Any) -> GaussianMixture:
        """The same mixture with its components in another order.

        Parameters
        ----------
        order : (K,) or (..., K)
            Component k of the result is component ``order[..., k]`` of this mixture; one order for the whole batch, or
            one for each of it.

        Raises
        ------
        InputError
            If it is not a permutation of 0..K - 1.
        """
        order = np.broadcast_to(np.asarray(order, dtype=np.intp), self.weights.shape)
        if not np.array_equal(np.sort(order, axis=-1), np.broadcast_to(np.arange(self.n_components), order.shape)):
            raise InputError(
                f"an order of {self.n_components} components is a permutation of 0..{self.n_components - 1}"
            )
        return self._rearranged(
            lambda array, n: (
                np.take_along_axis(array, order.reshape(*order.shape, *[1] * (n - 1)), axis=-n) if n else array
            )
        )

    def marginal(self, features: Sequence[int]) -> GaussianMixture:
        """The marginal mixture of some of the features, given by their positions."""
        index = self._positions(features)
        return GaussianMixture(
            weights=self.weights,
            means=self.means[..., index],
            covariances=self.covariances[..., index[:, None], index],
            features=self._names(index),
            noise_weight=self.noise_weight,
            noise=None if self.noise is None else self.noise.marginal(index),
        )

    def conditional(self, given: Mapping[int, float]) -> GaussianMixture:
        """The mixture of the other features, conditional on the values of some.

        Parameters
        ----------
        given : mapping
            From the position of a feature to its value.

        Returns
        -------
        GaussianMixture
            Of the remaining features in their order, with the same batch shape.

        Raises
        ------
        InputError
            If no feature would remain, or a position is not one of 0..D - 1.

        Examples
        --------
        >>> S = [[[1.0, 0.5], [0.5, 1.0]]]
        >>> import bayesgmm as bg
        >>> m = bg.GaussianMixture(weights=[1.0], means=[[0.0, 0.0]], covariances=S)
        >>> m.conditional({0: 2.0}).means, m.conditional({0: 2.0}).covariances
        (array([[1.]]), array([[[0.75]]]))
        """
        observed = self._positions(list(given))
        rest = np.setdiff1d(np.arange(self.n_features), observed)
        if not len(rest):
            raise InputError("every feature is given; at least one must be left")
        value = np.array([float(given[int(j)]) for j in observed])
        residual = value - self.means[..., observed]
        within = self.covariances[..., observed[:, None], observed]
        across = self.covariances[..., rest[:, None], observed]
        gain = across @ np.linalg.inv(within)
        at_given, row = self.marginal(observed.tolist()), value[None]
        has_noise = self.noise_weight is not None
        covariances = self.covariances[..., rest[:, None], rest] - gain @ np.swapaxes(across, -1, -2)
        return GaussianMixture(
            weights=at_given.responsibilities(row)[..., 0, :],
            means=self.means[..., rest] + (gain @ residual[..., None])[..., 0],
            covariances=(covariances + np.swapaxes(covariances, -1, -2)) / 2,
            features=self._names(rest),
            noise_weight=at_given.noise_probability(row)[..., 0] if has_noise else None,
            noise=self._box.marginal(rest) if has_noise else None,
        )

    def cdf(self, x: Any) -> np.ndarray:
        """Probability (..., N) that a row of a mixture of one feature is at most x (N,)."""
        from scipy.special import ndtr

        if self.n_features != 1:
            raise InputError(f"the distribution function is for one feature; this mixture has {self.n_features}")
        standard = np.asarray(x, dtype=np.float64)[:, None] - self.means[..., None, :, 0]
        standard /= np.sqrt(self.covariances[..., None, :, 0, 0])
        below = (self.weights[..., None, :] * ndtr(standard)).sum(axis=-1)
        if self.noise_weight is None:
            return below
        inside = (np.asarray(x, dtype=np.float64) - self._box.middle) / self._box.sides + 0.5
        return below + self._noise_share * np.clip(inside, 0.0, 1.0)

    def tail_probability(
        self, X: Any, n_samples: int = 100_000, *, error_sd: Any = None, error_covariance: Any = None, rng: Any = None
    ) -> np.ndarray:
        """Probability (..., N) that a row drawn from the mixture has no higher density than each row of X.

        It is near zero for an outlier. A row with missing values or errors is compared with rows that lack the same
        values and have the same errors; for one without any value the probability is one.

        Parameters
        ----------
        X : (N, D) table
        n_samples : int
            Rows drawn to estimate it; its standard error is sqrt(p (1 - p) / n_samples). The estimate is never zero.
            Groups of rows that share missing values and errors share this number, but have at least 1000 each.
        error_sd, error_covariance : optional
            As in `log_joint`.
        rng : Generator, seed or None
        """
        n, rng = positive_integer(n_samples, "n_samples"), np.random.default_rng(rng)
        table = any_rows(X, error_sd, error_covariance)
        log_prob = self.log_prob(table)
        if table.groups is None:
            return _ranks(log_prob, self._drawn_log_prob(n, rng))
        out = np.ones_like(log_prob)
        n = max(n // max(table.groups.n, 1), min(n, _FEWEST_SAMPLES))
        for rows, columns, errors in table.groups.groups():
            drawn = self._drawn_log_prob(n, rng, partial(measured, columns=columns, errors=errors, rng=rng))
            out[..., rows] = _ranks(log_prob[..., rows], drawn)
        return out

    def density_level(self, ci_prob: float | None = None, n_samples: int = 100_000, *, rng: Any = None) -> np.ndarray:
        """Log density (...), in nats, at the border of the highest-density region of a given probability.

        Parameters
        ----------
        ci_prob : float, optional
            Probability of the region; by default ``arviz.rcParams["stats.ci_prob"]``.
        n_samples : int
            Rows drawn to estimate it.
        rng : Generator, seed or None
        """
        prob = level(ci_prob)
        n, rng = positive_integer(n_samples, "n_samples"), np.random.default_rng(rng)
        return np.quantile(self._drawn_log_prob(n, rng), 1 - prob, axis=-1)

    def highest_density_intervals(self, ci_prob: float | None = None) -> np.ndarray:
        """Highest-density region of a single mixture of one feature, as disjoint intervals (n, 2).

        Parameters
        ----------
        ci_prob : float, optional
            Probability of the whole region; by default ``arviz.rcParams["stats.ci_prob"]``.

        Raises
        ------
        InputError
            For a batch, more than one feature, or a probability that is not between 0 and 1.

        References
        ----------
        Hyndman (1996), The American Statistician 50:120-126, doi:10.1080/00031305.1996.10474359.

        Examples
        --------
        >>> import bayesgmm as bg
        >>> m = bg.GaussianMixture(weights=[0.5, 0.5], means=[[0.0], [9.0]], covariances=[[[1.0]], [[1.0]]])
        >>> m.highest_density_intervals(0.9).round(2)
        array([[-1.64,  1.64],
               [ 7.36, 10.64]])
        """
        from scipy.optimize import brentq

        prob = level(ci_prob)
        if self.batch_shape or self.n_features != 1:
            raise InputError("highest-density intervals are for a single mixture of one feature; see density_level")
        if self.noise_weight is not None:
            raise InputError("noise has no highest-density intervals; ask those of the mixture's clusters")
        sd, mean = np.sqrt(self.covariances[:, 0, 0]), self.means[:, 0]
        grid = np.unique((mean[:, None] + sd[:, None] * np.linspace(-9, 9, 721)).ravel())
        height = self.log_prob(grid[:, None])

        def log_prob(x: float) -> float:
            return float(self.log_prob([[x]])[0])

        def region(border: float) -> np.ndarray:
            inside = height > border
            edges = np.flatnonzero(inside[1:] != inside[:-1])
            ends = [brentq(lambda x: log_prob(x) - border, grid[e], grid[e + 1], xtol=1e-12) for e in edges]
            return np.reshape(ends, (-1, 2))

        def excess(border: float) -> float:
            return float(np.diff(self.cdf(region(border).ravel()).reshape(-1, 2)).sum()) - prob

        return region(brentq(excess, height.max() - 40, height.max() - 1e-9, xtol=1e-10))

    def _drawn_log_prob(
        self, n: int, rng: np.random.Generator, as_measured: Callable[[np.ndarray], Any] = lambda rows: rows
    ) -> np.ndarray:
        """Log densities (..., n) of rows drawn from each mixture, and then measured."""
        rows, _ = self.sample(n, rng=rng)
        if not self.batch_shape:
            return self.log_prob(as_measured(rows))
        out = np.empty(rows.shape[:-1])
        for index in np.ndindex(self.batch_shape):
            out[index] = self[index].log_prob(as_measured(rows[index]))
        return out

    def _positions(self, features: Sequence[int]) -> np.ndarray:
        """Feature positions as a checked index array."""
        index = np.asarray(features)
        if index.ndim != 1 or index.dtype.kind not in "iu" or len(np.unique(index)) != len(index) or not len(index):
            raise InputError(f"features must be a list of distinct positions, not {features!r}")
        if index.min() < 0 or index.max() >= self.n_features:
            raise InputError(f"features are positions 0..{self.n_features - 1}, not {features!r}")
        return index

    def _names(self, index: np.ndarray) -> tuple[str, ...] | None:
        """Names of some of the features, if they have any."""
        return None if self.features is None else tuple(self.features[j] for j in index)

    def _rows(self, X: Any, error_sd: Any, error_covariance: Any, noise: Any = None) -> Observations:
        """Rows to evaluate at, with the noise's density where there is noise and none is given."""
        table, D = any_rows(X, error_sd, error_covariance), self.n_features
        if table.n_features != D:
            raise InputError(f"the table has {table.n_features} columns, the mixture {D} features")
        check_names(table, self.features)
        if self.noise_weight is None and noise is not None:
            raise InputError("this mixture has no noise, so that no density of it can be given")
        given = checked_noise(noise, table.n_observations)
        return table if given is None else replace(table, noise=given)

    def _memberships(self, X: Any, error_sd: Any = None, error_covariance: Any = None, noise: Any = None) -> np.ndarray:
        """Probability of each component given the row, and of noise if there is any, (..., N, K) or (..., N, K + 1)."""
        table = self._rows(X, error_sd, error_covariance, noise)
        log_joint = self._each(expectation.log_joint, table)
        if self.noise_weight is not None:
            of_noise = np.asarray(self.log_noise_weight)[..., None] + self.with_noise(table).noise_density
            log_joint = np.concatenate((log_joint, of_noise[..., None]), axis=-1)
        log_joint -= log_joint.max(axis=-1, keepdims=True)
        np.exp(log_joint, out=log_joint)
        log_joint /= log_joint.sum(axis=-1, keepdims=True)
        return log_joint

    def with_noise(self, table: Observations) -> Observations:
        """The rows with a density of the noise: their own, or the mixture's; without one where there is no noise.

        Raises
        ------
        InputError
            If there is noise, and neither knows its density.
        """
        if self.noise_weight is None:
            return table if table.noise is None else replace(table, noise=None)
        if isinstance(table.noise, np.ndarray):
            return table
        if self.noise is None:
            raise InputError("this noise has a density only at given rows: give its log densities as noise=, (N,)")
        return replace(table, noise=self.noise)

    def _each(self, function: Callable[..., np.ndarray], table: Observations) -> np.ndarray:
        """Stack ``function(rows, parameters, diagonal)`` over the batch."""
        D, K = self.n_features, self.n_components
        P = self.precisions_cholesky.reshape(-1, K, D, D)
        means = self.means.reshape(-1, K, D)
        diagonal = not np.triu(P, 1).any()
        log_scale, log_noise = self.log_scale.reshape(-1, K), np.ravel(self.log_noise_weight)
        centers = np.einsum("bk,bkd->bd", self.clusters.weights.reshape(-1, K), means)
        results = [
            function(
                table.rows(centers[b]),
                expectation.Parameters(log_scale[b], means[b] - centers[b], P[b], log_noise[b]),
                diagonal,
            )
            for b in range(len(P))
        ]
        return np.stack(results).reshape(*self.batch_shape, *results[0].shape) if results else np.empty(0)


def _ranks(log_prob: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Share (..., N) of the drawn log densities (..., n) no higher than each of (..., N), itself counted in."""
    n = drawn.shape[-1]
    flat = zip(drawn.reshape(-1, n), log_prob.reshape(-1, log_prob.shape[-1]), strict=True)
    counts = [np.searchsorted(np.sort(of_one), rows, side="right") for of_one, rows in flat]
    return (1 + np.stack(counts).reshape(log_prob.shape)) / (1 + n)


def _frozen(values: Any) -> Any:
    """The values as a read-only array; as a number where they have no axes."""
    array = np.asarray(values)
    array.flags.writeable = False
    return array[()]
