"""Laws of the density, the PyMC model and the sampler."""

import warnings

import arviz as az
import numpy as np
import pymc as pm
import pytest
import xarray as xr
from oracles import deviation_allowed, errors_allowed, random_mixture, seed, table
from scipy import integrate, stats

import bayesgmm as bg
from bayesgmm.bayes import nutpie_model
from bayesgmm.bayes.density import Density
from bayesgmm.bayes.laplace import find_mode, hessian
from bayesgmm.bayes.nuts import nutpie_draws
from bayesgmm.bayes.relabel import relabelling
from bayesgmm.covariance import CovarianceModel
from bayesgmm.em.fit import fitted_table
from bayesgmm.observations import Observations, observations

CASES = [
    ("VVV", 3, 4),
    ("VVV", 1, 3),
    ("EEE", 3, 4),
    ("VVI", 2, 3),
    ("EEI", 3, 2),
    ("VII", 2, 2),
    ("EII", 2, 2),
    ("V", 3, 1),
    ("E", 2, 1),
    ("VEI", 3, 3),
    ("EVI", 3, 3),
    ("VEE", 3, 3),
    ("EVV", 2, 3),
]
CASES = [(name, K, D, "inverse Wishart") for name, K, D in CASES]
CASES += [(name, 3, 3, "hierarchical") for name in ("VVV", "EEE", "VVI", "VII", "VEI", "VEE", "EVI", "EVV")]
CASES += [("V", 2, 1, "hierarchical"), ("VVV", 1, 2, "hierarchical")]
CASES += [
    (name, 3, 3, scales) for name, scales in (("VVV", "half-normal"), ("VVV", "log-normal"), ("EEE", "exponential"))
]
CASES += [(name, 2, 2, "half-normal") for name in ("VVI", "EEI", "VII", "EII")] + [("V", 2, 1, "exponential")]


def covariance_prior(kind, scale):
    D = len(scale)
    lkj = {
        "half-normal": bg.HalfNormal(np.linspace(1, 2, D)),
        "log-normal": bg.LogNormal(np.linspace(0, 1, D), 0.7),
        "exponential": bg.Exponential(0.8),
    }
    if kind in lkj:
        return bg.LKJ(1.7, lkj[kind])
    return (
        bg.InverseWishart(D + 3, scale)
        if kind == "inverse Wishart"
        else bg.HierarchicalInverseWishart(D + 2.5, D + 1.5, scale / 3, floor=0.05)
    )


def density_of(X, fit, priors):
    return Density(observations(X), X.mean(axis=0), priors, fit.covariance_model)


@pytest.fixture(scope="module")
def faithful(faithful_fit):
    return table("old_faithful"), faithful_fit


@pytest.fixture(scope="module")
def tree(faithful_posterior):
    return faithful_posterior


@pytest.mark.parametrize(("name", "K", "D", "kind"), CASES)
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
    mode = None if (name, K) == ("VVV", 3) else "FAST_COMPILE"  # one by numba, the others without compiling
    model = bg.build_model(X, fit, priors).logp_dlogp_function(ravel_inputs=True, mode=mode)
    model.set_extra_values({})
    theta = density.pack(fit.mixture)
    for _ in range(3):
        x = theta + 0.3 * rng.normal(size=theta.size)
        (value, gradient), (theirs, their_gradient) = density(x), model(x)
        assert abs(theirs - value - density.log_constant) < 1e-8 * max(1, abs(value))
        np.testing.assert_allclose(gradient, their_gradient, rtol=1e-8, atol=1e-8 * np.abs(gradient).max())


def test_model_gradient_equals_finite_differences(faithful):
    X, fit = faithful
    function = bg.build_model(X, fit).logp_dlogp_function(ravel_inputs=True, mode="FAST_COMPILE")
    function.set_extra_values({})
    x = density_of(X, fit, bg.Priors.weakly_informative(X, 2)).pack(fit.mixture) + 0.1
    h = 1e-5
    numeric = [(function(x + h * e)[0] - function(x - h * e)[0]) / (2 * h) for e in np.eye(x.size)]
    np.testing.assert_allclose(function(x)[1], numeric, rtol=1e-6, atol=1e-5)


def test_inverse_wishart_has_scipys_density():
    """With one component, differences of the density are those of likelihood times prior times Jacobian."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 2))
    fit = bg.fit_em(X, 1)
    prior = bg.Priors(
        np.ones(1), bg.NormalMeans([0.0, 1.0], [2.0, 3.0]), bg.InverseWishart(5.0, [[2.0, 0.5], [0.5, 1.0]])
    )
    density = density_of(X, fit, prior)

    def direct(theta):
        m = density.unpack(theta)
        mean, covariance = m.means[0], m.covariances[0]
        value = stats.multivariate_normal(mean, covariance).logpdf(X).sum()
        value += stats.norm(prior.means.location, prior.means.scale).logpdf(mean).sum()
        value += stats.invwishart(5.0, prior.covariances.scale).logpdf(covariance)
        entries = np.triu_indices(2)
        J = [
            (
                density.unpack(theta + 1e-6 * e).covariances[0][entries]
                - density.unpack(theta - 1e-6 * e).covariances[0][entries]
            )
            / 2e-6
            for e in np.eye(5)[2:]
        ]
        return value + np.linalg.slogdet(np.array(J))[1]

    points = [density.pack(fit.mixture) + 0.2 * rng.normal(size=5) for _ in range(4)]
    offsets = [direct(p) - density(p)[0] for p in points]
    assert np.ptp(offsets) < 1e-6


@pytest.mark.parametrize(("name", "K", "D", "kind"), CASES)
def test_coordinates_go_there_and_back(name, K, D, kind):
    """And so they do for draws from the prior, which are of the covariance model."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, D))
    priors = bg.Priors(1.0, bg.NormalMeans(np.zeros(D), np.ones(D)), covariance_prior(kind, np.eye(D) + 0.5))
    drawn = priors.sample(5, K, name, rng=rng)
    density = Density(observations(X), np.zeros(D), priors.for_components(K), CovarianceModel.named(name))
    thetas = density.pack(drawn)
    assert thetas.shape == (5, density.n_dim) and np.isfinite(density.log_densities(thetas)).all()
    back = density.unpack(thetas)
    np.testing.assert_allclose(back.covariances, drawn.covariances, rtol=1e-6)
    np.testing.assert_allclose(back.weights, drawn.weights, rtol=1e-8)


@pytest.mark.statistical
@pytest.mark.parametrize("floor", [0.0, 0.2])
def test_hierarchical_density_is_the_average_over_scale_matrices(floor):
    """Two covariances: the closed form against draws of the Wishart, within 5.5 Monte Carlo standard errors.

    With a floor both the average and its constant are of draws: theirs 20 000, within 1 percent.
    """
    prior = bg.HierarchicalInverseWishart(5.0, 4.5, np.array([[0.5, 0.1], [0.1, 0.3]]), floor)
    priors = bg.Priors([1.0, 1.0], bg.NormalMeans([0.0, 0.0], [1.0, 1.0]), prior)
    density = Density(observations(np.arange(6.0).reshape(3, 2)), np.zeros(2), priors, CovarianceModel.named("VVV"))
    fixed = Density(
        density.table,
        np.zeros(2),
        bg.Priors(priors.concentration, priors.means, bg.InverseWishart(5.0, prior.typical_scale)),
        density.model,
    )
    mixture = bg.GaussianMixture([0.5, 0.5], np.zeros((2, 2)), [[[0.9, 0.2], [0.2, 0.4]], [[0.5, -0.1], [-0.1, 1.1]]])
    B = stats.wishart(4.5, prior.scale_matrix).rvs(100_000, random_state=seed(1))
    least = B + floor * prior.typical_scale
    likely = 5.0 * (np.linalg.slogdet(B)[1] - np.linalg.slogdet(least)[1])  # K df / 2 = 5: small matrices are rarer
    logs = likely + sum(stats_invwishart(S, 5.0, least) for S in mixture.covariances)
    each, chance = np.exp(logs - logs.max()), np.exp(likely)
    monte_carlo = logs.max() + np.log(each.mean()) - np.log(chance.mean())
    # from the coordinates' to the covariances' density by the plain inverse Wishart, whose Jacobian is the same
    jacobian = (
        fixed(fixed.pack(mixture))[0]
        + fixed.log_constant
        - sum(stats.invwishart(5.0, prior.typical_scale).logpdf(S) for S in mixture.covariances)
    )
    exact = density(density.pack(mixture))[0] + density.log_constant - jacobian
    se = np.hypot(each.std() / each.mean(), chance.std() / chance.mean()) / np.sqrt(len(B))
    assert abs(exact - monte_carlo) < 5.5 * se + (0.01 if floor else 0.0)


@pytest.mark.statistical
@pytest.mark.parametrize("name", ["VVV", "EEE", "VEE", "VVI", "VII", "EVI", "EVV"])
def test_prior_draws_have_the_density_that_is_stated(name):
    """The mean of a known density over the prior's, at the prior's draws, is one: to 5.5 standard errors and 1 %."""
    K, D, n = 2, 2, 20_000
    prior = bg.HierarchicalInverseWishart(6.0, 4.5, np.array([[0.5, 0.1], [0.1, 0.3]]), floor=0.1)
    priors = bg.Priors(np.ones(K), bg.NormalMeans(np.zeros(D), np.ones(D)), prior)
    no_rows = Observations(np.empty((0, D)), ("a", "b"), np.ones(1))
    density = Density(no_rows, np.zeros(D), priors, CovarianceModel.named(name))
    thetas = density.pack(priors.sample(n, K, name, rng=seed()))
    center, spread = np.median(thetas, axis=0), 0.5 * np.diff(np.quantile(thetas, [0.25, 0.75], axis=0), axis=0)[0]
    log_ratio = stats.norm(center, spread).logpdf(thetas).sum(axis=1) - density.log_constant
    ratio = np.exp(log_ratio - density.log_densities(thetas))
    assert ratio.std() / np.sqrt(n) < 0.05  # or the mean would not tell
    assert abs(ratio.mean() - 1) < 5.5 * ratio.std() / np.sqrt(n) + 0.01


@pytest.mark.parametrize("name", ["EVI", "EVV", "VII"])
def test_where_only_a_size_is_learned_the_density_is_the_integral_over_it(name):
    """The precisions' coordinates given a size b: squares over b, entries above the diagonal over its root."""
    K, D, floor = 3, 2, 0.05
    prior = bg.HierarchicalInverseWishart(6.0, 4.5, np.array([[0.5, 0.1], [0.1, 0.3]]), floor)
    priors = bg.Priors(np.ones(K), bg.NormalMeans(np.zeros(D), np.ones(D)), prior)
    given = bg.Priors(np.ones(K), priors.means, bg.InverseWishart(6.0, prior.typical_scale))
    no_rows, model = Observations(np.empty((0, D)), ("a", "b"), np.ones(1)), CovarianceModel.named(name)
    integrated, plain = (Density(no_rows, np.zeros(D), p, model) for p in (priors, given))
    x = 0.5 * np.random.default_rng(0).normal(size=plain.n_dim)
    first = K - 1 + K * D
    squares, above, _ = plain.coordinates.layout.sizes

    def log_prior_given(log_b):
        log_least = np.log(np.exp(log_b) + floor)
        y = x.copy()
        y[first : first + squares] += log_least
        y[first + squares : first + squares + above] *= np.exp(0.5 * log_least)
        return plain(y)[0] + plain.log_constant + 0.5 * above * log_least

    power = (plain.coordinates.prior_a.sum() * (squares if name == "VII" else 1) + above) / 2

    def log_size(log_b):  # small ones are rarer than a gamma variable's, by what the floor adds
        rarer = power * (log_b - np.log(np.exp(log_b) + floor))
        return stats.gamma(4.5 / 2, scale=2 / 4.5).logpdf(np.exp(log_b)) + log_b + rarer

    def log_integral(f):
        return np.log(integrate.quad(lambda t: np.exp(f(t)), -30, 6, limit=400, epsabs=0, epsrel=1e-10, points=[-3])[0])

    exact = log_integral(lambda t: log_size(t) + log_prior_given(t)) - log_integral(log_size)
    assert abs(integrated(x)[0] + integrated.log_constant - exact) < 1e-8


@pytest.mark.parametrize("name", ["VVV", "EEE", "VEE", "VVI", "EVI", "VII"])  # EVV's shapes depend on the axes
def test_other_axes_and_units_change_the_default_posterior_by_the_jacobian_only(name):
    """After X A + b the density at the mapped mixture is |det A|^-N times the old one, over the Jacobian."""
    X, rng = table("iris")[:, :3], np.random.default_rng(3)
    model, b = CovarianceModel.named(name), np.array([5.0, 0.0, -1.0])
    A = (
        rng.normal(size=(3, 3))
        if not model.diagonal
        else np.diag([10.0, -0.2, 3.0])
        if name != "VII"
        else 7 * np.eye(3)
    )
    one, other = (
        Density(observations(rows), rows.mean(axis=0), bg.Priors.weakly_informative(rows, 3), model)
        for rows in (X, X @ A + b)
    )

    def mapped(theta):
        m = one.unpack(theta)
        return other.pack(bg.GaussianMixture(m.weights, m.means @ A + b, A.T @ m.covariances @ A))

    theta = one.pack(bg.fit_em(X, 3, name, rng=0).mixture)
    theta = theta + 0.1 * rng.normal(size=theta.size)
    h = 1e-5
    J = [(mapped(theta + h * e) - mapped(theta - h * e)) / (2 * h) for e in np.eye(theta.size)]
    expected = one(theta)[0] + one.log_constant - len(X) * np.linalg.slogdet(A)[1] - np.linalg.slogdet(np.array(J))[1]
    assert abs(other(mapped(theta))[0] + other.log_constant - expected) < 1e-5


def stats_invwishart(S, df, B):
    """Log densities of one covariance under many scale matrices, up to what they share, from one that scipy gives."""
    precision = np.linalg.inv(S)
    own = df / 2 * np.linalg.slogdet(B)[1] - 0.5 * np.einsum("ab,nba->n", precision, B)
    return own + stats.invwishart(df, B[0]).logpdf(S) - own[0]


def test_priors_are_text_and_back():
    D = 2
    for kind in ("inverse Wishart", "hierarchical", "half-normal", "log-normal", "exponential"):
        priors = bg.Priors(0.3, bg.NormalMeans(np.zeros(D), np.ones(D)), covariance_prior(kind, np.eye(D)))
        assert str(bg.Priors.from_json(priors.to_json())) == str(priors)
        assert bg.Priors.from_json(priors.to_json()).to_json() == priors.to_json()


@pytest.mark.statistical
def test_sparse_weights_fill_few_components():
    X = table("galaxies")
    wide = bg.Priors.weakly_informative(X, 10)
    sparse = bg.Priors(0.01, wide.means, wide.covariances)
    filled = sparse.filled_components(82, 10, rng=seed())
    assert filled.sum() == pytest.approx(1) and filled[1] > 0.5 and filled[10] < 0.01
    # two components: one stays empty with the probability of the beta-binomial's ends
    two = sparse.filled_components(82, 2, draws=20_000, rng=seed())
    exact = 2 * stats.betabinom(82, 0.01, 0.01).pmf(0)
    assert abs(two[1] - exact) < deviation_allowed(exact, 20_000)


def test_priors_without_a_use_are_refused(faithful):
    X, _ = faithful
    weak = bg.Priors.weakly_informative(X, 2)
    lkj = bg.Priors(weak.concentration, weak.means, bg.LKJ(2, bg.HalfNormal([1.0, 10.0])))
    with pytest.raises(bg.InputError, match="inverse-Wishart priors of the covariances only"):
        bg.fit_em(X, 2, priors=lkj)
    with pytest.raises(bg.InputError, match="covariance EVV is not available with LKJ"):
        bg.sample_posterior(X, bg.fit_em(X, 2, "EVV", rng=0), lkj)
    with pytest.raises(bg.InputError, match="covariances' 3"):
        bg.Priors(1.0, weak.means, bg.LKJ(1, bg.Exponential([1.0, 1.0, 1.0])))
    with pytest.raises(bg.InputError, match="eta"):
        bg.LKJ(0, bg.HalfNormal(1.0))


@pytest.mark.statistical
def test_prior_draws_of_the_model_are_the_priors():
    """Means of 2000 draws; of the precisions, as the tails of covariances are too heavy for a mean to be normal."""
    X = table("old_faithful")
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
        assert (np.abs(values.mean(axis=0) - exact) < errors_allowed(comparisons=3 + 6 + 12) * se).all()
    assert drawn["prior_predictive"]["observations"].shape == (1, 2000, 272, 2)


def test_mode_is_a_maximum_with_negative_curvature(faithful):
    X, fit = faithful
    density = density_of(X, fit, bg.Priors.weakly_informative(X, 2))
    mode = find_mode(density, density.pack(fit.mixture))
    value, gradient = density(mode.origin)
    assert value >= density(density.pack(fit.mixture))[0]
    assert np.abs(mode.factor.T @ gradient).max() < 0.02
    H = hessian(density.whitened(mode.origin, mode.factor), np.zeros(density.n_dim), np.full(density.n_dim, 1e-3))
    np.testing.assert_allclose(H, -np.eye(density.n_dim), atol=0.05)


def test_nutpie_takes_compiled_densities():
    """Else sampling goes through Python, slowly: `nutpie_model` is to be fitted to what nutpie has become."""
    assert nutpie_model.why_not_compiled() is None


def test_where_nutpie_takes_no_compiled_density_the_draws_are_the_same(faithful, monkeypatch):
    X, fit = faithful
    density = density_of(X, fit, bg.Priors.weakly_informative(X, 2))
    mode = find_mode(density, density.pack(fit.mixture))
    options = {"draws": 50, "tune": 50, "chains": 2, "seed": 3}
    expected = nutpie_draws(density, mode, **options)
    monkeypatch.setattr("nutpie.compile_pymc.CompiledPyMCModel", lambda **arguments: None)
    nutpie_model.why_not_compiled.cache_clear()
    with pytest.warns(UserWarning, match="hands them over .*NoneType.*: sampling is slower"):
        drawn = nutpie_draws(density, mode, **options)
    nutpie_model.why_not_compiled.cache_clear()
    np.testing.assert_allclose(drawn.thetas, expected.thetas, rtol=1e-9)
    assert drawn.statistics.keys() >= {"diverging", "lp"}


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


@pytest.mark.filterwarnings("ignore:Numba will use object mode:UserWarning")  # to draw from the hierarchical prior
def test_model_is_plain_pymc(faithful):
    """The model's own pointwise log-likelihood and posterior predictive draws work."""
    X, fit = faithful
    with bg.build_model(X, fit) as model:
        drawn = pm.sample_prior_predictive(3, random_seed=0, compile_kwargs={"mode": "FAST_COMPILE"})
        tree = xr.DataTree.from_dict({"posterior": drawn["prior"].to_dataset()})
        pm.compute_log_likelihood(tree, progressbar=False)
        predicted = pm.sample_posterior_predictive(tree, progressbar=False, random_seed=0)
    assert {rv.name for rv in model.free_RVs} >= {"weights", "means"}
    np.testing.assert_allclose(tree["log_likelihood"]["observations"][0, 2], bg.as_mixture(tree).log_prob(X)[0, 2])
    assert predicted["posterior_predictive"]["observations"].shape == (1, 3, 272, 2)


def test_draws_in_any_order_are_relabelled_to_the_fit(faithful, tree):
    _, fit = faithful
    draws = bg.as_mixture(tree)
    rng = np.random.default_rng(0)
    shuffled = draws.permute(rng.permuted(np.broadcast_to(np.arange(2), draws.weights.shape), axis=-1))
    found = relabelling(shuffled, fit.mixture)
    np.testing.assert_array_equal(found.mixture.means, draws.means)
    assert found.labels.switch_rate > 0.3 and found.labels.ambiguous_rate == 0


def test_what_went_wrong_is_said_in_words(faithful):
    """A hundred and twenty draws are never taken for more than 120 log10(120) = 250 independent ones."""
    with pytest.warns(bg.ConvergenceWarning, match="effective sample size of .* below 400"):
        tree = bg.sample_posterior(*faithful, draws=30, rng=seed())
    assert tree.attrs["convergence"].startswith("Not converged")


@pytest.mark.parametrize("name", ["EVE", "VVE", "EEV", "VEV"])
def test_models_without_coordinates_are_refused_by_name(name):
    X = table("iris")
    with pytest.raises(bg.InputError, match=f"covariance {name} is not available"):
        bg.sample_posterior(X, bg.fit_em(X, 2, name, rng=0))


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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bg.InverseWishart(0.5, np.eye(2)), "degrees of freedom"),
        (lambda: bg.InverseWishart(4, [[1.0, 2.0], [2.0, 1.0]]), "positive definite"),
        (lambda: bg.NormalMeans([0.0], [-1.0]), "positive scales"),
        (
            lambda: bg.Priors([0.0, 1.0], bg.NormalMeans([0.0], [1.0]), bg.InverseWishart(3, [[1.0]])),
            "concentration",
        ),
    ],
)
def test_impossible_priors_are_refused(make, message):
    with pytest.raises(bg.InputError, match=message):
        make()


def test_a_single_feature_and_equal_variances_sample_too():
    X = table("galaxies")
    fit = bg.fit_em(X, 2, "E", rng=0)
    tree = bg.sample_posterior(X, fit, draws=300, chains=2, rng=0)
    S = tree["posterior"]["covariances"].values
    np.testing.assert_allclose(S[:, :, 0], S[:, :, 1])
    assert CovarianceModel.named(tree["em"].attrs["covariance_model"]).volume == "E"


def test_a_table_that_cannot_scale_priors_is_named_by_its_column():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 3))
    for rows, name in ((np.c_[X, X[:, 0] + X[:, 1]], "x3"), (X[:3], "x2"), (np.c_[X, np.ones(50)], "x3")):
        with pytest.raises(bg.InputError, match=f"column '{name}'"):
            bg.Priors.weakly_informative(rows, 2)


def test_a_floor_too_large_to_draw_from_is_refused():
    prior = bg.HierarchicalInverseWishart(14.0, 12.0, np.eye(12), floor=1.0)
    with pytest.raises(bg.InputError, match="too large to draw"):
        bg.Priors(1.0, bg.NormalMeans(np.zeros(12), np.ones(12)), prior).sample(1, 4)
