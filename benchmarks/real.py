"""Time of one E-step over tables with missing values, errors or noise, beside the same table without, and rivals.

On one thread; the least of several times, of the processor and taken in turns, stands for all. Counted are the
multiply-adds of the dense formulas: D^2 + 3 D a row and component for exact values, D^3 / 2 + 2 D^2 with errors by row.
Rivals run in `--python`, which may be of another environment, on fewer rows; theirs is an EM step by the clock.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from time import thread_time

import numpy as np

import bayesgmm as bg
from bayesgmm import native
from bayesgmm.expectation import Parameters, Pass, empty_statistics
from bayesgmm.observations import any_rows, observations

TURNS, ROUNDS = 15, 200_000
HOLES = [(100_000, 10, 10), (20_000, 20, 5), (20_000, 4, 3)]  # rows, features, components
ERRORS = [(100_000, 2, 3), (50_000, 5, 5), (20_000, 10, 10), (5_000, 20, 5)]
NOISE = [(100_000, 1, 2), (100_000, 2, 3), (100_000, 5, 5), (100_000, 10, 10)]
NOISE_WEIGHT = 0.1
RIVALS = ["extreme-deconvolution", "astroML", "pygmmis"]
RIVAL_CASES = [(4_000, 2, 3), (1_000, 10, 3)]


def mixture_and_rows(N, D, K):
    rng = np.random.default_rng(0)
    A = rng.normal(size=(K, D, D)) * 0.3 + np.eye(D)
    mixture = bg.GaussianMixture(np.full(K, 1 / K), rng.normal(size=(K, D)) * 2, A @ np.swapaxes(A, 1, 2))
    return rng, mixture, np.ascontiguousarray(mixture.sample(N, rng=rng)[0])


def e_step(mixture, table):
    """One E-step as a task, and the share of rows that are read alone."""
    center = mixture.mean
    parameters = Parameters(
        mixture.log_scale, mixture.means - center, mixture.precisions_cholesky, np.log(NOISE_WEIGHT)
    )
    over = Pass(table.rows(center), parameters, diagonal=False)
    statistics, sums = empty_statistics(over.K, over.D), native.Sums()
    into, patterns = native.Statistics(*map(native.address, statistics)), table.patterns

    def task():
        native.accumulate(over.compiled, over.mixture, 0, over.rows.n_read, True, into, sums)
        return statistics

    return task, 0.0 if patterns is None else 1 - patterns.start[-1] / patterns.n_rows


def least_seconds(tasks):
    best = dict.fromkeys(tasks, np.inf)
    for _ in range(TURNS):
        for name, task in tasks.items():
            start = thread_time()
            task()
            best[name] = min(best[name], thread_time() - start)
    return best


def report(N, D, K, tables, mixture, multiply_adds):
    tasks, alone = {}, {}
    for name, table in tables.items():
        tasks[name], alone[name] = e_step(mixture, table)
    best = least_seconds({**tasks, "peak": lambda: native.multiply_adds(ROUNDS)})
    peak = native.multiply_adds(ROUNDS) / best.pop("peak")
    for name, seconds in best.items():
        share = N * K * multiply_adds[name] / seconds / peak
        print(
            f"{N:7} {D:3} {K:3}  {name:14} {seconds * 1e3:9.2f} {seconds / best['complete']:6.2f} "
            f"{seconds / (N * K) * 1e9:9.2f} {100 * alone[name]:7.1f}% {100 * share:6.0f}%"
        )
    return best


def holes(N, D, K):
    rng, mixture, X = mixture_and_rows(N, D, K)
    tables = {"complete": any_rows(X)}
    for share in (0.05, 0.2):
        tables[f"{100 * share:.0f} % missing"] = any_rows(np.where(rng.random(X.shape) < share, np.nan, X))
    report(N, D, K, tables, mixture, dict.fromkeys(tables, D * (D + 3)))


def errors(N, D, K):
    rng, mixture, X = mixture_and_rows(N, D, K)
    sd = rng.uniform(0.1, 1.0, size=X.shape)
    tables = {"complete": any_rows(X), "errors by row": any_rows(X, error_sd=sd)}
    tables["and 5 % missing"] = any_rows(np.where(rng.random(X.shape) < 0.05, np.nan, X), error_sd=sd)
    dense = D**3 / 2 + 2 * D**2
    counts = {"complete": D * (D + 3), "errors by row": dense, "and 5 % missing": dense}
    report(N, D, K, tables, mixture, counts)


def noise(N, D, K):
    _, mixture, X = mixture_and_rows(N, D, K)
    tables = {"complete": any_rows(X), "with noise": observations(X, noise=True)}
    report(N, D, K, tables, mixture, dict.fromkeys(tables, D * (D + 3)))


def rivals(python, N, D, K):
    rng, mixture, X = mixture_and_rows(N, D, K)
    sd = rng.uniform(0.1, 1.0, size=X.shape)
    ours = least_seconds({"ours": e_step(mixture, any_rows(X, error_sd=sd))[0]})["ours"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.npz"
        np.savez(path, X=X, sd=sd, weights=mixture.weights, means=mixture.means, covariances=mixture.covariances)
        for name in RIVALS:
            script = [python, str(Path(__file__).with_name("_deconvolution.py")), name, str(path)]
            done = subprocess.run(script, capture_output=True, text=True)
            if done.returncode:
                print(f"{N:7} {D:3} {K:3}  {name:22} {done.stderr.strip().splitlines()[-1]}")
                continue
            seconds = json.loads(done.stdout.strip().splitlines()[-1])
            print(f"{N:7} {D:3} {K:3}  {name:22} {seconds / (N * K) * 1e6:9.2f} us {seconds / ours:8.0f}x")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="Python of an environment that has the rivals")
    arguments = parser.parse_args()
    print(f"level {native.level()}; N D K; ms of one E-step, over the complete table's; ns a row and component;")
    print("share of rows read alone; share of the processor's multiply-adds")
    for case in HOLES:
        holes(*case)
    for case in ERRORS:
        errors(*case)
    for case in NOISE:
        noise(*case)
    print("Errors by row: rivals' EM step a row and component, over this E-step")
    for case in RIVAL_CASES:
        rivals(arguments.python, *case)


if __name__ == "__main__":
    main()
