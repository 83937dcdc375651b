"""The level of intervals: one default, which is ArviZ's."""

import arviz as az
import numpy as np
import pytest

import bayesgmm as bg
from bayesgmm.intervals import level, tails


@pytest.mark.parametrize("ci_prob", [0.5, 0.8])
def test_without_a_level_intervals_have_arvizs(ci_prob, three_blobs):
    m, X, tree = three_blobs
    tree = tree.isel(draw=slice(20))
    with az.rc_context({"stats.ci_prob": ci_prob}):
        assert level(None) == ci_prob
        default = [bg.assign(tree).lower, bg.merge_components(m, X).entropy_upper]
    given = [bg.assign(tree, ci_prob=ci_prob).lower, bg.merge_components(m, X, ci_prob=ci_prob).entropy_upper]
    for a, b in zip(default, given, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("ci_prob", [0, 1, -0.1, 89, True, "0.5", float("nan")])
def test_what_is_no_level_is_refused(ci_prob):
    with pytest.raises(bg.InputError, match="ci_prob must be between 0 and 1, not "):
        level(ci_prob)


def test_the_tails_have_the_rest():
    low, high = tails(0.89)
    assert (low, high) == (pytest.approx(0.055), pytest.approx(0.945))


@pytest.mark.parametrize("ci_prob", [np.float64(0.5), np.float32(0.5)])
def test_numpys_numbers_are_levels(ci_prob):
    assert level(ci_prob) == 0.5
