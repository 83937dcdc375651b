"""Laws of leave-one-out and K-fold cross-validation: against quadrature, brute force and ArviZ."""

import tracemalloc
from dataclasses import FrozenInstanceError

import arviz as az
import matplotlib
import numpy as np
import pytest
import xarray as xr
from oracles import errors_allowed, predictive, predictive_of_known, quiet, seed, table, tree_of
from scipy import stats

import bayesgmm as bg
from bayesgmm.bayes import loo as module

matplotlib.use("Agg")


@pytest.fixture(scope="module")
def faithful(faithful_posterior):
    return table("old_faithful"), faithful_posterior


@pytest.fixture(scope="module")
def made_up():
    """Draws of one component whose precision is gamma distributed: fine for forty rows, not for two far ones.

    A row at distance d weighs exp(d^2 precision / 2) in them, so that with shape 20 its Pareto k is d^2 / 40.
    """
    rng = np.random.default_rng(0)
    X = np.append(stats.norm.ppf((np.arange(40) + 0.5) / 40), [-12.0, 12.0])[:, None]
    precision = rng.gamma(20, 1 / 20, size=(4, 500))
    ones = np.ones((4, 500, 1))
    return X, bg.GaussianMixture(ones, 0 * ones[..., None], 1 / precision[..., None, None, None])


def in_double(tree):
    """The tree with its pointwise log-likelihood as float64: ArviZ computes in the precision that it is given."""
    tree = tree.copy(deep=True)
    tree["log_likelihood"]["observations"] = tree["log_likelihood"].to_dataset()["observations"].astype(np.float64)
    return tree


def test_without_repairs_the_result_is_arvizs(faithful):
    _, tree = faithful
    ours, theirs = quiet(bg.loo, tree, methods=()), quiet(az.loo, in_double(tree), pointwise=True)
    for name in ("n_samples", "n_data_points", "scale", "warning", "kind", "good_k"):
        assert ours[name] == theirs[name], name
    for name in ("elpd", "se", "p"):
        assert ours[name] == pytest.approx(theirs[name], rel=1e-12), name
    np.testing.assert_allclose(ours.elpd_i, theirs.elpd_i, rtol=1e-12)
    np.testing.assert_allclose(ours.pareto_k, theirs.pareto_k, rtol=1e-10, atol=1e-10)
    assert (ours.method == "psis").all()
    assert ours.repairs.empty


@pytest.mark.statistical
def test_known_values_are_predicted_as_quadrature_does(imperfect_posterior):
    """In total, but for the two rows far out; errors are those of eight chains."""
    rows, priors, tree = imperfect_posterior
    exact = np.diag(predictive_of_known(rows, 1 - np.eye(42), priors))[:40].sum()
    each = [float(quiet(bg.loo, tree.isel(chain=[c]), methods=()).elpd_i[:40].sum()) for c in range(8)]
    assert abs(np.mean(each) - exact) < errors_allowed(df=7) * np.std(each, ddof=1) / np.sqrt(8)


@pytest.mark.statistical
def test_draws_of_a_good_approximation_predict_as_quadrature_does(line_posterior):
    """By their importance weights: without these the total is short by some seventeen of its errors."""
    X, priors, _ = line_posterior
    X = X[:40]
    exact = np.diag(predictive(X, 1 - np.eye(40), priors)).sum()
    fit, first = bg.fit_em(X, 1), 100 * seed()
    trees = [bg.sample_posterior(X, fit, priors, method="laplace", rng=first + i) for i in range(16)]
    each = [float(quiet(bg.loo, tree, methods=()).elpd) for tree in trees]
    assert abs(np.mean(each) - exact) < errors_allowed(df=15) * np.std(each, ddof=1) / 4


def test_rows_without_values_count_for_nothing(imperfect_posterior):
    """Also in the standard error, and of what is stored or not."""
    rows, _, tree = imperfect_posterior
    for part in (tree, tree.drop_nodes("log_likelihood")):
        result = quiet(bg.loo, part, methods=())
        np.testing.assert_array_equal(result.elpd_i[rows.empty], 0.0)
        np.testing.assert_array_equal(result.p_loo_i[rows.empty], 0.0)
        others = np.delete(np.asarray(result.elpd_i), rows.empty)
        assert result.elpd == pytest.approx(others.sum())
        assert result.se == pytest.approx(np.sqrt(others.size) * others.std(ddof=1))


def test_where_every_row_is_good_nothing_is_repaired(made_up):
    X, draws = made_up
    result = bg.loo(tree_of(draws, X[:40]))
    assert (result.method == "psis").all()
    assert result.repairs.empty
    assert not result.warning
    assert result.text.startswith("All 40 rows")


def test_rows_that_are_not_good_are_named(made_up):
    X, draws = made_up
    tree = tree_of(draws, X)
    theirs = quiet(az.loo, in_double(tree), pointwise=True)
    with pytest.warns(bg.ConvergenceWarning, match=r"2 of 42 rows .* not to be trusted: 2 rows \(40, 41\)"):
        ours = bg.loo(tree, methods=())
    np.testing.assert_allclose(ours.elpd_i, theirs.elpd_i, rtol=1e-12)
    assert ours.warning
    assert theirs.warning


def test_blocks_of_rows_give_what_the_stored_log_likelihood_gives_in_bounded_memory(faithful, monkeypatch):
    X, tree = faithful
    tree = tree.isel(draw=slice(50))
    bare = tree.drop_nodes("log_likelihood")
    whole = quiet(bg.loo, tree, methods=())
    monkeypatch.setattr(module, "_BLOCK", 8 * 200 * 100)  # a hundred rows
    for blocked in (quiet(bg.loo, t, methods=()) for t in (tree, bare)):
        np.testing.assert_allclose(blocked.elpd_i, whole.elpd_i, rtol=1e-6)  # what is stored is in single precision
        np.testing.assert_allclose(blocked.pareto_k, whole.pareto_k, atol=1e-4)
    rows = np.tile(X, (30, 1))
    long = xr.Dataset({"observations": (("observation", "feature"), rows)}, {"observation": np.arange(len(rows))})
    long = xr.DataTree.from_dict(
        {**{name: node.to_dataset() for name, node in bare.children.items()}, "observed_data": long}
    )
    tracemalloc.start()
    quiet(bg.loo, long, methods=())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.25 * 8 * 200 * len(rows)


@pytest.mark.statistical
def test_result_is_arvizs_to_compare_and_to_plot(faithful, line_posterior):
    """Two components are better than one by more than a hundred nats."""
    X, tree = faithful
    one = bg.sample_posterior(X, bg.fit_em(X, 1), draws=500, rng=seed())
    compared = az.compare({"two": bg.loo(tree), "one": bg.loo(one)})
    assert list(compared.index) == ["two", "one"]
    az.plot_khat(bg.loo(line_posterior[2], rng=0), backend="matplotlib")
    result = bg.loo(line_posterior[2], rng=0)
    assert isinstance(result, az.ELPDDataLOO)
    assert result.text in str(result)


def test_what_cannot_be_left_out_is_refused(faithful):
    X, tree = faithful
    with pytest.raises(bg.InputError, match="not 'magic'"):
        bg.loo(tree, methods=("magic",))
    with pytest.raises(bg.InputError, match="needs a posterior"):
        bg.loo(X)
    short = quiet(bg.sample_posterior, X, bg.fit_em(X, 1), draws=5, tune=50, chains=2, rng=0)
    with pytest.raises(bg.InputError, match="at least 30 draws; there are 10"):
        bg.loo(short)


def test_a_result_is_frozen_and_has_a_line_for_each_row(faithful):
    result = bg.loo(faithful[1].isel(draw=slice(200)), methods=())
    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'elpd'"):
        result.elpd = 0.0
    rows = result.to_dataframe()
    assert list(rows) == ["elpd", "p_loo", "pareto_k", "method", "trusted"]
    np.testing.assert_array_equal(rows["elpd"], result.elpd_i)
    assert rows.index[~rows["trusted"]].tolist() == list(result.untrusted)
    assert rows["p_loo"].sum() == pytest.approx(result.p)


def test_a_single_chain_is_enough(faithful):
    tree = faithful[1].isel(chain=[2])
    ours, theirs = quiet(bg.loo, tree, methods=()), quiet(az.loo, in_double(tree), pointwise=True)
    np.testing.assert_allclose(ours.elpd_i, theirs.elpd_i, rtol=1e-7)


def test_what_loo_needs_of_a_posterior_is_said(faithful, laplace_posterior, made_up):
    with pytest.raises(bg.InputError, match="with its table"):
        bg.loo(faithful[1].drop_nodes("observed_data"))
    poor = laplace_posterior.copy()
    poor.attrs |= {"verdict": "APPROXIMATION_POOR", "convergence": "It is poor."}
    with pytest.raises(bg.InputError, match="a good approximation, which these are not: It is poor"):
        bg.loo(poor)
    X, draws = made_up
    with pytest.raises(bg.InputError, match=r"with its EM fit to repair rows; or ask for none: methods=\(\)"):
        bg.loo(tree_of(draws, X))
