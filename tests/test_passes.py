"""Laws of passes over all rows: computations that ask in lockstep, and rows that are held out."""

import numpy as np

from bayesgmm.expectation import NO_LABELS, Parameters, Rows
from bayesgmm.passes import InMemory, Request, answer, together


class Counted:
    """Passes that count themselves."""

    def __init__(self, passes):
        self.n, self.passes = 0, passes

    def totals(self, requests):
        self.n += 1
        return self.passes.totals(requests)


def request(height):
    return Request(Parameters(np.full(1, height), np.zeros((1, 1)), np.ones((1, 1, 1))), False)


def asking(heights):
    """Asks about each height, about two of them at once where there are two, and returns all answers."""
    found = []
    for pair in heights:
        found += yield [request(height) for height in pair]
    return [totals.log_likelihood for totals in found]


def test_computations_in_lockstep_get_the_answers_that_each_would_get_alone():
    passes = Counted(InMemory(Rows(np.arange(5.0)[:, None], np.ones(1), NO_LABELS, np.zeros(1))))
    questions = [[(-1.0,), (-2.0, -3.0)], [], [(-4.0,), (-5.0,), (-6.0,)], [(), (-7.0,)]]
    alone = [answer(passes.passes, asking(each)) for each in questions]
    assert answer(passes, together([asking(each) for each in questions])) == alone
    assert passes.n == 3
    assert len({height for each in alone for height in each}) == 7
    assert answer(passes, together([])) == []
