"""What is said of each symptom, from the facts alone."""

import pytest

import bayesgmm as bg
from bayesgmm.bayes.findings import Diagnosis, Finding, Symptom, rounded_rows

MODES = {"chains": [1], "others": [0, 2], "height": "log posterior", "parameter": "means[0,1]", "r_hat": 1.234}
CASES = [
    (Symptom.LABELS_SWITCH, {"share": 0.25}, "In 25% of the draws the components have other labels than in the first"),
    (Symptom.CHAINS_DISAGREE, {"parameter": "weights[0]", "r_hat": 1.0312}, "disagree about weights[0] (R-hat 1.031)."),
    (
        Symptom.SEPARATE_MODE,
        {**MODES, "lower": 6.13, "rows": [(2, 0.94, 38.2)]},
        "Chain 1 sits in another mode than chains 0 and 2 (log posterior lower by 6.1): component 2 holds 0.9 rows "
        "instead of 38.",
    ),
    (
        Symptom.SEPARATE_MODE,
        {**MODES, "chains": [1, 3], "others": [0], "lower": None, "rows": []},
        "Chains 1 and 3 sit in another mode than chain 0: they differ most in means[0,1] (R-hat 1.234).",
    ),
    (Symptom.DIVERGENCES, {"count": 1}, "1 transition diverged: the sampler missed a narrow part of the posterior."),
    (Symptom.LOW_ENERGY, {"bfmi": 0.123}, "The energy mixes badly (E-BFMI 0.12)."),
    (
        Symptom.FEW_EFFECTIVE_DRAWS,
        {"parameter": "means[0,0]", "kind": "bulk", "ess": 99.6, "least": 400},
        "means[0,0] has a bulk effective sample size of 100, below 400.",
    ),
    (Symptom.LONG_PATHS, {"share": 0.5, "depth": 10}, "In 50% of the draws the sampler took the longest path"),
    (
        Symptom.EMPTY_COMPONENTS,
        {"components": [3], "shares": [1.0], "n_components": 4},
        "Component 3 holds less than one row in 100% of the draws: the data hardly call for 4 components.",
    ),
    (
        Symptom.EMPTY_COMPONENTS,
        {"components": [0, 3], "shares": [0.5, 0.9], "n_components": 4},
        "Components 0 and 3 hold less than one row in 50% and 90% of the draws: the data hardly call for 4 components.",
    ),
    (
        Symptom.SINGLE_ROWS,
        {"component": 3, "rows": [60], "n_rows": 1.0},
        "Component 3 holds only row 60 (counted from 0): look whether that is an error or an outlier.",
    ),
    (Symptom.SINGLE_ROWS, {"component": 3, "rows": [6, 7], "n_rows": 2.0}, "holds only rows 6 and 7 (counted from 0):"),
    (Symptom.SINGLE_ROWS, {"component": 3, "rows": [], "n_rows": 1.43}, "Component 3 holds 1.4 rows: look whether"),
    (
        Symptom.COVARIANCE_FROM_PRIOR,
        {"component": 1, "n_rows": 3.0, "needed": 4},
        "Component 1 holds 3 rows, and 4 are the fewest that determine a covariance: its own comes from the prior.",
    ),
    (
        Symptom.SHARED_NEAREST,
        {"pair": (0, 1), "share": 0.3},
        "in 30% of the draws one component is the nearest to both.",
    ),
    (
        Symptom.OVERLAP,
        {"pair": (0, 2), "divergence": 0.357},
        "Components 0 and 2 are hard to tell apart: their symmetric",
    ),
    (
        Symptom.MEAN_FROM_PRIOR,
        {"component": 0, "feature": "x1", "sd": 0.0451, "prior_sd": 0.06},
        "the sd of x1 is 0.0451, that of its prior 0.06.",
    ),
]


@pytest.mark.parametrize(("symptom", "facts", "words"), CASES, ids=lambda value: getattr(value, "name", ""))
def test_the_sentence_has_the_facts(symptom, facts, words):
    sentence = str(Finding(symptom, facts))
    assert words in sentence
    assert sentence.endswith(".")


def test_every_symptom_has_its_sentence():
    assert {symptom for symptom, *_ in CASES} == set(Symptom)


def test_what_holds_for_the_sampling_is_a_fault_and_what_holds_for_components_is_not():
    faults = {symptom for symptom in Symptom if symptom.fault}
    about_components = set(list(Symptom)[list(Symptom).index(Symptom.LONG_PATHS) :])
    assert faults == set(Symptom) - about_components


def diagnosis(convergence, *findings, r_hat=1.004, n_components=3):
    return Diagnosis(convergence, tuple(Finding(*finding) for finding in findings), r_hat, 812.3, n_components)


def test_the_text_is_the_verdict_the_findings_and_the_advice():
    bad = diagnosis(
        bg.Convergence.NOT_CONVERGED, (Symptom.LOW_ENERGY, {"bfmi": 0.1}), (Symptom.DIVERGENCES, {"count": 2})
    )
    assert bad.text == (
        "Not converged. The energy mixes badly (E-BFMI 0.10). 2 transitions diverged: the sampler missed a narrow part "
        "of the posterior. Try a longer tuning (tune)."
    )
    good = diagnosis(bg.Convergence.CONVERGED, (Symptom.OVERLAP, {"pair": (0, 1), "divergence": 0.4}))
    assert good.text == (
        "Converged: chains agree (R-hat at most 1.004), effective sample size at least 812, no divergences. Components "
        "0 and 1 are hard to tell apart: their symmetric divergence is only 0.4 nats. Consider fewer components."
    )


def test_remedies_are_named_once_the_most_effective_first():
    facts = {"parameter": "weights[0]", "r_hat": 1.1}
    both = diagnosis(
        bg.Convergence.NOT_CONVERGED,
        (Symptom.CHAINS_DISAGREE, facts),
        (Symptom.CHAINS_DISAGREE, facts),
        (Symptom.LABELS_SWITCH, {"share": 0.5}),
    )
    assert both.text.endswith("Try bg.relabel(tree) or longer chains (draws).")


def test_a_single_component_is_not_advised_to_be_fewer():
    one = diagnosis(bg.Convergence.CONVERGED, (Symptom.LONG_PATHS, {"share": 0.5, "depth": 10}), n_components=1)
    assert "fewer" not in one.text


def test_one_chain_has_no_r_hat_and_too_few_draws_no_verdict():
    assert "one chain, so no R-hat" in diagnosis(bg.Convergence.CONVERGED, r_hat=None).text
    assert diagnosis(bg.Convergence.UNCHECKED).text == (
        "Not checked: convergence cannot be judged from fewer than four draws a chain."
    )


@pytest.mark.parametrize(("n", "words"), [(0.0, "0 rows"), (0.96, "1 row"), (9.96, "10 rows"), (9.94, "9.9 rows")])
def test_rows_are_rounded_to_what_matters(n, words):
    assert rounded_rows(n) == words
