"""Colours, markers and outlines."""

import numpy as np
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

import bayesgmm as bg
from bayesgmm.plots.style import (
    COLORS,
    bin_edges,
    color,
    edge_ticks,
    figure_or_new,
    marker,
    missing_note,
    outlines,
    parting_features,
)


def test_a_component_keeps_its_colour():
    assert [color(k) for k in range(6)] == [to_hex(c).upper() for c in COLORS]
    assert len({(color(k), marker(k)) for k in range(30)}) == 30


def test_an_ellipse_lies_at_its_mahalanobis_distance():
    fit = bg.fit_em(bg.datasets.iris(), 2, rng=0)
    outline = outlines(fit.mixture, 1, (2, 0), 2.0)
    two = fit.mixture.marginal((2, 0))
    offset = outline - two.means[1]
    squares = np.einsum("ni,ij,nj->n", offset, np.linalg.inv(two.covariances[1]), offset)
    np.testing.assert_allclose(squares, 4.0)


def test_a_histogram_has_bins_that_can_be_seen():
    x = np.random.default_rng(0).standard_cauchy(10_000)
    assert len(bin_edges(x)) <= 81
    assert (bin_edges(x)[0], bin_edges(x)[-1]) == (x.min(), x.max())


def test_a_figure_has_room_for_legends_outside_of_its_axes():
    bare, tight = Figure(), Figure(layout="tight")
    engine = tight.get_layout_engine()
    assert figure_or_new(bare, 3, 2).get_constrained_layout()
    assert figure_or_new(tight, 3, 2).get_layout_engine() is engine
    assert figure_or_new(None, 3, 2).get_size_inches().tolist() == [3, 2]


def test_the_features_shown_are_those_that_tell_the_groups_apart():
    rows = np.random.default_rng(0).normal(size=(100, 4)) * [1, 100, 1, 1]
    means = np.array([[0.0, 0, 0, 0], [2, 100, 0, 3]])  # a hundred is one sd
    assert parting_features(means, rows, 2) == [0, 3]
    assert parting_features(means, rows, 5) == [0, 1, 2, 3]


def test_rows_that_lack_one_of_two_values_are_ticks_at_the_edge():
    x, y = np.array([1.0, 2.0, np.nan, np.nan]), np.array([5.0, np.nan, 6.0, np.nan])
    ax = Figure().subplots()
    edge_ticks(ax, x, y, "black")
    below, beside = ax.lines
    np.testing.assert_array_equal(below.get_xdata(), [2.0])
    np.testing.assert_array_equal(beside.get_ydata(), [6.0])
    assert "3 rows lack a value: ticks at the edges" in missing_note(np.stack([x, y], axis=1))
    assert "1 row lacks a value: left out" in missing_note(np.array([[1.0], [np.nan]]))
    assert missing_note(np.ones((3, 2))) == ""
