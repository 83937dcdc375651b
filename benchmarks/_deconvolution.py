"""Seconds of one EM step by another package, on rows with errors of their own: _deconvolution.py NAME table.npz.

For `real.py`, which calls it in an environment that has these packages.
"""

import sys
import warnings
from time import perf_counter

import numpy as np

TURNS, STEPS = 3, 8


def extreme_deconvolution(X, S, weights, means, covariances):
    from extreme_deconvolution import extreme_deconvolution as climb

    return lambda n: climb(X, S, weights.copy(), means.copy(), covariances.copy(), tol=-np.inf, maxiter=n)


def astroml(X, S, weights, **_start):
    from astroML.density_estimation import XDGMM

    return lambda n: XDGMM(len(weights), max_iter=n, tol=-np.inf, random_state=0).fit(X, S)


def pygmmis(X, S, weights, means, covariances):
    import pygmmis

    def steps(n):
        model = pygmmis.GMM(*means.shape)
        model.amp[:], model.mean[:], model.covar[:] = weights, means, covariances
        pygmmis.fit(model, X, covar=S, init_method="none", tol=-np.inf, maxiter=n)

    return steps


def seconds(task, n):
    start = perf_counter()
    task(n)
    return perf_counter() - start


def main(name, path):
    warnings.simplefilter("ignore")
    package = {"extreme-deconvolution": extreme_deconvolution, "astroML": astroml, "pygmmis": pygmmis}[name]
    table = dict(np.load(path))
    table["S"] = table.pop("sd")[:, :, None] ** 2 * np.eye(table["X"].shape[1])
    try:
        steps = package(**table)
    except ImportError:
        sys.exit(f"not installed in {sys.executable}")
    least = [min(seconds(steps, n) for _ in range(TURNS)) for n in (1, 1 + STEPS)]
    print((least[1] - least[0]) / STEPS)


if __name__ == "__main__":
    main(*sys.argv[1:])
