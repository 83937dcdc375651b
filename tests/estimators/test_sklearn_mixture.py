"""Laws of the estimator that stands in for scikit-learn's mixture."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn
from oracles import quiet, table
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning as NotConverged
from sklearn.mixture import GaussianMixture as ScikitLearn
from sklearn.model_selection import GridSearchCV, KFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import bayesgmm as bg
from bayesgmm.covariance import NAMES
from bayesgmm.sklearn import GaussianMixture
from bayesgmm.sklearn.mixture import gain_left

BASIC = ["full", "tied", "diag", "spherical"]
# It fits two components to 15 rows of 30 columns, which have no maximum that different starts could agree on.
BUT_FOR = {"check_sample_weight_equivalence_on_dense_data": "a table too small for two components"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("estimator", "but_for"),
    [
        (GaussianMixture(), {}),
        (GaussianMixture(2, random_state=0), BUT_FOR),
        (GaussianMixture(2, covariance_type="VEI", init_params="kmeans", random_state=0), BUT_FOR),
        (GaussianMixture(2, noise=True, random_state=0), BUT_FOR),
    ],
)
def test_it_is_a_scikit_learn_estimator(estimator, but_for):
    results = check_estimator(estimator, expected_failed_checks=but_for, on_skip=None, on_fail=None)
    assert not [(r["check_name"], r["exception"]) for r in results if r["status"] == "failed"]
    assert sum(r["status"] == "passed" for r in results) > 45


@pytest.mark.parametrize("covariance", [*BASIC, *NAMES])
def test_without_reg_covar_it_is_fit_em(covariance):
    X = table("iris")
    ours = GaussianMixture(3, covariance_type=covariance, reg_covar=0, random_state=0).fit(X)
    fit = bg.fit_em(X, 3, covariance, starts=[ours.mixture_])
    assert ours.lower_bound_ * len(X) == pytest.approx(fit.log_likelihood, abs=1e-5)
    assert ours.score(X) == pytest.approx(ours.lower_bound_, rel=1e-12)
    assert ours.bic(X) == pytest.approx(ours.em_.bic, rel=1e-12)
    assert ours.aic(X) == pytest.approx(ours.em_.aic, rel=1e-12)
    np.testing.assert_array_equal(ours.labels_, ours.predict(X))
    np.testing.assert_allclose(ours.transform(X), ours.em_.mixture.responsibilities(X))


@pytest.mark.parametrize("covariance", BASIC)
def test_from_the_same_start_it_ends_where_scikit_learn_ends(covariance):
    X = table("old_faithful")
    start = {"means_init": [[4.0, 80.0], [2.0, 50.0]], "weights_init": [0.5, 0.5], "covariance_type": covariance}
    theirs = ScikitLearn(2, tol=1e-10, max_iter=1000, random_state=0, **start).fit(X)
    ours = GaussianMixture(2, reg_covar=1e-6, init_params="kmeans", random_state=0, **start).fit(X)
    for name in ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-3, atol=1e-3, err_msg=name)
    assert ours.score(X) == pytest.approx(theirs.score(X), abs=1e-6)
    assert ours.bic(X) == pytest.approx(theirs.bic(X), abs=1e-3)
    for name in ("predict_proba", "score_samples"):
        np.testing.assert_allclose(getattr(ours, name)(X), getattr(theirs, name)(X), atol=1e-3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("covariance", [*BASIC, "EVI", "VVV"])
def test_attributes_have_scikit_learns_shapes_and_the_type_of_the_table(covariance, dtype):
    X = table("iris").astype(dtype)
    ours = GaussianMixture(3, covariance_type=covariance, random_state=0).fit(X)
    shape = {"tied": (4, 4), "diag": (3, 4), "spherical": (3,)}.get(covariance, (3, 4, 4))
    for name in ("covariances_", "precisions_", "precisions_cholesky_"):
        assert getattr(ours, name).shape == shape
    for name in ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_"):
        assert getattr(ours, name).dtype == dtype
    for name in ("predict_proba", "score_samples", "transform"):
        assert getattr(ours, name)(X).dtype == dtype
    assert ours.n_features_in_ == 4
    assert len(ours.lower_bounds_) == ours.n_iter_


@pytest.mark.parametrize("covariance", BASIC)
def test_a_fit_can_be_started_from_its_own_attributes(covariance):
    X = table("iris")
    first = GaussianMixture(3, covariance_type=covariance, random_state=0).fit(X)
    order = [2, 0, 1]
    precisions = first.precisions_ if covariance == "tied" else first.precisions_[order]
    again = GaussianMixture(
        3,
        covariance_type=covariance,
        weights_init=first.weights_[order],
        means_init=first.means_[order],
        precisions_init=precisions,
    ).fit(X)
    assert again.lower_bound_ == pytest.approx(first.lower_bound_, abs=1e-8)
    np.testing.assert_allclose(again.means_, first.means_[order], atol=1e-3)
    assert [start.kind for start in again.em_.starts] == ["given"]


def test_given_parts_go_with_the_components_they_are_near():
    """With their own means, or in the order of the first column: whatever the order of a start's components."""
    X = table("old_faithful")
    first = GaussianMixture(2, random_state=0).fit(X)
    for seed in range(5):
        parts = {"means_init": first.means_[::-1], "max_iter": 0, "random_state": seed}
        ours = GaussianMixture(2, init_params="kmeans", **parts).fit(X)
        assert ours.weights_[0] > ours.weights_[1]  # the long eruptions, of which there are more
        parts = {"precisions_init": first.precisions_, "max_iter": 0, "random_state": seed}
        ours = GaussianMixture(2, init_params="kmeans", **parts).fit(X)
        np.testing.assert_allclose(ours.means_, first.means_, rtol=0.1)


def test_the_default_reaches_the_maximum_where_scikit_learns_stops_on_the_way():
    X = table("sklearn_10122")
    ours, theirs = GaussianMixture(2, random_state=0).fit(X), ScikitLearn(2, random_state=0).fit(X)
    np.testing.assert_allclose(ours.weights_, [0.23875, 0.76125], atol=1e-3)
    assert len(X) * (ours.score(X) - theirs.score(X)) > 0.5
    np.testing.assert_array_less(-1e-12, np.diff(ours.lower_bounds_))


def test_tol_is_what_may_be_left_to_gain_a_row():
    X = table("old_faithful")
    best = GaussianMixture(2, random_state=0).fit(X)
    last = 0
    for tol in (1e-3, 1e-5, 1e-7):
        ours = GaussianMixture(2, init_params="random_from_data", n_init=3, tol=tol, random_state=0).fit(X)
        assert ours.converged_
        assert best.lower_bound_ - ours.lower_bound_ < tol
        assert ours.n_iter_ > last
        last = ours.n_iter_


def test_the_default_reg_covar_is_in_the_units_of_each_column():
    X, units = table("iris"), np.array([1e-6, 1.0, 1e3, 1e9])
    one, other = (GaussianMixture(3, random_state=0).fit(x) for x in (X, X * units))
    np.testing.assert_allclose(other.predict_proba(X * units), one.predict_proba(X), atol=1e-6)
    np.testing.assert_allclose(one.em_.log_likelihood_path[-1], one.lower_bound_ * len(X))
    single = GaussianMixture().fit(X * units)
    expected = np.cov((X * units).T, bias=True) + 1e-6 * np.diag(np.var(X * units, axis=0))
    np.testing.assert_allclose(single.covariances_[0] / np.outer(units, units), expected / np.outer(units, units))


@pytest.mark.parametrize("init_params", ["kmeans", "k-means++", "random", "random_from_data"])
def test_scikit_learns_starts_are_as_many_as_asked_for_and_the_portfolio_has_twenty(init_params):
    X = table("iris")
    assert len(GaussianMixture(3, random_state=0).fit(X).em_.starts) == 20
    assert len(GaussianMixture(3, n_init=25, random_state=0).fit(X).em_.starts) == 25
    for n_init in (1, 4):
        ours = quiet(GaussianMixture(3, n_init=n_init, init_params=init_params, random_state=0).fit, X)  # few starts
        assert [start.kind for start in ours.em_.starts] == [init_params] * n_init
        assert ours.converged_


@pytest.mark.parametrize("init_params", ["portfolio", "kmeans", "k-means++", "random", "random_from_data"])
def test_random_state_makes_fits_and_samples_repeatable(init_params):
    X = table("old_faithful")
    one, other = (GaussianMixture(3, init_params=init_params, random_state=7).fit(X) for _ in range(2))
    np.testing.assert_array_equal(one.means_, other.means_)
    np.testing.assert_array_equal(one.sample(5)[0], other.sample(5)[0])
    rows, labels = one.sample(200)
    assert rows.shape == (200, 2)
    np.testing.assert_array_less(-1, np.diff(labels))


@pytest.mark.parametrize("init_params", ["portfolio", "kmeans", "k-means++", "random", "random_from_data"])
def test_whole_weights_are_repeated_rows(init_params):
    X = table("old_faithful")
    weight = np.random.default_rng(4).integers(0, 4, size=len(X))
    weighted = GaussianMixture(2, init_params=init_params, random_state=0).fit(X, sample_weight=weight)
    repeated = GaussianMixture(2, init_params=init_params, random_state=0).fit(np.repeat(X, weight, axis=0))
    order = repeated.means_[:, 0].argsort()
    np.testing.assert_allclose(weighted.means_[weighted.means_[:, 0].argsort()], repeated.means_[order], atol=1e-3)
    rows = np.repeat(X, weight, axis=0)
    assert weighted.score(X, sample_weight=weight) == pytest.approx(weighted.score(rows), rel=1e-12)
    assert weighted.bic(X, sample_weight=weight) == pytest.approx(weighted.bic(rows), rel=1e-12)
    assert weighted.aic(X, sample_weight=weight) == pytest.approx(weighted.aic(rows), rel=1e-12)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("max_iter", [1, 2, 7])
def test_a_warm_start_goes_on_until_the_whole_path_has_converged(max_iter):
    X = table("old_faithful")
    ours = GaussianMixture(2, warm_start=True, max_iter=max_iter, tol=1e-7, random_state=0)
    values = []
    for _ in range(400):
        values.append(ours.fit(X).lower_bound_)
        assert len(ours.em_.starts) == 1
        assert ours.n_iter_ <= max_iter
        if ours.converged_:
            break
    assert ours.converged_
    np.testing.assert_array_less(-1e-12, np.diff(values))
    best = GaussianMixture(2, random_state=0).fit(X)
    assert best.lower_bound_ - ours.lower_bound_ < 1e-5


def test_a_warm_start_on_other_rows_begins_a_new_path():
    X = table("old_faithful")
    ours = GaussianMixture(2, warm_start=True, random_state=0).fit(X[:200])
    with pytest.warns(NotConverged, match="did not converge"):
        ours.set_params(max_iter=1).fit(X + 1.0)
    with pytest.raises(ValueError, match=r"cannot go on with 3 components and 2 columns from a fit with 2 and 2"):
        ours.set_params(n_components=3).fit(X)


def test_the_gain_left_is_the_geometric_series_of_the_gains():
    assert gain_left(np.array([0.0, 1.0, 1.5])) == pytest.approx(0.5)
    assert gain_left(np.array([0.0, 1.0, 1.1])) == pytest.approx(0.1)  # at least the last gain
    assert gain_left(np.array([0.0, 1.0, 2.5])) == np.inf
    assert gain_left(np.array([0.0, 1.0])) == np.inf
    assert gain_left(np.array([0.0, 1.0, 1.0])) == 0


REFUSED = {  # rows that have no maximum of the likelihood, how many components, and what the warning says
    "a constant column": (np.c_[table("iris")[:, :2], np.full(150, 0.1)], 2, "column 'x2' is constant"),
    "equal columns": (table("iris")[:, [0, 1, 0]], 2, "columns 'x0' and 'x2' are identical"),
    "a sum of columns": (table("iris")[:, :2] @ [[1, 0, 1], [0, 1, 1]], 2, "'x2' is a linear combination"),
    "as many components as rows": (table("iris")[::30], 5, "5 components need priors"),
    "few distinct rows": (np.repeat(table("iris")[::50], 6, axis=0), 5, "this table has 3"),
    "few values": (np.repeat([[0.0], [1.0]], 9, axis=0), 3, "this table has 2"),
}


@pytest.mark.parametrize("covariance", [*BASIC, *NAMES])
@pytest.mark.parametrize(("X", "K", "message"), REFUSED.values(), ids=REFUSED)
def test_rows_without_a_maximum_are_fitted_with_one_warning(X, K, message, covariance):
    if "combination" in message and bg.CovarianceModel.named(covariance).diagonal:
        message = None  # these have a maximum
    ours = GaussianMixture(K, covariance_type=covariance, random_state=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ours.fit(X)
    assert ours.converged_
    assert np.isfinite(ours.score(X))
    assert np.linalg.eigvalsh(ours.mixture_.covariances).min() > 0
    if message is not None:
        (warning,) = caught
        assert message in str(warning.message)
        assert "fitted nevertheless" in str(warning.message)
        with pytest.raises(ValueError, match=r"ill-defined empirical covariance.*increase reg_covar"):
            ours.set_params(reg_covar=0).fit(X)


def test_a_given_start_that_collapses_ends_before_it_does():
    X = np.r_[np.random.default_rng(0).normal(size=(30, 1)), [[50.0]]]
    start = {"weights_init": [0.9, 0.1], "means_init": [[0.0], [40.0]], "precisions_init": [[[1.0]], [[0.01]]]}
    ours = GaussianMixture(2, reg_covar=0, **start)
    with pytest.warns(bg.ConvergenceWarning, match="spurious"), pytest.warns(NotConverged, match="did not converge"):
        ours.fit(X)
    assert not ours.converged_
    assert np.isfinite(ours.score(X))
    with pytest.raises(ValueError, match="ill-defined"):
        GaussianMixture(2, reg_covar=0, covariance_type="diag", random_state=0).fit(np.r_[np.zeros((5, 1)), X * 0 + 1])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_components": 0}, "n_components"),
        ({"covariance_type": "round"}, "unknown covariance 'round'"),
        ({"tol": -1.0}, "tol"),
        ({"tol": "small"}, "tol"),
        ({"reg_covar": -1e-6}, "reg_covar"),
        ({"reg_covar": np.nan}, "reg_covar"),
        ({"max_iter": -1}, "max_iter"),
        ({"n_init": 0}, "n_init"),
        ({"init_params": "best"}, "init_params must be one of portfolio, kmeans"),
        ({"verbose_interval": 0}, "verbose_interval"),
        ({"n_components": 400}, "Expected n_samples >= n_components"),
        ({"covariance_type": "EVI", "precisions_init": np.ones((1, 2))}, "'EVI precision' should have the shape of"),
        ({"covariance_type": "VVV", "precisions_init": -np.eye(2)[None]}, "symmetric, positive-definite"),
    ],
)
def test_bad_parameters_are_refused_by_name(parameters, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixture(**parameters).fit(table("old_faithful"))


def test_names_of_columns_are_kept():
    X = bg.datasets.iris()
    ours = GaussianMixture(3, random_state=0).fit(X)
    assert list(ours.feature_names_in_) == list(X.columns)
    assert ours.em_.features == ours.mixture_.features == tuple(X.columns)
    with pytest.warns(bg.ConvergenceWarning, match="column 'same' is constant"):
        GaussianMixture(random_state=0).fit(X.assign(same=1.0))
    with pytest.raises(ValueError, match="feature names"):
        ours.predict(X[X.columns[::-1]])


def test_pandas_output_names_the_components():
    X = bg.datasets.iris()
    ours = GaussianMixture(3, random_state=0).set_output(transform="pandas").fit(X)
    out = ours.transform(X)
    assert isinstance(out, pd.DataFrame)
    assert list(out.columns) == ["gaussianmixture0", "gaussianmixture1", "gaussianmixture2"]
    np.testing.assert_allclose(out.sum(axis=1), 1)


def test_pipelines_searches_clones_and_pickles():
    X = bg.datasets.iris()
    pipe = make_pipeline(StandardScaler(), GaussianMixture(random_state=0))
    grid = {"gaussianmixture__n_components": [1, 2, 3], "gaussianmixture__covariance_type": ["full", "EVE"]}
    search = GridSearchCV(pipe, grid, cv=KFold(3, shuffle=True, random_state=0), error_score="raise")
    quiet(search.fit, X)
    assert search.best_params_["gaussianmixture__n_components"] > 1
    by_bic = GridSearchCV(pipe[-1], {"n_components": [1, 2, 3]}, scoring=lambda m, X, y=None: -m.bic(X))
    assert quiet(by_bic.fit, X).best_params_ == {"n_components": 2}
    best = search.best_estimator_
    again = pickle.loads(pickle.dumps(best))
    np.testing.assert_array_equal(again.predict_proba(X), best.predict_proba(X))
    assert again[-1].em_.bic == best[-1].em_.bic
    refitted = clone(best).fit(X)
    np.testing.assert_array_equal(refitted.predict_proba(X), best.predict_proba(X))
    np.testing.assert_array_equal(clone(best).fit_predict(X), best.predict(X))


@pytest.mark.parametrize("init_params", ["portfolio", "kmeans", "k-means++", "random", "random_from_data"])
def test_missing_values_are_integrated_over(init_params):
    X, rng = table("iris").copy(), np.random.default_rng(0)
    X[rng.random(X.shape) < 0.1] = np.nan
    ours = GaussianMixture(2, init_params=init_params, n_init=3, random_state=0).fit(X)
    fit = bg.fit_em(X, 2, reg_covar=1e-6 * np.nanvar(X, axis=0), starts=[ours.mixture_])
    assert ours.lower_bound_ * len(X) == pytest.approx(fit.maxima[0].log_likelihood, abs=1e-5)
    np.testing.assert_array_equal(ours.predict_proba(X), ours.mixture_.responsibilities(X))
    assert ours.score(X) * len(X) == pytest.approx(ours.em_.log_likelihood, rel=1e-12)
    np.testing.assert_array_equal(ours.labels_, ours.predict(X))
    nothing = np.full((1, 4), np.nan)
    np.testing.assert_allclose(ours.predict_proba(nothing), ours.weights_[None], rtol=1e-12)
    with pytest.raises(ValueError, match="infinity"):
        ours.predict(np.full((1, 4), np.inf))


def test_a_constant_column_in_one_fold_does_not_fail_a_search():
    X = np.c_[table("iris")[:, :2], np.r_[np.zeros(100), np.ones(50)]]
    with pytest.warns(bg.ConvergenceWarning, match="column 'x2' is constant"):
        scores = cross_validate(GaussianMixture(), X, cv=KFold(3), error_score="raise")
    assert np.isfinite(scores["test_score"]).all()


def test_weights_are_routed_to_fit_and_score():
    X, rng = table("old_faithful"), np.random.default_rng(0)
    weight = rng.integers(0, 3, size=len(X)).astype(float)
    with sklearn.config_context(enable_metadata_routing=True):
        ours = GaussianMixture(2, random_state=0).set_fit_request(sample_weight=True)
        ours.set_score_request(sample_weight=True)
        pipe = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), ours)
        pipe.fit(X, sample_weight=weight)
        scaled = pipe[0].transform(X)
        alone = GaussianMixture(2, random_state=0).fit(scaled, sample_weight=weight)
        np.testing.assert_array_equal(pipe[-1].means_, alone.means_)
        scores = cross_validate(pipe, X, params={"sample_weight": weight}, cv=KFold(2), error_score="raise")
        halves = list(KFold(2).split(X))
        for score, (train, test) in zip(scores["test_score"], halves, strict=True):
            one = clone(pipe).fit(X[train], sample_weight=weight[train])
            assert score == one.score(X[test], sample_weight=weight[test])


def test_verbose_tells_how_starts_ended_and_the_path(capsys):
    X = table("old_faithful")
    GaussianMixture(2, random_state=0).fit(X)
    assert capsys.readouterr().out == ""
    GaussianMixture(2, random_state=0, verbose=1).fit(X)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 20
    assert any(": converged" in line for line in lines)
    GaussianMixture(2, random_state=0, verbose=2, verbose_interval=1).fit(X)
    assert "lower bound" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize("init_params", ["portfolio", "kmeans"])
def test_rows_of_no_cluster_have_the_label_that_scikit_learns_clusterers_give_them(init_params):
    rng = np.random.default_rng(0)
    X = np.r_[rng.normal(size=(150, 2)), rng.normal([9, 0], 1, size=(150, 2)), rng.uniform(-30, 40, size=(40, 2))]
    ours = GaussianMixture(2, noise=True, init_params=init_params, n_init=5, reg_covar=0, random_state=0).fit(X)
    fit = bg.fit_em(X, 2, noise=True, rng=0)
    assert ours.em_.log_likelihood == pytest.approx(fit.log_likelihood, abs=1e-4)
    np.testing.assert_array_equal(ours.labels_, fit.mixture.predict(X))
    np.testing.assert_array_equal(ours.predict(X), ours.labels_)
    p = ours.predict_proba(X)
    np.testing.assert_allclose(1 - p.sum(axis=1), fit.mixture.noise_probability(X), atol=1e-4)
    assert 25 < (ours.labels_ == -1).sum() < 45
    assert ours.weights_.sum() + ours.noise_weight_ == pytest.approx(1)
    assert ours.bic(X) == pytest.approx(fit.bic, abs=1e-3)
    _, drawn = ours.sample(500)
    assert set(drawn) == {-1, 0, 1}


def test_parts_to_start_from_leave_the_noise_a_share():
    rng = np.random.default_rng(0)
    X = np.r_[rng.normal(size=(150, 2)), rng.normal([9, 0], 1, size=(150, 2)), rng.uniform(-30, 40, size=(40, 2))]
    first = GaussianMixture(2, noise=True, random_state=0).fit(X)
    parts = {"weights_init": [0.5, 0.5], "means_init": first.means_, "precisions_init": first.precisions_}
    assert GaussianMixture(2, noise=True, max_iter=0, **parts).fit(X).noise_weight_ == pytest.approx(0.1)
    assert GaussianMixture(2, noise=True, **parts).fit(X).lower_bound_ == pytest.approx(first.lower_bound_, abs=1e-6)
    again = first.set_params(warm_start=True).fit(X)
    assert again.n_iter_ <= 5
    without = again.set_params(noise=False).fit(X)
    assert without.noise_weight_ == 0
    assert without.weights_.sum() == pytest.approx(1)
    assert without.set_params(noise=True).fit(X).noise_weight_ == pytest.approx(first.noise_weight_, abs=1e-3)


@pytest.mark.parametrize("noise", ["yes", np.zeros(5), 1, None])
def test_noise_that_rows_to_come_would_not_have_is_refused(noise):
    with pytest.raises(ValueError, match=r"noise must be True, False or a bayesgmm\.Noise"):
        GaussianMixture(2, noise=noise).fit(table("old_faithful"))
