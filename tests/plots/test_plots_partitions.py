"""Partitions of the rows."""

from dataclasses import replace

import numpy as np
import pytest
from pictures import words

import bayesgmm as bg
from bayesgmm import plots
from bayesgmm.names import counted


def test_the_clusters_of_the_similarities_are_named_with_their_sizes(clustered):
    partition = bg.partition(clustered.tree, rng=0)
    texts = [text.get_text().splitlines() for text in clustered.pictures["similarity"].axes[0].texts]
    assert texts == [[f"cluster {c}", counted(n, "row")] for c, n in enumerate(np.bincount(partition.labels).tolist())]


def test_the_names_of_small_clusters_stand_apart(faithful):
    partition = bg.partition(faithful[2], rng=0)
    labels = np.repeat(np.arange(5), [268, 1, 1, 1, 1])
    small = replace(partition, labels=labels, components=np.array([0, 1, -1, -1, -1]))
    figure = plots.similarity(faithful[2], small)
    heights = [text.get_position()[1] for text in figure.axes[0].texts]
    assert (np.diff(heights) > 18).all(), heights
    assert len({line.get_color() for line in figure.axes[0].lines}) == 5


def test_the_ball_is_shown_beside_the_partition(clustered):
    partition = bg.partition(clustered.tree, rng=0)
    ball = bg.credible_ball(clustered.tree, partition, rng=0)
    text = words(clustered.pictures["credible_ball"])
    assert f"the partition: {counted(partition.n_clusters, 'cluster')}" in text
    for labels, distance in (
        (ball.upper, ball.upper_distance),
        (ball.lower, ball.lower_distance),
        (ball.horizontal, ball.horizontal_distance),
    ):
        assert f"{counted(len(np.unique(labels)), 'cluster')}, distance {distance:.2f}" in text
    assert "95% of the posterior's partitions" in text


def test_the_same_partition_has_one_panel_and_the_rows_that_differ_are_ringed(faithful):
    X, _, tree = faithful
    partition = bg.partition(tree, rng=0)
    ball, labels = bg.credible_ball(tree, partition, rng=0), partition.labels
    moved = np.where(np.isin(np.arange(len(labels)), (3, 7)), 1 - labels, labels)
    same = replace(ball, upper=labels, lower=1 - moved, horizontal=moved, horizontal_distance=ball.lower_distance)
    figure = plots.credible_ball(X, partition, same)  # the numbers of clusters do not make them others
    titles = [ax.get_title() for ax in figure.axes]
    assert len(titles) == 3
    assert titles[1].startswith("fewest clusters:\n")
    assert titles[1].endswith("no row differs")
    assert titles[2].startswith("most clusters and farthest:\n")
    assert titles[2].endswith("2 rows ringed: 3, 7")
    np.testing.assert_array_equal(figure.axes[2].collections[-1].get_offsets(), np.asarray(X)[[3, 7]])


def test_one_feature_stands_at_the_height_of_its_cluster(clustered):
    if clustered.fit.n_features > 1:
        pytest.skip("more features have a plane")
    labels = bg.partition(clustered.tree, rng=0).labels
    points = np.concatenate([c.get_offsets() for c in clustered.pictures["credible_ball"].axes[0].collections])
    expected = np.column_stack([np.asarray(clustered.X)[:, 0], labels])
    np.testing.assert_allclose(points[np.lexsort(points.T)], expected[np.lexsort(expected.T)])


def test_other_rows_are_refused(faithful):
    X, _, tree = faithful
    partition = bg.partition(tree, rng=0)
    fewer = replace(partition, labels=partition.labels[:10])
    with pytest.raises(bg.InputError, match="the partition is of 10 rows, the posterior of 272"):
        plots.similarity(tree, fewer)
    with pytest.raises(bg.InputError, match="the table has 272 rows, the partition is of 10 rows, the ball of 272"):
        plots.credible_ball(X, fewer, bg.credible_ball(tree, partition, rng=0))
