"""What the information and the posterior of a table in parts cost, against an EM pass over the same file.

Processor seconds are measured, for other work on the machine does not count. A difference quotient of the score takes
two passes for each free parameter. The peak is that beyond the highest before, of making the table and fitting it.
Then NUTS on weighted rows in place of all, of a posterior for which Laplace's approximation is refused.
"""

import resource
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np

import bayesgmm as bg
from bayesgmm.em.information import request_of, second_order
from bayesgmm.passes import Streamed

RUNS = 3
OVERLAPPING = (20_000, 200_000)  # rows
TABLES = ((1_000_000, 4, 5), (1_000_000, 2, 3), (300_000, 10, 10))  # rows, features, components


def seconds(task, runs=1):
    """Least processor seconds of some runs."""
    found = []
    for _ in range(runs):
        start = time.process_time()
        task()
        found.append(time.process_time() - start)
    return min(found)


def table(n, D, K):
    """Rows of components whose means are two standard deviations apart, in each feature, on average."""
    rng = np.random.default_rng(0)
    means, factors = 2 * rng.normal(size=(K, D)), np.eye(D) + 0.3 * rng.normal(size=(K, D, D))
    return bg.GaussianMixture(np.full(K, 1 / K), means, factors @ np.swapaxes(factors, 1, 2)).sample(n, rng=rng)[0]


def line(folder, n, D, K):
    path = folder / "rows.npy"
    np.save(path, table(n, D, K))
    fit = bg.fit_em(path, K, rng=0)
    center = fit.mixture.mean
    passes = Streamed(bg.open_table(path), center)
    em = seconds(partial(passes.totals, [request_of(fit.mixture, center)]), RUNS)
    look = partial(second_order, passes, fit.mixture, fit.covariance_model, center)
    information, scores = (seconds(partial(look, scores=robust), RUNS) for robust in (False, True))
    before, trees = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []
    posterior = seconds(lambda: trees.append(bg.sample_posterior(path, fit, rng=0)))
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3
    n_free = fit.n_parameters
    cells = f"{n:9}{D:4}{K:4}{em:10.3f}{information / em:14.1f}{scores / em:16.1f}{2 * n_free:12}{posterior:13.2f}"
    return f"{cells}{posterior / em:8.0f}{peak:8.0f}  {bg.posterior(trees[0]).verdict.convergence.name}"


def all_threads(task):
    """What a task returns, and processor seconds of all threads, nutpie's own too."""
    start = resource.getrusage(resource.RUSAGE_SELF)
    found = task()
    end = resource.getrusage(resource.RUSAGE_SELF)
    return found, end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime


def weighted(n):
    """NUTS on weighted rows beside NUTS on all, of five overlapping components."""
    rng = np.random.default_rng(0)
    A = rng.normal(size=(5, 2, 2)) / np.sqrt(2)
    mixture = bg.GaussianMixture(
        rng.dirichlet(np.full(5, 5.0)), 0.6 * rng.normal(size=(5, 2)), A @ np.swapaxes(A, 1, 2) + 0.2 * np.eye(2)
    )
    X = mixture.sample(n, rng=0)[0]
    fit = bg.fit_em(X, 5, rng=0)
    (ours, some), (all_rows, nuts) = (
        all_threads(partial(bg.sample_posterior, X, fit, method=method, sampler="nutpie", rng=0))
        for method in ("subset", "nuts")
    )
    drawn, exact = bg.posterior(ours).draws, bg.posterior(all_rows).draws
    off = max(
        float((np.abs(a.mean(axis=(0, 1)) - b.mean(axis=(0, 1))) / b.std(axis=(0, 1))).max())
        for a, b in ((getattr(drawn, name), getattr(exact, name)) for name in ("weights", "means", "covariances"))
    )
    ess = [bg.diagnose(tree).ess for tree in (ours, all_rows)]
    print(
        f"{n:9}{some:10.1f}{ess[0]:8.0f}{nuts:10.1f}{ess[1]:8.0f}{off:12.2f}",
        f" {bg.posterior(ours).verdict.convergence.name}",
    )


if __name__ == "__main__":
    warnings.simplefilter("ignore", bg.ConvergenceWarning)
    print("     rows   D   K   EM pass   information   with scores   quotient   posterior   ratio      MB  verdict")
    with tempfile.TemporaryDirectory() as folder:
        bg.sample_posterior(  # what is imported at first use is not counted
            bg.datasets.old_faithful(), bg.fit_em(bg.datasets.old_faithful(), 2, rng=0), method="laplace", rng=0
        )
        for sizes in TABLES:
            print(line(Path(folder), *sizes), flush=True)
    print("\nfive overlapping components of two features: processor seconds and least effective sample size")
    print("     rows  weighted     ESS      NUTS     ESS  means, sds  verdict")
    for n in OVERLAPPING:
        weighted(n)
