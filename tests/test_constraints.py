"""Laws of EM under priors, known labels, fixed parts and rows that count as blobs."""

import warnings

import numpy as np
import pytest
from oracles import direct_log_joint, direct_log_prob, quiet, table
from scipy import stats
from scipy.linalg import expm
from scipy.special import logsumexp

import bayesgmm as bg
from bayesgmm.covariance import NAMES

BASIC = ["full", "tied", "diag", "spherical"]


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
    np.testing.assert_array_less(-1e-9, np.diff(fits[2].log_likelihood_path))


@pytest.mark.parametrize("covariance", BASIC)
def test_map_em_ends_at_a_maximum(covariance):
    X = table("old_faithful")
    priors = priors_for(X, 2)
    m = bg.fit_em(X, 2, covariance, priors=priors, rng=0, n_starts=60, tolerance=1e-10).mixture

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
    if covariance in ("EEV", "VEV", "EVE", "VVE"):  # given the axes, chi-square along each; constants are left out
        own = df - D + 1
        inverse = np.linalg.inv(covariances)
        each = own * np.linalg.slogdet(B)[1] + (own + 2) * np.linalg.slogdet(inverse)[1]
        value += 0.5 * (each - np.einsum("ij,kji->k", B, inverse)).sum()
        after = stats.wishart(g + len(covariances) * own, np.linalg.inv(np.linalg.inv(S0) + inverse.sum(axis=0)))
        return value + stats.wishart(g, S0).logpdf(B) - after.logpdf(B)
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
    np.testing.assert_array_less(-1e-9, np.diff(climbs[-1].log_likelihood_path))


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
    np.testing.assert_array_less(-1e-9, np.diff(fit.log_likelihood_path))
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


def test_priors_allow_as_many_components_as_there_are_rows_and_more():
    X = np.random.default_rng(0).normal(size=(5, 2))
    priors = bg.Priors(1.0, bg.NormalMeans(X.mean(axis=0), X.std(axis=0)), bg.InverseWishart(4.0, np.eye(2)))
    for K in (5, 8):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", bg.ConvergenceWarning)
            fit = bg.fit_em(X, K, priors=priors, rng=0)
        assert fit.status is bg.Status.CONVERGED
        assert fit.n_components == K
        with pytest.raises(bg.InputError, match="priors"):
            bg.fit_em(X, K)


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


REG = np.array([0.02, 0.1, 0.05, 0.01])  # a variance for each of iris's columns


def blurred(m, X, weight=1.0):
    """The objective with `REG`: log densities averaged over rows that are normal with these variances."""
    loss = np.einsum("kii,i->k", np.linalg.inv(m.covariances), REG) / 2
    return float((logsumexp(direct_log_joint(m, X) - loss, axis=1) * weight).sum())


@pytest.mark.parametrize("covariance", NAMES)
def test_reg_covar_climbs_the_likelihood_of_blobs(covariance):
    X = table("iris")
    fit = bg.fit_em(X, 3, covariance, reg_covar=REG, rng=0)
    assert fit.status is bg.Status.CONVERGED
    assert fit.constraints == ("reg_covar",)
    np.testing.assert_array_less(-1e-9, np.diff(fit.log_likelihood_path))
    assert fit.log_likelihood_path[-1] == pytest.approx(blurred(fit.mixture, X), rel=1e-12)
    assert fit.log_likelihood == pytest.approx(direct_log_prob(fit.mixture, X).sum(), rel=1e-12)
    assert fit.log_likelihood_path[-1] < fit.log_likelihood
    assert fit.maxima[0].log_likelihood == fit.log_likelihood_path[-1]


@pytest.mark.parametrize("covariance", NAMES)
def test_reg_covar_ends_at_a_maximum(covariance):
    """In what all models leave free: weights, means, and the volumes, of all components at once if they share it."""
    X = table("iris")
    m = bg.fit_em(X, 3, covariance, reg_covar=REG, rng=0, tolerance=1e-11, max_iterations=100_000).mixture
    scale = np.sqrt(np.einsum("kii->ki", m.covariances))
    alone = [np.eye(3)[k] for k in range(3)]

    def objective(weights=0.0, means=0.0, volumes=(0.0, 0.0, 0.0)):
        w = m.weights * np.exp(weights)
        volumes = np.exp(volumes)[:, None, None]
        return blurred(bg.GaussianMixture(w / w.sum(), m.means + means * scale, m.covariances * volumes), X)

    moves = [{"weights": e} for e in alone]
    moves += [{"means": np.outer(e, f)} for e in alone for f in np.eye(4)]
    moves += [{"volumes": e} for e in (alone if covariance[0] == "V" else [np.ones(3)])]
    for move in moves:
        (name, value), h = next(iter(move.items())), 1e-4
        up, down = objective(**{name: h * value}), objective(**{name: -h * value})
        assert abs(up - down) / (2 * h) < 2e-3, (move, up - down)
        assert up + down < 2 * objective(), move


def test_reg_covar_ends_at_a_maximum_in_every_entry_of_a_covariance():
    X, h = table("iris"), 1e-5
    m = bg.fit_em(X, 2, reg_covar=REG, rng=0, tolerance=1e-11, max_iterations=100_000).mixture
    for k in range(2):
        for i, j in zip(*np.triu_indices(4), strict=True):
            entry = np.zeros((2, 4, 4))
            entry[k, i, j] = entry[k, j, i] = h * np.sqrt(m.covariances[k, i, i] * m.covariances[k, j, j])
            up, down = (blurred(bg.GaussianMixture(m.weights, m.means, m.covariances + s * entry), X) for s in (1, -1))
            assert abs(up - down) / (2 * h) < 2e-3, (k, i, j)
            assert up + down < 2 * blurred(m, X), (k, i, j)


@pytest.mark.parametrize("covariance", NAMES)
def test_with_one_component_reg_covar_is_added_to_the_closed_form(covariance):
    X = table("iris")
    S = np.cov(X.T, bias=True) + np.diag(REG)
    expected = {"I": np.diag(np.diag(S))}.get(covariance[2], S)
    if covariance.endswith("II"):
        expected = np.eye(4) * np.trace(S) / 4
    fit = bg.fit_em(X, 1, covariance, reg_covar=REG)
    np.testing.assert_allclose(fit.mixture.covariances[0], expected, atol=1e-12)


@pytest.mark.parametrize("covariance", NAMES)
def test_a_vanishing_reg_covar_is_none(covariance):
    X = table("iris")
    plain, tiny = (bg.fit_em(X, 3, covariance, reg_covar=reg, rng=0) for reg in (0.0, 1e-13))
    assert plain.constraints == ()
    assert tiny.log_likelihood == pytest.approx(plain.log_likelihood, abs=1e-6)
    np.testing.assert_allclose(tiny.mixture.means, plain.mixture.means, atol=1e-5)


def test_integer_weights_are_duplicated_rows_with_reg_covar_too():
    X, weight = table("iris"), np.random.default_rng(4).integers(0, 4, size=150)
    start = bg.fit_em(X, 2, rng=0).mixture
    weighted = bg.fit_em(X, 2, reg_covar=REG, sample_weight=weight, starts=[start], tolerance=1e-9)
    repeated = bg.fit_em(np.repeat(X, weight, axis=0), 2, reg_covar=REG, starts=[start], tolerance=1e-9)
    np.testing.assert_allclose(weighted.mixture.covariances, repeated.mixture.covariances, rtol=1e-6)
    assert weighted.log_likelihood_path[-1] == pytest.approx(blurred(weighted.mixture, X, weight), rel=1e-12)
    assert weighted.bic == pytest.approx(repeated.bic)


@pytest.mark.parametrize("covariance", BASIC)
def test_reg_covar_and_priors_climb_together(covariance):
    X = table("iris")
    priors = priors_for(X, 2)
    start = np.arange(150) % 3 // 2
    fits = [
        bg.fit_em(X, 2, covariance, priors=priors, reg_covar=REG, starts=[start], max_iterations=m, tolerance=0.0)
        for m in (1, 3, 200)
    ]
    objectives = [blurred(f.mixture, X) + log_prior(f.mixture, priors, covariance) for f in fits]
    assert objectives[0] < objectives[1] < objectives[2]
    assert np.ptp([o - f.log_likelihood_path[-1] for o, f in zip(objectives, fits, strict=True)]) < 1e-8


@pytest.mark.parametrize("covariance", ["VVV", "EEE", "VVI", "EVE"])
def test_reg_covar_climbs_where_values_are_missing(covariance):
    """A row is a blob in all columns, whichever of its values are known."""
    X, rng = table("iris").copy(), np.random.default_rng(0)
    X[rng.random(X.shape) < 0.15] = np.nan
    fit = bg.fit_em(X, 3, covariance, reg_covar=REG, rng=0)
    loss = np.einsum("kii,i->k", np.linalg.inv(fit.mixture.covariances), REG) / 2
    assert fit.status is bg.Status.CONVERGED
    np.testing.assert_array_less(-1e-9, np.diff(fit.log_likelihood_path))
    objective = logsumexp(fit.mixture.log_joint(X) - loss, axis=1).sum()
    assert fit.log_likelihood_path[-1] == pytest.approx(objective, rel=1e-12)
    assert fit.log_likelihood == pytest.approx(fit.mixture.log_likelihood(X), rel=1e-12)


def test_with_reg_covar_a_mixture_is_begun_from():
    X = table("iris")
    start = bg.fit_em(X, 3, reg_covar=REG, rng=0, max_iterations=3).mixture
    again = bg.fit_em(X, 3, reg_covar=REG, starts=[start], max_iterations=0)
    np.testing.assert_allclose(again.mixture.covariances, start.covariances, atol=1e-12)


@pytest.mark.parametrize("covariance", NAMES)
def test_with_reg_covar_nothing_collapses(covariance):
    """Constant, equal and collinear columns, as many components as rows, fewer distinct rows than components."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 2))
    constant = np.c_[X, np.full(40, 3.0), X[:, 0], X @ [1.0, 2.0]]
    for rows, K in ((constant, 2), (X[:6], 6), (np.repeat(X[:2], 5, axis=0), 10)):
        fit = quiet(bg.fit_em, rows, K, covariance, reg_covar=1e-6, rng=0)
        assert fit.status is bg.Status.CONVERGED
        np.testing.assert_array_less(-1e-8, np.diff(fit.log_likelihood_path))
        assert np.linalg.eigvalsh(fit.mixture.covariances).min() > 1e-7


def test_what_needs_a_maximum_of_the_likelihood_refuses_reg_covar():
    X = table("old_faithful")
    fit = bg.fit_em(X, 2, reg_covar=0.01, rng=0)
    assert fit.penalised
    for call in (lambda: fit.standard_errors(X), lambda: bg.bootstrap(X, fit)):
        with pytest.raises(bg.InputError, match=r"cannot take account of reg_covar="):
            call()


@pytest.mark.parametrize("reg", [-1.0, np.nan, np.inf, "much", [[1.0]], [1.0, 1.0, 1.0], [0.1, -0.1], None])
def test_bad_reg_covar_is_refused(reg):
    with pytest.raises(bg.InputError, match="reg_covar"):
        bg.fit_em(table("old_faithful"), 2, reg_covar=reg)
