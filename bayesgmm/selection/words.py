"""What a selection says, in sentences: pure functions of rankings, shares and outcomes, which decide nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from bayesgmm.bayes.verdict import Convergence
from bayesgmm.em.grid import Key
from bayesgmm.em.heldout import HeldOut
from bayesgmm.em.result import EMFit
from bayesgmm.names import listed
from bayesgmm.selection.criteria import CRITERIA, Criterion, strength
from bayesgmm.selection.overfitted import Overfitted
from bayesgmm.selection.states import FitState, PosteriorState
from bayesgmm.selection.table import keys_of

if TYPE_CHECKING:
    import pandas as pd

type Namer = Callable[[Key], str]

_OFTEN = 0.05  # share of the replicates or the draws from which a number of components is worth a mention
_WELL_FOUNDED = 0.5  # share of the replicates from which the choice would hardly be another for other rows
_RELIABLE_PARETO_K = 0.7  # Vehtari, Gelman & Gabry (2017)
_MENTIONED = 3  # fits left out that are named
_MANY_ROWS = 1e5  # from which BIC's penalty per row is next to nothing


def namer(table: pd.DataFrame) -> Namer:
    """How fits are called: by the number of components, and by the covariance model if there are several."""
    if table["covariance"].nunique() == 1:
        return lambda key: f"K={key[1]}"
    return lambda key: f"{key[0]},{key[1]}"


def choice(criterion: str, ranking: pd.DataFrame, name: Namer, *, decides: bool) -> str:
    """What a criterion chooses, and by how clear a margin.

    Parameters
    ----------
    criterion : str
        One of `CRITERIA`.
    ranking : DataFrame
        From `Selection.ranking`.
    name : callable
        From `namer`.
    decides : bool
        Whether the recommendation starts from this criterion; then how to read its differences is said too.
    """
    kind, keys = CRITERIA[criterion], keys_of(ranking)
    words = f"{kind.title} ({kind.question}) chooses {name(keys[0])}"
    if len(ranking) == 1:
        return f"{words}, the only {'one with a posterior' if kind.needs_posterior else 'fit left'}."
    if kind.sign < 0:
        behind = ranking["behind"].iloc[1]
        words += f", {strength(behind)}: {name(keys[1])} is {behind:.1f} behind"
        return words + (" (under 2 is a tie, over 10 very strong)." if decides else ".")
    return words + _margin(kind, ranking, name)


def _margin(kind: Criterion, ranking: pd.DataFrame, name: Namer) -> str:
    """By how much a log density or log evidence is ahead, which ends the sentence."""
    runner_up, second = name(keys_of(ranking)[1]), ranking.iloc[1]
    margin = f"{runner_up} is {kind.in_words(second['behind'])} {kind.unit} behind"
    if not math.isnan(second["se"]):
        margin += (
            f", standard error {second['se']:.1f}" if second["se"] >= 0.05 else f", standard error {second['se']:.1g}"
        )
    ties = ranking[ranking["tied"]].iloc[1:]
    if ties.empty:
        return f", clearly: {margin}."
    if len(ties) == 1:
        return f", in a tie with {runner_up}: {margin}."
    smallest = name(keys_of(ties.sort_values(["n_components", "n_parameters"]))[0])
    return f", in a tie with {len(ties)} others, the smallest of them {smallest}; the next, {margin}."


def gains(held_out: HeldOut, chosen: Key, name: Namer) -> Iterator[str]:
    """What each size gains per row over the next smaller one of the same covariance model, if there are several sizes.

    Parameters
    ----------
    held_out : HeldOut
    chosen : (covariance, n_components)
        Its model is the one that is told of.
    name : callable
        From `namer`.
    """
    keys = sorted((key for key in held_out.keys if key[0] == chosen[0]), key=lambda key: key[1])
    steps = [(key, *held_out.gain(key, over=smaller)) for smaller, key in pairwise(keys)]
    if steps:
        told = ", ".join(f"{name(key)} {gain:+.2g} (± {se:.1g})" for key, gain, se in steps)
        yield (
            f"On {held_out.n_rows} rows that no fit has seen, each gains over the size before it, in nats a row with "
            f"standard error: {told}. However sure, a small gain is a small difference: it tells how much better rows "
            "are described."
        )


def why_bic_wants_more(table: pd.DataFrame, fit: EMFit) -> Iterator[str]:
    """What a further component has to gain for BIC, where there are so many rows that it is next to nothing."""
    N, own = fit.total_weight, table[table["covariance"] == fit.covariance_model.label(fit.n_features)]
    if N < _MANY_ROWS or len(own) < 2:
        return
    last = own.sort_values("n_components").iloc[-2:]
    per_component = np.diff(last["n_parameters"])[0] / np.diff(last["n_components"])[0]
    enough = per_component * math.log(N) / (2 * N)
    yield (
        f"With {N:.0f} rows BIC pays for a further component of {per_component:.0f} parameters from "
        f"{enough:.1g} nats a row on. Real clusters are hardly ever so nearly normal that it gains less: the more rows "
        "there are, the more components BIC wants. Decide by what each gains per row, or by ICL."
    )


def replicated(n_replicates: int, shares: pd.Series, name: Namer) -> str:
    """How often a criterion chose each number of components among replicates of the table.

    Parameters
    ----------
    n_replicates : int
    shares : Series
        Share of the replicates in which each fit was chosen, indexed by (covariance, n_components).
    name : callable
        From `namer`.
    """
    by_size = shares.groupby(level="n_components").sum().sort_values(ascending=False, kind="stable")
    sizes = ", ".join(f"K={K} in {share:.0%}" for K, share in by_size.items() if share >= _OFTEN)
    words = f"In {n_replicates} replicates of the table it chose {sizes}"
    if shares.index.get_level_values("covariance").nunique() > 1:
        words += f", most often {name(shares.idxmax())} ({shares.max():.0%})"
    return words + (
        ": other rows from the same source might well speak for another." if shares.max() < _WELL_FOUNDED else "."
    )


def size_probabilities(probabilities: pd.Series) -> str:
    """The posterior of the number of components, from that of the fits indexed by (covariance, n_components)."""
    sizes = probabilities.groupby("n_components").sum().sort_values(ascending=False, kind="stable")
    return (
        f"Of the {len(probabilities)} fits that have an evidence, with each number of components equally likely "
        f"beforehand, the posterior is {listed(f'K={K} {p:.2g}' for K, p in sizes.items() if p >= 0.005)}."
    )


def filled(overfitted: Overfitted) -> str:
    """How many components of too many the rows fill."""
    p = overfitted.probabilities
    order = [int(K) for K in np.argsort(-p) if p[K] >= _OFTEN]
    words = (
        f"A mixture of {overfitted.n_components} components ({overfitted.covariance}) with sparse weights fills "
        f"{listed(f'{K} in {p[K]:.0%}' for K in order)} of the draws; beforehand it gave {order[0]} a probability of "
        f"{overfitted.prior[order[0]]:.0%}."
    )
    return words if overfitted.converged else f"{words} Its chains do not agree (R-hat {overfitted.r_hat:.2f})."


def doubts(states: Mapping[Key, PosteriorState], pareto_k: Mapping[Key, float], name: Namer) -> Iterator[str]:
    """Which posteriors, and what comes from them, are not to be trusted.

    Parameters
    ----------
    states : mapping of (covariance, n_components) to PosteriorState
    pareto_k : mapping of (covariance, n_components) to float
        The largest of each LOO.
    name : callable
        From `namer`.
    """
    verdicts = {key: state.verdict for key, state in states.items() if state.verdict is not None}
    for convergence in (c for c in Convergence if not c.good):
        if keys := [key for key, verdict in verdicts.items() if verdict.convergence is convergence]:
            fault = convergence.value[0].upper() + convergence.value[1:]
            yield f"{fault} for {_names(keys, name)}: there trust criteria of EM more than LOO and evidence."
    if keys := [key for key in states if key not in verdicts]:
        yield f"There is no posterior of {_names(keys, name)}; the column posterior says why."
    if keys := [key for key, state in states.items() if state.no_evidence]:
        yield f"There is no evidence of {_names(keys, name)}; the column posterior says why."
    if keys := [key for key, k in pareto_k.items() if k > _RELIABLE_PARETO_K]:
        yield (
            f"For {_names(keys, name)} LOO is in doubt: single rows weigh too much for its approximation "
            f"(Pareto k above {_RELIABLE_PARETO_K})."
        )


def agreement(choices: Mapping[str, Key]) -> str:
    """Whether the criteria choose the same fit, or at least the same number of components."""
    sizes = sorted({K for _, K in choices.values()})
    if len(set(choices.values())) == 1:
        return "They agree."
    if len(sizes) == 1:
        return f"They agree on {sizes[0]} components, not on the covariance."
    return f"They do not agree on the number of components: {sizes[0]} to {sizes[-1]}."


def reason(criterion: str, ranking: pd.DataFrame, chosen: Key, agreeing: Sequence[Criterion], name: Namer) -> str:
    """Why to report a fit: by which criterion it leads or ties, and which others choose it too.

    Parameters
    ----------
    criterion : str
        That decides.
    ranking : DataFrame
        By that criterion, from `Selection.ranking`.
    chosen : (covariance, n_components)
        The fit to report.
    agreeing : sequence of Criterion
        Others that choose it or tie it with their choice.
    name : callable
        From `namer`.
    """
    kind, keys, behind = CRITERIA[criterion], keys_of(ranking), ranking["behind"]
    n_tied = int(ranking["tied"].sum())
    if len(ranking) == 1:
        words = "It is the only fit left"
    elif n_tied == 1:
        words = f"{kind.title} prefers it by {kind.in_words(behind.iloc[1])}"
    else:
        words = f"It is the smallest of the {n_tied} fits that tie by {kind.title_within}"
        if chosen != keys[0]:
            words += f", though {kind.in_words(behind.iloc[keys.index(chosen)])} behind {name(keys[0])}"
    if agreeing:
        several = len(agreeing) > 1
        verb = "choose it too, or tie it with their choice" if several else "chooses it too, or ties it with its choice"
        words += f"; {listed(other.title_within for other in agreeing)} {verb}"
    return words


def to_report(chosen: Key, why: str, rivals: Sequence[Key], name: Namer) -> str:
    """Which fit to report, why, and what is not ruled out."""
    words = f"To report: {name(chosen)}. {why}."
    return f"{words} Not ruled out: {_names(rivals, name)}." if rivals else words


def left_out(states: Mapping[Key, FitState], name: Namer) -> Iterator[str]:
    """Which fits are spurious or failed, if any."""
    keys = [key for key, state in states.items() if state.left_out]
    if keys:
        more = f", and {len(keys) - _MENTIONED} more" if len(keys) > _MENTIONED else ""
        some = ", ".join(map(name, keys[:_MENTIONED]))
        yield f"Left out as spurious or failed: {some}{more}; the column status says why."


def _names(keys: Iterable[Key], name: Namer) -> str:
    return listed(map(name, keys))
