"""The `DataTree` of a posterior: as ArviZ and netCDF expect it, and whole."""

import warnings

import arviz as az
import numpy as np
import pytest
import xarray as xr
from oracles import table

import bayesgmm as bg
from bayesgmm.bayes.tree import write_tree


def test_tree_is_what_arviz_expects(faithful_fit, faithful_posterior):
    tree = faithful_posterior
    assert tree["posterior"]["means"].dims == ("chain", "draw", "component", "feature")
    pointwise = tree["log_likelihood"]["observations"]
    assert pointwise.shape == (4, 1000, 272)
    one = bg.as_mixture(tree)[1, 7]
    np.testing.assert_allclose(pointwise.values[1, 7], one.log_prob(table("old_faithful")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some draws may not be good enough for one row
        assert np.isfinite(az.loo(tree).elpd)
    assert tree["em"].attrs["bic"] == faithful_fit.bic


def test_pointwise_densities_are_those_of_marginals_and_wider_components(imperfect_posterior):
    rows, _, tree = imperfect_posterior
    one, pointwise = bg.as_mixture(tree)[1, 7], tree["log_likelihood"]["observations"].values[1, 7]
    for i, (x, variances) in enumerate(zip(rows.values, rows.errors, strict=True)):
        there = np.flatnonzero(~np.isnan(x))
        wider = bg.GaussianMixture(one.weights, one.means, one.covariances + np.diag(variances))
        expected = wider.marginal(there).log_prob(x[None, there])[0] if there.size else 0.0
        assert pointwise[i] == pytest.approx(expected, rel=1e-6)


def test_trees_are_written_compressed_and_come_back_as_they_were(faithful_posterior, tmp_path):
    tree, out = faithful_posterior.isel(draw=slice(300)), tmp_path / "draws.nc"
    write_tree(tree, out)
    pointwise = tree["log_likelihood"]["observations"]
    assert pointwise.dtype == np.float32
    assert tree["posterior"]["means"].dtype == np.float64
    size = sum(group.nbytes for group in tree.subtree)
    assert out.stat().st_size < 0.9 * size
    with xr.open_datatree(out, engine="h5netcdf") as back:
        assert back.attrs == tree.attrs
        for group in tree.children:
            xr.testing.assert_identical(back[group].to_dataset(), tree[group].to_dataset())


def test_pointwise_densities_in_single_precision_are_enough_for_loo(faithful_posterior):
    """Of ArviZ's and ours, against the same in double precision, to 1e-4 nats."""
    single = faithful_posterior.isel(draw=slice(300))
    exact = bg.as_mixture(single).log_prob(table("old_faithful"))
    np.testing.assert_allclose(single["log_likelihood"]["observations"], exact, rtol=1e-7)
    double = single.copy(deep=True)
    pointwise = single["log_likelihood"].to_dataset()["observations"].astype(np.float64)
    double["log_likelihood"]["observations"] = pointwise.copy(data=exact)
    for loo in (az.loo, bg.loo):
        a, b = loo(single), loo(double)
        assert a.elpd == pytest.approx(b.elpd, abs=1e-4)
        assert a.se == pytest.approx(b.se, abs=1e-4)
        np.testing.assert_allclose(a.pareto_k, b.pareto_k, atol=1e-3)


def test_pointwise_densities_beyond_the_budget_are_not_stored(faithful_fit, monkeypatch):
    monkeypatch.setattr("bayesgmm.bayes.tree.LOG_LIKELIHOOD_BUDGET", 4.0 * 272 * 100 - 1)
    X = table("old_faithful")
    tree = bg.sample_posterior(X, faithful_fit, method="laplace", chains=1, draws=100, rng=0)
    assert "log_likelihood" not in tree.children
    assert tree.attrs["log_likelihood"] == "not stored: it would exceed the memory budget"
    assert bg.posterior(tree).log_likelihood is None


def test_the_log_likelihood_does_not_depend_on_how_many_draws_are_worked_on_at_a_time(faithful_fit, monkeypatch):
    X = table("old_faithful")

    def log_likelihood(block):
        monkeypatch.setattr("bayesgmm.bayes.tree._BLOCK", block)
        tree = bg.sample_posterior(X, faithful_fit, method="laplace", draws=50, chains=2, rng=0)
        return tree["log_likelihood"]["observations"].values

    np.testing.assert_array_equal(log_likelihood(1e9), log_likelihood(7 * 8 * len(X)))
