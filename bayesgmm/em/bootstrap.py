"""What other rows would have given: bootstrap replicates of a fit, and a test of K components against K + 1."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from bayesgmm.alignment import match
from bayesgmm.covariance import CovarianceModel
from bayesgmm.em import ascent
from bayesgmm.em.climber import Climber, make_climber
from bayesgmm.em.fit import fit_em, fit_quietly
from bayesgmm.em.information import StandardErrors
from bayesgmm.em.initialize import moments_of_mixture
from bayesgmm.em.result import EMFit, fitted_table
from bayesgmm.errors import InputError
from bayesgmm.intervals import level, tails
from bayesgmm.mixture import GaussianMixture
from bayesgmm.names import counted
from bayesgmm.noise import Noise
from bayesgmm.observations import Observations, observations, positive_integer
from bayesgmm.progress import Progress, of_stage

_CHUNK_BYTES = 16e6  # of replicates' row weights held at a time
_METHODS = ("nonparametric", "weighted", "parametric")


@dataclass(frozen=True, slots=True, eq=False)
class Bootstrap:
    """Refits of a mixture to replicates of its table.

    Attributes
    ----------
    mixture : GaussianMixture
        Batch shape (n,), components matched to the fit's; n is the number of replicates that did not collapse.
    log_likelihood : (n,)
        Of each replicate at its refit, in nats.
    n_collapsed : int
        Number of replicates that are left out because a component collapsed.
    method : str
        "nonparametric", "weighted" or "parametric", as given to `bootstrap`.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> refits = bg.bootstrap(X, bg.fit_em(X, 2, rng=0), n_replicates=200, rng=0)
    >>> refits.mixture.means.shape, refits.n_collapsed
    ((200, 2, 2), 0)
    >>> refits
    Bootstrap(200 nonparametric refits, K=2, 0 collapsed)
    """

    mixture: GaussianMixture
    log_likelihood: np.ndarray
    n_collapsed: int
    method: str

    def __repr__(self) -> str:
        K, n = self.mixture.n_components, len(self.log_likelihood)
        return f"Bootstrap({counted(n, f'{self.method} refit')}, K={K}, {self.n_collapsed} collapsed)"

    def standard_errors(self) -> StandardErrors:
        """Standard deviations of the parameters over the replicates, and all their covariances.

        Raises
        ------
        InputError
            If there is only one replicate.
        """
        n = len(self.log_likelihood)
        if n < 2:
            raise InputError("standard errors need at least two replicates that did not collapse; there is one")
        parameters = np.concatenate([getattr(self.mixture, x).reshape(n, -1) for x in self.mixture.parameters], axis=1)
        root = (parameters - parameters.mean(axis=0)) / np.sqrt(n - 1)
        return StandardErrors.of_root(root, self.mixture.n_components, self.mixture.n_features)

    def intervals(self, ci_prob: float | None = None) -> dict[str, np.ndarray]:
        """Percentile intervals (2, ...) of ``weights``, ``means`` and ``covariances``: lower ends, then upper ends.

        With noise, of ``noise_weight`` too.

        Parameters
        ----------
        ci_prob : float, optional
            Probability of the intervals; by default ``arviz.rcParams["stats.ci_prob"]``.
        """
        ends = tails(level(ci_prob))
        names = self.mixture.parameters
        return {name: np.quantile(getattr(self.mixture, name), ends, axis=0) for name in names}


def bootstrap(
    X: Any,
    fit: EMFit,
    *,
    method: Literal["nonparametric", "weighted", "parametric"] = "nonparametric",
    n_replicates: int = 999,
    sample_weight: Any = None,
    error_sd: Any = None,
    error_covariance: Any = None,
    noise: Any = None,
    tolerance: float = 1e-4,
    rng: Any = None,
    progress: Progress | None = None,
) -> Bootstrap:
    """Refit a mixture to replicates of its table, each time starting from the fit itself.

    Parameters
    ----------
    X : (N, D) table
        The table that was fitted.
    fit : EMFit
    method : {"nonparametric", "weighted", "parametric"}
        A replicate is either rows drawn with replacement, or the rows with random exponential weights, under which no
        row is ever left out, or a new table drawn from the fit, with the same values missing and the same errors.
    n_replicates : int
        At least 2.
    sample_weight, error_sd, error_covariance : optional
        As in the fit.
    noise : (N,), optional
        Log density of the noise at each row, where the fit was made with one; not for parametric replicates, whose rows
        are others.
    tolerance : float
        Tolerance of each refit, in nats, as in `fit_em`.
    rng : Generator, seed or None
    progress : callable, optional
        Called with the stage "bootstrap replicates", how many are done and their total.

    Returns
    -------
    Bootstrap

    Raises
    ------
    InputError
        For an unknown method, a table that does not belong to the fit, or if every replicate collapsed.

    References
    ----------
    Efron (1979), Annals of Statistics 7:1-26, doi:10.1214/aos/1176344552 (nonparametric).
    Newton & Raftery (1994), Journal of the Royal Statistical Society B 56:3-26, doi:10.1111/j.2517-6161.1994.tb01956.x
    (weighted likelihood).
    O'Hagan, Murphy, Scrucca & Gormley (2019), Computational Statistics 34:1779-1813, doi:10.1007/s00180-019-00897-9
    (all three for mixtures).

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> errors = bg.bootstrap(X, bg.fit_em(X, 2, rng=0), rng=0).standard_errors()
    >>> errors.means.round(1)
    array([[0. , 0.6],
           [0. , 0.5]])
    """
    n_replicates = positive_integer(n_replicates, "n_replicates", least=2)
    if method not in _METHODS:
        raise InputError(f"unknown method {method!r}; use 'nonparametric', 'weighted' or 'parametric'")
    unsupported = ("labels", "fixed", "priors", "reg_covar")
    table = fitted_table(fit, X, sample_weight, unsupported, "bootstrap", error_sd, error_covariance, noise)
    rng, tell = np.random.default_rng(rng), of_stage(progress, "bootstrap replicates")
    climber, _ = make_climber(table, fit.covariance_model, fit.n_components, tolerance=tolerance, max_iterations=1000)
    start = moments_of_mixture(fit.mixture, table.total_weight, climber.center)[None]
    outcomes: list[ascent.Outcomes] = []
    if method == "parametric":
        for done in range(n_replicates):
            outcomes.append(replace(climber, table=_drawn_like(table, fit.mixture, rng)).climb(start)[0])
            tell(done + 1, n_replicates)
    else:
        for row_weights, done in _random_weights(table, method, n_replicates, rng):
            outcomes.append(climber.climb(np.repeat(start, len(row_weights), axis=0), row_weights)[0])
            tell(done, n_replicates)
    return _aligned_replicates(outcomes, fit, climber, method)


def _drawn_like(table: Observations, mixture: GaussianMixture, rng: np.random.Generator) -> Observations:
    """A table of rows drawn from the mixture, with the missing values, errors and total weight of another."""
    if isinstance(table.noise, np.ndarray):
        raise InputError(
            "this noise has a density only at the rows of the table; to draw others, fit with noise=Noise()"
        )
    values = mixture.sample(table.n_observations, rng=rng)[0]
    if table.errors is not None:
        deviates = rng.standard_normal(values.shape)
        if table.errors.ndim == 2:
            values += np.sqrt(table.errors) * deviates
        else:
            level, axes = np.linalg.eigh(table.errors)
            values += np.einsum("...ij,...j->...i", axes * np.sqrt(np.maximum(level, 0.0))[:, None, :], deviates)
    if not table.complete:
        values[table.missing] = np.nan
    values.flags.writeable = False
    n_filled = table.n_observations - len(table.empty)
    return replace(table, values=values, sample_weight=np.full(1, table.total_weight / n_filled))


def _random_weights(
    table: Observations, method: str, n_replicates: int, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, int]]:
    """Random row weights (n, N) in chunks that fit into memory, each with the number of replicates made so far."""
    N, total = table.n_observations, table.total_weight
    chunk = max(int(_CHUNK_BYTES / (8 * N)), 1)
    probabilities = table.weight_of_rows / total
    for done in range(0, n_replicates, chunk):
        size = min(chunk, n_replicates - done)
        if method == "nonparametric":
            row_weights = rng.multinomial(N, probabilities, size=size) * (total / N)
        else:
            row_weights = rng.standard_exponential((size, N)) * probabilities
            row_weights *= total / row_weights.sum(axis=1, keepdims=True)
        yield row_weights, done + size


def _aligned_replicates(outcomes: list[ascent.Outcomes], fit: EMFit, climber: Climber, method: str) -> Bootstrap:
    """The replicates that did not collapse, with their components matched to the fit's."""
    ends = ascent.Outcomes(*(np.concatenate(part) for part in zip(*outcomes, strict=True)))
    sound = ends.codes != ascent.DEGENERATE
    if not sound.any():
        raise InputError(
            "a component collapsed in every bootstrap replicate; use method='weighted' or fewer components"
        )
    mixture = climber.mixture(ends, sound)
    mixture = mixture.permute(match(mixture, fit.mixture))
    return Bootstrap(mixture, ends.progress["log_likelihood"][sound], int((~sound).sum()), method)


@dataclass(frozen=True, slots=True, eq=False)
class LikelihoodRatioTest:
    """Bootstrap test of K components against K + 1; `bootstrap_lrt` makes it.

    Attributes
    ----------
    statistic : float
        Twice the difference in log-likelihood between the two fits.
    replicates : (n,)
        The same statistic on tables drawn from the fit with K components.
    p_value : float
        Share of these that are at least as large as the statistic, with the table itself counted among them.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> test = bg.bootstrap_lrt(bg.datasets.old_faithful(), 1, n_replicates=19, n_starts=4, rng=0)
    >>> round(test.statistic), len(test.replicates)
    (319, 19)
    >>> test
    LikelihoodRatioTest(statistic=319.1, p_value=0.05 from 19 replicates)
    """

    statistic: float
    replicates: np.ndarray
    p_value: float

    def __repr__(self) -> str:
        n = counted(len(self.replicates), "replicate")
        return f"LikelihoodRatioTest(statistic={self.statistic:.4g}, p_value={self.p_value:.3g} from {n})"


def bootstrap_lrt(
    X: Any,
    n_components: int,
    covariance: str | CovarianceModel = "full",
    *,
    n_replicates: int = 199,
    n_starts: int = 20,
    error_sd: Any = None,
    error_covariance: Any = None,
    noise: bool | Noise = False,
    rng: Any = None,
    progress: Progress | None = None,
) -> LikelihoodRatioTest:
    """Test ``n_components`` against one more by the parametric bootstrap of the likelihood ratio.

    Parameters
    ----------
    X : (N, D) table
    n_components : int
        K of the null hypothesis.
    covariance : str or CovarianceModel
    n_replicates : int
        Tables drawn from the fit with K components.
    n_starts : int
        Starts of every fit, to the table and to the replicates alike.
    error_sd, error_covariance : optional
        As in `fit_em`.
    noise : bool or Noise
        Whether rows may belong to no component, in all fits; over the same box in all of them.
    rng : Generator, seed or None
    progress : callable, optional
        Called with the stage "likelihood-ratio replicates", how many are done and their total.

    Returns
    -------
    LikelihoodRatioTest

    Raises
    ------
    InputError, DegenerateFitError
        As `fit_em`; and for a log density of the noise at the rows, from which no other rows can be drawn.

    References
    ----------
    McLachlan (1987), Journal of the Royal Statistical Society C 36:318-324, doi:10.2307/2347790.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> bg.bootstrap_lrt(bg.datasets.old_faithful(), 1, n_replicates=19, n_starts=4, rng=0).p_value
    0.05
    """
    n_replicates = positive_integer(n_replicates, "n_replicates")
    K = positive_integer(n_components, "n_components")
    rng, tell = np.random.default_rng(rng), of_stage(progress, "likelihood-ratio replicates")
    table = observations(X, None, error_sd, error_covariance, noise)
    null = fit_em(table, K, covariance, n_starts=n_starts, rng=rng)
    alternative = fit_quietly(table, K + 1, covariance, n_starts=n_starts, rng=rng)  # doubtful where K are enough
    statistic = 2 * (alternative.log_likelihood - null.log_likelihood)
    replicates = np.empty(n_replicates)
    for r in range(n_replicates):
        drawn = _drawn_like(table, null.mixture, rng)
        smaller, larger = (fit_quietly(drawn, k, covariance, n_starts=n_starts, rng=rng) for k in (K, K + 1))
        replicates[r] = 2 * (larger.log_likelihood - smaller.log_likelihood)
        tell(r + 1, n_replicates)
    n_reached = int((replicates >= statistic).sum())
    return LikelihoodRatioTest(statistic, replicates, (1 + n_reached) / (1 + n_replicates))
