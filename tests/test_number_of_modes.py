"""Laws of the modes of a mixture's density (`clusters/modes`), held against grids and derivatives."""

import numpy as np
import pytest
from oracles import random_mixture

import bayesgmm as bg


def test_equal_components_have_two_modes_from_two_sds_apart():
    for apart, count in ((0.0, 1), (1.0, 1), (1.99, 1), (2.01, 2), (2.2, 2), (50.0, 2)):
        m = bg.GaussianMixture([0.5, 0.5], [[0.0], [apart]], [[[1.0]], [[1.0]]])
        assert bg.number_of_modes(m).counts == count, apart


def test_modes_of_one_feature_are_those_of_a_fine_grid():
    rng = np.random.default_rng(0)
    m = random_mixture(rng, 4, 1, batch=(200,))
    grid = np.linspace(-20, 20, 80_001)
    height = m.log_prob(grid[:, None])
    peaks = (height[:, 1:-1] > height[:, :-2]) & (height[:, 1:-1] >= height[:, 2:])
    modes = bg.number_of_modes(m)
    np.testing.assert_array_equal(modes.counts, peaks.sum(axis=1))
    assert len(np.unique(modes.counts)) > 2
    np.testing.assert_allclose(modes.probabilities, [(modes.counts == n).mean() for n in (1, 2, 3, 4)])
    for s in range(200):
        np.testing.assert_allclose(
            np.unique(modes.locations[s].round(2)), np.unique(grid[1:-1][peaks[s]].round(2)), atol=0.011
        )


@pytest.mark.parametrize(("K", "D"), [(3, 2), (5, 3), (2, 6)])
def test_modes_are_local_maxima_that_the_means_climb_to(K, D):
    rng = np.random.default_rng(D)
    m = random_mixture(rng, K, D, batch=(4, 5))
    modes = bg.number_of_modes(m)
    assert modes.counts.shape == (4, 5)
    for i in np.ndindex(4, 5):
        one = bg.GaussianMixture(m.weights[i], m.means[i], m.covariances[i])
        found = modes.locations[i]
        top = one.log_prob(found)
        np.testing.assert_array_less(one.log_prob(one.means) - 1e-12, top)
        for size in (1e-4, 1e-2):
            around = found[:, None] + size * rng.normal(size=(K, 50, D))
            rise = one.log_prob(around.reshape(-1, D)).reshape(K, 50) - top[:, None]
            assert rise.max() <= 1e-12
        apart = np.abs(found[:, None] - found).max(axis=-1) > 1e-6
        assert modes.counts[i] == len(np.unique(apart, axis=0))


def test_a_mean_on_a_saddle_is_left_behind():
    """The middle component sits where symmetry makes the gradient vanish between two higher ones."""
    m = bg.GaussianMixture([0.499, 0.002, 0.499], [[-3.0, 0], [0, 0], [3, 0]], [np.eye(2), 4 * np.eye(2), np.eye(2)])
    modes = bg.number_of_modes(m)
    assert modes.counts == 2
    assert abs(modes.locations[1, 0]) > 2.9
