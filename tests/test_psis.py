"""Pareto smoothing of many rows at once."""

import numpy as np
import pytest
from arviz_stats.base import array_stats
from oracles import quiet
from scipy.special import logsumexp

from bayesgmm.bayes.psis import smoothed_loo


@pytest.mark.parametrize(("draws", "efficiency"), [(30, 1.0), (100, 1.0), (2000, 0.5), (4000, 1.7)])
def test_compiled_smoothing_is_arvizs(draws, efficiency):
    """Light and heavy tails, ties, and a tail that is all the same."""
    rng = np.random.default_rng(draws)
    log_lik = np.vstack(
        [
            rng.normal(size=(40, draws)) * np.geomspace(1e-3, 30, 40)[:, None],
            -rng.exponential(size=(40, draws)) * np.geomspace(0.01, 3, 40)[:, None],
            np.round(rng.normal(size=(10, draws)), 1) - 5,
        ]
    )
    theirs = quiet(array_stats.loo, log_lik[:, None], chain_axis=-2, draw_axis=-1, r_eff=efficiency)
    np.testing.assert_allclose(smoothed_loo(log_lik, efficiency), theirs, rtol=1e-7, atol=1e-10)
    flat = np.maximum(rng.normal(size=(1, draws)), 0.5)
    elpd, k, _ = smoothed_loo(flat, efficiency)[:, 0]
    assert k == 0
    assert elpd == pytest.approx(np.log(draws) - logsumexp(-flat))
