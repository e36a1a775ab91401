"""Bars side by side, for values without an order: networks, settings, blocks that were reinitialised."""

from __future__ import annotations

from typing import Any

from lightning_adv.studies.figures.canvas import Canvas, Positions, make_canvas, measure_text, units_of
from lightning_adv.studies.figures.parts import Content, add_notes, draw_references, draw_runs, mean
from lightning_adv.studies.figures.values import runs_of, text_of, values_of

_GROUP = 0.8  # of the distance between two groups
_DARK = "0.25"
_HATCHES = ("", "///", "...", "xxx")


def draw_bars(content: Content) -> Canvas:
    """Draw a group of bars for each value of ``x``: the measures, or each measure of the values of ``lines``.

    Siddiqui & Breuel (2021), figure 7, with a group for each block.
    """
    settings = content.settings
    x = settings.x
    positions = Positions(values_of(content.rows, x) if x else [""], categories=True)
    units = units_of(settings.y, [*content.rows, *content.references])
    count = max(len(content.lines) * len(unit.measures) for unit in units)
    width = max(positions.width, 1.0 + 0.13 * (count + 1) * len(positions.at))
    canvas = make_canvas(content.panels, units, width, labels=positions.label_height)
    _add_legend(canvas, content)
    for (panel, unit), axes in canvas.panels.items():
        rows = content.of_panel(panel)
        bars = [(line, measure) for line in content.lines for measure in unit.measures]
        thick = _GROUP / len(bars)
        for number, (line, measure) in enumerate(bars):
            colour, hatch = _style(content, line, measure)
            of_line = content.of_line(rows, line)
            for text, at in positions.at.items():
                runs = runs_of([row for row in of_line if x is None or text_of(row, x) == text], measure)
                if runs:
                    place = at + (number - (len(bars) - 1) / 2) * thick
                    height = unit.factor * mean(runs)
                    axes.bar(place, height, thick * 0.92, color=colour, hatch=hatch, edgecolor="white", alpha=0.85)
                    draw_runs(axes, place, runs, unit.factor, {"color": _DARK})
        draw_references(canvas, axes, content, panel, unit)
        positions.set(axes, x or "", canvas.width)
    add_notes(canvas, content, "Bars")
    return canvas


def _add_legend(canvas: Canvas, content: Content) -> None:
    from matplotlib.patches import Patch

    settings = content.settings
    if settings.lines is not None:
        for line in content.lines:
            colour = content.style(line, settings.y[0])["color"]
            canvas.add_entry(line or f"no {settings.lines}", Patch(facecolor=colour))
    for measure in settings.y if len(settings.y) > 1 else ():
        colour, hatch = _style(content, content.lines[0] if content.lines else "", measure)
        canvas.add_entry(
            measure_text(measure),
            Patch(facecolor=colour if settings.lines is None else "0.5", hatch=hatch, edgecolor="white"),
        )


def _style(content: Content, line: str, measure: str) -> tuple[Any, str]:
    """Return the colour of a bar and its hatch, which tells apart what has one colour."""
    style, measures = content.style(line, measure), content.settings.y
    if content.settings.lines is None:
        return style["color"], "" if style["linestyle"] == "-" else _HATCHES[1]
    return style["color"], _HATCHES[measures.index(measure) % len(_HATCHES)]
