"""Tables to draw pictures of, few draws, and what is written in a picture."""

import warnings

import numpy as np

import bayesgmm as bg
from bayesgmm import plots

CASES = {
    "one feature, one component": ("galaxies", 1, "full"),
    "one feature": ("galaxies", 3, "full"),
    "two features, one component": ("old_faithful", 1, "full"),
    "two features": ("old_faithful", 2, "full"),
    "two features, diagonal": ("elongated", 3, "diag"),
    "four features, tied": ("iris", 3, "tied"),
    "one feature with holes": ("galaxies with holes", 3, "tied"),
    "two features with holes": ("old_faithful with holes", 2, "full"),
    "four features with holes": ("iris with holes", 3, "tied"),
    "six features, seven components": ("wide", 7, "spherical"),
}


def table(name):
    if name == "wide":
        rng = np.random.default_rng(0)
        return 9.0 * np.repeat(np.eye(7)[:, :6], 12, axis=0) + rng.normal(size=(84, 6))
    X = getattr(bg.datasets, name.removesuffix(" with holes"))()
    if name.endswith(" with holes"):
        X = X.mask(np.random.default_rng(0).random(X.shape) < 0.1)
        X.iloc[7] = np.nan
    return X


def few_draws(X, fit):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bg.ConvergenceWarning)  # so few draws never suffice
        return bg.sample_posterior(X, fit, draws=30, tune=50, chains=2, rng=0)


def drawings(X, fit, tree):
    """Every picture that a fit and its posterior have, by name: functions that draw it, into a figure if given one."""
    pictures = {
        "clusters": lambda **into: plots.clusters(X, fit, tree, **into),
        "em_path": lambda **into: plots.em_path(fit, **into),
        "posterior": lambda **into: plots.posterior(tree, **into),
        "prior_check": lambda **into: plots.prior_check(X, n_components=fit.n_components, rng=0, **into),
    }
    if fit.n_components > 1:
        assignments, partition = bg.assign(tree), bg.partition(tree, rng=0)
        ball, by_cluster = bg.credible_ball(tree, partition, rng=0), bg.assign(tree, partition=partition)
        pictures |= {
            "clusters by cluster": lambda **into: plots.clusters(X, fit, tree, by_cluster, **into),
            "posterior by cluster": lambda **into: plots.posterior(tree, partition=partition, **into),
            "uncertainty by cluster": lambda **into: plots.uncertainty(tree, by_cluster, **into),
            "least_certain by cluster": lambda **into: plots.least_certain(by_cluster, **into),
            "uncertainty": lambda **into: plots.uncertainty(tree, assignments, **into),
            "least_certain": lambda **into: plots.least_certain(assignments, X, **into),
            "similarity": lambda **into: plots.similarity(tree, partition, **into),
            "credible_ball": lambda **into: plots.credible_ball(X, partition, ball, **into),
        }
    return pictures


def words(figure):
    texts = [t.get_text() for legend in figure.legends for t in legend.get_texts()]
    labels = [f"{ax.get_title()} {ax.get_xlabel()} {ax.get_ylabel()}" for ax in figure.axes]
    ticks = [tick.get_text() for ax in figure.axes for tick in ax.get_yticklabels()]
    return " ".join([figure.get_suptitle(), *texts, *labels, *ticks])


def black_lines(figure):
    return [line for ax in figure.axes for line in ax.lines if line.get_color() == "black"]


def tick_names(figure):
    return [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
