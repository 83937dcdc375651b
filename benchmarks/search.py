"""Whether default fits reach the best known maximum, and whether the chance of a better one is what they say it is.

The best known maximum of a table, model and number of components is the highest that is not spurious among 2000 starts
of the portfolio, as many climbs of a long search, and all fits of this script. A fit has reached it if it ends less
than half a nat below.

    python benchmarks/search.py            # everything, with references from 4000 climbs each
    python benchmarks/search.py 200        # references from fewer
"""

import sys
import time
import warnings
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
from sklearn.datasets import load_wine

import bayesgmm as bg

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from oracles import table

SEEDS = 10
SHORT = 0.5  # nats
BINS = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)


def blobs(seed, sizes, gap, D):
    """Normal clusters of these sizes, of unequal shape, with centres that have the sd ``gap``."""
    rng = np.random.default_rng(seed)
    L = len(sizes)
    centers = rng.normal(0, gap, (L, D))
    A = (np.eye(D) + 0.4 * rng.normal(size=(L, D, D))) * rng.uniform(0.5, 1.5, L)[:, None, None]
    return np.concatenate([c + rng.normal(size=(n, D)) @ a.T for c, a, n in zip(centers, A, sizes, strict=True)])


def lumps():
    """38 tables of 4 to 8 round clusters in 2 or 3 dimensions, for fewer components than clusters."""
    rng = np.random.default_rng([99, 4])
    for i in range(38):
        D, L = rng.integers(2, 4), rng.integers(4, 9)
        K, n, gap = rng.integers(3, min(L, 6)), rng.integers(8, 25), rng.choice([3, 4, 6, 8])
        centers = rng.normal(0, gap, (L, D))
        yield f"lumps {i}", np.concatenate([rng.normal(c, 1, (n, D)) for c in centers]), "full", int(K)


def named():
    """Tables of all kinds, with several models and numbers of components each."""
    rng = np.random.default_rng(5)
    tables = {
        "faithful": (table("old_faithful"), "full 2 3 4, tied 3 4 6 8, VEV 4"),
        "iris": (table("iris"), "full 2 3 4, tied 3 5 7, VEV 3, VVI 5"),
        "diabetes": (table("diabetes_fixed"), "full 3 4, VVI 5, tied 5"),
        "acidity": (table("acidity"), "V 2 3 5, E 6"),
        "galaxies": (table("galaxies"), "V 3 5, E 6"),
        "thyroid": (table("thyroid"), "full 3, tied 6, VVI 4"),
        "five lumps": (np.concatenate([rng.normal(c, 1, (60, 1)) for c in range(0, 50, 10)]), "V 2 3 5 8"),
        "nine blobs": (
            np.concatenate([rng.normal((5 * i, 5 * j), 1, (30, 2)) for i in range(3) for j in range(3)]),
            "full 4 8 9, tied 5 8",
        ),
        "overlapping": (blobs(1, [50] * 4, 1.5, 2), "full 3 4, tied 5"),
        "small": (blobs(2, [20] * 3, 3, 3), "full 2 3, tied 4"),
        "unequal": (blobs(3, [240, 80, 40, 20, 20], 4, 2), "full 4 5 6, spherical 7"),
        "many": (blobs(4, [50] * 12, 6, 2), "full 8 12, tied 10, spherical 12"),
        "ten features": (blobs(5, [75] * 4, 2, 10), "full 3 4, tied 4 7, VVI 6"),
        "five features": (blobs(6, [114, 68, 45, 23], 2, 5), "full 3 4 5, EEE 6"),
        "one feature": (blobs(7, [86, 57, 29, 29], 3, 1), "V 4, E 7"),
    }
    for name, (X, fits) in tables.items():
        for model, *counts in map(str.split, fits.split(", ")):
            yield from ((name, X, model, int(K)) for K in counts)


def ten_tables():
    """Ten tables with 2 to 9 components, full and tied: more components than there are clusters, too."""
    names = "old_faithful", "galaxies", "iris", "thyroid", "diabetes_fixed", "acidity", "enzyme", "elongated"
    tables = {name: table(name) for name in names}
    tables |= {"wine": load_wine().data, "uniform": np.random.default_rng(8).random((200, 2))}
    for K in range(2, 10):
        for name, X in tables.items():
            most = len(X) // (2 * X.shape[1])  # rows enough for covariances of their own
            yield from ((name, X, model, K) for model in ("full", "tied") if model == "tied" or most >= K)


def reference(X, model, K, n):
    """The highest maximum that n starts of the portfolio and a search of n climbs find."""
    found = []
    for seed, n_starts in ((1000, n), *((1001 + i, 20) for i in range(n // 20))):
        with suppress(bg.DegenerateFitError):
            found.append(bg.fit_em(X, K, model, rng=seed, n_starts=n_starts))
    return max(found, key=lambda fit: (not fit.spurious, fit.log_likelihood))


def fits(cases, n):
    """Of each case: the best known maximum, the log-likelihoods and chances of ten default fits, seconds of a fit."""
    for name, X, model, K in cases:
        started = time.process_time()
        try:
            default = [bg.fit_em(X, K, model, rng=seed) for seed in range(SEEDS)]
        except bg.DegenerateFitError:  # more components than the table has clusters that are no points
            continue
        seconds = (time.process_time() - started) / SEEDS
        best = reference(X, model, K, n).log_likelihood
        values = np.array([fit.log_likelihood for fit in default])
        chances = np.array([fit.chance_of_better for fit in default])
        climbs = np.mean([len(fit.starts) for fit in default])
        yield f"{name}, {model}, K={K}", max(best, values.max()), values, chances, climbs, seconds


def part(title, cases, n, details):
    """Print how many fits of these cases reach the best known maximum, and how often stated chances come true."""
    print(f"\n{title}\n{'case':<30} {'best known':>11} reached  worst  chance  climbs    ms")
    short, stated, perfect, n_cases = [], [], 0, 0
    for case, best, values, chances, climbs, seconds in fits(cases, n):
        behind = best - values
        short.append(behind > SHORT)
        stated.append(chances)
        n_cases += 1
        perfect += not short[-1].any()
        if details or short[-1].any():
            print(
                f"{case:<30} {best:11.2f} {(~short[-1]).sum():4d}/{SEEDS} {behind.max():6.1f} {chances.mean():7.1%} "
                f"{climbs:7.0f} {1e3 * seconds:5.0f}",
                flush=True,
            )
    short, stated = np.concatenate(short), np.concatenate(stated)
    print(f"reached by {1 - short.mean():.1%} of {short.size} fits, by all seeds in {perfect} of {n_cases} cases")
    for low, high in pairwise(BINS):
        within = (low < stated) & (stated <= high)
        if within.any():
            print(
                f"   stated chance {low:.0%} to {high:.0%}: {within.sum():5d} fits, {stated[within].mean():6.1%} on "
                f"average; {short[within].mean():6.1%} fell short"
            )


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    n = int(sys.argv[1]) if sys.argv[1:] else 2000
    part("Tables of all kinds", named(), n, True)
    part("Lumps, with fewer components (those that fall short)", lumps(), n, False)
    part("Ten tables, 2 to 9 components, full and tied (those that fall short)", ten_tables(), n, False)
