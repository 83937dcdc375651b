"""The page's pictures as specifications."""

import json

import numpy as np
import pytest

import bayesgmm as bg
from bayesgmm.page import specs
from bayesgmm.page.comparison import Comparison
from bayesgmm.page.facts import facts_of_fit, facts_of_posterior
from bayesgmm.plots.style import COLORS


@pytest.fixture(scope="module")
def facts(iris_posterior):
    return facts_of_posterior(iris_posterior, "iris")


def strings(value):
    """Every text in a specification."""
    if isinstance(value, dict):
        return [text for entry in value.values() for text in strings(entry)]
    if isinstance(value, list):
        return [text for entry in value for text in strings(entry)]
    return [value] if isinstance(value, str) else []


def test_colours_are_left_to_the_style_sheet(facts):
    for spec in (specs.scatter(facts), *(specs.forest(facts, d) for d in facts.quantities)):
        json.dumps(spec, allow_nan=False)
        assert not [text for text in strings(spec) if text.startswith("#") or text in ("black", "white")]


def test_the_style_sheet_has_the_colours_of_the_other_pictures():
    from importlib.resources import files

    style = files("bayesgmm.page").joinpath("page.css").read_text("utf-8").partition("@media")[0]
    for i, color in enumerate(COLORS):
        assert f"--group-{i}: {color.lower()};" in style


def test_a_forest_has_the_posterior_s_quantiles_and_em_s_estimate(facts, iris_posterior):
    weight = facts.quantities[0]
    draws, fit = bg.as_mixture(iris_posterior), bg.posterior(iris_posterior).fit
    lines = specs.forest(facts, weight)["data"]["values"]
    for k, line in enumerate(lines):
        expected = np.quantile(draws.weights[..., k], [0.055, 0.25, 0.5, 0.75, 0.945])
        np.testing.assert_allclose([line[name] for name in ("low", "lower", "median", "upper", "high")], expected)
        assert line["em"] == pytest.approx(fit.mixture.weights[k])


def test_the_parts_of_a_density_add_up_to_it():
    X = bg.datasets.galaxies()
    fit = bg.fit_em(X, 3, rng=0)
    layers = specs.densities(facts_of_fit(fit, X, ""))["layer"]
    values = [layer["data"].get("values", []) for layer in layers]
    whole = next(v for v in values if v and set(v[0]) == {"x", "y"})
    parts = next(v for v in values if v and "group" in v[0])
    sums = {}
    for point in parts:
        sums[point["x"]] = sums.get(point["x"], 0) + point["y"]
    np.testing.assert_allclose([sums[point["x"]] for point in whole], [point["y"] for point in whole], rtol=1e-3)
    bars = values[0]
    assert sum((bar["high"] - bar["low"]) * bar["height"] for bar in bars) == pytest.approx(1)


def test_a_criterion_shows_how_far_each_fit_is_behind():
    selection = bg.select(bg.datasets.old_faithful(), (1, 2, 3), ("EEE", "VVI"), ("bic",), n_replicates=0, rng=0)
    spec = specs.criterion(Comparison.of(selection), "bic")
    points = next(layer["data"]["values"] for layer in spec["layer"] if layer["mark"]["type"] == "line")
    table = selection.table.set_index(["covariance", "n_components"])["bic"]
    assert len(points) == 6
    for point in points:
        assert point["behind"] == pytest.approx(table[point["model"], point["K"]] - table.min())
