"""Which component or cluster each row belongs to."""

import numpy as np
import pytest
from pictures import words

import bayesgmm as bg
from bayesgmm import plots


def test_the_least_certain_row_comes_first(clustered):
    shown = [t.get_text() for t in clustered.pictures["least_certain"].axes[0].get_yticklabels()]
    assert shown[0] == f"row {np.argmin(bg.assign(clustered.tree).label_probability)}"


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
    least = np.argsort(a.label_probability, kind="stable")[:20]
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


def test_the_map_is_of_two_features(clustered):
    maps = [c for c in clustered.pictures["uncertainty"].axes[0].collections if c.get_array() is not None]
    assert len(maps) == (clustered.fit.n_features == 2)
    assert ("the darker" in words(clustered.pictures["uncertainty"])) == (clustered.fit.n_features == 2)


def test_assignments_of_other_rows_are_refused(faithful):
    X, _, tree = faithful
    with pytest.raises(bg.InputError, match="the assignments are of 10 rows, the posterior of 272"):
        plots.uncertainty(tree, bg.assign(tree, X[:10]))
