"""What holds of every picture, for every number of components and features."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from pictures import drawings, few_draws, words

import bayesgmm as bg
from bayesgmm import plots
from bayesgmm.names import in_picture, short


def test_every_picture_can_be_drawn(drawn, tmp_path):
    for name, figure in drawn.pictures.items():
        figure.savefig(tmp_path / name, format="png", dpi=40)
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_every_picture_can_be_drawn_into_a_figure_of_ones_own(faithful):
    for name, draw in drawings(*faithful).items():
        figure = Figure()
        assert draw(figure=figure) is figure, name
        assert figure.get_constrained_layout(), name


def test_pictures_can_be_parts_of_a_figure(faithful, tmp_path):
    draw = drawings(*faithful)
    figure = Figure(figsize=(16, 5), layout="constrained")
    for name, part in zip(("clusters", "posterior"), figure.subfigures(1, 2), strict=True):
        assert draw[name](figure=part) is part
    figure.savefig(tmp_path / "both", format="png", dpi=40)


def test_a_posterior_is_a_tree_or_its_value(faithful):
    X, fit, tree = faithful
    value = bg.posterior(tree)
    partition, assignments = bg.partition(tree, rng=0), bg.assign(tree)
    for draw in (
        lambda posterior: plots.clusters(X, fit, posterior, assignments),
        plots.posterior,
        lambda posterior: plots.uncertainty(posterior, assignments),
        lambda posterior: plots.similarity(posterior, partition),
    ):
        assert words(draw(tree)) == words(draw(value))


NASTY = [
    "in_$ (out_$)",
    r"$\frac{$",
    r"$\undefined$",
    r"\$a\$ $b",
    "$$",
    "_hidden",
    "{%d} & #1 ~^",
    "[red]bold[/red]",
    "two\nlines\tand a bell\a",
    "",
    " ",
    "Größe µ²",
    "a very long name " * 20,
]


@pytest.mark.parametrize("name", NASTY)
def test_a_name_is_shown_character_by_character(name):
    pictures = []
    for text, formulas in ((in_picture(name), True), (short(name, 18), False)):
        figure = Figure(figsize=(3, 0.5), dpi=50)
        figure.text(0, 0.5, text, parse_math=formulas)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        pictures.append(np.asarray(canvas.buffer_rgba()))
    np.testing.assert_array_equal(*pictures)
    assert len(np.unique(pictures[0])) > 1  # something is to be seen
    assert len(short(name)) <= 20
    assert short(name).isprintable()


@pytest.mark.parametrize("names", [NASTY[:1], NASTY[1:6:4], NASTY[2:13:5]])
def test_no_name_of_a_column_spoils_a_picture(names, tmp_path):
    X = pd.DataFrame(np.asarray(bg.datasets.iris())[:, : len(names)], columns=names)
    fit = bg.fit_em(X, 2, n_starts=4, rng=0)
    draw = drawings(X, fit, few_draws(X, fit))
    for name in ("clusters", "posterior", "prior_check", "uncertainty", "credible_ball"):  # no other has names
        draw[name]().savefig(tmp_path / name, format="png", dpi=40)
    assert in_picture(names[0]) in words(plots.clusters(X, fit))


def test_axes_bear_the_names_of_the_columns(drawn):
    shown = set(drawn.fit.features) & set(words(drawn.pictures["clusters"]).split())
    assert len(shown) == min(drawn.fit.n_features, 4)
    assert set(drawn.fit.features[:6]) <= set(words(drawn.pictures["posterior"]).split())


def test_what_is_left_out_is_said(drawn):
    D = drawn.fit.n_features
    assert (f"4 of {D} features" in words(drawn.pictures["clusters"])) == (D > 4)


def test_a_posterior_of_many_components_and_features_shows_the_first(tmp_path):
    X = np.random.default_rng(0).normal(size=(200, 7)) + 20 * np.repeat(np.eye(20)[:, :7] - np.eye(20)[:, 7:14], 10, 0)
    figure = plots.posterior(few_draws(X, bg.fit_em(X, 14, "spherical", n_starts=2, rng=0)))
    figure.savefig(tmp_path / "posterior", format="png", dpi=40)
    assert figure.get_suptitle() == "Posterior; the first 12 of 14 components; the first 6 of 7 features"
    assert len(figure.axes) == 13  # a mean and an sd of each feature, and the weight


def test_pictures_by_cluster_show_the_partition_and_no_component(clustered):
    partition = bg.partition(clustered.tree, rng=0)
    for name, figure in clustered.pictures.items():
        if name.endswith("by cluster"):
            text = words(figure)
            assert "component 0" not in text, text
            assert "EM" not in text, text
            assert re.search(r"cluster \d", text), text
    for c in range(partition.n_clusters):
        assert f"cluster {c}" in words(clustered.pictures["posterior by cluster"])
    for c, n in enumerate(np.bincount(partition.labels)):
        assert f"cluster {c} ({n} row" in words(clustered.pictures["clusters by cluster"])


def test_no_global_state_of_pyplot_is_touched():
    for path in Path(plots.__file__).parent.glob("*.py"):
        assert "pyplot" not in path.read_text("utf-8"), path.name
