"""Laws of the draws from the posterior, of the verdict on them, and of runs that go on where they stopped."""

import arviz as az
import numpy as np
import pytest
from oracles import errors_allowed, hits, seed, table
from scipy import stats

import bayesgmm as bg
from bayesgmm.bayes import samplers
from bayesgmm.bayes.laplace import Mode
from bayesgmm.bayes.mode_weights import ModeWeights
from bayesgmm.bayes.sample import _verdict
from bayesgmm.covariance import CovarianceModel


@pytest.fixture(scope="module")
def faithful(faithful_fit):
    return table("old_faithful"), faithful_fit


def test_a_prior_that_tells_components_apart_keeps_its_labels(faithful):
    X, fit = faithful
    weak = bg.Priors.weakly_informative(X, 2)
    tree = bg.sample_posterior(X, fit, bg.Priors([2.0, 3.0], weak.means, weak.covariances), draws=50, tune=300, rng=0)
    assert tree.attrs["relabelling"] == "none"


def test_draws_are_kept_and_an_interrupted_run_goes_on(faithful, tmp_path, monkeypatch):
    X, fit = faithful
    out = tmp_path / "draws.nc"
    whole = samplers.nutpie_draws

    def interrupted(*args, **settings):
        """As after Ctrl-C, when two chains have some draws."""
        monkeypatch.setattr(samplers, "nutpie_draws", whole)
        return whole(*args, **settings).picked(np.s_[:2, :120])._replace(complete=False)

    monkeypatch.setattr(samplers, "nutpie_draws", interrupted)
    with pytest.warns(bg.ConvergenceWarning, match="interrupted with 120 of 400 draws in 2 of 4 chains"):
        first = bg.sample_posterior(X, fit, draws=400, rng=0, out=out)
    assert first["posterior"].sizes["chain"] == 2
    assert out.exists()
    told = []
    tree = bg.sample_posterior(X, fit, draws=400, rng=0, out=out, progress=lambda *stage: told.append(stage))
    assert "partial" not in tree.attrs
    assert tree["posterior"]["means"].shape == (4, 400, 2, 2)
    np.testing.assert_allclose(tree["posterior"]["means"][:2, :120], first["posterior"]["means"])
    assert told[0] == ("posterior", 0, 4 * 900)
    assert told[-1] == ("posterior", 4 * 900, 4 * 900)
    again = bg.sample_posterior(X, fit, draws=400, rng=0, out=out)
    np.testing.assert_array_equal(again["posterior"]["means"], tree["posterior"]["means"])


def test_a_file_of_something_else_is_not_overwritten(faithful, tmp_path):
    X, fit = faithful
    out = tmp_path / "draws.nc"
    out.write_text("notes")
    with pytest.raises(bg.InputError, match="holds no posterior"):
        bg.sample_posterior(X, fit, rng=0, out=out)
    assert out.read_text() == "notes"
    out.unlink()
    bg.sample_posterior(X, fit, rng=0, method="laplace", draws=100, out=out)
    with pytest.raises(bg.InputError, match="another table, model or prior"):
        bg.sample_posterior(X, bg.fit_em(X, 3, rng=0), rng=0, out=out)


APART = ModeWeights(((0, 1), (2, 3)), (-9.0, -10.0), (0.7, 0.3))


def verdict(three_blobs, searched, evidences=(0.0,), visited=4, weights=None, interrupted=""):
    modes = [Mode(np.zeros(1), np.eye(1), e) for e in evidences]
    return _verdict(
        bg.diagnose(three_blobs[2]),
        interrupted=interrupted,
        modes=modes,
        visited=visited,
        searched=searched,
        weights=weights,
    )


def test_the_verdict_is_that_of_the_draws_where_no_mode_is_missed(three_blobs):
    found = verdict(three_blobs, hits(30))
    assert found.good
    assert found.text == bg.diagnose(three_blobs[2]).text
    assert verdict(
        three_blobs, hits(30), (0.0, -1.0, -2.0, -2.0, -5.0), weights=APART
    ).good  # the fifth holds less than one in a hundred


def test_draws_of_modes_of_which_some_may_be_missed_are_not_called_converged(three_blobs):
    mixed = verdict(three_blobs, hits(6, 1, 2, 1))
    assert mixed.good
    assert mixed.text.startswith("Converged: ")
    assert mixed.text.endswith(hits(6, 1, 2, 1).text)
    found = verdict(three_blobs, hits(6, 1, 2, 1), weights=APART)
    assert not found.good
    assert found.text.startswith("Not converged: a mode may have been missed, though chains agree")


def test_modes_that_no_chain_starts_from_are_counted(three_blobs):
    found = verdict(three_blobs, hits(30), (0.0, 0.0, 0.0), visited=2)
    assert not found.good
    assert found.text.startswith("Not converged: 33% of the posterior, by Laplace's approximation, is in modes without")
    assert found.text.endswith("Sample with chains=3, one for each mode.")
    cut_short = "interrupted with 9 of 10 draws in 4 of 4 chains"
    assert verdict(three_blobs, hits(30), interrupted=cut_short).text.startswith(
        "Not converged: interrupted with 9 of 10 draws in 4 of 4 chains, though"
    )


@pytest.mark.statistical
def test_old_faithful_converges_to_the_em_fit(faithful_fit, faithful_posterior):
    """The chains agree: each one's means are off those of all by no more than its effective draws allow."""
    fit, tree = faithful_fit, faithful_posterior
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


@pytest.mark.statistical
@pytest.mark.parametrize("sampler", ["nutpie", "gibbs", pytest.param("pymc", marks=pytest.mark.slow)])
def test_one_component_measured_with_errors_has_the_posterior_on_a_grid(sampler):
    """K = 1, D = 1, and a row without a value."""
    rng = np.random.default_rng(3)
    X, sd = rng.normal(2.0, 1.5, size=(25, 1)), rng.uniform(0.2, 2.0, size=(25, 1))
    X[4] = np.nan
    prior = bg.Priors(np.ones(1), bg.NormalMeans([0.0], [2.0]), bg.InverseWishart(3.0, [[2.0]]))
    fit = bg.fit_em(X, 1, error_sd=sd)
    tree = bg.sample_posterior(X, fit, prior, sampler=sampler, error_sd=sd, rng=seed())
    mean, variance = np.meshgrid(np.linspace(-4, 8, 601), np.exp(np.linspace(-4, 5, 801)), indexing="ij")
    log = stats.norm.logpdf(mean, 0, 2) + stats.invgamma.logpdf(variance, 1.5, scale=1.0) + np.log(variance)
    for x, s in zip(np.delete(X, 4), np.delete(sd, 4), strict=True):
        log += stats.norm.logpdf(x, mean, np.sqrt(variance + s**2))
    p = np.exp(log - log.max())
    p /= p.sum()
    posterior = tree["posterior"].to_dataset()
    drawn = {"means": posterior["means"], "covariances": np.log(posterior["covariances"])}
    for name, exact in (("means", (p * mean).sum()), ("covariances", (p * np.log(variance)).sum())):
        se = float(az.mcse(drawn[name].to_dataset(name="values"))["values"].values.item())
        assert abs(float(drawn[name].mean()) - exact) < errors_allowed(comparisons=2) * se


def test_errors_belong_to_the_table(faithful, tmp_path):
    """They are those of the fit; and draws in a file are of one table with its errors."""
    X, fit = faithful
    sd, out = np.array([0.1, 2.0]), tmp_path / "draws.nc"
    with_errors, with_others = (bg.fit_em(X, 2, error_sd=s, rng=0) for s in (sd, sd / 2))
    for function in (bg.sample_posterior, bg.build_model, bg.kfold):
        with pytest.raises(bg.InputError, match="made without errors"):
            function(X, fit, error_sd=sd)
        with pytest.raises(bg.InputError, match="made with errors"):
            function(X, with_errors)
    priors, short = bg.Priors.weakly_informative(X, 2), {"method": "laplace", "draws": 50, "rng": 0, "out": out}
    bg.sample_posterior(X, with_errors, priors, error_sd=sd, **short)
    with pytest.raises(bg.InputError, match="another table, model or prior"):
        bg.sample_posterior(X, with_others, priors, error_sd=sd / 2, **short)


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
    with pytest.raises(
        bg.InputError, match="unknown method 'gibbs'; use 'auto', 'nuts', 'subset', 'laplace' or 'variational'"
    ):
        bg.sample_posterior(X, fit, method="gibbs")


def test_a_single_feature_and_equal_variances_sample_too():
    X = table("galaxies")
    fit = bg.fit_em(X, 2, "E", rng=0)
    tree = bg.sample_posterior(X, fit, draws=300, chains=2, rng=0)
    S = tree["posterior"]["covariances"].values
    np.testing.assert_allclose(S[:, :, 0], S[:, :, 1])
    assert CovarianceModel.named(tree["em"].attrs["covariance_model"]).volume == "E"
