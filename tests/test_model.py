"""The PyMC model has the density of the compiled core, and is an ordinary model."""

import numpy as np
import pymc as pm
import pytest
import xarray as xr
from oracles import COORDINATE_CASES, covariance_prior, density_of, errors_allowed, random_mixture, seed, table

import bayesgmm as bg


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
