"""Sentences about an analysis, and their marks."""

from dataclasses import replace

import pytest

import bayesgmm as bg
from bayesgmm.summary.analysis import summarise
from bayesgmm.summary.words import Mark, em_remarks, remarks, sentences


@pytest.fixture(scope="module")
def analysis(faithful_posterior):
    drawn = bg.posterior(faithful_posterior)
    return summarise(bg.datasets.old_faithful(), faithful_posterior, drawn, bg.loo(drawn, rng=0), 0)


def test_the_sentences_are_those_of_the_remarks(analysis):
    assert list(sentences(analysis)) == [remark.text for remark in remarks(analysis)]


def test_a_mark_is_made_from_the_state_and_not_from_the_words(analysis):
    def mark_of(start, value):
        return next(remark.mark for remark in remarks(value) if remark.text.startswith(start))

    assert mark_of("EM", analysis) is Mark.GOOD
    assert mark_of("Posterior", analysis) is Mark.GOOD
    assert mark_of("Leave-one-out", analysis) is Mark.GOOD
    for convergence in bg.Convergence:
        verdict = bg.Verdict(convergence, "whatever it says")
        judged = replace(analysis, posterior=replace(analysis.posterior, verdict=verdict))
        assert (mark_of("Posterior", judged) is Mark.GOOD) == convergence.good
    stopped = replace(analysis.fit, status=bg.Status.EXHAUSTED)
    assert next(em_remarks(stopped)).mark is Mark.LOOK


def test_times_are_told_where_they_are_known(analysis):
    assert " s)" not in next(em_remarks(analysis.fit)).text
    assert "1.5 s)" in next(em_remarks(analysis.fit, 1.5)).text
