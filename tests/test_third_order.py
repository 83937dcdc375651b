"""The log posterior of many rows near its mode, from a random sample."""

import numpy as np
import pytest
from oracles import CHANCE, density_of, seed
from scipy import stats

import bayesgmm as bg
from bayesgmm.bayes.many_rows import checked, modes_of, of_memory
from bayesgmm.bayes.third_order import PRECISE, near_mode

N = 30_000


def posterior_of(X, K):
    fit = bg.fit_em(X, K, rng=0)
    rows = of_memory(density_of(X, fit, bg.Priors.weakly_informative(X, K)), seed())
    return rows, modes_of(rows, fit)[0]


def steps_of(mode, n=20):
    return np.random.default_rng(seed()).standard_normal((n, len(mode.origin))) @ mode.factor.T


@pytest.fixture(scope="module")
def separate():
    mixture = bg.GaussianMixture([0.5, 0.3, 0.2], [[0.0, 0.0], [5.0, 1.0], [0.0, 6.0]], [np.eye(2)] * 3)
    return mixture.sample(N, rng=1)[0]


def test_a_table_that_repeats_the_sample_is_known_exactly(separate):
    sample = separate[: N // 6]
    rows, mode = posterior_of(np.tile(sample, (6, 1)), 3)
    steps = steps_of(mode)
    part = rows.sample.take(np.arange(len(sample)))
    values, gradients = near_mode(rows.prior, mode.around, mode, part, N, steps)
    exact, exact_gradients = rows.at(mode.origin + np.concatenate([steps, -steps]))
    np.testing.assert_allclose(values, exact, rtol=0, atol=1e-4)
    np.testing.assert_allclose(gradients @ mode.factor, exact_gradients @ mode.factor, atol=1e-3)


def test_a_sample_tells_what_all_rows_do_within_the_error_that_is_allowed(separate):
    """Its errors are no more than 0.02 nats; those of all draws are not independent, but each is normal."""
    rows, mode = posterior_of(separate, 3)
    steps, sample = steps_of(mode), rows.sample.take(np.arange(0, N, 6))
    found = near_mode(rows.prior, mode.around, mode, sample, N, steps)
    assert found is not None
    exact = rows.at(mode.origin + np.concatenate([steps, -steps]))[0]
    np.testing.assert_array_less(np.abs(found[0] - exact), PRECISE * stats.norm.isf(CHANCE / (4 * len(steps))))


def test_where_a_sample_tells_too_little_all_rows_are_asked():
    """Components that overlap, and one of which the sample has no hundred rows."""
    close = bg.GaussianMixture([0.5, 0.5], [[0.0], [1.0]], [[[1.0]], [[0.7]]]).sample(N, rng=0)[0]
    rare = bg.GaussianMixture([0.997, 0.003], [[0.0], [20.0]], [[[1.0]], [[1.0]]]).sample(N, rng=0)[0]
    for X in (close, rare):
        rows, mode = posterior_of(X, 2)
        sample = rows.sample.take(np.arange(0, N, 5))
        assert near_mode(rows.prior, mode.around, mode, sample, N, steps_of(mode)) is None


def test_the_check_by_a_sample_is_that_by_all_rows(separate, monkeypatch):
    rows, mode = posterior_of(separate, 3)
    by_all = checked(rows, mode, seed())
    monkeypatch.setattr("bayesgmm.bayes.many_rows._SAMPLE_ROWS", N // 6)
    rows, mode = posterior_of(separate, 3)
    monkeypatch.setattr(type(rows), "at", lambda *_: pytest.fail("all rows were read"))
    by_sample = checked(rows, mode, seed())
    assert by_sample.verdict.convergence is by_all.verdict.convergence
    moved = np.linalg.solve(mode.factor, by_sample.origin - by_all.origin)
    np.testing.assert_allclose(moved, 0.0, atol=0.1)
    np.testing.assert_allclose(by_sample.heights, by_all.heights, rtol=0, atol=PRECISE * 6)
