"""Priors of standard deviations: `HalfNormal`, `LogNormal` and `Exponential`, for `LKJ`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from bayesgmm.bayes.priors.values import frozen, shown
from bayesgmm.errors import InputError


class ScalesPrior(ABC):
    """A prior of standard deviations: parameters as numbers, or one for each feature."""

    code: ClassVar[int]  # the Scales of src/chart.hpp

    def __post_init__(self) -> None:
        for field in fields(self):  # type: ignore[arg-type]
            value = np.asarray(getattr(self, field.name), dtype=np.float64)
            value = frozen(value, f"{field.name} of {type(self).__name__}", 1 if value.ndim else 0)
            if field.name != "location" and not (value > 0).all():
                raise InputError(f"{field.name} of {type(self).__name__} must be positive, not {value}")
            object.__setattr__(self, field.name, value)

    @property
    def parameters(self) -> tuple[np.ndarray, np.ndarray]:
        """The parameters a and b of the methods below; twice the same where there is only one."""
        values = [getattr(self, field.name) for field in fields(self)]  # type: ignore[arg-type]
        return values[0], values[-1]

    @abstractmethod
    def log_constant(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Log normalising constants of the densities of the standard deviations' logarithms, nats."""

    @abstractmethod
    def draws(self, a: np.ndarray, b: np.ndarray, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """Draws of standard deviations."""

    @abstractmethod
    def random_scales(self, name: str, a: np.ndarray, b: np.ndarray, shape: tuple[int, ...]) -> Any:
        """Standard deviations as a random variable of the PyMC model in context."""

    def __str__(self) -> str:
        values = (f"{field.name} {shown(getattr(self, field.name))}" for field in fields(self))  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(values)})"


@dataclass(frozen=True, eq=False)
class HalfNormal(ScalesPrior):
    """Standard deviations with a half-normal prior.

    Parameters
    ----------
    scale : float or (D,)
        Standard deviation of the normal distribution whose positive half it is, in the features' units; about two
        thirds of the probability is below it.

    Raises
    ------
    InputError
        Unless every scale is positive and finite.

    References
    ----------
    Gelman, A. (2006). Prior distributions for variance parameters in hierarchical models. Bayesian Analysis, 1,
    515-534. https://doi.org/10.1214/06-BA117A

    Examples
    --------
    >>> import bayesgmm as bg
    >>> print(bg.LKJ(eta=2, scales=bg.HalfNormal([1.0, 15.0])))
    standard deviations HalfNormal(scale [1, 15]), correlations LKJ(2)
    """

    scale: Any

    code: ClassVar[int] = 0

    def log_constant(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Of the half-normal density."""
        return 0.5 * math.log(2 / math.pi) - np.log(a)

    def draws(self, a: np.ndarray, b: np.ndarray, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """Absolute values of normal draws."""
        return np.abs(rng.normal(0, a, shape))

    def random_scales(self, name: str, a: np.ndarray, b: np.ndarray, shape: tuple[int, ...]) -> Any:
        """A half-normal variable."""
        import pymc as pm

        return pm.HalfNormal(name, sigma=a, shape=shape)


@dataclass(frozen=True, eq=False)
class LogNormal(ScalesPrior):
    """Standard deviations whose logarithm has a normal prior.

    Parameters
    ----------
    location : float or (D,)
        Mean of the logarithm: the median standard deviation is exp(location), in the features' units.
    scale : float or (D,)
        Standard deviation of the logarithm.

    Raises
    ------
    InputError
        Unless every location is finite, and every scale positive and finite.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> print(bg.LKJ(eta=2, scales=bg.LogNormal(location=[0.0, 2.7], scale=0.5)))
    standard deviations LogNormal(location [0, 2.7], scale 0.5), correlations LKJ(2)
    """

    location: Any
    scale: Any

    code: ClassVar[int] = 1

    def log_constant(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Of the normal density of the logarithm."""
        return -0.5 * math.log(2 * math.pi) - np.log(b)

    def draws(self, a: np.ndarray, b: np.ndarray, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """Exponentials of normal draws."""
        return rng.lognormal(a, b, shape)

    def random_scales(self, name: str, a: np.ndarray, b: np.ndarray, shape: tuple[int, ...]) -> Any:
        """A log-normal variable."""
        import pymc as pm

        return pm.LogNormal(name, mu=a, sigma=b, shape=shape)


@dataclass(frozen=True, eq=False)
class Exponential(ScalesPrior):
    """Standard deviations with an exponential prior.

    Parameters
    ----------
    rate : float or (D,)
        One over the mean standard deviation, in one over the features' units.

    Raises
    ------
    InputError
        Unless every rate is positive and finite.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> print(bg.LKJ(eta=2, scales=bg.Exponential(0.5)))
    standard deviations Exponential(rate 0.5), correlations LKJ(2)
    """

    rate: Any

    code: ClassVar[int] = 2

    def log_constant(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Of the exponential density."""
        return np.log(a)

    def draws(self, a: np.ndarray, b: np.ndarray, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """Exponential draws."""
        return rng.exponential(1 / a, shape)

    def random_scales(self, name: str, a: np.ndarray, b: np.ndarray, shape: tuple[int, ...]) -> Any:
        """An exponential variable."""
        import pymc as pm

        return pm.Exponential(name, lam=a, shape=shape)
