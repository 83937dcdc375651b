"""Laws of the comparison of partitions with known classes."""

from itertools import permutations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score, mutual_info_score

import bayesgmm as bg
from bayesgmm.clusters.rows_under_draws import rows_under_draws
from bayesgmm.clusters.salso import drawn_partitions


def test_scores_equal_scikit_learns_and_brute_force():
    rng = np.random.default_rng(0)
    for _ in range(40):
        n, A, B = rng.integers(2, 30), rng.integers(1, 5), rng.integers(1, 5)
        a, b = rng.integers(0, A, n), rng.integers(0, B, n)
        assert bg.adjusted_rand(a, b) == pytest.approx(adjusted_rand_score(a, b))
        vi = mutual_info_score(a, a) + mutual_info_score(b, b) - 2 * mutual_info_score(a, b)
        assert bg.variation_of_information(a, b) == pytest.approx(vi, abs=1e-12)
        wrong = min((np.array(names)[a] != b).mean() for names in permutations(range(4), 4))
        assert bg.misclassification(a, b) == pytest.approx(wrong)
        assert bg.misclassification(a, b) == pytest.approx(bg.misclassification(b, a))


def test_scores_of_the_posterior_are_over_drawn_partitions(overlapping_draws):
    m, X = overlapping_draws
    known = np.array(["one", "two", "three"])[m.predict(X)[0, 0]]
    scores = bg.partition_scores(m, known, X, ci_prob=0.5, rng=0)
    z = drawn_partitions(rows_under_draws(m, X), "vi", np.random.default_rng(0)).labels
    for name in ("adjusted_rand", "variation_of_information", "misclassification"):
        score, function = getattr(scores, name), getattr(bg, name)
        values = [function(c, known) for c in z.T]
        assert score.mean == pytest.approx(np.mean(values))
        np.testing.assert_allclose([score.lower, score.upper], np.quantile(values, [0.25, 0.75]))
        assert score.point == pytest.approx(function(bg.assign(m, X).labels, known))
