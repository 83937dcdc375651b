"""Laws of leave-one-out and K-fold cross-validation: against quadrature, brute force and ArviZ."""

import tracemalloc
import warnings

import arviz as az
import matplotlib
import numpy as np
import pytest
import xarray as xr
from arviz_stats.base.array import array_stats
from oracles import errors_allowed, seed, table, tree_of
from scipy import stats
from scipy.special import logsumexp

import bayesgmm as bg
from bayesgmm.bayes import loo as module, loo_repairs, monte_carlo
from bayesgmm.bayes.density import Density
from bayesgmm.bayes.psis import smoothed_loo
from bayesgmm.observations import observations

matplotlib.use("Agg")
METHODS = tuple(loo_repairs.REPAIRS)


@pytest.fixture(scope="module")
def faithful(faithful_posterior):
    return table("old_faithful"), faithful_posterior


@pytest.fixture(scope="module")
def line():
    """One feature and one component, with an outlier at 12 sds on either side: table, priors, posterior."""
    X = np.append(np.random.default_rng(3).normal(2.0, 1.0, size=40), [-10.0, 14.0])[:, None]
    priors = bg.Priors(np.ones(1), bg.NormalMeans([0.0], [10.0]), bg.InverseWishart(3.0, [[2.0]]))
    return X, priors, bg.sample_posterior(X, bg.fit_em(X, 1), priors, draws=500, rng=seed())


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


@pytest.fixture
def doubted(monkeypatch):
    """Let the first check find rows 40 and 41 bad and no others: by one run's draws it finds that often, not always."""
    smoothed = module.smoothed_loo

    def told(log_lik, efficiency):
        found = smoothed(log_lik, efficiency)
        found[1] = np.where(np.arange(len(log_lik)) < 40, 0.0, 1.0)
        return found

    monkeypatch.setattr(module, "smoothed_loo", told)


def predictive(X, weights, priors):
    """Log predictive densities (..., N) of all rows given rows of the given weights (..., N), K = D = 1, on a grid."""
    prior, wishart = priors.means, priors.covariances
    mean, log_variance = (g.ravel() for g in np.meshgrid(np.linspace(-15, 20, 351), np.linspace(-2, 7, 301)))
    variance = np.exp(log_variance)
    log_lik = stats.norm.logpdf(X, mean, np.sqrt(variance))  # (N, grid)
    log = stats.norm.logpdf(mean, prior.location[0], prior.scale[0]) + log_variance
    log = log + stats.invgamma.logpdf(variance, wishart.df / 2, scale=wishart.scale[0, 0] / 2)
    log = log + weights @ log_lik
    posterior = np.exp(log - logsumexp(log, axis=-1, keepdims=True))
    return np.log(posterior @ np.exp(log_lik).T)


def leave_one_out(X, priors):
    return np.diag(predictive(X, 1 - np.eye(len(X)), priors))


def error_of_mean(log_lik):
    """Log of the mean density over (chain, draw) and its Monte Carlo standard error."""
    elpd = logsumexp(log_lik) - np.log(log_lik.size)
    return elpd, monte_carlo.mean_error(np.exp(log_lik - elpd))


def quiet(call, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call(*args, **kwargs)


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


def test_where_every_row_is_good_nothing_is_repaired(made_up):
    X, draws = made_up
    result = bg.loo(tree_of(draws, X[:40]))
    assert (result.method == "psis").all()
    assert result.repairs.empty
    assert not result.warning
    assert result.text.startswith("All 40 rows")


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
    rows = np.tile(X, (6, 1))
    long = xr.Dataset({"observations": (("observation", "feature"), rows)}, {"observation": np.arange(len(rows))})
    long = xr.DataTree.from_dict(
        {**{name: node.to_dataset() for name, node in bare.children.items()}, "observed_data": long}
    )
    tracemalloc.start()
    quiet(bg.loo, long, methods=())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.25 * 8 * 200 * len(rows)


@pytest.mark.parametrize(("name", "K", "D"), [("VVV", 2, 3), ("EEE", 3, 2), ("VVI", 2, 2), ("EII", 2, 2), ("V", 1, 1)])
def test_mixture_of_leave_one_out_posteriors_has_its_gradient(name, K, D):
    rng = np.random.default_rng(K)
    X = rng.normal(size=(40, D))
    fit = bg.fit_em(X, K, name, rng=0, max_iterations=5)
    whole = Density(observations(X), X.mean(axis=0), bg.Priors.weakly_informative(X, K), fit.covariance_model)
    rows, log_odds = np.array([3, 17, 20]), np.array([-2.0, -4.0, -3.0])
    density = Density(whole.table, whole.center, whole.priors, whole.model, left_out=rows, log_odds=log_odds)
    theta = whole.pack(fit.mixture) + 0.2 * rng.normal(size=whole.n_dim)
    value, gradient = density(theta)
    log_prob = whole.unpack(theta).log_prob(X[rows])
    assert value == pytest.approx(whole(theta)[0] + logsumexp(log_odds - log_prob), rel=1e-12)
    h = 1e-5
    numeric = [(density(theta + h * e)[0] - density(theta - h * e)[0]) / (2 * h) for e in np.eye(theta.size)]
    np.testing.assert_allclose(gradient, numeric, rtol=1e-6, atol=1e-5)


def test_mixture_of_one_is_the_posterior_without_the_row():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 2))
    fit, weight = bg.fit_em(X, 1), np.ones(30)
    weight[7] = 0
    whole = Density(observations(X), X.mean(axis=0), bg.Priors.weakly_informative(X, 1), fit.covariance_model)
    one = Density(*(getattr(whole, n) for n in ("table", "center", "priors", "model")), None, None, [7], np.zeros(1))
    without = Density(observations(X, weight), whole.center, whole.priors, whole.model)
    theta = whole.pack(fit.mixture) + 0.1
    assert one(theta)[0] == pytest.approx(without(theta)[0], rel=1e-12)
    np.testing.assert_allclose(one(theta)[1], without(theta)[1], atol=1e-10)


@pytest.mark.statistical
def test_pooled_draws_give_normalising_constants_with_honest_errors():
    """Of normal densities with known constants: 300 repetitions have standardised errors of mean 0 and sd 1."""
    rng = np.random.default_rng(seed())
    means, log_z = np.array([0.0, 1.5, 3.0]), np.array([0.0, 4.0, -2.0])

    def log_f(k, x):
        return stats.norm.logpdf(x, means[k], 1.0) + log_z[k]

    errors = []
    for _ in range(300):
        x = rng.normal(size=(3, 1, 200)) + means[:, None, None]
        estimate = loo_repairs._without(
            loo_repairs._pool(np.stack([log_f(k, x) - log_f(0, x) for k in range(3)])), -log_ratio(x)
        )
        errors.append((-estimate.elpd - 7.0) / estimate.mcse)
    allowed = errors_allowed(comparisons=2, df=299) / np.sqrt(300)
    assert abs(np.mean(errors)) < allowed
    assert abs(np.std(errors) - 1) < allowed / np.sqrt(2) + 0.05  # the errors are themselves estimated


def log_ratio(x):
    """Log ratio to N(0, 1) of e^7 times N(2.2, 1)."""
    return stats.norm.logpdf(x, 2.2, 1.0) + 7.0 - stats.norm.logpdf(x)


@pytest.mark.statistical
@pytest.mark.usefixtures("doubted")
def test_each_way_of_repair_agrees_with_quadrature(line):
    """Wherever the ladder trusts the estimate; of all rows together the error is 0.12 nats."""
    X, priors, tree = line
    exact = leave_one_out(X, priors)
    for method in METHODS:
        result = quiet(bg.loo, tree, methods=method, rng=seed(1))
        attempts = result.repairs
        assert attempts["row"].tolist() == [40, 41]
        z = (attempts["elpd"] - exact[attempts["row"]]) / attempts["mcse"]
        assert (z.abs() < errors_allowed(comparisons=6))[attempts["good"]].all(), (method, z.tolist())
        if method == "refit":
            assert attempts["good"].all()
    result = bg.loo(tree, rng=seed(2))
    assert not result.warning
    assert (result.pareto_k <= result.good_k).all()
    assert abs(result.elpd - exact.sum()) < 0.9
    assert (np.abs(result.elpd_i - exact)[40:] < 0.6).all()


@pytest.mark.usefixtures("doubted")
def test_estimates_that_are_not_good_keep_their_mark(line, monkeypatch):
    monkeypatch.setattr(loo_repairs, "_LARGEST_MCSE", 1e-6)
    monkeypatch.setattr(loo_repairs, "_STATES", 2)
    with pytest.warns(bg.ConvergenceWarning, match=r"not to be trusted: 2 rows \(40, 41\)"):
        result = bg.loo(line[2], rng=0)
    assert result.warning
    assert not result.repairs["good"].any()
    np.testing.assert_array_equal(result.pareto_k, result.influence_pareto_k)
    best = result.repairs.loc[result.repairs.groupby("row")["mcse"].idxmin()]
    np.testing.assert_array_equal(result.elpd_i[40:], best["elpd"])


@pytest.mark.statistical
@pytest.mark.usefixtures("doubted")
def test_ladder_agrees_with_refits_without_the_row():
    """Brute force: posteriors without a row, sampled from their own fits, in a plane with two far clusters."""
    rng = np.random.default_rng(1)
    X = np.vstack([rng.normal(size=(20, 2)), rng.normal([12, 0], size=(20, 2)), [[-2.0, 2.5], [14.0, -2.5]]])
    priors = bg.Priors.weakly_informative(X, 2)
    fit = bg.fit_em(X, 2, rng=0)
    tree = bg.sample_posterior(X, fit, priors, rng=seed())
    result = quiet(bg.loo, tree, rng=seed(1))
    assert set(result.repairs["row"]) == {40, 41}
    assert (result.method[40:] != "psis").all()
    log_lik = tree["log_likelihood"]["observations"].values
    efficiency = module._relative_efficiency(bg.as_mixture(tree))
    rows = [0, 7, 20, 33, 40, 41]
    for row in rows:
        rest = np.delete(X, row, axis=0)
        without = quiet(
            bg.sample_posterior,
            rest,
            bg.fit_em(rest, 2, starts=[fit.mixture], priors=priors),
            priors,
            draws=1000,
            chains=2,
            rng=seed(row),
        )
        exact, se = error_of_mean(bg.as_mixture(without).log_prob(X[[row]])[..., 0])
        attempts = result.repairs[(result.repairs["row"] == row) & result.repairs["good"]]
        if len(attempts):
            own = float(attempts["mcse"].iloc[0])
        else:
            assert result.method[row] == "psis"
            weights = np.exp(loo_repairs._psis(-log_lik[..., row], efficiency)[0])
            own = (
                monte_carlo.mean_error(weights * (np.exp(log_lik[..., row] - float(result.elpd_i[row])) - 1))
                * weights.size
            )
        assert abs(float(result.elpd_i[row]) - exact) < errors_allowed(comparisons=len(rows)) * np.hypot(se, own), row


@pytest.mark.statistical
def test_result_is_arvizs_to_compare_and_to_plot(faithful, line):
    """Two components are better than one by more than a hundred nats."""
    X, tree = faithful
    one = bg.sample_posterior(X, bg.fit_em(X, 1), draws=500, rng=seed())
    compared = az.compare({"two": bg.loo(tree), "one": bg.loo(one)})
    assert list(compared.index) == ["two", "one"]
    az.plot_khat(bg.loo(line[2], rng=0), backend="matplotlib")
    result = bg.loo(line[2], rng=0)
    assert isinstance(result, az.ELPDDataLOO)
    assert result.text in str(result)


@pytest.mark.usefixtures("doubted")
def test_result_repeats_with_its_seed_and_tells_its_progress(line):
    seen = []
    first = bg.loo(line[2], methods="refit", rng=5, progress=lambda *stage: seen.append(stage[1:]))
    np.testing.assert_array_equal(first.elpd_i, bg.loo(line[2], methods="refit", rng=5).elpd_i)
    assert seen == sorted(seen)
    assert seen[-1] == (42, 42)


def test_what_cannot_be_left_out_is_refused(faithful):
    X, tree = faithful
    with pytest.raises(bg.InputError, match="not 'magic'"):
        bg.loo(tree, methods=("magic",))
    with pytest.raises(bg.InputError, match="needs a posterior"):
        bg.loo(X)
    short = quiet(bg.sample_posterior, X, bg.fit_em(X, 1), draws=5, tune=50, chains=2, rng=0)
    with pytest.raises(bg.InputError, match="at least 30 draws; there are 10"):
        bg.loo(short)


@pytest.mark.statistical
def test_kfold_agrees_with_quadrature(line):
    """Fold by fold."""
    X, priors, _ = line
    X = X[:40]
    seen = []
    result = bg.kfold(X, 1, priors, n_folds=4, draws=1000, rng=seed(), progress=lambda *stage: seen.append(stage[1:]))
    for fold, rows, elpd, mcse, *_ in result.fold_table.itertuples(index=False):
        held_out = result.folds == fold
        # The rows of a fold are predicted one by one: their sum is not the joint density.
        exact = predictive(X, 1.0 - held_out, priors)[held_out].sum()
        assert rows == held_out.sum()
        assert abs(elpd - exact) < errors_allowed(comparisons=4) * mcse
    assert seen == [(i, 5) for i in range(1, 6)]
    assert result.elpd == pytest.approx(float(result.elpd_i.sum()))
    assert isinstance(result, az.ELPDDataLOOKFold)
    assert result.text in str(result)


@pytest.mark.statistical
def test_kfold_names_the_rows_that_are_too_far_out(line):
    """At 60 sds the log density varies by hundreds of nats; those of the other rows vary by less than one."""
    X, priors, _ = line
    X = np.append(X[:40], [[60.0]], axis=0)
    with pytest.warns(bg.ConvergenceWarning, match=r"Not to be trusted: 1 row \(40\)"):
        result = bg.kfold(X, 1, priors, n_folds=5, draws=1000, chains=2, rng=seed(1))
    assert result.warning
    assert (result.fold_table["pareto_k"] > 0.7).sum() == 1


@pytest.mark.statistical
def test_kfold_takes_folds_and_spreads_clusters_over_them():
    X = table("old_faithful")
    fit = bg.fit_em(X, 2, rng=0)
    few = {"draws": 100, "tune": 200, "chains": 2}  # two components are better than one by more than a hundred nats
    folds = np.arange(len(X)) % 3
    two, one = (bg.kfold(X, f, folds=folds, rng=seed(), **few) for f in (fit, 1))
    np.testing.assert_array_equal(two.folds, folds)
    assert list(az.compare({"two": two, "one": one}).index) == ["two", "one"]
    stratified = bg.kfold(X, fit, n_folds=5, stratify=True, rng=1, **few)
    counts = np.array([np.bincount(stratified.folds[fit.mixture.predict(X) == k]) for k in range(2)])
    assert (np.ptp(counts, axis=1) <= 1).all()


def test_impossible_folds_are_refused():
    X = table("old_faithful")
    fit = bg.fit_em(X, 1)
    with pytest.raises(bg.InputError, match="n_folds must be a whole number of at least 2"):
        bg.kfold(X, fit, n_folds=1)
    with pytest.raises(bg.InputError, match="some would be empty"):
        bg.kfold(X, fit, n_folds=1000)
    with pytest.raises(bg.InputError, match="the fold of each row"):
        bg.kfold(X, fit, folds=[0, 1])
    with pytest.raises(bg.InputError, match="all rows are in one"):
        bg.kfold(X, fit, folds=np.zeros(len(X), dtype=int))
    with pytest.raises(bg.InputError, match="n_components"):
        bg.kfold(X, "two")
