"""What a selection says, sentence by sentence, from made-up rankings and outcomes."""

import numpy as np
import pandas as pd
import pytest

import bayesgmm as bg
from bayesgmm.em.heldout import HeldOut
from bayesgmm.selection import CRITERIA, words


def name(key):
    return f"{key[0]},{key[1]}"


def ranking(*lines):
    columns = ["covariance", "n_components", "n_parameters", "behind", "se", "tied"]
    return pd.DataFrame(lines, columns=columns)


def test_a_single_covariance_model_goes_without_saying():
    assert words.namer(pd.DataFrame({"covariance": ["VVV", "VVV"]}))(("VVV", 2)) == "K=2"
    assert words.namer(pd.DataFrame({"covariance": ["VVV", "EEE"]}))(("VVV", 2)) == "VVV,2"


@pytest.mark.parametrize(
    ("behind", "adverb"), [(0.0, "barely"), (2.0, "positively"), (6.0, "strongly"), (10.0, "very strongly")]
)
def test_differences_of_bic_go_by_the_adverbs_of_kass_and_raftery(behind, adverb):
    text = words.choice(
        "bic", ranking(("VVV", 2, 11, 0.0, 0.0, True), ("EEE", 3, 11, behind, 1.0, False)), name, decides=False
    )
    assert text.endswith(f"chooses VVV,2, {adverb}: EEE,3 is {behind} behind.")


@pytest.mark.parametrize(
    ("rest", "end"),
    [
        ([("EEE", 3, 11, 9.0, 2.0, False)], "clearly: EEE,3 is 9.0 nats behind, standard error 2.0."),
        ([("EEE", 3, 11, 1.0, 2.0, True)], "in a tie with EEE,3: EEE,3 is 1.0 nats behind, standard error 2.0."),
        ([("EEE", 3, 11, 9.0, 0.012, False)], "clearly: EEE,3 is 9.0 nats behind, standard error 0.01."),
        ([("EEE", 3, 11, 9.0, np.nan, False)], "clearly: EEE,3 is 9.0 nats behind."),
        (
            [("EEE", 3, 11, 1.0, 2.0, True), ("EEE", 1, 5, 2.0, 2.0, True)],
            "a tie with 2 others, the smallest of them EEE,1; the next, EEE,3 is 1.0 nats behind, standard error 2.0.",
        ),
    ],
)
def test_differences_in_nats_go_by_their_standard_error(rest, end):
    assert words.choice("loo", ranking(("VVV", 2, 11, 0.0, 0.0, True), *rest), name, decides=True).endswith(end)


def test_replicates_are_counted_by_size_and_by_fit():
    index = pd.MultiIndex.from_tuples([("V", 1), ("V", 2), ("E", 2)], names=["covariance", "n_components"])
    doubtful = words.replicated(50, pd.Series([0.3, 0.3, 0.4], index), name)
    assert doubtful == (
        "In 50 replicates of the table it chose K=2 in 70%, K=1 in 30%, most often E,2 (40%): other rows from the same "
        "source might well speak for another."
    )
    sure = words.replicated(50, pd.Series([0.02, 0.98], index[:2]), name)
    assert sure == "In 50 replicates of the table it chose K=2 in 98%."


@pytest.mark.parametrize(
    ("choices", "text"),
    [
        ({"bic": ("V", 2), "icl": ("V", 2)}, "They agree."),
        ({"bic": ("V", 2), "icl": ("E", 2)}, "They agree on 2 components, not on the covariance."),
        ({"bic": ("V", 2), "icl": ("E", 4)}, "They do not agree on the number of components: 2 to 4."),
    ],
)
def test_agreement(choices, text):
    assert words.agreement(choices) == text


def test_every_verdict_that_is_not_good_is_a_doubt_of_its_own():
    verdicts = [bg.Verdict(convergence, "why.") for convergence in bg.Convergence]
    states = {("V", i): bg.PosteriorState(verdict) for i, verdict in enumerate(verdicts)}
    states["V", 5] = bg.PosteriorState(None, no_draws="why.")
    states["V", 6] = bg.PosteriorState(verdicts[0], no_evidence="why.")
    doubts = list(words.doubts(states, {("V", 0): 0.9, ("V", 1): 0.5}, name))
    assert [doubt.partition(":")[0].partition(";")[0] for doubt in doubts] == [
        "The chains did not converge for V,1",
        "Too few draws to tell whether the chains converged for V,2",
        "The approximation is not to be trusted for V,4",
        "There is no posterior of V,5",
        "There is no evidence of V,6",
        "For V,0 LOO is in doubt",
    ]
    assert (states["V", 5].text, states["V", 6].text) == ("none: why.", "why. No evidence: why.")


def test_the_reason_names_ties_and_who_agrees():
    lines = ranking(("VVV", 3, 17, 0.0, 0.0, True), ("EEE", 2, 8, 1.5, 2.0, True))
    text = words.reason("bic", lines, ("EEE", 2), [CRITERIA["icl"], CRITERIA["cv"]], name)
    assert text == (
        "It is the smallest of the 2 fits that tie by BIC, though 1.5 behind VVV,3; ICL and the held-out log density "
        "choose it too, or tie it with their choice"
    )


def test_fits_left_out_are_counted_beyond_the_third():
    states = {("V", K): bg.FitState(bg.FitOutcome.FAILED, "collapsed") for K in range(5)}
    (text,) = words.left_out(states, name)
    assert text == "Left out as spurious or failed: V,0, V,1, V,2, and 2 more; the column status says why."
    assert not list(words.left_out({("V", 1): bg.FitState(bg.FitOutcome.EXHAUSTED)}, name))


def test_gains_per_row_are_told_size_by_size():
    found = HeldOut(
        500, (("VVV", 4), ("VVV", 2), ("EEE", 2)), np.array([-1.0, -1.5, -3.0]), np.ones(3), np.full((3, 3), 0.02)
    )
    (told,) = words.gains(found, ("VVV", 2), name)
    assert told.startswith("On 500 rows that no fit has seen")
    assert "with standard error: VVV,4 +0.5 (± 0.02)." in told
    assert not list(words.gains(found, ("EEE", 2), name))


def test_what_bic_asks_of_a_component_is_told_where_rows_are_many():
    X = bg.fit_em(bg.datasets.old_faithful(), 2, rng=0).mixture.sample(200_000, rng=0)[0]
    few, many = (bg.select(rows, (1, 2), criteria="bic", n_replicates=0, rng=0) for rows in (X[:1000], X))
    assert "With" not in few.text
    assert f"of 6 parameters from {3 * np.log(200_000) / 200_000:.1g} nats a row on" in many.text
