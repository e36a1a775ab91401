"""The page's plots as plotly.py builds them: whole ones of results and metrics, and forms for the numbers of a table.

A figure here is what goes into the page as JSON: ``data`` and ``layout``. The ``meta`` of a trace says of which run it
is, so that the page can hide it. Colours of text and grid come from :func:`themes`, which the page applies.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Final, NamedTuple, TypeAlias

from lightning_adv.report.labels import Label, describe_metric, shorten_middle
from lightning_adv.report.runs import Run

Figure: TypeAlias = dict[str, Any]
"""A figure, or a part of one, as plain data."""

# Okabe & Ito, without yellow, which is too light on white; an eighth run begins again with another dash and symbol.
_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A6FBF")
_DASHES: Final = {"solid": "", "dash": "5 2.5", "dot": "1.5 2.5", "dashdot": "7 2 1.5 2"}  # Plotly's and SVG's names
_SYMBOLS: Final = {"circle": "●", "square": "■", "diamond": "◆", "triangle-up": "▲"}
_OPEN: Final = ("", "-open", "-dot", "-open-dot")
_PATTERNS: Final = ("", "/", "x", ".")
_GREY: Final = "#8a929c"  # to be seen on white and on black
_LIGHT: Final = {"text": "#1b1f24", "muted": "#59616b", "grid": "#e3e6ea", "card": "#ffffff"}
_DARK: Final = {"text": "#e7e9ec", "muted": "#a3abb5", "grid": "#343a43", "card": "#1d2026"}
_GROUPS: Final = ("Accuracy", "Loss", "Learning rate", "Other")
_FEW: Final = 40  # points that have a marker each


def style_of(index: int) -> tuple[str, int]:
    """Return the colour of a run by its place on the page, and how often the colours were used before, modulo four.

    Example:
        >>> style_of(8)
        ('#D55E00', 1)
    """
    return _COLOURS[index % len(_COLOURS)], index // len(_COLOURS) % len(_DASHES)


def swatch(index: int) -> str:
    """Return the line of a run as a small picture in HTML."""
    colour, turn = style_of(index)
    line = f'stroke="{colour}" stroke-width="3" stroke-dasharray="{list(_DASHES.values())[turn]}"'
    picture = f'<svg width="22" height="10" aria-hidden="true"><line x1="1" y1="5" x2="21" y2="5" {line}/></svg>'
    return f'<span class="swatch">{picture}</span>'


def themes() -> dict[str, Figure]:
    """Return Plotly's templates ``light``, ``dark`` and ``paper``: the colours of text and grid, and sizes of text."""
    return {"light": _theme(_LIGHT, 12), "dark": _theme(_DARK, 12), "paper": _theme(_LIGHT, 10)}


def _theme(colours: Mapping[str, str], size: int) -> Figure:
    text, muted, grid, card = colours.values()
    ticks, titles, clear = {"size": size - 1, "color": muted}, {"size": size, "color": text}, "rgba(0,0,0,0)"
    axis: Figure = {"title": {"font": titles, "standoff": 8}, "tickfont": ticks, "gridcolor": grid, "linecolor": grid}
    axis |= {"zeroline": False, "automargin": True, "exponentformat": "power"}
    legend = {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "bgcolor": clear, "font": titles}
    layout: Figure = {"xaxis": axis, "yaxis": axis, "legend": legend, "showlegend": False, "hovermode": "closest"}
    layout |= {"font": {"color": muted}, "paper_bgcolor": clear, "plot_bgcolor": clear}
    layout |= {"hoverlabel": {"bgcolor": card, "bordercolor": muted, "font": titles}}
    layout |= {"shapedefaults": {"line": {"color": text, "width": 1, "dash": "dot"}, "opacity": 0.7}}
    bar = {"thickness": 12, "outlinewidth": 0, "tickfont": ticks, "title": {"side": "right", "font": titles}}
    template: Figure = {"layout": layout, "data": {"heatmap": [{"colorbar": bar}]}}
    return dict(_build([], {"template": template})["layout"]["template"])


def run_forms(name: str, index: int) -> dict[str, Figure]:
    """Return how a run is drawn, without its numbers: as a ``line`` over epochs, as ``bar`` and ``points`` by layer."""
    colour, turn = style_of(index)
    line: Figure = {"type": "scatter", "line_color": colour, "line_dash": list(_DASHES)[turn], "line_width": 2}
    line |= {"marker_color": colour, "marker_symbol": list(_SYMBOLS)[turn], "marker_size": 5}
    bar: Figure = {"type": "bar", "marker_color": colour, "marker_pattern_shape": _PATTERNS[turn]}
    bar |= {"marker_pattern_fillmode": "overlay", "marker_pattern_size": 10, "marker_pattern_solidity": 0.25}
    by_layer: Figure = {"hovertemplate": _hover("%{customdata}: %{y:.4~g}")}
    forms = [
        line | {"hovertemplate": _hover("epoch %{x:.4~g}, step %{customdata}: %{y:.4~g}")},
        line | by_layer | {"mode": "lines+markers"},
        bar | by_layer,
    ]
    traces = _build([form | {"name": plain(name), "meta": index} for form in forms])["data"]
    return dict(zip(("line", "points", "bar"), traces, strict=True))


def study_forms() -> list[dict[str, Figure]]:
    """Return how what is compared in a study is drawn, as :func:`run_forms` does: one after another, each different."""
    return [run_forms("", index) for index in range(len(_COLOURS) * len(_DASHES))]


def table_forms() -> dict[str, Figure]:
    """Return the plots of a table, without its numbers: ``curve``, ``heatmap``, ``profile`` and ``channels``.

    The traces of ``channels`` are the lines that join what is of one channel, four sets of points, that of the running
    statistics beside those of batches, and that of the first look.
    """
    cells: Figure = {"type": "heatmap", "hovertemplate": "<b>%{y}</b><br>%{x:.4~g}: %{customdata:.4~g}<extra></extra>"}
    joins: Figure = {"type": "scatter", "mode": "lines", "line_color": _GREY, "line_width": 1.5, "hoverinfo": "skip"}
    points: Figure = {"type": "scatter", "mode": "markers", "marker_size": 8, "marker_color": _GREY}
    points |= {"hovertemplate": "channel %{x}, %{fullData.name}: %{y:.4~g}<extra></extra>"}
    sets = [
        {"marker_color": colour, "marker_symbol": symbol} for colour, symbol in zip(_COLOURS, _SYMBOLS, strict=False)
    ]
    running: Figure = {"marker_symbol": "line-ew-open", "marker_line_width": 3, "marker_size": 12}
    before: Figure = {"marker_symbol": "circle-open", "marker_line_width": 2}
    channels = [joins | {"showlegend": False}, *(points | each for each in (*sets, running, before))]
    names = {"type": "category", "showgrid": False, "tickfont": {"size": 10}}
    return {
        "curve": _build([]),
        "heatmap": _build([cells], {"xaxis_showgrid": False, "yaxis": names}),
        "profile": _build([], {"xaxis": names, "bargap": 0.25}),
        "channels": _build(channels, {"xaxis": names, "showlegend": True}, top=34),
    }


def metric_figures(names: Sequence[str], runs: Sequence[Run]) -> dict[str, Figure]:
    """Return for each logged metric, in the order of the menu, its curves over epochs; the test's are no curves."""
    curves = [one_rate(run.metrics) for run in runs]
    order = order_of_metrics(metric for run in curves for metric in run if not metric.startswith("test/"))
    labels = {metric: describe_metric(metric) for metric in order}
    lines = [run_forms(name, index)["line"] for index, name in enumerate(names)]
    return {
        metric: _curves(
            labels[metric], [(line, run[metric]) for line, run in zip(lines, curves, strict=True) if run.get(metric)]
        )
        for metric in order
    }


def order_of_metrics(logged: Iterable[str]) -> list[str]:
    """Return metrics, each once, in the order of the menu: accuracies, losses, learning rates, others."""
    labels = {metric: describe_metric(metric) for metric in logged}
    return sorted(labels, key=lambda each: (_GROUPS.index(labels[each].group), labels[each].title))


def _curves(label: Label, curves: Sequence[tuple[Figure, Sequence[tuple[float, float]]]]) -> Figure:
    factor = 100 if label.group == "Accuracy" else 1
    over: Figure = {"hovertemplate": _hover("epoch %{x:.4~g}: %{y:.4~g}")}
    traces = []
    for line, points in curves:
        numbers: Figure = {"x": [x for x, _ in points], "y": [_rounded(factor * y) for _, y in points]}
        traces.append(line | over | numbers | {"mode": "lines+markers" if len(points) < _FEW else "lines"})
    values = [y for trace in traces for y in trace["y"] if y is not None]
    log = label.group == "Learning rate" and 0 < 1.5 * min(values, default=0) < max(values, default=0)
    layout = {
        "yaxis_title_text": plain(label.axis),
        **({"yaxis_type": "log"} if log else {"yaxis_rangemode": "tozero"}),
    }
    first, last = (each((x for trace in traces for x in trace["x"]), default=0) for each in (min, max))
    ticks: Figure = {"dtick": 1, "tick0": 0} if last - first < 8 else {"nticks": 8, "tickformat": "d"}
    ticks |= {} if last > first else {"range": [first - 1, first + 1]}
    return _build(traces, {"xaxis": {"title": {"text": "Epoch"}, **ticks}, **layout})


def one_rate(metrics: Mapping[str, Sequence[tuple[float, float]]]) -> dict[str, Sequence[tuple[float, float]]]:
    """Name the first learning rate ``lr-``, and drop its equals: parameter groups mostly share one rate.

    Optimizers and their groups have other names in other runs, and are to be compared.
    """
    found: dict[str, Sequence[tuple[float, float]]] = {}
    for name, curve in metrics.items():
        if not name.startswith("lr-"):
            found[name] = curve
        elif "lr-" not in found:
            found["lr-"] = curve
        elif all(curve != other for key, other in found.items() if key.startswith("lr-")):
            found[name] = curve
    return found


class _Tested(NamedTuple):
    """What one run reached on the test images, through one BatchNorm domain if it has several."""

    run: int
    name: str
    domain: str
    measured: Mapping[str, Any]

    def point(self, kind: str, axis: str) -> Figure:
        """An accuracy in percent on an axis, with its interval."""
        share = self.measured[f"{kind}_accuracy"]
        low, high = self.measured.get(f"{kind}_interval") or (share, share)
        ends = {
            "type": "data",
            "symmetric": False,
            "array": [100 * (high - share)],
            "arrayminus": [100 * (share - low)],
        }
        return {axis: [100 * share], f"error_{axis}": {**ends, "thickness": 1.5, "width": 0}}

    def marker(self, symbol: str, hover: str) -> Figure:
        colour, _ = style_of(self.run)
        marker: Figure = {
            "marker_color": colour,
            "marker_line_color": colour,
            "marker_size": 10,
            "marker_symbol": symbol,
        }
        marker |= {"marker_line_width": 2 if "open" in symbol else 0, "hovertemplate": _hover(hover)}
        return {"type": "scatter", "mode": "markers", "name": plain(self.name), "meta": self.run} | marker


def result_figures(names: Sequence[str], runs: Sequence[Run]) -> list[tuple[str, str, Figure]]:
    """Return the accuracies of the runs with their intervals, and, if there are several, robust against clean ones.

    Returns:
        For each figure its title, what its symbols mean, and the figure.
    """
    tested = [each for index, run in enumerate(runs) for each in _tested(index, names[index], run)]
    if not tested:
        return []
    height = max(320 if len(tested) > 1 else 130, 70 + 24 * len(tested))
    rows: Figure = {"yaxis_type": "category", "yaxis_autorange": "reversed"}
    rows |= {"yaxis_tickvals": [plain(each.name) for each in tested]}
    rows |= {"yaxis_ticktext": [plain(shorten_middle(each.name)) for each in tested]}
    accuracies = _build(
        [
            each.point(kind, "x") | {"y": [plain(each.name)]} | each.marker(symbol, f"{kind} accuracy %{{x:.1f}} %")
            for each in tested
            for kind, symbol in (("clean", "circle-open"), ("robust", "diamond"))
            if f"{kind}_accuracy" in each.measured
        ],
        rows | {"height": height, "xaxis_title_text": "Test accuracy (%)", "xaxis_range": [-2, 102]},
    )
    figures = [("Clean and robust accuracy", "○ clean, ◆ robust; lines: 95 % intervals", accuracies)]
    if len(tested) > 1:
        domains = dict.fromkeys(each.domain for each in tested if each.domain)
        symbols = {domain: list(_SYMBOLS)[k % len(_SYMBOLS)] for k, domain in enumerate(domains)}
        points = [
            each.point("clean", "x")
            | each.point("robust", "y")
            | each.marker(
                symbols.get(each.domain, "circle") + _OPEN[style_of(each.run)[1]],
                "clean %{x:.1f} %, robust %{y:.1f} %",
            )
            for each in tested
            if "robust_accuracy" in each.measured
        ]
        titles: Figure = {"xaxis_title_text": "Clean accuracy (%)", "yaxis_title_text": "Robust accuracy (%)"}
        key = ", ".join(f"{_SYMBOLS[symbol]} {domain}" for domain, symbol in symbols.items())
        figures.append(("Robust against clean accuracy", key, _build(points, titles | {"height": height})))
    return figures


def _tested(index: int, name: str, run: Run) -> list[_Tested]:
    results = {"domains": None, **(run.results or {})}
    domains = {key: part for key, part in (results["domains"] or {}).items() if key and isinstance(part, dict)}
    found = [_Tested(index, f"{name}, {domain}", domain, measured) for domain, measured in domains.items()]
    known = [each for each in found if each.measured.get("clean_accuracy") is not None]
    return known or ([_Tested(index, name, "", results)] if results.get("clean_accuracy") is not None else [])


def plain(text: str) -> str:
    """Return a text that Plotly, which reads some HTML, shows as it is."""
    return escape(text, quote=False)


def _hover(text: str) -> str:
    return f"<b>%{{fullData.name}}</b><br>{text}<extra></extra>"


def _build(traces: Sequence[Figure], layout: Mapping[str, Any] | None = None, *, top: int = 12) -> Figure:
    """Return a figure that plotly.py has checked, as plain data; ``yaxis_type`` stands for ``type`` of ``yaxis``."""
    import plotly.graph_objects as go

    margin = {"l": 52, "r": 12, "t": top, "b": 44}
    form = go.Layout(**{"template": {}, "margin": margin, **(layout or {})})
    built: Figure = go.Figure(list(traces), form).to_plotly_json()
    return built


def _rounded(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None  # more digits than a screen shows
