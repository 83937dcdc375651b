"""The posterior of the parameters."""

import arviz as az
import numpy as np
from pictures import black_lines, words

import bayesgmm as bg
from bayesgmm import plots


def test_the_em_estimate_is_marked(drawn):
    mixture, K = drawn.fit.mixture, min(drawn.fit.n_components, 6)
    marked = {float(x) for line in black_lines(drawn.pictures["posterior"]) for x in line.get_xdata()}
    weights = mixture.weights[:K].tolist() if K > 1 else []
    assert marked >= {*weights, *mixture.means[:K, :6].ravel().tolist()}


def test_the_components_of_a_quantity_share_a_scale(faithful):
    tree = faithful[2]
    (means,) = [ax for ax in plots.posterior(tree).axes if ax.get_title() == "mean eruptions"]
    low, high = means.get_xlim()
    draws = tree["posterior"]["means"].values[..., 0]
    assert (low < draws.mean(axis=(0, 1))).all()
    assert (draws.mean(axis=(0, 1)) < high).all()


def test_clusters_have_no_em_estimate(clustered):
    assert black_lines(clustered.pictures["posterior by cluster"]) == []


def test_intervals_have_the_level_that_the_legend_says(faithful):
    tree = faithful[2]
    weights = tree["posterior"]["weights"].values[..., 0].ravel()
    for ci_prob in (None, 0.5):
        figure = plots.posterior(tree, ci_prob=ci_prob)
        level = az.rcParams["stats.ci_prob"] if ci_prob is None else ci_prob
        assert f"{100 * level:g}% interval" in words(figure)
        np.testing.assert_allclose(_bar(figure), np.quantile(weights, [(1 - level) / 2, (1 + level) / 2]))


def _bar(figure):
    """Ends of the thin bar of the first component's weight."""
    (weight,) = [ax for ax in figure.axes if ax.get_title() == "weight"]
    return next(line.get_xdata() for line in weight.lines if line.get_linewidth() == 2)


def test_two_features_have_a_correlation_where_the_model_has_one(drawn):
    titles = [ax.get_title() for ax in drawn.pictures["posterior"].axes]
    correlated = drawn.fit.n_features == 2 and not drawn.fit.covariance_model.diagonal
    assert ("correlation" in titles) == correlated


def test_the_clusters_are_those_of_cluster_mixture(faithful):
    tree = faithful[2]
    partition = bg.partition(tree, rng=0)
    weights = bg.cluster_mixture(tree, partition).weights[..., 0]
    bar = _bar(plots.posterior(tree, partition=partition, ci_prob=0.8))
    np.testing.assert_allclose(bar, np.quantile(weights, [0.1, 0.9]))


def test_draws_without_an_em_fit_have_a_picture(faithful):
    foreign = faithful[2].copy()
    del foreign["em"]
    assert black_lines(plots.posterior(foreign)) == []
    assert "EM" not in words(plots.posterior(foreign))
    assert plots.uncertainty(foreign, bg.assign(foreign)).axes
