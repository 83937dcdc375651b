"""What a fit by EM is: the mixture, every start and local maximum, how it ended, and what makes it doubtful."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bayesgmm.covariance import CovarianceModel
from bayesgmm.em.information import StandardErrors, observed_information, of_totals, second_order
from bayesgmm.errors import InputError
from bayesgmm.mixture import GaussianMixture
from bayesgmm.names import listed
from bayesgmm.observations import NOTHING_MISSING, Missing, Observations, check_names, observations
from bayesgmm.parts import Parts
from bayesgmm.passes import Streamed
from bayesgmm.sources import parts_of
from bayesgmm.tables import StandIn

SAME_MAXIMUM = 1e-3  # nats within which two climbs have found the same maximum
RIVALS = 10.0  # nats below the best maximum that another may be to be looked at
_ODDS, _POWER = 3.5, 0.17  # of a better maximum: per share of new ones, and the power of rivals per hit
_UNSEEN, _LEAST_RIVALS = 0.3, 0.01  # what counts as met where nothing was: maxima met once, and rivals
TELLING = 10  # climbs, fewer than which say nothing of other maxima
_SAME_TABLE = 1e-2, 1e-6  # nats, and share of it, by which a table's log-likelihood may differ from its fit's
_FEW_ROWS = 1.5  # fewer are no component but a single row
_WIDE = 30.0  # times the sd that any other component has in a feature; no published fit comes near


class Status(enum.Enum):
    """How a climb ended; the value is the sentence to show.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> bg.fit_em(bg.datasets.old_faithful(), 2, rng=0).status is bg.Status.CONVERGED
    True
    """

    CONVERGED = "converged: the log-likelihood that is left to gain is below the tolerance"
    EXHAUSTED = "stopped at max_iterations before it converged"
    DEGENERATE = "degenerate: a component collapsed onto too few distinct rows"
    LEFT_BEHIND = "not carried on: other starts were ahead after the short runs"


class SearchEnd(enum.Enum):
    """Why a search for maxima ended; the value is the sentence to show.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> bg.fit_em(bg.datasets.old_faithful(), 2, rng=0).search_end is bg.SearchEnd.ENOUGH
    True
    """

    ENOUGH = "a better maximum has become unlikely"
    BUDGET = "the search came to the end of its budget; more starts (n_starts=) may find a better maximum"
    FIXED = "as many starts as were asked for"
    SAMPLE = "the table is long: all starts made short runs over a sample of its rows, and the best went on"
    ONLY = "there is only one maximum"
    GIVEN = "only from the starts that were given"


@dataclass(frozen=True, slots=True)
class Start:
    """One start of a fit, and how the climb from it ended.

    Attributes
    ----------
    kind : str
        Where the start came from, such as "hierarchical" or "k-means++".
    status : Status
    log_likelihood : float
        Where the climb stopped, in nats, plus the log prior if there are priors, and with ``reg_covar`` that of rows as
        blobs; -inf where it degenerated.
    n_iterations : int
    detail : str
        For a degenerate climb, the component that collapsed and its effective number of rows.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> fit = bg.fit_em(bg.datasets.old_faithful(), 2, rng=0)
    >>> fit.starts[0].kind, len(fit.starts)
    ('hierarchical', 20)
    """

    kind: str
    status: Status
    log_likelihood: float
    n_iterations: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Maximum:
    """A local maximum of the likelihood, or of the posterior density, that climbs converged to.

    Attributes
    ----------
    log_likelihood : float
        In nats, plus the log prior if there are priors, and with ``reg_covar`` that of rows as blobs.
    hits : int
        Number of starts that converged to it.
    spurious : bool
        Whether it owes its height to a component with too few rows or a near-singular covariance.
    detail : str
        For a spurious maximum, which component it is and what is wrong with it.
    mixture : GaussianMixture or None
        The parameters there; None but for the twenty highest.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> highest = bg.fit_em(bg.datasets.old_faithful(), 2, rng=0).maxima[0]
    >>> round(highest.log_likelihood, 2), highest.spurious
    (-1130.26, False)
    """

    log_likelihood: float
    hits: int
    spurious: bool
    detail: str = ""
    mixture: GaussianMixture | None = field(default=None, repr=False, compare=False)


def chance_of_better(hits: Sequence[int]) -> float:
    """Chance that a longer search would find a better maximum than the best so far, by how often each was met.

    Of all climbs, about as large a share would end at new maxima as did end at those met once (Good 1953). That share,
    among the maxima that could be the best, how many these are and how often the best was met are what the chance
    depends on; the numbers are fitted to how often searches of random tables fell short of what long searches found.

    Parameters
    ----------
    hits : sequence of int
        Number of climbs that ended at each maximum within ``RIVALS`` nats of the best, spurious ones left out; that of
        the best itself is the first.

    References
    ----------
    Good (1953), Biometrika 40:237-264, doi:10.1093/biomet/40.3-4.237. For stopping rules see Boender & Rinnooy Kan
    (1987), Mathematical Programming 37:59-80, doi:10.1007/BF02591684, and Finch, Mendell & Thode (1989), Journal of the
    American Statistical Association 84:1020-1023, doi:10.1080/01621459.1989.10478867.
    """
    new = (hits.count(1) + _UNSEEN) / (sum(hits) + _UNSEEN)
    rivals = (len(hits) - 1 + _LEAST_RIVALS) / hits[0]
    odds = _ODDS * new * rivals**_POWER
    return odds / (1 + odds)


def merge_maxima(maxima: Iterable[Maximum]) -> tuple[Maximum, ...]:
    """The distinct ones among maxima, highest first, with the hits of equal ones added up."""
    distinct: list[Maximum] = []
    for maximum in sorted(maxima, key=lambda maximum: -maximum.log_likelihood):
        if distinct and distinct[-1].log_likelihood - maximum.log_likelihood < SAME_MAXIMUM:
            distinct[-1] = replace(distinct[-1], hits=distinct[-1].hits + maximum.hits)
        else:
            distinct.append(maximum)
    return tuple(distinct)


@dataclass(frozen=True, slots=True, eq=False)
class EMFit:
    """A Gaussian mixture fitted by EM; `fit_em` makes it.

    Attributes
    ----------
    mixture : GaussianMixture
        Its components are ordered by the first feature's mean, or as in the fit given as ``align_to``.
    covariance_model : CovarianceModel
    status : Status
        How the best climb ended; its value is a sentence.
    log_likelihood : float
        Log-likelihood of exactly the returned parameters, in nats.
    log_likelihood_path : (n_iterations + 1,)
        Log-likelihood after each iteration of the best climb, from its first parameters to the returned ones; it never
        falls. With priors, the log prior (up to a constant) is added; with ``reg_covar``, rows are blobs, and it ends
        below ``log_likelihood``.
    n_iterations : int
    remaining_gain : float
        Estimate of the log-likelihood that further iterations would gain, in nats.
    starts : tuple of Start
        Every start, including those whose climb failed.
    maxima : tuple of Maximum
        The distinct local maxima found, highest first. The returned fit is the highest that is not spurious.
    search_end : SearchEnd
        Why no further climbs were made; its value is a sentence.
    chance_of_better : float
        Chance that a longer search would find a better maximum.
    n_observations, n_features, n_components : int
    total_weight : float
        Sum of ``sample_weight``; without weights, ``n_observations``.
    features : tuple of str
        Names of the columns.
    map_log_responsibility : float
        Sum over the rows of the log responsibility of each row's most probable component, in nats; zero where every
        row certainly belongs to one component.
    constraints : tuple of str
        Which of "labels", "fixed", "priors", "reg_covar" and "errors" the fit was made with.
    n_fixed : int
        Number of parameters that were fixed.
    missing : Missing
        How many values of the table were missing, and where.
    stand_ins : tuple of StandIn
        Values such as -999, far from all others of their column, that may stand for missing ones.
    within_errors : tuple of int
        Components whose variance, in some direction, is not above the errors of measurement.
    n_parameters : int
        Number of free parameters.
    bic, aic, icl : float
        -2 log-likelihood plus a penalty: smaller is better (mclust prints the opposite sign).
    spurious : bool
    doubts : tuple of str
    search : str
        How often the fit was found, and that chance, in words.

    References
    ----------
    Schwarz (1978), Annals of Statistics 6:461-464, doi:10.1214/aos/1176344136 (BIC).
    Akaike (1974), IEEE Transactions on Automatic Control 19:716-723, doi:10.1109/TAC.1974.1100705 (AIC).
    Biernacki, Celeux & Govaert (2000), IEEE Transactions on Pattern Analysis and Machine Intelligence 22:719-725,
    doi:10.1109/34.865189 (ICL).
    Boender & Rinnooy Kan (1987), Mathematical Programming 37:59-80, doi:10.1007/BF02591684 (stopping rules).
    Finch, Mendell & Thode (1989), Journal of the American Statistical Association 84:1020-1023,
    doi:10.1080/01621459.1989.10478867 (how adequate a search is).

    Examples
    --------
    >>> import bayesgmm as bg
    >>> fit = bg.fit_em(bg.datasets.old_faithful(), 2, rng=0)
    >>> fit.n_components, fit.n_parameters, round(fit.bic, 2)
    (2, 11, 2322.19)
    """

    mixture: GaussianMixture
    covariance_model: CovarianceModel
    status: Status
    log_likelihood: float
    log_likelihood_path: np.ndarray
    n_iterations: int
    remaining_gain: float
    starts: tuple[Start, ...]
    maxima: tuple[Maximum, ...]
    search_end: SearchEnd
    n_observations: int
    total_weight: float
    features: tuple[str, ...]
    map_log_responsibility: float
    constraints: tuple[str, ...] = ()
    n_fixed: int = 0
    missing: Missing = NOTHING_MISSING
    within_errors: tuple[int, ...] = ()
    stand_ins: tuple[StandIn, ...] = ()

    @property
    def n_components(self) -> int:
        """Number of components K."""
        return self.mixture.n_components

    @property
    def n_features(self) -> int:
        """Number of features D."""
        return self.mixture.n_features

    @property
    def n_parameters(self) -> int:
        """Free parameters: weights, means, and the covariance model's own, without those that were fixed.

        There are K - 1 weights, or K with noise, and K D means.
        """
        K, D = self.n_components, self.n_features
        n_weights = K - (self.mixture.noise_weight is None)
        return n_weights + K * D + self.covariance_model.n_parameters(K, D) - self.n_fixed

    @property
    def penalised(self) -> bool:
        """Whether the fit maximises something else than the likelihood, under ``priors`` or with ``reg_covar``."""
        return not {"priors", "reg_covar"}.isdisjoint(self.constraints)

    @property
    def bic(self) -> float:
        """Bayesian information criterion, -2 log L + n_parameters log N; smaller is better."""
        return -2 * self.log_likelihood + self.n_parameters * math.log(self.total_weight)

    @property
    def aic(self) -> float:
        """Akaike's information criterion, -2 log L + 2 n_parameters; smaller is better."""
        return -2 * self.log_likelihood + 2 * self.n_parameters

    @property
    def icl(self) -> float:
        """Integrated completed likelihood, BIC - 2 ``map_log_responsibility``; smaller is better."""
        return self.bic - 2 * self.map_log_responsibility

    @property
    def spurious(self) -> bool:
        """Whether every maximum that was found, and with them this fit, is spurious."""
        return all(maximum.spurious for maximum in self.maxima)

    @property
    def chance_of_better(self) -> float:
        """Chance that a longer search would find a better maximum, by how often this one and its rivals were met.

        NaN where fewer than ten climbs have told of other maxima, or none because they began from given starts.
        """
        if self.search_end is SearchEnd.ONLY:
            return 0.0
        if self.search_end is SearchEnd.GIVEN or self._n_climbs < TELLING:
            return math.nan
        best = self._maximum
        rivals = (m for m in self.maxima if abs(m.log_likelihood - best.log_likelihood) < RIVALS)
        return chance_of_better([m.hits for m in rivals if m.spurious == best.spurious])

    @property
    def search(self) -> str:
        """How often the fit was found, and the chance that there is a better maximum."""
        climbs, chance = self._n_climbs, self.chance_of_better
        found = f"found in {self._maximum.hits} of {climbs} climb{'s' * (climbs > 1)}"
        if math.isnan(chance) or self.search_end is SearchEnd.ONLY:
            return found
        return f"{found}; chance of a better maximum {'below 1 %' if chance < 0.01 else f'about {100 * chance:.0f} %'}"

    @property
    def _n_climbs(self) -> int:
        """Number of climbs that ended at maxima."""
        return sum(maximum.hits for maximum in self.maxima)

    @property
    def _maximum(self) -> Maximum:
        """The maximum that the fit is at: the highest, spurious ones left out where there is another."""
        return next((maximum for maximum in self.maxima if not maximum.spurious), self.maxima[0])

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why this fit may not be what it seems and what to do, a clause for each reason; empty if there is none.

        Every maximum is spurious; a component holds a single row or none; or a component is many times as wide as any
        other, which happens where rows lie far out or tails are heavier than normal; or a component is flat beside the
        errors of measurement; or values such as -999 may stand for missing ones.
        """
        reasons = [_every_maximum_spurious(self), _flat_components(self)]
        if self.n_components > 1:
            reasons += [_component_of_few_rows(self), _component_too_wide(self)]
        reasons += [f"{one}; if that stands for a missing value, give NaN instead" for one in self.stand_ins]
        return tuple(reason for reason in reasons if reason is not None)

    def standard_errors(
        self,
        X: Any,
        sample_weight: Any = None,
        error_sd: Any = None,
        error_covariance: Any = None,
        noise: Any = None,
        *,
        robust: bool = False,
    ) -> StandardErrors:
        """Standard errors of all parameters, from the observed information at this maximum-likelihood fit.

        Parameters
        ----------
        X : (N, D) table, or a table in parts
            The table that was fitted; what `open_table` takes is read once.
        sample_weight, error_sd, error_covariance : optional
            As in the fit.
        noise : (N,), optional
            Log density of the noise at each row, where the fit was made with one.
        robust : bool
            Sandwich standard errors, which are right also where the rows are not from such a mixture: with the
            information H and the sum J of the products of the rows' scores, H^-1 J H^-1 in place of H^-1 (White 1982).

        Returns
        -------
        StandardErrors
            Valid in large samples.

        Raises
        ------
        InputError
            If this is not the table that was fitted, the fit was made with labels, fixed parts, priors or
            ``reg_covar``, or it is not at a maximum that the data determine well; or if robust ones are wanted where
            values are missing or measured with errors, or there is noise.

        See Also
        --------
        bootstrap : standard errors and intervals without the large-sample approximation.

        References
        ----------
        Louis, T. A. (1982). Finding the observed information matrix when using the EM algorithm. Journal of the Royal
        Statistical Society B, 44, 226-233. https://doi.org/10.1111/j.2517-6161.1982.tb01203.x

        White, H. (1982). Maximum likelihood estimation of misspecified models. Econometrica, 50, 1-25.
        https://doi.org/10.2307/1912526

        Examples
        --------
        >>> import bayesgmm as bg
        >>> X = bg.datasets.old_faithful()
        >>> bg.fit_em(X, 2, rng=0).standard_errors(X).means.round(2)
        array([[0.03, 0.59],
               [0.03, 0.46]])
        """
        unsupported, of_rows = ("labels", "fixed", "priors", "reg_covar"), (error_sd, error_covariance, noise)
        if (parts := parts_of(X)) is not None:
            given = {"sample_weight": sample_weight, "error_sd": error_sd, "error_covariance": error_covariance}
            check_fitted_parts(self, parts, given | {"noise": noise}, unsupported, "standard_errors")
            mixture, model, center = self.mixture, self.covariance_model, self.mixture.clusters.mean
            totals = second_order(Streamed(parts, center), mixture, model, center, scores=robust)
            check_log_likelihood(self, totals.log_likelihood)
            return of_totals(mixture, model, totals, self.total_weight, robust)
        table = fitted_table(self, X, sample_weight, unsupported, "standard_errors", *of_rows)
        return observed_information(self.mixture, self.covariance_model, table, robust)

    def __repr__(self) -> str:
        share = self.mixture.noise_weight
        of_noise = "" if share is None else f" and noise of weight {share:.3g}"
        return (
            f"EMFit({self.covariance_model.label(self.n_features)}, K={self.n_components}{of_noise}, "
            f"log_likelihood={self.log_likelihood:.4f}, bic={self.bic:.2f}, {self.status.name.lower()} "
            f"after {self.n_iterations} iterations, {self.search})"
        )


def _every_maximum_spurious(fit: EMFit) -> str | None:
    if not fit.spurious:
        return None
    return f"every maximum found is spurious: {fit.maxima[0].detail}; use priors, fewer components or more starts"


def _flat_components(fit: EMFit) -> str | None:
    if not fit.within_errors:
        return None
    several = len(fit.within_errors) > 1
    return (
        f"the variance of component{'s' * several} {listed(fit.within_errors)} is not above the errors of measurement "
        "in some direction, where the estimate is zero; a posterior says how large it may be"
    )


def _component_of_few_rows(fit: EMFit) -> str | None:
    rows = fit.mixture.weights * fit.n_observations
    k, n = int(rows.argmin()), int((rows < _FEW_ROWS).sum())
    if not n:
        return None
    others = f", and {n - 1} other{'s' * (n > 2)} hardly more" if n > 1 else ""
    return (
        f"component {k} holds {rows[k]:.1f} effective rows{others}; use fewer components, and see whether "
        "single rows lie far out"
    )


def _component_too_wide(fit: EMFit) -> str | None:
    sds = np.sqrt(np.einsum("kjj->kj", fit.mixture.covariances))
    second, widest = np.sort(sds, axis=0)[-2:]
    ratio = widest / second
    j = int(ratio.argmax())
    if not ratio[j] > _WIDE:
        return None
    return (
        f"component {sds[:, j].argmax()} is {ratio[j]:.0f} times as wide as any other in {fit.features[j]!r}: "
        "tails heavier than normal, or rows far out; transform the feature, or leave them out"
    )


def fitted_table(
    fit: EMFit,
    X: Any,
    sample_weight: Any,
    unsupported: tuple[str, ...],
    user: str,
    error_sd: Any = None,
    error_covariance: Any = None,
    noise: Any = None,
) -> Observations:
    """The table that was fitted.

    Parameters
    ----------
    fit : EMFit
    X, sample_weight
        As given to ``user``, which needs the table of the fit.
    unsupported : tuple of str
        Constraints of the fit that ``user`` cannot take account of.
    user : str
        What needs the table, as the messages call it.
    error_sd, error_covariance : optional
        As given to ``user``.
    noise : (N,), optional
        Log density of the noise at each row, where the fit was made with one.

    Raises
    ------
    InputError
        If this is another table than was fitted, or the fit has a constraint that is not supported.
    """
    _check_is_fit(fit, user)
    noise = fit.mixture.noise if noise is None else noise
    table = observations(X, sample_weight, error_sd, error_covariance, noise)
    if table.noise is not None and fit.mixture.noise_weight is None:
        raise InputError("the fit was made without noise; refit with it")
    if table.noise is None and fit.mixture.noise_weight is not None:
        raise InputError("the fit was made with log densities of the noise at its rows; give them as noise=")
    _check_shape(fit, table)
    if abs(table.total_weight - fit.total_weight) > 1e-9 * fit.total_weight:
        raise InputError("the row weights are not those of the fit; give the same sample_weight, or refit without")
    if (table.errors is None) == ("errors" in fit.constraints):
        made = "with" if table.errors is None else "without"
        raise InputError(f"the fit was made {made} errors of measurement; give {user} the same, or refit")
    _check_constraints(fit, unsupported, user)
    if "labels" not in fit.constraints:
        check_log_likelihood(fit, float((fit.mixture.log_prob(table) * table.sample_weight).sum()))
    return table


def check_fitted_parts(
    fit: EMFit, parts: Parts, of_rows: Mapping[str, Any], unsupported: tuple[str, ...], user: str
) -> None:
    """Refuse a table in parts that is not as the one that was fitted, as far as can be told without its rows.

    Parameters
    ----------
    fit, unsupported, user
        As in `fitted_table`.
    parts : Parts
    of_rows : mapping
        What was given with an entry for each row, by name; it would have to be in parts as well.
    """
    _check_is_fit(fit, user)
    refuse_what_is_for_rows(of_rows)
    _check_shape(fit, parts)
    if fit.mixture.noise_weight is not None or "errors" in fit.constraints:
        raise InputError(f"the fit was made with noise or errors of measurement; {user} needs its table in memory")
    if fit.missing.n_rows:
        raise InputError(
            f"{fit.missing}. With a table in parts {user} can be had of complete rows only; fit these alone, or a "
            "random sample of all rows in memory (bg.random_rows)"
        )
    if abs(parts.n_observations - fit.total_weight) > 1e-9 * fit.total_weight:
        raise InputError("the fit was made with weights of the rows, which cannot be given with a table in parts")
    _check_constraints(fit, unsupported, user)


def refuse_what_is_for_rows(settings: Mapping[str, Any]) -> None:
    """Refuse arguments with an entry for each row, which would have to be in parts as well."""
    for name, value in settings.items():
        if value is not None and value is not False:
            raise InputError(f"{name} cannot be given with a table in parts; read the table into memory, if it fits")


def check_log_likelihood(fit: EMFit, log_likelihood: float) -> None:
    """Refuse a table that has another log-likelihood under the fit than the table that was fitted."""
    if not abs(log_likelihood - fit.log_likelihood) <= _SAME_TABLE[0] + _SAME_TABLE[1] * abs(log_likelihood):
        raise InputError(
            f"this is another table than was fitted, though as large: its log-likelihood under the fit is "
            f"{log_likelihood:.2f}, not {fit.log_likelihood:.2f}; give the table that was fitted, or refit"
        )


def _check_is_fit(fit: Any, user: str) -> None:
    if not isinstance(fit, EMFit):
        raise InputError(f"{user} needs the fit that fit_em returned, not {type(fit).__name__}")


def _check_shape(fit: EMFit, table: Observations | Parts) -> None:
    if table.n_features != fit.n_features:
        raise InputError(f"the table has {table.n_features} columns, the fit {fit.n_features}")
    check_names(table, fit.mixture.features)
    if table.n_observations != fit.n_observations:
        raise InputError(
            f"the table has {table.n_observations} rows, the fit {fit.n_observations}; give the table that was fitted"
        )


def _check_constraints(fit: EMFit, unsupported: tuple[str, ...], user: str) -> None:
    for name in unsupported:
        if name in fit.constraints:
            raise InputError(f"{user} cannot take account of {name}=, which the fit was made with; refit without")
