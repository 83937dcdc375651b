"""Fit random small tables, odd ones among them, on every level of the processor: for the sanitizers to watch."""

import sys
import warnings

import numpy as np

import bayesgmm as bg
from bayesgmm import native
from bayesgmm.covariance import NAMES


def table(rng):
    """A table, and what to fit to it."""
    N, D, K = int(rng.integers(2, 70)), int(rng.integers(1, 14)), int(rng.integers(1, 5))
    X = rng.normal(size=(N, D)) * 10.0 ** rng.integers(-3, 4, size=D)
    if rng.random() < 0.2:
        X = np.round(X)
    if rng.random() < 0.1:
        X[rng.integers(N)] *= 1e6
    parts = {}
    if rng.random() < 0.3:
        parts["sample_weight"] = rng.exponential(size=N)
    if rng.random() < 0.3:
        parts["labels"] = np.where(rng.random(N) < 0.2, rng.integers(K, size=N), -1)
    return X, K, str(rng.choice(NAMES)), parts


def main(n):
    levels, fitted = native.levels(), 0
    print(native.__file__)
    for i in range(n):
        native.use_level(levels[i % len(levels)])
        rng = np.random.default_rng(i)
        X, K, model, parts = table(rng)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                fit = bg.fit_em(X, K, model, n_starts=3, max_iterations=50, rng=i, **parts)
            except (bg.InputError, bg.DegenerateFitError):
                continue
        m, fitted = fit.mixture, fitted + 1
        assert np.isfinite(m.log_prob(X)).all()
        assert np.isfinite(m.responsibilities(X)).all()
        if i % 10 == 0:
            some = int(rng.integers(1, 40))
            parts = (np.repeat(part[None], some, axis=0) for part in (m.weights, m.means, m.covariances))
            draws = bg.GaussianMixture(*parts)
            bg.partition(draws, X, n_runs=1, rng=i)
            bg.merge_components(draws, X)
            bg.number_of_modes(draws)
    print(f"{n} tables, {fitted} of them fitted, on {', '.join(levels)}")


if __name__ == "__main__":
    main(int(sys.argv[1]))
