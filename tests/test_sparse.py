"""How many components are filled under sparse weights: against enumeration, and against the prior itself."""

import itertools

import numpy as np
import pytest
from oracles import deviation_allowed, errors_allowed, scale_matrices, seed
from scipy import integrate, stats
from scipy.special import gammaln

import bayesgmm as bg
from bayesgmm.bayes.gibbs import MODELS
from bayesgmm.bayes.priors import HierarchicalInverseWishart, InverseWishart, NormalMeans, Priors
from bayesgmm.bayes.sparse import CONCENTRATION_RATE, filled_draws, filled_prior
from bayesgmm.covariance import CovarianceModel


def log_prior_of(sizes, K):
    """Log probability of one assignment whose filled components have these sizes, the concentration integrated out."""
    N = sum(sizes)

    def density(a):
        value = gammaln(K * a) - gammaln(N + K * a) + sum(gammaln(n + a) - gammaln(a) for n in sizes)
        return np.exp(value) * CONCENTRATION_RATE * np.exp(-CONCENTRATION_RATE * a)

    return np.log(integrate.quad(density, 0, 3, limit=200, points=[0.01, 0.1])[0])


def log_marginal(groups, priors):
    """Log density of groups of one feature that share a variance, their means and it integrated out."""
    location, sd = priors.means.location[0], priors.means.scale[0]
    df, scale = priors.covariances.df, priors.covariances.scale[0, 0]
    variance = stats.invgamma(df / 2, scale=scale / 2)

    def density(log_v):
        v = np.exp(log_v)
        total = variance.logpdf(v) + log_v
        for x in groups:
            total += stats.multivariate_normal.logpdf(
                x, np.full(len(x), location), v * np.eye(len(x)) + sd**2 * np.ones((len(x), len(x)))
            )
        return np.exp(total)

    return np.log(integrate.quad(density, -8, 8, limit=200)[0])


@pytest.mark.statistical
@pytest.mark.parametrize("name", ["EEE", "VVV"])
def test_filled_components_are_those_of_all_assignments(name):
    """Five rows of one feature among three components: all 243 assignments. Errors are those of 40 chains."""
    X, K = np.array([-1.2, -0.9, 0.1, 1.4, 1.6]), 3
    priors = Priors(np.full(K, 1.0), NormalMeans([0.0], [1.5]), InverseWishart(3.0, np.array([[0.3]])))
    mass, known = np.zeros(K + 1), {}
    for z in itertools.product(range(K), repeat=len(X)):
        groups = [X[np.array(z) == k] for k in sorted(set(z))]
        key = tuple(sorted(tuple(x) for x in groups))
        if key not in known:
            parts = [groups] if name == "EEE" else [[x] for x in groups]
            known[key] = log_prior_of([len(x) for x in groups], K) + sum(log_marginal(part, priors) for part in parts)
        mass[len(groups)] += np.exp(known[key])
    chains = 40
    filled, _ = filled_draws(
        *(X[:, None], priors, CovarianceModel.named(name), np.zeros((chains, 5)), np.zeros((chains, K, 1))),
        np.random.default_rng(seed()),
        **{"draws": 1000, "tune": 100, "thin": 5},
    )
    for n, exact in enumerate(mass / mass.sum()):
        by_chain = (filled == n).mean(axis=1)
        allowed = errors_allowed(comparisons=K, df=chains - 1)
        assert abs(by_chain.mean() - exact) <= allowed * by_chain.std() / np.sqrt(chains - 1) + 1e-12


@pytest.mark.statistical
@pytest.mark.parametrize("hierarchical", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_the_prior_is_left_as_it_is(name, hierarchical):
    """Tables drawn from the prior: a chain that starts from what made them still has the prior's numbers at its end.

    Means of 1000 differences.
    """
    rng, N, K, D, repeats = np.random.default_rng(seed(1)), 8, 3, 2, 1000
    model = CovarianceModel.named(name)
    scale, strength = np.array([[2.0, 0.7], [0.7, 1.0]]), 4.0
    plain = InverseWishart(5.0, scale)
    means = NormalMeans([0.0, 1.0], covariance=[[4.0, -1.2], [-1.2, 1.0]])
    learned = HierarchicalInverseWishart(5.0, strength, scale / 4, floor=0.3)
    priors = Priors(np.ones(K), means, learned if hierarchical else plain)
    change = np.empty((repeats, 2))
    B, F = np.tile(scale, (repeats, 1, 1)), np.zeros((D, D))
    if hierarchical:
        B, F = scale_matrices(repeats, model, K, 5.0, strength, scale / 4, 0.3, rng)
    for r in range(repeats):
        alpha = rng.exponential(1 / CONCENTRATION_RATE)
        z = np.empty(N, np.int64)
        counts = np.zeros(K)
        for i in range(N):
            z[i] = rng.choice(K, p=(counts + alpha) / (i + K * alpha))
            counts[z[i]] += 1
        parts = Priors(np.ones(K), means, InverseWishart(5.0, B[r] + F)).sample(1, K, model, rng=rng)
        spread = np.linalg.cholesky(parts.covariances[0, z])
        X = parts.means[0, z] + np.einsum("nij,nj->ni", spread, rng.normal(size=(N, D)))
        options = {"draws": 1, "tune": 0, "thin": 10, "concentration": alpha, "scale_matrix": B[r]}
        filled, end = filled_draws(X, priors, model, z[None], parts.means, rng, **options)
        change[r] = filled[0, 0] - (counts > 0).sum(), end[0, 0] - alpha
    z_scores = change.mean(axis=0) / (change.std(axis=0) / np.sqrt(repeats))
    assert (np.abs(z_scores) < errors_allowed(comparisons=2, df=repeats - 1)).all(), z_scores


@pytest.mark.statistical
def test_prior_of_the_filled_is_the_sum_over_assignments():
    N, K = 5, 3
    exact = np.zeros(K + 1)
    for z in itertools.product(range(K), repeat=N):
        sizes = np.bincount(z)
        exact[len(set(z))] += np.exp(log_prior_of([n for n in sizes if n], K))
    drawn = filled_prior(N, K, np.random.default_rng(seed()), 100_000)
    np.testing.assert_array_less(np.abs(drawn - exact), deviation_allowed(exact, 100_000, comparisons=K))


@pytest.mark.statistical
def test_the_same_seed_gives_the_same_answer_and_other_units_the_same():
    """In other units the draws are others, of the same distribution: the means of twenty chains differ by chance."""
    X = bg.datasets.old_faithful()[:90]
    scaled = X * [60.0, 1.0] + [0.0, 7.0]
    few = {"chains": 20, "draws": 50, "tune": 50}
    options = {"criteria": "bic", "n_replicates": 0, "overfitted": True, "rng": seed(3), "sampling": few}
    first, again, other = (bg.select(table, 3, "tied", **options).overfitted for table in (X, X, scaled))
    np.testing.assert_array_equal(first.filled, again.filled)
    assert first.n_components == 10
    assert first.filled.shape == (20, 50)
    one, two = (said.filled.mean(axis=1) for said in (first, other))
    error = np.hypot(one.std(ddof=1), two.std(ddof=1)) / np.sqrt(20)
    assert abs(one.mean() - two.mean()) < errors_allowed(df=38) * error
    with pytest.raises(bg.InputError, match="VVV"):
        bg.select(X, 2, "EEV", **options)
    with pytest.raises(bg.InputError, match="sample_weight"):
        bg.select(X, 2, sample_weight=np.ones(len(X)), **options)
