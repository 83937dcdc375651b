"""What a pass costs in Spark's mixture and here, on the same rows: needs `pip install pyspark psutil` and Java.

Processor seconds of the whole Java machine are measured, over iterations after its first ones, since those compile. Its
tolerance is zero, so that it makes as many iterations as it is asked for.
"""

import importlib.util
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import bayesgmm as bg
from bayesgmm.expectation import NO_LABELS, Parameters, Rows
from bayesgmm.passes import InMemory, Request, Streamed

SHAPES = ((400_000, 10, 10), (400_000, 3, 2))  # rows, components, features
FEW, MANY = 10, 30  # iterations, whose difference in time is reckoned


def session(folder):
    from pyspark.sql import SparkSession

    settings = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.memory": "6g",
        "spark.local.dir": str(folder),
    }
    builder = SparkSession.builder.master("local[2]")
    for name, value in settings.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def of_spark(spark, path, K):
    """Processor seconds of a pass."""
    import psutil
    from pyspark.ml.clustering import GaussianMixture
    from pyspark.ml.feature import VectorAssembler

    frame = spark.read.parquet(str(path))
    rows = VectorAssembler(inputCols=frame.columns, outputCol="features").transform(frame).select("features").cache()
    rows.count()
    java = next(child for child in psutil.Process(os.getpid()).children(recursive=True) if child.name() == "java")
    spent = {}
    for iterations in (FEW, FEW, MANY):  # the first is for the compiler
        start = sum(java.cpu_times()[:2])
        fitted = GaussianMixture(k=K, maxIter=iterations, tol=0.0, seed=0).fit(rows)
        spent[iterations] = sum(java.cpu_times()[:2]) - start
        assert fitted.summary.numIter == iterations
    rows.unpersist()
    return (spent[MANY] - spent[FEW]) / (MANY - FEW)


def of_passes(passes, K, D):
    """Processor seconds of a pass."""
    request = Request(Parameters(np.full(K, -3.0), np.ones((K, D)), np.tile(np.eye(D), (K, 1, 1))), False)
    seconds = []
    for _ in range(5):
        start = time.process_time()
        passes.totals([request])
        seconds.append(time.process_time() - start)
    return min(seconds)


def main():
    if importlib.util.find_spec("pyspark") is None:
        print("left out: pip install pyspark psutil, and Java")
        return
    print("processor microseconds per row and pass; Spark's rows are in its memory")
    print(f"{'rows':>8}{'K':>4}{'D':>4}{'Spark':>8}{'memory':>9}{'ratio':>7}{'Parquet':>10}{'ratio':>7}")
    with tempfile.TemporaryDirectory() as folder:
        spark = session(folder)
        for N, K, D in SHAPES:
            rng = np.random.default_rng(0)
            X = rng.normal(size=(N, D)) + rng.normal(0, 3, (K, D))[rng.integers(K, size=N)]
            path = Path(folder) / f"rows{D}.parquet"
            pq.write_table(pa.table({f"x{j}": X[:, j] for j in range(D)}), path, row_group_size=50_000)
            center = np.zeros(D)
            places = InMemory(Rows(X, np.ones(1), NO_LABELS, center)), Streamed(bg.open_table(path), center)
            theirs = of_spark(spark, path, K)
            cells = ((ours / N * 1e6, theirs / ours) for ours in (of_passes(passes, K, D) for passes in places))
            (memory, less), (parquet, less_from_file) = cells
            print(
                f"{N:8}{K:4}{D:4}{theirs / N * 1e6:8.2f}{memory:9.3f}{less:7.1f}{parquet:10.3f}{less_from_file:7.1f}",
                flush=True,
            )
        spark.stop()


if __name__ == "__main__":
    main()
