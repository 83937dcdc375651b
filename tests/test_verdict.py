"""Verdicts: which are good, and how they are kept in a tree."""

import pytest

import bayesgmm as bg


def test_only_chains_that_converged_and_good_approximations_are_good():
    good = {convergence.name for convergence in bg.Convergence if convergence.good}
    assert good == {"CONVERGED", "APPROXIMATION_GOOD"}


@pytest.mark.parametrize("convergence", bg.Convergence)
def test_a_verdict_is_kept_by_its_name_and_its_sentences(convergence):
    verdict = bg.Verdict(convergence, "Because.")
    assert verdict.attributes == {"verdict": convergence.name, "convergence": "Because."}
    assert verdict.good == convergence.good
