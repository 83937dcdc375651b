"""Which component or cluster each row belongs to."""

import numpy as np
import pytest
from matplotlib.contour import QuadContourSet
from pictures import tick_names, words

import bayesgmm as bg
from bayesgmm import plots


def test_the_least_certain_row_comes_first(clustered):
    least = np.argmin(bg.assign(clustered.tree).label_probability)
    values = ", ".join(f"{x:.4g}" for x in np.asarray(clustered.X)[least, :3]).replace("nan", "missing")
    assert tick_names(clustered.pictures["least_certain"])[0] == f"row {least} ({values})"


def test_rows_that_are_certain_are_left_out_but_for_three(clustered):
    probability = bg.assign(clustered.tree).label_probability
    n_doubtful = int((probability < 0.99).sum())
    assert len(tick_names(clustered.pictures["least_certain"])) == min(max(n_doubtful, 3), 20)
    assert f"{n_doubtful} row" in words(clustered.pictures["least_certain"])


def test_the_label_and_its_probability_stand_beside_each_row(faithful):
    a = bg.assign(faithful[2])
    beside = [text.get_text() for text in plots.least_certain(a, rows=2).axes[0].texts]
    assert beside == [f"{a.labels[i]}: {a.label_probability[i]:.3f}" for i in np.argsort(a.label_probability)[:2]]


def test_the_intervals_are_those_of_the_assignments(faithful):
    assignments = bg.assign(faithful[2], ci_prob=0.5)
    figure = plots.least_certain(assignments, rows=3)
    assert "with 50% interval" in words(figure)
    least = np.argsort(assignments.label_probability, kind="stable")[:3]
    np.testing.assert_array_less(0.01, assignments.upper[least, 0])
    first_group = figure.axes[0].collections[0].get_segments()
    np.testing.assert_allclose([line[0, 0] for line in first_group], assignments.lower[least, 0])
    np.testing.assert_allclose([line[1, 0] for line in first_group], assignments.upper[least, 0])


def test_negligible_probabilities_are_left_out(clustered):
    a = bg.assign(clustered.tree)
    n_shown = len(tick_names(clustered.pictures["least_certain"]))
    least = np.argsort(a.label_probability, kind="stable")[:n_shown]
    points = [len(line.get_xdata()) for line in clustered.pictures["least_certain"].axes[0].lines]
    assert points == (a.upper[least] >= 0.01).sum(axis=0).tolist()


def test_a_number_of_rows_must_be_one(faithful):
    with pytest.raises(bg.InputError, match="rows must be"):
        plots.least_certain(bg.assign(faithful[2]), rows=0)


def test_sizes_are_explained(clustered):
    assert "probability 0.5" in words(clustered.pictures["uncertainty"])


def test_every_row_is_drawn_in_its_component(clustered):
    labels = bg.assign(clustered.tree).labels
    points = [c.get_offsets() for c in clustered.pictures["uncertainty"].axes[0].collections if len(c.get_offsets())]
    drawn_rows = sorted(len(p) for p in points)
    assert drawn_rows[-clustered.fit.n_components :] == sorted(n for n in np.bincount(labels) if n)


def test_the_map_is_of_two_features_and_has_a_scale(clustered):
    figure, mapped = clustered.pictures["uncertainty"], clustered.fit.n_features == 2
    assert any(isinstance(c, QuadContourSet) for c in figure.axes[0].collections) == mapped
    assert ("the darker" in words(figure)) == mapped
    assert ("1 - probability of the likeliest component" in [ax.get_ylabel() for ax in figure.axes[1:]]) == mapped


def test_the_map_ends_where_rows_become_unlikely(faithful):
    X, _, tree = faithful
    ax = plots.uncertainty(tree, bg.assign(tree)).axes[0]
    inside = ax.collections[0].get_clip_path().get_fully_transformed_path()
    assert inside.contains_points(ax.transData.transform(np.asarray(X))).mean() >= 0.99
    assert not inside.contains_points(ax.transData.transform([[5.0, 45.0], [1.6, 95.0]])).any()  # far from all rows


def test_assignments_of_other_rows_are_refused(faithful):
    X, _, tree = faithful
    some = bg.assign(tree, X[:10])
    with pytest.raises(bg.InputError, match="the assignments are of 10 rows, the posterior of 272"):
        plots.uncertainty(tree, some)
    with pytest.raises(bg.InputError, match="the assignments are of 10 rows, the table has 272"):
        plots.least_certain(some, X)
