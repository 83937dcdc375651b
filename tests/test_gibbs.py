"""Gibbs sampling of the assignments: against enumeration, against the prior itself, and against Green's Nmix."""

import itertools

import numpy as np
import pytest
from arviz_stats.base import array_stats
from oracles import IMPERFECTIONS, errors_allowed, imperfect, quiet, reference, scale_matrices, seed, table
from scipy import integrate, stats
from scipy.special import gammaln

import bayesgmm as bg
from bayesgmm.bayes import sample
from bayesgmm.bayes.gibbs import MODELS, AssignmentChains, Kept
from bayesgmm.bayes.priors import HierarchicalInverseWishart, InverseWishart, NormalMeans, Priors
from bayesgmm.covariance import CovarianceModel
from bayesgmm.observations import any_rows


def run(X, priors, model, labels, means, rng, draws, thin, scale=None, values=None):
    """Draws of chains that start from labels (chains, N) and means (chains, K, D)."""
    chains, K, D = means.shape
    shapes = {"filled": (), "weights": (K,), "means": (K, D), "factors": (K, D, D)}
    types = {"filled": np.int64}
    kept = Kept(**{name: np.empty((chains, draws, *s), types.get(name, float)) for name, s in shapes.items()})
    options = {"concentration": priors.concentration, "scale_matrix": scale, "values": values}
    AssignmentChains(X, priors, model, labels, means, rng, **options).advance(kept, 0, draws, thin)
    return kept


def group_moments(groups, priors):
    """Log density of groups of one feature that share a variance v, and their means' expectations given them.

    By the trapezoidal rule over log v, with the mean of each group integrated out.
    """
    location, tau = priors.means.location[0], priors.means.scale[0] ** 2
    log_v = np.linspace(-8, 8, 2000)
    v = np.exp(log_v)
    total = stats.invgamma(priors.covariances.df / 2, scale=priors.covariances.scale[0, 0] / 2).logpdf(v) + log_v
    means = []
    for x in groups:
        n, first, second = len(x), (x - location).sum(), ((x - location) ** 2).sum()
        total -= 0.5 * (n * np.log(2 * np.pi * v) + np.log1p(n * tau / v) + second / v)
        total += 0.5 * tau * first**2 / (v * (v + n * tau))
        means.append(location + tau * first / (v + n * tau))
    mass = np.exp(total)
    value = integrate.trapezoid(mass, log_v)
    return np.log(value), [integrate.trapezoid(mass * mean, log_v) / value for mean in means]


@pytest.mark.statistical
@pytest.mark.parametrize("name", ["EII", "VII", "EEE", "VVV"])
def test_weights_and_means_are_those_of_all_assignments(name):
    """Five rows of one feature among three components with unlike weights: all 243 assignments.

    Compared are the numbers of filled components, each weight, and weight times mean; errors are those of 40 chains.
    """
    X, a, K = np.array([-1.2, -0.9, 0.1, 1.4, 1.6]), np.array([0.4, 1.0, 2.5]), 3
    priors = Priors(a, NormalMeans([0.2], [1.5]), InverseWishart(3.0, np.array([[0.3]])))
    model = CovarianceModel.named(name)
    known, log_mass, expected = {}, [], []
    for z in itertools.product(range(K), repeat=len(X)):
        groups = {k: tuple(X[np.array(z) == k]) for k in sorted(set(z))}
        for part in [tuple(groups.values())] if model.volume == "E" else [(x,) for x in groups.values()]:
            if part not in known:
                known[part] = group_moments([np.array(x) for x in part], priors)
        mean = np.full(K, priors.means.location[0])
        if model.volume == "E":
            value, mean[list(groups)] = known[tuple(groups.values())]
        else:
            value = sum(known[(x,)][0] for x in groups.values())
            mean[list(groups)] = [known[(x,)][1][0] for x in groups.values()]
        counts = np.bincount(z, minlength=K)
        weights = (counts + a) / (len(X) + a.sum())
        log_mass.append(value + gammaln(counts + a).sum())
        expected.append([*(len(groups) == np.arange(1, K)), *weights, *weights * mean])
    mass = np.exp(np.array(log_mass) - max(log_mass))
    exact = mass @ np.array(expected) / mass.sum()
    chains, rng = 40, np.random.default_rng(seed())
    start = rng.integers(K, size=(chains, len(X))), rng.normal(size=(chains, K, 1))
    kept = run(X[:, None], priors, model, *start, rng, draws=1000, thin=3).picked(np.s_[:, 50:])
    filled = kept.filled[..., None] == np.arange(1, K)
    drawn = np.concatenate([filled, kept.weights, kept.weights * kept.means[..., 0]], axis=2).mean(axis=1)
    z_scores = (drawn.mean(axis=0) - exact) / (drawn.std(axis=0) / np.sqrt(chains - 1))
    assert (np.abs(z_scores) < errors_allowed(comparisons=len(exact), df=chains - 1)).all(), z_scores


def measured(X, kind, rng):
    """What is measured of true values (N, D): some of them, one row not at all; with errors of row and column."""
    N, D = X.shape
    errors, Y = np.zeros((N, D, D)), X.copy()
    if "correlated" in kind:
        A = rng.normal(size=(N, D, D))
        errors = A @ np.swapaxes(A, 1, 2)
        errors[1] = np.outer(A[1, 0], A[1, 0])  # that are one error
    elif "errors" in kind:
        errors = rng.choice([0.0, 0.5, 2.0], size=(N, D, 1)) * np.eye(D)
    if "errors" in kind:
        level, axes = np.linalg.eigh(errors)
        Y += np.einsum("nij,nj,nj->ni", axes, np.sqrt(np.maximum(level, 0.0)), rng.normal(size=(N, D)))
    if "holes" in kind:
        Y[rng.random(Y.shape) < 0.3] = np.nan
        Y[3] = np.nan
    return any_rows(Y, error_covariance=errors)


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("name", "hierarchical", "kind"),
    [
        *itertools.product(MODELS, [False, True], ["complete"]),
        *itertools.product(["VVV", "EEE", "VVI", "EII"], [False], IMPERFECTIONS),
    ],
)
def test_the_prior_is_left_as_it_is(name, hierarchical, kind):
    """Tables drawn from the prior: a chain that starts from what made them still has the prior's numbers at its end.

    Means of 1000 differences of weights, means, their squares, and log determinants of the covariances.
    """
    rng, N, K, D, repeats = np.random.default_rng(seed(1)), 8, 3, 2, 1000
    model, a = CovarianceModel.named(name), np.array([0.3, 1.0, 2.0])
    scale, strength = np.array([[2.0, 0.7], [0.7, 1.0]]), 4.0
    means = NormalMeans([0.0, 1.0], covariance=[[4.0, -1.2], [-1.2, 1.0]])
    learned = HierarchicalInverseWishart(5.0, strength, scale / 4, floor=0.3)
    priors = Priors(a, means, learned if hierarchical else InverseWishart(5.0, scale))

    def numbers(weights, means, log_det):
        products = weights[:, None] * means
        return np.concatenate([weights, means.ravel(), products.ravel(), (means**2).ravel(), log_det, log_det**2])

    B, F = np.broadcast_to(scale, (repeats, D, D)), 0.0
    if hierarchical:
        B, F = scale_matrices(repeats, model, K, 5.0, strength, scale / 4, 0.3, rng)
    change = []
    for r in range(repeats):
        given = Priors(a, means, InverseWishart(5.0, B[r] + F)).sample(1, K, model, rng=rng)
        z = rng.choice(K, size=N, p=given.weights[0])
        spread = np.linalg.cholesky(given.covariances[0, z])
        X = given.means[0, z] + np.einsum("nij,nj->ni", spread, rng.normal(size=(N, D)))
        rows = measured(X, kind, rng)
        end = run(rows, priors, model, z[None], given.means, rng, draws=1, thin=6, scale=B[r], values=[X])
        log_det = -2 * np.linalg.slogdet(end.factors[0, 0])[1]
        before = numbers(given.weights[0], given.means[0], np.linalg.slogdet(given.covariances[0])[1])
        change.append(numbers(end.weights[0, 0], end.means[0, 0], log_det) - before)
    z_scores = np.mean(change, axis=0) / (np.std(change, axis=0) / np.sqrt(repeats))
    allowed = errors_allowed(comparisons=len(z_scores), df=repeats - 1)
    assert (np.abs(z_scores) < allowed).all(), z_scores


@pytest.mark.statistical
@pytest.mark.parametrize("kind", IMPERFECTIONS)
def test_an_imperfect_tables_posterior_is_that_of_nuts(kind):
    """Weights, means and log determinants; errors are by effective sample sizes."""
    rng = np.random.default_rng(seed(3))
    mixture = bg.GaussianMixture([0.4, 0.6], [[0.0, 0.0], [5.0, 3.0]], [np.eye(2), [[1.0, 0.6], [0.6, 2.0]]])
    rows = imperfect(mixture.sample(80, rng=rng)[0], kind, rng)
    fit = bg.fit_em(rows, 2, rng=0)

    def numbers(sampler):
        draws = bg.posterior(quiet(bg.sample_posterior, rows, fit, sampler=sampler, rng=seed(4))).draws
        log_det = np.linalg.slogdet(draws.covariances)[1]
        values = np.concatenate([draws.weights[..., :1], draws.means.reshape(*log_det.shape[:2], 4), log_det], axis=-1)
        ess = np.array([array_stats.ess(v, chain_axis=0, draw_axis=1) for v in np.moveaxis(values, -1, 0)])
        return values.mean(axis=(0, 1)), values.std(axis=(0, 1)) / np.sqrt(ess)

    (one, own), (other, its) = numbers("gibbs"), numbers("nutpie")
    np.testing.assert_array_less(np.abs(one - other) / np.hypot(own, its), errors_allowed(comparisons=7))


@pytest.mark.statistical
@pytest.mark.parametrize("K", [1, 3, 5])
def test_the_galaxies_are_what_nmix_says(K):
    """Green's own program under Richardson & Green's prior: mean, variance and log-likelihood of the mixture.

    With two components Nmix itself hardly moves between its two modes: its components have 170 effective draws.
    """
    X, of_nmix = table("galaxies_fixed")[:, :1], reference("nmix_galaxies.json")
    prior, known = of_nmix["prior"], of_nmix["fixed_k"][str(K)]["label_invariant"]
    scale = [[1 / (2 * prior["h"])]]
    covariances = bg.HierarchicalInverseWishart(2 * prior["alpha"], 2 * prior["g"], scale)
    priors = bg.Priors(1.0, bg.NormalMeans([prior["xi"]], [prior["kappa"] ** -0.5]), covariances)
    fit = bg.fit_em(X, K, "V", priors=bg.Priors.weakly_informative(X, K), rng=0)
    drawn = bg.posterior(bg.sample_posterior(X, fit, priors, sampler="gibbs", rng=seed(2)))
    w, mu, variances = drawn.draws.weights, drawn.draws.means[..., 0], drawn.draws.covariances[..., 0, 0]
    mean = (w * mu).sum(axis=-1)
    values = {
        "mixture_mean": mean,
        "mixture_var": (w * (variances + mu**2)).sum(axis=-1) - mean**2,
        "loglik": drawn.draws.log_likelihood(X),
    }
    for name, value in values.items():
        own = value.std() / np.sqrt(array_stats.ess(value, chain_axis=0, draw_axis=1))
        error = np.hypot(own, known[name]["sd"] / np.sqrt(known[name]["ess_bulk"]))
        off = (value.mean() - known[name]["mean"]) / error
        assert abs(off) < errors_allowed(comparisons=3), (name, off)


def test_the_same_seed_gives_the_same_draws_and_progress_ends_at_the_total(faithful_fit):
    X, told = table("old_faithful"), []
    options = {"sampler": "gibbs", "draws": 200, "rng": 0}
    first = bg.sample_posterior(X, faithful_fit, **options, progress=lambda *what: told.append(what))
    again = bg.sample_posterior(X, faithful_fit, **options)
    np.testing.assert_array_equal(first["posterior"]["means"], again["posterior"]["means"])
    assert told[0] == ("posterior", 0, 2800)
    assert told[-1] == ("posterior", 2800, 2800)
    drawn = bg.posterior(first)
    assert (drawn.sampling.sampler, drawn.draws.batch_shape) == ("gibbs", (4, 200))
    heights = drawn.density.log_densities(drawn.density.pack(drawn.draws))
    np.testing.assert_allclose(drawn.statistics["lp"], heights, rtol=1e-10)


def test_what_gibbs_sampling_cannot_draw_is_refused(faithful_fit):
    X = table("old_faithful")
    weak = bg.Priors.weakly_informative(X, 2)
    lkj = bg.Priors(1.0, weak.means, bg.LKJ(2.0, bg.HalfNormal([1.0, 15.0])))
    with pytest.raises(bg.InputError, match="needs InverseWishart or HierarchicalInverseWishart covariances, not LKJ"):
        bg.sample_posterior(X, faithful_fit, lkj, sampler="gibbs")
    with pytest.raises(bg.InputError, match=r"no covariance VEE; .*EII, VII, EEI, VVI, EEE, VVV"):
        bg.sample_posterior(X, bg.fit_em(X, 2, "VEE", rng=0), sampler="gibbs")


def test_an_interrupt_gives_what_there_is(faithful_fit, monkeypatch):
    """After the first sweeps that are done without a pause."""
    monkeypatch.setattr("bayesgmm.bayes.samplers.mixed", lambda drawn: False)

    def interrupt(_, done, __):
        if done > 0:
            raise KeyboardInterrupt

    X = table("old_faithful")
    with pytest.warns(bg.ConvergenceWarning, match="interrupted with 9. of 100 draws"):
        tree = bg.sample_posterior(X, faithful_fit, sampler="gibbs", draws=100, rng=0, progress=interrupt)
    assert "partial" in tree.attrs
    assert np.isfinite(tree["posterior"]["means"]).all()


def test_gibbs_sampling_goes_on_where_nuts_does_not_converge(faithful_fit, monkeypatch):
    """NUTS is made to say that all transitions diverged."""

    def divergent(*arguments):
        chains = by_nutpie(*arguments)
        return chains._replace(statistics=chains.statistics | {"diverging": np.ones(chains.thetas.shape[:2], bool)})

    by_nutpie = sample._SAMPLERS["nutpie"]
    monkeypatch.setitem(sample._SAMPLERS, "nutpie", divergent)
    X = table("old_faithful")
    drawn = bg.posterior(bg.sample_posterior(X, faithful_fit, rng=0))
    assert (drawn.sampling.sampler, drawn.sampling.method) == ("gibbs", "gibbs")
    assert drawn.verdict.good
    assert "from Gibbs sampling of the assignments, as NUTS did not converge" in drawn.verdict.text
    with pytest.warns(bg.ConvergenceWarning, match="4000 transitions diverged"):
        other = bg.posterior(bg.sample_posterior(X, faithful_fit, sampler="nutpie", rng=0))
    assert other.sampling.sampler == "nutpie"
