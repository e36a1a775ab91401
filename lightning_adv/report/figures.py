"""The page's plots as plotly.py builds them: whole ones of results and metrics, and forms for what a table is shown in.

A figure here is what goes into the page as JSON: ``data`` and ``layout``. Its ``meta`` says of which run a trace is, so
that the page can hide it. Colours of text and grid come from :func:`themes`, which the page applies.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Final, NamedTuple, TypeAlias

from lightning_adv.report.labels import describe_metric, order_metrics, shorten_middle
from lightning_adv.report.results import is_number
from lightning_adv.report.runs import Run

Figure: TypeAlias = dict[str, Any]
"""A figure as plain data, as plotly.js takes it."""

# Okabe & Ito, without yellow, which is too light on white; an eighth run begins again with another dash and symbol.
_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A6FBF")
_DASHES: Final = {"solid": "", "dash": "5 2.5", "dot": "1.5 2.5", "dashdot": "7 2 1.5 2"}  # in SVG
_SYMBOLS: Final = {"circle": "●", "square": "■", "diamond": "◆", "triangle-up": "▲"}
_TURNS: Final = ("", "-open", "-dot", "-open-dot")  # of a symbol that says something else
_PATTERNS: Final = ("", "/", "x", ".")
_GREY: Final = "#8a929c"  # to be seen on white and on black
_DIGITS: Final = 5  # significant ones of a curve: more than a screen shows
_FEW: Final = 40  # points that have a marker each


class Style(NamedTuple):
    """How a run is told from the others.

    Attributes:
        colour: Of seven; 28 runs differ in colour and one of the following.
        turn: How often the colours have been used before, modulo four.
    """

    colour: str
    turn: int

    @property
    def dash(self) -> str:
        """The dash of a line, as Plotly names it."""
        return list(_DASHES)[self.turn]

    @property
    def swatch(self) -> str:
        """The line as a small picture."""
        line = f'stroke="{self.colour}" stroke-width="3" stroke-dasharray="{_DASHES[self.dash]}"'
        return f'<svg width="22" height="10" aria-hidden="true"><line x1="1" y1="5" x2="21" y2="5" {line}/></svg>'


def style_of(index: int) -> Style:
    """Return the style of a run by its place on the page.

    Example:
        >>> style_of(8)
        Style(colour='#D55E00', turn=1)
    """
    return Style(_COLOURS[index % len(_COLOURS)], index // len(_COLOURS) % len(_DASHES))


def themes() -> dict[str, Figure]:
    """Return Plotly's templates ``light``, ``dark`` and ``paper``: the colours of text and grid, and sizes of text."""
    light: dict[str, Any] = {"text": "#1b1f24", "muted": "#59616b", "grid": "#e3e6ea", "card": "#ffffff"}
    dark: dict[str, Any] = {"text": "#e7e9ec", "muted": "#a3abb5", "grid": "#343a43", "card": "#1d2026"}
    return {"light": _theme(**light), "dark": _theme(**dark), "paper": _theme(smaller=2, **light)}


def _theme(*, text: str, muted: str, grid: str, card: str, smaller: int = 0) -> Figure:
    from plotly.graph_objects import Figure as New

    axis = {
        "title": {"font": {"size": 12 - smaller, "color": text}, "standoff": 8},
        "tickfont": {"size": 11 - smaller, "color": muted},
        "gridcolor": grid,
        "linecolor": grid,
        "zeroline": False,
        "automargin": True,
        "exponentformat": "power",
    }
    clear = "rgba(0,0,0,0)"
    layout = {
        "xaxis": axis,
        "yaxis": axis,
        "paper_bgcolor": clear,
        "plot_bgcolor": clear,
        "font": {"color": muted},
        "hoverlabel": {"bgcolor": card, "bordercolor": muted, "font": {"color": text, "size": 12 - smaller}},
        "hovermode": "closest",
        "showlegend": False,
        "legend": {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "bgcolor": clear, "font": {"color": text}},
        "shapedefaults": {"line": {"color": text, "width": 1, "dash": "dot"}, "opacity": 0.7},
    }
    bar = {"thickness": 12, "outlinewidth": 0, "exponentformat": "power", "tickfont": axis["tickfont"]}
    colorbar = bar | {"title": {"side": "right", "font": axis["title"]["font"]}}  # type: ignore[index]
    template = {"layout": layout, "data": {"heatmap": [{"colorbar": colorbar}]}}
    built: Figure = New(layout={"template": template}).to_plotly_json()["layout"]["template"]
    return built


def plain(text: object) -> str:
    """Return a text that Plotly, which reads some HTML, shows as it is."""
    return escape(str(text), quote=False)


def run_forms(name: str, index: int) -> dict[str, Figure]:
    """Return how a run is drawn, without its numbers: as a ``line`` over epochs, as ``bar`` and ``points`` by layer."""
    from plotly.graph_objects import Bar, Scatter

    style = style_of(index)
    shape = {"name": plain(name), "meta": index}
    line = {"color": style.colour, "dash": style.dash, "width": 2}
    marker = {"color": style.colour, "symbol": list(_SYMBOLS)[style.turn], "size": 5}
    over = "<b>%{fullData.name}</b><br>epoch %{x:.4~g}, step %{customdata}: %{y:.4~g}<extra></extra>"
    by_layer = "<b>%{fullData.name}</b><br>%{customdata}: %{y:.4~g}<extra></extra>"
    pattern = {"shape": _PATTERNS[style.turn], "fillmode": "overlay", "size": 10, "solidity": 0.25}
    points = {"marker": marker | {"size": 6}, "line": line | {"width": 1.5}, "hovertemplate": by_layer}
    return {
        "line": Scatter(**shape, mode="lines", line=line, marker=marker, hovertemplate=over).to_plotly_json(),
        "points": Scatter(**shape, mode="lines+markers", **points).to_plotly_json(),
        "bar": Bar(
            **shape, marker={"color": style.colour, "pattern": pattern}, hovertemplate=by_layer
        ).to_plotly_json(),
    }


def table_forms() -> dict[str, Figure]:
    """Return the plots of a table, without its numbers: ``curve``, ``heatmap``, ``layers`` and ``channels``."""
    from plotly.graph_objects import Figure as New
    from plotly.graph_objects import Heatmap, Scatter

    names = {"showgrid": False, "tickfont": {"size": 10}, "type": "category"}
    cell = "<b>%{y}</b><br>%{x:.4~g}: %{customdata:.4~g}<extra></extra>"
    joins = Scatter(mode="lines", line={"color": _GREY, "width": 1.5}, hoverinfo="skip", showlegend=False)
    channel = "channel %{x}, %{fullData.name}: %{y:.4~g}<extra></extra>"
    sets = [
        Scatter(mode="markers", marker={"size": 8, "color": colour, "symbol": symbol}, hovertemplate=channel)
        for colour, symbol in zip(_COLOURS[:4], _SYMBOLS, strict=True)
    ]
    running = {"size": 12, "color": _GREY, "symbol": "line-ew-open", "line": {"width": 3}}
    before = {"size": 8, "color": _GREY, "symbol": "circle-open", "line": {"width": 2}}
    marks = [Scatter(mode="markers", marker=marker, hovertemplate=channel) for marker in (running, before)]
    figures = {
        "curve": New(layout=_margins()),
        "heatmap": New(Heatmap(hovertemplate=cell), _margins(xaxis={"showgrid": False}, yaxis=names)),
        "layers": New(layout=_margins(xaxis=names, bargap=0.25)),
        "channels": New([joins, *sets, *marks], _margins(xaxis=names, showlegend=True, top=34)),
    }
    return {name: plain_figure(figure) for name, figure in figures.items()}


def metric_figures(names: Sequence[str], runs: Sequence[Run]) -> dict[str, Figure]:
    """Return for each logged metric, in the order of the menu, its curves over epochs; those of the test have none."""
    from plotly.graph_objects import Figure as New
    from plotly.graph_objects import Scatter

    curves = [one_rate(run.metrics) for run in runs]
    metrics = dict.fromkeys(metric for of_run in curves for metric in of_run if not metric.startswith("test/"))
    figures: dict[str, Figure] = {}
    for metric in order_metrics(list(metrics)):
        label = describe_metric(metric)
        traces = []
        for index, of_run in enumerate(curves):
            if metric in of_run:
                x = [point[0] for point in of_run[metric]]
                form = run_forms(names[index], index)["line"] | {
                    "x": x,
                    "y": [_rounded(label.factor * value) for _, value in of_run[metric]],
                    "mode": "lines+markers" if len(x) < _FEW else "lines",
                    "hovertemplate": "<b>%{fullData.name}</b><br>epoch %{x:.4~g}: %{y:.4~g}<extra></extra>",
                }
                traces.append(Scatter(**form))
        values = [value for trace in traces for value in trace.y if value is not None]
        log = label.log and bool(values) and min(values) > 0 and max(values) > 1.5 * min(values)
        yaxis = {"title": {"text": plain(label.axis)}} | ({"type": "log"} if log else {"rangemode": "tozero"})
        figures[metric] = plain_figure(New(traces, _margins(xaxis=_epochs(traces), yaxis=yaxis)))
    return figures


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


def result_figures(names: Sequence[str], runs: Sequence[Run]) -> list[Figure]:
    """Return the accuracies of the runs with their intervals, and, if there are several, robust against clean ones."""
    tested = [each for index, run in enumerate(runs) for each in _tested(index, names[index], run)]
    figures = [_accuracies(tested)] if tested else []
    return [*figures, _trade_off(tested)] if len(tested) > 1 else figures


def domain_key(runs: Sequence[Run]) -> str:
    """Say which symbol is which BatchNorm domain, in the second of :func:`result_figures`."""
    symbols = list(_SYMBOLS.values())
    return ", ".join(f"{symbols[k % 4]} {domain}" for k, domain in enumerate(_domains(_all_tested(runs))))


def _all_tested(runs: Sequence[Run]) -> list[_Tested]:
    return [each for index, run in enumerate(runs) for each in _tested(index, "", run)]


def _domains(tested: Iterable[_Tested]) -> list[str]:
    return list(dict.fromkeys(each.domain for each in tested if each.domain))


def _tested(index: int, name: str, run: Run) -> list[_Tested]:
    results = run.results or {}
    domains = {key: part for key, part in (results.get("domains") or {}).items() if key and isinstance(part, dict)}
    through = {key: part for key, part in domains.items() if is_number(part.get("clean_accuracy"))}
    if through:
        return [_Tested(index, f"{name}, {domain}", domain, measured) for domain, measured in through.items()]
    return [_Tested(index, name, "", results)] if is_number(results.get("clean_accuracy")) else []


def _accuracies(tested: Sequence[_Tested]) -> Figure:
    from plotly.graph_objects import Figure as New
    from plotly.graph_objects import Scatter

    traces = []
    for each in tested:
        for kind, symbol in (("clean", "circle-open"), ("robust", "diamond")):
            if is_number(each.measured.get(f"{kind}_accuracy")):
                colour = style_of(each.run).colour
                traces.append(
                    Scatter(
                        mode="markers",
                        x=[100 * each.measured[f"{kind}_accuracy"]],
                        y=[plain(each.name)],
                        name=plain(each.name),
                        meta=each.run,
                        error_x=_interval(each, kind),
                        marker={"color": colour, "size": 10, "symbol": symbol, "line": {"width": 2, "color": colour}},
                        hovertemplate=f"<b>%{{fullData.name}}</b><br>{kind} accuracy %{{x:.1f}} %<extra></extra>",
                    )
                )
    rows = {
        "type": "category",
        "autorange": "reversed",
        "tickvals": [plain(each.name) for each in tested],
        "ticktext": [plain(shorten_middle(each.name)) for each in tested],
    }
    xaxis = {"title": {"text": "Test accuracy (%)"}, "range": [-2, 102]}
    height = max(320 if len(tested) > 1 else 130, 70 + 24 * len(tested))
    return plain_figure(New(traces, _margins(xaxis=xaxis, yaxis=rows, height=height)))


def _trade_off(tested: Sequence[_Tested]) -> Figure:
    from plotly.graph_objects import Figure as New
    from plotly.graph_objects import Scatter

    domains, traces = _domains(tested), []
    for each in tested:
        if is_number(each.measured.get("robust_accuracy")):
            style = style_of(each.run)
            place = domains.index(each.domain) % len(_SYMBOLS) if each.domain else 0
            line = {"width": 2, "color": style.colour} if style.turn % 2 else {}
            traces.append(
                Scatter(
                    mode="markers",
                    x=[100 * each.measured["clean_accuracy"]],
                    y=[100 * each.measured["robust_accuracy"]],
                    name=plain(each.name),
                    meta=each.run,
                    error_x=_interval(each, "clean"),
                    error_y=_interval(each, "robust"),
                    marker={
                        "color": style.colour,
                        "size": 10,
                        "symbol": f"{list(_SYMBOLS)[place]}{_TURNS[style.turn]}",
                        "line": line,
                    },
                    hovertemplate="<b>%{fullData.name}</b><br>clean %{x:.1f} %, robust %{y:.1f} %<extra></extra>",
                )
            )
    xaxis, yaxis = ({"title": {"text": f"{kind} accuracy (%)"}} for kind in ("Clean", "Robust"))
    return plain_figure(New(traces, _margins(xaxis=xaxis, yaxis=yaxis, height=max(320, 70 + 24 * len(tested)))))


def _interval(each: _Tested, kind: str) -> dict[str, Any]:
    share = each.measured[f"{kind}_accuracy"]
    low, high = each.measured.get(f"{kind}_interval") or (share, share)
    ends = {"array": [100 * (high - share)], "arrayminus": [100 * (share - low)]}
    return {
        "type": "data",
        "symmetric": False,
        **ends,
        "thickness": 1.5,
        "width": 0,
        "color": style_of(each.run).colour,
    }


def _epochs(traces: Sequence[Any]) -> dict[str, Any]:
    """Ticks at whole epochs; some space around a single one."""
    places = [place for trace in traces for place in trace.x]
    first, last = (min(places), max(places)) if places else (0, 0)
    few = {"dtick": 1, "tick0": 0} if last - first < 8 else {"nticks": 8, "tickformat": "d"}
    return {"title": {"text": "Epoch"}, **few, **({} if last > first else {"range": [first - 1, first + 1]})}


def _margins(*, top: int = 12, **layout: Any) -> dict[str, Any]:
    return {"margin": {"l": 52, "r": 12, "t": top, "b": 44}, **layout, "template": {}}


def plain_figure(figure: Any) -> Figure:
    """Return a figure as plain data, without Plotly's own template."""
    content: Figure = figure.to_plotly_json()
    content["layout"].pop("template", None)
    return content


def _rounded(value: float) -> float | None:
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
