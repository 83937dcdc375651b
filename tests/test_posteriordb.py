"""The posterior against posteriordb's reference draws under its own priors, and against the sum over assignments."""

import json
from pathlib import Path

import arviz as az
import numpy as np
import pytest
from oracles import errors_allowed, seed
from scipy import stats
from scipy.special import betaln, logsumexp, softmax

import bayesgmm as bg
from bayesgmm.bayes.density import Density
from bayesgmm.covariance import CovarianceModel
from bayesgmm.observations import observations

HERE = Path(__file__).parent / "reference" / "posteriordb"
PRIORS = bg.Priors([5.0, 5.0], bg.NormalMeans([0.0], [2.0]), bg.LKJ(1.0, bg.HalfNormal(2.0)))


def parameters(tree):
    """Draws (chain, draw) of the ordered posterior's parameters, by posteriordb's names."""
    m = bg.as_mixture(tree)
    m = m.permute(m.means[..., 0].argsort(axis=-1))
    sigma = np.sqrt(m.covariances[..., 0, 0])
    found = {"theta": m.weights[..., 0]}
    return found | {f"{n}[{k + 1}]": v[..., k] for n, v in (("mu", m.means[..., 0]), ("sigma", sigma)) for k in (0, 1)}


@pytest.mark.statistical
def test_low_dim_gauss_mix_has_posteriordbs_moments():
    """Theirs are of 10 000 independent draws."""
    X = np.array(json.loads((HERE / "low_dim_gauss_mix.data.json").read_text())["y"])[:, None]
    reference = json.loads((HERE / "low_dim_gauss_mix.json").read_text())
    tree = bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), PRIORS, draws=2500, rng=seed())
    for name, draws in parameters(tree).items():
        mean, sd = (reference["parameters"][name][what] for what in ("mean", "sd"))
        allowed = errors_allowed(comparisons=10)
        assert abs(draws.mean() - mean) < allowed * np.hypot(float(az.mcse(draws)), sd / np.sqrt(10_000)), name
        error = np.hypot(float(az.mcse(draws, method="sd")), sd / np.sqrt(20_000))
        assert abs(draws.std() - sd) < allowed * error, name


def test_density_is_posteriordbs_at_its_points():
    """Log prior and likelihood at posterior draws, after the Jacobian of weights (2 w1 w2) and of log sigmas."""
    X = np.array(json.loads((HERE / "low_dim_gauss_mix.data.json").read_text())["y"])[:, None]
    density = Density(observations(X), X.mean(axis=0), PRIORS, CovarianceModel.named("V"))
    for point in json.loads((HERE / "logp_points.json").read_text())["points"]:
        w, sigma = np.array([point["theta"], 1 - point["theta"]]), np.array(point["sigma"])
        mixture = bg.GaussianMixture(w, np.array(point["mu"])[:, None], (sigma**2)[:, None, None])
        value = density(density.pack(mixture))[0] + density.log_constant
        jacobian = np.log(2 * w.prod()) + np.log(sigma).sum()
        assert value - jacobian == pytest.approx(point["log_prior"] + point["log_likelihood"], rel=1e-12)


@pytest.mark.statistical
def test_overlapping_components_have_the_published_symmetric_posterior():
    """Unordered: both labels have the same posterior, known from 10^6 draws. Errors are those of 16 chains."""
    X = np.array(json.loads((HERE / "low_dim_gauss_mix_collapse.data.json").read_text())["y"])[:, None]
    tree = bg.sample_posterior(X, bg.fit_em(X, 2, rng=0), PRIORS, chains=16, rng=seed())
    m = bg.as_mixture(tree)
    sigma = np.sqrt(m.covariances[..., 0, 0])
    for draws, mean, sd in ((m.means[..., 0], -0.268, 0.767), (sigma, 1.0285, 0.161), (m.weights, 0.5, 0.166)):
        # over the labels: what is left does not depend on them
        for values, exact, known_to in ((draws, mean, 0.002), (draws**2, mean**2 + sd**2, 0.006)):
            by_chain = values.mean(axis=(1, 2))
            error = np.hypot(by_chain.std(ddof=1) / 4, known_to)
            assert abs(by_chain.mean() - exact) < errors_allowed(comparisons=6, df=15) * error
    some = tree.isel(draw=slice(None, None, 10))
    stephens = bg.as_mixture(bg.relabel(some, "stephens"))
    np.testing.assert_allclose(stephens.log_prob(X[:5]), bg.as_mixture(some).log_prob(X[:5]), atol=1e-10)
    gap = np.diff(stephens.means[..., 0].mean(axis=(0, 1)))[0]
    assert abs(gap) > 0.5  # relabelled, the components differ: one is to the left


@pytest.mark.statistical
def test_small_tables_agree_with_the_sum_over_all_assignments():
    """N = 8, K = 2: co-clustering and a label-free moment of the weights. Errors are those of 32 chains."""
    x = np.array([-2.1, -1.4, -1.0, -0.2, 0.3, 1.2, 1.9, 2.2])
    prior = bg.Priors([1.5, 1.5], bg.NormalMeans([0.0], [2.0]), bg.InverseWishart(4.0, [[1.0]]))
    mean, log_variance = np.meshgrid(np.linspace(-9, 9, 401), np.linspace(-5, 5, 401), indexing="ij")
    log_cell = np.log(18 / 400 * 10 / 400)
    log_prior = stats.norm.logpdf(mean, 0, 2) + stats.invgamma.logpdf(np.exp(log_variance), 2.0, scale=0.5)
    each = [stats.norm.logpdf(xi, mean, np.exp(log_variance / 2)) for xi in x]
    codes = np.arange(2 ** len(x))
    member = (codes[:, None] >> np.arange(len(x))) & 1  # (2^N, N): which rows are in a cluster
    alone = [
        logsumexp(log_prior + log_variance + log_cell + sum((e for e, m in zip(each, row, strict=True) if m), 0.0))
        for row in member
    ]
    n = member.sum(axis=1)
    log_p = betaln(1.5 + n, 1.5 + len(x) - n) + np.array(alone) + np.array(alone)[::-1]
    p = softmax(log_p)
    same = np.einsum("s,sij->ij", p, member[:, :, None] == member[:, None, :])
    a, b = 1.5 + n, 1.5 + len(x) - n
    squares = p @ ((a * (a + 1) + b * (b + 1)) / ((a + b) * (a + b + 1)))
    fit = bg.fit_em(x[:, None], 2, "full", priors=prior, rng=0)
    tree = bg.sample_posterior(x[:, None], fit, prior, chains=32, draws=250, rng=seed())
    m = bg.as_mixture(tree)
    R = m.responsibilities(x[:, None])
    together = np.einsum("cdik,cdjk->cdij", R, R)
    np.testing.assert_allclose(
        bg.posterior_similarity(tree), np.where(np.eye(8), 1, together.mean(axis=(0, 1))), atol=1e-10
    )
    pairs = np.triu_indices(8, 1)
    by_chain = np.c_[(m.weights**2).sum(axis=-1).mean(axis=1), together[:, :, *pairs].mean(axis=1)]
    error = by_chain.std(axis=0, ddof=1) / np.sqrt(32)
    off = np.abs(by_chain.mean(axis=0) - np.append(squares, same[pairs]))
    np.testing.assert_array_less(off, errors_allowed(comparisons=29, df=31) * error)
