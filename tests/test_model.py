"""The PyMC model has the density of the compiled core, and is an ordinary model."""

import numpy as np
import pymc as pm
import pytest
import xarray as xr
from oracles import (
    CHANCE,
    COORDINATE_CASES,
    IMPERFECTIONS,
    covariance_prior,
    density_of,
    errors_allowed,
    imperfect,
    random_mixture,
    seed,
    table,
)
from scipy import stats

import bayesgmm as bg
from bayesgmm.bayes.density import Density
from bayesgmm.em.initialize import mean_and_covariance
from bayesgmm.measurement import covariances_of
from bayesgmm.observations import observations


@pytest.mark.parametrize(("name", "K", "D", "kind"), COORDINATE_CASES)
def test_density_and_gradient_equal_the_models(name, K, D, kind):
    rng = np.random.default_rng(K * D)
    X, _ = random_mixture(rng, K, D).sample(80, rng=rng)
    fit = bg.fit_em(X, K, name, rng=0, max_iterations=20)
    spread = 4 * np.cov(X.T).reshape(D, D) if K == 3 else np.diag(X.var(axis=0) * 4)
    priors = bg.Priors(
        rng.uniform(0.5, 3.0, size=K),
        bg.NormalMeans(X.mean(axis=0), covariance=spread),
        covariance_prior(kind, np.cov(X.T).reshape(D, D)),
    )
    density = density_of(X, fit, priors)
    compiled = (name, K, kind) == ("VVV", 3, "inverse Wishart")  # one by numba, the others without compiling
    mode = None if compiled else "FAST_COMPILE"
    model = bg.build_model(X, fit, priors).logp_dlogp_function(ravel_inputs=True, mode=mode)
    model.set_extra_values({})
    theta = density.pack(fit.mixture)
    for _ in range(3):
        x = theta + 0.3 * rng.normal(size=theta.size)
        (value, gradient), (theirs, their_gradient) = density(x), model(x)
        assert abs(theirs - value - density.log_constant) < 1e-8 * max(1, abs(value))
        np.testing.assert_allclose(gradient, their_gradient, rtol=1e-8, atol=1e-8 * np.abs(gradient).max())


@pytest.mark.parametrize("kind", IMPERFECTIONS)
@pytest.mark.parametrize("name", ["VVV", "VVI", "VVE"])
def test_the_model_of_an_imperfect_table_has_the_compiled_density(name, kind):
    """It has no more parameters than that of a complete one: nothing is filled in."""
    rng = np.random.default_rng(1)
    rows = imperfect(random_mixture(rng, 2, 3).sample(60, rng=rng)[0], kind, rng)
    fit, priors = bg.fit_em(rows, 2, name, rng=0, max_iterations=20), bg.Priors.weakly_informative(rows, 2)
    density = Density(rows, mean_and_covariance(rows)[0], priors, fit.covariance_model)
    model = bg.build_model(rows, fit, priors)
    assert not [rv.name for rv in model.free_RVs if "observations" in rv.name]
    compiled = (name, kind) == ("VVV", "holes and correlated errors")  # by numba, the others without compiling
    logp = model.logp_dlogp_function(ravel_inputs=True, mode=None if compiled else "FAST_COMPILE")
    logp.set_extra_values({})
    for _ in range(2):
        x = density.pack(fit.mixture) + 0.2 * rng.normal(size=density.n_dim)
        (value, gradient), (theirs, their_gradient) = density(x), logp(x)
        assert theirs == pytest.approx(value + density.log_constant, rel=1e-9)
        np.testing.assert_allclose(gradient, their_gradient, rtol=1e-8, atol=1e-8 * np.abs(gradient).max())


@pytest.mark.parametrize("kind", IMPERFECTIONS)
def test_the_model_of_an_imperfect_table_is_plain_pymc(kind):
    rng = np.random.default_rng(2)
    rows = imperfect(random_mixture(rng, 2, 2).sample(40, rng=rng)[0], kind, rng)
    weak = bg.Priors.weakly_informative(rows, 2)
    priors = bg.Priors(weak.concentration, weak.means, bg.InverseWishart(5.0, np.eye(2)))
    with bg.build_model(rows, bg.fit_em(rows, 2, rng=0), priors):
        drawn = pm.sample_prior_predictive(3, random_seed=0, compile_kwargs={"mode": "FAST_COMPILE"})
        tree = xr.DataTree.from_dict({"posterior": drawn["prior"].to_dataset()})
        pm.compute_log_likelihood(tree, progressbar=False)
        predicted = pm.sample_posterior_predictive(tree, progressbar=False, random_seed=0)
    np.testing.assert_allclose(tree["log_likelihood"]["observations"], bg.as_mixture(tree).log_prob(rows), atol=1e-10)
    assert np.isfinite(predicted["posterior_predictive"]["observations"]).all()


@pytest.mark.statistical
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("argument", ["error_sd", "error_covariance"])
def test_predicted_rows_have_errors_as_the_tables(argument, shared):
    """By their chi-squares: precisions are drawn about a value so high that true values are the means."""
    rng, n = np.random.default_rng(3), 400
    X, A = 5 * rng.normal(size=(20, 2)), rng.normal(size=(20, 2, 2))
    given = A @ np.swapaxes(A, 1, 2) if argument == "error_covariance" else np.abs(A[..., 0])
    rows = observations(X, **{argument: given[0] if shared else given})
    means = bg.NormalMeans([5.0, -5.0], [1e-6, 1e-6])
    priors = bg.Priors(np.ones(1), means, bg.InverseWishart(1e4, 1e-8 * np.eye(2)))
    with bg.build_model(rows, bg.fit_em(rows, 1), priors):
        drawn = pm.sample_prior_predictive(n, random_seed=seed(2), compile_kwargs={"mode": "FAST_COMPILE"})
    errors = drawn["prior_predictive"]["observations"].values[0] - [5.0, -5.0]  # (n, 20, 2)
    S = np.broadcast_to(covariances_of(rows.errors), (20, 2, 2))
    square = np.einsum("nij,ijk,nik->i", errors, np.linalg.inv(S), errors)
    np.testing.assert_array_less(stats.chi2.isf(1 - CHANCE / 40, 2 * n), square)
    np.testing.assert_array_less(square, stats.chi2.isf(CHANCE / 40, 2 * n))


def test_model_gradient_equals_finite_differences(faithful_fit):
    X, fit = table("old_faithful"), faithful_fit
    function = bg.build_model(X, fit).logp_dlogp_function(ravel_inputs=True, mode="FAST_COMPILE")
    function.set_extra_values({})
    x = density_of(X, fit, bg.Priors.weakly_informative(X, 2)).pack(fit.mixture) + 0.1
    h = 1e-5
    numeric = [(function(x + h * e)[0] - function(x - h * e)[0]) / (2 * h) for e in np.eye(x.size)]
    np.testing.assert_allclose(function(x)[1], numeric, rtol=1e-6, atol=1e-5)


@pytest.mark.statistical
def test_prior_draws_of_the_model_are_the_priors():
    """Means of 2000 draws; of the precisions, as the tails of covariances are too heavy for a mean to be normal."""
    X = table("old_faithful")[::8]
    scale, means = np.array([[2.0, 20.0], [20.0, 300.0]]), bg.Priors.weakly_informative(X, 3).means
    wide = bg.Priors(np.array([1.0, 2.0, 3.0]), means, bg.InverseWishart(9.0, scale))
    with bg.build_model(X, bg.fit_em(X, 3, "full", rng=0), wide):
        drawn = pm.sample_prior_predictive(2000, random_seed=seed(1), compile_kwargs={"mode": "FAST_COMPILE"})
    weights, means, covariances = (drawn["prior"][name].values[0] for name in ("weights", "means", "covariances"))
    for values, exact in (
        (weights, np.array([1, 2, 3]) / 6),
        (means, wide.means.location),
        (np.linalg.inv(covariances), 9 * np.linalg.inv(scale)),
    ):
        se = values.std(axis=0) / np.sqrt(len(values))
        np.testing.assert_array_less(np.abs(values.mean(axis=0) - exact), errors_allowed(comparisons=3 + 6 + 12) * se)
    assert drawn["prior_predictive"]["observations"].shape == (1, 2000, 34, 2)


@pytest.mark.filterwarnings("ignore:Numba will use object mode:UserWarning")  # to draw from the hierarchical prior
def test_model_is_plain_pymc(faithful_fit):
    """The model's own pointwise log-likelihood and posterior predictive draws work."""
    X, fit = table("old_faithful"), faithful_fit
    with bg.build_model(X, fit) as model:
        drawn = pm.sample_prior_predictive(3, random_seed=0, compile_kwargs={"mode": "FAST_COMPILE"})
        tree = xr.DataTree.from_dict({"posterior": drawn["prior"].to_dataset()})
        pm.compute_log_likelihood(tree, progressbar=False)
        predicted = pm.sample_posterior_predictive(tree, progressbar=False, random_seed=0)
    assert {rv.name for rv in model.free_RVs} >= {"weights", "means"}
    np.testing.assert_allclose(tree["log_likelihood"]["observations"][0, 2], bg.as_mixture(tree).log_prob(X)[0, 2])
    assert predicted["posterior_predictive"]["observations"].shape == (1, 3, 272, 2)
