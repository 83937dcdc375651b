"""Laws of EM on tables with missing values or errors of measurement."""

import json
import warnings

import numpy as np
import pytest
from oracles import REFERENCE, random_mixture
from scipy import stats
from test_patterns import real_table

import bayesgmm as bg
from bayesgmm.covariance import NAMES
from bayesgmm.observations import observations

REAL = REFERENCE / "real"
CLOSED = json.loads((REAL / "closed_forms.json").read_text())
OPTIMA = json.loads((REAL / "missing_optima_iris_mcar10.json").read_text())


def with_holes(X, share, seed=0):
    Y = np.array(X, dtype=float)
    Y[np.random.default_rng(seed).random(Y.shape) < share] = np.nan
    return Y


@pytest.fixture(scope="module")
def iris():
    return bg.datasets.iris().to_numpy()


def same_fit(one, other, mixture=None):
    """Two fits with the same log-likelihood, and the same parameters as the one or as another mixture."""
    assert one.log_likelihood == pytest.approx(other.log_likelihood, abs=1e-5)
    mixture = mixture or other.mixture
    for name in ("weights", "means", "covariances"):
        np.testing.assert_allclose(getattr(one.mixture, name), getattr(mixture, name), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("key", [key for key in OPTIMA if "maxima" in OPTIMA[key] and not key.endswith(",3")])
def test_fits_reach_the_best_known_maxima(key):
    model, K = key.split(",")
    known = [m["log_likelihood"] for m in OPTIMA[key]["maxima"] if m["least_relative_sd"] > 0.02]
    fit = bg.fit_em(real_table("iris_mcar10"), int(K), model, rng=0)
    assert fit.log_likelihood > max(known) - 1e-5


@pytest.mark.parametrize("covariance", ["VVV", "VVI"])
def test_a_monotone_pattern_has_a_closed_form(covariance):
    """Anderson (1957)."""
    exact = CLOSED[f"faithful_monotone_K1_{covariance}"]
    fit = bg.fit_em(real_table("faithful_monotone"), 1, covariance, tolerance=1e-10, rng=0)
    assert fit.log_likelihood == pytest.approx(float(exact["log_likelihood"]), abs=1e-8)
    np.testing.assert_allclose(fit.mixture.means[0], np.array(exact["mean"], dtype=float), rtol=1e-5)


def test_one_gaussian_with_missing_values_climbs_past_its_saddle():
    """Murray (1977): two maxima, rho = 1/2 and -1/2, and a saddle without correlation."""
    fit = bg.fit_em(real_table("murray"), 1, rng=0)
    S = fit.mixture.covariances[0]
    assert abs(S[0, 1]) / np.sqrt(S[0, 0] * S[1, 1]) == pytest.approx(0.5, abs=1e-3)
    assert fit.log_likelihood == pytest.approx(float(CLOSED["murray"]["maxima"][0]["log_likelihood"]), abs=1e-6)


def test_errors_of_one_feature_are_a_random_effects_meta_analysis():
    exact = CLOSED["bcg_K1"]
    fit = bg.fit_em(real_table("bcg"), 1, tolerance=1e-12, rng=0)
    assert fit.log_likelihood == pytest.approx(float(exact["log_likelihood"]), abs=1e-8)
    assert fit.mixture.covariances[0, 0, 0] == pytest.approx(float(exact["variance"]), rel=1e-4)
    assert fit.mixture.means[0, 0] == pytest.approx(float(exact["mean"]), rel=1e-4)


def test_a_variance_that_is_not_above_the_errors_is_said_to_be_so():
    with pytest.warns(bg.ConvergenceWarning, match="variance of component 0 is not above the errors"):
        fit = bg.fit_em(real_table("eight_schools"), 1, rng=0)
    assert fit.log_likelihood == pytest.approx(float(CLOSED["eight_schools_K1"]["log_likelihood_sup"]), abs=1e-6)
    assert fit.within_errors == (0,)
    assert not fit.spurious


@pytest.mark.parametrize("seed", range(20))
def test_means_arrive_before_a_variance_has_vanished(seed):
    """Beside errors no step moves a mean whose variance is zero; without the variance its best place is known."""
    rng = np.random.default_rng(seed)
    n = rng.integers(6, 40)
    sd = rng.uniform(5, 20, n) * rng.choice([0.3, 1], n)
    x = rng.normal(10, 0.6 * sd)
    mean = (x / sd**2).sum() / (1 / sd**2).sum()
    flat = stats.norm.logpdf(x, mean, sd).sum()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bg.ConvergenceWarning)
        assert bg.fit_em(x[:, None], 1, error_sd=sd[:, None]).log_likelihood > flat - 2e-6


@pytest.mark.parametrize("covariance", NAMES)
@pytest.mark.parametrize("kind", ["missing", "errors", "both"])
def test_em_never_lowers_the_likelihood(iris, covariance, kind):
    X = iris if kind == "errors" else with_holes(iris, 0.2)
    sd = None if kind == "missing" else np.random.default_rng(1).uniform(0.05, 0.3, X.shape)
    start = np.arange(150) // 50
    fit = bg.fit_em(X, 3, covariance, error_sd=sd, starts=[start], tolerance=0.0, max_iterations=30)
    path = fit.log_likelihood_path
    assert len(path) > 20
    np.testing.assert_array_less(-1e-9 * np.abs(path[1:]), np.diff(path))
    assert fit.log_likelihood == pytest.approx(fit.mixture.log_likelihood(X, error_sd=sd), abs=1e-8)


def test_a_climb_towards_a_singular_covariance_is_carried_to_its_end(iris):
    """EM slows down without end there; from two tolerances it must end at one height."""
    sd = np.sqrt([0.02, 0.01, 0.03, 0.01]) * np.random.default_rng(9).uniform(0.7, 1.4, (150, 1))
    given = {"error_sd": sd, "starts": [np.arange(150) // 50], "rng": 0}
    with pytest.warns(bg.ConvergenceWarning, match="not above the errors"):
        one, other = (bg.fit_em(iris, 3, tolerance=tolerance, **given) for tolerance in (1e-6, 1e-10))
    assert one.within_errors
    assert one.log_likelihood == pytest.approx(other.log_likelihood, abs=2e-6)


def test_a_constant_error_is_subtracted_from_the_covariances():
    rng = np.random.default_rng(2)
    X, S = random_mixture(rng, 1, 3).sample(400, rng=rng)[0], np.diag([0.02, 0.05, 0.01])
    plain, fit = (bg.fit_em(X, 1, error_covariance=e, tolerance=1e-10, rng=0) for e in (None, S))
    assert fit.log_likelihood == pytest.approx(plain.log_likelihood, abs=1e-7)
    np.testing.assert_allclose(fit.mixture.covariances[0] + S, plain.mixture.covariances[0], rtol=1e-4, atol=1e-5)


def test_an_error_without_bound_is_as_good_as_a_missing_value(iris):
    missing = np.random.default_rng(3).random(iris.shape) < 0.15
    start = [np.arange(150) // 50]
    fit = bg.fit_em(np.where(missing, np.nan, iris), 3, "EEE", starts=start, rng=0)
    vague = bg.fit_em(iris, 3, "EEE", error_sd=np.where(missing, 1e6, 0.0), starts=start, rng=0)
    lost = -0.5 * missing.sum() * np.log(2 * np.pi * 1e12)
    assert vague.log_likelihood == pytest.approx(fit.log_likelihood + lost, abs=1e-3)
    np.testing.assert_allclose(vague.mixture.means, fit.mixture.means, atol=1e-3)


def test_rows_without_values_change_nothing(iris):
    X = with_holes(iris, 0.1)
    more = np.insert(X, [0, 70, 150], np.nan, axis=0)
    one, other = (bg.fit_em(table, 2, rng=0, n_starts=4) for table in (X, more))
    same_fit(one, other)
    assert other.missing.empty == (0, 71, 152)
    assert one.bic == pytest.approx(other.bic, abs=1e-4)


def test_weights_are_copies_and_the_order_of_rows_and_columns_does_not_matter(iris):
    X, rng = with_holes(iris, 0.15), np.random.default_rng(4)
    weight = rng.integers(0, 3, 150)
    order, columns = rng.permutation(150), np.array([2, 0, 3, 1])
    start = np.arange(150) // 50
    weighted = bg.fit_em(X, 3, "VVI", sample_weight=weight, starts=[start], rng=0)
    same_fit(weighted, bg.fit_em(np.repeat(X, weight, axis=0), 3, "VVI", starts=[np.repeat(start, weight)], rng=0))
    one = bg.fit_em(X, 3, "VVV", starts=[start], rng=0)
    turned = bg.fit_em(X[order][:, columns], 3, "VVV", starts=[start[order]], align_to=None, rng=0)
    assert turned.log_likelihood == pytest.approx(one.log_likelihood, abs=1e-5)


def test_an_affine_map_of_values_and_errors_maps_the_fit(iris):
    rng = np.random.default_rng(5)
    A, shift = rng.normal(size=(4, 4)), rng.normal(size=4) * 10
    S = np.broadcast_to(np.diag([0.004, 0.003, 0.004, 0.001]), (150, 4, 4)) * rng.uniform(0.5, 2, (150, 1, 1))
    start = [np.arange(150) // 50]
    fit = bg.fit_em(iris, 3, error_covariance=S, starts=start, tolerance=1e-9, rng=0)
    mapped = bg.fit_em(iris @ A.T + shift, 3, error_covariance=A @ S @ A.T, starts=start, tolerance=1e-9, rng=0)
    shifted = fit.log_likelihood - 150 * np.linalg.slogdet(A)[1]
    assert mapped.log_likelihood == pytest.approx(shifted, abs=1e-5)
    order = np.argsort((fit.mixture.means @ A.T)[:, 0])
    np.testing.assert_allclose(mapped.mixture.means, (fit.mixture.means @ A.T + shift)[order], rtol=1e-3, atol=1e-3)


def test_a_maximum_is_judged_by_the_rows_that_have_pairs_of_values():
    fit = bg.fit_em(real_table("iris_mcar30"), 3, rng=0)
    sds = np.sqrt(np.linalg.eigvalsh(fit.mixture.covariances)[:, 0])
    assert not fit.spurious
    assert sds.min() > 0.01


@pytest.mark.parametrize("given", ["missing", "errors"])
def test_standard_errors_are_the_curvature_of_the_log_likelihood(given):
    X = bg.datasets.old_faithful().to_numpy()
    kind = {"error_sd": [0.1, 3.0]} if given == "errors" else {}
    X = with_holes(X, 0.2) if given == "missing" else X
    fit = bg.fit_em(X, 1, tolerance=1e-10, rng=0, **kind)
    errors = fit.standard_errors(X, **kind)
    m, h = fit.mixture, 1e-3

    def log_likelihood(mean):
        return bg.GaussianMixture(m.weights, [mean], m.covariances).log_likelihood(X, **kind)

    steps = h * np.eye(2) * m.means[0]
    H = np.array(
        [
            [
                sum(s * t * log_likelihood(m.means[0] + s * a + t * b) for s in (1, -1) for t in (1, -1))
                / (4 * np.linalg.norm(a) * np.linalg.norm(b))
                for b in steps
            ]
            for a in steps
        ]
    )
    if given == "errors":  # means and covariances are independent in complete rows with equal errors
        np.testing.assert_allclose(errors.means[0], np.sqrt(np.diag(np.linalg.inv(-H))), rtol=1e-4)
    else:  # and only nearly so where values are missing at random
        np.testing.assert_allclose(errors.means[0], np.sqrt(np.diag(np.linalg.inv(-H))), rtol=0.02)


def test_the_bootstrap_keeps_the_holes(iris):
    X = with_holes(iris, 0.2)
    fit = bg.fit_em(X, 2, "EEE", rng=0)
    for method in ("nonparametric", "weighted", "parametric"):
        replicates = bg.bootstrap(X, fit, method=method, n_replicates=40, rng=0)
        np.testing.assert_allclose(
            replicates.standard_errors().means, fit.standard_errors(X).means, rtol=1.0, err_msg=method
        )


def test_a_selection_takes_holes_and_errors(iris):
    X = with_holes(iris, 0.1)
    chosen = bg.select(
        X, range(1, 4), ("EEE",), ("bic", "cv"), n_folds=3, n_replicates=3, error_sd=0.05 * np.ones(4), rng=0
    )
    alone = bg.fit_em(X, 2, "EEE", error_sd=0.05 * np.ones(4), rng=0)
    assert chosen.fits["EEE", 2].log_likelihood > alone.log_likelihood - 1e-3
    assert np.isfinite(chosen.table["cv_log_density"]).all()


def test_columns_that_no_row_has_both_of_are_refused_but_by_diagonal_models(iris):
    X = iris.copy()
    X[::2, 0], X[1::2, 1] = np.nan, np.nan
    with pytest.raises(bg.InputError, match="no row has values of both 'x0' and 'x1'"):
        bg.fit_em(X, 2)
    assert bg.fit_em(X, 2, "diag", rng=0).status is bg.Status.CONVERGED


def test_a_fit_says_what_was_missing():
    table = real_table("iris_mcar30")
    fit = bg.fit_em(table, 2, rng=0)
    assert fit.missing.share == tuple(table.missing.mean(axis=0))
    assert len(fit.missing.empty) == 2
    assert fit.total_weight == 148
    assert "sepal_length" in str(fit.missing)


def test_errors_must_be_given_again_where_the_table_is(iris):
    fit = bg.fit_em(iris, 2, error_sd=[0.1] * 4, rng=0)
    with pytest.raises(bg.InputError, match="made with errors of measurement"):
        fit.standard_errors(iris)
    with pytest.raises(bg.InputError, match="made without errors"):
        bg.fit_em(iris, 2, rng=0).standard_errors(observations(iris, error_sd=[0.1] * 4))


def test_a_value_that_may_stand_for_a_missing_one_is_pointed_out(iris):
    X = iris.copy()
    X[[3, 90], 2] = -999.0
    with pytest.warns(bg.ConvergenceWarning, match="column 'x2' is -999 in 2 rows and between 1 and 6.9 in all others"):
        fit = bg.fit_em(X, 2, rng=0, n_starts=4)
    assert [(one.feature, one.value, one.n_rows) for one in fit.stand_ins] == [("x2", -999.0, 2)]
    assert not bg.fit_em(iris * 99 / iris.max(), 2, rng=0, n_starts=4).stand_ins


def test_a_selection_with_noise_is_of_fits_with_noise():
    X = real_table("faithful_noise")
    chosen = bg.select(X, (1, 2), ("VVV",), ("bic",), noise=True, n_replicates=0, rng=0)
    alone = bg.fit_em(X, 2, noise=True, rng=0)
    assert chosen.fits["VVV", 2].log_likelihood == pytest.approx(alone.log_likelihood, abs=1e-6)
    assert chosen.table["n_parameters"].tolist() == [6, 12]
