"""One measure against another: what robustness costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning_adv.core.figures import TEXT, label
from lightning_adv.studies.figures.canvas import Canvas, Unit, make_canvas, measure_text, style_of, units_of
from lightning_adv.studies.figures.parts import Content, has_intervals, note_missing
from lightning_adv.studies.figures.values import Row, run_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

_MOST_CROSSES = 40  # of intervals in one colour; more hide the points


def draw_scatter(content: Content) -> Canvas:
    """Draw a point for each row, one measure against another, in the colour of its value of ``lines``."""
    from matplotlib.lines import Line2D

    settings = content.settings
    x = settings.x or settings.y[0]
    rows = [*content.rows, *content.references]
    across = units_of([x], rows)[0]
    units = [unit for measure in settings.y for unit in units_of([measure], rows)]
    canvas = make_canvas(content.panels, units, 4.2, scale=False)
    for (panel, unit), axes in canvas.panels.items():
        for number, line in enumerate(content.lines):
            style = style_of(number, len(content.lines))
            _draw_points(axes, content.of_line(content.of_panel(panel), line), x, across, unit, style)
        _draw_points(axes, content.references, x, across, unit, {"color": "black", "marker": "*", "markersize": 9})
        for set_label, name, of in ((axes.set_xlabel, x, across), (axes.set_ylabel, unit.measures[0], unit)):
            text = measure_text(name)
            set_label(label(f"{text[:1].upper()}{text[1:]}{' (%)' if of.percent else ''}"), fontsize=TEXT)
    if settings.lines is not None:
        for number, line in enumerate(content.lines):
            style = style_of(number, len(content.lines)) | {"linestyle": ""}
            canvas.add_entry(line or f"no {settings.lines}", Line2D([], [], **style))
    if content.references:
        style = {"color": "black", "marker": "*", "markersize": 9, "linestyle": ""}
        canvas.add_entry(", ".join(settings.reference.values()), Line2D([], [], **style))
    canvas.notes.append("Each point is one run.")
    if has_intervals(content):
        canvas.notes.append("Crosses are 95 % Wilson intervals.")
    note_missing(canvas, content)
    return canvas


def _draw_points(axes: Axes, rows: Sequence[Row], x: str, across: Unit, unit: Unit, style: dict[str, Any]) -> None:
    for row in rows:
        first, second = run_of(row, x), run_of(row, unit.measures[0])
        if first is None or second is None:
            continue
        at, height = across.factor * first.value, unit.factor * second.value
        axes.plot(at, height, linestyle="", alpha=0.9, **style)
        if first.interval and second.interval and len(rows) <= _MOST_CROSSES:
            (left, right), (low, high) = first.interval, second.interval
            options: dict[str, Any] = {"color": style["color"], "linewidth": 0.8, "alpha": 0.35}
            axes.hlines(height, across.factor * left, across.factor * right, **options)
            axes.vlines(at, unit.factor * low, unit.factor * high, **options)
