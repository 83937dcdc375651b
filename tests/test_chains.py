"""`Chains`: draws put together after one another and beside one another."""

import numpy as np
import pytest

from bayesgmm.bayes.chains import Chains


def chains(n_chains, n_draws, start=0, **statistics):
    """Draws that are numbered from a start, in two coordinates."""
    numbers = start + np.arange(n_chains * n_draws).reshape(n_chains, n_draws)
    return Chains(np.stack([numbers, -numbers], axis=-1), {"lp": numbers / 2, **statistics})


def test_later_draws_follow_those_of_the_same_chain():
    first, later = chains(2, 3), chains(2, 4, start=100)
    both = first.then(later)
    assert (both.n_chains, both.n_draws, both.complete) == (2, 7, True)
    np.testing.assert_array_equal(both.thetas[:, :3], first.thetas)
    np.testing.assert_array_equal(both.thetas[:, 3:], later.thetas)
    np.testing.assert_array_equal(both.statistics["lp"], both.thetas[..., 0] / 2)


def test_later_draws_of_some_chains_only_are_left_out():
    first = chains(3, 3)
    both = first.then(chains(2, 4))
    np.testing.assert_array_equal(both.thetas, first.thetas)
    assert not both.complete


def test_chains_beside_others_are_as_long_as_the_shortest():
    both = chains(2, 5).beside(chains(1, 3, start=100))
    assert both.thetas.shape == (3, 3, 2)
    assert both.thetas[:, 0, 0].tolist() == [0, 5, 100]
    assert both.statistics["lp"].shape == (3, 3)


def test_statistics_that_not_all_have_are_dropped():
    both = chains(1, 2, energy=np.zeros((1, 2))).beside(chains(1, 2))
    assert list(both.statistics) == ["lp"]


@pytest.mark.parametrize("complete", [(True, False), (False, True)])
def test_what_is_put_together_is_complete_where_both_are(complete):
    a, b = (chains(2, 3)._replace(complete=value) for value in complete)
    assert not a.then(b).complete
    assert not a.beside(b).complete
    assert not a._replace(complete=False).cut(1).complete
