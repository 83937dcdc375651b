"""Laws of rows that belong to no cluster: of `Noise`, of mixtures that have it, and of EM with it."""

import json
import warnings
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pymc as pm
import pytest
import xarray as xr
from matplotlib.colors import to_rgba
from matplotlib.text import Text
from oracles import REFERENCE, covariance_prior, errors_allowed, random_mixture, seed
from scipy import stats
from scipy.special import betaln, logsumexp, xlogy

import bayesgmm as bg
from bayesgmm.bayes.density import Density
from bayesgmm.bayes.tree import write_tree
from bayesgmm.cli.commands import main
from bayesgmm.clusters.rows_under_draws import rows_under_draws
from bayesgmm.clusters.shares import partition_from_some
from bayesgmm.covariance import CovarianceModel
from bayesgmm.em.grid import Grid, fit_grid, merges, splits
from bayesgmm.em.initialize import mean_and_covariance
from bayesgmm.em.record import fit_from_arrays, fit_to_arrays
from bayesgmm.expectation import Parameters, expected_statistics
from bayesgmm.observations import any_rows, observations
from bayesgmm.plots.style import NOISE_COLOR

REAL = REFERENCE / "real"
EXACT = json.loads((REAL / "exact_loglik.json").read_text())
OPTIMA = json.loads((REAL / "noise_optima.json").read_text())["fits"]


def table(name="faithful_noise"):
    return pd.read_csv(REAL / f"{name}.csv")


def noisy(mixture, weight=0.2, **box):
    """The mixture with noise of this weight over a box."""
    return bg.GaussianMixture(
        mixture.weights * (1 - weight),
        mixture.means,
        mixture.covariances,
        noise_weight=np.full(mixture.batch_shape, weight),
        noise=bg.Noise(**box) if box else None,
    )


def two_columns(n=300, share=0.15, n_columns=2):
    """Rows of two clusters, and of noise in a box about them."""
    rng = np.random.default_rng(7)
    X = rng.normal(size=(n, n_columns)) + 8 * (rng.random((n, 1)) < 0.4)
    return np.where(rng.random((n, 1)) < share, rng.uniform(-6, 14, size=X.shape), X)


@pytest.mark.parametrize("name", ["faithful_noise", "faithful_noise_missing"])
def test_everything_equals_exact_arithmetic(name):
    exact, X = EXACT[name], table(name)
    given = dict(exact["parameters"])
    *weights, noise_weight = given.pop("weights_noise_last")
    box = observations(X, noise=True).noise
    mixture = bg.GaussianMixture(weights, **given, noise_weight=noise_weight, noise=box)
    assert np.prod(box.sides) == pytest.approx(float(exact.get("volume", 676.8573254228364)), rel=1e-12)
    rows = any_rows(X)
    assert mixture.log_likelihood(rows) == pytest.approx(float(exact["log_likelihood"]), rel=1e-12)
    log_prob, shares, of_noise = mixture.log_prob(X), mixture.responsibilities(X), mixture.noise_probability(X)
    for row, value in exact["log_prob_of_rows"]:
        assert log_prob[row] == pytest.approx(float(value), rel=1e-12)
    for row, values in exact["responsibilities_of_rows"]:
        ours = [*shares[row], of_noise[row]]
        np.testing.assert_allclose(ours, np.array(values, dtype=float), rtol=1e-10, atol=1e-15)
    counts = np.append(shares.sum(axis=0), of_noise.sum())
    np.testing.assert_allclose(counts, np.array(exact["counts"], dtype=float), rtol=1e-11)


@pytest.mark.parametrize("name", ["faithful_noise", "faithful_noise_missing"])
def test_the_kernels_statistics_are_the_gradient(name):
    """Against difference quotients of the log-likelihood, in all parameters."""
    given = dict(EXACT[name]["parameters"])
    *weights, noise_weight = given.pop("weights_noise_last")
    rows = observations(table(name), noise=True)
    mixture = bg.GaussianMixture(weights, **given, noise_weight=noise_weight, noise=rows.noise)
    center, h = mixture.clusters.mean, 1e-6

    def at(log_weights, means):
        m = bg.GaussianMixture(np.full(2, 0.5), means, mixture.covariances)
        log_scale = m.log_scale - np.log(0.5) + log_weights[:-1]
        parameters = Parameters(log_scale, means - center, m.precisions_cholesky, log_weights[-1])
        return expected_statistics(rows.rows(center), parameters)

    log_weights = np.log([*weights, noise_weight])
    log_likelihood, _, (counts, first, _) = at(log_weights, mixture.means)
    assert log_likelihood == pytest.approx(mixture.log_likelihood(rows), rel=1e-13)
    counts = np.append(counts, rows.total_weight - counts.sum())
    for k, e in enumerate(np.eye(3)):
        up, down = (at(log_weights + s * h * e, mixture.means)[0] for s in (1, -1))
        assert (up - down) / (2 * h) == pytest.approx(counts[k], rel=1e-6)
    by_means = np.einsum("kij,kj->ki", np.linalg.inv(mixture.covariances), first)
    for k, j in np.ndindex(2, 2):
        shift = np.zeros((2, 2))
        shift[k, j] = h
        up, down = (at(log_weights, mixture.means + s * shift)[0] for s in (1, -1))
        assert (up - down) / (2 * h) == pytest.approx(by_means[k, j], rel=1e-4, abs=1e-3)


def test_what_components_leave_is_the_noises():
    rng = np.random.default_rng(1)
    m, X = noisy(random_mixture(rng, 3, 2), low=[-9, -9], high=[9, 9]), rng.normal(size=(50, 2)) * 4
    shares, of_noise = m.responsibilities(X), m.noise_probability(X)
    np.testing.assert_allclose(shares.sum(axis=1), 1 - of_noise, atol=1e-15)
    np.testing.assert_allclose(of_noise, 0.2 / 18**2 / np.exp(m.log_prob(X)), rtol=1e-12)
    most = np.column_stack((of_noise, shares)).argmax(axis=1) - 1
    np.testing.assert_array_equal(m.predict(X), most)
    assert {-1, 0, 1, 2} >= set(most)
    assert -1 in most
    far = m.noise_probability([[1e4, 1e4]])
    assert far[0] == 1.0
    assert (m.clusters.noise_probability(X) == 0).all()


def test_a_batch_is_its_elements():
    rng = np.random.default_rng(2)
    X = rng.normal(size=(20, 3))
    X[::3, 1] = np.nan
    weight = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.0]])
    plain = random_mixture(rng, 2, 3, batch=(2, 3))
    batch = bg.GaussianMixture(
        plain.weights * (1 - weight[..., None]),
        plain.means,
        plain.covariances,
        noise_weight=weight,
        noise=bg.Noise(low=[-5] * 3, high=[5] * 3),
    )
    for method in ("log_prob", "responsibilities", "noise_probability", "predict"):
        together = getattr(batch, method)(X)
        for i in np.ndindex(2, 3):
            np.testing.assert_allclose(together[i], getattr(batch[i], method)(X), rtol=1e-12)
    np.testing.assert_array_equal(batch.reshape(-1)[4].noise_weight, 0.5)
    np.testing.assert_array_equal(batch.permute([1, 0]).log_prob(X), batch.log_prob(X))
    np.testing.assert_allclose(batch[1, 2].log_prob(X), plain[1, 2].log_prob(X), rtol=1e-12)


def test_a_row_with_missing_values_has_the_density_of_the_marginal():
    rng = np.random.default_rng(3)
    m, X = noisy(random_mixture(rng, 2, 3), volume=3.0, low=[-1, -2, -3], high=[2, 3, 4]), rng.normal(size=(10, 3))
    holes = X.copy()
    holes[:, 1] = np.nan
    np.testing.assert_allclose(m.log_prob(holes), m.marginal([0, 2]).log_prob(X[:, [0, 2]]), rtol=1e-12)
    assert m.log_prob(np.full((1, 3), np.nan))[0] == 0.0


def test_conditional_times_marginal_is_the_joint_density():
    rng = np.random.default_rng(4)
    m, x = noisy(random_mixture(rng, 2, 3), low=[-1, -2, -3], high=[2, 3, 4]), rng.normal(size=3)
    rest = m.conditional({1: x[1]})
    both = rest.log_prob(x[None, [0, 2]]) + m.marginal([1]).log_prob(x[None, [1]])
    np.testing.assert_allclose(both, m.log_prob(x[None]), rtol=1e-12)
    assert rest.noise_weight == pytest.approx(m.marginal([1]).noise_probability(x[None, [1]])[0])


def test_mean_covariance_and_distribution_function_count_the_noise():
    m = noisy(random_mixture(np.random.default_rng(5), 2, 1), 0.3, volume=2.0, low=[-4], high=[8])
    at = np.linspace(-80, 80, 400_001)  # in steps of 0.0004
    of_clusters = np.exp(m.clusters.log_prob(at[:, None])) * 0.7
    density = of_clusters + 0.3 / 24 * ((at >= -10) & (at <= 14))
    step = at[1] - at[0]
    mean = (at * density).sum() * step
    assert m.mean[0] == pytest.approx(mean, abs=1e-3)
    assert m.covariance[0, 0] == pytest.approx(((at - mean) ** 2 * density).sum() * step, rel=1e-3)
    np.testing.assert_allclose(m.cdf(at[::40_000]), (np.cumsum(density) * step)[::40_000], atol=1e-3)


@pytest.mark.statistical
def test_samples_are_noise_as_often_as_its_weight_says():
    m = noisy(random_mixture(np.random.default_rng(6), 2, 2), 0.3, volume=4.0, low=[20, 0], high=[30, 10])
    X, labels = m.sample(20_000, rng=seed())
    n = int((labels == -1).sum())
    assert abs(n - 6000) < 5 * np.sqrt(20_000 * 0.3 * 0.7)  # five sds of a binomial: 6e-7
    outside = X[labels == -1]
    assert outside.min(axis=0)[0] >= 15
    assert outside.max(axis=0)[0] <= 35
    assert abs(outside.mean(axis=0)[0] - 25) < 5.5 * 20 / np.sqrt(12 * n)  # of a sum of thousands, normal: 4e-8


@pytest.mark.parametrize("case", list(OPTIMA))
def test_fits_reach_the_reference_maxima(case):
    model, K = case.split(",")
    fit = bg.fit_em(table(), int(K), model, noise=True, rng=0)
    known = [maximum["log_likelihood"] for maximum in OPTIMA[case]["maxima"]] + [OPTIMA[case]["mclust_best"]]
    assert fit.log_likelihood > max(known) - 1e-6
    assert fit.mixture.weights.sum() + fit.mixture.noise_weight == pytest.approx(1, abs=1e-14)
    assert fit.log_likelihood == pytest.approx(fit.mixture.log_likelihood(table()), rel=1e-13)
    assert fit.n_parameters == bg.fit_em(table(), int(K), model, n_starts=1, rng=0).n_parameters + 1


def test_the_larger_the_volume_the_fewer_rows_are_noise():
    """Forty rows of the table were drawn as noise."""
    flagged = [
        int((fit.mixture.predict(table()) == -1).sum())
        for fit in (bg.fit_em(table(), 2, noise=bg.Noise(volume), rng=0) for volume in (0.25, 1.0, 16.0))
    ]
    assert flagged == [64, 34, 26]


@pytest.mark.parametrize("covariance", ["VVV", "EEE", "VVI", "VEV"])
def test_log_likelihood_never_falls(covariance):
    for X in (table(), table("faithful_noise_missing")):
        fit = bg.fit_em(X, 3, covariance, noise=True, rng=1)
        np.testing.assert_array_less(-1e-9, np.diff(fit.log_likelihood_path))


def test_plain_iterations_are_those_of_the_formulas():
    """Two EM steps from given parameters, written out."""
    X = two_columns()
    box = observations(X, noise=True).noise
    m = bg.GaussianMixture([0.4, 0.4], [[0, 0], [7, 7]], [np.eye(2)] * 2, noise_weight=0.2, noise=box)
    fit = bg.fit_em(X, 2, noise=True, starts=[m], tolerance=0, max_iterations=2)
    for _ in range(2):
        R = m.responsibilities(X)
        n = R.sum(axis=0)
        means = R.T @ X / n[:, None]
        S = [(X - mu).T @ ((X - mu) * r[:, None]) / r.sum() for mu, r in zip(means, R.T, strict=True)]
        m = bg.GaussianMixture(n / len(X), means, S, noise_weight=m.noise_probability(X).mean(), noise=box)
    np.testing.assert_allclose(fit.mixture.weights, m.weights, rtol=1e-12)
    np.testing.assert_allclose(fit.mixture.noise_weight, m.noise_weight, rtol=1e-11)
    np.testing.assert_allclose(fit.mixture.covariances, m.covariances, rtol=1e-10)


@pytest.mark.parametrize("covariance", ["VVV", "EEE"])
def test_noise_without_bounds_is_none(covariance):
    X = bg.datasets.old_faithful()
    plain = bg.fit_em(X, 2, covariance, rng=0)
    fit = bg.fit_em(X, 2, covariance, noise=bg.Noise(1e200), rng=0)
    assert fit.log_likelihood == pytest.approx(plain.log_likelihood, abs=1e-9)
    assert fit.mixture.noise_weight < 1e-12
    np.testing.assert_allclose(fit.mixture.means, plain.mixture.means, rtol=1e-5)


def test_weights_of_rows_are_repetitions():
    X = two_columns()
    weight = np.random.default_rng(0).integers(1, 4, size=len(X))
    weighted = bg.fit_em(X, 2, noise=True, sample_weight=weight, rng=0)
    repeated = bg.fit_em(np.repeat(X, weight, axis=0), 2, noise=True, rng=0)
    assert weighted.log_likelihood == pytest.approx(repeated.log_likelihood, abs=1e-5)
    assert weighted.mixture.noise_weight == pytest.approx(repeated.mixture.noise_weight, abs=1e-4)
    assert weighted.bic == pytest.approx(repeated.bic, abs=1e-5)


def test_units_change_nothing():
    X = two_columns()
    fit, other = (bg.fit_em(table, 2, noise=True, rng=0) for table in (X, X * [10, 0.01] + [5, -3]))
    shift = len(X) * np.log(10 * 0.01)
    assert other.log_likelihood == pytest.approx(fit.log_likelihood - shift, abs=1e-5)
    assert other.mixture.noise_weight == pytest.approx(fit.mixture.noise_weight, abs=1e-5)


def test_a_density_of_ones_own_is_as_good_as_the_box():
    X = two_columns()
    fit = bg.fit_em(X, 2, noise=True, rng=0)
    log_density = fit.mixture.noise.log_density(X)
    own = bg.fit_em(X, 2, noise=log_density, rng=0)
    assert own.log_likelihood == fit.log_likelihood
    assert own.mixture.noise is None
    np.testing.assert_array_equal(own.mixture.noise_probability(X, noise=log_density), fit.mixture.noise_probability(X))
    errors = own.standard_errors(X, noise=log_density)
    np.testing.assert_allclose(errors.weights, fit.standard_errors(X).weights, rtol=1e-12)
    for call in (own.mixture.log_prob, own.mixture.predict, own.standard_errors):
        with pytest.raises(bg.InputError, match="noise="):
            call(X)
    with pytest.raises(bg.InputError, match="only at the rows"):
        own.mixture.sample(100, rng=0)


def test_standard_errors_are_those_of_the_likelihoods_curvature():
    """Of the noise's weight: the profile log-likelihood, fitted with the weights fixed, falls as a parabola does."""
    X = two_columns(600)
    fit = bg.fit_em(X, 1, noise=True, tolerance=1e-10, rng=0)
    se, share = fit.standard_errors(X).noise_weight, fit.mixture.noise_weight

    def profile(noise_weight):
        fixed = {"weights": [1 - noise_weight]}
        kept = bg.fit_em(X, 1, noise=True, fixed=fixed, starts=[fit.mixture], tolerance=1e-10)
        assert kept.mixture.noise_weight == pytest.approx(noise_weight, abs=1e-12)
        assert kept.n_parameters == fit.n_parameters - 1
        return kept.log_likelihood

    h = se / 10
    curvature = (profile(share + h) - 2 * fit.log_likelihood + profile(share - h)) / h**2
    assert 1 / np.sqrt(-curvature) == pytest.approx(se, rel=1e-2)


def test_weighted_replicates_vary_as_standard_errors_say():
    X = two_columns(600)
    fit = bg.fit_em(X, 2, noise=True, rng=0)
    refits = bg.bootstrap(X, fit, method="weighted", n_replicates=400, rng=0)
    ratio = refits.standard_errors().noise_weight / fit.standard_errors(X).noise_weight
    assert 0.75 < ratio < 1.33  # 1 but for the model's misfit and 400 replicates, whose own error is 4 %
    low, high = refits.intervals(0.9)["noise_weight"]
    assert low < fit.mixture.noise_weight < high


def test_parametric_replicates_have_noise():
    X = two_columns()
    fit = bg.fit_em(X, 2, noise=True, rng=0)
    refits = bg.bootstrap(X, fit, method="parametric", n_replicates=30, rng=0)
    assert refits.mixture.noise_weight.shape == (30,)
    assert abs(refits.mixture.noise_weight.mean() - fit.mixture.noise_weight) < 0.05
    at_rows = bg.fit_em(X, 2, noise=np.full(len(X), -6.0), rng=0)
    with pytest.raises(bg.InputError, match="only at the rows of the table"):
        bg.bootstrap(X, at_rows, method="parametric", n_replicates=2, noise=np.full(len(X), -6.0), rng=0)


def test_likelihood_ratio_test_tells_clusters_from_noise():
    """A cluster among outliers needs a second component for them, but not with noise; two clusters need two with it."""
    X, rng = two_columns(), np.random.default_rng(3)
    box = bg.Noise(volume=2.0)
    test = bg.bootstrap_lrt(X, 1, n_replicates=19, n_starts=6, noise=box, rng=0)
    one, two = (bg.fit_em(X, K, noise=box, rng=0) for K in (1, 2))
    assert test.statistic == pytest.approx(2 * (two.log_likelihood - one.log_likelihood), abs=1e-3)
    assert test.p_value == pytest.approx(1 / 20)
    single = np.where(rng.random((300, 1)) < 0.1, rng.uniform(-40, 40, size=(300, 2)), rng.normal(size=(300, 2)))
    without, with_noise = (
        bg.bootstrap_lrt(single, 1, n_replicates=9, n_starts=6, noise=n, rng=0) for n in (False, True)
    )
    assert without.p_value == pytest.approx(0.1)
    assert with_noise.statistic < 0.1 * without.statistic


def test_likelihood_ratio_test_under_noise_without_bounds_is_that_without():
    X = two_columns(share=0.0)
    statistics = [
        bg.bootstrap_lrt(X, 1, n_replicates=1, n_starts=6, noise=noise, rng=0).statistic
        for noise in (False, bg.Noise(volume=1e12))
    ]
    assert statistics[0] == pytest.approx(statistics[1], rel=1e-6)


def test_a_fit_comes_back_from_its_arrays_as_it_was():
    X = two_columns()
    for noise in (True, np.full(len(X), -6.0)):
        fit = bg.fit_em(X, 2, noise=noise, rng=0)
        back = fit_from_arrays(fit_to_arrays(fit))
        assert back.mixture.noise == fit.mixture.noise
        assert back.mixture.noise_weight == fit.mixture.noise_weight
        assert back.maxima[0].mixture.noise_weight == fit.maxima[0].mixture.noise_weight
        assert back.n_parameters == fit.n_parameters


def test_map_em_has_a_dirichlet_of_one_more():
    """At the maximum the gradient of log posterior density vanishes along every trade between two weights."""
    X = two_columns()
    priors = bg.Priors.weakly_informative(X, 2)
    priors = bg.Priors([2.5, 2.5], priors.means, priors.covariances, noise_concentration=7.0)
    fit = bg.fit_em(X, 2, noise=True, priors=priors, tolerance=1e-10, rng=0)
    counts = np.append(fit.mixture.responsibilities(X).sum(axis=0), fit.mixture.noise_probability(X).sum())
    expected = counts + np.array([1.5, 1.5, 6.0])
    ours = np.append(fit.mixture.weights, fit.mixture.noise_weight)
    np.testing.assert_allclose(ours, expected / expected.sum(), rtol=1e-5)
    again = bg.Priors.from_json(priors.to_json())
    assert again.noise_concentration == 7.0


def test_rows_of_a_known_component_are_no_noise():
    X = two_columns()
    far = np.argmax(np.abs(X - X.mean(axis=0)).sum(axis=1))
    labels = np.full(len(X), -1)
    labels[far] = 0
    free, known = bg.fit_em(X, 2, noise=True, rng=0), bg.fit_em(X, 2, noise=True, labels=labels, rng=0)
    assert known.log_likelihood < free.log_likelihood - 1
    all_known = bg.fit_em(X, 2, noise=True, labels=(X[:, 0] > 4).astype(int), rng=0)
    assert all_known.mixture.noise_weight < 1e-12


def test_all_kinds_of_starts_lead_to_the_same_maximum():
    X = two_columns()
    fit = bg.fit_em(X, 2, noise=True, rng=0)
    labels = fit.mixture.predict(X)
    for start in (labels, fit.mixture.responsibilities(X), fit.mixture):
        assert bg.fit_em(X, 2, noise=True, starts=[start]).log_likelihood == pytest.approx(fit.log_likelihood, abs=1e-5)
    with pytest.raises(bg.InputError, match="label -1 at row"):
        bg.fit_em(X, 2, starts=[np.where(labels == 0, -1, 1)])


def test_threads_give_the_same_climb():
    """Tables that threads share take another way through the climb."""
    X = two_columns(40_000, n_columns=5)
    m = bg.fit_em(X[:500], 2, noise=True, rng=0).mixture
    fit = bg.fit_em(X, 2, noise=m.noise, starts=[m], tolerance=0, max_iterations=3)
    for _ in range(3):
        R = m.responsibilities(X)
        n = R.sum(axis=0)
        means = R.T @ X / n[:, None]
        S = [(X - mu).T @ ((X - mu) * r[:, None]) / r.sum() for mu, r in zip(means, R.T, strict=True)]
        m = bg.GaussianMixture(n / len(X), means, S, noise_weight=m.noise_probability(X).mean(), noise=m.noise)
    np.testing.assert_allclose(fit.mixture.noise_weight, m.noise_weight, rtol=1e-10)
    np.testing.assert_allclose(fit.mixture.means, m.means, rtol=1e-9)


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        ("a box", "noise must be True"),
        (np.zeros(3), "one log density for each of the 300 rows"),
        (np.where(np.arange(300) == 4, np.nan, 0.0), "row 4 is nan"),
        (bg.Noise(low=[0], high=[1]), "has 1 columns, the table 2"),
    ],
)
def test_noise_that_cannot_be_used_is_refused(noise, message):
    with pytest.raises(bg.InputError, match=message):
        bg.fit_em(two_columns(), 2, noise=noise)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ({"volume": 0}, "positive number, not 0"),
        ({"volume": True}, "positive number, not True"),
        ({"low": [0.0]}, "together"),
        ({"low": [0.0, 1.0], "high": [1.0, 1.0]}, "no width in column 1: from 1.0 to 1.0"),
        ({"low": [0.0], "high": [np.inf]}, "no width in column 0"),
    ],
)
def test_a_box_without_volume_is_refused(box, message):
    with pytest.raises(bg.InputError, match=message):
        bg.Noise(**box)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise_weight": 0.5}, "sum to one, not 1.5"),
        ({"noise_weight": -0.1}, "at least 0"),
        ({"noise_weight": [0.1]}, "batch shape"),
        ({"noise": bg.Noise(low=[0], high=[1])}, "needs a noise_weight"),
        ({"weights": [0.5], "noise_weight": 0.5, "noise": bg.Noise(low=[0, 0], high=[1, 1])}, "2 columns"),
    ],
)
def test_what_is_no_mixture_is_refused(change, message):
    parts = {"weights": [1.0], "means": [[0.0]], "covariances": [[[1.0]]]} | change
    with pytest.raises(bg.InputError, match=message):
        bg.GaussianMixture(**parts)


def test_without_noise_no_density_of_it_is_taken():
    m = bg.GaussianMixture([1.0], [[0.0]], [[[1.0]]])
    with pytest.raises(bg.InputError, match="has no noise"):
        m.log_prob([[0.0]], noise=[0.0])
    assert m.noise_probability([[0.0]]) == 0.0
    X = two_columns()
    with pytest.raises(bg.InputError, match="made without noise"):
        bg.fit_em(X, 2, rng=0).standard_errors(X, noise=np.zeros(len(X)))


def test_neighbouring_sizes_keep_their_noise():
    """Fits of several sizes start from one another's split and merged components."""
    grid = Grid(observations(two_columns(), noise=True), (CovarianceModel.named("VVV"),), (1, 2, 3), 10)
    fits = fit_grid(grid, np.random.default_rng(0), lambda key, make: make(), lambda done, total: None)
    alone = bg.fit_em(two_columns(), 2, noise=True, rng=0)
    assert fits["VVV", 2].log_likelihood == pytest.approx(alone.log_likelihood, abs=1e-5)
    assert min(fits, key=lambda key: fits[key].bic) == ("VVV", 2)
    for wider in splits(alone.mixture):
        np.testing.assert_allclose(wider.mean, alone.mixture.mean, rtol=1e-10)
        assert wider.noise_weight == alone.mixture.noise_weight
    (merged,) = merges(alone.mixture)
    np.testing.assert_allclose(merged.covariance, alone.mixture.covariance, rtol=1e-10)


# The posterior.


def density_with_noise(rows, name="VVV", K=2, noise_concentration=3.0):
    center, spread = mean_and_covariance(rows)
    wide = bg.NormalMeans(center, covariance=9 * spread)
    prior = covariance_prior("hierarchical", spread)
    priors = bg.Priors(np.linspace(1, 2, K), wide, prior, noise_concentration)
    return Density(rows, center, priors, CovarianceModel.named(name))


@pytest.mark.parametrize("kind", ["box", "holes", "own", "left out"])
@pytest.mark.parametrize("name", ["VVV", "EEE", "VVI", "VEV"])
def test_the_densitys_gradient_equals_finite_differences(name, kind):
    rng = np.random.default_rng(len(name + kind))
    mixture = random_mixture(rng, 2, 3)
    X, N = mixture.sample(30, rng=rng)[0], 30
    if kind == "holes":
        X[rng.random(X.shape) < 0.2] = np.nan
    rows = observations(X, noise=rng.normal(size=N) - 5 if kind == "own" else True)
    density = density_with_noise(rows, name)
    if kind == "left out":
        density = replace(density, left_out=np.array([3, 8]), log_odds=np.array([0.3, -0.4]))
    same = np.broadcast_to(mixture.covariances[0] * np.eye(3), (2, 3, 3))
    start = noisy(bg.GaussianMixture(mixture.weights, mixture.means, same), 0.3)
    theta = density.pack(start) + 0.1 * rng.normal(size=density.n_dim)
    gradient, h = density(theta)[1], 1e-5
    numeric = [(density(theta + h * e)[0] - density(theta - h * e)[0]) / (2 * h) for e in np.eye(theta.size)]
    np.testing.assert_allclose(gradient, numeric, rtol=1e-5, atol=1e-5 * np.abs(gradient).max())


def test_the_density_is_likelihood_times_a_dirichlet_of_one_more():
    """By points that differ in their weights alone; the Jacobian of the log ratios is the product of the weights."""
    rng = np.random.default_rng(8)
    rows = observations(two_columns(60), noise=True)
    density = density_with_noise(rows)
    start = density.unpack(density.pack(bg.fit_em(rows, 2, rng=0).mixture))
    concentration = np.array([1.0, 2.0, 3.0])

    def direct(weights):
        m = replace(start, weights=weights[:2], noise_weight=weights[2])
        own = m.log_likelihood(rows) + stats.dirichlet(concentration).logpdf(weights) + np.log(weights).sum()
        return own - density(density.pack(m))[0]

    values = [direct(weights) for weights in rng.dirichlet([3, 3, 2], size=5)]
    assert np.ptp(values) < 1e-9
    back = density.unpack(density.pack(start))
    assert back.noise_weight == pytest.approx(start.noise_weight, rel=1e-12)
    assert back.noise == rows.noise


@pytest.mark.parametrize("kind", ["box", "own", "one component"])
def test_the_plain_model_has_the_compiled_density(kind):
    rng = np.random.default_rng(9)
    X = two_columns(60)
    X[rng.random(X.shape) < 0.1] = np.nan
    K = 1 if kind == "one component" else 2
    rows = observations(X, noise=rng.normal(size=len(X)) - 6 if kind == "own" else True)
    fit, priors = bg.fit_em(rows, K, rng=0), bg.Priors.weakly_informative(rows, K)
    priors = replace(priors, noise_concentration=2.5)
    density = Density(rows, mean_and_covariance(rows)[0], priors.for_components(K), fit.covariance_model)
    with bg.build_model(rows, fit, priors) as model:
        logp = model.logp_dlogp_function(ravel_inputs=True, mode=None if kind == "box" else "FAST_COMPILE")
        logp.set_extra_values({})
        x = density.pack(fit.mixture) + 0.2 * rng.normal(size=density.n_dim)
        (value, gradient), (theirs, their_gradient) = density(x), logp(x)
        assert theirs == pytest.approx(value + density.log_constant, rel=1e-9)
        np.testing.assert_allclose(gradient, their_gradient, rtol=1e-8, atol=1e-8 * np.abs(gradient).max())
        settings = {"random_seed": 0, "compile_kwargs": {"mode": "FAST_COMPILE"}}
        drawn = pm.sample_prior_predictive(20, **settings)
    shares = drawn["prior"]["weights"].sum("component") + drawn["prior"]["noise_weight"]
    np.testing.assert_allclose(shares, 1.0)
    predicted = drawn["prior_predictive"]["observations"].values
    nowhere = np.isnan(predicted).mean()
    assert nowhere == 0 if kind != "own" else 0.1 < nowhere < 0.8  # 2.5 / 4.5 expected


TINY = np.array([[-0.4], [0.1], [0.3], [0.9], [7.0]])


def enumerated(X, priors, box):
    """Log evidence of one component and noise, and each row's probability of noise: over all sets of noise rows.

    Mean and precision are integrated out over a grid.
    """
    x, n = X[:, 0], len(X)
    precision = np.exp(np.linspace(-9, 9, 1201))
    mean = np.linspace(-25, 25, 2001)
    prior = priors.covariances
    log_prior = stats.gamma(prior.df / 2, scale=2 / prior.scale[0, 0]).logpdf(precision)[:, None]
    log_prior = (
        log_prior
        + np.log(precision)[:, None]
        + stats.norm(priors.means.location[0], priors.means.scale[0]).logpdf(mean)
    )
    volume = np.log(np.log(precision[1] / precision[0]) * (mean[1] - mean[0]))
    each = 0.5 * np.log(precision / (2 * np.pi))[:, None] - 0.5 * precision[:, None] * (x[:, None, None] - mean) ** 2
    a, b, c = priors.concentration[0], priors.noise_concentration, -np.log(box.sides).sum()
    values = {}
    for noise in product([0, 1], repeat=n):
        inside = np.flatnonzero(np.array(noise) == 0)
        m = n - len(inside)
        log_lik = logsumexp(each[inside].sum(axis=0) + log_prior) + volume
        values[noise] = log_lik + m * c + betaln(a + n - m, b + m) - betaln(a, b)
    total = logsumexp(list(values.values()))
    share = np.exp(np.array(list(values.values())) - total)
    return total, share @ np.array(list(values))


@pytest.mark.statistical
def test_posterior_and_evidence_are_those_of_enumeration():
    priors = bg.Priors([2.0], bg.NormalMeans([0.0], [3.0]), bg.InverseWishart(4.0, [[2.0]]), noise_concentration=1.5)
    fit = bg.fit_em(TINY, 1, noise=True, priors=priors, rng=0)
    log_evidence, of_noise = enumerated(TINY, priors, fit.mixture.noise)
    tree = bg.sample_posterior(TINY, fit, priors, draws=2000, rng=seed(1))
    evidence = bg.log_evidence(tree, rng=seed(2))
    assert abs(evidence.value - log_evidence) < errors_allowed(2) * evidence.se + 1e-3  # the grid's own error
    drawn = bg.posterior(tree)
    probability = drawn.draws.noise_probability(TINY)
    share = np.moveaxis(probability, 2, 0).reshape(len(TINY), -1)
    errors = share.std(axis=1) / np.sqrt(400)  # far fewer than the effective draws
    np.testing.assert_array_less(np.abs(share.mean(axis=1) - of_noise), errors_allowed(5) * errors + 1e-3)


@pytest.fixture(scope="module")
def noisy_tree():
    X = two_columns(150)
    return bg.sample_posterior(X, bg.fit_em(X, 2, noise=True, rng=0), draws=500, chains=2, rng=0)


def test_a_tree_holds_the_noise(noisy_tree, tmp_path):
    drawn = bg.posterior(noisy_tree)
    X = drawn.rows
    assert noisy_tree["posterior"]["noise_weight"].dims == ("chain", "draw")
    np.testing.assert_allclose(drawn.draws.weights.sum(axis=-1) + drawn.draws.noise_weight, 1.0)
    assert drawn.draws.noise == drawn.fit.mixture.noise == drawn.em.noise == drawn.table.noise
    np.testing.assert_allclose(
        noisy_tree["log_likelihood"]["observations"][0, :5], drawn.draws[0, :5].log_prob(X), 1e-5
    )
    assert abs(drawn.draws.noise_weight.mean() - drawn.em.noise_weight) < 0.05
    write_tree(noisy_tree, tmp_path / "noise.nc")
    with xr.open_datatree(tmp_path / "noise.nc") as stored:
        back = bg.posterior(stored.load())
    np.testing.assert_array_equal(back.draws.log_prob(X[:3]), drawn.draws.log_prob(X[:3]))
    table = bg.parameter_table(noisy_tree)
    assert table["parameter"].tolist().count("noise_weight") == 1
    assert abs(table.set_index("parameter").loc["noise_weight", "shift"]) < 1
    one = noisy_tree["posterior"].to_dataset()
    assert bg.posterior(xr.DataTree.from_dict({"posterior": one})).draws.noise is None


def test_rows_under_draws_are_those_of_each_draw(noisy_tree):
    drawn = bg.posterior(noisy_tree)
    X = np.concatenate([drawn.rows[:20], [[60.0, 60.0], [np.nan, 3.0], [np.nan, np.nan]]])
    block = rows_under_draws(noisy_tree, X).block()
    flat = drawn.draws.reshape(-1)
    np.testing.assert_allclose(block.responsibilities.transpose(2, 0, 1), flat.responsibilities(X), atol=1e-9)
    np.testing.assert_allclose(block.noise.T, flat.noise_probability(X), atol=1e-9)
    np.testing.assert_allclose(block.log_prob.T, flat.log_prob(X), atol=1e-9)
    shares = np.concatenate([block.responsibilities, block.noise[:, None]], axis=1)
    np.testing.assert_allclose(block.entropy, -xlogy(shares, shares).sum(axis=1), atol=1e-9)
    drawn_labels = rows_under_draws(noisy_tree, X).assignments(np.random.default_rng(seed()))
    n = (drawn_labels[20] == 2).sum()
    assert n == drawn_labels.shape[1]  # far out


def test_rows_are_assigned_to_noise(noisy_tree):
    drawn = bg.posterior(noisy_tree)
    a = bg.assign(noisy_tree, rng=0)
    np.testing.assert_allclose(a.probabilities.sum(axis=1), 1 - a.noise, atol=1e-12)
    assert ((a.noise_lower <= a.noise + 1e-12) & (a.noise <= a.noise_upper + 1e-12)).mean() > 0.9
    np.testing.assert_array_equal(a.labels == -1, a.noise > a.probabilities.max(axis=1))
    assert 0 < (a.labels == -1).sum() < 50
    np.testing.assert_array_equal(a.label_probability[a.labels == -1], a.noise[a.labels == -1])
    np.testing.assert_allclose(a.noise, drawn.draws.noise_probability(drawn.rows).mean(axis=(0, 1)), atol=1e-9)
    assert a.overlap.min() >= 0
    assert (a.overlap <= a.entropy + 1e-12).all()
    assert {"noise", "noise_lower", "noise_upper"} < set(a.to_dataframe())
    far = bg.assign(noisy_tree, [[40.0, -40.0]], rng=0)
    assert far.labels[0] == -1
    plain = bg.assign(drawn.draws.clusters, drawn.rows, rng=0)
    assert plain.noise is None
    assert plain.labels.min() == 0


def test_clusters_of_a_partition_leave_the_noise_its_weight(noisy_tree):
    drawn = bg.posterior(noisy_tree)
    found = bg.partition(noisy_tree, rng=0)
    clusters = bg.cluster_mixture(noisy_tree, found)
    np.testing.assert_array_equal(clusters.noise_weight, drawn.draws.noise_weight)
    np.testing.assert_allclose(clusters.weights.sum(axis=-1), drawn.draws.weights.sum(axis=-1), rtol=1e-12)
    assert clusters.noise == drawn.draws.noise
    by_cluster = bg.assign(noisy_tree, partition=found, rng=0)
    figure = bg.plots.clusters(drawn.table, drawn.fit, noisy_tree, by_cluster)
    assert any("noise" in text.get_text() or "no cluster" in text.get_text() for text in figure.findobj(Text))


def test_a_partition_from_some_rows_has_noise_too(noisy_tree):
    """Rows that were not drawn have the label of the assignment to the clusters of those that were."""
    found = partition_from_some(noisy_tree, 100, rng=0)
    assigned = bg.assign(noisy_tree, bg.posterior(noisy_tree).table, rng=0)
    certain = np.maximum(assigned.probabilities.max(axis=1), assigned.noise) > 0.9
    np.testing.assert_array_equal((found.labels == -1)[certain], (assigned.labels == -1)[certain])
    assert (found.labels == -1).sum() > 5


def test_an_overfitted_mixture_has_no_noise():
    with pytest.raises(bg.InputError, match="overfitted mixture has no noise"):
        bg.select(two_columns(), range(1, 3), noise=True, overfitted=True, rng=0)


def test_tail_probabilities_count_the_noise():
    one = noisy(bg.GaussianMixture([[1.0]], [[[0.0]]], [[[[1.0]]]]), 0.5, low=[10.0], high=[20.0])
    tails = bg.assign(one, [[15.0], [0.0], [3.0]], rng=0).tail_probability
    assert tails[0] == pytest.approx(0.5, abs=0.03)  # the noise is less dense than the cluster, but for its tails
    assert tails[1] == pytest.approx(1.0, abs=1e-3)


def test_noise_is_together_with_nothing(noisy_tree):
    drawn = bg.posterior(noisy_tree)
    similar = bg.posterior_similarity(noisy_tree, [[40.0, -40.0], [41.0, -40.0], [0.0, 0.0], [0.1, 0.0]])
    np.testing.assert_allclose(similar, [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]], atol=0.05)
    best = bg.partition(noisy_tree, rng=0)
    assert best.n_clusters == 2
    np.testing.assert_array_equal(best.components, [0, 1])
    a = bg.assign(noisy_tree, rng=0)
    assert (best.labels == a.labels).mean() > 0.95
    assert set(best.labels) == {-1, 0, 1}
    np.testing.assert_array_equal(best.reference_labels, drawn.em.predict(drawn.rows))
    ball = bg.credible_ball(noisy_tree, best, rng=0)
    assert -1 in ball.horizontal
    by_cluster = bg.assign(noisy_tree, partition=best, rng=0)
    np.testing.assert_array_equal(by_cluster.labels, best.labels)
    np.testing.assert_allclose(by_cluster.noise, a.noise, atol=1e-9)
    outcome = bg.partition_scores(noisy_tree, best.labels + 1, rng=0)
    assert outcome.misclassification.point < 0.05
    merging = bg.merge_components(noisy_tree)
    assert -1 in merging.labels(1)
    imputed = bg.impute(noisy_tree, [[0.0, None], [8.0, None]])
    np.testing.assert_allclose(imputed.values[:, 1], [0, 8], atol=0.6)


def crosses(axes):
    """Number of points in the colour of rows that belong to no cluster."""
    grey = to_rgba(NOISE_COLOR)
    points = [c for c in axes.collections if len(c.get_offsets()) and len(c.get_edgecolor())]
    return sum(len(c.get_offsets()) for c in points if tuple(c.get_edgecolor()[0]) == grey)


def test_pictures_show_rows_of_no_cluster_as_crosses(noisy_tree):
    drawn = bg.posterior(noisy_tree)
    X, a = drawn.rows, bg.assign(noisy_tree, rng=0)
    best = bg.partition(noisy_tree, rng=0)
    n_em, n = int((drawn.em.predict(X) == -1).sum()), int((a.labels == -1).sum())
    figures = [
        (n_em, bg.plots.clusters(X, drawn.fit)),
        (n, bg.plots.clusters(X, drawn.fit, noisy_tree, a)),
        (n, bg.plots.uncertainty(noisy_tree, a)),
    ]
    for count, figure in figures:
        texts = [text.get_text() for text in figure.legends[0].get_texts()]
        assert f"belongs to no cluster ({count} rows)" in texts
        assert crosses(figure.axes[0]) == count
    rows = bg.plots.least_certain(a, X)
    assert any("belongs to no cluster" in text.get_text() for text in rows.legends[0].get_texts())
    ball = bg.plots.credible_ball(X, best, bg.credible_ball(noisy_tree, best, rng=0))
    assert crosses(ball.axes[0]) == (best.labels == -1).sum()
    similar = bg.plots.similarity(noisy_tree, best)
    assert any("no cluster" in text.get_text() for text in similar.axes[0].texts)
    bg.plots.clusters(X[:, :1], bg.fit_em(X[:, :1], 2, noise=True, rng=0))


def test_a_posterior_with_a_density_of_ones_own_is_that_of_the_box():
    X = two_columns(80)
    boxed = bg.fit_em(X, 2, noise=True, rng=0)
    own = boxed.mixture.noise.log_density(X)
    settings = {"draws": 50, "chains": 1, "method": "laplace", "rng": 0}
    of_box = bg.sample_posterior(X, boxed, **settings)
    fit = bg.fit_em(X, 2, noise=own, rng=0)
    tree = bg.sample_posterior(X, fit, noise=own, **settings)
    np.testing.assert_allclose(tree["posterior"]["noise_weight"], of_box["posterior"]["noise_weight"], rtol=1e-9)
    drawn = bg.posterior(tree)
    np.testing.assert_array_equal(drawn.table.noise, own)
    np.testing.assert_allclose(drawn.draws.log_prob(drawn.table), bg.as_mixture(of_box).log_prob(X), rtol=1e-9)
    with pytest.raises(bg.InputError, match="give them as noise="):
        bg.sample_posterior(X, fit, **settings)
    np.testing.assert_allclose(bg.assign(tree).noise, bg.assign(of_box).noise, atol=1e-9)
    assert np.isnan(bg.assign(tree, X[:3], noise=own[:3]).tail_probability).all()
    with pytest.raises(bg.InputError, match="noise="):
        bg.assign(tree, X[:3])


def test_what_follows_from_a_posterior_counts_the_noise(noisy_tree):
    drawn = bg.posterior(noisy_tree)
    assert bg.diagnose(noisy_tree).good
    result = bg.loo(noisy_tree, methods=())
    assert result.elpd == pytest.approx(drawn.fit.log_likelihood, rel=0.05)
    for method in ("ecr", "stephens"):
        assert bg.posterior(bg.relabel(noisy_tree, method)).labels.switch_rate == 0.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"sampler": "gibbs"}, "sampler='gibbs' has no noise"), ({"method": "variational"}, "approximation has no noise")],
)
def test_samplers_that_have_no_noise_say_so(settings, message):
    X = two_columns(60)
    with pytest.raises(bg.InputError, match=message):
        bg.sample_posterior(X, bg.fit_em(X, 2, noise=True, rng=0), rng=0, **settings)


@pytest.mark.slow
def test_leave_one_out_equals_k_folds_of_single_rows():
    X = np.concatenate([two_columns(40)[:30], [[30.0, -30.0]]])  # far out: its weights need repair
    fit = bg.fit_em(X, 1, noise=True, rng=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bg.ConvergenceWarning)
        tree = bg.sample_posterior(X, fit, draws=2000, rng=0)
        one_out = bg.loo(tree, rng=0)
        exact = bg.kfold(X, fit, folds=np.arange(len(X)), draws=1000, rng=0)
    assert one_out.elpd == pytest.approx(exact.elpd, abs=0.5)
    np.testing.assert_allclose(one_out.elpd_i, exact.elpd_i, atol=0.3)


@pytest.mark.parametrize("way", [[], ["--em-only"]])
def test_the_command_line_has_rows_of_no_cluster(tmp_path, capsys, way):
    table().to_csv(tmp_path / "table.csv", index=False)
    arguments = ["fit", str(tmp_path / "table.csv"), "-k", "2", "--noise", "--out", str(tmp_path / "out")]
    assert main([*arguments, "--draws", "100", "--chains", "2", *way]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Rows that belong to no cluster are 13.1% by EM, even over a box of volume 676.9" in said
    rows = pd.read_csv(tmp_path / "out" / "responsibilities.csv")
    assert 25 < (rows["label"] == -1).sum() < 45
    np.testing.assert_allclose(rows[["p_0", "p_1", "noise"]].sum(axis=1), 1, atol=1e-4)
    parameters = pd.read_csv(tmp_path / "out" / "components.csv")
    assert parameters["parameter"].tolist()[-1] == "noise_weight"
    if not way:
        assert "More likely of no cluster than of any" in said


def test_the_command_line_compares_sizes_with_noise(tmp_path):
    table().to_csv(tmp_path / "table.csv", index=False)
    common = ["-k", "1:2", "--noise", "--quiet"]
    sampling = ["--draws", "100", "--chains", "2"]
    assert main(["fit", str(tmp_path / "table.csv"), *common, *sampling, "--out", str(tmp_path / "fit")]) == 0
    one_by_one = ["--criteria", "bic", "--starts", "10", "--replicates", "0"]
    assert main(["select", str(tmp_path / "table.csv"), *common, *one_by_one, "--out", str(tmp_path / "select")]) == 0
    for name in ("fit", "select"):
        compared = pd.read_csv(tmp_path / name / "selection.csv").set_index("n_components")
        for K in (1, 2):
            fit = bg.fit_em(table(), K, noise=True, rng=0)
            assert compared.loc[K, "bic"] == pytest.approx(fit.bic, abs=0.01)
    assert (pd.read_csv(tmp_path / "fit" / "k2" / "responsibilities.csv")["label"] == -1).sum() > 20


@pytest.mark.parametrize(
    "arguments", [["fit", "-k", "2", "--sampler", "gibbs"], ["select", "-k", "1:2", "--overfitted"]]
)
def test_what_the_command_line_cannot_do_with_noise_is_refused(tmp_path, capsys, arguments):
    table().to_csv(tmp_path / "table.csv", index=False)
    command, *others = arguments
    assert main([command, str(tmp_path / "table.csv"), *others, "--noise", "--out", str(tmp_path / "out")]) == 2
    assert "--noise" in capsys.readouterr().err
