"""The posterior beside the textbook PyMC model and, where it is installed, NumPyro: same table, draws, starting means.

Each contender runs in a process of its own, imports apart, from the table to draws and with all compilation; then the
least bulk and tail effective sample size over weights, means and covariances, components ordered by their first mean.
Run: python benchmarks/posterior.py [--quick]. NumPyro is left out unless jax and numpyro can be imported.
"""

import argparse
import json
import subprocess
import sys
import time
import warnings
from importlib import import_module
from importlib.util import find_spec

import numpy as np
import xarray as xr

import bayesgmm as bg

CASES = {"272x2, K=2": (272, 2, 2), "2000x4, K=4": (2000, 4, 4), "20000x8, K=6": (20_000, 8, 6)}
DRAWS = {"bayesgmm": 1000, "bayesgmm, LKJ": 1000, "PyMC, nutpie": 500, "PyMC": 250, "NumPyro": 1000}


def made(case):
    """The table of a case."""
    n, d, k = CASES[case]
    if n == 272:
        return np.asarray(bg.datasets.old_faithful())
    rng = np.random.default_rng(0)
    means = rng.normal(size=(k, d)) * 4
    A = rng.normal(size=(k, d, d))
    mixture = bg.GaussianMixture(rng.dirichlet(np.full(k, 8.0)), means, A @ np.swapaxes(A, 1, 2) / d + 0.3 * np.eye(d))
    return mixture.sample(n, rng=rng)[0]


def ours(X, fit, draws, lkj):
    """Draws by bayesgmm, EM included in the time."""
    K = fit.n_components
    weak = bg.Priors.weakly_informative(X, K)
    priors = bg.Priors(weak.concentration, weak.means, bg.LKJ(2.0, bg.HalfNormal(X.std(axis=0)))) if lkj else weak
    m = bg.as_mixture(bg.sample_posterior(X, bg.fit_em(X, K, rng=0), priors, draws=draws, rng=0))
    return m.weights, m.means, m.covariances


def textbook(X, fit, draws, sampler):
    """Draws of a mixture of pm.MvNormal with LKJ Cholesky factors, started at EM's means."""
    import pymc as pm
    import pytensor.tensor as pt

    K, D = fit.n_components, X.shape[1]
    prior = bg.Priors.weakly_informative(X, K).means
    with pm.Model():
        w = pm.Dirichlet("w", np.ones(K))
        mu = pm.Normal("mu", prior.location, prior.scale, shape=(K, D), initval=fit.mixture.means)
        chols = []
        for k in range(K):
            sd = pm.HalfNormal.dist(X.std(axis=0), shape=D)
            chols.append(pm.LKJCholeskyCov(f"chol{k}", n=D, eta=2.0, sd_dist=sd, compute_corr=True)[0])
        pm.Deterministic("S", pt.stack([c @ c.T for c in chols]))
        pm.Mixture("x", w=w, comp_dists=[pm.MvNormal.dist(mu[k], chol=chols[k]) for k in range(K)], observed=X)
        if sampler == "nutpie":
            options = {"nuts_sampler": "nutpie", "compile_kwargs": {"jitter_rvs": set()}}
        else:
            options = {"nuts_sampler": "pymc", "init": "adapt_diag", "cores": 2}
        p = pm.sample(
            draws, tune=500, chains=4, random_seed=0, progressbar=False, compute_convergence_checks=False, **options
        )["posterior"]
    return p["w"].values, p["mu"].values, p["S"].values


def numpyro(X, fit, draws):
    """Draws of NumPyro's MixtureSameFamily with the same priors, four chains at once."""
    import jax
    import jax.numpy as jnp
    import numpyro as npr
    import numpyro.distributions as dist

    jax.config.update("jax_enable_x64", True)
    K, D = fit.n_components, X.shape[1]
    prior = bg.Priors.weakly_informative(X, K).means

    def model(x):
        w = npr.sample("w", dist.Dirichlet(jnp.ones(K)))
        with npr.plate("components", K):
            mu = npr.sample("mu", dist.Normal(prior.location, prior.scale).to_event(1))
            sd = npr.sample("sd", dist.HalfNormal(X.std(axis=0)).to_event(1))
            L = npr.sample("L", dist.LKJCholesky(D, 2.0))
        scaled = sd[..., None] * L
        npr.deterministic("S", scaled @ jnp.swapaxes(scaled, -1, -2))
        with npr.plate("rows", len(x)):
            mixture = dist.MixtureSameFamily(dist.Categorical(w), dist.MultivariateNormal(mu, scale_tril=scaled))
            npr.sample("x", mixture, obs=x)

    start = npr.infer.init_to_value(values={"mu": jnp.asarray(fit.mixture.means)})
    kernel = npr.infer.NUTS(model, init_strategy=start)
    mcmc = npr.infer.MCMC(
        kernel, num_warmup=500, num_samples=draws, num_chains=4, chain_method="vectorized", progress_bar=False
    )
    mcmc.run(jax.random.PRNGKey(0), jnp.asarray(X))
    p = mcmc.get_samples(group_by_chain=True)
    return np.asarray(p["w"]), np.asarray(p["mu"]), np.asarray(p["S"])


CONTENDERS = {
    "bayesgmm": lambda X, fit, draws: ours(X, fit, draws, False),
    "bayesgmm, LKJ": lambda X, fit, draws: ours(X, fit, draws, True),
    "PyMC, nutpie": lambda X, fit, draws: textbook(X, fit, draws, "nutpie"),
    "PyMC": lambda X, fit, draws: textbook(X, fit, draws, "pymc"),
    "NumPyro": numpyro,
}


def least_ess(weights, means, covariances):
    """Least bulk and tail effective sample size over all parameters that vary."""
    import arviz as az

    order = means[..., 0].argsort(axis=-1)
    flat = [np.take_along_axis(weights, order, axis=-1)]
    flat.append(np.take_along_axis(means, order[..., None], axis=2).reshape(*order.shape[:2], -1))
    sorted_ = np.take_along_axis(covariances, order[..., None, None], axis=2)
    flat.append(sorted_[..., *np.triu_indices(means.shape[-1])].reshape(*order.shape[:2], -1))
    every = xr.Dataset({"all": (("chain", "draw", "parameter"), np.concatenate(flat, axis=-1))})
    return [float(az.ess(every, method=method)["all"].min()) for method in ("bulk", "tail")]


def child(case, name, draws):
    """Run one contender; its seconds and effective sample sizes as JSON."""
    warnings.simplefilter("ignore")
    X = made(case)
    fit = (
        bg.fit_em(X, CASES[case][2], rng=0)
        if "bayesgmm" not in name
        else type("", (), {"n_components": CASES[case][2]})
    )
    for module in ("numpyro",) if name == "NumPyro" else ("pymc", "nutpie", "arviz", "bayesgmm.bayes.sample"):
        import_module(module)
    started = time.perf_counter()
    drawn = CONTENDERS[name](X, fit, draws)
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "ess": least_ess(*drawn)}))


def run(case, name, draws):
    """The same in a fresh process."""
    command = [sys.executable, __file__, "--child", case, name, str(draws)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000, check=False)
    if done.returncode:
        return None, (done.stderr.strip().splitlines() or ["died"])[-1]
    return json.loads(done.stdout.splitlines()[-1]), ""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the small table only, few draws of opponents")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child[:2], int(arguments.child[2]))
        return
    names = [n for n in CONTENDERS if n != "NumPyro" or (find_spec("numpyro") and find_spec("jax"))]
    if "NumPyro" not in names:
        print("NumPyro is left out: jax and numpyro are not installed")
    print(
        f"{'case':14} {'contender':16} {'draws':>7} {'seconds':>8} {'bulk':>6} {'tail':>6} {'ESS/s':>8} {'ours is':>8}"
    )
    for case in list(CASES)[: 1 if arguments.quick else 3]:
        own = None
        for name in names if CASES[case][0] < 20_000 else ["bayesgmm"]:
            draws = DRAWS[name] // (5 if arguments.quick and "bayesgmm" not in name else 1)
            result, error = run(case, name, draws)
            if result is None:
                print(f"{case:14} {name:16} {error}")
                continue
            rate = min(result["ess"]) / result["seconds"]
            own = rate if own is None else own
            print(
                f"{case:14} {name:16} {'4x' + str(draws):>7} {result['seconds']:8.2f} {result['ess'][0]:6.0f} "
                f"{result['ess'][1]:6.0f} {rate:8.1f} {own / rate:7.1f}x",
                flush=True,
            )
    print("targets: 2 s for 272x2; 100x textbook PyMC, 10x NumPyro; 20000x8 in 60 s, least ESS 1000")


if __name__ == "__main__":
    main()
