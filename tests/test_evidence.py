"""Laws of the log evidence: closed forms, quadrature, full enumeration of the assignments, published values."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from oracles import errors_allowed, of_column, seed, table
from scipy.special import gammaln, logsumexp

import bayesgmm as bg
from bayesgmm.bayes import evidence as module, integrals
from bayesgmm.bayes.evidence import Estimate, evidence_of_draws
from bayesgmm.observations import observations

APART = np.array([-3.0, -2.5, -2.0, -2.2, 2.0, 2.3, 2.9, 3.1, 2.5])[:, None]


OVERLAPPING = np.array([-1.2, -0.4, 0.1, 0.3, 0.8, 1.5, -0.2, 0.6])[:, None]


LOG_CHI_SQUARE = np.linspace(-16.0, 8.0, 2401)


def enumerated(X, priors, shared):
    """Log evidence by the sum over all K^N assignments; means integrated in closed form, variances by quadrature."""
    x, a, t = X[:, 0] - priors.means.location[0], priors.concentration, LOG_CHI_SQUARE
    df, spread = priors.covariances.df, priors.means.scale[0] ** 2
    precision = np.exp(t) / priors.covariances.scale[0, 0]
    log_prior = 0.5 * (df * t - np.exp(t) - df * math.log(2)) - gammaln(df / 2) + math.log(t[1] - t[0])

    def log_marginal(member):  # (assignments, N) -> (assignments, precisions)
        n, s, q = (np.sum(member * power, axis=1)[:, None] for power in (1, x, x**2))
        v = 1 + n * precision * spread
        exponent = precision * (q - precision * spread * s**2 / v)
        return 0.5 * (n * np.log(precision / (2 * np.pi)) - np.log(v) - exponent)

    z = np.array(list(itertools.product(range(len(a)), repeat=len(x))))
    counts = np.stack([(z == k).sum(axis=1) for k in range(len(a))], axis=1)
    log_p = gammaln(a.sum()) - gammaln(a.sum() + len(x)) + (gammaln(a + counts) - gammaln(a)).sum(axis=1)
    parts = [log_marginal(z == k) for k in range(len(a))]
    if shared:
        return logsumexp(log_p + logsumexp(sum(parts) + log_prior, axis=1))
    return logsumexp(log_p + sum(logsumexp(part + log_prior, axis=1) for part in parts))


def priors_of(concentration):
    return bg.Priors(np.array(concentration), bg.NormalMeans([0.2], [2.0]), bg.InverseWishart(3, [[1.0]]))


def drawn(X, K, covariance, priors, rng=0, **options):
    fit = bg.fit_em(X, K, covariance, priors=priors, rng=0)
    return bg.sample_posterior(X, fit, priors, rng=seed(rng), **options)


def allowed(*errors):
    """How far two estimates, by two methods, may be off; errors of bridge sampling can be too small by a third."""
    return 1.5 * errors_allowed(comparisons=2) * math.hypot(*errors)


def assert_right(evidence, exact, largest_se=0.3):
    """Standard errors are at most 0.05 nats at the median over seeds, and twice that at the most of a hundred."""
    for method in ("bridge", "thames"):
        value, se = evidence.estimates[method]
        assert se < largest_se, method
        assert abs(value - exact) < allowed(se), method


def arrays(tree):
    density = bg.posterior(tree).density
    return density, density.pack(bg.as_mixture(tree)), tree["sample_stats"]["lp"].values


@pytest.fixture(scope="module")
def overlapping():
    return drawn(OVERLAPPING, 2, "V", priors_of([1.0, 1.0]))


@pytest.fixture(scope="module")
def faithful(faithful_posterior):
    return faithful_posterior


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("X", "covariance", "concentration"),
    [
        (APART, "V", [1.0]),
        (APART, "V", [1.0, 1.0]),
        (APART, "E", [1.0, 1.0]),
        (OVERLAPPING, "E", [2.0, 2.0]),
        (OVERLAPPING, "V", [1.0, 4.0]),
        (OVERLAPPING[:6], "V", [1.0, 1.0, 1.0]),
        (OVERLAPPING[:2], "V", [1.0]),
    ],
    ids=["one", "two-apart", "two-shared", "overlapping-shared", "told-apart-by-the-prior", "three", "two-rows"],
)
def test_evidence_equals_the_sum_over_all_assignments(X, covariance, concentration):
    priors = priors_of(concentration)
    tree = drawn(X, len(concentration), covariance, priors)
    evidence = bg.log_evidence(tree, rng=seed())
    assert_right(evidence, enumerated(X, priors, covariance == "E"))
    copies = math.factorial(len(concentration)) if priors.exchangeable else 1
    assert evidence.log_copies == pytest.approx(math.log(copies))


@pytest.mark.statistical
def test_evidence_of_a_table_with_holes_is_that_of_its_columns():
    """Of one component of independent features, column by column; rows without values change nothing."""
    X = np.column_stack([APART[:, 0], np.roll(APART[:, 0], 3) + 1.0])
    X[[1, 4, 6], [0, 1, 1]] = np.nan
    covariances = bg.InverseWishart(4, np.diag([1.0, 2.0]))
    priors = bg.Priors(np.ones(1), bg.NormalMeans([0.2, 1.0], [2.0, 3.0]), covariances)
    exact = sum(enumerated(x[~np.isnan(x)][:, None], of_column(priors, j), False) for j, x in enumerate(X.T))
    posterior = bg.posterior(drawn(X, 1, "VVI", priors))
    evidence = bg.log_evidence(posterior, rng=seed())
    assert_right(evidence, exact)
    more = replace(posterior, table=observations(np.insert(X, [0, 5], np.nan, axis=0)))
    assert bg.log_evidence(more, rng=seed()).value == pytest.approx(evidence.value, abs=1e-9)


@pytest.mark.statistical
def test_evidence_is_right_where_the_labels_switch_all_the_time(overlapping):
    assert overlapping.attrs["switch_rate"] > 0.3
    assert_right(bg.log_evidence(overlapping, rng=seed()), enumerated(OVERLAPPING, priors_of([1.0, 1.0]), False))


@pytest.mark.statistical
def test_a_proposal_that_cannot_be_fitted_is_done_without(overlapping, monkeypatch):
    fit = integrals.fit_quietly

    def collapses(rows, components, **options):
        if components == 2:
            raise bg.DegenerateFitError("all 10 starts collapsed")
        return fit(rows, components, **options)

    monkeypatch.setattr(integrals, "fit_quietly", collapses)
    assert_right(bg.log_evidence(overlapping, rng=seed()), enumerated(OVERLAPPING, priors_of([1.0, 1.0]), False))


@pytest.mark.statistical
def test_evidence_of_one_component_equals_quadrature_over_its_covariance():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(7, 2)) @ [[1.0, 0.6], [0.0, 0.5]] + 1.0
    priors = bg.Priors([1.0], bg.NormalMeans([0.5, 1.0], [2.0, 1.5]), bg.InverseWishart(4, [[1.0, 0.2], [0.2, 0.5]]))
    # Bartlett: precision U A A'U', squares of A's diagonal chi-square, its entry above standard normal.
    t = np.linspace(-14, 7, 90)
    above = np.linspace(-9, 9, 90)
    t1, t2, b = (grid.ravel() for grid in np.meshgrid(t, t, above, indexing="ij"))
    A = np.zeros((len(b), 2, 2))
    A[:, 0, 0], A[:, 1, 1], A[:, 0, 1] = np.exp(t1 / 2), np.exp(t2 / 2), b
    U = np.linalg.inv(np.linalg.cholesky(priors.covariances.scale)).T
    precision = U @ A @ np.swapaxes(A, 1, 2) @ U.T
    log_prior = -0.5 * b**2 - 0.5 * math.log(2 * math.pi)
    for square, df in ((t1, 3), (t2, 4)):
        log_prior += 0.5 * (df * square - np.exp(square) - df * math.log(2)) - gammaln(df / 2)
    # The mean given the covariance in closed form: p(X) = likelihood x prior / posterior at any mean, here the prior's.
    Q = np.diag(priors.means.scale**-2.0)
    centered = X - priors.means.location
    total = centered.sum(axis=0)
    posterior = Q + len(X) * precision
    pull = np.einsum("sij,j->si", precision, total)
    gain = np.einsum("si,si->s", pull, np.linalg.solve(posterior, pull[..., None])[..., 0])
    log_marginal = 0.5 * len(X) * np.linalg.slogdet(precision)[1] - len(X) * math.log(2 * math.pi)
    log_marginal -= 0.5 * np.einsum("sij,ij->s", precision, centered.T @ centered)
    log_marginal += 0.5 * (np.linalg.slogdet(Q)[1] - np.linalg.slogdet(posterior)[1] + gain)
    volume = 2 * math.log(t[1] - t[0]) + math.log(above[1] - above[0])
    exact = logsumexp(log_prior + log_marginal) + volume
    assert_right(bg.log_evidence(drawn(X, 1, "full", priors), rng=seed()), exact)


@pytest.mark.statistical
@pytest.mark.parametrize(("K", "published"), [(2, -235.254), (3, -226.677)])
def test_evidence_of_the_galaxies_is_the_published_one(K, published):
    # Richardson & Green's prior; values of the vignette of the R package thamesmix (its error is not given).
    X = table("galaxies")
    R = np.ptp(X)
    priors = bg.Priors(
        np.ones(K),
        bg.NormalMeans([(X.min() + X.max()) / 2], [R]),
        bg.HierarchicalInverseWishart(4, 0.4, [[R**2 / 10]]),
    )
    wide_and_narrow = bg.GaussianMixture([0.5, 0.5], [[21.0], [21.0]], [[[60.0]], [[2.0]]])
    fit = bg.fit_em(X, K, rng=0, starts=[wide_and_narrow] if K == 2 else None)
    evidence = bg.log_evidence(bg.sample_posterior(X, fit, priors, rng=seed(1)), rng=seed())
    assert evidence.se < 0.1
    assert abs(evidence.value - published) < 0.1 + allowed(evidence.se)


@pytest.mark.statistical
@pytest.mark.parametrize("covariance", ["VEI", "EVV", "EEE", "VVI"])
def test_two_methods_agree_in_other_covariance_models(covariance):
    X = table("iris")[::2, :3]
    priors = bg.Priors.weakly_informative(X, 2)
    evidence = bg.log_evidence(drawn(X, 2, covariance, priors, draws=500), rng=seed())
    (bridge, se), (thames, thames_se) = evidence.estimates["bridge"], evidence.estimates["thames"]
    assert max(se, thames_se) < 0.5
    assert abs(bridge - thames) < allowed(se, thames_se)


@pytest.mark.statistical
def test_new_units_add_the_log_jacobian(faithful):
    X, scale = table("old_faithful"), np.array([60.0, 0.5])
    tree = drawn(X * scale, 2, "full", bg.Priors.weakly_informative(X * scale, 2), draws=500)
    a, b = bg.log_evidence(faithful, rng=seed()), bg.log_evidence(tree, rng=seed(1))
    assert a.se < 0.1
    assert abs(a.value - b.value - len(X) * np.log(scale).sum()) < allowed(a.se, b.se)


@pytest.mark.statistical
def test_evidence_does_not_depend_on_the_labels_of_draws_or_target(overlapping):
    density, thetas, log_values = arrays(overlapping)
    draws = density.unpack(thetas)
    exact = enumerated(OVERLAPPING, priors_of([1.0, 1.0]), False)
    shuffled = draws.permute(np.random.default_rng(0).permuted(np.tile([0, 1], (*draws.batch_shape, 1)), axis=-1))
    one = bg.GaussianMixture(draws.weights[0, 0], draws.means[0, 0], draws.covariances[0, 0])
    same = bg.GaussianMixture([0.5, 0.5], [[0.1], [0.1]], [[[1.0]], [[1.0]]])  # tells no labels apart
    for target in (one, one.permute([1, 0]), same):
        assert_right(evidence_of_draws(density, density.pack(shuffled), log_values, target, rng=seed()), exact)


@pytest.mark.statistical
def test_chains_in_one_mode_give_the_evidence_of_all(faithful):
    density, thetas, log_values = arrays(faithful)
    target = density.unpack(thetas[0, 0])
    some = evidence_of_draws(density, thetas[:2], log_values[:2], target, rng=seed())
    others = evidence_of_draws(density, thetas[2:], log_values[2:], target, rng=seed(1))
    assert abs(some.value - others.value) < allowed(some.se, others.se)


@pytest.mark.statistical
def test_laplace_is_near_where_the_posterior_is_near_normal(faithful):
    laplace = bg.log_evidence(faithful, "laplace", rng=seed())
    assert math.isnan(laplace.se)
    assert set(laplace.estimates) == {"laplace"}
    assert abs(laplace.value - bg.log_evidence(faithful, rng=seed()).value) < 0.3  # with errors of 0.02


@pytest.mark.statistical
def test_laplace_counts_a_mode_of_equal_components_once():
    # Two components with one shared variance, both at the centre: the mode is its own mirror image.
    priors = bg.Priors(np.full(2, 20.0), bg.NormalMeans([0.0], [0.1]), bg.InverseWishart(20, [[20.0]]))
    X = np.linspace(-1.5, 1.5, 10)[:, None]
    tree = drawn(X, 2, "E", priors, draws=500)
    assert abs(bg.log_evidence(tree, "laplace", rng=seed()).value - enumerated(X, priors, True)) < 0.15


@pytest.mark.statistical
def test_draws_without_their_density_get_it_computed(overlapping):
    bare = overlapping.copy()
    bare["sample_stats"] = xr.DataTree(overlapping["sample_stats"].to_dataset().drop_vars("lp"))
    assert_right(bg.log_evidence(bare, rng=seed()), enumerated(OVERLAPPING, priors_of([1.0, 1.0]), False))


def test_a_seed_gives_the_same_evidence_again_and_the_method_its_value(overlapping):
    bridge = bg.log_evidence(overlapping, rng=7)
    thames = bg.log_evidence(overlapping, "thames", rng=7)
    assert bridge.estimates == thames.estimates
    assert bridge.value == bridge.estimates["bridge"].value
    assert thames.value == thames.estimates["thames"].value
    assert "bridge sampling" in str(bridge)
    assert "log K! = 0.69" in str(bridge)


def test_what_speaks_against_an_estimate_is_said():
    def said(**estimates):
        return " ".join(map(str, module._faults({name: Estimate(*pair) for name, pair in estimates.items()}, "bridge")))

    assert said(bridge=(-10.0, 0.01), thames=(-10.03, 0.02)) == ""
    assert "exceeds 0.5 nats" in said(bridge=(-10.0, 0.6), thames=(-10.0, 0.1))
    assert "differ by 3 nats" in said(bridge=(-10.0, 0.01), thames=(-13.0, 0.02))
    assert "could not confirm" in said(bridge=(-10.0, 0.01), thames=(math.nan, math.inf))
    assert "failed" in said(bridge=(math.nan, math.inf), thames=(-10.0, 0.1))


def test_chains_that_did_not_converge_are_not_trusted(overlapping):
    doubtful = overlapping.copy()
    doubtful.attrs["verdict"] = "NOT_CONVERGED"
    evidence = bg.log_evidence(doubtful, rng=0)
    assert not evidence.trusted
    assert "Not to be trusted: the chains did not converge" in str(evidence)


def test_what_cannot_be_computed_is_refused(overlapping):
    with pytest.raises(bg.InputError, match="unknown method 'harmonic'"):
        bg.log_evidence(overlapping, "harmonic")
    with pytest.raises(bg.InputError, match="needs a posterior: the DataTree"):
        bg.log_evidence({})
    approximate = overlapping.copy()
    approximate.attrs["method"] = "laplace"
    with pytest.raises(bg.InputError, match="these are of an approximation"):
        bg.log_evidence(approximate)
    density, thetas, log_values = arrays(overlapping)
    with pytest.raises(bg.InputError, match=r"20 draws, \d+ of them distinct"):
        evidence_of_draws(density, thetas[:2, :10], log_values[:2, :10], None)
    with pytest.raises(bg.InputError, match="must have shapes"):
        evidence_of_draws(density, thetas[0], log_values[0], None)
    with pytest.raises(bg.InputError, match="must be finite"):
        evidence_of_draws(density, thetas, np.where(log_values == log_values.max(), np.nan, log_values), None)
    stuck = np.repeat(thetas[:, :1], 200, axis=1), np.repeat(log_values[:, :1], 200, axis=1)
    with pytest.raises(bg.InputError, match="distinct"):
        evidence_of_draws(density, *stuck, None)


def test_what_an_evidence_needs_of_a_posterior_is_said(overlapping):
    for group in ("observed_data", "em"):
        with pytest.raises(bg.InputError, match="with its table, fit and priors"):
            bg.log_evidence(overlapping.drop_nodes(group))


def test_a_method_that_failed_is_shown_as_failed():
    estimates = {"bridge": Estimate(-10.0, 0.01), "thames": Estimate(math.nan, math.inf)}
    text = str(bg.Evidence(-10.0, 0.01, "bridge", estimates, 0.0, tuple(module._faults(estimates, "bridge"))))
    assert text.startswith("log evidence -10.00, standard error 0.01 (nats, bridge sampling; THAMES failed)")
    assert "Not to be trusted: THAMES could not confirm it: no region was found" in text
