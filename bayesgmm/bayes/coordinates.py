"""The free coordinates that the precisions of a covariance model have, whatever their prior.

The precision of component k is P P' with P = U A, where U is fixed and A is upper triangular. The coordinates are the
squares of A's diagonal, its entries above the diagonal, and ratios. How many there are depends on the covariance model:

- Components with equal covariances share all of them; diagonal models have no entries above the diagonal; spherical
  models have a single square.
- VEI and VEE multiply one A by relative volumes, a Dirichlet vector over the components.
- EVI and EVV give the squares of every component the same product. Their relative sizes are a Dirichlet vector over the
  features for each component.

- EEV, VEV, EVE and VVE have the squares and ratios of EEI, VEI, EVI and VVI, but along turned axes, and a frame (see
  `bayesgmm.bayes.frames`) for each orientation. The precision along an axis q is a square over q' S q, where S is the
  prior's scale matrix; where components have axes of their own, over the mean of q' S q over the components.

A Dirichlet vector is described by the log ratios of its entries to their geometric mean, all but the last.

Each family in `bayesgmm.bayes.priors` says how these coordinates are distributed, as a subclass of
`PrecisionCoordinates`. LKJ priors use the layout for standard deviations and partial correlations instead.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar

import numpy as np
from scipy.special import gammaln, softmax

from bayesgmm import native
from bayesgmm.bayes import frames
from bayesgmm.covariance import CovarianceModel
from bayesgmm.mixture import GaussianMixture
from bayesgmm.native import address
from bayesgmm.noise import Noise

_SMALLEST = 1e-300  # stands for a weight of zero, whose logarithm would be infinite
_NONE = np.empty(0)


class Ratios(IntEnum):
    """What the Dirichlet vectors are the relative sizes of; the numbers are those of src/chart.hpp."""

    NONE = 0
    VOLUMES = 1
    SQUARES = 2


@dataclass(frozen=True)
class Layout:
    """How many coordinates the precisions of a covariance model have.

    Parameters
    ----------
    n_components, n_features : int
        K and D.
    copies : int
        Rows of squares: K, or 1 where all components share them.
    columns : int
        Squares in a row: D, or 1 where one variance serves all features.
    ratios : Ratios
    above_copies : int
        Rows of entries above the diagonal: K, or 1 where all components share them.
    off_diagonal : int
        Entries in such a row: D (D - 1) / 2, or 0 in diagonal models and along turned axes.
    frames : int
        Frames of turned axes: K, or 1 where all components share it, or 0 in models that are described without.
    """

    n_components: int
    n_features: int
    copies: int
    columns: int
    ratios: Ratios
    above_copies: int
    off_diagonal: int
    frames: int

    @classmethod
    def of(cls, model: CovarianceModel, n_components: int, n_features: int) -> Layout:
        """The layout of a covariance model."""
        ratios = {"VE": Ratios.VOLUMES, "EV": Ratios.SQUARES}.get(model.volume + model.shape, Ratios.NONE)
        return cls(
            n_components=n_components,
            n_features=n_features,
            copies=n_components if model.volume == "V" and ratios is Ratios.NONE else 1,
            columns=1 if model.shape == "I" or ratios is Ratios.SQUARES else n_features,
            ratios=ratios,
            above_copies=n_components if model.orientation == "V" else 1,
            off_diagonal=0 if model.diagonal or model.turned else n_features * (n_features - 1) // 2,
            frames=(n_components if model.orientation == "V" else 1) if model.turned else 0,
        )

    @property
    def ratio_shape(self) -> tuple[int, int]:
        """Number of Dirichlet vectors, and of the entries of each."""
        K, D = self.n_components, self.n_features
        return {Ratios.NONE: (0, 1), Ratios.VOLUMES: (1, K), Ratios.SQUARES: (K, D)}[self.ratios]

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """How many coordinates the squares, the entries above the diagonal, the ratios and the frames take."""
        vectors, entries = self.ratio_shape
        frames = self.frames * self.n_features * (self.n_features - 1)
        return self.copies * self.columns, self.above_copies * self.off_diagonal, vectors * (entries - 1), frames

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """Number of frames, and their rows and columns."""
        return self.frames, self.n_features, self.n_features - 1


def log_ratios(proportions: np.ndarray) -> np.ndarray:
    """Log ratios (..., n - 1) of proportions (..., n) to their geometric mean, all but the last."""
    logs = np.log(np.maximum(proportions, _SMALLEST))
    return (logs - logs.mean(axis=-1, keepdims=True))[..., :-1]


def proportions(log_ratios: np.ndarray) -> np.ndarray:
    """The proportions (..., n) that have the given log ratios (..., n - 1)."""
    last = -log_ratios.sum(axis=-1, keepdims=True)
    return softmax(np.concatenate([log_ratios, last], axis=-1), axis=-1)


def dirichlet_log_constant(concentration: np.ndarray) -> float:
    """Log normalising constant of a Dirichlet density as a function of the log ratios, nats."""
    a = concentration
    return math.log(len(a)) + gammaln(a.sum()) - gammaln(a).sum()


@dataclass(frozen=True, eq=False)
class PrecisionCoordinates(ABC):
    """The free coordinates of a mixture's precisions, and their prior.

    Parameters
    ----------
    layout : Layout
    prior_a, prior_b : (columns,)
        Parameters of the prior of the squares (LKJ: of the standard deviations).
    dirichlet : (n,)
        Concentration of each Dirichlet vector of ratios; empty without ratios.
    """

    layout: Layout
    prior_a: np.ndarray
    prior_b: np.ndarray
    dirichlet: np.ndarray

    kind: ClassVar[int]  # the Kind of src/chart.hpp

    # What each family says.

    @property
    @abstractmethod
    def factor_log_constant(self) -> float:
        """Log normalising constant of the prior of the coordinates other than the ratios, nats."""

    @abstractmethod
    def factor_draws(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draws (n, coordinates) of the coordinates other than the ratios from their prior."""

    @abstractmethod
    def parts_of(self, mixture: GaussianMixture) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Squares (..., copies, columns), entries above the diagonal, ratios and axes as coordinates of mixtures (...).

        The first three may have further entries at the end of their last two axes, which repeat the first ones. The
        axes are (..., frames, D, D).
        """

    @abstractmethod
    def model_values(self, squares: np.ndarray, above: np.ndarray, ratios: np.ndarray) -> dict[str, np.ndarray]:
        """The variables of the PyMC model at given coordinates, each part of them flat."""

    @abstractmethod
    def random_precisions(self) -> Any:
        """The precisions' factors P (K or 1, D, D) as functions of random variables of the PyMC model in context."""

    def chart_fields(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Numbers and arrays of the family's own that the compiled core reads."""
        return {}, {}

    # What follows from that.

    @property
    def log_constant(self) -> float:
        """Logarithm of the prior's normalising constant in these coordinates, nats."""
        vectors, _ = self.layout.ratio_shape
        ratios = dirichlet_log_constant(self.dirichlet) if vectors else 0.0
        axes = frames.log_constant(self.layout.n_features) if self.layout.frames else 0.0
        return float(self.factor_log_constant + vectors * ratios + self.layout.frames * axes)

    @property
    def laplace_excess(self) -> float:
        """By how much frames make an integral over the coordinates exceed Laplace's approximation to it, nats."""
        return self.layout.frames * frames.laplace_excess(self.layout.n_features) if self.layout.frames else 0.0

    def prior_draws(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draws (n, coordinates) from the prior."""
        parts, (vectors, _), n_frames = [self.factor_draws(n, rng)], self.layout.ratio_shape, self.layout.frames
        if vectors:
            parts.append(log_ratios(rng.dirichlet(self.dirichlet, (n, vectors))).reshape(n, -1))
        if n_frames:
            parts.append(frames.drawn((n, n_frames), self.layout.n_features, rng).reshape(n, -1))
        return np.concatenate(parts, axis=1)

    def pack(self, mixture: GaussianMixture) -> np.ndarray:
        """The coordinates (..., n) of the precisions of mixtures (...) that the covariance model can express.

        Of the frames that belong to a mixture these have the highest prior density: all but the last of the axes.
        """
        layout = self.layout
        squares, above, ratios, axes = self.parts_of(mixture)
        parts = (
            squares[..., : layout.copies, : layout.columns],
            above[..., : layout.off_diagonal],
            ratios[..., :-1],
            axes[..., :-1],
        )
        return np.concatenate([part.reshape(*mixture.batch_shape, -1) for part in parts], axis=-1)

    @property
    def log_copies(self) -> float:
        """Log of the number of points at which the coordinates give the same covariances, up to lengths of columns."""
        return frames.log_copies(self.layout.frames, self.layout.n_features) if self.layout.frames else 0.0

    def frames_of(self, thetas: np.ndarray) -> np.ndarray:
        """The frames (..., frames, D, D - 1) in coordinates (..., n)."""
        n = self.layout.sizes[-1]
        return thetas[..., thetas.shape[-1] - n :].reshape(*thetas.shape[:-1], *self.layout.frame_shape)

    def with_frames(self, thetas: np.ndarray, new: np.ndarray) -> np.ndarray:
        """Coordinates (..., n) with other frames (..., frames, D, D - 1)."""
        n = self.layout.sizes[-1]
        return np.concatenate([thetas[..., :-n], new.reshape(*thetas.shape[:-1], n)], axis=-1) if n else thetas

    def aligned(self, thetas: np.ndarray, reference: np.ndarray) -> np.ndarray:
        """Packed coordinates (..., n) of the same mixtures, axes in the directions nearest to a reference's (n,)."""
        axes = self.frames_of(thetas)
        return self.with_frames(thetas, axes * frames.nearest(axes, self.frames_of(reference)))

    def turns(self, thetas: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Packed coordinates (..., n) with turns from a reference's (n,) axes in place of frames, and a log density.

        That is what the turns' log density (...) has more than the frames', both without the density's constant, nats.
        """
        D, own, at = self.layout.n_features, self.frames_of(thetas), self.frames_of(reference)
        turns = frames.turns(frames.axes_of(own), frames.axes_of(at))
        flat = turns.reshape(*thetas.shape[:-1], -1)
        points = np.concatenate([thetas[..., : -self.layout.sizes[-1]], flat], axis=-1)
        return points, (frames.log_density_of_turns(turns, D) - frames.log_constant(D)).sum(axis=-1)

    def from_turns(self, points: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The packed coordinates (..., n) that `turns` gave these for, and the same log density."""
        D, n_frames = self.layout.n_features, self.layout.frames
        n = n_frames * D * (D - 1) // 2
        turns = points[..., -n:].reshape(*points.shape[:-1], n_frames, -1)
        axes = frames.turned(frames.axes_of(self.frames_of(reference)), turns)[..., :-1]
        further = (frames.log_density_of_turns(turns, D) - frames.log_constant(D)).sum(axis=-1)
        return np.concatenate([points[..., :-n], axes.reshape(*points.shape[:-1], -1)], axis=-1), further

    def stretched(self, thetas: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Coordinates (..., n) of the same mixtures, with frames drawn anew given the axes.

        So packed draws of a posterior become draws of the coordinates' posterior.
        """
        if not self.layout.frames:
            return thetas
        return self.with_frames(thetas, frames.stretched(frames.axes_of(self.frames_of(thetas)), rng))

    def compiled(self, n_weights: int) -> tuple[native.Chart, list[np.ndarray]]:
        """The coordinates as the compiled core takes them, after those of weights, and the arrays to keep alive."""
        layout = self.layout
        numbers, arrays = self.chart_fields()
        shared = {"prior_a": self.prior_a, "prior_b": self.prior_b, "dirichlet": self.dirichlet}
        places, kept_alive = native.addresses(shared | {"beta": _NONE, "scale": _NONE} | arrays)
        chart = native.Chart(
            K=layout.n_components,
            D=layout.n_features,
            n_weights=n_weights,
            kind=self.kind,
            ratios=layout.ratios,
            copies=layout.copies,
            columns=layout.columns,
            above_copies=layout.above_copies,
            off_diagonal=layout.off_diagonal,
            n_dirichlet=len(self.dirichlet),
            frames=layout.frames,
            slack=frames.SLACK,
            **numbers,
            **places,
        )
        return chart, kept_alive

    def mixtures(self, thetas: np.ndarray, n_weights: int, noise: Noise | None = None) -> GaussianMixture:
        """The mixtures (...) of coordinates theta (..., n), which begin with those of the weights and the means.

        Where there is a weight more than components, it is the noise's.
        """
        K, D = self.layout.n_components, self.layout.n_features
        batch, flat = thetas.shape[:-1], np.ascontiguousarray(thetas, dtype=np.float64).reshape(-1, thetas.shape[-1])
        weights, means, covariances = (np.empty((len(flat), *shape)) for shape in ((n_weights,), (K, D), (K, D, D)))
        chart, _kept_alive = self.compiled(n_weights)
        native.mixtures(chart, address(flat), len(flat), address(weights), address(means), address(covariances))
        weights = weights.reshape(*batch, n_weights)
        return GaussianMixture(
            weights=weights[..., :K],
            means=means.reshape(*batch, K, D),
            covariances=covariances.reshape(*batch, K, D, D),
            noise_weight=weights[..., K] if n_weights > K else None,
            noise=noise,
        )
