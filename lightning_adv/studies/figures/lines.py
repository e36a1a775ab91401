"""Lines over what varies: a number, a block."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lightning_adv.studies.figures.canvas import Canvas, Positions, Unit, make_canvas, units_of
from lightning_adv.studies.figures.parts import Content, add_legend, add_notes, draw_references, draw_runs, mean
from lightning_adv.studies.figures.values import Row, runs_of, text_of, values_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

_APART = 0.06  # of a category, so that intervals of several lines are told apart


def draw_lines(content: Content) -> Canvas:
    """Draw a line for each value of ``lines`` over ``x``: single runs with intervals, or means with the runs behind."""
    settings = content.settings
    x = settings.x or ""
    positions = Positions(values_of(content.rows, x))
    units = units_of(settings.y, [*content.rows, *content.references])
    canvas = make_canvas(content.panels, units, positions.width, labels=positions.label_height)
    add_legend(canvas, content)
    for (panel, unit), axes in canvas.panels.items():
        rows = content.of_panel(panel)
        for number, line in enumerate(content.lines):
            shift = _APART * (number - (len(content.lines) - 1) / 2) if 1 < len(content.lines) <= 6 else 0.0
            _draw_line(axes, content, positions, content.of_line(rows, line), line, unit, shift)
        draw_references(canvas, axes, content, panel, unit)
        positions.set(axes, x, canvas.width)
    add_notes(canvas, content, "Lines")
    return canvas


def _draw_line(
    axes: Axes, content: Content, positions: Positions, rows: Sequence[Row], line: str, unit: Unit, shift: float
) -> None:
    """Draw the line of one value, for each measure; a value of x without a run is a gap."""
    x, shift = content.settings.x or "", 0.0 if positions.numeric else shift
    for measure in unit.measures:
        style = content.style(line, measure)
        heights = []
        for text, at in positions.at.items():
            runs = runs_of([row for row in rows if text_of(row, x) == text], measure)
            heights.append(unit.factor * mean(runs) if runs else math.nan)
            draw_runs(axes, at + shift, runs, unit.factor, style)
        axes.plot([at + shift for at in positions.at.values()], heights, linewidth=1.3, **style)
