"""Sentences about an analysis, each with a mark that says whether it is good news; they decide nothing."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bayesgmm.clusters.imputation import MISSING_AT_RANDOM
from bayesgmm.covariance import ALIASES
from bayesgmm.em.result import EMFit, Status
from bayesgmm.names import counted, short
from bayesgmm.summary.analysis import Analysis


class Mark(enum.Enum):
    """Whether a remark reassures, asks for a look, or warns; the value is the word for it."""

    GOOD = "good"
    NOTE = "note"
    LOOK = "look"
    BAD = "trouble"


@dataclass(frozen=True, slots=True)
class Remark:
    """A sentence or two, and whether what they say is good."""

    mark: Mark
    text: str


def sentences(analysis: Analysis) -> Iterator[str]:
    """How the fit and the sampling went, and how far to trust them."""
    return (remark.text for remark in remarks(analysis))


def remarks(analysis: Analysis) -> Iterator[Remark]:
    """The same sentences, each with its mark."""
    yield from em_remarks(analysis.fit, analysis.seconds.get("em"))
    verdict, (chains, draws) = analysis.posterior.verdict, analysis.posterior.draws.batch_shape
    assert verdict is not None
    size = f"{counted(chains, 'chain')} of {counted(draws, 'draw')}{_took(analysis.seconds.get('posterior'), ' in ')}"
    yield Remark(Mark.GOOD if verdict.good else Mark.BAD, f"Posterior: {size}. {verdict.text}")
    if (source := analysis.posterior.source) is not None:
        yield Remark(Mark.NOTE, _of_parts(analysis, source.n_observations))
    if analysis.clusters is not None:
        r_hat, ess = analysis.clusters["r_hat"].max(), analysis.clusters["ess_bulk"].min()
        agree = "" if math.isnan(r_hat) else f"R-hat is at most {r_hat:.3f} and "
        sentence = f"Of the clusters {agree}the effective sample size at least {ess:.0f}."
        yield Remark(Mark.NOTE, f"That is about the components. {sentence}")
    if (loo := analysis.loo) is not None:
        sentence = f"Leave-one-out: elpd {loo.elpd:.1f}, standard error {loo.se:.1f} (larger is better). {loo.text}"
        yield Remark(Mark.LOOK if loo.untrusted else Mark.GOOD, sentence)
    if analysis.assignments.noise is not None:
        rows = np.flatnonzero(analysis.assignments.labels == -1)
        which = f" ({', '.join(map(str, rows[:5]))}{', ...' * (rows.size > 5)})" if rows.size else ""
        yield Remark(Mark.NOTE, f"More likely of no cluster than of any: {counted(rows.size, 'row')}{which}.")
    if analysis.fit.n_components > 1:
        yield from _of_clusters(analysis)


def em_remarks(fit: EMFit, seconds: float | None = None) -> Iterator[Remark]:
    """How EM ended, and what makes its fit doubtful."""
    ended = fit.status.value.partition(":")[0]
    effort = f"{counted(fit.n_iterations, 'iteration')}, {fit.search}{_took(seconds, ', ')}"
    yield Remark(
        Mark.GOOD if fit.status is Status.CONVERGED else Mark.LOOK,
        f"EM {ended} ({effort}): log-likelihood {fit.log_likelihood:.2f}, BIC {fit.bic:.2f} (smaller is better).",
    )
    if fit.missing.n_rows:
        yield Remark(Mark.NOTE, f"{fit.missing}. {MISSING_AT_RANDOM}")
    if fit.mixture.noise is not None:
        sides, volume = fit.mixture.noise.sides, fit.mixture.noise.volume
        box = f"{volume:g} times that of the columns' ranges" if volume != 1 else "that of the columns' ranges"
        yield Remark(
            Mark.NOTE,
            f"Rows that belong to no cluster are {fit.mixture.noise_weight:.1%} by EM, even over a box of volume "
            f"{np.prod(sides):.4g}, {box}; a larger volume makes them fewer.",
        )
    for doubt in fit.doubts:
        yield Remark(Mark.LOOK, f"{doubt[0].upper()}{doubt[1:]}.")


def _took(seconds: float | None, before: str) -> str:
    return "" if seconds is None else f"{before}{seconds:.1f} s"


def _of_parts(analysis: Analysis, n_rows: int) -> str:
    """What is from all rows of a table in parts, what is of some, and what cannot be had."""
    n_shown = len(analysis.assignments.labels)
    few = (
        f"what is said of single rows, and drawn, is of {n_shown} of them, taken at random. bayesgmm assign labels all"
    )
    shown = f"; {few}" if n_shown < n_rows else ""
    without = "Leave-one-out needs" if analysis.partition is not None else "Leave-one-out and the partition need"
    left_out = f"{without} every row in memory, and {'is' if analysis.partition is not None else 'are'} left out"
    clusters = ", but which components make a cluster is by those that are shown" if analysis.ambiguous else ""
    return f"Estimates and intervals are from all {n_rows} rows{clusters}{shown}. {left_out}."


def _of_clusters(analysis: Analysis) -> Iterator[Remark]:
    """What the draws say of the clusters, whatever the components' labels."""
    if analysis.partition is not None or analysis.posterior.source is None:
        yield Remark(Mark.NOTE, _partition_sentence(analysis))
    share = analysis.modes.probabilities
    order = [k for k in np.argsort(-share, kind="stable") if share[k] >= 0.05]
    shares = " and ".join(f"{k + 1} in {share[k]:.0%} of the draws" for k in order)
    yield Remark(Mark.NOTE, f"Peaks of the density, where components that make one lump count once: {shares}.")
    outliers = np.flatnonzero(analysis.assignments.tail_probability < 1 / (10 * analysis.fit.n_observations))
    if outliers.size:
        rows = ", ".join(map(str, outliers[:5])) + ", ..." * (outliers.size > 5)
        sentence = f"Out of place in every component: {counted(outliers.size, 'row')} ({rows})."
        yield Remark(Mark.LOOK, sentence)


def _partition_sentence(analysis: Analysis) -> str:
    """What is said of the partition, or why there is none."""
    best, ball = analysis.partition, analysis.ball
    if best is None:
        return f"The partition is left out above {analysis.partition_rows} rows; bg.partition(tree) finds it."
    if ball is None:
        return (
            f"The partition has {counted(best.n_clusters, 'cluster')}: it was found from {analysis.partition_rows} "
            "rows drawn at random, and every other row is in its likeliest cluster."
        )
    gain = f", {best.gain:.3f} less than EM's labels" if best.gain > 0.0005 else ", as good as EM's labels"
    return (
        f"The one partition that sums the posterior up has {counted(best.n_clusters, 'cluster')}: expected "
        f"variation of information {best.expected_loss:.3f} nats{gain}; {ball.probability:.0%} of the posterior's "
        f"partitions are within {ball.radius:.3f} of it."
    )


def ambiguity(analysis: Analysis) -> str:
    """What a reader must know first where the draws do not keep the components apart, and what to do about it."""
    fit, C = analysis.fit, analysis.draws.n_components
    K, model = fit.n_components, fit.covariance_model
    most = min(C, K - 1)
    advice = [f"fewer components (-k {most}{' or less' if most > 1 else ''})"]
    if "V" in model.name:
        equal = model.name.replace("V", "E") if fit.n_features > 1 else "EEE"
        aliases = [alias for alias, name in ALIASES.items() if name == equal]
        advice.append(f"the same covariance for all (--covariance {[*aliases, equal][0]})")
    return (
        f"The draws do not keep the {K} components apart: in {analysis.stray_rate:.0%} of them one holds the rows "
        f"of another, so nothing can be said of a single component. What follows is about the "
        f"{counted(C, 'cluster')} of the partition that sums the draws up, which is the same whatever the components "
        f"are called. For components that mean something, try {' or '.join(advice)}; bayesgmm select compares them."
    )


def model_name(fit: EMFit) -> str:
    """The covariance model by the name that people know, where it has one, and by its letters."""
    model = fit.covariance_model
    aliases = [alias for alias, name in ALIASES.items() if name == model.name and fit.n_features > 1]
    letters = model.label(fit.n_features)
    return f"{aliases[0]} ({letters})" if aliases else letters


def decimals_of(sd: float) -> int:
    """Decimals that show an estimate to two significant digits of its standard deviation."""
    return min(max(1 - math.floor(math.log10(sd)), 0), 12) if sd > 0 else 3


def number(x: float, decimals: int) -> str:
    """A number with so many decimals, or a power of ten where these would be many."""
    return f"{x:.3e}" if decimals > 7 or abs(x) >= 1e9 else f"{x:.{decimals}f}"


def parameter_name(name: str, feature: str, feature_bis: str) -> str:
    """What a row of the table of parameters is about."""
    if name == "noise_weight":
        return "weight of no cluster"
    if name == "weights":
        return "weight"
    if name == "means":
        return f"mean {short(feature)}"
    if feature == feature_bis:
        return f"variance {short(feature)}"
    return f"covariance {short(feature)}, {short(feature_bis)}"
