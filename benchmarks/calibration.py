"""Simulation-based calibration: do posteriors hold the truth as often as they say?

Parameters are drawn from the priors, a table from them, and the posterior is sampled; among nearly independent draws
the rank of the truth must be uniform (Talts et al. 2018). All quantities are blind to the components' numbers. The
verdict is by the simultaneous band of the ECDF of ranks (Saeilynoja, Buerkner & Vehtari 2022), its width by simulation.
With --imperfect a fifth of the values are missing and the others measured with errors, and two true values are among
the quantities: one that was held out, and one that was measured.
Run: python benchmarks/calibration.py [--fits 500] [--first 0] [--covariance VVV] [--prior inverse-wishart]
[--sampler nutpie] [--imperfect] [--picture x.png]
"""

import argparse
import multiprocessing
import time
import warnings
from functools import partial

import numpy as np

import bayesgmm as bg
from bayesgmm.measurement import covariances_of
from bayesgmm.observations import observations

N, D, K, DRAWS = 40, 2, 2, 99
SCALE = np.array([[1.0, 0.3], [0.3, 0.7]])
COVARIANCES = {
    "inverse-wishart": bg.InverseWishart(6.0, 3 * SCALE),
    "hierarchical": bg.HierarchicalInverseWishart(6.0, 4.0, 0.75 * SCALE),
    "default": bg.HierarchicalInverseWishart(D + 2.0, D, SCALE / D, 1e-4),  # of `Priors.weakly_informative`
    "lkj": bg.LKJ(2.0, bg.LogNormal(-0.3, 0.4)),
}
POINTS = np.array([[0.0, 0.0], [2.0, -1.0], [-3.0, 2.0]])


def quantities(mixture, X, log_posterior):
    """Label-free numbers (draws,) of a batch of mixtures, by name."""
    R = mixture.responsibilities(X)
    at = mixture.log_prob(POINTS)
    return {
        "smaller weight": mixture.weights.min(axis=-1),
        **{f"log density at {tuple(x.tolist())}": at[..., i] for i, x in enumerate(POINTS)},
        "log likelihood": mixture.log_prob(X).sum(axis=-1),
        "log posterior": log_posterior,
        "overlap": np.sort(R, axis=-1)[..., :-1].sum(axis=-1).mean(axis=-1),  # 1 - max would round to ties at 0
        "distance of the means": np.linalg.norm(mixture.means[..., 0, :] - mixture.means[..., 1, :], axis=-1),
    }


def imperfect(X, rng):
    """What is measured of a table: the first row without its first value, the second wholly, of others four fifths."""
    sd = rng.uniform(0.0, 1.0, size=X.shape)
    missing = rng.random(X.shape) < 0.2
    missing[:2] = [[True, False], [False, False]]
    return observations(np.where(missing, np.nan, X + sd * rng.normal(size=X.shape)), error_sd=sd)


def true_values(mixture, rows, rng):
    """The first value (draws, 2) of the first two rows, drawn given what was measured of them."""
    drawn = []
    for x, S in zip(rows.values[:2], covariances_of(rows.errors[:2]), strict=True):
        known = np.flatnonzero(~np.isnan(x))
        index = np.array([0, *known])  # the true value, then what was measured
        errors = np.zeros((len(index), len(index)))
        errors[1:, 1:] = S[np.ix_(known, known)]
        both = bg.GaussianMixture(
            mixture.weights, mixture.means[..., index], mixture.covariances[..., index[:, None], index] + errors
        )
        given = {i + 1: x[j] for i, j in enumerate(known)}
        drawn.append(both.conditional(given).sample(1, rng=rng)[0][..., 0, 0])
    return np.stack(drawn, axis=-1)


def one(seed, covariance, prior, sampler, with_imperfect):
    """Ranks of the truth among DRAWS draws, by quantity, and whether the sampler said it converged."""
    rng = np.random.default_rng([2026, seed])
    priors = bg.Priors([2.0, 2.0], bg.NormalMeans([0.0, 0.0], [2.5, 2.5]), COVARIANCES[prior])
    truth = priors.sample(1, K, covariance, rng=rng)
    single = bg.GaussianMixture(truth.weights[0], truth.means[0], truth.covariances[0])
    X, _ = single.sample(N, rng=rng)
    rows = imperfect(X, rng) if with_imperfect else observations(X)
    start = bg.Priors(priors.concentration, priors.means, COVARIANCES["inverse-wishart"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bg.ConvergenceWarning)
        fit = bg.fit_em(rows, K, covariance, priors=start, rng=rng)
        length = {"draws": 50 * (DRAWS + 1) // 4 + 1, "tune": 500, "chains": 4}
        tree = bg.sample_posterior(rows, fit, priors, **length, sampler=sampler, rng=rng)
    density = bg.posterior(tree).density
    draws = bg.as_mixture(tree)
    pick = np.linspace(0, draws.weights[..., 0].size - 1, DRAWS).astype(int)
    pick = np.unravel_index(rng.permutation(draws.weights[..., 0].size)[pick], draws.batch_shape)
    some = bg.GaussianMixture(draws.weights[pick], draws.means[pick], draws.covariances[pick])
    heights = [density.log_densities(density.pack(m)) for m in (truth, some)]
    own, others = quantities(truth, rows, heights[0]), quantities(some, rows, heights[1])
    if with_imperfect:
        values = true_values(some, rows, rng)
        for i, name in enumerate(("held-out value", "true value")):
            own[name], others[name] = X[i, :1], values[:, i]
    ranks = {}
    for name, (true, *_) in own.items():  # among equals, as overlaps that round to none, its place is by lot
        below, equal = int((others[name] < true).sum()), int((others[name] == true).sum())
        ranks[name] = below + int(rng.integers(equal + 1))
    return ranks, tree.attrs["convergence"].startswith("Converged")


def deviation(ranks):
    """Largest deviation of the ECDF of ranks (fits,) from uniform, in pointwise standard errors, at each rank."""
    n = len(ranks)
    z = np.arange(1, DRAWS + 1) / (DRAWS + 1)
    ecdf = np.searchsorted(np.sort(ranks), np.arange(1, DRAWS + 1)) / n  # share of ranks below r
    return np.abs(ecdf - z) / np.sqrt(z * (1 - z) / n)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fits", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, help="seed of the first table; the others' follow")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--covariance", default="VVV")
    parser.add_argument("--prior", choices=COVARIANCES, default="inverse-wishart")
    parser.add_argument("--sampler", choices=("auto", "nutpie", "gibbs"), default="nutpie")
    parser.add_argument("--imperfect", action="store_true")
    parser.add_argument("--picture")
    arguments = parser.parse_args()
    started = time.perf_counter()
    how = {name: getattr(arguments, name) for name in ("covariance", "prior", "sampler")}
    task = partial(one, **how, with_imperfect=arguments.imperfect)
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        seeds = range(arguments.first, arguments.first + arguments.fits)
        results = pool.map(task, seeds, chunksize=5)
    ranks = {name: np.array([r[name] for r, _ in results]) for name in results[0][0]}
    converged = sum(good for _, good in results)
    rng = np.random.default_rng(0)
    null = np.array([deviation(rng.integers(DRAWS + 1, size=arguments.fits)).max() for _ in range(4000)])
    limit = np.quantile(null, 0.95)
    print(
        f"{arguments.fits} {'imperfect ' * arguments.imperfect}tables of {N} x {D} from {K} components, seeds from "
        f"{arguments.first}, {arguments.covariance}, {arguments.prior} prior; "
        f"{converged} posteriors converged; {time.perf_counter() - started:.0f} s"
    )
    print(f"{'quantity':32} {'deviation':>9} {'95% band':>9} {'p':>6}")
    for name, own in ranks.items():
        d = deviation(own).max()
        p = (null >= d).mean()
        print(f"{name:32} {d:9.2f} {limit:9.2f} {p:6.3f}  {'inside' if d <= limit else 'OUTSIDE'}")
    if arguments.picture:
        picture(ranks, limit, arguments)


def picture(ranks, limit, arguments):
    """The ECDFs' differences from uniform within the band."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5.6), layout="constrained")
    z = np.arange(1, DRAWS + 1) / (DRAWS + 1)
    half = limit * np.sqrt(z * (1 - z) / arguments.fits)
    for ax, (name, own) in zip(
        figure.subplots(2, -(-len(ranks) // 2), sharex=True, sharey=True).ravel(), ranks.items(), strict=True
    ):
        ax.fill_between(z, -half, half, color="0.88")
        ecdf = np.searchsorted(np.sort(own), np.arange(1, DRAWS + 1)) / len(own)
        ax.plot(z, ecdf - z, color="#0072B2")
        ax.set_title(name, fontsize="medium")
    figure.supxlabel("rank of the truth among the draws, as a share")
    figure.supylabel("ECDF less uniform")
    figure.suptitle(f"Calibration of {arguments.fits} posteriors ({arguments.covariance}, {arguments.prior}); 95% band")
    figure.savefig(arguments.picture, dpi=110)


if __name__ == "__main__":
    main()
