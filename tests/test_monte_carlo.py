"""Errors of means of draws, and whether chains agree: ArviZ's estimates."""

import arviz as az
import numpy as np
import pytest

from bayesgmm.bayes.monte_carlo import mean_error, r_hat, sum_error


@pytest.fixture(scope="module")
def values():
    steps = np.random.default_rng(0).normal(size=(4, 200))
    return np.cumsum(steps, axis=1) * 0.1 + steps  # draws that depend on those before


def test_the_error_of_a_mean_and_r_hat_are_arvizs(values):
    tree = az.from_dict({"posterior": {"x": values}})
    assert mean_error(values) == pytest.approx(float(az.mcse(tree)["x"]), rel=1e-12)
    assert r_hat(values) == pytest.approx(float(az.rhat(tree)["x"]), rel=1e-12)


def test_the_error_of_a_sum_is_that_of_the_mean_times_the_number(values):
    assert sum_error([values]) == pytest.approx(mean_error(values) * values.size)
    parts = [values[:, :100], 3 * values[:, 100:]]
    assert sum_error(parts) == pytest.approx(np.hypot(*(sum_error([part]) for part in parts)))


def test_chains_about_other_values_have_a_large_r_hat(values):
    assert r_hat(values + 10 * np.arange(4)[:, None]) > 2
