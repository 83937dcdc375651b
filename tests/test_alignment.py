"""Matching components: the cheapest order and how much more the next one costs."""

from itertools import permutations

import numpy as np
import pytest

from bayesgmm.alignment import cheapest_order, margin


@pytest.mark.parametrize("K", [1, 2, 3, 4])
def test_cheapest_order_and_its_margin_are_those_of_enumeration(K):
    cost = np.random.default_rng(K).normal(size=(5, 6, K, K))
    totals = np.array([sum(cost[..., p[k], k] for k in range(K)) for p in permutations(range(K))])
    order = cheapest_order(cost)
    found = np.take_along_axis(cost, order[..., None, :], axis=-2).sum((-1, -2))
    np.testing.assert_allclose(found, totals.min(axis=0))
    ranked = np.sort(totals, axis=0)
    expected = ranked[1] - ranked[0] if K > 1 else np.full((5, 6), np.inf)
    np.testing.assert_allclose(margin(cost, order), expected, atol=1e-12)
