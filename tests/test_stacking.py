"""Stacking weights."""

import numpy as np
import pytest

import bayesgmm as bg


def test_stacking_weights_maximise_the_log_density_of_the_mixture():
    rng = np.random.default_rng(0)
    log_density = rng.normal(size=(3, 50))
    weights = bg.stacking_weights(log_density)

    def score(w):
        return np.log(w @ np.exp(log_density)).sum()

    assert weights.sum() == pytest.approx(1.0)
    assert weights.min() >= 0
    assert all(score(weights) >= score(w) for w in rng.dirichlet(np.ones(3), size=500))
