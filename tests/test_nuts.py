"""The samplers: that both draw from one posterior, and what they refuse."""

import arviz as az
import numpy as np
import pytest
from oracles import errors_allowed, seed, table

import bayesgmm as bg
from bayesgmm.bayes import nuts


@pytest.fixture(scope="module")
def faithful(faithful_fit):
    return table("old_faithful"), faithful_fit


@pytest.mark.parametrize("sampler", ["nutpie", "pymc"])
def test_too_few_tuning_steps_are_refused(faithful, sampler):
    for tune in (0, 9):
        with pytest.raises(bg.InputError, match=f"tune must be a whole number of at least 10, not {tune}"):
            bg.sample_posterior(*faithful, tune=tune, sampler=sampler)
    with pytest.raises(bg.InputError, match="tune must be"):
        bg.kfold(*faithful, tune=0)


def test_the_fewest_tuning_steps_are_enough_to_draw(faithful):
    with pytest.warns(bg.ConvergenceWarning):
        tree = bg.sample_posterior(*faithful, tune=nuts.LEAST_TUNE, draws=20, rng=0)
    assert tree["posterior"].sizes["draw"] == 20
    assert tree.attrs["tune"] == nuts.LEAST_TUNE


def test_a_failure_of_the_sampler_is_the_packages_own_error(faithful, monkeypatch):
    """Here no start has a finite density; the panic of too few tuning steps is one too."""
    with monkeypatch.context() as patch:
        patch.setattr(nuts, "_OVERDISPERSION", 1e300)
        with pytest.raises(bg.SamplingError, match=r"the sampler nutpie failed: .*sampler='pymc'"):
            bg.sample_posterior(*faithful, draws=20, rng=0)
    monkeypatch.setattr("bayesgmm.bayes.sample.LEAST_TUNE", 0)
    with pytest.raises(bg.SamplingError, match="the sampler nutpie failed"):
        bg.sample_posterior(*faithful, tune=0, draws=20, rng=0)


@pytest.mark.statistical
def test_both_samplers_draw_from_the_same_posterior(faithful, faithful_posterior):
    other = bg.sample_posterior(*faithful, sampler="pymc", draws=500, chains=2, rng=seed(1))
    for name in ("weights", "means", "covariances"):
        a, b = faithful_posterior["posterior"][name], other["posterior"][name]
        se = np.hypot(*(az.mcse(t["posterior"].to_dataset()[[name]])[name] for t in (faithful_posterior, other)))
        off = np.abs(a.mean(("chain", "draw")) - b.mean(("chain", "draw"))) / se
        assert float(off.max()) < errors_allowed(comparisons=14)
