"""What the clusters mean, timed: assignments, co-clustering, partitions, merging and modes under 4000 draws.

Prints seconds and peak memory beside the targets, and the ratio to a plain numpy computation of the same numbers, which
is timed on a part of the work and scaled up. Run: python benchmarks/clusters.py
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from bayesgmm.clusters.draws import posterior_draws
from scipy.special import logsumexp

import bayesgmm as bg

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


def measured(task):
    """Least seconds of three runs after a first one."""
    task()
    best = np.inf
    for _ in range(3):
        started = time.perf_counter()
        task()
        best = min(best, time.perf_counter() - started)
    return best


MEMORY = """
import sys; sys.path.insert(0, {folder!r})
import clusters, bayesgmm as bg
def status(field):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(field)) / 1024
m, centre = clusters.made()
X = centre.sample({n}, rng=1)[0]
bg.{call}(m, X[:20])  # loads the compiled code
open("/proc/self/clear_refs", "w").write("5")  # forgets the peak
before = status("VmRSS")
bg.{call}(m, X)
print(status("VmHWM") - before)
"""


def memory(call, n):
    """Peak memory of a call in a fresh process, beyond what it held before, in MB; with its result."""
    code = MEMORY.format(folder=str(Path(__file__).parent), call=call, n=n)
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    return float(run.stdout)


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
    """Of one labelling; a search needs thousands of these."""
    both = np.array([np.bincount(4 * labels + column, minlength=16) for column in z.T]) / len(z)
    p = both.reshape(-1, 4, 4)

    def h(p):
        return -(p * np.log(np.maximum(p, 1e-300)))

    return (2 * h(p).sum((1, 2)) - h(p.sum(1)).sum(1) - h(p.sum(2)).sum(1)).mean()


def scaled(task, factor):
    started = time.perf_counter()
    task()
    return (time.perf_counter() - started) * factor


def line(label, seconds, target=None, other=None, peak=None):
    def shown(value, width):
        return " " * (width - 1) + "-" if value is None else f"{value:{width}.0f}"

    ratio = other / seconds if other else None
    print(
        f"{label:<56} {seconds:8.2f} {shown(target, 6)} {shown(peak, 8)} {shown(other, 7)} {shown(ratio, 6)}",
        flush=True,
    )


def main():
    print(f"{os.cpu_count()} cores, {S} draws, D={D}, K={K} unless said otherwise\n")
    print(f"{'':<56}  seconds target  peak MB   numpy  ratio")
    m, centre = made()
    X = centre.sample(100_000, rng=1)[0]
    few, thousand = X[:2000], X[:1000]
    other = scaled(lambda: numpy_assign(m, X[:200]), 500)
    line("assign, N=100000", measured(lambda: bg.assign(m, X)), 60, other, memory("assign", 100_000))
    two, two_centre = made(2)
    rows = two_centre.sample(100_000, rng=1)[0]
    line("assign, N=100000, K=2", measured(lambda: bg.assign(two, rows)))
    draws = posterior_draws(m, X, "")
    kernel = measured(lambda: draws.each_block(lambda rows, block: None))
    line("    of the first, the responsibilities alone", kernel)
    other = scaled(lambda: numpy_similarity(m, few[:500]), 16)
    similarity = measured(lambda: bg.posterior_similarity(m, few))
    line("posterior_similarity, N=2000", similarity, 5, other, memory("posterior_similarity", 2000))
    line("posterior_similarity, N=2000, float32", measured(lambda: bg.posterior_similarity(m, few, dtype=np.float32)))
    z = posterior_draws(m, thousand, "").assignments(np.random.default_rng(0)).astype(int)
    sweep = 4000 * scaled(lambda: numpy_expected_vi(z, z[:, 0]), 1)
    for loss in ("vi", "binder"):
        seconds = measured(lambda loss=loss: bg.partition(m, thousand, loss=loss, rng=0))
        line(f"partition, {loss}, N=1000 (numpy: one sweep alone)", seconds, 10, sweep, memory("partition", 1000))
    ten, ten_centre = made(10, spread=0.3)
    rows = ten_centre.sample(1000, rng=1)[0]
    line("partition, vi, N=1000, K=10, heavy overlap", measured(lambda: bg.partition(ten, rows, rng=0)))
    p = bg.partition(m, thousand, rng=0)
    line("credible_ball, N=1000", measured(lambda: bg.credible_ball(m, p, thousand, rng=0)))
    line("partition_scores, N=1000", measured(lambda: bg.partition_scores(m, p.labels, thousand, rng=0)))
    line("merge_components of all draws, N=1000", measured(lambda: bg.merge_components(m, thousand)))
    line("number_of_modes of all draws", measured(lambda: bg.number_of_modes(m)))
    A = np.random.default_rng(0).random((2000, 2000))
    flops = 16e9 / measured(lambda: A @ A)
    # per responsibility: D differences, D (D + 1) / 2 + D multiply-adds, exp (30), entropy and normalisation (8)
    least = 100_000 * S * K * (D + D * (D + 1) + 2 * D + 38) / flops
    print(
        f"\nShare of the flop limit ({flops / 1e9:.0f} Gflop/s in a matrix product): "
        f"responsibilities {least / kernel:.0%}, similarity {2000**2 * S * K / flops / similarity:.0%}"
    )


if __name__ == "__main__":
    main()
