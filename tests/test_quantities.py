"""The numbers that describe a component to a reader."""

import numpy as np
import pytest
from oracles import random_mixture

from bayesgmm.bayes.quantities import quantities


@pytest.mark.parametrize("batch", [(), (3, 4)])
@pytest.mark.parametrize("D", [1, 2, 4])
def test_quantities_are_read_off_the_parameters(D, batch):
    mixture = random_mixture(np.random.default_rng(D), 3, D, batch)
    features = [f"f{j}" for j in range(D)]
    found = {(name, feature): values for name, feature, values in quantities(mixture, features, diagonal=False)}
    assert len(found) == 1 + 2 * D + (D == 2)
    np.testing.assert_array_equal(found["weight", None], mixture.weights)
    for j, feature in enumerate(features):
        np.testing.assert_array_equal(found["mean", feature], mixture.means[..., j])
        np.testing.assert_allclose(found["sd", feature] ** 2, mixture.covariances[..., j, j])
    if D == 2:
        product = found["correlation", None] * found["sd", "f0"] * found["sd", "f1"]
        np.testing.assert_allclose(product, mixture.covariances[..., 0, 1])


def test_what_cannot_vary_is_left_out():
    mixture = random_mixture(np.random.default_rng(0), 1, 2)
    assert [q.name for q in quantities(mixture, ["x", "y"], diagonal=True)] == ["mean", "mean", "sd", "sd"]
    assert [q.feature for q in quantities(mixture, ["x"], diagonal=True)] == ["x", "x"]
