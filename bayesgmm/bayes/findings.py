"""What may be found about the draws of a posterior, as values, and the sentences made from them.

Here are the words; `diagnosis` looks for the facts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from bayesgmm.bayes.verdict import Convergence
from bayesgmm.names import counted, listed


class Remedy(Enum):
    """What to do about a finding; the most effective remedy first.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> bg.Remedy.FEWER_COMPONENTS.value
    'fewer components'
    """

    RELABEL = "bg.relabel(tree)"
    FEWER_COMPONENTS = "fewer components"
    SIMPLER_COVARIANCE = "a simpler covariance"
    LONGER_TUNING = "a longer tuning (tune)"
    LONGER_CHAINS = "longer chains (draws)"


class Symptom(Enum):
    """The kinds of finding; the value holds the remedy, whether the sampling is at fault, and the sentence.

    The sentence is a format string for the facts, or a function of them where filling in values is not enough.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> bg.Symptom.CHAINS_DISAGREE.remedy.value, bg.Symptom.CHAINS_DISAGREE.fault
    ('longer chains (draws)', True)
    """

    LABELS_SWITCH = (
        Remedy.RELABEL,
        True,
        "In {share:.0%} of the draws the components have other labels than in the first: nothing can be said of a "
        "single one.",
    )
    CHAINS_DISAGREE = Remedy.LONGER_CHAINS, True, "The chains disagree about {parameter} (R-hat {r_hat:.3f})."
    SEPARATE_MODE = Remedy.FEWER_COMPONENTS, True, lambda facts: _separate_mode(**facts)
    DIVERGENCES = (
        Remedy.LONGER_TUNING,
        True,
        lambda facts: (
            f"{counted(facts['count'], 'transition')} diverged: the sampler missed a narrow part of the posterior."
        ),
    )
    LOW_ENERGY = Remedy.LONGER_TUNING, True, "The energy mixes badly (E-BFMI {bfmi:.2f})."
    FEW_EFFECTIVE_DRAWS = (
        Remedy.LONGER_CHAINS,
        True,
        "There are too few independent draws: {parameter} has a {kind} effective sample size of {ess:.0f}, below "
        "{least}.",
    )
    LONG_PATHS = (
        Remedy.FEWER_COMPONENTS,
        False,
        "In {share:.0%} of the draws the sampler took the longest path it may (tree depth {depth}): the data hardly "
        "tell some parameters apart.",
    )
    EMPTY_COMPONENTS = Remedy.FEWER_COMPONENTS, False, lambda facts: _empty_components(**facts)
    SINGLE_ROWS = None, False, lambda facts: _single_rows(**facts)
    COVARIANCE_FROM_PRIOR = (
        Remedy.SIMPLER_COVARIANCE,
        False,
        lambda facts: (
            f"Component {facts['component']} holds {rounded_rows(facts['n_rows'])}, and {facts['needed']} are the "
            "fewest that determine a covariance: its own comes from the prior."
        ),
    )
    SHARED_NEAREST = (
        Remedy.FEWER_COMPONENTS,
        False,
        "Components {pair[0]} and {pair[1]} are hard to tell apart: in {share:.0%} of the draws one component is the "
        "nearest to both.",
    )
    OVERLAP = (
        Remedy.FEWER_COMPONENTS,
        False,
        "Components {pair[0]} and {pair[1]} are hard to tell apart: their symmetric divergence is only "
        "{divergence:.2g} nats.",
    )
    MEAN_FROM_PRIOR = (
        None,
        False,
        "The data say little of the mean of component {component}: the sd of {feature} is {sd:.3g}, that of its prior "
        "{prior_sd:.3g}.",
    )

    @property
    def remedy(self) -> Remedy | None:
        """What to do about it."""
        return self.value[0]

    @property
    def fault(self) -> bool:
        """Whether the sampling is at fault; otherwise it is a property of the components."""
        return self.value[1]


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding about the draws of a posterior; ``str(finding)`` is a sentence.

    Attributes
    ----------
    symptom : Symptom
    facts : mapping from str
        The numbers and names that its sentence contains.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> print(bg.Finding(bg.Symptom.CHAINS_DISAGREE, {"parameter": "means[0, eruptions]", "r_hat": 1.234}))
    The chains disagree about means[0, eruptions] (R-hat 1.234).
    """

    symptom: Symptom
    facts: Mapping[str, Any]

    def __str__(self) -> str:
        sentence = self.symptom.value[2]
        return sentence(self.facts) if callable(sentence) else sentence.format(**self.facts)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What `diagnose` found out about a posterior.

    Attributes
    ----------
    convergence : Convergence
    findings : tuple of Finding
        The most important first; ``str(finding)`` is a sentence.
    r_hat : float or None
        The largest R-hat of any parameter; None for a single chain.
    ess : float
        The smallest effective sample size of any parameter, bulk or tail.
    n_components : int
        Of the mixture.
    of_transitions : bool
        Whether the sampler tells which transitions diverged.
    good : bool
        Whether the chains converged. Findings about components do not count against the sampling.
    text : str
        The whole diagnosis in sentences: the verdict, the findings, what to do.

    Examples
    --------
    >>> import bayesgmm as bg
    >>> X = bg.datasets.old_faithful()
    >>> diagnosis = bg.diagnose(bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), draws=500, chains=2, rng=0))
    >>> diagnosis.good, diagnosis.r_hat < 1.01
    (True, True)
    """

    convergence: Convergence
    findings: tuple[Finding, ...]
    r_hat: float | None
    ess: float
    n_components: int
    of_transitions: bool = True
    of_approximation: str = ""  # the verdict's text, where the draws are of an approximation

    @property
    def good(self) -> bool:
        """Whether the chains converged."""
        return self.convergence.good

    @property
    def text(self) -> str:
        """The verdict, the findings and what to do, in sentences."""
        if self.of_approximation:
            return " ".join([self.of_approximation, *map(str, self.findings)])
        return f"{_OPENING[self.convergence]}{self.reasons}"

    @property
    def reasons(self) -> str:
        """The text without its opening verdict."""
        if self.convergence is Convergence.UNCHECKED:
            return "convergence cannot be judged from fewer than four draws a chain."
        sentences = [str(finding) for finding in self.findings]
        if self.good:
            agree = "one chain, so no R-hat" if self.r_hat is None else f"chains agree (R-hat at most {self.r_hat:.3f})"
            divergences = ", no divergences" if self.of_transitions else ""
            sentences.insert(0, f"{agree}, effective sample size at least {self.ess:.0f}{divergences}.")
        remedies = {finding.symptom.remedy for finding in self.findings}
        if self.n_components == 1:
            remedies.discard(Remedy.FEWER_COMPONENTS)
        if advice := [remedy.value for remedy in Remedy if remedy in remedies]:
            sentences.append(f"{'Consider' if self.good else 'Try'} {listed(advice, 'or')}.")
        return " ".join(sentences)


_OPENING = {
    Convergence.CONVERGED: "Converged: ",
    Convergence.NOT_CONVERGED: "Not converged. ",
    Convergence.UNCHECKED: "Not checked: ",
}


def rounded_rows(n: float) -> str:
    """A number of rows that need not be whole: "0.9 rows", "38 rows".

    Examples
    --------
    >>> rounded_rows(0.93), rounded_rows(1.0), rounded_rows(37.8)
    ('0.9 rows', '1 row', '38 rows')
    """
    number = f"{n:.0f}" if n >= 9.95 else f"{n:.1f}".removesuffix(".0")
    return f"{number} row{'s' * (number != '1')}"


def _chains(names: Sequence[Any]) -> str:
    return f"chain{'s' * (len(names) > 1)} {listed(names)}"


def _separate_mode(
    chains: Sequence[Any],
    others: Sequence[Any],
    height: str,
    lower: float | None,
    rows: Iterable[tuple[int, float, float]],
    parameter: str,
    r_hat: float,
) -> str:
    gap = "" if lower is None else f" ({height} lower by {lower:.1f})"
    differences = [
        f"component {k} holds {rounded_rows(here)} instead of {rounded_rows(there).split()[0]}"
        for k, here, there in rows
    ]
    what = ", ".join(differences) or f"they differ most in {parameter} (R-hat {r_hat:.3f})"
    verb = "sits" if len(chains) == 1 else "sit"
    return f"{_chains(chains).capitalize()} {verb} in another mode than {_chains(others)}{gap}: {what}."


def _empty_components(components: Sequence[int], shares: Sequence[float], n_components: int) -> str:
    which = f"Components {listed(components)} hold" if len(components) > 1 else f"Component {components[0]} holds"
    percentages = listed(f"{share:.0%}" for share in shares)
    return (
        f"{which} less than one row in {percentages} of the draws: the data hardly call for {n_components} components."
    )


def _single_rows(component: int, rows: Sequence[int], n_rows: float) -> str:
    what = rounded_rows(n_rows)
    if len(rows):
        what = f"only row{'s' * (len(rows) > 1)} {listed(rows)} (counted from 0)"
    return f"Component {component} holds {what}: look whether that is an error or an outlier."
