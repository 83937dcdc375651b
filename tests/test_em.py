"""Laws of EM, and numbers that others found."""

import warnings

import numpy as np
import pytest
from oracles import direct_log_prob, random_mixture, reference, table
from scipy import stats
from scipy.linalg import expm
from sklearn.mixture import GaussianMixture as ScikitLearn

import bayesgmm as bg
from bayesgmm.covariance import NAMES

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
    """Started from the parameters that mclust converged to, EM stays there, at the same log-likelihood."""
    X = table("old_faithful" if name == "faithful" else name)
    checked = 0
    for key, row in reference(f"{name}.json")["converged"].items():
        covariance, K = key.split(",")
        start = bg.GaussianMixture(
            row["weights"], np.reshape(row["means"], (int(K), -1)), _covariances(row, X.shape[1])
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", bg.ConvergenceWarning)
            fit = bg.fit_em(X, int(K), covariance, starts=[start])
        assert fit.log_likelihood == pytest.approx(row["loglik"], abs=1e-5)
        checked += 1
    assert checked


def _covariances(row, D):
    return np.reshape(row["covariances"], (-1, D, D))


@pytest.mark.parametrize("covariance", NAMES)
def test_log_likelihood_never_falls(covariance):
    X = table("iris")
    for K in (2, 4):
        fit = bg.fit_em(X, K, covariance, rng=K)
        assert (np.diff(fit.log_likelihood_path) >= -1e-9).all()
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
        assert fit.n_iterations == m and fit.status is bg.Status.EXHAUSTED
        assert len(fit.log_likelihood_path) == m + 1


def test_tolerance_zero_stops_where_iterations_change_nothing_any_more():
    X = table("iris")
    fit = bg.fit_em(X, 2, rng=0, tolerance=0.0)
    assert fit.status is bg.Status.CONVERGED and fit.remaining_gain == 0
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
    assert (np.diff(fit.log_likelihood_path) >= -1e-9).all()


def test_a_converged_fit_gains_nothing_from_further_iterations():
    """Small tables of all kinds, with priors and without; on plateaus as flat as a few are, one in a thousand may."""
    rng = np.random.default_rng(5)
    fitted, moved = 0, []
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
            assert "start" not in str(error) or "all 6 starts" in str(error)  # the fit itself, not going on from it
            continue
        fitted += 1
        if abs(again.log_likelihood_path[-1] - fit.log_likelihood_path[-1]) > 1e-4:
            moved.append(covariance)
    assert fitted > 300 and len(moved) <= 4, moved


def test_a_component_may_be_empty_under_priors():
    X = np.random.default_rng(0).normal(size=(12, 1))
    priors = bg.Priors(1.0, bg.NormalMeans([0.0], [0.1]), bg.InverseWishart(50.0, [[50.0]]))
    empty = bg.GaussianMixture([1 - 1e-250, 1e-250], [[0.0], [0.05]], np.ones((2, 1, 1)))
    start = bg.GaussianMixture([0.5, 0.5], [[0.0], [200.0]], np.ones((2, 1, 1)))
    for mixture in (empty, start):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", bg.ConvergenceWarning)
            fit = bg.fit_em(X, 2, priors=priors, starts=[mixture], rng=0)
        assert fit.status is bg.Status.CONVERGED


def test_slow_climbs_reach_the_optimum():
    """scikit-learn's issue 10122: its default stops at weights 0.373 / 0.627, 0.8 nats short."""
    fit = bg.fit_em(table("sklearn_10122"), 2, rng=0)
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


def test_icl_is_bic_and_twice_the_hard_labels_doubt():
    X = table("iris")
    fit = bg.fit_em(X, 3, rng=0)
    R = fit.mixture.responsibilities(X)
    assert fit.icl == pytest.approx(fit.bic - 2 * np.log(R.max(axis=1)).sum(), rel=1e-9)
    assert fit.aic == pytest.approx(-2 * fit.log_likelihood + 2 * fit.n_parameters)


def test_components_are_ordered_by_the_first_feature_or_aligned():
    X = table("old_faithful")
    fit = bg.fit_em(X, 3, "tied", rng=0)
    assert (np.diff(fit.mixture.means[:, 0]) > 0).all()
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
    assert set(stages) == {"EM climbs"} and done[-1] == totals[-1] and list(done) == sorted(done), calls
    best = max(start.log_likelihood for start in fit.starts if start.status is bg.Status.CONVERGED)
    assert best == fit.log_likelihood


def test_the_same_rng_gives_the_same_fit():
    X = table("iris")
    same(bg.fit_em(X, 3, rng=11), bg.fit_em(X, 3, rng=np.random.default_rng(11)), rtol=1e-12)


def test_collapse_is_an_error_that_names_the_rows():
    X = np.r_[np.random.default_rng(0).normal(size=(20, 2)), np.full((5, 2), 30.0)]
    with pytest.raises(bg.DegenerateFitError, match=r"collapsed with 5.00 effective rows.*Use priors"):
        bg.fit_em(X, 2, rng=0)


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


def test_the_repr_says_what_was_found():
    text = repr(bg.fit_em(table("iris"), 2, rng=0))
    assert "VVV, K=2" in text and "bic=574.02" in text and "converged" in text


def priors_for(X, K):
    """Informative enough to move the estimate."""
    D = X.shape[1]
    return bg.Priors(
        np.linspace(1.5, 3.0, K),
        bg.NormalMeans(X.mean(axis=0), covariance=np.cov(X.T).reshape(D, D) / 9),
        bg.InverseWishart(D + 6, 2 * np.cov(X.T).reshape(D, D)),
    )


def log_prior(m, p, covariance):
    """Logarithm of the prior density of weights, means and covariances, by scipy."""
    value = stats.dirichlet(p.concentration).logpdf(m.weights)
    value += stats.multivariate_normal(p.means.location, p.means.covariance).logpdf(m.means).sum()
    df, scale, D = p.covariances.df, p.covariances.scale, m.n_features
    margin = stats.invgamma((df - D + 1) / 2, scale=np.diag(scale) / 2)
    for S in m.covariances[: 1 if covariance == "tied" else None]:
        if covariance in ("full", "tied"):
            value += stats.invwishart(df, scale).logpdf(S)
        elif covariance == "diag":
            value += margin.logpdf(np.diag(S)).sum()
        else:
            value += stats.invgamma((df - D + 1) / 2, scale=np.diag(scale).mean() / 2).logpdf(S[0, 0])
    return value


@pytest.mark.parametrize("covariance", BASIC)
def test_map_em_climbs_the_posterior_density(covariance):
    X = table("old_faithful")
    priors = priors_for(X, 2)
    start = bg.fit_em(X, 2, covariance, rng=0).mixture
    fits = [
        bg.fit_em(X, 2, covariance, priors=priors, starts=[start], max_iterations=m, tolerance=0.0) for m in (1, 3, 200)
    ]
    objectives = [direct_log_prob(f.mixture, X).sum() + log_prior(f.mixture, priors, covariance) for f in fits]
    assert objectives[0] < objectives[1] < objectives[2]
    offsets = [o - f.log_likelihood_path[-1] for o, f in zip(objectives, fits, strict=True)]
    assert np.ptp(offsets) < 1e-8  # the path is the log posterior but for a constant
    assert (np.diff(fits[2].log_likelihood_path) > -1e-9).all()


@pytest.mark.parametrize("covariance", BASIC)
def test_map_em_ends_at_a_maximum(covariance):
    X = table("old_faithful")
    priors = priors_for(X, 2)
    m = bg.fit_em(X, 2, covariance, priors=priors, rng=0, tolerance=1e-10).mixture

    def objective(weights=m.weights, means=m.means, covariances=m.covariances):
        moved = bg.GaussianMixture(weights, means, covariances)
        return direct_log_prob(moved, X).sum() + log_prior(moved, priors, covariance)

    top = objective()
    rng = np.random.default_rng(0)
    for _ in range(20):
        shift = rng.normal() * 1e-3
        scale = np.exp(1e-3 * rng.normal(size=(1, 1, 1) if covariance == "tied" else (2, 1, 1)))
        assert objective(weights=m.weights + shift * np.array([1, -1])) < top + 1e-9
        assert objective(means=m.means + 1e-3 * X.std(axis=0) * rng.normal(size=(2, 2))) < top + 1e-9
        assert objective(covariances=m.covariances * scale) < top + 1e-9


def hierarchical_priors_for(X, K):
    """Informative enough to move the estimate, with a scale matrix to be learnt."""
    D = X.shape[1]
    scale = bg.HierarchicalInverseWishart(D + 4, D + 1, np.cov(X.T).reshape(D, D) / 20, floor=0.1)
    return bg.Priors(np.linspace(1.5, 3.0, K), bg.NormalMeans(X.mean(axis=0), X.std(axis=0) / 3), scale)


def log_hierarchical_prior(m, p, covariance, B):
    """Logarithm of the prior density with B integrated out: p(covariances | B) p(B) / p(B | covariances), by scipy.

    Any B will do. The covariances are (K, D, D) matrices, or independent variances: one per feature, or one alone.
    """
    prior, D = p.covariances, m.n_features
    value = stats.dirichlet(p.concentration).logpdf(m.weights)
    value += stats.norm(p.means.location, p.means.scale).logpdf(m.means).sum()
    covariances = m.covariances[: 1 if covariance[0] == "E" else None]
    df, g, S0 = prior.df, prior.scale_df, prior.scale_matrix
    floor = np.einsum("ij,kji->", prior.floor * prior.typical_scale, np.linalg.inv(covariances))
    value -= 0.5 * floor / (D if covariance[1] == "I" else 1)  # the constant that goes with it is left out
    if covariance[2] != "I":
        value += sum(stats.invwishart(df, B).logpdf(S) for S in covariances)
        posterior = np.linalg.inv(np.linalg.inv(S0) + np.linalg.inv(covariances).sum(axis=0))
        after = stats.wishart(g + len(covariances) * df, posterior)
        return value + stats.wishart(g, S0).logpdf(B) - after.logpdf(B)
    own = df - D + 1
    variances, scales, B = np.einsum("kjj->kj", covariances), np.diag(S0), np.diag(B)
    if covariance[1] == "I":
        variances, scales, B = variances[:, :1], scales.mean(keepdims=True), B[:1]
    value += stats.invgamma(own / 2, scale=B / 2).logpdf(variances).sum()
    value += stats.gamma(g / 2, scale=2 * scales).logpdf(B).sum()
    rate = (1 / scales + (1 / variances).sum(axis=0)) / 2
    return value - stats.gamma((g + len(variances) * own) / 2, scale=1 / rate).logpdf(B).sum()


def neighbours(m, covariance, size, rng):
    """Mixtures on either side, of the same covariance model."""
    K, D = m.n_components, m.n_features
    weights, means = rng.normal(size=K), rng.normal(size=(K, D)) * np.sqrt(np.diag(m.covariance))
    letters = {"I": 0, "E": 1, "V": K}
    volumes = np.broadcast_to(rng.normal(size=(letters[covariance[0]], 1)), (K, 1))
    shapes = np.broadcast_to(rng.normal(size=(max(letters[covariance[1]], 1), D)), (K, D)) * (covariance[1] != "I")
    turns = np.broadcast_to(rng.normal(size=(max(letters[covariance[2]], 1), D, D)), (K, D, D)) * (covariance[2] != "I")
    values, axes = np.linalg.eigh(m.covariances)
    if covariance[2] == "I":
        values, axes = np.einsum("kjj->kj", m.covariances), np.eye(D)[None]
    turns = turns - np.swapaxes(turns, -1, -2)
    for h in (size, -size):
        logs = np.log(values) + h * (volumes + shapes - shapes.mean(axis=1, keepdims=True))
        turned = np.array([expm(h * turn) for turn in turns]) @ axes
        moved = (turned * np.exp(logs)[:, None]) @ np.swapaxes(turned, -1, -2)
        share = m.weights * np.exp(h * weights)
        yield bg.GaussianMixture(share / share.sum(), m.means + h * means, moved)


@pytest.mark.parametrize(
    ("D", "covariance"),
    [(2, name) for name in ("VVV", "EEE", "VVI", "EEI", "VII", "EII", "VEV", "VVE")] + [(1, "VII"), (1, "EII")],
)
def test_map_em_integrates_the_scale_matrix_out(D, covariance):
    """The derivative of log-likelihood plus marginal log prior is zero at the end, and no step of the path loses."""
    X = table("old_faithful")[:60, :D]
    priors, rng = hierarchical_priors_for(X, 2), np.random.default_rng(0)
    fit = bg.fit_em(X, 2, covariance, priors=priors, rng=0, tolerance=1e-11)
    B = priors.covariances.typical_scale

    def objective(m, B=B):
        return direct_log_prob(m, X).sum() + log_hierarchical_prior(m, priors, covariance, B)

    top = objective(fit.mixture)
    assert objective(fit.mixture, 1.7 * B) == pytest.approx(top, abs=1e-8)  # nothing hangs on B: it is integrated out
    for _ in range(20):
        up, down = (objective(m) for m in neighbours(fit.mixture, covariance, 1e-3, rng))
        assert max(up, down) < top
        assert abs(up - down) < 1e-2 * (2 * top - up - down)
    start = bg.fit_em(X, 2, covariance, rng=1).mixture
    climbs = [
        bg.fit_em(X, 2, covariance, priors=priors, starts=[start], max_iterations=m, tolerance=0.0) for m in (1, 3, 50)
    ]
    objectives = [objective(climb.mixture) for climb in climbs]
    offsets = [o - c.log_likelihood_path[-1] for o, c in zip(objectives, climbs, strict=True)]
    np.testing.assert_allclose(offsets, top - fit.log_likelihood_path[-1], atol=1e-8)
    assert (np.diff(climbs[-1].log_likelihood_path) > -1e-9).all()


def test_priors_keep_components_from_collapsing():
    X = np.r_[np.random.default_rng(0).normal(size=(20, 2)), np.full((5, 2), 30.0)]
    fit = bg.fit_em(X, 2, priors=bg.Priors.weakly_informative(X, 2), rng=0)
    assert fit.status is bg.Status.CONVERGED
    np.testing.assert_allclose(fit.mixture.means[1], [30, 30], atol=1)


@pytest.mark.parametrize("covariance", BASIC)
def test_with_all_labels_known_the_fit_is_the_closed_form(covariance):
    X = table("iris")
    labels = np.repeat([2, 0, 1], 50)
    fit = bg.fit_em(X, 3, covariance, labels=labels)
    within = [np.cov(X[labels == k].T, bias=True) for k in range(3)]
    expected = {
        "full": within,
        "tied": [np.mean(within, axis=0)] * 3,
        "diag": [S * np.eye(4) for S in within],
        "spherical": [np.trace(S) / 4 * np.eye(4) for S in within],
    }[covariance]
    np.testing.assert_allclose(fit.mixture.means, [X[labels == k].mean(axis=0) for k in range(3)], rtol=1e-10)
    np.testing.assert_allclose(fit.mixture.covariances, expected, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(fit.mixture.weights, 1 / 3)


def test_a_few_known_labels_label_the_components():
    X = table("old_faithful")
    labels = np.full(len(X), -1)
    long, short = np.argmax(X[:, 0]), np.argmin(X[:, 0])
    labels[[long, short]] = [0, 1]
    fit = bg.fit_em(X, 2, labels=labels, rng=0)
    assert fit.mixture.means[0, 0] > fit.mixture.means[1, 0]
    free = bg.fit_em(X, 2, rng=0)
    assert fit.log_likelihood == pytest.approx(free.log_likelihood, abs=0.1)


def test_fixed_parts_stay_and_the_rest_is_their_maximum():
    X = table("old_faithful")
    means = np.array([[2.0, 55.0], [np.nan, np.nan]])
    fit = bg.fit_em(X, 2, fixed={"means": means, "weights": [0.4, np.nan]}, rng=0, tolerance=1e-10)
    np.testing.assert_array_equal(fit.mixture.means[0], [2.0, 55.0])
    np.testing.assert_allclose(fit.mixture.weights, [0.4, 0.6])
    assert (np.diff(fit.log_likelihood_path) > -1e-9).all()
    m = fit.mixture
    for j in range(2):
        for sign in (-1, 1):
            moved = m.means.copy()
            moved[1, j] += sign * 0.01 * X[:, j].std()
            assert direct_log_prob(bg.GaussianMixture(m.weights, moved, m.covariances), X).sum() < fit.log_likelihood
    known = bg.fit_em(X, 2, fixed={"covariances": m.covariances, "means": m.means, "weights": m.weights})
    assert known.log_likelihood == pytest.approx(fit.log_likelihood, rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": [0, 1]}, "labels must be 272"),
        ({"labels": np.full(272, 5)}, "label of row 0 is 5"),
        ({"fixed": {"mean": np.zeros((2, 2))}}, "no part 'mean'"),
        ({"fixed": {"means": np.zeros(2)}}, "fixed means have shape"),
        ({"fixed": {"weights": [0.7, 0.7]}}, "sum to one"),
        ({"covariance": "tied", "fixed": {"covariances": [np.eye(2), np.full((2, 2), np.nan)]}}, "share parts"),
        ({"fixed": {"covariances": [np.eye(2), [[1.0, 2.0], [2.0, 1.0]]]}}, "component 1 is not positive"),
    ],
)
def test_bad_labels_and_fixed_parts_are_refused(arguments, message):
    with pytest.raises(bg.InputError, match=message):
        bg.fit_em(table("old_faithful"), 2, **arguments)


def test_local_maxima_are_listed_and_spurious_ones_passed_over():
    X = table("iris")
    fit = bg.fit_em(X, 5, rng=0)
    values = [m.log_likelihood for m in fit.maxima]
    assert values == sorted(values, reverse=True)
    converged = [s for s in fit.starts if s.status is bg.Status.CONVERGED]
    assert sum(m.hits for m in fit.maxima) == len(converged)
    best = next(m for m in fit.maxima if not m.spurious)
    assert best.log_likelihood == pytest.approx(fit.log_likelihood, abs=1e-3)


def test_only_spurious_maxima_are_a_warning():
    rng = np.random.default_rng(0)
    X = np.r_[rng.normal(size=(30, 2)), rng.normal(size=(3, 2)) * 0.01 + 20]
    with pytest.warns(bg.ConvergenceWarning, match="every maximum found is spurious: component 1"):
        bg.fit_em(X, 2, labels=np.r_[np.zeros(30, int), np.ones(3, int)])


def doubted(X, K, covariance="full", **arguments):
    """A fit and its doubts, which must have been warned of."""
    with pytest.warns(bg.ConvergenceWarning) as caught:
        fit = bg.fit_em(X, K, covariance, rng=0, **arguments)
    assert [str(warning.message) for warning in caught] == ["; ".join(fit.doubts)]
    return fit


def test_a_single_row_far_out_is_no_component():
    X = np.r_[np.random.default_rng(0).normal(size=(200, 2)), [[1e6, 1e6]]]
    for fit in (doubted(X, 2, "tied"), doubted(X, 2, priors=bg.Priors.weakly_informative(X, 2))):
        k = fit.mixture.weights.argmin()
        assert any(doubt.startswith(f"component {k} holds 1.0 effective rows") for doubt in fit.doubts)


@pytest.mark.parametrize("K", [2, 3])
def test_heavy_tails_are_a_doubt(K):
    X = np.random.default_rng(1).standard_cauchy((200, 2))
    assert any("times as wide as any other in 'x" in doubt for doubt in doubted(X, K).doubts)


@pytest.mark.parametrize("name", ["iris", "faithful", "diabetes_fixed", "acidity"])
def test_mclusts_published_maxima_are_not_doubted(name):
    """But where a component holds a single row, as some of acidity's do."""
    X = table("old_faithful" if name == "faithful" else name)
    for key, row in reference(f"{name}.json")["converged"].items():
        covariance, K = key.split(",")
        start = bg.GaussianMixture(
            row["weights"], np.reshape(row["means"], (int(K), -1)), _covariances(row, X.shape[1])
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", bg.ConvergenceWarning)
            fit = bg.fit_em(X, int(K), covariance, starts=[start], rng=0)
        if fit.spurious:  # nine components in fifty rows
            continue
        assert bool(fit.doubts) == bool(int(K) > 1 and min(row["weights"]) * len(X) < 1.5), key


def test_priors_allow_as_many_components_as_there_are_rows_and_more():
    X = np.random.default_rng(0).normal(size=(5, 2))
    priors = bg.Priors(1.0, bg.NormalMeans(X.mean(axis=0), X.std(axis=0)), bg.InverseWishart(4.0, np.eye(2)))
    for K in (5, 8):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", bg.ConvergenceWarning)
            fit = bg.fit_em(X, K, priors=priors, rng=0)
        assert fit.status is bg.Status.CONVERGED and fit.n_components == K
        with pytest.raises(bg.InputError, match="priors"):
            bg.fit_em(X, K)


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
        assert (np.diff(fit.log_likelihood_path) >= -1e-8 * (1 + np.abs(fit.log_likelihood_path[1:]))).all()
        log_prob = fit.mixture.log_prob(X)
        total = log_prob.sum() if weight is None else log_prob @ weight
        assert fit.log_likelihood == pytest.approx(total, rel=1e-6, abs=1e-6)
    assert fitted > 500


def test_fixed_parameters_are_not_counted_as_free():
    X = table("old_faithful")
    free = bg.fit_em(X, 2, rng=0)
    nan = [[np.nan, np.nan]]
    for fixed, n in (
        ({"weights": [0.5, 0.5]}, 1),
        ({"weights": [0.4, np.nan]}, 1),
        ({"means": np.r_[[[2.0, 55.0]], nan]}, 2),
        ({"covariances": free.mixture.covariances}, 6),
    ):
        assert bg.fit_em(X, 2, fixed=fixed, rng=0).n_parameters == free.n_parameters - n
