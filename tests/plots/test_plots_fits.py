"""The table with its fit."""

import numpy as np
import pytest
from pictures import few_draws, words

import bayesgmm as bg
from bayesgmm import plots


def test_the_legend_counts_the_rows_of_each_component(drawn):
    counts = np.bincount(bg.assign(drawn.tree).labels, minlength=drawn.fit.n_components)
    for k, n in enumerate(counts):
        assert f"component {k} ({n} row" in words(drawn.pictures["clusters"])


def test_the_clusters_densities_add_up_to_the_posterior_mean_density(clustered):
    if clustered.fit.n_features == 2:
        pytest.skip("two features are shown without densities")
    lines = clustered.pictures["clusters by cluster"].axes[0].lines
    whole = next(line for line in lines if line.get_color() == "black")
    parts = [line.get_ydata() for line in lines if len(line.get_xdata()) == 400 and line is not whole]
    np.testing.assert_allclose(np.sum(parts, axis=0), whole.get_ydata())
    marginal = bg.as_mixture(clustered.tree).marginal([0])
    mean = np.exp(marginal.log_prob(whole.get_xdata()[:, None])).mean(axis=(0, 1))
    loose = 1e-9 if clustered.fit.n_features == 1 else 0.2  # of all draws, or of 50
    np.testing.assert_allclose(whole.get_ydata(), mean, atol=loose * mean.max())


def test_the_band_of_densities_has_the_level_that_the_legend_says():
    X = bg.datasets.galaxies()
    fit = bg.fit_em(X, 2, rng=0)
    tree = few_draws(X, fit)
    widths = []
    for ci_prob, text in ((None, "89%"), (0.5, "50%"), (0.995, "99.5%")):
        figure = plots.clusters(X, fit, tree, ci_prob=ci_prob)
        assert f"posterior of the density, {text}" in words(figure)
        band = figure.axes[0].collections[0].get_paths()[0].vertices
        middle = np.isclose(band[:, 0], band[len(band) // 4, 0])
        widths.append(np.ptp(band[middle, 1]))
    assert widths[1] < widths[0] < widths[2], widths
    with pytest.raises(bg.InputError, match="ci_prob must be between 0 and 1"):
        plots.clusters(X, fit, tree, ci_prob=89)


def test_clusters_need_the_posterior_to_be_outlined(faithful):
    X, fit, tree = faithful
    with pytest.raises(bg.InputError, match="give the posterior too"):
        plots.clusters(X, fit, assignments=bg.assign(tree, partition=bg.partition(tree, rng=0)))


def test_another_table_than_the_fitted_is_refused(faithful):
    X, fit, tree = faithful
    with pytest.raises(bg.InputError, match="the table has 1 columns, the fit 2 features"):
        plots.clusters(X.iloc[:, :1], fit)
    with pytest.raises(bg.InputError, match="in another order"):
        plots.clusters(X.iloc[:, ::-1], fit, tree)
    with pytest.raises(bg.InputError, match="the assignments are of 272 rows, the table has 100"):
        plots.clusters(X[:100], fit, tree, bg.assign(tree))


def test_stray_draws_do_not_shrink_the_rows(faithful):
    X, fit, tree = faithful
    limits = plots.clusters(X, fit, tree).axes[0].get_xlim()
    stray = tree.copy(deep=True)
    stray["posterior"]["means"][0, 0, 0] = 1e6
    assert plots.clusters(X, fit, stray).axes[0].get_xlim() == limits


def test_of_many_rows_some_are_drawn_and_all_are_counted():
    X = np.random.default_rng(0).normal(size=(6000, 2))
    figure = plots.clusters(X, bg.fit_em(X, 1))
    assert len(figure.axes[0].collections[0].get_offsets()) == 5000
    assert "5000 of 6000 rows" in words(figure)
    assert "(6000 rows)" in words(figure)


def test_a_point_is_the_larger_the_less_certain_it_is():
    X = bg.datasets.elongated()
    fit = bg.fit_em(X, 3, rng=0)
    sizes, certainty = [], []
    for k, points in enumerate(plots.clusters(X, fit).axes[0].collections):
        sizes.append(points.get_sizes())
        certainty.append(fit.mixture.responsibilities(points.get_offsets())[:, k])
    order = np.argsort(np.concatenate(certainty))
    np.testing.assert_array_less(np.diff(np.concatenate(sizes)[order]), 1e-9)


def test_the_path_is_em_s_and_ends_at_its_log_likelihood(drawn):
    (line,) = drawn.pictures["em_path"].axes[0].lines
    np.testing.assert_array_equal(line.get_ydata(), drawn.fit.log_likelihood_path)
    assert f"{drawn.fit.log_likelihood:.4f}" in words(drawn.pictures["em_path"])
