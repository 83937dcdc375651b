"""Laws of merged components and of modes, held against enumeration, grids and derivatives."""

import numpy as np
import pytest
from oracles import random_mixture, table

import bayesgmm as bg


def entropy(R):
    return -(R * np.log(np.maximum(R, 1e-300))).sum()


def greedy(R):
    """Baudry et al.'s hierarchy, written down directly: entropies of 1..K clusters and the members of each."""
    clusters = [[k] for k in range(R.shape[1])]
    entropies, steps = [entropy(R)], [clusters]
    while len(clusters) > 1:
        options = []
        for i in range(len(clusters)):
            for j in range(i):
                merged = [c for m, c in enumerate(clusters) if m not in (i, j)] + [clusters[j] + clusters[i]]
                grouped = np.stack([R[:, c].sum(axis=1) for c in merged], axis=1)
                options.append((entropy(grouped), merged))
        least, clusters = min(options, key=lambda option: option[0])
        entropies.append(least)
        steps.append(clusters)
    return np.array(entropies[::-1]), [{frozenset(c) for c in step} for step in steps[::-1]]


@pytest.mark.parametrize("K", [1, 2, 3, 6])
def test_merging_follows_the_entropies(K):
    rng = np.random.default_rng(K)
    m, X = random_mixture(rng, K, 2), rng.normal(size=(80, 2)) * 2
    merging = bg.merge_components(m, X)
    expected, members = greedy(m.responsibilities(X))
    np.testing.assert_allclose(merging.entropy, expected, atol=1e-9)
    for n in range(1, K + 1):
        groups = merging.groups[n - 1]
        assert {frozenset(np.flatnonzero(groups == g).tolist()) for g in range(n)} == members[n - 1]
        assert set(merging.labels(n)) <= set(range(n))
        np.testing.assert_array_equal(merging.together[n - 1], groups[:, None] == groups)
    np.testing.assert_array_equal(merging.labels(K), m.predict(X))
    np.testing.assert_allclose([merging.entropy_mean, merging.entropy_lower], [merging.entropy] * 2)
    assert merging.merges.shape == (K - 1, 2)
    for n, (i, j) in zip(range(K - 1, 0, -1), merging.merges, strict=True):
        assert merging.groups[n, i] != merging.groups[n, j]
        assert merging.groups[n - 1, i] == merging.groups[n - 1, j]


def test_merging_of_draws_is_that_of_each_draw():
    rng = np.random.default_rng(0)
    m, X = random_mixture(rng, 4, 2, batch=(3, 7)), rng.normal(size=(50, 2)) * 2
    merging = bg.merge_components(m, X, ci_prob=0.5)
    each = [
        bg.merge_components(bg.GaussianMixture(m.weights[i], m.means[i], m.covariances[i]), X) for i in np.ndindex(3, 7)
    ]
    entropies = np.array([one.entropy for one in each])
    np.testing.assert_allclose(merging.entropy_mean, entropies.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(merging.entropy_upper, np.quantile(entropies, 0.75, axis=0), rtol=1e-9)
    np.testing.assert_allclose(merging.together, np.mean([one.together for one in each], axis=0))
    np.testing.assert_allclose(merging.responsibilities, m.responsibilities(X).mean(axis=(0, 1)))


def test_two_gaussians_in_one_lump_are_merged_first():
    """Clusters at -8 and 8; the second is made of a wide and a narrow component."""
    m = bg.GaussianMixture([0.5, 0.25, 0.25], [[-8.0], [8.0], [8.0]], [[[1.0]], [[4.0]], [[0.25]]])
    X, labels = m.sample(400, rng=0)
    merging = bg.merge_components(m, X)
    np.testing.assert_array_equal(merging.merges, [[1, 2], [0, 1]])
    assert merging.elbow == 2
    np.testing.assert_array_equal(merging.labels(2), labels > 0)
    np.testing.assert_array_equal(bg.number_of_modes(m).counts, 2)


def test_modes_and_merging_take_a_fit_and_a_posterior(faithful_fit, faithful_posterior):
    X, fit, tree = table("old_faithful"), faithful_fit, faithful_posterior
    modes = bg.number_of_modes(tree)
    assert modes.counts.shape == (4, 1000)
    assert modes.probabilities[1] > 0.99
    assert bg.number_of_modes(fit).counts == 2
    merging = bg.merge_components(tree)
    np.testing.assert_allclose(merging.entropy, bg.merge_components(fit, X).entropy, rtol=1e-6)
    assert merging.entropy_lower[1] < merging.entropy[1] < merging.entropy_upper[1]
    assert merging.elbow is None
    with pytest.raises(bg.InputError, match="no rows of its own; give the table"):
        bg.merge_components(fit)
    with pytest.raises(bg.InputError, match="between 1 and 2"):
        merging.labels(3)
    with pytest.raises(bg.InputError, match="not list"):
        bg.number_of_modes([1])
    with pytest.raises(bg.InputError, match="ci_prob"):
        bg.merge_components(tree, ci_prob=1)
