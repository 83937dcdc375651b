"""Laws of how the posterior is drawn: the normal approximation, several modes, draws that are kept."""

import re
import warnings

import arviz as az
import numpy as np
import pytest
import xarray as xr
from oracles import seed, table

import bayesgmm as bg
from bayesgmm.bayes import nuts, sample
from bayesgmm.bayes.mode_weights import multinomial_share
from bayesgmm.bayes.modes import candidates, find_modes, search_modes


@pytest.fixture(scope="module")
def faithful(faithful_fit):
    return table("old_faithful"), faithful_fit


def quiet(*arguments, **options):
    """A posterior of so few draws that its convergence is a matter of luck."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bg.ConvergenceWarning)
        return bg.sample_posterior(*arguments, **options)


def two_modes():
    """Four far clusters of equal size for three components: which two share one is undecided."""
    rng = np.random.default_rng(0)
    corners = 12 * np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    X = rng.normal(size=(160, 2)) + corners[np.repeat(np.arange(4), 40)]
    return X, bg.fit_em(X, 3, "VII", rng=0, n_starts=40)


@pytest.mark.statistical
def test_laplace_draws_are_near_nuts(faithful, faithful_posterior):
    """Within 0.2 sds; the four differences have errors of about 0.02 sds, and after correction of 0.03."""
    X, fit = faithful
    laplace = bg.sample_posterior(X, fit, method="laplace", rng=seed())
    assert set(laplace.children) == set(faithful_posterior.children)
    a, b = (tree["posterior"]["means"] for tree in (laplace, faithful_posterior))
    sd = b.std(("chain", "draw"))
    assert float((np.abs(a.mean(("chain", "draw")) - b.mean(("chain", "draw"))) / sd).max()) < 0.2
    with pytest.raises(bg.InputError, match="not of an approximation"):
        bg.loo(laplace)
    weight = np.exp(laplace["sample_stats"]["log_importance_weight"].values)
    corrected = (weight[..., None, None] * a.values).sum(axis=(0, 1)) / weight.sum()
    assert float((np.abs(corrected - b.mean(("chain", "draw"))) / sd).max()) < 0.2


@pytest.mark.statistical
def test_laplace_says_whether_it_is_good(faithful):
    """Of many rows, and of few: their Pareto k are 0.2 and 2.2, more than six of their sds from the bound of 0.7."""
    many = np.tile(faithful[0], (8, 1))
    tree = bg.sample_posterior(many, bg.fit_em(many, 2, rng=0), method="laplace", rng=seed())
    assert tree.attrs["convergence"].startswith("Laplace's approximation is good")
    few = np.array([-2.1, -1.4, -1.0, -0.2, 0.3, 1.2, 1.9, 2.2])[:, None]
    priors = bg.Priors(1.0, bg.NormalMeans([0.0], [4.3]), bg.InverseWishart(3, [[1.0]]))
    with pytest.warns(bg.ConvergenceWarning, match="not to be trusted"):
        bg.sample_posterior(few, bg.fit_em(few, 2, "V", priors=priors), priors, method="laplace", rng=seed())


@pytest.mark.statistical
def test_modes_that_chains_do_not_leave_are_weighted_by_evidence():
    """Every chain then holds draws of each, as many as Laplace's approximation, good here, says to within 0.03.

    The log evidence by bridge sampling has an error of about 0.03 nats, that is 0.002 in the share.
    """
    X, fit = two_modes()
    priors = bg.Priors.weakly_informative(X, 3)
    tree = bg.sample_posterior(X, fit, priors, draws=300, rng=seed())
    density = bg.posterior(tree).density
    searched = search_modes(density, fit, np.random.default_rng([tree.attrs["seed"], 2]))
    modes = find_modes(density, candidates(fit, searched, 8))[:4]
    assert len(modes) > 1
    assert "modes that chains do not move between" in tree.attrs["modes"]
    laplace = [float(x) for x in tree.attrs["maxima"].partition(": ")[2].split(", ")]
    exact = [mode.log_integral + density.log_constant + np.log(6) for mode in modes]
    np.testing.assert_allclose(laplace, exact, atol=0.051)
    bridge = [float(x) for x in re.findall(r"log evidence (-[0-9.]+)", tree.attrs["modes"])]
    assert abs(max(bridge) - max(exact)) < 0.5  # two methods, one integral
    log_integrals = np.array([mode.log_integral for mode in modes])
    weights = np.exp(log_integrals - log_integrals.max())
    weights /= weights.sum()
    # share of draws nearest to each mode
    nearest = _nearest(bg.as_mixture(tree).means, np.stack([density.unpack(mode.origin).means for mode in modes]))
    share = np.bincount(nearest.ravel(), minlength=len(modes)) / nearest.size
    np.testing.assert_allclose(share, weights, atol=0.03)


def _nearest(means, modes):
    """Index of the mode whose set of means is nearest to each draw's, whatever the order of components."""
    gap = np.linalg.norm(means[..., None, :, None, :] - modes[:, None, :, :], axis=-1)  # (chain, draw, mode, K, K)
    return gap.min(axis=-1).sum(axis=-1).argmin(axis=-1)


def test_shares_are_whole_and_sum_to_all():
    share = multinomial_share(np.array([0.5, 0.333, 0.167]), 10)
    assert share.tolist() == [5, 3, 2]


def test_a_prior_that_tells_components_apart_keeps_its_labels(faithful):
    X, fit = faithful
    weak = bg.Priors.weakly_informative(X, 2)
    tree = bg.sample_posterior(X, fit, bg.Priors([2.0, 3.0], weak.means, weak.covariances), draws=50, tune=300, rng=0)
    assert tree.attrs["relabelling"] == "none"


def test_draws_are_kept_and_an_interrupted_run_goes_on(faithful, tmp_path, monkeypatch):
    X, fit = faithful
    out = tmp_path / "draws.nc"
    whole = sample.nutpie_draws

    def interrupted(*args, **settings):
        """As after Ctrl-C, when two chains have some draws."""
        monkeypatch.setattr(sample, "nutpie_draws", whole)
        return whole(*args, **settings).picked(np.s_[:2, :120])._replace(complete=False)

    monkeypatch.setattr(sample, "nutpie_draws", interrupted)
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


def test_draws_are_written_compressed_and_come_back_as_they_were(faithful, tmp_path):
    X, fit = faithful
    out = tmp_path / "draws.nc"
    tree = quiet(X, fit, draws=400, rng=0, out=out)
    pointwise = tree["log_likelihood"]["observations"]
    assert pointwise.dtype == np.float32
    assert tree["posterior"]["means"].dtype == np.float64
    np.testing.assert_allclose(pointwise, bg.as_mixture(tree).log_prob(X), rtol=1e-7)
    assert out.stat().st_size < 0.9 * sum(group.nbytes for group in tree.subtree)
    with xr.open_datatree(out, engine="h5netcdf") as back:
        for group in tree.children:
            xr.testing.assert_identical(back[group].to_dataset(), tree[group].to_dataset())


def test_pointwise_densities_in_single_precision_are_enough_for_loo(faithful):
    """Of ArviZ's and ours, against the same in double precision, to 1e-4 nats."""
    X, fit = faithful
    single = quiet(X, fit, draws=400, rng=0)
    double = single.copy(deep=True)
    pointwise = single["log_likelihood"].to_dataset()["observations"].astype(np.float64)
    double["log_likelihood"]["observations"] = pointwise.copy(data=bg.as_mixture(single).log_prob(X))
    for loo in (az.loo, bg.loo):
        a, b = loo(single), loo(double)
        assert a.elpd == pytest.approx(b.elpd, abs=1e-4)
        assert a.se == pytest.approx(b.se, abs=1e-4)
        np.testing.assert_allclose(a.pareto_k, b.pareto_k, atol=1e-3)


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
