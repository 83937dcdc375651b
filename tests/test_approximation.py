"""What the verdict on an approximation says of approximations whose faults are known."""

import numpy as np
import pytest
from scipy import stats

from bayesgmm.bayes.approximation import judged
from bayesgmm.bayes.verdict import Convergence


def log_ratio(sd):
    """Of a standard normal over a normal of another sd, at quantiles of the latter: no Monte Carlo error."""
    x = sd * stats.norm.ppf((np.arange(4000) + 0.5) / 4000).reshape(4, 1000)
    return stats.norm.logpdf(x) - stats.norm.logpdf(x, scale=sd)


def test_an_approximation_that_is_too_narrow_is_not_trusted_and_one_too_wide_is():
    """The ratios' tail has Pareto k = 1 - sd^2 where the approximation is narrower, and bounded where it is wider."""
    _, narrow = judged("It", log_ratio(0.4))
    assert narrow.convergence is Convergence.APPROXIMATION_POOR, narrow.text
    assert narrow.text.startswith("It is not to be trusted: its importance weights' Pareto k is 0.")
    _, wide = judged("It", log_ratio(1.5))
    assert wide.convergence is Convergence.APPROXIMATION_GOOD, wide.text


def test_weights_correct_the_approximation():
    x = 1.5 * stats.norm.ppf((np.arange(4000) + 0.5) / 4000)
    log_weight, _ = judged("It", log_ratio(1.5))
    weight = np.exp(log_weight.ravel())
    assert (weight * x**2).sum() / weight.sum() == pytest.approx(1.0, abs=0.02)


def test_draws_that_are_worth_few_are_not_trusted_where_many_are_needed():
    ratio = log_ratio(3.0)
    assert judged("It", ratio)[1].good
    verdict = judged("It", ratio, least_share=0.6)[1]  # the share is the root of 2 sd^2 - 1, over sd^2
    assert not verdict.good
    assert "its draws are worth 46% of their number, below 60%" in verdict.text
