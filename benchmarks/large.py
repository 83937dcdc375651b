"""What a pass over all rows costs where they are: in memory, in files, on the workers of a Dask cluster.

Processor seconds of all processes are measured, for other work on the machine does not count; each is the least of
several passes. What Dask adds to a pass is also given by the clock, which does count other work. Beside these: how much
memory a fit to files takes, and how many passes where clusters overlap.
"""

import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import dask.array as da
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from distributed import Client, LocalCluster, wait

import bayesgmm as bg
from bayesgmm.expectation import NO_LABELS, Parameters, Rows
from bayesgmm.parts import Part, Parts
from bayesgmm.passes import InMemory, Request, Streamed, _add_totals, _Totals

PASSES = 5
N, D = 4_000_000, 10
PARTITIONS = 1000
SHAPES = (20_000, 70_000)  # rows of a partition: fewer and more than a block has
COLUMNS = 2
PEAK = """
import sys
import pyarrow.parquet
import bayesgmm as bg

def megabytes(of):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(of)) / 1e3

start = megabytes("VmRSS")
bg.fit_em(sys.argv[1], 3, rng=0)
print(round(megabytes("VmHWM") - start))
"""


def request(K, width):
    return Request(Parameters(np.full(K, -3.0), np.ones((K, width)), np.tile(np.eye(width), (K, 1, 1))), False)


def least(task, clock=time.process_time):
    """Least seconds of several runs."""
    seconds = []
    for _ in range(PASSES):
        start = clock()
        task()
        seconds.append(clock() - start)
    return min(seconds)


def files(folder):
    """The same rows in memory and in files."""
    X = np.random.default_rng(0).normal(size=(N, D))
    X[::3] += 4.0
    X[1::3, ::2] -= 4.0
    center = np.zeros(D)
    np.save(folder / "rows.npy", X)
    table = pa.table({f"x{j}": X[:, j] for j in range(D)})
    for compression in ("none", "snappy"):
        pq.write_table(table, folder / f"{compression}.parquet", row_group_size=250_000, compression=compression)
    del table
    yield "memory", InMemory(Rows(X, np.ones(1), NO_LABELS, center))
    for name in ("rows.npy", "none.parquet", "snappy.parquet"):
        yield name, Streamed(bg.open_table(folder / name), center)
    yield "rows.npy, memory-mapped", Streamed(bg.open_table(np.load(folder / "rows.npy", mmap_mode="r")), center)


def streamed():
    print(f"{N} rows x {D}, K = 10 and 3: processor seconds of a pass")
    print(f"{'rows in':26}{'K=10':>8}{'ratio':>7}{'K=3':>8}{'ratio':>7}")
    of_memory = None
    with tempfile.TemporaryDirectory() as folder:
        for name, passes in files(Path(folder)):
            seconds = [least(partial(passes.totals, [request(K, D)])) for K in (10, 3)]
            of_memory = of_memory or seconds
            cells = "".join(f"{own:8.3f}{own / least_:7.2f}" for own, least_ in zip(seconds, of_memory, strict=True))
            print(f"{name:26}{cells}", flush=True)
        print("\nMB beyond the start at the peak of a fit with K = 3")
        pq.write_table(
            pq.read_table(Path(folder, "snappy.parquet")), Path(folder, "one group.parquet"), row_group_size=N
        )
        for name in ("rows.npy", "none.parquet", "snappy.parquet", "one group.parquet"):
            command = [sys.executable, "-c", PEAK, str(Path(folder, name))]
            found = subprocess.run(command, capture_output=True, check=True, text=True)
            print(f"{name:20}{found.stdout.strip():>6}", flush=True)


class Timed:
    """A look at rows that says when it began and ended."""

    def __init__(self, look):
        self.look = look

    def __call__(self, values, start):
        began = time.time()
        return [self.look(values, start), began, time.time()]


def add_timed(some, others):
    _add_totals(some[0], others[0])
    some[1:] = min(some[1], others[1]), max(some[2], others[2])


def beyond_compute(table, center):
    """Seconds of a pass by the clock before the first look at rows begins, and after the last has ended."""
    start = time.time()
    look = Timed(_Totals((request(1, COLUMNS),), center, None, False))
    _, began, ended = table.fold(look, add_timed, 500_000 // 4096 * 4096, lambda done, total: None)
    return time.time() - start - (ended - began)


def of_partitions(client, n):
    """A line about partitions of n rows on a cluster."""
    x = client.persist(da.random.default_rng(0).random((PARTITIONS * n, COLUMNS), chunks=(n, COLUMNS)))
    wait(x)
    start = time.perf_counter()
    table = bg.open_table(x)
    keep = time.perf_counter() - start
    center = np.zeros(COLUMNS)
    task = partial(Streamed(table, center).totals, [request(1, COLUMNS)])
    ours, clock = least(task), least(task, time.perf_counter)
    workers = least(task, lambda: sum(client.run(time.process_time).values()))
    rows = Rows(np.random.default_rng(0).random((n * 100, COLUMNS)), np.ones(1), NO_LABELS, center)
    memory = least(partial(InMemory(rows).totals, [request(1, COLUMNS)])) * PARTITIONS / 100
    beyond = min(beyond_compute(table, center) for _ in range(PASSES))
    return f"{n:12}{len(table.blocks):9}{keep:14.1f}{ours:23.3f}{workers:10.3f}{memory:17.3f}{clock:8.2f}{beyond:8.2f}"


def on_a_cluster():
    print(f"\n{PARTITIONS} partitions x {COLUMNS}, K = 1, two workers: processor seconds of a pass, and by the clock")
    print("rows of each   blocks   keep, clock   client and scheduler   workers   rows in memory   clock  beyond")
    local = LocalCluster(processes=True, n_workers=2, threads_per_worker=1, dashboard_address=None)
    with local as cluster, Client(cluster) as client:
        for n in SHAPES:
            print(of_partitions(client, n), flush=True)


def overlapping(seed, n=1_000_000, K=5, D=2):
    """Rows of clusters whose means lie within about a standard deviation of each other."""
    rng = np.random.default_rng(seed)
    means, roots = rng.normal(size=(K, D)), rng.normal(size=(K, D, D)) * 0.35 + np.eye(D) * 0.8
    label = rng.choice(K, p=rng.dirichlet(np.full(K, 5.0)), size=n)
    return means[label] + np.einsum("nij,nj->ni", roots[label], rng.normal(size=(n, D)))


def n_passes(X, K):
    """Passes over all rows of a fit, with the one that checks them."""
    (n, D), told = X.shape, []
    table = Parts((Part("rows", n, lambda start, stop: X[start:stop]),), tuple("abcd"[:D]), named=False)
    bg.fit_em(table, K, rng=0, progress=lambda stage, done, total: told.append(done == total == n))
    return sum(told)


def shapes(n):
    """Numbers of components and features of n tables."""
    rng = np.random.default_rng(0)
    return zip(rng.integers(3, 7, n).tolist(), rng.integers(2, 5, n).tolist(), strict=True)


def overlap():
    print("\n1000000 rows x 2, five overlapping clusters, twelve tables: passes over all rows of a fit, sorted")
    print(*sorted(n_passes(overlapping(seed), 5) for seed in range(12)))
    print("200000 rows x 2 to 4, three to six overlapping clusters, forty tables")
    print(*sorted(n_passes(overlapping(seed, 200_000, K, D), K) for seed, (K, D) in enumerate(shapes(40))))


if __name__ == "__main__":
    streamed()
    on_a_cluster()
    overlap()
