"""Laws of co-clustering: how often two rows are in one component."""

import numpy as np
import pytest
from oracles import deviation_allowed, seed

import bayesgmm as bg
from bayesgmm.clusters import similarity
from bayesgmm.clusters.rows_under_draws import rows_under_draws


def test_similarity_is_the_mean_of_the_products_of_responsibilities(overlapping_draws, monkeypatch):
    m, X = overlapping_draws
    R = m.responsibilities(X).reshape(120, len(X), 3)
    expected = np.einsum("sik,sjk->ij", R, R) / 120
    np.fill_diagonal(expected, 1)
    np.testing.assert_allclose(bg.posterior_similarity(m, X), expected, rtol=1e-12)
    monkeypatch.setattr(similarity, "_CHUNK_BYTES", 1e5)  # several chunks of draws, the last one shorter
    S = bg.posterior_similarity(m, X)
    np.testing.assert_allclose(S, expected, rtol=1e-12)
    np.testing.assert_array_equal(S, S.T)
    single = bg.posterior_similarity(m, X, dtype=np.float32)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, atol=2e-6)
    rows = [5, 3, 80]
    np.testing.assert_allclose(bg.posterior_similarity(m, X, rows=rows), expected[np.ix_(rows, rows)], rtol=1e-12)
    mask = np.isin(np.arange(len(X)), rows)
    np.testing.assert_allclose(bg.posterior_similarity(m, X, rows=mask), expected[np.ix_(mask, mask)], rtol=1e-12)


def test_similarity_does_not_depend_on_labels(overlapping_draws):
    m, X = overlapping_draws
    order = np.random.default_rng(0).permuted(np.broadcast_to(np.arange(3), (2, 60, 3)), axis=-1)
    np.testing.assert_allclose(bg.posterior_similarity(m.permute(order), X), bg.posterior_similarity(m, X), rtol=1e-12)


@pytest.mark.statistical
def test_similarity_is_how_often_drawn_assignments_agree(overlapping_draws):
    """The assignments of every draw are drawn fifty times, independently."""
    m, X = overlapping_draws
    draws = rows_under_draws(m, X)
    z = np.concatenate([draws.assignments(np.random.default_rng(seed(i))) for i in range(50)], axis=1)
    agree = (z[:10, None] == z[None]).mean(axis=2)
    p = bg.posterior_similarity(m, X)[:10]
    np.testing.assert_array_less(
        np.abs(agree - p), deviation_allowed(np.minimum(p, 1.0), z.shape[1], comparisons=p.size)
    )


def test_a_matrix_beyond_the_memory_budget_is_refused(overlapping_draws, monkeypatch):
    m, X = overlapping_draws
    monkeypatch.setattr(similarity, "MEMORY_BUDGET", 8 * 50**2)
    with pytest.raises(bg.InputError, match=r"at most 50 rows .*float32"):
        bg.posterior_similarity(m, X)
    assert bg.posterior_similarity(m, X, rows=range(50)).shape == (50, 50)
    for rows in ([90], [-1], [0.5], []):
        with pytest.raises(bg.InputError, match="rows"):
            bg.posterior_similarity(m, X, rows=rows)
    with pytest.raises(bg.InputError, match="dtype"):
        bg.posterior_similarity(m, X, dtype=np.float16)
