"""What the information and the posterior of a table in parts cost, against an EM pass over the same file.

Processor seconds are measured, for other work on the machine does not count. A difference quotient of the score takes
two passes for each free parameter. The peak is that beyond the highest before, of making the table and fitting it.
"""

import resource
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

import bayesgmm as bg
from bayesgmm.em.information import request_of, second_order
from bayesgmm.passes import Streamed

RUNS = 3
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


if __name__ == "__main__":
    print("     rows   D   K   EM pass   information   with scores   quotient   posterior   ratio      MB  verdict")
    with tempfile.TemporaryDirectory() as folder:
        bg.sample_posterior(  # what is imported at first use is not counted
            bg.datasets.old_faithful(), bg.fit_em(bg.datasets.old_faithful(), 2, rng=0), method="laplace", rng=0
        )
        for sizes in TABLES:
            print(line(Path(folder), *sizes), flush=True)
