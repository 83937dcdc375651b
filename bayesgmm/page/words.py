"""The page's sentences and the cells of its tables, made from facts; they decide nothing."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from bayesgmm.bayes.verdict import Convergence
from bayesgmm.covariance import CovarianceModel
from bayesgmm.names import counted, percent
from bayesgmm.page.facts import Described, Facts
from bayesgmm.page.rows import MOST_LISTED
from bayesgmm.selection.words import namer, to_report
from bayesgmm.summary.words import Mark, Remark, decimals_of, em_remarks, model_name, number, remarks

_POSTERIOR = "bayesgmm fit without --em-only, or bg.sample_posterior in Python"
_NO_OPTIONS = {"table", "source", "out", "force", "json", "quiet", "given_priors"}  # or none that change the result
_GROUPS = {
    "component": "group of rows with similar values, described by one normal distribution: where its centre is, how "
    "far its rows spread in each column, and which share of all rows it holds",
    "cluster": "set of rows that the draws of the posterior keep together",
}
CLEAR = 0.9  # probability from which it is called clear what a row belongs to
_SIZES = {"E": "of equal size", "V": "each of its own size"}
_SHAPES = {"I": "round", "E": "of the same shape", "V": "each of its own shape"}
_PLAIN = {"EEE": "all of the same size, shape and direction", "VVV": "each of its own size, shape and direction"}
_DIRECTIONS = {"I": "along the axes of the features", "E": "all turned the same way", "V": "each turned its own way"}


class Fact(NamedTuple):
    """A number to be seen at first glance, and what it is."""

    value: str
    label: str


def verdict(facts: Facts) -> Remark:
    """What to know first, in a sentence."""
    if facts.analysis is not None:
        judged = facts.analysis.posterior.verdict
        if judged is not None and not judged.good:
            return Remark(Mark.BAD, f"Not to be trusted yet: {judged.convergence.value}. {_clarity(facts)}")
        if facts.analysis.ambiguous:
            K = facts.fit.n_components
            return Remark(Mark.LOOK, f"The draws do not keep the {K} components apart. What stays: {_clarity(facts)}")
    doubtful = bool(facts.fit.doubts)
    sentence = _clarity(facts)
    return Remark(Mark.LOOK if doubtful else Mark.GOOD, sentence[0].upper() + sentence[1:])


def _clarity(facts: Facts) -> str:
    """How many groups there are, and for how many rows it is clear which they belong to."""
    K, N, noise = facts.n_groups, len(facts.rows.labels), facts.rows.n_noise
    chosen = "" if facts.selection is None else f"Of {counted(len(facts.selection.table), 'fit')}, the one to report: "
    rest = f"; {counted(noise, 'row')} most probably belong{'s' * (noise == 1)} to none" if noise else ""
    if K == 1:
        held = f"{N - noise} of {N} rows" if noise else f"all {counted(N, 'row')}"
        return f"{chosen}a single {facts.group} holds {held}{rest}."
    clear = int((facts.rows.probability >= CLEAR).sum())
    rows = f"{clear} of the {N} rows which one they belong to"
    if clear == N:
        rows = f"each of the {N} rows which one it belongs to"
    return f"{chosen}{K} {facts.group}s, and it is clear for {rows}{rest}."


def state_of_draws(facts: Facts) -> Remark | None:
    """Whether the draws are to be trusted, in a few words; None where there are none, or nobody has judged."""
    judged = None if facts.analysis is None else facts.analysis.posterior.verdict
    if judged is None:
        return None
    text = judged.convergence.value
    agree = judged.convergence is Convergence.CONVERGED
    what_for = ": independent runs agree, so that the intervals can be used" if agree else ""
    return Remark(Mark.GOOD if judged.good else Mark.BAD, f"{text[0].upper()}{text[1:]}{what_for}.")


def explanation(facts: Facts) -> Iterator[str]:
    """What the first sentence means, and what it takes for granted: a paragraph each."""
    fit, analysis = facts.fit, facts.analysis
    yield f"A {facts.group} is a {_GROUPS[facts.group]}."
    if facts.selection is not None:
        chosen, table = facts.selection, facts.selection.table
        yield to_report(chosen.chosen, chosen.reason, chosen.rivals, namer(table))
    if facts.n_choices > 1:
        basis = "averaged over the draws of the posterior" if analysis is not None else "by EM's estimate"
        yield f"Clear means that the row's {facts.group} has a probability of {CLEAR} or more, {basis}."
    if analysis is not None and analysis.ambiguous:
        yield (
            f"In {analysis.stray_rate:.0%} of the draws one component holds the rows of another, so nothing can be "
            "said of a single component. Everything here is about clusters of rows instead, which are the same "
            "whatever the components are called. Fewer components, or the same covariance for all, may be kept apart."
        )
    other = " Below is how other numbers compare." if facts.selection else ""
    granted = f"Taken for granted is that the rows come from {counted(fit.n_components, 'normal distribution')}"
    yield f"{granted}, {components_in_words(fit.covariance_model, fit.n_components, fit.n_features)}.{other}"
    if analysis is None:
        yield "There are no posterior draws, so nothing on this page shows how sure the estimates are."


def next_steps(facts: Facts) -> Iterator[str]:
    """What to do with the page, a step each: what to quote, which rows to be careful with, what is still open."""
    analysis, group = facts.analysis, facts.group
    judged = None if analysis is None else analysis.posterior.verdict
    if judged is not None and not judged.good:
        approximate = judged.convergence is Convergence.APPROXIMATION_POOR
        remedy = "draws by NUTS, if need be of a random part of the rows," if approximate else "more draws"
        yield (
            "Quote nothing from this page yet: the draws are not to be trusted. “How far to trust this” says what was "
            f"found. Fewer components, the same covariance for all, or {remedy} may help."
        )
    elif analysis is not None:
        yield f"To quote: the mean with its interval, from the table of {group}s, as in “{_quoted(facts)}”."
    else:
        again = f"bayesgmm fit with -k {facts.fit.n_components} --covariance {facts.fit.covariance_model.name}"
        yield (
            f"To quote: numbers in the table of {group}s, as estimates without intervals, as in “{_quoted(facts)}”. "
            f"For intervals, draw from the posterior: {again if facts.selection is not None else _POSTERIOR}."
        )
    if facts.n_choices > 1:
        doubtful = int((facts.rows.probability < CLEAR).sum())
        if doubtful:
            which = "The row in doubt leads" if doubtful == 1 else f"The {doubtful} rows in doubt lead"
            yield (
                f"{which} the list of the least certain rows. Rather than counting such a row as one {group}'s, give "
                "its probabilities, or look at it again."
            )
        else:
            yield f"No row is in doubt: each may be counted as its {group}'s."
    if facts.selection is None:
        yield (
            f"The number of components, {facts.fit.n_components}, was given, not found. To compare other numbers: "
            "bayesgmm select, or bg.select in Python."
        )


def _quoted(facts: Facts) -> str:
    """The share of the largest group as one would quote it; where there is one group, its first mean."""
    told = facts.quantities[0]
    if facts.n_groups == 1:
        value, interval = _cell(told, 0)
        sure = f" ({percent(facts.ci_prob)} interval {interval})" if interval else ""
        return f"the {told.name} of {told.feature} is {value}{sure}"
    values = told.em if told.mean is None else told.mean
    assert values is not None
    k = int(np.argmax(values))
    text = f"{facts.group} {k} holds {values[k]:.1%} of all rows"
    if told.quantiles is None:
        return text
    low, high = told.quantiles[0, k], told.quantiles[-1, k]
    return f"{text} ({percent(facts.ci_prob)} interval {low:.1%} to {high:.1%})"


def glossary(facts: Facts) -> Iterator[tuple[str, str]]:
    """The terms of the page, and what each means."""
    analysis, group = facts.analysis, facts.group
    yield group, f"A {_GROUPS[group]}. Numbers and colours are only names."
    if facts.selection is not None:
        yield "K", "The number of components."
    yield "weight", f"The share of all rows, of this table and of more like it, that belongs to a {group}; 1 is all."
    yield f"mean of a {group}", "Its centre, in the units of the column."
    spread = "How far its rows lie from that centre, in the units of the column: about two thirds within one sd"
    yield "sd, standard deviation", f"{spread}, 95% within two."
    if any(d.name == "correlation" for d in facts.quantities):
        yield "correlation", f"Whether two columns rise together within a {group}: from -1 over 0, unrelated, to 1."
    if facts.n_choices > 1:
        yield "probability of a row", f"How probable it is that the row belongs to that {group}, given its values."
    yield (
        "EM, expectation-maximisation",
        "A method that finds the one set of numbers under which the table is most probable; it does not say how sure.",
    )
    if analysis is not None:
        yield (
            "posterior, draws",
            "All sets of numbers that agree with the table and with the priors, each as often as it deserves. The "
            "draws are a sample of them; where they differ little, the table leaves little doubt.",
        )
        yield (
            f"{percent(facts.ci_prob)} interval",
            f"Where the true value lies with a probability of {percent(facts.ci_prob)}, if the model is right.",
        )
        yield (
            "R-hat, effective draws",
            "Whether the draws are enough: R-hat should be below 1.01, and effective draws some hundreds or more.",
        )
        if analysis.loo is not None:
            yield "elpd, leave-one-out", "How well each row is predicted by the other rows; larger is better."
    marks = "Marks for a fit, with points off for each parameter, to compare fits of one table; smaller is better."
    yield "BIC, ICL, AIC", marks
    fit = facts.fit
    spreads = components_in_words(fit.covariance_model, fit.n_components, fit.n_features).partition(":")[0]
    yield "covariance model", f"Which spreads the components may have, in the letters of mclust; here {spreads}."


def components_in_words(model: CovarianceModel, n_components: int, n_features: int) -> str:
    """A covariance model in plain words.

    Examples
    --------
    >>> components_in_words(CovarianceModel.named("EEE"), 3, 2)
    'all of the same size, shape and direction: EEE'
    >>> components_in_words(CovarianceModel.named("VII"), 3, 2), components_in_words(CovarianceModel.named("E"), 3, 1)
    ('each of its own size, round: VII', 'of equal variance: E')
    """
    label = model.label(n_features)
    if n_features == 1:
        own = "of equal variance" if model.volume == "E" else "each of its own variance"
        return f"{own}: {label}" if n_components > 1 else "of any variance"
    if n_components == 1:
        round_or_not = {"I": "round", "E": _DIRECTIONS["I"] if model.orientation == "I" else "of any shape"}
        return f"{round_or_not[model.shape.replace('V', 'E')]}: {label}"
    if model.name in _PLAIN:
        return f"{_PLAIN[model.name]}: {label}"
    parts = [_SIZES[model.volume], _SHAPES[model.shape]]
    if model.shape != "I":
        parts.append(_DIRECTIONS[model.orientation])
    return f"{', '.join(parts)}: {label}"


def at_a_glance(facts: Facts) -> Iterator[Fact]:
    """The numbers beside the verdict."""
    fit, N = facts.fit, len(facts.rows.labels)
    yield Fact(f"{N:,}".replace(",", " "), "rows")
    yield Fact(f"{fit.n_features}", f"feature{'s' * (fit.n_features != 1)}")
    yield Fact(f"{facts.n_groups}", f"{facts.group}s" if facts.n_groups != 1 else facts.group)
    if facts.n_choices > 1:
        doubtful = int((facts.rows.probability < CLEAR).sum())
        yield Fact(f"{doubtful}", f"row{'s' * (doubtful != 1)} in doubt")
    yield Fact(model_name(fit), "covariance model")


def diagnostics(facts: Facts) -> list[Remark]:
    """How the fit and the sampling went, in sentences with marks."""
    return list(em_remarks(facts.fit) if facts.analysis is None else remarks(facts.analysis))


def points_in_words(facts: Facts) -> str:
    """What the points and lines of the first picture are."""
    if facts.curves is not None:
        return "Every point below the curve is a row; how high it stands means nothing."
    text = f"Every point is a row, in the colour of its likeliest {facts.group}."
    return f"{text} About 39% of a {facts.group}'s rows lie within its inner ellipse, 86% within the outer."


def bounds(facts: Facts) -> str:
    """How many rows are drawn and listed, where that is not all; and how many features."""
    N, drawn = len(facts.rows.labels), len(facts.rows.drawn)
    notes = []
    if drawn < N:
        notes.append(f"{drawn} of the {N} rows are drawn: the 500 least certain, and others evenly over the table")
    if len(facts.shown) < len(facts.features):
        notes.append(
            f"{len(facts.shown)} of the {len(facts.features)} features can be picked: those in which the "
            f"{facts.group}s differ most"
        )
    return ". ".join(notes) + "." if notes else ""


def listed_rows(facts: Facts) -> str:
    """Which rows the list has."""
    N = len(facts.rows.labels)
    which = f"All {N} rows" if N <= MOST_LISTED else f"The {MOST_LISTED} least certain of the {N} rows"
    return f"{which} are listed, the least certain first."


class Cell(NamedTuple):
    """One quantity of one group, and its interval or nothing."""

    value: str
    interval: str


class Line(NamedTuple):
    """A group as the table of groups tells of it: its number, its rows, and a cell for each quantity."""

    group: int
    n_rows: int
    cells: list[Cell]


def group_table(facts: Facts) -> tuple[list[str], list[Line]]:
    """Headings and lines of the table of groups: posterior mean and interval of weight, means and correlation."""
    told = [d for d in facts.quantities if d.name != "sd"]
    headings = [d.name if d.feature is None else f"{d.name} of {d.feature}" for d in told]
    sizes = facts.rows.sizes(facts.n_groups)
    return headings, [Line(k, sizes[k], [_cell(d, k) for d in told]) for k in range(facts.n_groups)]


def _cell(described: Described, k: int) -> Cell:
    """One quantity of one group: its posterior mean and interval, or EM's estimate."""
    if described.quantiles is None or described.mean is None or described.sd is None:
        return Cell("" if described.em is None else f"{described.em[k]:.4g}", "")
    decimals = decimals_of(float(described.sd[k]))
    low, high = (number(float(x), decimals) for x in (described.quantiles[0, k], described.quantiles[-1, k]))
    return Cell(number(float(described.mean[k]), decimals), f"[{low}, {high}]")


def similarity_in_words(facts: Facts) -> str:
    """What the picture of all pairs shows."""
    s, N = facts.similarities, len(facts.rows.labels)
    assert s is not None
    which = f"{s.n_rows} of the {N} rows, evenly from every {facts.group}" if s.n_rows < N else f"All {N} rows"
    text = f"{which}, ordered by {facts.group}: a point is the probability that two rows belong together. "
    if np.isfinite(s.inside):
        text += f"On average it is {s.inside:.2f} for two rows of the same {facts.group}"
        text += f" and {s.outside:.2f} for two of different ones." if np.isfinite(s.outside) else "."
    return text


def forest_in_words(facts: Facts) -> str:
    """How to read the intervals."""
    shown, D = len(facts.described), len(facts.features)
    which = f" {shown} of {D} features are shown: those in which the {facts.group}s differ most." if shown < D else ""
    if facts.analysis is None:
        return f"A tick is EM's estimate; all {facts.group}s of a quantity are on one scale.{which}"
    tick = " A tick is EM's estimate." if facts.group == "component" else ""
    return (
        f"Thin bars are {percent(facts.ci_prob)} intervals of the posterior, thick bars 50% intervals, dots medians; "
        f"all {facts.group}s of a quantity are on one scale.{tick} Where the bars of two {facts.group}s lie apart, "
        f"these surely differ in that quantity.{which}"
    )


def criteria_of_one(facts: Facts) -> list[Fact]:
    """The criteria of a single fit."""
    fit = facts.fit
    values = [Fact(f"{fit.bic:.1f}", "BIC"), Fact(f"{fit.icl:.1f}", "ICL"), Fact(f"{fit.aic:.1f}", "AIC")]
    if facts.analysis is not None and facts.analysis.loo is not None:
        loo = facts.analysis.loo
        values.append(Fact(f"{loo.elpd:.1f} ± {loo.se:.1f}", "elpd by leave-one-out, nats"))
    return values


def group_caption(facts: Facts) -> str:
    """What the cells of the table of groups are."""
    D, shown = len(facts.features), len(facts.described)
    what = "EM's estimates" if facts.analysis is None else f"Posterior mean and {percent(facts.ci_prob)} interval"
    which = f"; {shown} of {D} features, those in which the {facts.group}s differ most" if shown < D else ""
    return f"{what}{which}. Rows counts those that most probably belong to it."


def numbers_caption(facts: Facts, n_lines: int) -> str:
    """What the table of all parameters has."""
    assert facts.analysis is not None
    table = facts.analysis.parameters if facts.analysis.clusters is None else facts.analysis.clusters
    some = f" The first {n_lines} of {len(table)}; all are in {facts.group}s.csv." if n_lines < len(table) else ""
    return f"Posterior mean, standard deviation and {percent(facts.ci_prob)} interval.{some}"


def model_sentence(facts: Facts) -> str:
    """The model in a line."""
    fit, analysis = facts.fit, facts.analysis
    text = f"{counted(fit.n_components, 'component')}, covariance {model_name(fit)}, {fit.n_parameters} free parameters"
    if analysis is None:
        return f"{text}; EM only"
    sampling, (chains, draws) = analysis.posterior.sampling, analysis.posterior.draws.batch_shape
    return f"{text}; {sampling.method}, {counted(chains, 'chain')} of {counted(draws, 'draw')}, seed {sampling.seed}"


def command(facts: Facts) -> str:
    """The command that makes the same page again; empty where it was not made by one."""
    name, arguments = facts.run.get("command"), dict(facts.run.get("arguments", {}))
    if not name:
        return ""
    if name == "demo":
        return f"bayesgmm {name}"
    words = ["bayesgmm", name, "-" if arguments.get("table") == "-" else str(arguments.get("source", ""))]
    options = {"components": facts.fit.n_components} | dict(sorted(arguments.items()))
    for option, value in options.items():
        if option not in _NO_OPTIONS and value is not None and value is not False:
            flag = f"--{option.replace('_', '-')}"
            words += [flag] if value is True else [flag, str(value)]
    return shlex.join(words)
