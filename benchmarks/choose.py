"""Choosing among covariance models and numbers of components by BIC, beside R's mclust where Rscript is installed.

Prints the seconds that each takes in a warm process, what it chose, and how many of its fits have a lower
log-likelihood than the other's. Run: python benchmarks/choose.py
"""

import json
import shutil
import subprocess
import tempfile
import time

import numpy as np

import bayesgmm as bg


def made(n, d, k, seed=0):
    """A table from k overlapping components."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(k, d, d))
    covariances = A @ np.swapaxes(A, 1, 2) / d + 0.2 * np.eye(d)
    return bg.GaussianMixture(rng.dirichlet(np.full(k, 5.0)), rng.normal(size=(k, d)) * 3, covariances).sample(
        n, rng=rng
    )[0]


def seconds(task, repeats=3):
    """Least wall time of a task over some runs after a first, and its last result."""
    task()
    best = np.inf
    for _ in range(repeats):
        started = time.perf_counter()
        result = task()
        best = min(best, time.perf_counter() - started)
    return best, result


def mclust(X, counts, models):
    """Seconds of mclustBIC, and its BIC by model and size (smaller is better), or None without R."""
    if not shutil.which("Rscript"):
        return None
    with tempfile.TemporaryDirectory() as folder:
        X.T.copy().tofile(f"{folder}/x.bin")
        names = "NULL" if models == "all" else f"c({','.join(map(repr, models))})"
        script = f"""
        suppressMessages(library(mclust))
        x <- matrix(readBin("{folder}/x.bin", "double", {X.size}), {len(X)}, {X.shape[1]})
        run <- function() mclustBIC(x, G = {counts[0]}:{counts[-1]}, modelNames = {names}, verbose = FALSE)
        invisible(run())
        t <- Inf
        for (i in 1:3) t <- min(t, system.time(b <- run())[["elapsed"]])
        cat("{{", '"seconds":', t)
        for (m in colnames(b)) for (g in rownames(b))
            if (!is.na(b[g, m])) cat(', "', m, ",", g, '":', format(-b[g, m], digits = 15), sep = "")
        cat("}}")
        """
        run = subprocess.run(["Rscript", "-e", script], capture_output=True, text=True, check=False)
    if run.returncode:
        return None
    bic = json.loads(run.stdout)
    return bic.pop("seconds"), {(key.split(",")[0], int(key.split(",")[1])): value for key, value in bic.items()}


def compare(title, X, counts, models):
    print(f"\n{title}")
    theirs = mclust(X, counts, models)
    for n_starts in (20, 1):

        def ours(n_starts=n_starts):
            return bg.select(X, counts, models, ("bic",), n_starts=n_starts, n_replicates=0, rng=0)

        time_, chosen = seconds(ours)
        best, table = chosen.best(), chosen.table
        converged = sum(state.outcome is bg.FitOutcome.CONVERGED for state in chosen.fit_states.values())
        label = f"this, {n_starts} start{'s' * (n_starts > 1)}"
        print(
            f"{label:<20} {time_:8.3f} s   {best.covariance_model.name},{best.n_components}, BIC {best.bic:.2f}; "
            f"{converged} of {len(table)} fits converged"
        )
        if theirs:
            bic = table.set_index(["covariance", "n_components"])["bic"]
            short = np.array([value - bic[key] for key, value in theirs[1].items()]) / 2
            print(
                f"{'mclust':<20} {theirs[0]:8.3f} s   {','.join(map(str, min(theirs[1], key=theirs[1].get)))}, "
                f"BIC {min(theirs[1].values()):.2f}; {theirs[0] / time_:.1f} times as long; short of this by 1e-3 nats "
                f"or more in {(short > 1e-3).sum()} of {len(short)} fits, this of it in {(short < -1e-3).sum()}"
            )


if __name__ == "__main__":
    faithful = bg.datasets.old_faithful().to_numpy()
    compare("Old Faithful (272 x 2), 14 models, K = 1..9", faithful, range(1, 10), "all")
    for k in (3, 4):
        title = f"60 000 x 5 from {k} components, VVV EEE VVI, K = 1..4"
        compare(title, made(60_000, 5, k), range(1, 5), ("VVV", "EEE", "VVI"))

    print("\nOld Faithful, K = 1..9, 20 starts                                  seconds")
    for label, models, criteria, options in (
        ("full covariances: BIC", "full", ("bic",), {}),
        ("BIC and ICL with 100 replicates", "full", ("bic", "icl"), {"n_replicates": 100}),
        ("the same and 10 folds held out", "full", ("bic", "icl", "cv"), {"n_replicates": 100}),
        ("14 models: BIC, posteriors and LOO of the contenders", "all", ("bic", "loo"), {}),
        ("the same and the evidence", "all", ("bic", "loo", "evidence"), {}),
        ("BIC, and 10 components with sparse weights", "all", ("bic",), {"overfitted": True}),
    ):
        options = {"n_replicates": 0, "rng": 0} | options
        time_, chosen = seconds(
            lambda m=models, c=criteria, o=options: bg.select(faithful, covariances=m, criteria=c, **o), 2
        )
        drawn = f"   posteriors of {', '.join(f'{m},{k}' for m, k in chosen.posteriors)}" if chosen.posteriors else ""
        print(f"{label:<62} {time_:10.3f}{drawn}", flush=True)
