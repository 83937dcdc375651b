"""Laws of the estimator that averages over the posterior."""

import pickle

import numpy as np
import pytest
from oracles import quiet, table
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import bayesgmm as bg
from bayesgmm.sklearn import GaussianMixturePosterior


@pytest.fixture(scope="module")
def model():
    return GaussianMixturePosterior(2, method="laplace", random_state=0).fit(bg.datasets.old_faithful())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_it_is_a_scikit_learn_estimator():
    results = check_estimator(GaussianMixturePosterior(method="laplace"), on_skip=None, on_fail=None)
    assert not [(r["check_name"], r["exception"]) for r in results if r["status"] == "failed"]
    assert sum(r["status"] == "passed" for r in results) > 40


def test_it_answers_as_the_posterior_does(model):
    new = bg.datasets.old_faithful()[::7]
    assigned = bg.assign(model.posterior_, new, 0.5)
    np.testing.assert_allclose(model.predict_proba(new), assigned.probabilities, rtol=1e-12)
    np.testing.assert_array_equal(model.predict(new), assigned.labels)
    np.testing.assert_allclose(model.score_samples(new), assigned.log_prob, rtol=1e-12)
    lower, upper = model.predict_interval(new, 0.5)
    np.testing.assert_array_equal(lower, assigned.lower)
    np.testing.assert_array_equal(upper, assigned.upper)
    assert model.score(new) == pytest.approx(assigned.log_prob.mean(), rel=1e-12)
    np.testing.assert_array_equal(model.labels_, model.predict(bg.datasets.old_faithful()))
    np.testing.assert_array_equal(model.transform(new), model.predict_proba(new))


def test_the_posterior_is_that_of_the_functions(model):
    X = bg.datasets.old_faithful()
    seed = np.random.RandomState(0).randint(2**31 - 1)
    tree = bg.sample_posterior(X, bg.fit_em(X, 2, rng=seed), method="laplace", rng=seed)
    np.testing.assert_array_equal(model.posterior_.draws.means, bg.posterior(tree).draws.means)
    assert model.posterior_.features == tuple(X.columns)
    assert model.tree_.attrs["verdict"] == tree.attrs["verdict"]
    assert model.em_.features == tuple(X.columns)


def test_by_default_the_draws_are_of_the_posterior_itself():
    model = quiet(GaussianMixturePosterior(2, draws=300, tune=200, chains=2, random_state=0).fit, table("old_faithful"))
    assert model.posterior_.sampling.method == "nuts"
    assert model.posterior_.draws.batch_shape == (2, 300)


def test_priors_and_settings_reach_the_sampler():
    X = table("iris")
    default = bg.Priors.weakly_informative(X, 3)
    priors = bg.Priors(4.0, default.means, default.covariances)
    model = GaussianMixturePosterior(
        3, covariance_type="EEE", priors=priors, method="variational", draws=100, chains=2, n_init=5, random_state=1
    )
    quiet(model.fit, X)
    assert model.posterior_.covariance_model.name == "EEE"
    assert model.posterior_.sampling.method == "variational"
    np.testing.assert_array_equal(model.posterior_.priors.concentration, 4.0)
    assert len(model.em_.starts) == 5


def test_where_the_likelihood_has_no_sound_maximum_draws_begin_around_that_of_the_posterior():
    X = np.r_[np.random.default_rng(0).normal(size=(20, 2)), np.full((5, 2), 30.0)]
    model = quiet(GaussianMixturePosterior(2, method="laplace", draws=200, random_state=0).fit, X)
    assert model.em_.constraints == ("priors",)
    assert np.unique(model.labels_[-5:]).size == 1
    assert model.labels_[-1] not in model.labels_[:-5]


def test_missing_values_are_integrated_over():
    X, rng = table("iris").copy(), np.random.default_rng(0)
    X[rng.random(X.shape) < 0.1] = np.nan
    model = GaussianMixturePosterior(2, covariance_type="tied", method="laplace", draws=200, random_state=0)
    quiet(model.fit, X)
    assigned = bg.assign(model.posterior_)
    np.testing.assert_allclose(model.predict_proba(X), assigned.probabilities, rtol=1e-12)
    np.testing.assert_allclose(model.score_samples(X), assigned.log_prob, rtol=1e-12)
    weights = model.posterior_.draws.weights.mean(axis=(0, 1))
    np.testing.assert_allclose(model.predict_proba(np.full((1, 4), np.nan))[0], weights, rtol=1e-6)


def test_pipelines_clones_and_pickles(model):
    X = bg.datasets.old_faithful()
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    np.testing.assert_array_equal(clone(model).fit(X).predict_proba(X), model.predict_proba(X))
    pipe = make_pipeline(StandardScaler(), clone(model))
    pipe.set_output(transform="pandas")
    assert list(pipe.fit_transform(X).columns) == ["gaussianmixtureposterior0", "gaussianmixtureposterior1"]
    assert np.isfinite(cross_val_score(pipe, X, cv=2)).all()


def test_what_is_not_fitted_or_cannot_be_is_refused():
    X = table("old_faithful")
    with pytest.raises(NotFittedError):
        GaussianMixturePosterior().predict_interval(X)
    for parameters, message in [
        ({"n_components": 0}, "n_components"),
        ({"n_init": 0}, "n_init"),
        ({"method": "guess"}, "unknown method 'guess'"),
        ({"covariance_type": "round"}, "unknown covariance 'round'"),
    ]:
        with pytest.raises(ValueError, match=message):
            GaussianMixturePosterior(**parameters).fit(X)
    with pytest.raises(ValueError, match="column 'x2' is constant"):
        GaussianMixturePosterior(2).fit(np.c_[X, np.ones(len(X))])


def test_rows_may_belong_to_no_component():
    rng = np.random.default_rng(0)
    X = np.r_[rng.normal(size=(150, 2)), rng.normal([9, 0], 1, size=(150, 2)), rng.uniform(-30, 40, size=(40, 2))]
    model = quiet(GaussianMixturePosterior(2, method="laplace", noise=True, draws=300, random_state=0).fit, X)
    assigned = bg.assign(model.posterior_, X, rng=0)
    np.testing.assert_array_equal(model.labels_, assigned.labels)
    np.testing.assert_array_equal(model.predict(X), assigned.labels)
    np.testing.assert_allclose(1 - model.predict_proba(X).sum(axis=1), assigned.noise, atol=1e-12)
    assert 25 < (model.labels_ == -1).sum() < 45
