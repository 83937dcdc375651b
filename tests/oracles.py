"""Reference tables, slow direct computations to hold the fast ones against, and how far draws may be off."""

import csv
import json
import os
import warnings
from pathlib import Path

import numpy as np
import xarray as xr
from scipy import stats
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

import bayesgmm as bg
from bayesgmm.bayes.density import Density
from bayesgmm.bayes.modes import Searched
from bayesgmm.em.result import Maximum
from bayesgmm.observations import observations

REFERENCE = Path(__file__).parent / "reference"
CHANCE = 1e-6  # that a statistical test may fail a correct program with


def seed(n=0):
    """The n-th seed for draws; all are others where the environment variable BAYESGMM_TEST_SEED is."""
    return 1000 * int(os.environ.get("BAYESGMM_TEST_SEED", "0")) + n


def errors_allowed(comparisons=1, df=50):
    """How many standard errors the worst of so many estimates may be off, but for one time in 10^6.

    By Student's t, as the errors are estimates too, from ``df + 1`` independent numbers. Effective sample sizes of
    thousands of draws give errors that are known to a tenth, as 50 numbers would.
    """
    return stats.t.isf(CHANCE / (2 * comparisons), df)


def deviation_allowed(p, n, comparisons=1):
    """How far the share of n independent events may be from its expectation p, but for one time in 10^6 (Bernstein)."""
    L = np.log(2 * comparisons / CHANCE) / n
    return L / 3 + np.sqrt((L / 3) ** 2 + 2 * L * p * (1 - p))


def reference(name):
    return json.loads((REFERENCE / name).read_text())


def table(name):
    """Numeric columns (N, D) of a reference table, or of one that ships with the package."""
    for folder in (REFERENCE, Path(bg.__file__).parent / "datasets"):
        path = folder / f"{name}.csv"
        if path.exists():
            head, *rows = list(csv.reader(path.read_text().splitlines()))
            return np.array([[float(v) for c, v in zip(head, row, strict=True) if c != ".class"] for row in rows])
    raise FileNotFoundError(name)


def random_mixture(rng, K, D, batch=()):
    """A mixture with overlapping components of unequal volume, shape and orientation."""
    A = rng.normal(size=(*batch, K, D, D)) / np.sqrt(D)
    return bg.GaussianMixture(
        weights=rng.dirichlet(np.full(K, 5.0), size=batch),
        means=2 * rng.normal(size=(*batch, K, D)),
        covariances=A @ np.swapaxes(A, -1, -2) + 0.2 * np.eye(D),
    )


def direct_log_joint(mixture, X):
    """log w_k + log N by scipy, (N, K)."""
    columns = [
        np.log(w) + multivariate_normal(m, S).logpdf(X).reshape(len(X))
        for w, m, S in zip(mixture.weights, mixture.means, mixture.covariances, strict=True)
    ]
    return np.stack(columns, axis=1)


def direct_log_prob(mixture, X):
    return logsumexp(direct_log_joint(mixture, X), axis=1)


def wobbling(target, chains, draws, rng, size=0.1):
    """Draws around a mixture."""
    shape = (chains, draws)
    w = rng.dirichlet(200 * target.weights, size=shape)
    m = target.means + size * rng.normal(size=(*shape, *target.means.shape))
    c = target.covariances * np.exp(size * rng.normal(size=(*shape, target.n_components, 1, 1)))
    return bg.GaussianMixture(w, m, c)


def tree_of(draws, X, em=None, statistics=None, **attributes):
    """A posterior as `sample_posterior` lays it out; the statistics (chain, draw) by name."""
    dims = {
        "weights": ("component",),
        "means": ("component", "feature"),
        "covariances": ("component", "feature", "feature_bis"),
    }
    groups = {
        "posterior": xr.Dataset({n: (("chain", "draw", *d), getattr(draws, n)) for n, d in dims.items()}),
        "observed_data": xr.Dataset({"observations": (("observation", "feature"), X)}),
        "log_likelihood": xr.Dataset({"observations": (("chain", "draw", "observation"), draws.log_prob(X))}),
    }
    if statistics is not None:
        groups["sample_stats"] = xr.Dataset({n: (("chain", "draw"), v) for n, v in statistics.items()})
    if em is not None:
        groups["em"] = xr.Dataset({n: (d, getattr(em, n)) for n, d in dims.items()})
    tree = xr.DataTree.from_dict(groups)
    tree.attrs.update(attributes)
    return tree


def direct_loss(a, b, loss):
    """Variation of information or Binder's loss between two partitions, labels (N,) each."""
    if loss == "binder":
        return ((a[:, None] == a) != (b[:, None] == b)).mean()
    both = (b.max() + 1) * a + b

    def entropy(c):
        p = np.bincount(c)[np.unique(c)] / len(c)
        return -(p * np.log(p)).sum()

    return 2 * entropy(both) - entropy(a) - entropy(np.unique(b, return_inverse=True)[1])


def predictive(X, weights, priors, error_sd=0.0):
    """Log predictive densities (..., N) of all rows given rows of the given weights (..., N), K = D = 1, on a grid.

    The errors (N, 1) that the rows were measured with are in the densities.
    """
    prior, wishart = priors.means, priors.covariances
    mean, log_variance = (g.ravel() for g in np.meshgrid(np.linspace(-15, 20, 701), np.linspace(-6, 7, 261)))
    variance = np.exp(log_variance)
    log_lik = stats.norm.logpdf(X, mean, np.sqrt(variance + np.square(error_sd)))  # (N, grid)
    log = stats.norm.logpdf(mean, prior.location[0], prior.scale[0]) + log_variance
    log = log + stats.invgamma.logpdf(variance, wishart.df / 2, scale=wishart.scale[0, 0] / 2)
    log = log + weights @ log_lik
    posterior = np.exp(log - logsumexp(log, axis=-1, keepdims=True))
    return np.log(posterior @ np.exp(log_lik).T)


def of_column(priors, j):
    """What priors of several features say of one, where a single component has independent features."""
    mean, wishart = priors.means, priors.covariances
    covariances = bg.InverseWishart(wishart.df - priors.n_features + 1, wishart.scale[j : j + 1, j : j + 1])
    return bg.Priors(np.ones(1), bg.NormalMeans(mean.location[j : j + 1], mean.scale[j : j + 1]), covariances)


def predictive_of_known(rows, weights, priors):
    """`predictive` of the known values of rows, of one component with independent features: column by column."""
    total = np.zeros(weights.shape)
    for j in range(rows.n_features):
        known = ~rows.missing[:, j]
        sd = 0.0 if rows.errors is None else np.sqrt(rows.errors[known, j : j + 1])
        column = rows.values[known, j : j + 1]
        total[..., known] += predictive(column, weights[..., known], of_column(priors, j), sd)
    return total


def quiet(call, *args, **kwargs):
    """What a call returns, whatever it warns of: where it is a matter of luck whether few draws deserve a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call(*args, **kwargs)


def hits(*numbers):
    """A search whose maxima, from the highest on, were met so many times each."""
    return Searched(tuple(Maximum(-float(i), n, False) for i, n in enumerate(numbers)), sum(numbers))


COORDINATE_CASES = [  # covariance model, K, D, family of the covariances' prior
    *[("VVV", 3, 4, "inverse Wishart"), ("VVV", 1, 3, "inverse Wishart"), ("EEE", 3, 4, "inverse Wishart")],
    *[("VVI", 2, 3, "inverse Wishart"), ("EEI", 3, 2, "inverse Wishart"), ("VII", 2, 2, "inverse Wishart")],
    *[("EII", 2, 2, "inverse Wishart"), ("V", 3, 1, "inverse Wishart"), ("E", 2, 1, "inverse Wishart")],
    *[(name, 3, 3, "inverse Wishart") for name in ("VEI", "EVI", "VEE")],
    ("EVV", 2, 3, "inverse Wishart"),
    *[(name, 3, 3, "hierarchical") for name in ("VVV", "EEE", "VVI", "VII", "VEI", "VEE", "EVI", "EVV")],
    *[("V", 2, 1, "hierarchical"), ("VVV", 1, 2, "hierarchical")],
    *[(name, K, D, "inverse Wishart") for name, K, D in (("EEV", 2, 3), ("VEV", 3, 2), ("EVE", 3, 4), ("VVE", 1, 3))],
    *[(name, K, D, "hierarchical") for name, K, D in (("EEV", 1, 2), ("VEV", 3, 3), ("EVE", 2, 2), ("VVE", 3, 3))],
    *[("VVV", 3, 3, "half-normal"), ("VVV", 3, 3, "log-normal"), ("EEE", 3, 3, "exponential")],
    *[(name, 2, 2, "half-normal") for name in ("VVI", "EEI", "VII", "EII")],
    ("V", 2, 1, "exponential"),
]


def covariance_prior(kind, scale):
    """A prior of the family by that name, about a scale matrix."""
    D = len(scale)
    return {
        "inverse Wishart": lambda: bg.InverseWishart(D + 3, scale),
        "hierarchical": lambda: bg.HierarchicalInverseWishart(D + 2.5, D + 1.5, scale / 3, floor=0.05),
        "half-normal": lambda: bg.LKJ(1.7, bg.HalfNormal(np.linspace(1, 2, D))),
        "log-normal": lambda: bg.LKJ(1.7, bg.LogNormal(np.linspace(0, 1, D), 0.7)),
        "exponential": lambda: bg.LKJ(1.7, bg.Exponential(0.8)),
    }[kind]()


def scale_matrices(n, model, K, df, scale_df, scale, floor, rng):
    """Draws (n, D, D) of the hierarchical prior's scale matrix, as far as a covariance model uses it, and its floor.

    Small ones are rarer than a Wishart distribution's, so that some of its draws are rejected.
    """
    D, diagonal = len(scale), np.diag(scale)
    own = df - D + 1 if model.diagonal else df
    power = own * (1 if model.volume == "E" else K) / 2
    accepted, size = np.empty((0, D, D)), 10 * n
    while len(accepted) < n:
        if not model.diagonal:
            B, F = stats.wishart(scale_df, scale).rvs(size, random_state=rng), floor * scale_df * scale
        elif model.shape == "I":
            mean = diagonal.mean()
            B, F = mean * rng.chisquare(scale_df, (size, 1, 1)), floor * scale_df * mean * np.eye(1)
        else:
            B, F = diagonal * rng.chisquare(scale_df, (size, 1, D)) * np.eye(D), floor * scale_df * np.diag(diagonal)
        chance = power * (np.linalg.slogdet(B)[1] - np.linalg.slogdet(B + F)[1])
        B = B[np.log(rng.random(size)) < chance]
        accepted = np.concatenate([accepted, B if len(F) == D else B * np.eye(D)])
    return accepted[:n], F if len(F) == D else F * np.eye(D)


def density_of(X, fit, priors):
    return Density(observations(X), X.mean(axis=0), priors, fit.covariance_model)


IMPERFECTIONS = ("holes", "errors", "holes and correlated errors")


def imperfect(X, kind, rng, holes=0.2):
    """A table as it may come: some of its values missing, one row without any; or with errors of measurement."""
    N, D = X.shape
    X, errors = X.copy(), {}
    if "holes" in kind:
        X[rng.random(X.shape) < holes] = np.nan
        X[3] = np.nan
    if "correlated" in kind:
        A = rng.normal(size=(N, D, D)) * X[~np.isnan(X).any(axis=1)].std(axis=0)[:, None] / 4
        errors = {"error_covariance": A @ np.swapaxes(A, 1, 2)}
    elif "errors" in kind:
        errors = {"error_sd": rng.uniform(0.0, 0.5, size=X.shape) * X.std(axis=0)}
    return observations(X, **errors)


def mclusts_mixture(row, n_features):
    """The mixture that mclust converged to, from a row of its reference files."""
    means = np.reshape(row["means"], (-1, n_features))
    covariances = np.reshape(row["covariances"], (-1, n_features, n_features))
    return bg.GaussianMixture(row["weights"], means, covariances)


def stopped_at(end, told):
    """Progress that is told into a list of stages, and interrupted where a stage begins; not at all by None."""

    def progress(*step):
        told.append(step[0])
        if step[0] == end:
            raise KeyboardInterrupt

    return progress
