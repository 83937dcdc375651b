"""A pass over a billion rows on a hundred workers, simulated from recorded times, with workers that are slow or die.

Recorded are the seconds that blocks of rows take (drawn again for each simulated block, so what else this machine does
is in them), and what a cluster of Dask takes for as many tasks that do nothing, their merging included. Blocks are
given to threads by the code that does so on a real cluster. No network is in it: a task returns 11 kB.
"""

import time
from functools import partial

import numpy as np
from distributed import Client, LocalCluster

from bayesgmm.cluster import _identity, _merge, grain, shared
from bayesgmm.expectation import NO_LABELS, Parameters, Pass, Rows

N, K, D = 10**9, 10, 10
WORKERS, THREADS = 100, 4
PASSES = 200
RELOAD = 0.5e9  # bytes a second that a worker reads of Parquet files, to have again what another had
PAUSE = 2.0  # seconds
_FAN = 32


def recorded(n=300):
    """Seconds that each of n blocks of rows took."""
    values = np.random.default_rng(0).normal(size=(grain(D), D))
    rows = Rows(values, np.ones(1), NO_LABELS, np.zeros(D))
    parameters = Parameters(np.full(K, -3.0), np.ones((K, D)), np.tile(np.eye(D), (K, 1, 1)))
    seconds = []
    for _ in range(n):
        start = time.perf_counter()
        found = Pass(rows, parameters, False).alone(True)
        seconds.append(time.perf_counter() - start)
    return np.array(seconds), found


def of_tasks(found):
    """Seconds by the clock for a task a thread that returns totals, and their merging in a tree."""
    local = LocalCluster(processes=True, n_workers=2, threads_per_worker=1, dashboard_address=None)
    with local as cluster, Client(cluster) as client:
        submit, seconds = partial(client.submit, pure=False), []
        for _ in range(5):
            start = time.perf_counter()
            futures = [submit(_identity, found) for _ in range(WORKERS * THREADS)]
            while len(futures) > 1:
                futures = [submit(_merge, _add, futures[i : i + _FAN]) for i in range(0, len(futures), _FAN)]
            futures[0].result()
            seconds.append(time.perf_counter() - start)
    return min(seconds)


def _add(one, other):
    one.add(other)


def scenarios(rng, groups):
    """Names, and for each thread a factor on its time and seconds that it loses."""
    n, of_worker = len(groups), np.repeat(np.arange(WORKERS), THREADS)
    even, none = np.ones(n), np.zeros(n)

    def of_workers(which, value, otherwise):
        return np.where(np.isin(of_worker, which), value, otherwise)

    def one_dies():
        """In the middle of the pass: its rows are read again by the other workers, evenly, and looked at."""
        rows = N / WORKERS / (n - THREADS)
        again = 8 * D * rows * THREADS / RELOAD
        return of_workers([0], 0.0, 1.0 + 1 / (WORKERS - 1)), np.full(n, again)

    yield "all alike", lambda: (even, none)
    yield "speeds differ by 10 %", lambda: (np.exp(0.1 * rng.normal(size=WORKERS))[of_worker], none)
    yield "one worker at a third of the speed", lambda: (of_workers([0], 3.0, 1.0), none)
    yield "one thread in a hundred pauses for 2 s", lambda: (even, PAUSE * (rng.random(n) < 0.01))
    yield "one worker dies", one_dies


def main():
    rng = np.random.default_rng(0)
    seconds, found = recorded()
    overhead = of_tasks(found)
    sizes = [grain(D)] * (N // grain(D))
    workers = [f"worker {i}" for i in range(WORKERS)]
    owners = [[workers[i * WORKERS // len(sizes)]] for i in range(len(sizes))]
    groups = shared(sizes, owners, dict.fromkeys(workers, THREADS))
    print(
        f"{N:.0e} rows x {D}, K={K}; {WORKERS} workers with {THREADS} threads, {len(sizes)} blocks of {grain(D)} rows"
    )
    print(
        f"a block: median {np.median(seconds) * 1e3:.1f} ms, 99 % {np.quantile(seconds, 0.99) * 1e3:.1f} ms; ", end=""
    )
    print(f"tasks and their merging {overhead:.2f} s a pass")
    ideal = np.median(seconds) * len(sizes) / (WORKERS * THREADS)
    print(f"rows alone, evenly on all threads: {ideal:.2f} s")
    print(f"{'seconds of a pass':44}{'median':>8}{'95 %':>8}{'median/rows alone':>20}")
    counts = np.array([len(group) for group in groups.values()])
    for name, draw in scenarios(rng, groups):
        passes = []
        for _ in range(PASSES):
            factor, lost = draw()
            of_threads = np.array([rng.choice(seconds, n).sum() for n in counts])
            passes.append(overhead + (factor * of_threads + lost).max())
        median, high = np.quantile(passes, (0.5, 0.95))
        print(f"{name:44}{median:8.2f}{high:8.2f}{median / ideal:20.1f}")


if __name__ == "__main__":
    main()
