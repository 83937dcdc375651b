"""What the clusters mean, timed: assignments, co-clustering, partitions, merging and modes under 4000 draws.

Prints seconds and peak memory beside the targets, and the ratio to a plain numpy computation of the same numbers, which
is timed on a part of the work and scaled up. Run: python benchmarks/clusters.py
"""

import os
import sys
import time

import numpy as np
from scipy.special import logsumexp

import bayesgmm as bg
from bayesgmm.clusters.draws import posterior_draws

D, K, S = 4, 4, 4000


def made(k=K, d=D, seed=0, spread=0.08):
    """Draws around a mixture of overlapping components, and that mixture."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(k, d, d)) / np.sqrt(d)
    centre = bg.GaussianMixture(
        rng.dirichlet(np.full(k, 5.0)), 1.5 * rng.normal(size=(k, d)), A @ np.swapaxes(A, 1, 2) + 0.3 * np.eye(d)
    )
    means = centre.means + spread * rng.normal(size=(S, k, d))
    covariances = centre.covariances * np.exp(spread * rng.normal(size=(S, k, 1, 1)))
    return bg.GaussianMixture(rng.dirichlet(500 * centre.weights, size=S), means, covariances), centre


def status(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field)) / 1024


def measured(task):
    """Least seconds of three runs, and the peak memory of one beyond what was there before, in MB."""
    task()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before, best = status("VmRSS"), np.inf
    for _ in range(3):
        started = time.perf_counter()
        task()
        best = min(best, time.perf_counter() - started)
    return best, status("VmHWM") - before


def numpy_responsibilities(m, X):
    """All draws' responsibilities (S, N, K) as one would write them down in numpy."""
    log_joint = np.empty((S, len(X), m.n_components))
    for k in range(m.n_components):
        L = np.linalg.cholesky(m.covariances[:, k])
        z = np.linalg.solve(L, np.swapaxes(X[None] - m.means[:, k, None], 1, 2))
        log_det = np.log(np.einsum("sii->si", L)).sum(-1)
        constant = np.log(m.weights[:, k]) - log_det - D / 2 * np.log(2 * np.pi)
        log_joint[..., k] = constant[:, None] - 0.5 * (z**2).sum(axis=1)
    return np.exp(log_joint - logsumexp(log_joint, axis=-1, keepdims=True))


def numpy_assign(m, X):
    R = numpy_responsibilities(m, X)
    p = R.mean(axis=0)
    return p, np.quantile(R, [0.055, 0.945], axis=0), -(R * np.log(np.maximum(R, 1e-300))).sum(-1).mean(0)


def numpy_similarity(m, X):
    R = numpy_responsibilities(m, X)
    out = np.zeros((len(X), len(X)))
    for r in R:
        out += r @ r.T
    return out / S


def numpy_expected_vi(z, labels):
    """Of one labeling; a search needs thousands of these."""
    both = np.array([np.bincount(4 * labels + column, minlength=16) for column in z.T]) / len(z)
    p = both.reshape(-1, 4, 4)

    def h(p):
        return -(p * np.log(np.maximum(p, 1e-300)))

    return (2 * h(p).sum((1, 2)) - h(p.sum(1)).sum(1) - h(p.sum(2)).sum(1)).mean()


def scaled(task, factor):
    started = time.perf_counter()
    task()
    return (time.perf_counter() - started) * factor


def line(label, seconds, memory, target, other):
    target = f"{target:>5}" if target else "    -"
    other = f"{other:10.1f} {other / seconds:6.0f}" if other else "         -      -"
    print(f"{label:<62} {seconds:8.2f} {target} {memory:8.0f} {other}", flush=True)


def main():
    print(f"{os.cpu_count()} cores, {S} draws, D={D}, K={K} unless said otherwise\n")
    print(f"{'':<62}  seconds target  peak MB      numpy  ratio")
    m, centre = made()
    X = centre.sample(100_000, 1)[0]
    numpy_seconds = scaled(lambda: numpy_assign(m, X[:200]), 500)
    seconds, memory = measured(lambda: bg.assign(m, X))
    line("assign, N=100000", seconds, memory, 60, numpy_seconds)
    draws = posterior_draws(m, X, "")
    kernel, _ = measured(lambda: draws.each_block(draws.X, lambda a, b, block: None))
    two, two_centre = made(2)
    seconds_two, memory = measured(lambda: bg.assign(two, two_centre.sample(100_000, 1)[0]))
    line("assign, N=100000, K=2", seconds_two, memory, 0, 0)
    few = X[:2000]
    numpy_seconds = scaled(lambda: numpy_similarity(m, few[:500]), 16)
    similarity, memory = measured(lambda: bg.posterior_similarity(m, few))
    line("posterior_similarity, N=2000", similarity, memory, 5, numpy_seconds)
    single, memory = measured(lambda: bg.posterior_similarity(m, few, dtype=np.float32))
    line("posterior_similarity, N=2000, float32", single, memory, 0, 0)
    thousand = X[:1000]
    z = posterior_draws(m, thousand, "").assignments(np.random.default_rng(0)).astype(int)
    once = scaled(lambda: numpy_expected_vi(z, z[:, 0]), 1)
    for loss in ("vi", "binder"):
        seconds, memory = measured(lambda loss=loss: bg.partition(m, thousand, loss=loss, rng=0))
        line(f"partition, {loss}, N=1000 (numpy: one sweep over rows x clusters)", seconds, memory, 10, once * 4000)
    p = bg.partition(m, thousand, rng=0)
    print(f"    the last: {p.n_clusters} clusters, {p.n_minima} local minima met")
    ten, ten_centre = made(10, spread=0.3)
    rows = ten_centre.sample(1000, 1)[0]
    seconds, memory = measured(lambda: bg.partition(ten, rows, rng=0))
    line("partition, vi, N=1000, K=10, heavy overlap", seconds, memory, 0, 0)
    seconds, memory = measured(lambda: bg.credible_ball(m, p, thousand, rng=0))
    line("credible_ball, N=1000", seconds, memory, 0, 0)
    seconds, memory = measured(lambda: bg.partition_scores(m, p.labels, thousand, rng=0))
    line("partition_scores, N=1000", seconds, memory, 0, 0)
    seconds, memory = measured(lambda: bg.merge_components(m, thousand))
    line("merge_components of all draws, N=1000", seconds, memory, 0, 0)
    seconds, memory = measured(lambda: bg.number_of_modes(m))
    line("number_of_modes of all draws", seconds, memory, 0, 0)
    A = np.random.default_rng(0).random((2000, 2000))
    flops = 16e9 / measured(lambda: A @ A)[0]
    # per responsibility: D differences, D (D+1)/2 + D multiply-adds, exp (30), entropy and normalisation (8)
    share = 100_000 * S * K * (D + D * (D + 1) + 2 * D + 38) / flops
    print(f"\nMatrix product: {flops / 1e9:.0f} Gflop/s. The responsibilities under all draws take {kernel:.2f} s, of "
          f"which the flops alone {share / kernel:.0%};\nthe similarity's symmetric product is "
          f"{2000**2 * S * K / flops / similarity:.0%} of its time.")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
