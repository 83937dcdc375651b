"""The samplers: that both draw from one posterior, and what they refuse."""

import arviz as az
import numpy as np
import pytest
import xarray as xr
from oracles import density_of, errors_allowed, seed, table

import bayesgmm as bg
from bayesgmm.bayes import nuts
from bayesgmm.bayes.laplace import find_mode


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


def test_an_interrupt_returns_the_draws_there_are(faithful):
    X, fit = faithful
    density = density_of(X, fit, bg.Priors.weakly_informative(X, 2))
    mode = find_mode(density, density.pack(fit.mixture))
    parts = []

    def interrupt(part):
        parts.append(part)
        raise KeyboardInterrupt

    options = {"draws": 1_000_000, "tune": 50, "chains": 2, "seed": 0, "seconds": 0.3}
    drawn = nuts.nutpie_draws(density, mode, on_part=interrupt, **options)
    assert not drawn.complete
    assert len(parts) == 1
    assert 4 <= parts[0].n_draws <= drawn.n_draws < 1_000_000
    np.testing.assert_array_equal(drawn.thetas[: parts[0].n_chains, :4], parts[0].thetas[:, :4])
    np.testing.assert_allclose(drawn.statistics["lp"][0, :4], density.log_densities(drawn.thetas[0, :4]), rtol=1e-9)


@pytest.mark.parametrize(
    ("lengths", "kept"),
    [
        ((50, 50), (2, 50)),
        ((50, 40), (2, 40)),
        ((50, 20), (1, 50)),
        ((0, 9), (1, 9)),
        ((9, 8, 7), (3, 7)),
        ((3, 3), None),
    ],
)
def test_chains_of_unequal_length_are_cut_to_what_keeps_most_draws(lengths, kept):
    thetas = np.full((len(lengths), 50, 2), np.nan)
    for chain, length in enumerate(lengths):
        thetas[chain, :length] = chain
    groups = {
        "posterior": xr.Dataset({"theta": (("chain", "draw", "n"), thetas)}),
        "sample_stats": xr.Dataset({"logp": (("chain", "draw"), thetas[..., 0])}),
    }
    part = nuts._part_of(xr.DataTree.from_dict(groups))
    assert (None if part is None else part.thetas.shape[:2]) == kept
    if part is not None:
        assert np.isfinite(part.thetas).all()
        assert not part.complete


def test_before_any_chain_has_tuned_there_are_no_draws():
    assert nuts._part_of(xr.DataTree()) is None
