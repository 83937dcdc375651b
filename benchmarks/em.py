"""EM beside scikit-learn and, where Rscript is there, R's mclust: same data, same starts, same number of iterations.

Prints milliseconds per iteration, ratios and the share of the flop limit reached; then small tables, whole fits, the
call of a fresh process, and peak memory. Run: python benchmarks/em.py [PART ...], the parts being the functions below.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
from sklearn.mixture import GaussianMixture as ScikitLearn

import bayesgmm as bg
from bayesgmm.covariance import NAMES

SIZES = [  # N, D, K, iterations
    (272, 2, 2, 50),
    (100_000, 2, 3, 20),
    (100_000, 10, 10, 10),
    (50_000, 50, 20, 4),
    (1_000_000, 10, 10, 3),
]


def made(n, d, k, seed=0):
    """A table from k overlapping components."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(k, d)) * 3
    A = rng.normal(size=(k, d, d))
    mixture = bg.GaussianMixture(rng.dirichlet(np.full(k, 5.0)), means, A @ np.swapaxes(A, 1, 2) / d + 0.2 * np.eye(d))
    return mixture.sample(n, rng=rng)[0]


def seconds(task, repeats):
    """Least wall time of a task over some runs, and its last result."""
    best = np.inf
    for _ in range(repeats):
        started = time.perf_counter()
        result = task()
        best = min(best, time.perf_counter() - started)
    return best, result


def dgemm_flops():
    """Floating-point operations per second of a large matrix product on all cores."""
    A = np.random.default_rng(0).random((2000, 2000))
    return 16e9 / seconds(lambda: A @ A, 5)[0]


def mclust_ms(X, start, iterations):
    """Milliseconds per iteration of mclust's me() from the same parameters, or None without R."""
    if not shutil.which("Rscript"):
        return None
    with tempfile.TemporaryDirectory() as folder:
        for name, array in (("x", X), ("z", start.responsibilities(X))):
            array.T.copy().tofile(f"{folder}/{name}.bin")
        script = f"""
        suppressMessages(library(mclust))
        read <- function(f, n, m) matrix(readBin(f, "double", n * m), n, m)
        x <- read("{folder}/x.bin", {len(X)}, {X.shape[1]}); z <- read("{folder}/z.bin", {len(X)}, {start.n_components})
        control <- emControl(itmax = {iterations}, tol = c(0, 0))
        t <- system.time(suppressWarnings(meVVV(x, z, control = control)))[["elapsed"]]
        cat(t * 1000 / {iterations})
        """
        run = subprocess.run(["Rscript", "-e", script], capture_output=True, text=True, check=False)
        return float(run.stdout) if run.returncode == 0 else None


def per_iteration():
    flops = dgemm_flops()
    print(f"{os.cpu_count()} cores, matrix product at {flops / 1e9:.0f} Gflop/s; full covariances, ms per iteration\n")
    print("        N   D   K      this  scikit-learn  ratio    mclust  flop limit  share")
    for n, d, k, iterations in SIZES:
        X = made(n, d, k)
        means = X[np.random.default_rng(1).choice(n, k, replace=False)]
        S = np.repeat(np.cov(X.T)[None], k, 0)
        start = bg.GaussianMixture(np.full(k, 1 / k), means, S)

        def ours(X=X, k=k, iterations=iterations, start=start):
            return bg.fit_em(X, k, starts=[start], max_iterations=iterations, tolerance=0.0)

        def theirs(X=X, k=k, iterations=iterations, means=means, S=S):
            return ScikitLearn(
                k,
                max_iter=iterations,
                tol=0.0,
                reg_covar=0,
                weights_init=np.full(k, 1 / k),
                means_init=means,
                precisions_init=np.linalg.inv(S),
                init_params="random_from_data",
                random_state=0,
            ).fit(X)

        a, fit = seconds(ours, 5)
        b, oracle = seconds(theirs, 1 if n > 500_000 else 2)
        np.testing.assert_allclose(np.sort(fit.mixture.weights), np.sort(oracle.weights_), rtol=1e-6)
        a, b = a / iterations * 1e3, b / iterations * 1e3
        limit = 4 * n * (1 + d + d * (d + 1) // 2) * k / flops * 1e3
        c = mclust_ms(X, start, iterations)
        shown = f"{c:9.2f}" if c is not None else "        -"
        print(
            f"{n:>9} {d:>3} {k:>3} {a:9.3f} {b:13.2f} {b / a:6.1f} {shown} {limit:11.3f} {limit / a:6.0%}", flush=True
        )


def small_tables():
    X = bg.datasets.old_faithful().to_numpy()

    def grid(n_starts):
        fitted = 0
        for name in NAMES:
            for k in range(1, 10):
                with suppress(bg.DegenerateFitError):
                    fitted += bg.fit_em(X, k, name, n_starts=n_starts, rng=0) is not None
        return fitted

    fit = bg.fit_em(X, 2, rng=0)
    print("\nOld Faithful (272 x 2)                                            seconds")
    for label, task in (
        ("14 models x 9 K, one start each, converged to 1e-6 nats", lambda: grid(1)),
        ("14 models x 9 K, 20 starts each, converged to 1e-6 nats", lambda: grid(20)),
        ("999 bootstrap replicates, full, K=2", lambda: bg.bootstrap(X, fit, rng=0)),
        ("one default fit, full, K=2", lambda: bg.fit_em(X, 2, rng=0)),
    ):
        task()
        print(f"{label:<62} {seconds(task, 3)[0]:10.4f}", flush=True)


def whole_fits():
    n, d, k = 100_000, 10, 10
    X = made(n, d, k)
    a, fit = seconds(lambda: bg.fit_em(X, k, rng=0), 2)
    print(
        f"\nWhole fit, N={n}, D={d}, K={k}: this, default starts, to 1e-6 nats in total: {a:.2f} s, "
        f"log-likelihood {fit.log_likelihood:.3f}"
    )
    tolerance = 1e-6 / n
    b, oracle = seconds(lambda: ScikitLearn(k, n_init=1, tol=tolerance, max_iter=100, random_state=0).fit(X), 1)
    end = "converged" if oracle.converged_ else "not converged"
    print(
        f"scikit-learn, n_init=1, tol={tolerance:.0e} per row: {b:.2f} s, {end} after {oracle.n_iter_} iterations, "
        f"log-likelihood {oracle.score(X) * n:.3f}"
    )


FRESH = """
import json, time; t = time.perf_counter()
import numpy as np, bayesgmm as bg
X = np.array(json.loads(open({path!r}).read())); a = time.perf_counter()
bg.fit_em(X, 2, rng=0); b = time.perf_counter()
bg.fit_em(X, 2, rng=0); print(json.dumps([b - a, time.perf_counter() - b]))
"""


def first_call():
    print("\nFirst call in a fresh process, Old Faithful, full, K=2          seconds (second call)")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.json"
        path.write_text(json.dumps(bg.datasets.old_faithful().to_numpy().tolist()))
        for _ in range(3):
            fresh = [sys.executable, "-c", FRESH.format(path=str(path))]
            run = subprocess.run(fresh, capture_output=True, text=True, check=True)
            first, second = json.loads(run.stdout)
            print(f"{'after the import':<62} {first:10.3f} ({second:.4f})", flush=True)


MEMORY = """
import numpy as np, bayesgmm as bg
def status(field):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(field))
n, d, k = 1_000_000, 10, 10
X = np.random.default_rng(0).normal(size=(n, d))
bg.fit_em(X[:50_000], k, rng=0, max_iterations=5)  # loads the compiled code
open("/proc/self/clear_refs", "w").write("5")  # forgets the peak
before = status("VmRSS")
bg.fit_em(X, k, rng=0, max_iterations=20)
print((status("VmHWM") - before) / 1024)
"""


def memory():
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", MEMORY], capture_output=True, text=True, check=True)
    print(f"\nPeak memory beyond the data, whole fit, N=1000000, D=10, K=10: {float(run.stdout):.0f} MB")


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    for part in (per_iteration, small_tables, whole_fits, first_call, memory):
        if not sys.argv[1:] or part.__name__ in sys.argv[1:]:
            part()
