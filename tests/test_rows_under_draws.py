"""The kernel whose lanes are the draws."""

import numpy as np
import pytest
from oracles import random_mixture

import bayesgmm as bg
from bayesgmm.clusters import rows_under_draws as rows_module
from bayesgmm.clusters.rows_under_draws import rows_under_draws


@pytest.mark.parametrize(("K", "D", "S"), [(1, 1, 3), (2, 3, 8), (3, 2, 30), (5, 7, 17)])
def test_the_kernel_under_all_draws_equals_the_mixtures_one_by_one(K, D, S):
    rng = np.random.default_rng(K)
    m, X = random_mixture(rng, K, D, batch=(S,)), rng.normal(size=(37, D)) * 3
    X[3] = 1e4  # far from everything
    draws = rows_under_draws(m, X)
    block = draws.block(X)
    R = np.moveaxis(m.responsibilities(X), 0, -1)
    np.testing.assert_allclose(block.responsibilities, R, rtol=1e-7, atol=1e-13)
    np.testing.assert_allclose(block.log_prob, m.log_prob(X).T, rtol=1e-12)
    entropy = -(R * np.log(np.maximum(R, 1e-300))).sum(axis=1)
    np.testing.assert_allclose(block.entropy, entropy, atol=1e-12)
    np.testing.assert_allclose(draws.log_predictive(X[:3]), np.log(np.exp(m.log_prob(X[:3])).mean(axis=0)), rtol=1e-12)
    np.testing.assert_array_equal(draws.block(X, slice(0, 3)).log_prob, block.log_prob[:, :3])


def test_results_do_not_depend_on_the_blocks(overlapping_draws, monkeypatch):
    m, X = overlapping_draws
    whole = bg.assign(m, X)
    for size in (1.0, 8 * 120 * 3 * 5):  # one row at a time, and a few
        monkeypatch.setattr(rows_module, "_BLOCK_BYTES", size)
        small = bg.assign(m, X)
        for name in ("probabilities", "lower", "upper", "overlap", "log_prob"):
            np.testing.assert_allclose(getattr(small, name), getattr(whole, name), rtol=1e-12)


def test_thinned_draws_are_every_so_many(overlapping_draws):
    m, X = overlapping_draws
    draws = rows_under_draws(m, X)
    some = draws.thinned(7)
    np.testing.assert_array_equal(some.mixture.means, draws.mixture.means[::7])
    assert some.n_draws == len(range(0, 120, 7))


def test_more_components_than_labels_have_bits_for_are_refused():
    K = 256
    m = bg.GaussianMixture(np.full((1, K), 1 / K), np.arange(K)[None, :, None], np.ones((1, K, 1, 1)))
    with pytest.raises(bg.InputError, match=r"at most \d+ components can be looked at row by row, not 256"):
        bg.assign(m, [[0.0], [1.0]])


def test_mean_responsibilities_are_those_of_the_draws_averaged(overlapping_draws):
    batch, X = overlapping_draws
    expected = batch.responsibilities(X).mean(axis=(0, 1))
    np.testing.assert_allclose(rows_under_draws(batch, X).mean_responsibilities(X), expected, rtol=1e-10)
