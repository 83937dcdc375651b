"""Laws of EM, and numbers that others found."""

import dataclasses
import inspect
import warnings

import numpy as np
import pytest
from oracles import direct_log_prob, mclusts_mixture, random_mixture, reference, table
from sklearn.mixture import GaussianMixture as ScikitLearn

import bayesgmm as bg
from bayesgmm.covariance import NAMES
from bayesgmm.em.fit import FitSettings

BASIC = ["full", "tied", "diag", "spherical"]


def same(a, b, rtol=1e-6):
    """Two fits are the same mixture."""
    for name in ("weights", "means", "covariances"):
        np.testing.assert_allclose(getattr(a.mixture, name), getattr(b.mixture, name), rtol=rtol, atol=rtol)
    assert a.log_likelihood == pytest.approx(b.log_likelihood, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "K", "covariance", "log_likelihood", "bic"),
    [("old_faithful", 3, "tied", -1126.315928, 2314.2957), ("iris", 2, "full", -214.354704, 574.0178)],
)
def test_published_fits(name, K, covariance, log_likelihood, bic):
    fit = bg.fit_em(table(name), K, covariance, rng=0)
    assert fit.log_likelihood == pytest.approx(log_likelihood, abs=1e-4)
    assert fit.bic == pytest.approx(bic, abs=1e-3)


@pytest.mark.parametrize("name", ["iris", "faithful", "diabetes_fixed", "acidity"])
def test_one_component_is_the_closed_form(name):
    X = table("old_faithful" if name == "faithful" else name)
    for row in reference(f"{name}.json")["table"]:
        if row["G"] == 1:
            fit = bg.fit_em(X, 1, row["model"], rng=0)
            assert fit.log_likelihood == pytest.approx(row["loglik"], rel=1e-8)
            np.testing.assert_allclose(fit.mixture.means[0], X.mean(axis=0), rtol=1e-10)


@pytest.mark.parametrize("name", ["iris", "faithful", "diabetes_fixed", "acidity"])
def test_mclusts_converged_maxima_are_stationary(name):
    """Started from the parameters that mclust converged to, plain EM stays there, at the same log-likelihood."""
    X = table("old_faithful" if name == "faithful" else name)
    checked = 0
    for key, row in reference(f"{name}.json")["converged"].items():
        covariance, K = key.split(",")
        start = mclusts_mixture(row, X.shape[1])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", bg.ConvergenceWarning)
            fit = bg.fit_em(X, int(K), covariance, starts=[start], tolerance=0.0, max_iterations=20)
        assert fit.log_likelihood == pytest.approx(row["loglik"], abs=1e-5)
        checked += 1
    assert checked


@pytest.mark.parametrize("covariance", NAMES)
def test_log_likelihood_never_falls(covariance):
    X = table("iris")
    for K in (2, 4):
        fit = bg.fit_em(X, K, covariance, rng=K)
        np.testing.assert_array_less(-1e-9, np.diff(fit.log_likelihood_path))
        assert fit.status is bg.Status.CONVERGED


@pytest.mark.parametrize("covariance", NAMES)
def test_log_likelihood_belongs_to_the_returned_parameters(covariance):
    X = table("diabetes_fixed")
    fit = bg.fit_em(X, 2, covariance, rng=1)
    assert fit.log_likelihood == pytest.approx(direct_log_prob(fit.mixture, X).sum(), rel=1e-10)
    assert fit.log_likelihood == fit.log_likelihood_path[-1]


@pytest.mark.parametrize("covariance", NAMES)
def test_log_likelihood_belongs_to_the_returned_parameters_far_from_the_origin(covariance):
    """Means are rounded where their size leaves few digits; the log-likelihood is that of the rounded ones."""
    X = table("iris")[:40] + 1e10
    fit = bg.fit_em(X, 2, covariance, rng=1)
    log_prob = fit.mixture.log_prob(X)
    assert fit.log_likelihood == pytest.approx(log_prob.sum(), abs=1e-10 * np.abs(log_prob).sum())


@pytest.mark.parametrize("covariance", BASIC)
def test_a_converged_fit_is_a_fixed_point_of_plain_em(covariance):
    X = table("iris")
    fit = bg.fit_em(X, 3, covariance, rng=0, tolerance=1e-10)
    again = bg.fit_em(X, 3, covariance, starts=[fit.mixture], max_iterations=200, tolerance=0.0)
    assert again.log_likelihood - fit.log_likelihood < 1e-6
    same(fit, again, rtol=1e-3)


@pytest.mark.parametrize(("covariance", "theirs"), [(c, c) for c in BASIC])
def test_plain_iterations_are_scikit_learns(covariance, theirs):
    rng = np.random.default_rng(2)
    X, _ = random_mixture(rng, 3, 3).sample(400, rng=rng)
    labels = rng.integers(3, size=len(X))
    R = np.eye(3)[labels] * 0.5 + 1 / 6
    ours = bg.fit_em(X, 3, covariance, starts=[R], max_iterations=25, tolerance=0.0)
    start = bg.fit_em(X, 3, covariance, starts=[R], max_iterations=0, tolerance=0.0)
    precisions = np.linalg.inv(start.mixture.covariances)
    shaped = {
        "full": precisions,
        "tied": precisions[0],
        "diag": np.einsum("kii->ki", precisions),
        "spherical": precisions[:, 0, 0],
    }[covariance]
    oracle = ScikitLearn(
        3,
        covariance_type=theirs,
        tol=0.0,
        max_iter=25,
        reg_covar=0.0,
        weights_init=start.mixture.weights,
        means_init=start.mixture.means,
        precisions_init=shaped,
    )
    with pytest.warns(Warning, match="did not converge"):
        oracle.fit(X)
    order = np.lexsort(oracle.means_.T[::-1])
    np.testing.assert_allclose(ours.mixture.means, oracle.means_[order], rtol=1e-8)
    np.testing.assert_allclose(ours.mixture.weights, oracle.weights_[order], rtol=1e-8)
    assert ours.n_iterations == 25


def test_tolerance_zero_runs_exactly_the_iterations_asked_for():
    X = table("sklearn_10122")
    start = bg.fit_em(X, 2, rng=0, max_iterations=1).mixture
    for m in (0, 1, 7, 50):
        fit = bg.fit_em(X, 2, starts=[start], max_iterations=m, tolerance=0.0)
        assert fit.n_iterations == m
        assert fit.status is bg.Status.EXHAUSTED
        assert len(fit.log_likelihood_path) == m + 1


def test_tolerance_zero_stops_where_iterations_change_nothing_any_more():
    X = table("iris")
    fit = bg.fit_em(X, 2, rng=0, tolerance=0.0)
    assert fit.status is bg.Status.CONVERGED
    assert fit.remaining_gain == 0
    again = bg.fit_em(X, 2, starts=[fit.mixture], tolerance=0.0)
    same(fit, again, rtol=1e-12)


@pytest.mark.parametrize("covariance", ["full", "tied", "spherical", "EEI", "VEV", "EVE"])
def test_equal_components_part(covariance):
    """EM itself would leave them equal: a fixed point, but no maximum."""
    X = table("old_faithful")
    one = bg.fit_em(X, 1, covariance)
    start = bg.GaussianMixture(
        [0.5, 0.5], *(np.repeat(part, 2, axis=0) for part in (one.mixture.means, one.mixture.covariances))
    )
    fit = bg.fit_em(X, 2, covariance, starts=[start], rng=0)
    assert fit.status is bg.Status.CONVERGED
    assert fit.log_likelihood == pytest.approx(bg.fit_em(X, 2, covariance, rng=0).log_likelihood, abs=1e-3)
    assert fit.log_likelihood_path[0] == pytest.approx(one.log_likelihood, abs=1e-6)
    np.testing.assert_array_less(-1e-9, np.diff(fit.log_likelihood_path))


def test_a_converged_fit_gains_nothing_from_further_iterations():
    """Small tables of all kinds, with priors and without; on plateaus as flat as a few are, one in a thousand may."""
    rng = np.random.default_rng(5)
    fitted, moved, refused = 0, [], []
    for _ in range(400):
        N, D, K = rng.integers(6, 61), rng.integers(1, 5), rng.integers(1, 5)
        centers = rng.normal(0, 4, size=(3, D))
        X = centers[rng.integers(3, size=N)] + rng.normal(size=(N, D)) @ (np.eye(D) + 0.5 * rng.normal(size=(D, D)))
        X = np.round(X, 1) if rng.random() < 0.3 else X + 10.0 ** rng.integers(9)
        covariance, priors = str(rng.choice(NAMES)), None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", bg.ConvergenceWarning)
                if rng.random() < 0.6:
                    priors = bg.Priors.weakly_informative(X, K)
                fit = bg.fit_em(X, K, covariance, priors=priors, rng=rng, n_starts=6)
                if fit.spurious or fit.status is not bg.Status.CONVERGED:
                    continue
                again = bg.fit_em(
                    X, K, covariance, priors=priors, starts=[fit.mixture], tolerance=0.0, max_iterations=300
                )
        except bg.BayesGMMError as error:
            refused.append(str(error))
            continue
        fitted += 1
        if abs(again.log_likelihood_path[-1] - fit.log_likelihood_path[-1]) > 1e-4:
            moved.append(covariance)
    # a fit may be refused, going on from one may not
    assert not [error for error in refused if "start" in error and "all 6 starts" not in error]
    assert fitted > 300
    assert len(moved) <= 4, moved


def test_slow_climbs_reach_the_optimum():
    """scikit-learn's issue 10122: its default stops at weights 0.373 / 0.627, 0.8 nats short."""
    X = table("sklearn_10122")
    fit = bg.fit_em(X, 2, starts=[(X[:, 1] > 0).astype(int)])
    np.testing.assert_allclose(fit.mixture.weights, [0.23875, 0.76125], atol=2e-4)
    np.testing.assert_allclose(fit.mixture.means, [[-0.0509, -0.2539], [1.8701, 3.8131]], atol=1e-3)
    assert fit.log_likelihood == pytest.approx(-1803.870199, abs=1e-5)


@pytest.mark.parametrize("covariance", ["full", "tied"])
def test_affine_maps_of_the_data_change_no_clustering(covariance):
    X = table("iris")
    rng = np.random.default_rng(0)
    A, b = rng.normal(size=(4, 4)), rng.normal(size=4) * 10
    fit, mapped = bg.fit_em(X, 3, covariance, rng=5), bg.fit_em(X @ A + b, 3, covariance, rng=5)
    jacobian = len(X) * np.log(abs(np.linalg.det(A)))
    assert mapped.log_likelihood + jacobian == pytest.approx(fit.log_likelihood, abs=1e-4)
    order = mapped.mixture.means @ np.linalg.inv(A)
    ours, theirs = fit.mixture.predict(X), mapped.mixture.predict(X @ A + b)
    pairs = {(i, j) for i, j in zip(ours.tolist(), theirs.tolist(), strict=True)}
    assert len(pairs) == 3, order


def test_integer_weights_are_duplicated_rows_and_zero_removes():
    rng = np.random.default_rng(4)
    X = table("old_faithful")
    weight = rng.integers(0, 4, size=len(X))
    start = bg.fit_em(X, 2, rng=0).mixture
    weighted = bg.fit_em(X, 2, sample_weight=weight, starts=[start], tolerance=1e-9)
    repeated = bg.fit_em(np.repeat(X, weight, axis=0), 2, starts=[start], tolerance=1e-9)
    same(weighted, repeated)
    assert weighted.bic == pytest.approx(repeated.bic)


def test_permuting_rows_changes_nothing():
    X = table("old_faithful")
    start = bg.fit_em(X, 3, rng=0).mixture
    order = np.random.default_rng(0).permutation(len(X))
    same(bg.fit_em(X, 3, starts=[start]), bg.fit_em(X[order], 3, starts=[start]), rtol=1e-5)


def test_components_are_ordered_by_the_first_feature_or_aligned():
    X = table("old_faithful")
    fit = bg.fit_em(X, 3, "tied", rng=0)
    np.testing.assert_array_less(0, np.diff(fit.mixture.means[:, 0]))
    flipped = fit.mixture.permute([2, 0, 1])
    aligned = bg.fit_em(X, 3, "tied", rng=1, align_to=flipped)
    np.testing.assert_allclose(aligned.mixture.means, flipped.means, rtol=1e-2)


def test_all_kinds_of_starts_lead_to_the_same_maximum():
    X = table("old_faithful")
    fit = bg.fit_em(X, 2, rng=0)
    for start in (fit.mixture, fit.mixture.predict(X), fit.mixture.responsibilities(X)):
        again = bg.fit_em(X, 2, starts=[start])
        assert again.log_likelihood == pytest.approx(fit.log_likelihood, abs=1e-5)
        assert len(again.starts) == 1


def test_every_start_is_reported():
    calls = []
    fit = bg.fit_em(table("iris"), 4, rng=0, n_starts=9, progress=lambda *call: calls.append(call))
    assert len(fit.starts) == 9
    stages, done, totals = zip(*calls, strict=True)
    assert set(stages) == {"EM climbs"}, calls
    assert done[-1] == totals[-1], calls
    assert list(done) == sorted(done), calls
    best = max(start.log_likelihood for start in fit.starts if start.status is bg.Status.CONVERGED)
    assert best == fit.log_likelihood


def test_the_same_rng_gives_the_same_fit():
    X = table("iris")
    same(bg.fit_em(X, 3, rng=11), bg.fit_em(X, 3, rng=np.random.default_rng(11)), rtol=1e-12)


def test_collapse_is_an_error_that_names_the_rows():
    X = np.r_[np.random.default_rng(0).normal(size=(20, 2)), np.full((5, 2), 30.0)]
    with pytest.raises(bg.DegenerateFitError, match=r"collapsed with 5.00 effective rows.*Use priors"):
        bg.fit_em(X, 2, rng=0)


def test_collapse_of_every_short_run_on_a_large_table_is_an_error():
    """Fewer distinct rows than full covariances need, but so many that threads share them."""
    X = np.repeat([[0.0, 0.0], [1.0, 5.0], [30.0, 30.0], [31.0, 12.0]], 15_000, axis=0)
    with pytest.raises(bg.DegenerateFitError, match="all 20 starts collapsed"):
        bg.fit_em(X, 3, rng=0)


def test_settings_are_those_of_fit_em():
    """With the same defaults: `fit_quietly` and `fit_em` cannot come apart."""
    arguments = inspect.signature(bg.fit_em).parameters.values()
    ours = {a.name: a.default for a in arguments if a.kind is a.KEYWORD_ONLY}
    assert ours == {field.name: field.default for field in dataclasses.fields(FitSettings)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_components": 0}, "n_components must be a whole number of at least 1"),
        ({"n_components": 2.5}, "n_components"),
        ({"n_components": "2"}, "n_components"),
        ({"n_components": 51}, "51 components cannot be fitted to 50 rows"),
        ({"covariance": "ful"}, "unknown covariance 'ful'"),
        ({"tolerance": np.nan}, "tolerance"),
        ({"max_iterations": -1}, "max_iterations"),
        ({"n_starts": 0}, "n_starts"),
        ({"starts": []}, "starts must be a list"),
        ({"starts": [np.zeros(50, int) + 7]}, "label 7 at row 0"),
        ({"starts": [np.zeros((3, 3))]}, r"starts\[0\]"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, message):
    X = np.random.default_rng(0).normal(size=(50, 2))
    with pytest.raises(bg.InputError, match=message):
        bg.fit_em(X, **{"n_components": 2} | arguments)


def test_collinear_columns_are_named():
    X = np.random.default_rng(0).normal(size=(50, 2))
    X = np.c_[X, X @ [1.0, 2.0]]
    with pytest.raises(bg.InputError, match="'x2' is a linear combination"):
        bg.fit_em(X, 2)
    assert bg.fit_em(X, 2, "diag", rng=0).status is bg.Status.CONVERGED


def test_fewer_distinct_rows_than_components_are_refused():
    X = np.repeat([[0.0, 0.0], [1.0, 1.0]], 20, axis=0) * [1.0, 2.0]
    with pytest.raises(bg.InputError, match="distinct rows"):
        bg.fit_em(X, 3, "diag")


@pytest.mark.parametrize("name", ["iris", "faithful", "diabetes_fixed", "acidity"])
def test_every_fit_is_at_least_as_good_as_mclusts(name):
    """All models, up to six components: mclust's log-likelihoods, one start each, are lower bounds."""
    X = table("old_faithful" if name == "faithful" else name)
    for row in reference(f"{name}.json")["table"]:
        if (
            1 < row["G"] <= 6
            and row.get("loglik") is not None
            and (name, row["model"], row["G"]) != ("acidity", "V", 6)
        ):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", bg.ConvergenceWarning)
                fit = bg.fit_em(X, row["G"], row["model"], rng=0)
            assert fit.log_likelihood >= row["loglik"] - 0.05, (row["model"], row["G"])


def test_no_climb_exceeds_its_iterations():
    """Extrapolated steps that are undone count, too; every limit is kept on tables where EM is slow."""
    X = table("sklearn_10122")
    for limit in range(1, 40):
        for start in bg.fit_em(X, 3, rng=limit, max_iterations=limit, n_starts=4).starts:
            assert start.n_iterations <= limit


def test_whatever_the_table_a_fit_is_sound_or_refused():
    """Small tables with ties, outliers and wild scales: finite, monotone and exact, or one of the package's errors."""
    rng = np.random.default_rng(0)
    fitted = 0
    for _ in range(1500):
        N, D, K = rng.choice([4, 5, 8, 15, 40]), rng.choice([1, 2, 3, 5]), rng.integers(1, 6)
        X = rng.normal(size=(N, D))
        kind = rng.integers(5)
        if kind == 1:
            X = np.round(X, 1) * 10.0 ** rng.integers(-8, 9, size=D)
        elif kind == 2:
            X = np.repeat(X[: N // 2], 2, axis=0)
        elif kind == 3:
            X = np.exp(3 * X)
        elif kind == 4:
            X = X @ rng.normal(size=(D, D)) * 1e-3 + 1e6
        weight = rng.integers(0, 3, size=len(X)) if rng.random() < 0.3 else None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", bg.ConvergenceWarning)
                fit = bg.fit_em(X, K, rng.choice(NAMES), sample_weight=weight, rng=rng, n_starts=6)
        except bg.BayesGMMError:
            continue
        fitted += 1
        np.testing.assert_array_less(
            -1e-8 * (1 + np.abs(fit.log_likelihood_path[1:])), np.diff(fit.log_likelihood_path)
        )
        log_prob = fit.mixture.log_prob(X)
        total = log_prob.sum() if weight is None else log_prob @ weight
        assert fit.log_likelihood == pytest.approx(total, rel=1e-6, abs=1e-6)
    assert fitted > 500


@pytest.mark.parametrize("name", ["iris", "old_faithful"])
def test_a_climb_takes_the_same_steps_along_other_axes(name):
    X, rng = table(name), np.random.default_rng(0)
    A, start = rng.normal(size=(X.shape[1], X.shape[1])), rng.integers(3, size=len(X))
    path, mapped = (bg.fit_em(Y, 3, starts=[start]).log_likelihood_path for Y in (X, X @ A))
    n = min(len(path), len(mapped)) - 5  # rounding grows from step to step, and may decide which is the last
    np.testing.assert_allclose(mapped[:n] + len(X) * np.linalg.slogdet(A)[1], path[:n], atol=1e-5)
    assert n > 15
