"""Laws of the draws from the posterior."""

import warnings

import arviz as az
import numpy as np
import pytest
import xarray as xr
from oracles import errors_allowed, seed, table
from scipy import stats

import bayesgmm as bg
from bayesgmm.bayes import tree as draws_tree
from bayesgmm.bayes.relabel import relabelling
from bayesgmm.covariance import CovarianceModel
from bayesgmm.em.result import fitted_table


@pytest.fixture(scope="module")
def faithful(faithful_fit):
    return table("old_faithful"), faithful_fit


@pytest.fixture(scope="module")
def tree(faithful_posterior):
    return faithful_posterior


@pytest.mark.statistical
def test_old_faithful_converges_to_the_em_fit(faithful, tree):
    """The chains agree: each one's means are off those of all by no more than its effective draws allow."""
    _, fit = faithful
    posterior = tree["posterior"].to_dataset()
    for name, draws in posterior.data_vars.items():
        error = draws.std(("chain", "draw")) / np.sqrt(az.ess(posterior)[name] / 4)
        off = np.abs(draws.mean("draw") - draws.mean(("chain", "draw"))) / error
        assert float(off.max()) < errors_allowed(comparisons=4 * (2 + 4 + 8)), name
    assert float(tree["sample_stats"]["diverging"].mean()) < 0.01
    shift = (posterior.means.mean(("chain", "draw")) - fit.mixture.means) / posterior.means.std(("chain", "draw"))
    assert float(np.abs(shift).max()) < 0.3  # with errors of 0.02
    assert tree.attrs["switch_rate"] == 0


@pytest.mark.statistical
def test_both_samplers_draw_from_the_same_posterior(faithful, tree):
    other = bg.sample_posterior(*faithful, sampler="pymc", draws=500, chains=2, rng=seed(1))
    for name in ("weights", "means", "covariances"):
        a, b = tree["posterior"][name], other["posterior"][name]
        se = np.hypot(*(az.mcse(t["posterior"].to_dataset()[[name]])[name] for t in (tree, other)))
        off = np.abs(a.mean(("chain", "draw")) - b.mean(("chain", "draw"))) / se
        assert float(off.max()) < errors_allowed(comparisons=14)


@pytest.mark.statistical
def test_one_component_with_known_covariance_form_has_the_closed_posterior():
    """K = 1, D = 1: against the posterior on a grid."""
    X = np.random.default_rng(3).normal(2.0, 1.5, size=(25, 1))
    prior = bg.Priors(np.ones(1), bg.NormalMeans([0.0], [2.0]), bg.InverseWishart(3.0, [[2.0]]))
    tree = bg.sample_posterior(X, bg.fit_em(X, 1), prior, draws=2000, rng=seed())
    mean, variance = np.meshgrid(np.linspace(-2, 6, 801), np.exp(np.linspace(-2, 4, 801)), indexing="ij")
    log = stats.norm.logpdf(mean, 0, 2) + stats.invgamma.logpdf(variance, 1.5, scale=1.0) + np.log(variance)
    log += sum(stats.norm.logpdf(x, mean, np.sqrt(variance)) for x in X[:, 0])
    p = np.exp(log - log.max())
    p /= p.sum()
    for name, exact in (("means", (p * mean).sum()), ("covariances", (p * variance).sum())):
        se = float(az.mcse(tree["posterior"].to_dataset()[[name]])[name].values.item())
        assert abs(float(tree["posterior"][name].mean()) - exact) < errors_allowed(comparisons=2) * se


def test_tree_is_what_arviz_and_netcdf_expect(faithful, tree, tmp_path):
    X, fit = faithful
    assert tree["posterior"]["means"].dims == ("chain", "draw", "component", "feature")
    assert tree["log_likelihood"]["observations"].shape == (4, 1000, 272)
    first = bg.as_mixture(tree)
    np.testing.assert_allclose(
        tree["log_likelihood"]["observations"].values[1, 7],
        bg.GaussianMixture(first.weights[1, 7], first.means[1, 7], first.covariances[1, 7]).log_prob(X),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some draws may not be good enough for one row
        assert np.isfinite(az.loo(tree).elpd)
    assert tree["em"].attrs["bic"] == fit.bic
    tree.to_netcdf(tmp_path / "posterior.nc", engine="h5netcdf")
    back = xr.open_datatree(tmp_path / "posterior.nc", engine="h5netcdf")
    xr.testing.assert_equal(back["posterior"].to_dataset(), tree["posterior"].to_dataset())
    assert back.attrs["priors"] == tree.attrs["priors"]
    back.close()


def test_draws_in_any_order_are_relabelled_to_the_fit(faithful, tree):
    _, fit = faithful
    draws = bg.as_mixture(tree)
    rng = np.random.default_rng(0)
    shuffled = draws.permute(rng.permuted(np.broadcast_to(np.arange(2), draws.weights.shape), axis=-1))
    found = relabelling(shuffled, fit.mixture)
    np.testing.assert_array_equal(found.mixture.means, draws.means)
    assert found.labels.switch_rate > 0.3
    assert found.labels.ambiguous_rate == 0


def test_what_went_wrong_is_said_in_words(faithful):
    """A hundred and twenty draws are never taken for more than 120 log10(120) = 250 independent ones."""
    with pytest.warns(bg.ConvergenceWarning, match="effective sample size of .* below 400"):
        tree = bg.sample_posterior(*faithful, draws=30, rng=seed())
    assert tree.attrs["convergence"].startswith("Not converged")


def test_fit_table_and_priors_must_belong_together(faithful):
    X, fit = faithful
    with pytest.raises(bg.InputError, match="K = 3 components"):
        bg.build_model(X, fit, bg.Priors.weakly_informative(X, 3))
    with pytest.raises(bg.InputError, match="4 columns, the fit 2"):
        bg.sample_posterior(table("iris"), fit)
    with pytest.raises(bg.InputError, match="271 rows, the fit 272"):
        bg.sample_posterior(X[1:], fit)
    with pytest.raises(bg.InputError, match="another table than was fitted, though as large: its log-likelihood"):
        bg.sample_posterior(X[::-1] * 1.001, fit)
    with pytest.raises(bg.InputError, match="another table"):
        fit.standard_errors(np.roll(X, 1, axis=1))
    with pytest.raises(bg.InputError, match="the row weights are not those of the fit"):
        bg.sample_posterior(X, bg.fit_em(X, 2, sample_weight=np.full(len(X), 2.0), rng=0))
    with pytest.raises(bg.InputError, match="unknown sampler"):
        bg.sample_posterior(X, fit, sampler="jags")


def test_the_table_of_a_fit_is_known_again_however_it_was_made():
    """In any order of rows, weighted, far from the origin, under priors, with rows of weight 0."""
    X = table("old_faithful")
    rng = np.random.default_rng(0)
    weight = rng.integers(0, 3, size=len(X)).astype(float)
    for shift in (0.0, 1e6):
        for priors in (None, bg.Priors.weakly_informative(X + shift, 2)):
            for w in (None, weight):
                fit = bg.fit_em(X + shift, 2, sample_weight=w, priors=priors, rng=0)
                order = rng.permutation(len(X))
                same = fitted_table(fit, (X + shift)[order], None if w is None else w[order], (), "this")
                np.testing.assert_array_equal(same.values, (X + shift)[order])
                with pytest.raises(bg.InputError, match="another table"):
                    fitted_table(fit, X + shift + np.array([0.1, 0.0]), w, (), "this")


def test_a_posterior_shares_the_stored_log_likelihood_with_its_tree(tree):
    """It is by far the largest of all arrays: a copy would double the memory."""
    stored = tree["log_likelihood"]["observations"].values
    assert np.shares_memory(bg.posterior(tree).log_likelihood.values, stored)
    some = tree.isel(draw=slice(0, None, 10))
    np.testing.assert_array_equal(bg.posterior(some).log_likelihood.values, stored[:, ::10])


def test_the_log_likelihood_does_not_depend_on_how_many_draws_are_worked_on_at_a_time(faithful, monkeypatch):
    X, fit = faithful

    def log_likelihood(block):
        monkeypatch.setattr(draws_tree, "_BLOCK", block)
        return bg.sample_posterior(X, fit, draws=50, chains=2, rng=0)["log_likelihood"]["observations"].values

    np.testing.assert_array_equal(log_likelihood(1e9), log_likelihood(7 * 8 * len(X)))


def test_a_single_feature_and_equal_variances_sample_too():
    X = table("galaxies")
    fit = bg.fit_em(X, 2, "E", rng=0)
    tree = bg.sample_posterior(X, fit, draws=300, chains=2, rng=0)
    S = tree["posterior"]["covariances"].values
    np.testing.assert_allclose(S[:, :, 0], S[:, :, 1])
    assert CovarianceModel.named(tree["em"].attrs["covariance_model"]).volume == "E"
