"""`Selection`: the fits of several sizes and covariance models, and what follows from them by each criterion."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesgmm.em.grid import Key
from bayesgmm.em.heldout import HeldOut
from bayesgmm.em.result import EMFit
from bayesgmm.errors import InputError
from bayesgmm.observations import numeric_table
from bayesgmm.selection import words
from bayesgmm.selection.criteria import CRITERIA
from bayesgmm.selection.overfitted import Overfitted
from bayesgmm.selection.states import FitOutcome, FitState, PosteriorState
from bayesgmm.selection.table import keys_of, se_of_sum

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from bayesgmm.bayes.evidence import Evidence
    from bayesgmm.bayes.loo import LOO

_OFTEN = 0.1  # share of the replicates in which a fit must have been chosen to be a rival


@dataclass(frozen=True, slots=True)
class Recommendation:
    """A fit to report, why, and what to report beside it.

    Attributes
    ----------
    fit : EMFit
    covariance, n_components : str, int
        Which fit it is.
    reason : str
        Why, without a full stop.
    rivals : tuple of (covariance, n_components)
        Fits that the table does not rule out, best first.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> recommendation = bg.select(X, range(1, 5), criteria="bic", n_replicates=0, rng=0).recommend()
    >>> recommendation.n_components, recommendation.rivals
    (2, (('VVV', 3),))
    >>> recommendation.reason
    'It is the smallest of the 2 fits that tie by BIC'
    """

    fit: EMFit
    covariance: str
    n_components: int
    reason: str
    rivals: tuple[Key, ...]


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class Selection:
    """Fits of several sizes and covariance models, and what each criterion says about them.

    Printed, it says in sentences what each criterion chooses, how sure it is, and what to report. Mappings from fits
    have the keys (covariance, n_components), and cannot be changed.

    Attributes
    ----------
    table : DataFrame
        A row per fit, with NaN where it has no value, and these columns:

        - ``covariance``, ``n_components``, ``log_likelihood`` (nats), ``n_parameters``;
        - ``bic``, ``aic``, ``icl``: smaller is better;
        - ``status``: how the fit ended, or why there is none;
        - with "cv" ``cv_log_density`` and ``cv_log_density_se``: nats, larger is better;
        - with "held_out" ``held_out_log_density`` and ``held_out_log_density_se``: nats a row, larger is better;
        - with replicates ``bic_frequency`` and ``icl_frequency``: the share in which the criterion chose this fit;
        - with "loo" ``elpd_loo``, ``elpd_loo_se`` (nats, larger is better), ``p_loo``, ``pareto_k_max``,
          ``loo_repairs`` (what was done about rows with a high Pareto k) and ``weight`` (by stacking);
        - with "evidence" ``log_evidence`` and ``log_evidence_se``: nats, larger is better;
        - with posteriors ``filled_components`` (posterior mean of the number of components that hold a row) and
          ``posterior`` (whether it is to be trusted, or why there is none).
    criteria : tuple of str
        What was asked for; the first decides.
    fits : mapping to EMFit
        Without those that failed.
    fit_states : mapping to FitState
        How each fit of the table ended.
    densities : mapping
        From "cv" and "loo" to a mapping from fits to the log density (N,) of each row, in nats, times its weight.
    replicates : mapping
        From "bic" and "icl" to a mapping from fits to the criterion (n_replicates,) in each replicate, shifted so that
        its mean is the table's.
    overfitted : Overfitted or None
        What a mixture of too many components with sparse weights says.
    posteriors : mapping to DataTree
    posterior_files : mapping to Path
        Where the draws of a posterior are stored already, if `select` was given ``out``.
    posterior_states : mapping to PosteriorState
        What became of each posterior that was asked for.
    loos : mapping to LOO
    evidences : mapping to Evidence
    held_out : HeldOut or None
        How well each fit to a table in parts predicts the rows that were held out of all of them.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> selection = bg.select(bg.datasets.old_faithful(), range(1, 5), criteria=("bic", "icl"), n_replicates=0, rng=0)
    >>> selection
    Selection(4 fits, bic chooses K=2)
    >>> print(selection.text.splitlines()[2])
    They agree.
    >>> selection.ranking("icl")["n_components"].tolist()
    [2, 3, 4, 1]
    """

    table: pd.DataFrame
    criteria: tuple[str, ...]
    fits: Mapping[Key, EMFit]
    fit_states: Mapping[Key, FitState]
    densities: Mapping[str, Mapping[Key, np.ndarray]] = field(default_factory=dict)
    replicates: Mapping[str, Mapping[Key, np.ndarray]] = field(default_factory=dict)
    overfitted: Overfitted | None = None
    posteriors: Mapping[Key, xr.DataTree] = field(default_factory=dict)
    posterior_files: Mapping[Key, Path] = field(default_factory=dict)
    posterior_states: Mapping[Key, PosteriorState] = field(default_factory=dict)
    loos: Mapping[Key, LOO] = field(default_factory=dict)
    evidences: Mapping[Key, Evidence] = field(default_factory=dict)
    held_out: HeldOut | None = None

    def __post_init__(self) -> None:
        for attribute in fields(self):
            object.__setattr__(self, attribute.name, _frozen(getattr(self, attribute.name)))

    def __getstate__(self) -> list[Any]:
        """The fields with dicts in place of frozen mappings, which cannot be pickled."""
        return [_thawed(getattr(self, attribute.name)) for attribute in fields(self)]

    def __setstate__(self, state: list[Any]) -> None:
        for attribute, value in zip(fields(self), state, strict=True):
            object.__setattr__(self, attribute.name, _frozen(value))

    def probabilities(self, prior: Mapping[int, float] | None = None) -> pd.Series:
        """Posterior probability of each mixture that was given an evidence, indexed by (covariance, n_components).

        Parameters
        ----------
        prior : mapping, optional
            From a number of components to its prior probability, up to a constant; shared equally by the covariance
            models. Equal for all by default. ``.groupby("n_components").sum()`` is the posterior of K.

        Returns
        -------
        Series

        Raises
        ------
        InputError
            If there is no evidence, or the prior leaves out a number of components.
        """
        import pandas as pd

        if not self.evidences:
            raise InputError("there is no evidence; give select criteria with 'evidence'")
        sizes = {K for _, K in self.evidences}
        prior = dict.fromkeys(sizes, 1.0) if prior is None else prior
        if not sizes <= set(prior) or not all(prior[K] >= 0 for K in sizes) or not any(prior[K] for K in sizes):
            raise InputError(
                f"the prior must give a probability to each of {', '.join(f'K={K}' for K in sorted(sizes))}"
            )
        n_models = {K: sum(size == K for _, size in self.evidences) for K in sizes}
        log_p = np.array([evidence.value for evidence in self.evidences.values()])
        with np.errstate(divide="ignore"):
            log_p += np.log([prior[K] / n_models[K] for _, K in self.evidences])
        p = np.exp(log_p - log_p.max())
        index = pd.MultiIndex.from_tuples(self.evidences, names=["covariance", "n_components"])
        return pd.Series(p / p.sum(), index=index, name="probability")

    def log_prob(self, X: Any, features: Sequence[int] | None = None) -> np.ndarray:
        """Log density of rows under the posterior predictives, averaged with their stacking weights.

        Parameters
        ----------
        X : (N, D) rows
        features : sequence of int, optional
            Positions of the features that the columns of X are, for their marginal density; all by default.

        Returns
        -------
        (N,) ndarray
            In nats.

        Raises
        ------
        InputError
            If there are no stacking weights, which come with "loo", or the rows cannot be used.
        """
        from bayesgmm.bayes.posterior import as_mixture

        if "weight" not in self.table:
            raise InputError("there are no stacking weights to average with; give select criteria with 'loo'")
        values, _ = numeric_table(X)
        weighted = []
        for key, weight in zip(keys_of(self.table), self.table["weight"], strict=True):
            if not weight > 0:
                continue
            draws = as_mixture(self.posteriors[key])
            if features is not None:
                draws = draws.marginal(features)
            log_prob = draws.log_prob(values).reshape(-1, len(values))
            predictive = np.logaddexp.reduce(log_prob, axis=0) - math.log(len(log_prob))
            weighted.append(predictive + math.log(weight))
        return np.logaddexp.reduce(weighted, axis=0)

    def best(self, criterion: str = "bic") -> EMFit:
        """The fit that a criterion chooses.

        Parameters
        ----------
        criterion : {"bic", "icl", "aic", "cv", "loo", "evidence", "held_out"}
            The last four only if they were asked for.

        Returns
        -------
        EMFit

        Raises
        ------
        InputError
            For a criterion that is not in the table.
        """
        return self.fits[self._choice(criterion)]

    def ranking(self, criterion: str = "bic") -> pd.DataFrame:
        """The fits from a criterion's best to its worst, and how far each is behind.

        Parameters
        ----------
        criterion : {"bic", "icl", "aic", "cv", "loo", "evidence", "held_out"}
            The last four only if they were asked for.

        Returns
        -------
        DataFrame
            Columns ``covariance``, ``n_components``, ``n_parameters``, ``behind`` (>= 0, in the criterion's unit),
            ``se`` (standard error of ``behind`` from paired rows or replicates; NaN where unknown) and ``tied``: for
            BIC, ICL and AIC whether ``behind`` is below 2 (Kass & Raftery 1995), for others below 2 ``se``, or for the
            evidence below 1.

        Raises
        ------
        InputError
            For a criterion that is not in the table.

        References
        ----------
        Kass, R. E. & Raftery, A. E. (1995). Bayes factors. Journal of the American Statistical Association 90,
        773-795. https://doi.org/10.1080/01621459.1995.10476572
        """
        kind = CRITERIA.get(criterion)
        if kind is None or kind.column not in self.table:
            available = [name for name, known in CRITERIA.items() if known.column in self.table]
            raise InputError(f"criterion {criterion!r} is not in the table; it has {', '.join(available)}")
        rows = self.table[self.table[kind.column].notna()]
        spurious = np.array([self.fit_states[key].outcome is FitOutcome.SPURIOUS for key in keys_of(rows)])
        rows = rows if spurious.all() else rows[~spurious]
        # One component has the same covariance whether it is called equal or varying.
        rows = rows[(rows["n_components"] > 1) | ~rows.duplicated(["n_components", "n_parameters"])]
        order = np.lexsort((rows["n_parameters"], -kind.sign * rows[kind.column]))
        rows = rows.iloc[order].reset_index(drop=True)
        ranking = rows[["covariance", "n_components", "n_parameters"]].copy()
        ranking["behind"] = (rows[kind.column] - rows[kind.column].iloc[0]).abs()
        keys = keys_of(rows)
        ranking["se"] = [self._se_behind(criterion, key, keys[0]) for key in keys]
        ranking["tied"] = (ranking["behind"] < kind.tie) | (ranking["behind"] < kind.tie_se * ranking["se"])
        ranking.loc[0, "tied"] = True
        return ranking

    def _se_behind(self, criterion: str, key: Key, best: Key) -> float:
        """Standard error of the difference between a fit's criterion and the best one's; NaN where unknown."""
        if key == best:
            return 0.0
        if criterion == "evidence":
            return math.hypot(self.evidences[key].se, self.evidences[best].se)
        if criterion == "held_out" and self.held_out is not None:
            return self.held_out.gain(best, over=key)[1]
        if criterion in self.densities:
            of_rows = self.densities[criterion]
            return se_of_sum(of_rows[key] - of_rows[best])
        of_replicates = self.replicates.get(criterion, {})
        if key not in of_replicates or best not in of_replicates:
            return math.nan
        return float((of_replicates[key] - of_replicates[best]).std())

    def _choice(self, criterion: str) -> Key:
        """The fit that a criterion chooses."""
        return keys_of(self.ranking(criterion).head(1))[0]

    def _ties(self, criterion: str) -> list[Key]:
        """The fits that a criterion ties with its choice, which is the first."""
        ranking = self.ranking(criterion)
        return keys_of(ranking[ranking["tied"]])

    def frequencies(self, criterion: str = "bic") -> pd.Series:
        """How often a criterion chose each number of components among the replicates, indexed by K.

        Parameters
        ----------
        criterion : {"bic", "icl"}

        Returns
        -------
        Series
            Shares of the replicates, which sum to one.

        Raises
        ------
        InputError
            If there were no replicates, or the criterion is neither BIC nor ICL.
        """
        return self._shares(criterion).groupby(level="n_components").sum()

    def _shares(self, criterion: str) -> pd.Series:
        """Share of the replicates in which each fit was a criterion's choice."""
        if criterion not in self.replicates:
            raise InputError(f"there are no replicates of {criterion!r}; give select n_replicates, for bic and icl")
        return self.table.set_index(["covariance", "n_components"])[f"{criterion}_frequency"]

    def recommend(self) -> Recommendation:
        """The fit to report: the first criterion's choice, or the smallest of those that tie with it.

        With it come its close rivals: other ties, what other criteria choose, and what the first criterion chose in
        a tenth of the replicates or more. Report them too, or what holds whichever is true.

        Returns
        -------
        Recommendation
        """
        first, *others = self.criteria
        ranking = self.ranking(first)
        tied = ranking[ranking["tied"]]
        chosen = keys_of(tied.sort_values(["n_components", "n_parameters"], kind="stable"))[0]
        ties = {name: self._ties(name) for name in others if name != "aic"}
        agreeing = [CRITERIA[name] for name, keys in ties.items() if chosen in keys]
        rivals = keys_of(tied) + [keys[0] for keys in ties.values() if chosen not in keys]
        if first in self.replicates:
            shares = self._shares(first).sort_values(ascending=False, kind="stable")
            rivals += [(str(covariance), int(K)) for covariance, K in shares[shares >= _OFTEN].index]
        reason = words.reason(first, ranking, chosen, agreeing, words.namer(self.table))
        others_than_chosen = tuple(key for key in dict.fromkeys(rivals) if key != chosen)
        return Recommendation(self.fits[chosen], *chosen, reason, others_than_chosen)

    @property
    def text(self) -> str:
        """What each criterion chooses, how sure of it, and what to report, in sentences."""
        return "\n".join(self._sentences())

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        name = words.namer(self.table)(self._choice(self.criteria[0]))
        return f"Selection({len(self.table)} fits, {self.criteria[0]} chooses {name})"

    def _sentences(self) -> Iterator[str]:
        name = words.namer(self.table)
        rankings = {criterion: self.ranking(criterion) for criterion in self.criteria}
        for criterion, ranking in rankings.items():
            sentence = words.choice(criterion, ranking, name, decides=criterion == self.criteria[0])
            if criterion in self.replicates and len(ranking) > 1:
                n_replicates = len(next(iter(self.replicates[criterion].values())))
                sentence += f" {words.replicated(n_replicates, self._shares(criterion), name)}"
            yield sentence
        if self.held_out is not None:
            yield from words.gains(self.held_out, self._choice("held_out"), name)
        if "bic" in self.criteria:
            yield from words.why_bic_wants_more(self.table, self.fits[self._choice("bic")])
        if self.evidences:
            yield words.size_probabilities(self.probabilities())
        if self.overfitted is not None:
            yield words.filled(self.overfitted)
        yield from words.doubts(self.posterior_states, self._largest_pareto_k(), name)
        choices = {criterion: keys_of(ranking)[0] for criterion, ranking in rankings.items()}
        if len(choices) > 1 and (len(set(choices.values())) > 1 or len(rankings[self.criteria[0]]) > 1):
            yield words.agreement(choices)
        advice = self.recommend()
        yield words.to_report((advice.covariance, advice.n_components), advice.reason, advice.rivals, name)
        yield from words.left_out(self.fit_states, name)

    def _largest_pareto_k(self) -> dict[Key, float]:
        """Of each fit that has a LOO, in the table's order."""
        return {key: float(np.max(self.loos[key].pareto_k)) for key in keys_of(self.table) if key in self.loos}


def _frozen(value: Any) -> Any:
    """A dict, and those in it, as mappings that cannot be changed; anything else as it is."""
    if isinstance(value, dict):
        return MappingProxyType({key: _frozen(entry) for key, entry in value.items()})
    return value


def _thawed(value: Any) -> Any:
    """The counterpart of `_frozen`."""
    if isinstance(value, MappingProxyType):
        return {key: _thawed(entry) for key, entry in value.items()}
    return value
