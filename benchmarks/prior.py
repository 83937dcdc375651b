"""Which default prior of the covariances: agreement with the truth, coverage, the number of components, time.

Labelled tables (scikit-learn's and those of tests/reference) and simulated ones: 1 to 8 components in 1 to 15 features,
from half to a fiftieth as wide as the table, of unequal sizes, 50 to 5000 rows. Each prior is given the same EM fit.
Run: python benchmarks/prior.py [--tables 24] [--evidence] [--prior default --prior fixed] [--csv each.csv]
"""

import argparse
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

import bayesgmm as bg

REFERENCE = Path(__file__).parents[1] / "tests" / "reference"
LEVEL = 0.89
_COORDINATES = 200  # so many, or two components, at most: a posterior of a thousand takes minutes


def whole_scale(X, K):
    """The table's covariance over K^(2/D): the expected size of a component."""
    D = X.shape[1]
    return np.cov(X.T).reshape(D, D) / K ** (2 / D)


def hierarchical(extra_df, extra_scale_df, size=1.0):
    """A hierarchical prior with D + extra_df and D + extra_scale_df degrees of freedom, and the default's floor."""

    def prior(X, K):
        D = X.shape[1]
        scale_df = D + extra_scale_df
        return bg.HierarchicalInverseWishart(D + extra_df, scale_df, size * whole_scale(X, K) / scale_df, 1e-4)

    return prior


PRIORS = {
    "fixed scale, D+2": lambda X, K: bg.InverseWishart(X.shape[1] + 2, whole_scale(X, K)),
    "D+2, D (default)": hierarchical(2, 0),
    "D+1, D": hierarchical(1, 0),
    "D+4, D": hierarchical(4, 0),
    "D+2, D+2": hierarchical(2, 2),
    "D+2, D, size x 4": hierarchical(2, 0, 4.0),
    "D+2, D, size / 4": hierarchical(2, 0, 0.25),
}


def labelled():
    """Real tables with known classes: name, rows (N, D), labels (N,), covariance model."""
    from sklearn import datasets

    for name, load in (("iris", datasets.load_iris), ("wine", datasets.load_wine)):
        X, y = load(return_X_y=True)
        yield name, X, y, "VVV" if name == "iris" else "VVI"
    X, y = datasets.load_breast_cancer(return_X_y=True)
    yield "breast cancer, 5 columns", X[:, [0, 1, 4, 5, 6]], y, "VVV"
    for name in ("thyroid", "diabetes_fixed"):
        frame = pd.read_csv(REFERENCE / f"{name}.csv")
        yield name, frame.drop(columns=".class").to_numpy(float), frame[".class"].factorize()[0], "VVV"
    rng = np.random.default_rng(0)  # the cross of mclust: two normals, one across the other
    cross = np.concatenate([rng.normal(size=(250, 2)) * sds for sds in ([3.0, 0.2], [0.2, 3.0])])
    yield "cross", cross, np.repeat([0, 1], 250), "VVV"


def simulated(n_tables):
    """Tables of known mixtures: name, rows, labels, covariance model, mixture."""
    for i in range(n_tables):
        rng = np.random.default_rng([20261121, i])
        D = int(rng.choice([1, 2, 3, 4, 6, 10, 15]))
        K = int(rng.integers(1, 9))
        K = min(K, max(2, _COORDINATES // (D * (D + 3) // 2)))
        N = int(np.exp(rng.uniform(np.log(max(50, 4 * K * (D + 1))), np.log(5000))))
        width = np.exp(rng.uniform(np.log(1 / 50), np.log(1 / 2)))  # a component's sd, of the table's
        weights = rng.dirichlet(np.full(K, 3.0))
        covariances = []
        for _ in range(K):
            A = rng.normal(size=(D, 2 * D)) / np.sqrt(2 * D)
            covariances.append(A @ A.T * width**2 * np.exp(rng.normal(0, 0.5)))
        mixture = bg.GaussianMixture(weights, rng.normal(size=(K, D)), np.array(covariances))
        X, y = mixture.sample(N, rng=rng)
        units = np.exp(rng.normal(0, 3, D))  # every feature in units of its own
        used = np.bincount(y, minlength=K) > D + 1
        if not used.all():  # components that no method could see
            continue
        truth = bg.GaussianMixture(weights, mixture.means * units, mixture.covariances * np.outer(units, units))
        yield f"K={K} D={D} N={N} 1/{1 / width:.0f}", X * units, y, "VVV", truth


def posterior(X, fit, K, prior, draws=500):
    """Draws, and the seconds they took."""
    default = bg.Priors.weakly_informative(X, K)
    started = time.perf_counter()
    tree = bg.sample_posterior(X, fit, replace(default, covariances=prior(X, K)), draws=draws, tune=300, rng=1)
    return tree, time.perf_counter() - started


def coverage(tree, truth):
    """How many of the true means and variances lie in their intervals, the components matched by distance; how many."""
    mixture = bg.as_mixture(tree)
    center, spread = mixture.means.mean(axis=(0, 1)), np.sqrt(np.einsum("kii->ki", truth.covariances))
    distance = (((center[:, None] - truth.means) / spread) ** 2).sum(axis=2)
    ours, theirs = linear_sum_assignment(distance)
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    inside = []
    for draws, true in (
        (mixture.means, truth.means),
        (np.einsum("...ii->...i", mixture.covariances), np.einsum("...ii->...i", truth.covariances)),
    ):
        low, high = np.quantile(draws, tails, axis=(0, 1))
        inside.append((low[ours] <= true[theirs]) & (true[theirs] <= high[ours]))
    return int(np.sum(inside)), int(np.size(inside))


def chosen(X, K, covariance, prior):
    """The number of components between K - 1 and K + 1 of largest evidence."""
    evidence = {}
    for size in range(max(K - 1, 1), K + 2):
        fit = bg.fit_em(X, size, covariance, rng=0)
        tree, _ = posterior(X, fit, size, prior)
        evidence[size] = bg.log_evidence(tree, rng=0).value
    return max(evidence, key=evidence.__getitem__)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=24, help="simulated tables")
    parser.add_argument("--evidence", action="store_true", help="also which K the evidence chooses, on small tables")
    parser.add_argument("--prior", action="append", help="only those whose name holds this text; may be repeated")
    parser.add_argument("--csv", help="where to write a line for each table and prior")
    arguments = parser.parse_args()
    wanted = arguments.prior or [""]
    priors = {name: prior for name, prior in PRIORS.items() if any(text in name for text in wanted)}
    warnings.simplefilter("ignore", bg.ConvergenceWarning)
    tables = [(*table, None) for table in labelled()] + list(simulated(arguments.tables))
    lines = []
    for name, X, y, covariance, truth in tables:
        K, kind = int(y.max()) + 1, "real" if truth is None else "simulated"
        try:
            fit = bg.fit_em(X, K, covariance, rng=0)
        except bg.DegenerateFitError:
            continue
        em = bg.adjusted_rand(fit.mixture.predict(X), y) if K > 1 else 1.0
        for prior_name, prior in priors.items():
            tree, seconds = posterior(X, fit, K, prior)
            rand = bg.adjusted_rand(bg.assign(tree).labels, y) if K > 1 else 1.0
            line = {"table": name, "kind": kind, "prior": prior_name, "em": em, "rand": rand, "seconds": seconds}
            line["converged"] = tree.attrs["convergence"].startswith("Converged")
            line["ambiguous"] = tree.attrs["ambiguous_rate"]
            if truth is not None:
                line["inside"], line["of"] = coverage(tree, truth)
            if arguments.evidence and len(X) <= 1000 and X.shape[1] <= 6 and K <= 5:
                line["right K"] = chosen(X, K, covariance, prior) == K
            lines.append(line)
            if arguments.csv:
                pd.DataFrame(lines).to_csv(arguments.csv, index=False)
    report(pd.DataFrame(lines), priors)


def report(frame, priors):
    """The tables that are read."""
    real = frame[frame["kind"] == "real"]
    wide = real.pivot(index="table", columns="prior", values="rand")[list(priors)]
    wide.insert(0, "EM", real.groupby("table")["em"].first())
    print("Adjusted Rand index of the assignment with the known classes\n")
    print(wide.round(3).to_string(), "\n")
    rows = []
    for name in priors:
        own = frame[(frame["prior"] == name) & (frame["kind"] == "simulated")]
        row = {
            "prior (df, scale df)": name,
            "Rand - EM's": (own["rand"] - own["em"]).mean(),
            "worst": (own["rand"] - own["em"]).min(),
            f"coverage of {LEVEL:.0%}": own["inside"].sum() / own["of"].sum(),
            "converged": own["converged"].mean(),
            "ambiguous draws": own["ambiguous"].mean(),
            "seconds": own["seconds"].sum(),
        }
        if "right K" in frame:
            row["evidence right"] = frame.loc[frame["prior"] == name, "right K"].mean()
        rows.append(row)
    tables = frame.loc[frame["kind"] == "simulated", "table"].nunique()
    print(f"{tables} simulated tables\n")
    print(pd.DataFrame(rows).set_index("prior (df, scale df)").round(3).to_string())


if __name__ == "__main__":
    main()
