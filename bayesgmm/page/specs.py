"""The page's pictures as Vega-Lite specifications, plain dicts made from facts.

Their colours are the names of CSS variables, so that dark mode and printing are matters of the style sheet. Data named
"rows", "outlines" and "names" are filled in by the page's script, for the features that a reader picks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from bayesgmm.names import percent, short
from bayesgmm.page.comparison import Comparison
from bayesgmm.page.facts import Described, Facts
from bayesgmm.plots.selections import Standing, model_style, standing
from bayesgmm.plots.style import COLORS, MARKERS, bin_edges
from bayesgmm.selection.criteria import CRITERIA

type Spec = dict[str, Any]

_SHAPES = {"o": "circle", "s": "square", "^": "triangle-up", "D": "diamond", "v": "triangle-down"}
_CONFIG: Spec = {
    "background": None,
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--ink)",
        "titleColor": "var(--ink)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "gridColor": "var(--faint)",
        "labelFontSize": 12,
        "titleFontSize": 13,
        "titleFontWeight": "normal",
        "titlePadding": 8,
    },
    "text": {"color": "var(--ink)", "fontSize": 12},
    "title": {"color": "var(--ink)", "fontSize": 13, "fontWeight": 600, "anchor": "start", "offset": 8},
}
NOISE, NOISE_SHAPE = "var(--muted)", "cross"  # colour and shape of rows that belong to no group
_HALO = {"stroke": "var(--paper)", "strokeWidth": 4}  # under words that stand among points
_LINE = 26  # height of a group in a forest, in pixels
_NO_NEGATIVE = "datum.value < 0 ? '' : datum.label"
_FEWER_TICKS: Spec = {"tickCount": {"expr": "ceil(width / 90)"}}
_ROOM_FOR_ROWS = 0.14  # of the height of a density, below it


def color_of(index: int) -> str:
    """The CSS variable of a group's colour, which is that of `plots`."""
    return f"var(--group-{index % len(COLORS)})"


def shape_of(index: int) -> str:
    """The shape of a group's points, which is that of `plots`."""
    return _SHAPES[MARKERS[index // len(COLORS) % len(MARKERS)]]


def scatter(facts: Facts) -> Spec:
    """The rows of two features, in the groups' colours over their outlines; the script fills in which two."""
    fields = {"color": _colors(facts), "opacity": {"field": "opacity", "type": "quantitative", "scale": None}}
    outline = {"detail": {"field": "line", "type": "nominal"}, "order": {"field": "t", "type": "quantitative"}}
    x, y = _measure("x") | {"axis": _FEWER_TICKS}, _measure("y")
    names = {"x": x, "y": y, "text": {"field": "name"}}
    text = {"type": "text", "aria": False, "fontWeight": 600, "baseline": "bottom"}
    layers = [
        {
            "data": {"name": "outlines"},
            "mark": {"type": "line", "aria": False, "clip": True},
            "encoding": {"x": x, "y": y, **fields, **outline, "strokeWidth": _as_it_is("width")},
        },
        *_points(facts, x, y),
        *({"data": {"name": "names"}, "mark": text | halo, "encoding": names} for halo in (_HALO, {})),
    ]
    return _view(layers, 440, f"Scatter plot of the rows, coloured by {facts.group}, with the {facts.group}s' outlines")


def densities(facts: Facts) -> Spec:
    """The only feature: its histogram under the density and the groups' parts of it, and the rows below."""
    curves = facts.curves
    assert curves is not None
    values = facts.rows.values[:, 0]
    values = values[np.isfinite(values)]
    heights, edges = np.histogram(values, bins=bin_edges(values), density=True)
    bars = [
        {"low": low, "high": high, "height": height, "zero": 0}
        for low, high, height in zip(edges[:-1].tolist(), edges[1:].tolist(), heights.tolist(), strict=True)
    ]
    total = curves.groups.sum(axis=1)
    top = float(max(heights.max(), total.max(), 0 if curves.band is None else curves.band.max()))
    x = _measure("x") | {"axis": _FEWER_TICKS | {"grid": False}}
    y: Spec = {
        "field": "y",
        "type": "quantitative",
        "title": "density",
        "scale": {"domain": [-_ROOM_FOR_ROWS * top, 1.03 * top], "nice": False},
        "axis": {"labelExpr": _NO_NEGATIVE, "grid": False},
    }
    layers: list[Spec] = [
        {
            "data": {"values": bars},
            "mark": {"type": "rect", "fill": "var(--faint)", "aria": False},
            "encoding": {"x": _measure("low"), "x2": {"field": "high"}, "y": y | {"field": "zero"}}
            | {"y2": {"field": "height"}},
        }
    ]
    if curves.band is not None:
        band = [{"x": x, "y": low, "high": high} for x, low, high in _columns(curves.x, *curves.band)]
        area = {"type": "area", "color": "var(--ink)", "opacity": 0.18, "aria": False}
        layers.append({"data": {"values": band}, "mark": area, "encoding": {"x": x, "y": y, "y2": {"field": "high"}}})
    whole = [{"x": x, "y": density} for x, density in _columns(curves.x, total)]
    parts = [
        {"x": x, "y": density, "group": k}
        for k, part in enumerate(curves.groups.T)
        for x, density in _columns(curves.x, part)
    ]
    line = {"type": "line", "aria": False, "strokeWidth": 1.8}
    layers += [
        {
            "data": {"values": whole},
            "mark": line | {"color": "var(--ink)", "strokeWidth": 3},
            "encoding": {"x": x, "y": y},
        },
        {"data": {"values": parts}, "mark": line, "encoding": {"x": x, "y": y, "color": _colors(facts)}},
        *_points(facts, x, y),
    ]
    spec = _view(layers, 380, f"Histogram and density of the rows, with those of the {facts.group}s")
    place = {"lowest": -0.93 * _ROOM_FOR_ROWS * top, "highest": -0.22 * _ROOM_FOR_ROWS * top}
    return spec | {"usermeta": {**place, "ends": [float(curves.x[0]), float(curves.x[-1])]}}


def _points(facts: Facts, x: Spec, y: Spec) -> Iterator[Spec]:
    """The rows as points, larger where less certain, and a ring around the one that is looked up."""
    shapes = [shape_of(index) for index in facts.groups.color_indices] + [NOISE_SHAPE]
    shape = {"field": "group", "type": "nominal", "scale": {"domain": _numbers(facts), "range": shapes}, "legend": None}
    look = {"filled": True, "opacity": 0.75, "stroke": "var(--paper)", "strokeWidth": 0.4, "aria": False}
    yield {
        "data": {"name": "rows"},
        "transform": [{"filter": "datum.drawn && datum.p <= certainty"}],
        "mark": {"type": "point", **look},
        "encoding": {"x": x, "y": y, "color": _colors(facts), "shape": shape, "size": _as_it_is("size")}
        | {"tooltip": {"field": "tip", "type": "nominal"}},
    }
    ring = {"filled": False, "size": 420, "stroke": "var(--ink)", "strokeWidth": 2.5, "aria": False}
    yield {
        "data": {"name": "rows"},
        "transform": [{"filter": "datum.row === ringed"}],
        "mark": {"type": "point", "shape": "circle", **ring},
        "encoding": {"x": x, "y": y},
    }


def forest(facts: Facts, described: Described) -> Spec:
    """One quantity of every group on one scale: its intervals and median, and EM's estimate as a tick."""
    K = facts.n_groups
    lines: list[Spec] = [{"group": k, "name": f"{facts.group} {k}"} for k in range(K)]
    if described.quantiles is not None:
        for line, quantiles in zip(lines, described.quantiles.T.tolist(), strict=True):
            line |= dict(zip(("low", "lower", "median", "upper", "high"), quantiles, strict=True))
    if described.em is not None:
        for line, estimate in zip(lines, described.em.tolist(), strict=True):
            line["em"] = estimate
    y = {"field": "name", "type": "ordinal", "title": None, "sort": None, "axis": {"domain": False, "ticks": False}}
    layers: list[Spec] = []
    if described.quantiles is not None:
        for start, stop, width, opacity in (("low", "high", 2, 0.9), ("lower", "upper", 7, 0.75)):
            layers.append(
                {
                    "mark": {"type": "rule", "strokeWidth": width, "opacity": opacity, "aria": False},
                    "encoding": {"x": _measure(start), "x2": {"field": stop}, "y": y, "color": _colors(facts)},
                }
            )
        dot = {"type": "point", "filled": True, "size": 30, "fill": "var(--paper)", "stroke": "var(--ink)"}
        layers.append({"mark": dot | {"strokeWidth": 1, "aria": False}, "encoding": {"x": _measure("median"), "y": y}})
    if described.em is not None:
        tick = {"type": "tick", "color": "var(--ink)", "thickness": 2, "size": 16, "aria": False}
        layers.append({"mark": tick, "encoding": {"x": _measure("em"), "y": y}})
    tips = [{"field": "name", "type": "nominal", "title": facts.group}]
    titles = {"em": "EM", "median": "posterior median", "low": "from", "high": "to"}
    tips += [{"field": name, "type": "quantitative", "title": titles[name]} for name in titles if name in lines[0]]
    layers.append(
        {
            "mark": {"type": "bar", "opacity": 0, "aria": False},
            "encoding": {"y": y, "x": {"value": 0}, "x2": {"value": "width"}, "tooltip": tips},
        }
    )
    title = described.name if described.feature is None else f"{described.name} of {short(described.feature, 28)}"
    spec = _view(layers, _LINE * K, f"{title} of every {facts.group}: intervals of the posterior and EM's estimate")
    for layer in layers:
        if "x" in layer["encoding"] and "field" in layer["encoding"]["x"]:
            scale = {"zero": False, "nice": False, "padding": 10}
            layer["encoding"]["x"] |= {"axis": {"title": None, "tickCount": 5, "labelOverlap": True}, "scale": scale}
    return spec | {"data": {"values": lines}, "title": title}


def criterion(compared: Comparison, name: str) -> Spec:
    """How far each fit is behind the best by one criterion, a line per covariance model."""
    kind, shown = CRITERIA[name], standing(compared.table, compared.rankings[name], name)
    points: list[Spec] = [
        {"model": model, "K": int(K), "behind": float(behind)}
        for model, line in shown.lines.items()
        for K, behind in zip(line["n_components"], line["behind"], strict=True)
    ]
    sizes = sorted({int(K) for K in compared.table["n_components"]})
    x: Spec = {
        "field": "K",
        "type": "quantitative",
        "title": "number of components",
        "scale": {"domain": [sizes[0] - 0.3, sizes[-1] + 0.7], "nice": False},
        "axis": {"values": sizes, "format": "d", "grid": False},
    }
    y: Spec = {
        "field": "behind",
        "type": "quantitative",
        "title": f"behind the best ({kind.unit})",
        "scale": {"domain": [-shown.room, shown.depth], "reverse": True, "nice": False},
        "axis": {"tickCount": 6, "labelExpr": _NO_NEGATIVE},
    }
    looks = {model: _line_style(model, shown) for model in shown.lines}
    style = {
        "color": {"field": "model", "type": "nominal", "legend": None}
        | {"scale": {"domain": list(looks), "range": [look[0] for look in looks.values()]}},
        "strokeDash": {"field": "model", "type": "nominal", "legend": None}
        | {"scale": {"domain": list(looks), "range": [look[1] for look in looks.values()]}},
    }
    tips = [
        {"field": "model", "type": "nominal", "title": "covariance"},
        {"field": "K", "type": "quantitative", "title": "components"},
        {"field": "behind", "type": "quantitative", "title": "behind the best", "format": ".2f"},
    ]
    names = [{"model": model, "K": K, "behind": behind} for model, (K, behind) in shown.names.items()]
    errors = [
        {"K": int(K), "high": behind - se, "behind": behind + se}
        for K, behind, se in zip(shown.errors["n_components"], shown.errors["behind"], shown.errors["se"], strict=True)
        if se > 0
    ]
    best = [{"K": shown.best[1], "behind": 0}]
    clipped = {"clip": True, "aria": False}
    layers = [
        {"data": {"values": errors}, "mark": {"type": "rule", "color": "var(--line)", **clipped}}
        | {"encoding": {"x": x, "y": y, "y2": {"field": "high"}}},
        {"data": {"values": points}, "mark": {"type": "line", **clipped}, "encoding": {"x": x, "y": y, **style}},
        {"data": {"values": points}, "mark": {"type": "point", "filled": True, "size": 34, **clipped}}
        | {"encoding": {"x": x, "y": y, "color": style["color"], "tooltip": tips}},
        {"data": {"values": best}, "encoding": {"x": x, "y": y}}
        | {"mark": {"type": "point", "size": 240, "stroke": "var(--ink)", "strokeWidth": 1.5, "aria": False}},
        {"data": {"values": names}, "mark": {"type": "text", "align": "left", "dx": 9, "aria": False}}
        | {"encoding": {"x": x, "y": y, "text": {"field": "model"}}},
    ]
    title = f"{kind.title}: {shown.best[0]}, K = {shown.best[1]}"
    subtitle = f"{shown.n_left_out} worse are below" if shown.n_left_out else ""
    heading = {"text": title, "subtitle": subtitle, "subtitleColor": "var(--muted)"} if subtitle else title
    words = f"{kind.title}: how far each fit is behind the best, which is {shown.best[0]} with {shown.best[1]}"
    return _view(layers, 230, words) | {"title": heading}


def replicates(compared: Comparison) -> Spec:
    """How often each number of components was chosen among the replicates, by each criterion that has them."""
    values = [
        {"K": int(K), "share": float(share), "criterion": CRITERIA[name].title}
        for name, shares in compared.frequencies.items()
        for K, share in shares.items()
    ]
    n, titles = compared.n_replicates, [CRITERIA[name].title for name in compared.frequencies]
    color = {"domain": titles, "range": [color_of(i) for i in range(len(titles))]}
    layer = {
        "data": {"values": values},
        "mark": {"type": "bar", "aria": False},
        "encoding": {
            "x": {"field": "K", "type": "ordinal", "title": "number of components", "axis": {"labelAngle": 0}},
            "xOffset": {"field": "criterion", "sort": titles},
            "y": {"field": "share", "type": "quantitative", "title": "share of the replicates"}
            | {"axis": {"format": "%"}, "scale": {"domain": [0, 1]}},
            "color": {"field": "criterion", "type": "nominal", "scale": color, "title": None}
            | {"legend": {"orient": "top-right", "labelColor": "var(--ink)"}},
            "tooltip": [
                {"field": "criterion", "type": "nominal"},
                {"field": "K", "type": "ordinal", "title": "components"},
                {"field": "share", "type": "quantitative", "format": ".0%"},
            ],
        },
    }
    return _view([layer], 230, f"How often each number of components was chosen in {n} replicates") | {
        "title": f"Choice in {n} replicates of the table"
    }


def legend(facts: Facts) -> Mapping[str, str]:
    """What the lines of the first picture are, by the class of the key that is drawn before the words."""
    estimate = "EM's estimate" if facts.group == "component" else "posterior mean"
    if facts.curves is not None:
        lines = {"curve": f"density: {estimate}, its parts coloured", "bars": "histogram of the rows"}
        return lines | (
            {"band": f"{percent(facts.ci_prob)} interval of the density"} if facts.curves.band is not None else {}
        )
    lines = {"line": f"{estimate}, at 1 and 2 standard deviations"}
    if facts.groups.outlined is not None:
        lines["draws"] = f"{len(facts.groups.outlined.weights)} draws of the posterior, at 2 standard deviations"
    return lines


def _line_style(model: str, shown: Standing) -> tuple[str, list[int]]:
    """Colour and dashes of a covariance model's line, those of `plots`; grey unless it is a contender's."""
    style = model_style(model)
    dashes = [5, 3] if style["ls"] == "--" else [1, 0]
    if model not in shown.names:
        return "var(--faint-line)", dashes
    return color_of(COLORS.index(style["color"])) if style["color"] in COLORS else "var(--ink)", dashes


def _view(layers: list[Spec], height: int, description: str) -> Spec:
    """Layers as wide as the place they are put in."""
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "description": description,
        "width": "container",
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "config": _CONFIG,
        "params": [{"name": "certainty", "value": 1}, {"name": "ringed", "value": -1}],
        "layer": layers,
    }


def _measure(name: str) -> Spec:
    return {"field": name, "type": "quantitative", "scale": {"zero": False, "nice": False}}


def _as_it_is(name: str) -> Spec:
    return {"field": name, "type": "quantitative", "scale": None, "legend": None}


def _numbers(facts: Facts) -> list[int]:
    return [*range(facts.n_groups), -1]


def _colors(facts: Facts) -> Spec:
    scale = {"domain": _numbers(facts), "range": [color_of(index) for index in facts.groups.color_indices] + [NOISE]}
    return {"field": "group", "type": "nominal", "scale": scale, "legend": None}


def _columns(*columns: np.ndarray) -> Iterator[list[float]]:
    """Rows of the columns, to as many digits as can be seen."""
    return iter([[float(f"{x:.5g}") for x in row] for row in zip(*(c.tolist() for c in columns), strict=True)])
