"""Laplace's approximation to the posterior of tables in parts, and when it is trusted."""

import warnings

import dask.array
import numpy as np
import pytest
import xarray as xr
from oracles import CHANCE, random_mixture, seed, stopped_at
from scipy import stats

import bayesgmm as bg
from bayesgmm.bayes.laplace import Mode
from bayesgmm.bayes.many_rows import LargeTable, checked, judged_modes
from bayesgmm.bayes.verdict import Convergence, Verdict

N = 30_000


@pytest.fixture(scope="module")
def X():
    mixture = bg.GaussianMixture([0.5, 0.3, 0.2], [[0.0, 0.0], [4.0, 1.0], [0.0, 5.0]], [np.eye(2)] * 3)
    return mixture.sample(N, rng=1)[0]


@pytest.fixture(scope="module")
def path(X, tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "rows.npy"
    np.save(path, X)
    return path


@pytest.fixture(scope="module")
def fit(path):
    return bg.fit_em(path, 3, rng=0)


@pytest.fixture(scope="module")
def tree(path, fit):
    return bg.sample_posterior(path, fit, rng=seed())


def test_separate_components_are_accepted_with_the_posterior_of_all_rows(X, tree, fit):
    """Against Laplace's approximation in memory, resampled by its importance weights: exact but for their noise."""
    drawn = bg.posterior(tree)
    assert drawn.verdict.convergence is Convergence.APPROXIMATION_GOOD, drawn.verdict.text
    exact = bg.posterior(bg.sample_posterior(X, fit, method="laplace", draws=2000, rng=seed(1)))
    weight = np.exp(exact.statistics["log_importance_weight"])
    weight /= weight.sum()
    allowed = 0.1 + stats.norm.isf(CHANCE / 50) * np.sqrt((weight**2).sum() + 1 / drawn.n_draws)
    for name in ("weights", "means", "covariances"):
        ours, theirs = getattr(drawn.draws, name), getattr(exact.draws, name)
        w = weight.reshape(weight.shape + (1,) * (theirs.ndim - 2))
        mean = (w * theirs).sum(axis=(0, 1))
        sd = np.sqrt((w * (theirs - mean) ** 2).sum(axis=(0, 1)))
        np.testing.assert_array_less(np.abs(ours.mean(axis=(0, 1)) - mean), allowed * sd)
        np.testing.assert_allclose(ours.std(axis=(0, 1)), sd, rtol=0.2)


def test_draws_have_the_same_digits_wherever_rows_are(X, tree, fit):
    of_dask = dask.array.from_array(X, chunks=(7001, 2))
    for source in (lambda: iter([X[:7000], X[7000:7001], X[7001:]]), of_dask):
        other = bg.sample_posterior(source, fit, rng=seed())
        for name in ("weights", "means", "covariances"):
            np.testing.assert_array_equal(other["posterior"][name], tree["posterior"][name])
        assert other.attrs["convergence"] == tree.attrs["convergence"]


def test_a_posterior_that_is_killed_in_every_pass_ends_at_the_same_digits(path, fit, tree, tmp_path):
    told = []
    bg.sample_posterior(path, fit, rng=seed(), progress=stopped_at(None, told))
    stages = list(dict.fromkeys(told))
    assert len(stages) > 4

    def until(end):
        told.clear()
        return bg.sample_posterior(path, fit, out=tmp_path / "draws.nc", rng=seed(), progress=stopped_at(end, told))

    for i, stage in enumerate(stages):
        with pytest.raises(KeyboardInterrupt):
            until(stage)
        assert set(told) == set(stages[max(i - 1, 0) : i + 1])  # the one that was interrupted before, and this one
    again = until(None)
    assert set(told) == {stages[-1]}
    assert again.attrs["convergence"] == tree.attrs["convergence"]
    for group in ("posterior", "sample"):
        for name, values in tree[group].items():
            np.testing.assert_array_equal(again[group][name], values)
    np.testing.assert_array_equal(until(None)["posterior"]["means"], again["posterior"]["means"])
    assert not told


def test_a_posterior_without_a_seed_goes_on_with_the_seed_that_it_had(path, fit, tmp_path):
    for stages in ({"rows looked at", "posterior: pass 1", "posterior: pass 2"}, {"posterior: pass 2"}):
        told = []
        with pytest.raises(KeyboardInterrupt):
            bg.sample_posterior(path, fit, out=tmp_path / "draws.nc", progress=stopped_at("posterior: pass 2", told))
        assert set(told) == stages


@pytest.fixture(scope="module")
def overlapping(tmp_path_factory):
    """A table of overlapping components, of which Laplace's approximation is poor, and its fit."""
    path = tmp_path_factory.mktemp("overlapping") / "rows.npy"
    mixture = random_mixture(np.random.default_rng(0), 5, 2)
    near = bg.GaussianMixture(mixture.weights, 0.3 * mixture.means, mixture.covariances)
    np.save(path, near.sample(20_000, rng=0)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bg.ConvergenceWarning)
        return path, bg.fit_em(path, 5, rng=0)


def test_overlapping_components_are_refused(overlapping):
    path, fit = overlapping
    with pytest.warns(bg.ConvergenceWarning, match=r"not to be trusted.*fewer components"):
        tree = bg.sample_posterior(path, fit, method="laplace", rng=seed())
    assert bg.posterior(tree).verdict.convergence is Convergence.APPROXIMATION_POOR


@pytest.mark.slow
def test_where_the_approximation_is_refused_weighted_rows_are_sampled(overlapping):
    path, fit = overlapping
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bg.ConvergenceWarning)  # of so few draws
        tree = bg.sample_posterior(path, fit, draws=50, tune=100, chains=2, rng=seed())
    drawn = bg.posterior(tree)
    assert drawn.sampling.method == "subset"
    assert "weighted rows in place of all 20000 is good" in drawn.verdict.text
    assert "This was done as Laplace's approximation is not to be trusted" in drawn.verdict.text
    diagnosis = bg.diagnose(tree)
    assert diagnosis.ess < drawn.n_draws
    assert diagnosis.good == drawn.verdict.good


def test_a_check_moves_the_approximation_to_the_mean_of_a_skew_posterior():
    """Of one log-gamma variable, whose mean is the digamma function of its shape."""
    shape = 300.0

    class LogGamma:
        def near(self, mode, steps):
            x = mode.origin[0] + np.concatenate([steps[:, 0], -steps[:, 0]])
            return shape * x - np.exp(x), (shape - np.exp(x))[:, None]

    mode = Mode(np.log([shape]), np.array([[shape**-0.5]]), shape * np.log(shape) - shape)
    found = checked(LogGamma(), mode, seed())
    assert found.verdict.good, found.verdict.text
    expected = stats.loggamma(shape).mean()
    assert abs(found.origin[0] - expected) < 0.5 * abs(np.log(shape) - expected)


def test_other_modes_that_matter_are_told():
    good = Verdict(Convergence.APPROXIMATION_GOOD, "Good.")
    modes = [Mode(np.zeros(1), np.eye(1), height) for height in (0.0, -1.0)]
    told = judged_modes(modes, good)
    assert told.convergence is Convergence.APPROXIMATION_POOR
    assert "27% of the posterior is in others" in told.text
    assert judged_modes([modes[0], modes[1]._replace(value=-5.0)], good) is good


def test_default_priors_are_those_of_all_rows(X, path, fit):
    of_parts = LargeTable.of(bg.open_table(path), fit, 0, None)
    ours, theirs = of_parts.posterior(fit, None).prior.priors, bg.Priors.weakly_informative(X, 3)
    np.testing.assert_allclose(ours.means.location, theirs.means.location, atol=1e-10)
    np.testing.assert_allclose(ours.means.precision, theirs.means.precision, rtol=1e-9)


def test_its_tree_has_a_sample_and_says_what_it_is_of(X, tree, tmp_path):
    drawn = bg.posterior(tree)
    assert set(tree.children) == {"posterior", "sample_stats", "sample", "em"}
    assert drawn.table is None
    assert (drawn.source.n_observations, drawn.source.names, drawn.source.n_rows) == (N, ("rows.npy",), (N,))
    np.testing.assert_allclose(drawn.source.mean, X.mean(axis=0), rtol=1e-10)
    assert 9_000 < drawn.sample.n_observations < 11_000
    assert {tuple(row) for row in drawn.rows[:50]} <= {tuple(row) for row in X}
    tree.to_netcdf(tmp_path / "tree.nc", engine="h5netcdf")
    with xr.open_datatree(tmp_path / "tree.nc", engine="h5netcdf") as stored:
        again = bg.posterior(stored.load())
    assert again.source == drawn.source
    np.testing.assert_array_equal(again.rows, drawn.rows)


def test_what_needs_every_row_is_refused_and_what_does_not_looks_at_the_sample(tree):
    drawn = bg.posterior(tree)
    for function in (bg.loo, bg.log_evidence):
        with pytest.raises(bg.InputError, match=r"needs every row in memory, .* \(30000 rows\); for a random sample"):
            function(tree)
    with pytest.raises(bg.InputError, match="needs every row"):
        _ = drawn.density
    assert bg.diagnose(tree).good
    assert len(bg.assign(tree).labels) == drawn.sample.n_observations
    assert set(bg.parameter_table(tree)["parameter"]) == {"weights", "means", "covariances"}


def test_a_sample_stands_for_all_rows_where_these_are_counted():
    """A component of forty rows is no component of thirteen, though the sample has so many."""
    few = bg.GaussianMixture([0.9987, 0.0013], [[0.0, 0.0], [30.0, 30.0]], [np.eye(2)] * 2)
    rows = few.sample(N, rng=1)[0]
    source = lambda: iter([rows])  # noqa: E731
    diagnosis = bg.diagnose(bg.sample_posterior(source, bg.fit_em(source, 2, rng=0), rng=0))
    assert diagnosis.good
    assert not diagnosis.findings


def test_a_finished_posterior_in_a_file_is_returned_and_that_of_another_table_refused(path, fit, X, tmp_path):
    out = tmp_path / "posterior.nc"
    first = bg.sample_posterior(path, fit, rng=seed(), draws=50, out=out)
    again = bg.sample_posterior(path, fit, rng=seed(1), draws=50, out=out)
    np.testing.assert_array_equal(first["posterior"]["means"], again["posterior"]["means"])
    source = lambda: iter([X[::-1]])  # noqa: E731
    with pytest.raises(bg.InputError, match="another table, model or prior"):
        bg.sample_posterior(source, fit, rng=seed(), draws=50, out=out)


def test_what_a_table_in_parts_cannot_have_is_refused(path, fit, X):
    with pytest.raises(bg.InputError, match="tens of thousands of times"):
        bg.sample_posterior(path, fit, method="nuts")
    with pytest.raises(bg.InputError, match="error_sd cannot be given with a table in parts"):
        bg.sample_posterior(path, fit, error_sd=[1.0, 1.0])
    with pytest.raises(bg.InputError, match="another table than was fitted"):
        bg.sample_posterior(lambda: iter([X + 1]), fit)


def test_auto_takes_the_approximation_in_memory_where_the_check_allows(X, fit):
    tree = bg.sample_posterior(X, fit, rng=seed(), draws=300)
    drawn = bg.posterior(tree)
    assert drawn.sampling.method == "laplace"
    assert drawn.verdict.good
    assert drawn.verdict.text.endswith("it took the place of NUTS on all of them, which takes longer.")
    np.testing.assert_array_equal(drawn.table.values, X)


def test_auto_samples_all_rows_where_no_approximation_will_do(X, fit, monkeypatch):
    refused = Verdict(Convergence.APPROXIMATION_POOR, "It is not to be trusted.")
    monkeypatch.setattr("bayesgmm.bayes.sample.promising", lambda *_: False)
    monkeypatch.setattr("bayesgmm.bayes.many_rows.judged", lambda *_, **__: (None, refused))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bg.ConvergenceWarning)  # of so few draws
        drawn = bg.posterior(bg.sample_posterior(X, fit, rng=seed(), draws=20, tune=20, chains=1))
    assert drawn.sampling.method == "nuts"
    assert "as an approximation would not do: It is not to be trusted." in drawn.verdict.text
