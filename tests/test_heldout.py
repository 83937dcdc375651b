"""Laws of the rows of a table in parts that are held out, and of what fits gain on them."""

import numpy as np
import pytest

import bayesgmm as bg
from bayesgmm.checkpoints import Checkpoints
from bayesgmm.em.heldout import score
from bayesgmm.passes import held_out

N = 150_000


def quiet(done, total):
    pass


@pytest.fixture(scope="module")
def X():
    rng = np.random.default_rng(0)
    means = np.array([[0.0, 0.0], [4.0, 1.0], [0.0, 5.0]])
    return means[rng.integers(3, size=N)] + rng.normal(size=(N, 2))


def test_whether_a_row_is_held_out_depends_on_its_position_alone():
    whole = held_out(5, 0, 100_000)
    for start, stop in ((0, 1), (1, 20), (15, 16), (16, 33), (65_535, 65_537), (3, 100_000), (7, 7)):
        np.testing.assert_array_equal(held_out(5, start, stop), whole[start:stop])


def test_a_tenth_is_held_out_and_another_by_another_seed():
    one, other = held_out(5, 0, 1_000_000), held_out(6, 0, 1_000_000)
    for share, expected in ((one.mean(), 0.1), (other.mean(), 0.1), ((one & other).mean(), 0.01)):
        assert abs(share - expected) < 6e-6 + 6e-3 * np.sqrt(
            expected * (1 - expected)
        )  # six standard deviations, 0.100006


def test_gains_are_those_of_the_rows_one_by_one(X):
    fits = {("VVV", K): bg.fit_em(X[::50], K, rng=0, n_starts=2) for K in (1, 2, 3, 4)}
    found = score(
        bg.open_table(lambda: iter(np.array_split(X, 7))), 11, fits, X.mean(axis=0), quiet, Checkpoints(None, "")
    )
    rows = X[held_out(11, 0, N)]
    assert (found.n_rows, found.keys) == (len(rows), tuple(fits))
    each = np.array([fit.mixture.log_prob(rows) for fit in fits.values()])
    np.testing.assert_allclose(found.log_density, each.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(found.se, each.std(axis=1) / np.sqrt(len(rows)), rtol=1e-9)
    for i, one in enumerate(fits):
        for j, other in enumerate(fits):
            gain, se = found.gain(one, over=other)
            differences = each[i] - each[j]
            np.testing.assert_allclose(gain, differences.mean(), atol=1e-12)
            np.testing.assert_allclose(se, differences.std() / np.sqrt(len(rows)), rtol=1e-8, atol=1e-12)
