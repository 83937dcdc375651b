"""Gibbs sampling of the assignments: against enumeration, against the prior itself, and against Green's Nmix."""

import itertools

import numpy as np
import pytest
from oracles import errors_allowed, scale_matrix, seed
from scipy import integrate, stats
from scipy.special import gammaln

from bayesgmm.bayes.gibbs import MODELS, AssignmentChains, Kept
from bayesgmm.bayes.priors import HierarchicalInverseWishart, InverseWishart, NormalMeans, Priors
from bayesgmm.covariance import CovarianceModel


def run(X, priors, model, labels, means, rng, draws, thin, scale=None):
    """Draws of chains that start from labels (chains, N) and means (chains, K, D)."""
    chains, K, D = means.shape
    shapes = {"filled": (), "weights": (K,), "means": (K, D), "factors": (K, D, D)}
    types = {"filled": np.int64}
    kept = Kept(**{name: np.empty((chains, draws, *s), types.get(name, float)) for name, s in shapes.items()})
    options = {"concentration": priors.concentration, "scale_matrix": scale}
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


@pytest.mark.statistical
@pytest.mark.parametrize("hierarchical", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_the_prior_is_left_as_it_is(name, hierarchical):
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

    change = []
    for _ in range(repeats):
        B, F = scale_matrix(model, K, 5.0, strength, scale / 4, 0.3, rng) if hierarchical else (scale, 0.0)
        given = Priors(a, means, InverseWishart(5.0, B + F)).sample(1, K, model, rng=rng)
        z = rng.choice(K, size=N, p=given.weights[0])
        spread = np.linalg.cholesky(given.covariances[0, z])
        X = given.means[0, z] + np.einsum("nij,nj->ni", spread, rng.normal(size=(N, D)))
        end = run(X, priors, model, z[None], given.means, rng, draws=1, thin=6, scale=B)
        log_det = -2 * np.linalg.slogdet(end.factors[0, 0])[1]
        before = numbers(given.weights[0], given.means[0], np.linalg.slogdet(given.covariances[0])[1])
        change.append(numbers(end.weights[0, 0], end.means[0, 0], log_det) - before)
    z_scores = np.mean(change, axis=0) / (np.std(change, axis=0) / np.sqrt(repeats))
    allowed = errors_allowed(comparisons=len(z_scores), df=repeats - 1)
    assert (np.abs(z_scores) < allowed).all(), z_scores
