"""Laws of the priors: the densities they state are those of their draws, and what has no use is refused."""

import subprocess
import sys

import numpy as np
import pytest
from oracles import COORDINATE_CASES, covariance_prior, deviation_allowed, seed, table
from scipy import integrate, stats

import bayesgmm as bg
from bayesgmm.bayes.density import Density
from bayesgmm.covariance import CovarianceModel
from bayesgmm.observations import Observations, observations


def test_priors_of_a_table_with_holes_are_scaled_by_the_gaussian_that_fits_it_best():
    X = table("iris")[:, :3].copy()
    X[np.random.default_rng(0).random(X.shape) < 0.2] = np.nan
    priors, one = bg.Priors.weakly_informative(X, 3), bg.fit_em(X, 1, rng=0).mixture
    np.testing.assert_allclose(priors.means.location, one.means[0], rtol=1e-4)
    np.testing.assert_allclose(priors.means.scale, 4 * np.sqrt(np.diag(one.covariances[0])), rtol=1e-4)
    np.testing.assert_allclose(priors.covariances.typical_scale, one.covariances[0] / 3 ** (2 / 3), rtol=1e-3)


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
    squares, above, *_ = plain.coordinates.layout.sizes

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
    assert filled.sum() == pytest.approx(1)
    assert filled[1] > 0.5
    assert filled[10] < 0.01
    # two components: one stays empty with the probability of the beta-binomial's ends
    two = sparse.filled_components(82, 2, draws=20_000, rng=seed())
    exact = 2 * stats.betabinom(82, 0.01, 0.01).pmf(0)
    assert abs(two[1] - exact) < deviation_allowed(exact, 20_000)


def test_priors_without_a_use_are_refused():
    X = table("old_faithful")
    weak = bg.Priors.weakly_informative(X, 2)
    lkj = bg.Priors(weak.concentration, weak.means, bg.LKJ(2, bg.HalfNormal([1.0, 10.0])))
    with pytest.raises(bg.InputError, match="inverse-Wishart priors of the covariances only"):
        bg.fit_em(X, 2, priors=lkj)
    for name in ("EVV", "EEV"):
        with pytest.raises(bg.InputError, match=f"covariance {name} is not available with LKJ"):
            bg.sample_posterior(X, bg.fit_em(X, 2, name, rng=0), lkj)
    with pytest.raises(bg.InputError, match="covariances' 3"):
        bg.Priors(1.0, weak.means, bg.LKJ(1, bg.Exponential([1.0, 1.0, 1.0])))
    with pytest.raises(bg.InputError, match="eta"):
        bg.LKJ(0, bg.HalfNormal(1.0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bg.InverseWishart(0.5, np.eye(2)), "degrees of freedom"),
        (lambda: bg.InverseWishart(4, [[1.0, 2.0], [2.0, 1.0]]), "positive definite"),
        (lambda: bg.NormalMeans([0.0], [-1.0]), "positive scales"),
        (lambda: bg.NormalMeans([0.0]), "a scale or a covariance, one of them"),
        (lambda: bg.NormalMeans([0.0], [1.0], [[1.0]]), "a scale or a covariance, one of them"),
        (lambda: bg.NormalMeans([0.0, 0.0], covariance=[[1.0, 2.0], [2.0, 1.0]]), "symmetric and positive definite"),
        (lambda: bg.NormalMeans(["left"], [1.0]), "location of the means' prior must hold numbers"),
        (lambda: bg.NormalMeans(0.0, [1.0]), "must be finite with 1 dimension, not of shape"),
        (lambda: bg.InverseWishart(4, [[1.0, 0.5], [0.0, 1.0]]), r"symmetric \(D, D\) matrix"),
        (lambda: bg.HierarchicalInverseWishart(4, 3, np.eye(2), floor=-0.1), "a share, at least 0, not -0.1"),
        (lambda: bg.HalfNormal(-1.0), "scale of HalfNormal must be positive"),
        (lambda: bg.LKJ(1.0, 2.0), "must be HalfNormal, LogNormal or Exponential, not 2.0"),
        (lambda: bg.LKJ(1.0, bg.LogNormal([0.0, 0.0], [1.0, 1.0, 1.0])).n_features, "for 2 and for 3 features"),
        (lambda: bg.Priors(1.0, 0.0, bg.InverseWishart(3, [[1.0]])), "must be NormalMeans, not 0.0"),
        (lambda: bg.Priors(1.0, bg.NormalMeans([0.0], [1.0]), 1.0), "must be InverseWishart, .* not 1.0"),
        (
            lambda: bg.Priors([0.0, 1.0], bg.NormalMeans([0.0], [1.0]), bg.InverseWishart(3, [[1.0]])),
            "concentration",
        ),
    ],
)
def test_impossible_priors_are_refused(make, message):
    with pytest.raises(bg.InputError, match=message):
        make()


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


def test_priors_stored_by_earlier_versions_are_still_read():
    """Their text stands in files of draws; those that are taken up again are known by it."""
    text = (
        '{"kind": "Priors", "concentration": 1.0, "means": {"kind": "NormalMeans", "location": [0.0], "covariance": '
        '[[4.0]]}, "covariances": {"kind": "HierarchicalInverseWishart", "df": 3.0, "scale_df": 1.0, "scale_matrix": '
        '[[2.0]], "floor": 0.0001}}'
    )
    priors = bg.Priors.from_json(text)
    assert priors.to_json() == text
    assert (priors.means.scale[0], priors.covariances.scale_df, priors.covariances.floor) == (2.0, 1.0, 1e-4)
    lkj = '{"kind": "LKJ", "eta": 2.0, "scales": {"kind": "LogNormal", "location": 0.0, "scale": 0.5}}'
    text = text[: text.index('{"kind": "Hier')] + lkj + "}"
    assert bg.Priors.from_json(text).to_json() == text


def test_importing_the_families_loads_no_pymc():
    families = ("means", "inverse_wishart", "hierarchical", "scales", "lkj", "joint")
    code = f"import sys, {', '.join(f'bayesgmm.bayes.priors.{family}' for family in families)}; "
    code += "print({'pymc', 'pytensor', 'numba'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


@pytest.mark.parametrize(("name", "K", "D", "kind"), COORDINATE_CASES)
def test_prior_draws_are_as_many_coordinates_as_the_layout_says(name, K, D, kind):
    coordinates = covariance_prior(kind, np.eye(D) + 0.5).coordinates(CovarianceModel.named(name), K, D)
    draws = coordinates.prior_draws(7, np.random.default_rng(0))
    assert draws.shape == (7, sum(coordinates.layout.sizes))
    assert np.isfinite(draws).all()
