"""Medians over all subsets that have a part, and over those that do not (Siddiqui & Breuel 2021, figure 6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning_adv.core.figures import GREY
from lightning_adv.studies.figures.canvas import Canvas, Positions, Unit, make_canvas, measure_text, units_of
from lightning_adv.studies.figures.parts import Content, draw_references, note_missing
from lightning_adv.studies.figures.values import Row, medians_by_part

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

_SIDES: tuple[tuple[str, float, Any, str | None], ...] = (
    ("with it", -0.12, "-", None),
    ("without it", 0.12, "--", "white"),
)


def draw_with_without(content: Content) -> Canvas:
    """Draw for each part the median of each measure over the rows with it and over those without it."""
    from matplotlib.lines import Line2D

    settings = content.settings
    parts = sorted(medians_by_part(content.rows, settings.x or "", settings.y[0] if settings.y else ""))
    positions = Positions(parts, categories=True)
    units = units_of(settings.y, [*content.rows, *content.references])
    canvas = make_canvas(content.panels, units, max(4.0, positions.width), labels=positions.label_height)
    for (panel, unit), axes in canvas.panels.items():
        _draw_medians(axes, content, content.of_panel(panel), positions, unit)
        draw_references(canvas, axes, content, panel, unit)
        positions.set(axes, f"Part of {settings.x}", canvas.width)
    for measure in settings.y if len(settings.y) > 1 else ():
        canvas.add_entry(measure_text(measure), Line2D([], [], **content.style("", measure)))
    for text, _, style, face in _SIDES:
        line = Line2D([], [], color=GREY, linestyle=style, marker="o", markersize=5, markerfacecolor=face)
        canvas.add_entry(f"median {text}", line)
    pooled = " and ".join(["all subsets", *content.pooled()])
    canvas.notes.append(f"Medians are over {pooled}; each small point is one run.")
    note_missing(canvas, content)
    return canvas


def _draw_medians(axes: Axes, content: Content, rows: Sequence[Row], positions: Positions, unit: Unit) -> None:
    for measure in unit.measures:
        colour = content.style("", measure)["color"]
        medians = medians_by_part(rows, content.settings.x or "", measure)
        found = [(positions.at[part], medians[part]) for part in positions.at if part in medians]
        for number, (_, shift, style, face) in enumerate(_SIDES):
            points = [(at + shift, (of.with_it, of.without_it)[number]) for at, of in found]
            drawn = [(at, unit.factor * value) for at, value in points if value is not None]
            options: dict[str, Any] = {"color": colour, "linestyle": style, "markerfacecolor": face}
            axes.plot(*zip(*drawn, strict=True), marker="o", markersize=5, linewidth=1, **options) if drawn else None
            for at, of in found:
                values = (of.all_with, of.all_without)[number]
                heights = [unit.factor * value for value in values]
                axes.plot([at + 1.9 * shift] * len(heights), heights, ".", color=colour, markersize=2.5, alpha=0.35)
