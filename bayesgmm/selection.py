"""`select`: the number of components and the covariance model by several criteria, side by side in one table.

Each criterion answers a question of its own, and says how sure it is of its answer. The fits are `em.grid`'s; nothing
here climbs or samples by itself.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesgmm.covariance import NAMES, CovarianceModel
from bayesgmm.em.fit import EMFit
from bayesgmm.em.grid import Grid, Key, fit_grid
from bayesgmm.em.refits import Replicates, held_out_log_density, replicates
from bayesgmm.errors import BayesGMMError, ConvergenceWarning, DegenerateFitError, InputError
from bayesgmm.kept import Kept
from bayesgmm.names import listed
from bayesgmm.observations import Observations, numeric_table, observations, positive_integer

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from bayesgmm.bayes.evidence import Evidence
    from bayesgmm.bayes.loo import LOO


@dataclass(frozen=True, slots=True)
class Criterion:
    """A column to choose by.

    Attributes
    ----------
    column : of `Selection.table`
    sign : 1 where larger is better, -1 where smaller is
    title : its name in a sentence
    question : that it answers
    """

    column: str
    sign: int
    title: str
    question: str


CRITERIA = {
    "bic": Criterion("bic", -1, "BIC", "which mixture do these rows speak for, each component a cluster"),
    "icl": Criterion("icl", -1, "ICL", "which clusters stand apart, so that it is clear which row belongs where"),
    "aic": Criterion("aic", -1, "AIC", "which mixture predicts new rows; it tends to too many components"),
    "cv": Criterion(
        "cv_log_density", 1, "The held-out log density", "which mixture predicts rows that it has not seen"
    ),
    "loo": Criterion("elpd_loo", 1, "LOO", "which posterior, all its draws together, predicts new rows"),
    "evidence": Criterion(
        "log_evidence", 1, "The evidence", "which mixture and prior together made these rows most likely"
    ),
}
_FROM_POSTERIORS = ("loo", "evidence")
_OVERFITTED = 10  # components that an overfitted mixture has at least
_SWEEPS = 10  # of its Gibbs sampler for each draw
_AGREE = 1.05  # R-hat from which its chains do not agree
_TIE = 2.0  # of BIC, ICL, AIC and twice log evidence: "not worth more than a bare mention" (Kass & Raftery 1995)
_STRENGTHS = ((2.0, "barely"), (6.0, "positively"), (10.0, "strongly"), (math.inf, "very strongly"))
_CONTENDERS, _CONTENDER_BIC = 5, 10.0  # the most fits that are given a posterior, and how far behind
_COMPARED = 3  # posteriors to compare at least, where as many can be had
_REPLICATED = 25  # the most fits that are refitted to replicates
_FOLD_STARTS = 10
_RELIABLE_PARETO_K = 0.7  # Vehtari, Gelman & Gabry (2017)


@dataclass(frozen=True, slots=True)
class Recommendation:
    """A fit to report, why, and what to report beside it.

    Attributes
    ----------
    fit : EMFit
    covariance, n_components : which fit it is
    reason : a sentence
    rivals : tuple of (covariance, n_components)
        That the table does not rule out, best first.
    """

    fit: EMFit
    covariance: str
    n_components: int
    reason: str
    rivals: tuple[Key, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Overfitted:
    """How many components of too many the rows fill, where the prior of the weights favours empty ones.

    Attributes
    ----------
    covariance, n_components : the mixture
    probabilities, prior : (n_components + 1,)
        Posterior and prior probability that 0, 1, ... components hold at least one row.
    filled, concentration : (chain, draw)
        How many do in each draw, and the concentration of the Dirichlet weights, whose prior is exponential with mean
        0.05.
    r_hat, ess : float
        Of ``filled``: whether the chains agree (below 1.05), and how many independent draws they are worth.
    """

    covariance: str
    n_components: int
    probabilities: np.ndarray
    prior: np.ndarray
    filled: np.ndarray
    concentration: np.ndarray
    r_hat: float
    ess: float


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """Fits of several sizes and covariance models, and what each criterion says of them.

    Attributes
    ----------
    table : DataFrame
        A row per fit: ``covariance``, ``n_components``, ``log_likelihood`` (nats), ``n_parameters``, ``bic``, ``aic``,
        ``icl`` (smaller is better), and where asked for ``cv_log_density``, ``cv_log_density_se`` (nats, larger is
        better), ``bic_frequency``, ``icl_frequency`` (how often the criterion chose this fit among replicates),
        ``elpd_loo``, ``elpd_loo_se``, ``p_loo``, ``pareto_k_max``, ``loo_repairs`` (what was done about rows of high
        Pareto k), ``weight`` (stacking), ``log_evidence``, ``log_evidence_se`` (nats), ``filled_components`` (posterior
        mean of how many hold a row), ``posterior`` (whether the chains converged); ``status`` says how the fit ended,
        or why there is none.
    fits : mapping
        From (covariance, n_components) to EMFit, without those that failed.
    posteriors : mapping
        From (covariance, n_components) to DataTree.
    criteria : tuple of str
        What was asked for.
    densities : mapping
        From "cv" and "loo" to a mapping from fits to the log density (N,) of each row, in nats, times its weight.
    loos, evidences : mapping
        From (covariance, n_components) to `LOO` and `Evidence`.
    overfitted : Overfitted or None
        What a mixture of too many components with sparse weights says.
    replicates : mapping
        From "bic" and "icl" to a mapping from fits to the criterion (n_replicates,) in each replicate, centred at the
        table's.
    """

    table: pd.DataFrame
    fits: Mapping[Key, EMFit]
    posteriors: Mapping[Key, xr.DataTree]
    criteria: tuple[str, ...]
    densities: Mapping[str, Mapping[Key, np.ndarray]]
    replicates: Mapping[str, Mapping[Key, np.ndarray]]
    loos: Mapping[Key, LOO] = field(default_factory=dict)
    evidences: Mapping[Key, Evidence] = field(default_factory=dict)
    overfitted: Overfitted | None = None

    def probabilities(self, prior: Mapping[int, float] | None = None) -> pd.Series:
        """Posterior probability of each mixture that was given an evidence, indexed by (covariance, n_components).

        Parameters
        ----------
        prior : mapping, optional
            From a number of components to its prior probability, up to a constant; shared equally by the covariance
            models. Equal for all by default. ``.groupby("n_components").sum()`` is the posterior of K.

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
        share = {K: sum(size == K for _, size in self.evidences) for K in sizes}
        log_p = np.array([e.value for e in self.evidences.values()])
        with np.errstate(divide="ignore"):
            log_p += np.log([prior[K] / share[K] for _, K in self.evidences])
        p = np.exp(log_p - log_p.max())
        index = pd.MultiIndex.from_tuples(self.evidences, names=["covariance", "n_components"])
        return pd.Series(p / p.sum(), index=index, name="probability")

    def log_prob(self, X: Any, features: Sequence[int] | None = None) -> np.ndarray:
        """Log density (N,) of rows under the posterior predictives averaged with their stacking weights, in nats.

        Parameters
        ----------
        X : (N, D) rows
        features : sequence of int, optional
            Positions of the features that the columns of X are, for their marginal density; all by default.

        Raises
        ------
        InputError
            If there are no stacking weights, which come with "loo", or the rows cannot be used.
        """
        from bayesgmm.bayes.posterior import as_mixture

        if "weight" not in self.table:
            raise InputError("there are no stacking weights to average with; give select criteria with 'loo'")
        values, _ = numeric_table(X)
        weights = {_key(row): row["weight"] for _, row in self.table[self.table["weight"] > 0].iterrows()}
        parts = []
        for key, weight in weights.items():
            draws = as_mixture(self.posteriors[key])
            if features is not None:
                draws = draws.marginal(features)
            lines = draws.log_prob(values).reshape(-1, len(values))
            parts.append(np.logaddexp.reduce(lines, axis=0) - math.log(len(lines)) + math.log(weight))
        return np.logaddexp.reduce(parts, axis=0)

    def best(self, criterion: str = "bic") -> EMFit:
        """The fit that a criterion chooses.

        Parameters
        ----------
        criterion : {"bic", "icl", "aic", "cv", "loo", "evidence"}
            The last three where they were asked for.

        Raises
        ------
        InputError
            For a criterion that is not in the table.
        """
        return self.fits[_key(self.ranking(criterion).iloc[0])]

    def ranking(self, criterion: str = "bic") -> pd.DataFrame:
        """The fits from a criterion's best to its worst, and how far each is behind.

        Returns
        -------
        DataFrame
            Columns ``covariance``, ``n_components``, ``n_parameters``, ``behind`` (>= 0, in the criterion's unit),
            ``se`` (standard error of ``behind`` from paired rows or replicates; NaN where unknown) and ``tied``: for
            BIC, ICL and AIC whether ``behind`` is below 2 (Kass & Raftery 1995), for others below 2 ``se``.

        Raises
        ------
        InputError
            For a criterion that is not in the table.
        """
        kind = CRITERIA.get(criterion)
        if kind is None or kind.column not in self.table:
            there = [name for name, known in CRITERIA.items() if known.column in self.table]
            raise InputError(f"criterion {criterion!r} is not in the table; it has {', '.join(there)}")
        kept = self.table[self.table[kind.column].notna()]
        spurious = kept["status"].str.startswith("spurious")
        kept = kept if spurious.all() else kept[~spurious]
        # One component has the same covariance whether it is called equal or varying.
        kept = kept[(kept["n_components"] > 1) | ~kept.duplicated(["n_components", "n_parameters"])]
        order = np.lexsort((kept["n_parameters"], -kind.sign * kept[kind.column]))
        kept = kept.iloc[order].reset_index(drop=True)
        out = kept[["covariance", "n_components", "n_parameters"]].copy()
        out["behind"] = (kept[kind.column] - kept[kind.column].iloc[0]).abs()
        best = _key(kept.iloc[0])
        out["se"] = [self._se_behind(criterion, _key(row), best) for _, row in kept.iterrows()]
        bare = {"evidence": _TIE / 2}.get(criterion, _TIE if kind.sign < 0 else 0.0)
        out["tied"] = (out["behind"] < bare) | (out["behind"] < 2 * out["se"] if kind.sign > 0 else False)
        out.loc[0, "tied"] = True
        return out

    def _se_behind(self, criterion: str, key: Key, best: Key) -> float:
        if key == best:
            return 0.0
        if criterion == "evidence":
            return math.hypot(self.evidences[key].se, self.evidences[best].se)
        if criterion in self.densities:
            own = self.densities[criterion]
            return _se_of_sum(own[key] - own[best])
        own = self.replicates.get(criterion, {})
        if key not in own or best not in own:
            return math.nan
        return float((own[key] - own[best]).std())

    def frequencies(self, criterion: str = "bic") -> pd.Series:
        """How often each number of components was a criterion's choice among replicates, indexed by K.

        Raises
        ------
        InputError
            If there were no replicates, or the criterion is neither BIC nor ICL.
        """
        if criterion not in self.replicates:
            raise InputError(f"there are no replicates of {criterion!r}; give select n_replicates, for bic and icl")
        return self.table.groupby("n_components")[f"{criterion}_frequency"].sum()

    def recommend(self) -> Recommendation:
        """The fit to report: the first criterion's choice, or the smallest of those that tie with it.

        With it come its close rivals: other ties, what other criteria choose, and what the first criterion chose in
        a tenth of the replicates or more. Report them too, or what holds whichever is true.
        """
        first = self.criteria[0]
        title = CRITERIA[first].title
        ranking = self.ranking(first)
        tied = ranking[ranking["tied"]]
        chosen = tied.sort_values(["n_components", "n_parameters"], kind="stable").iloc[0]
        key = _key(chosen)
        if len(tied) == 1:
            reason = (
                "It is the only fit left"
                if len(ranking) == 1
                else f"{title} prefers it by {ranking['behind'].iloc[1]:.1f}"
            )
        else:
            best = self._name(_key(ranking.iloc[0]))
            lead = "" if key == _key(ranking.iloc[0]) else f", though {chosen['behind']:.1f} behind {best}"
            reason = f"It is the smallest of the {len(tied)} fits that tie by {_inner(title)}{lead}"
        others = [name for name in self.criteria[1:] if name != "aic"]
        agree = [CRITERIA[name].title for name in others if self._holds(name, key)]
        if agree:
            too = "choose it too, or tie it with their choice"
            too = too if len(agree) > 1 else "chooses it too, or ties it with its choice"
            reason += f"; {listed(_inner(title) for title in agree)} {too}"
        rivals = [_key(row) for _, row in tied.iterrows()]
        rivals += [_key(self.ranking(name).iloc[0]) for name in others if not self._holds(name, key)]
        if first in self.replicates:
            often = self.table.sort_values(f"{first}_frequency", ascending=False, kind="stable")
            rivals += [_key(row) for _, row in often[often[f"{first}_frequency"] >= 0.1].iterrows()]
        rivals = [rival for rival in dict.fromkeys(rivals) if rival != key]
        return Recommendation(self.fits[key], *key, reason, tuple(rivals))

    def _holds(self, criterion: str, key: Key) -> bool:
        """Whether a criterion chooses a fit or ties it with its choice."""
        ranking = self.ranking(criterion)
        return key in [_key(row) for _, row in ranking[ranking["tied"]].iterrows()]

    @property
    def text(self) -> str:
        """What each criterion chooses, how sure of it, and what to report, in sentences."""
        return "\n".join(self._sentences())

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        key = _key(self.ranking(self.criteria[0]).iloc[0])
        return f"Selection({len(self.table)} fits, {self.criteria[0]} chooses {self._name(key)})"

    def _sentences(self) -> Iterator[str]:
        for name in self.criteria:
            yield self._sentence(name)
        if self.evidences:
            sizes = self.probabilities().groupby("n_components").sum().sort_values(ascending=False, kind="stable")
            known = [f"K={K} {p:.2g}" for K, p in sizes.items() if p >= 0.005]
            yield (
                f"Of the {len(self.evidences)} fits that have an evidence, with each number of components equally "
                f"likely beforehand, the posterior is {listed(known)}."
            )
        if self.overfitted is not None:
            yield self._filled()
        yield from self._doubts()
        bests = {name: _key(self.ranking(name).iloc[0]) for name in self.criteria}
        if len(bests) > 1:
            sizes = sorted({K for _, K in bests.values()})
            if len(set(bests.values())) == 1:
                yield from ["They agree."] * (len(self.ranking(self.criteria[0])) > 1)
            elif len(sizes) == 1:
                yield f"They agree on {sizes[0]} components, not on the covariance."
            else:
                yield f"They do not agree on the number of components: {sizes[0]} to {sizes[-1]}."
        said = self.recommend()
        rivals = [self._name(rival) for rival in said.rivals]
        yield f"To report: {self._name((said.covariance, said.n_components))}. {said.reason}." + (
            f" Not ruled out: {listed(rivals)}." if rivals else ""
        )
        bad = self.table[self.table["status"].str.startswith(("failed", "spurious"))]
        if len(bad):
            names = [self._name(_key(row)) for _, row in bad.iloc[:3].iterrows()]
            more = f", and {len(bad) - 3} more" if len(bad) > 3 else ""
            yield f"Left out as spurious or failed: {', '.join(names)}{more}; the column status says why."

    def _filled(self) -> str:
        """What the overfitted mixture says."""
        said = self.overfitted
        assert said is not None
        order = [int(K) for K in np.argsort(-said.probabilities) if said.probabilities[K] >= 0.05]
        shares = listed(f"{K} in {said.probabilities[K]:.0%}" for K in order)
        prior = f"{said.prior[order[0]]:.0%}"
        return (
            f"A mixture of {said.n_components} components ({said.covariance}) with sparse weights fills {shares} "
            f"of the draws; beforehand it gave {order[0]} a probability of {prior}."
        ) + (f" Its chains do not agree (R-hat {said.r_hat:.2f})." if said.r_hat >= _AGREE else "")

    def _doubts(self) -> Iterator[str]:
        """Which posteriors, and what comes from them, are not to be trusted."""
        if "posterior" not in self.table:
            return
        drawn = self.table[self.table["posterior"].notna()]
        without = drawn["posterior"].str.startswith("none")
        loose = drawn[~without & ~drawn["posterior"].str.startswith("Converged")]
        if len(loose):
            names = listed(self._name(_key(row)) for _, row in loose.iterrows())
            yield f"The chains did not converge for {names}: there trust criteria of EM more than LOO and evidence."
        if without.any():
            names = listed(self._name(_key(row)) for _, row in drawn[without].iterrows())
            yield f"There is no posterior of {names}; the column posterior says why."
        failed = drawn["posterior"].str.contains(" No evidence: ", regex=False)
        if failed.any():
            names = listed(self._name(_key(row)) for _, row in drawn[failed].iterrows())
            yield f"There is no evidence of {names}; the column posterior says why."
        if "pareto_k_max" in drawn and (drawn["pareto_k_max"] > _RELIABLE_PARETO_K).any():
            doubtful = drawn[drawn["pareto_k_max"] > _RELIABLE_PARETO_K]
            names = listed(self._name(_key(row)) for _, row in doubtful.iterrows())
            yield f"For {names} LOO is in doubt: single rows weigh too much for its approximation (Pareto k above 0.7)."

    def _sentence(self, criterion: str) -> str:
        """What one criterion chooses, and by how clear a margin."""
        kind, ranking = CRITERIA[criterion], self.ranking(criterion)
        name = self._name(_key(ranking.iloc[0]))
        words = f"{kind.title} ({kind.question}) chooses {name}"
        if len(ranking) == 1:
            return f"{words}, the only {'one with a posterior' if criterion in _FROM_POSTERIORS else 'fit left'}."
        second = ranking.iloc[1]
        runner = self._name(_key(second))
        if kind.sign < 0:
            strength = next(word for limit, word in _STRENGTHS if second["behind"] < limit)
            words += f", {strength}: {runner} is {second['behind']:.1f} behind"
            words += " (under 2 is a tie, over 10 very strong)." if criterion == self.criteria[0] else "."
        else:
            se = f"{second['se']:.1f}" if second["se"] >= 0.05 else f"{second['se']:.1g}"
            margin = f"{runner} is {second['behind']:.1f} nats behind, standard error {se}"
            ties = ranking[ranking["tied"]].iloc[1:]
            if ties.empty:
                words += f", clearly: {margin}."
            else:
                small = _key(ties.sort_values(["n_components", "n_parameters"]).iloc[0])
                simplest = f", the smallest of them {self._name(small)}" if len(ties) > 1 else ""
                with_ = f"{len(ties)} others" if len(ties) > 1 else runner
                words += f", in a tie with {with_}{simplest}{'; the next,' if len(ties) > 1 else ':'} {margin}."
        if criterion in self.replicates:
            n = len(next(iter(self.replicates[criterion].values())))
            often = self.frequencies(criterion).sort_values(ascending=False, kind="stable")
            shares = [f"K={K} in {share:.0%}" for K, share in often.items() if share >= 0.05]
            own = self.table[f"{criterion}_frequency"].max()
            leads = self._name(_key(self.table.loc[self.table[f"{criterion}_frequency"].idxmax()]))
            words += f" In {n} replicates of the table it chose {', '.join(shares)}"
            words += f", most often {leads} ({own:.0%})" if self.table["covariance"].nunique() > 1 else ""
            words += ": other rows from the same source might well speak for another." if own < 0.5 else "."
        return words

    def _name(self, key: Key) -> str:
        covariance, K = key
        return f"K={K}" if self.table["covariance"].nunique() == 1 else f"{covariance},{K}"


def select(
    X: Any,
    n_components: int | Iterable[int] = range(1, 10),
    covariances: str | CovarianceModel | Sequence[str | CovarianceModel] = ("full",),
    criteria: Sequence[str] = ("bic", "icl", "cv"),
    *,
    sample_weight: Any = None,
    posterior: str | None = None,
    overfitted: bool = False,
    sampling: Mapping[str, Any] | None = None,
    n_starts: int = 20,
    n_folds: int = 10,
    n_replicates: int = 100,
    out: str | Path | None = None,
    rng: Any = None,
    progress: Callable[[str], Callable[[int, int], None]] | None = None,
) -> Selection:
    """Criteria for the number of components and the covariance model, side by side with their uncertainty.

    Parameters
    ----------
    X : (N, D) table
    n_components : int or iterable of int
        The K to compare.
    covariances : str, CovarianceModel or sequence of them
        Names as in `fit_em`, or "all" for the 14 models (for one feature: E and V).
    criteria : sequence of {"bic", "icl", "aic", "cv", "loo", "evidence"}
        The first is the one that `Selection.recommend` starts from. "cv" is the log density of held-out rows, summed
        over ``n_folds`` folds, each with fits of its own; "loo" and "evidence" need posteriors.
    sample_weight : (N,), optional
        As in `fit_em`.
    posterior : {"contenders", "all"}, optional
        For which fits to draw from the posterior: those within 10 BIC of the best or best by some criterion, at most
        five (where fewer than three of these have one, the next that do come too), or every one. "loo" and "evidence"
        alone ask for "contenders".
    overfitted : bool
        Draw from the posterior of a mixture of the largest size, at least 10, under sparse weights too, by Gibbs
        sampling: how many components it fills is an answer of its own (Rousseau & Mengersen 2011; Malsiner-Walli,
        Fruehwirth-Schnatter & Gruen 2016). Its prior of means and covariances is `Priors.weakly_informative`.
    sampling : mapping, optional
        Arguments of `sample_posterior`, such as ``{"draws": 500}``; draws, tune and chains are the overfitted mixture's
        too.
    n_starts : int
        As in `fit_em`; with more than one, fits start from their neighbours too: a component split, two merged, or a
        simpler covariance model.
    n_folds : int
        For "cv".
    n_replicates : int
        Tables of rows drawn with replacement to which the leading fits are refitted, to see how often BIC and ICL would
        choose otherwise; 0 for none.
    out : path, optional
        Directory where fits, folds, replicates and draws are kept as they come. The same selection, started again with
        the same seed, goes on with what is there.
    rng : Generator, seed or None
    progress : callable, optional
        Given the name of a stage, returns the function to call with what of it is done, and its total.

    Returns
    -------
    Selection

    Raises
    ------
    InputError
        Naming the row, column or argument that cannot be used.
    KeyboardInterrupt
        If draws were interrupted (Ctrl-C); with ``out`` it says where they are kept.
    DegenerateFitError
        If not a single fit succeeds. One that fails among others is a row of the table, with the reason.

    Notes
    -----
    BIC (Schwarz 1978; Fraley & Raftery 2002) and ICL (Biernacki, Celeux & Govaert 2000) ask about clusters, the
    held-out density (Smyth 2000), LOO (Vehtari, Gelman & Gabry 2017) and stacking (Yao et al. 2018) about prediction.
    Refits to replicates overshoot: their log-likelihood has a mean above the table's that grows with the parameters
    (Ishiguro, Sakamoto & Kitagawa 1997), so they are centred at the table's before criteria are compared. Of several
    covariance models and sizes only the leading fits are refitted: those that could come first given how much the
    difference to the best varies between rows, at most 25 by each criterion.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> chosen = bg.select(bg.datasets.old_faithful(), range(1, 5), ("tied", "full"), ("bic",), rng=0)
    >>> chosen.best("bic").n_components, chosen.recommend().covariance
    (3, 'EEE')
    """
    table = observations(X, sample_weight)
    counts, models = _counts(n_components), _models(covariances, table.n_features)
    criteria = _criteria(criteria)
    n_starts = positive_integer(n_starts, "n_starts")
    n_folds = min(positive_integer(n_folds, "n_folds", least=2), table.n_observations)
    n_replicates = positive_integer(n_replicates, "n_replicates", least=0)
    if posterior not in ("contenders", "all", None):
        raise InputError(f"posterior must be 'contenders', 'all' or None, not {posterior!r}")
    if out is not None and rng is None:
        raise InputError("give rng a seed with out, so that the selection can be taken up again")
    seeds = np.random.default_rng(rng).integers(2**63, size=5).tolist()
    parts = [np.random.default_rng(seed) for seed in seeds]
    kept = _Nothing() if out is None else Kept(Path(out), table, n_starts, *seeds)
    tell = progress or (lambda stage: lambda done, total: None)
    grid = Grid(table, tuple(models), tuple(counts), n_starts)
    outcomes = fit_grid(grid, parts[0], kept.fit, tell("EM fits"))
    fits = {key: outcome for key, outcome in outcomes.items() if isinstance(outcome, EMFit)}
    if not fits:
        raise _none_succeeded(outcomes)
    frame = _frame(outcomes, table.n_features)

    densities: dict[str, dict[Key, np.ndarray]] = {}
    if "cv" in criteria:
        folds = replace(grid, n_starts=min(n_starts, _FOLD_STARTS))
        held_out = held_out_log_density(folds, n_folds, parts[1], kept.arrays, tell("held-out folds"))
        own = {k: v * table.sample_weight for k, v in held_out.items() if k in fits and isinstance(v, np.ndarray)}
        if not own:
            error = next(v for v in held_out.values() if isinstance(v, BayesGMMError))
            raise InputError(
                f"no fit can be made to the rows without some fold; leave out 'cv', or give more rows: {error}"
            )
        densities["cv"] = own
        _add(frame, "cv_log_density", {key: float(v.sum()) for key, v in own.items()})
        _add(frame, "cv_log_density_se", {key: _se_of_sum(v) for key, v in own.items()})
    redrawn: dict[str, dict[Key, np.ndarray]] = {}
    if n_replicates:
        redrawn = _replicates(fits, table, criteria, n_replicates, seeds[2], kept, tell("replicates"))
    for criterion, values in redrawn.items():
        chosen = np.argmin(np.stack(list(values.values())), axis=0)
        shares = np.bincount(chosen, minlength=len(values)) / n_replicates
        _add(
            frame, f"{criterion}_frequency", dict.fromkeys(fits, 0.0) | dict(zip(values, shares.tolist(), strict=True))
        )

    selection = Selection(frame, fits, {}, tuple(c for c in criteria if c not in _FROM_POSTERIORS), densities, redrawn)
    settings = dict(sampling or {})
    if overfitted:
        if sample_weight is not None:
            raise InputError("the overfitted mixture does not take account of sample_weight; leave out overfitted")
        said = _overfitted(selection, table, settings, seeds[3], kept, tell)
        selection = replace(selection, overfitted=said)
    if posterior is None and not set(criteria) & set(_FROM_POSTERIORS):
        return selection
    asked = list(fits) if posterior == "all" else _contenders(selection)
    return _with_posteriors(selection, X, sample_weight, asked, criteria, settings, seeds[4], kept, tell)


class _Nothing:
    """In place of `Kept`: everything is done now."""

    def fit(self, key: Key, make: Callable[[], EMFit]) -> EMFit:
        return make()

    def arrays(self, part: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        return make()

    def path(self, part: str, suffix: str) -> None:
        return None


def _counts(n_components: int | Iterable[int]) -> list[int]:
    """The numbers of components, increasing."""
    several = (
        n_components if isinstance(n_components, Iterable) and not isinstance(n_components, str) else [n_components]
    )
    counts = sorted({positive_integer(K, "n_components") for K in several})
    if not counts:
        raise InputError("n_components is empty; give a number such as 3, or several such as range(1, 7)")
    return counts


def _models(covariances: Any, D: int) -> list[CovarianceModel]:
    """The covariance models, without what is the same for D features."""
    if isinstance(covariances, str) and covariances.lower() == "all":
        covariances = NAMES
    several = [covariances] if isinstance(covariances, (str, CovarianceModel)) else list(covariances)
    if not several:
        raise InputError("covariances is empty; give names such as ('full', 'tied'), or 'all'")
    return list(dict.fromkeys(CovarianceModel.named(name).for_features(D) for name in several))


def _criteria(criteria: Any) -> tuple[str, ...]:
    several = [criteria] if isinstance(criteria, str) else list(criteria)
    for name in several:
        if name not in CRITERIA:
            raise InputError(f"unknown criterion {name!r}; use some of {', '.join(CRITERIA)}")
    if not several:
        raise InputError(f"criteria is empty; use some of {', '.join(CRITERIA)}")
    return tuple(dict.fromkeys(several))


def _none_succeeded(outcomes: Mapping[Key, EMFit | BayesGMMError]) -> BayesGMMError:
    """The error to raise where every fit failed."""
    first = next(error for error in outcomes.values() if isinstance(error, BayesGMMError))
    if len(outcomes) == 1:
        return first
    kind = InputError if isinstance(first, InputError) else DegenerateFitError
    return kind(f"none of the {len(outcomes)} fits succeeded; the first: {first}")


def _frame(outcomes: Mapping[Key, EMFit | BayesGMMError], D: int) -> pd.DataFrame:
    """The table of what EM found."""
    import pandas as pd

    rows = []
    for (covariance, K), outcome in outcomes.items():
        row = {name: getattr(outcome, name, math.nan) for name in ("log_likelihood", "bic", "aic", "icl")}
        row |= {"covariance": covariance, "n_components": K, "status": _status(outcome)}
        row["n_parameters"] = K - 1 + K * D + CovarianceModel.named(covariance).n_parameters(K, D)
        rows.append(row)
    columns = ["covariance", "n_components", "log_likelihood", "n_parameters", "bic", "aic", "icl", "status"]
    return pd.DataFrame(rows, columns=columns)


def _status(outcome: EMFit | BayesGMMError) -> str:
    if isinstance(outcome, BayesGMMError):
        return f"failed: {outcome}"
    numbers = outcome.total_weight * outcome.n_features
    if outcome.n_parameters >= numbers:
        return f"spurious: {outcome.n_parameters} parameters for {numbers:.0f} numbers"
    if outcome.spurious:
        return f"spurious: {outcome.maxima[0].detail}"
    return outcome.status.value.partition(":")[0]


def _add(frame: pd.DataFrame, column: str, values: Mapping[Key, Any]) -> None:
    """Put a column before the last, ``status``, empty where a fit has no value."""
    keys = zip(frame["covariance"], frame["n_components"], strict=True)
    frame.insert(len(frame.columns) - 1, column, [values.get(key, math.nan) for key in keys])


def _replicates(
    fits: Mapping[Key, EMFit],
    table: Observations,
    criteria: Sequence[str],
    n_replicates: int,
    seed: int,
    kept: Kept | _Nothing,
    tell: Callable[[int, int], None],
) -> dict[str, dict[Key, np.ndarray]]:
    """BIC and ICL (n_replicates,) of the leading fits on rows drawn with replacement, centred at the table's."""
    asked = [name for name in ("bic", "icl") if name in criteria]
    leading = list(dict.fromkeys(key for name in asked for key in _leading(fits, table, name)))
    out: dict[str, dict[Key, np.ndarray]] = {name: {} for name in asked}

    def drawn(key: Key) -> Replicates:
        part = f"replicates of {key}: {n_replicates}"
        return Replicates(**kept.arrays(part, lambda: replicates(fits[key], table, n_replicates, seed)._asdict()))

    for done, key in enumerate(leading):
        fit = fits[key]
        log_likelihood, certainty = drawn(key).centred(fit)
        bic = -2 * log_likelihood + (fit.bic + 2 * fit.log_likelihood)
        for name, values in (("bic", bic), ("icl", bic - 2 * certainty)):
            if name in asked:
                out[name][key] = values
        tell(done + 1, len(leading))
    return {name: values for name, values in out.items() if values}


def _leading(fits: Mapping[Key, EMFit], table: Observations, criterion: str) -> list[Key]:
    """Fits that other rows could put first: no further behind than three standard deviations of the difference."""
    order = sorted(
        (k for k, fit in fits.items() if not _status(fit).startswith("spurious")),
        key=lambda key: getattr(fits[key], criterion),
    )
    if not order:
        return []
    best = fits[order[0]]
    at_best = best.mixture.log_prob(table.values) * table.sample_weight

    def within(fit: EMFit) -> bool:
        sd = 2 * _se_of_sum(fit.mixture.log_prob(table.values) * table.sample_weight - at_best)
        return getattr(fit, criterion) - getattr(best, criterion) <= 3 * sd

    return [key for key in order[: 2 * _REPLICATED] if within(fits[key])][:_REPLICATED]


def _contenders(selection: Selection) -> list[Key]:
    """The best fit of each criterion, then others by BIC within 10 of the best; five at most.

    Should fewer than three of them be of a covariance model that has a posterior, the next by BIC that are come too.
    """
    from bayesgmm.bayes.coordinates import SUPPORTED

    def available(key: Key) -> bool:
        return CovarianceModel.named(key[0]).name in SUPPORTED

    bests = [_key(selection.ranking(name).iloc[0]) for name in selection.criteria]
    ranking = selection.ranking("bic")
    order = [_key(row) for _, row in ranking.iterrows()]
    near = order[: int((ranking["behind"] <= _CONTENDER_BIC).sum())]
    chosen = list(dict.fromkeys(bests + near))[:_CONTENDERS]
    further = [key for key in order if available(key) and key not in chosen]
    return chosen + further[: max(_COMPARED - sum(map(available, chosen)), 0)]


def _with_posteriors(
    selection: Selection,
    X: Any,
    sample_weight: Any,
    asked: Sequence[Key],
    criteria: tuple[str, ...],
    sampling: dict[str, Any],
    seed: int,
    kept: Kept | _Nothing,
    tell: Callable[[str], Callable[[int, int], None]],
) -> Selection:
    """The same with posteriors of the fits that are asked for, and the columns that come from them."""
    from bayesgmm.bayes.evidence import log_evidence
    from bayesgmm.bayes.loo import loo
    from bayesgmm.clusters.assignment import filled_components

    if sample_weight is not None:
        raise InputError("posteriors do not take account of sample_weight; use criteria of EM alone, posterior=None")
    trees: dict[Key, xr.DataTree] = {}
    notes: dict[Key, str] = {}
    for key in asked:
        try:
            progress = tell(f"posterior of {selection._name(key)}")
            trees[key] = _posterior(X, selection.fits[key], {"rng": seed} | sampling, kept, progress)
            notes[key] = str(trees[key].attrs["convergence"])
        except BayesGMMError as error:
            notes[key] = f"none: {error}"
    frame, densities = selection.table.copy(), dict(selection.densities)
    if not trees and set(criteria) & set(_FROM_POSTERIORS):
        raise InputError(f"there is no posterior of any fit; the first: {next(iter(notes.values()))}")
    rng = np.random.default_rng(seed)
    loos: dict[Key, LOO] = {}
    evidences: dict[Key, Evidence] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the table has what was done, and what could not be
        for done, (key, tree) in enumerate(trees.items()):
            if "loo" in criteria:
                loos[key] = loo(tree, rng=rng)
            if "evidence" in criteria:
                try:
                    evidences[key] = log_evidence(tree, rng=rng)
                except BayesGMMError as error:
                    notes[key] += f" No evidence: {error}"
            tell("what posteriors say")(done + 1, len(trees))
    if "evidence" in criteria and not evidences:
        raise InputError(f"there is no evidence of any fit; the first: {next(iter(notes.values()))}")
    if loos:
        for column, name in (("elpd_loo", "elpd"), ("elpd_loo_se", "se"), ("p_loo", "p")):
            _add(frame, column, {key: float(getattr(result, name)) for key, result in loos.items()})
        _add(frame, "pareto_k_max", {key: float(np.max(result.pareto_k)) for key, result in loos.items()})
        _add(frame, "loo_repairs", {key: result.text for key, result in loos.items()})
        densities["loo"] = {key: np.asarray(result.elpd_i).ravel() for key, result in loos.items()}
        weights = stacking_weights(np.stack(list(densities["loo"].values())))
        _add(frame, "weight", dict(zip(loos, weights.tolist(), strict=True)))
    if evidences:
        _add(frame, "log_evidence", {key: evidence.value for key, evidence in evidences.items()})
        _add(frame, "log_evidence_se", {key: evidence.se for key, evidence in evidences.items()})
    filled = {key: filled_components(tree, rng=rng) for key, tree in trees.items()}
    _add(frame, "filled_components", {key: float(p @ np.arange(len(p))) for key, p in filled.items()})
    _add(frame, "posterior", notes)
    return replace(
        selection,
        table=frame,
        posteriors=trees,
        criteria=criteria,
        densities=densities,
        loos=loos,
        evidences=evidences,
    )


def _overfitted(
    selection: Selection,
    table: Observations,
    sampling: dict[str, Any],
    seed: int,
    kept: Kept | _Nothing,
    tell: Callable[[str], Callable[[int, int], None]],
) -> Overfitted:
    """What too many components of the best covariance model that can be sampled so fill, under sparse weights.

    The chains start from fits of several sizes, the largest first.
    """
    import arviz as az

    from bayesgmm.bayes.priors import Priors
    from bayesgmm.bayes.sparse import MODELS, filled_draws, filled_prior

    chains, draws, tune = (int(sampling.get(name, n)) for name, n in (("chains", 4), ("draws", 1000), ("tune", 500)))
    ranking = [_key(row)[0] for _, row in selection.ranking("bic").iterrows()]
    name = next((name for name in ranking if CovarianceModel.named(name).name in MODELS), None)
    if name is None:
        raise InputError(f"the overfitted mixture needs a fit of one of the covariance models {', '.join(MODELS)}")
    own = {K: fit.mixture for (model, K), fit in selection.fits.items() if model == name}
    sizes, N, X = sorted(own, reverse=True), table.n_observations, table.values
    K = max(sizes[0], _OVERFITTED)
    labels, means = np.empty((chains, N), np.int64), np.tile(X.mean(axis=0), (chains, K, 1))
    for c in range(chains):
        mixture = own[sizes[c * len(sizes) // chains]]
        labels[c], means[c, : mixture.n_components] = mixture.predict(X), mixture.means
    progress = tell(f"sparse weights, K={K}")

    def run() -> dict[str, np.ndarray]:
        priors, model, rng = Priors.weakly_informative(X, K), CovarianceModel.named(name), np.random.default_rng(seed)
        filled, concentration = filled_draws(
            X, priors, model, labels, means, rng, draws=draws, tune=tune, thin=_SWEEPS, tell=progress
        )
        return {"filled": filled, "concentration": concentration}

    drawn = kept.arrays(f"overfitted {name} {K} {chains} {draws} {tune} {sizes}", run)
    filled = drawn["filled"]
    constant = np.ptp(filled) == 0
    r_hat, ess = (1.0, float(filled.size)) if constant else (float(f(filled.astype(float))) for f in (az.rhat, az.ess))
    shares = np.bincount(filled.ravel(), minlength=K + 1) / filled.size
    prior = filled_prior(N, K, np.random.default_rng(seed))
    return Overfitted(name, K, shares, prior, filled, drawn["concentration"], r_hat, ess)


def _posterior(
    X: Any,
    fit: EMFit,
    sampling: dict[str, Any],
    kept: Kept | _Nothing,
    progress: Callable[[int, int], None],
) -> xr.DataTree:
    """Draws of one fit, without a warning: the table and the text say how they converged."""
    from bayesgmm.bayes.sample import sample_posterior

    by_nutpie = sampling.get("sampler", "nutpie") == "nutpie" and sampling.get("method", "nuts") == "nuts"
    part = f"posterior {fit.covariance_model.name} {fit.n_components} {sorted(sampling.items())}"
    out = kept.path(part, "nc") if by_nutpie else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        tree = sample_posterior(
            X, fit, **({"out": out, "progress": lambda stage, done, total: progress(done, total)} | sampling)
        )
    if "partial" in tree.attrs:
        where = "" if out is None else f"; the draws are kept in {out.parent}, and the same run goes on from there"
        raise KeyboardInterrupt(f"{tree.attrs['partial']}{where}")
    return tree


def stacking_weights(log_density: np.ndarray) -> np.ndarray:
    """Weights (M,) of M predictive densities whose mixture has the largest log density (Yao et al. 2018).

    It is EM for the weights of a mixture of known densities, whose likelihood is concave.

    Parameters
    ----------
    log_density : (M, N)
        Of each row under each model that has not seen it, in nats.

    Examples
    --------
    >>> stacking_weights(np.log([[0.9, 0.9, 0.9, 0.1], [0.1, 0.1, 0.1, 0.9]])).round(3)
    array([0.812, 0.188])
    """
    density = np.exp(log_density - log_density.max(axis=0))
    weights = np.full(len(density), 1 / len(density))
    for _ in range(100_000):
        share = density / (weights @ density)
        weights, last = weights * share.mean(axis=1), weights
        if np.abs(weights - last).max() < 1e-10:
            break
    return weights / weights.sum()


def _key(row: Any) -> Key:
    return str(row["covariance"]), int(row["n_components"])


def _se_of_sum(terms: np.ndarray) -> float:
    """Standard error of a sum of independent terms."""
    return math.sqrt(len(terms) * terms.var())


def _inner(title: str) -> str:
    """A title within a sentence."""
    return title[0].lower() + title[1:] if title.startswith("The ") else title
