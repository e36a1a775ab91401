"""What the kinds of a study's figure share: which rows stand where, horizontal references, what is said below."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lightning_adv.core.figures import GREY
from lightning_adv.studies.figures.canvas import (
    Canvas,
    Unit,
    measure_style,
    measure_styles,
    measure_text,
    style_of,
)
from lightning_adv.studies.figures.settings import FigureSettings
from lightning_adv.studies.figures.values import Row, Run, axes_of, number_of, runs_of, text_of, values_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_REFERENCES: tuple[Any, ...] = (":", (0, (5, 1, 1, 1)), (0, (1, 3)), (0, (5, 3)))


@dataclass(frozen=True)
class Content:
    """What is drawn.

    Attributes:
        settings: What the figure shows.
        rows: The rows, without those of references.
        references: The rows that are drawn as horizontal lines.
        axes: The columns of what varies.
    """

    settings: FigureSettings
    rows: Sequence[Row]
    references: Sequence[Row]
    axes: Sequence[str]

    @classmethod
    def split(cls, settings: FigureSettings, rows: Sequence[Row]) -> Content:
        """Tell references from the other rows: those that the settings name, and those that have no place along x."""
        along = settings.x if settings.kind in ("lines", "bars") and settings.x is not None else None
        placed = along is not None and any(text_of(row, along) for row in rows)
        named = settings.reference

        def is_reference(row: Row) -> bool:
            if named and all(text_of(row, column) == text for column, text in named.items()):
                return True
            return placed and along is not None and not text_of(row, along)

        apart = [is_reference(row) for row in rows]
        kept = [row for row, reference in zip(rows, apart, strict=True) if not reference]
        return cls(
            settings, kept, [row for row, reference in zip(rows, apart, strict=True) if reference], axes_of(rows)
        )

    @property
    def panels(self) -> list[str]:
        """The titles of the panels."""
        column = self.settings.panels
        if column is None:
            return [""]
        return list(dict.fromkeys(text_of(row, column) for row in self.rows)) or [""]

    @property
    def lines(self) -> list[str]:
        """The values that have a colour each; one empty text where colours are those of measures."""
        column = self.settings.lines
        return list(dict.fromkeys(text_of(row, column) for row in self.rows)) if column else [""]

    def of_panel(self, panel: str) -> list[Row]:
        """Return the rows of a panel."""
        column = self.settings.panels
        return [row for row in self.rows if column is None or text_of(row, column) == panel]

    def of_line(self, rows: Sequence[Row], line: str) -> list[Row]:
        """Return those of some rows that have a colour's value."""
        column = self.settings.lines
        return [row for row in rows if column is None or text_of(row, column) == line]

    def style(self, line: str, measure: str) -> dict[str, Any]:
        """Return the colour, the line and the marker of a value and a measure."""
        measures = self.settings.y
        if self.settings.lines is None:
            return measure_styles(measures)[measure]
        lines = self.lines
        style = measure_style(measure, measures)
        hollow = {} if style == "-" else {"markerfacecolor": "white"}
        return {**style_of(lines.index(line), len(lines)), "linestyle": style, **hollow}

    def pooled(self) -> list[str]:
        """Return what several runs of one place differ in, as text."""
        settings = self.settings
        apart = {settings.x, settings.lines, settings.panels}
        told = []
        for column in [*self.axes, "seed"]:
            values = values_of(self.rows, column)
            if column not in apart and len(values) > 1:
                told.append(f"{len(values)} seeds" if column == "seed" else f"{len(values)} values of {column}")
        return told


def mean(runs: Sequence[Run]) -> float:
    """Return the mean of runs, of which there is at least one."""
    return sum(run.value for run in runs) / len(runs)


def draw_runs(axes: Axes, x: float, runs: Sequence[Run], factor: float, style: dict[str, Any]) -> None:
    """Draw what is behind a mean: of one run its interval, of several each of them."""
    if len(runs) == 1 and (interval := runs[0].interval) is not None:
        low, high = (factor * end for end in interval)
        axes.vlines(x, low, high, color=style["color"], linewidth=1, zorder=2.5)
    elif len(runs) > 1:
        values = [factor * run.value for run in runs]
        axes.plot([x] * len(runs), values, ".", color=style["color"], markersize=4, alpha=0.5, zorder=2.2)


def add_notes(canvas: Canvas, content: Content, means: str) -> None:
    """Say what is drawn: means over what or single runs with intervals, and how many runs have no number.

    Args:
        canvas: The figure.
        content: What is drawn.
        means: What a mean of several runs is drawn as: ``Lines``.
    """
    pooled = content.pooled()
    if pooled:
        canvas.notes.append(f"{means} are means over {' and '.join(pooled)}; each point is one run.")
    elif has_intervals(content):
        canvas.notes.append("Vertical strokes are 95 % Wilson intervals of one run.")
    note_missing(canvas, content)


def has_intervals(content: Content) -> bool:
    """Return whether the table has intervals of what is drawn."""
    rows = [*content.rows, *content.references]
    return any(run.interval for measure in content.settings.y for run in runs_of(rows, measure))


def note_missing(canvas: Canvas, content: Content) -> None:
    """Say how many runs lack one of the numbers that are drawn, by their status."""
    rows = [*content.rows, *content.references]
    drawn = content.settings.y
    missing = [row for row in rows if any(number_of(row, measure) is None for measure in drawn)]
    if missing:
        statuses = Counter(str(row.get("status") or "unknown") for row in missing)
        told = ", ".join(f"{count} {status}" for status, count in statuses.items())
        canvas.notes.append(f"Without all numbers: {len(missing)} of {len(rows)} runs ({told}).")


def add_legend(canvas: Canvas, content: Content) -> None:
    """Add what colours and lines mean."""
    from matplotlib.lines import Line2D

    settings = content.settings
    if settings.lines is None:
        for unit in dict.fromkeys(unit for _, unit in canvas.panels):
            for measure in unit.measures if len(unit.measures) > 1 else ():
                canvas.add_entry(measure_text(measure), Line2D([], [], **content.style("", measure)))
        return
    for line in content.lines:
        style = content.style(line, settings.y[0]) | {"linestyle": "-", "markerfacecolor": None}
        canvas.add_entry(line or f"no {settings.lines}", Line2D([], [], **style))
    for measure in settings.y if len(settings.y) > 1 else ():
        style = content.style(content.lines[0], measure) | {"color": GREY}
        canvas.add_entry(measure_text(measure), Line2D([], [], **style))


def draw_references(canvas: Canvas, axes: Axes, content: Content, panel: str, unit: Unit) -> None:
    """Draw rows that have no place along the axis as horizontal lines, over the panels that they belong to."""
    from matplotlib.lines import Line2D

    settings = content.settings
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in content.references:
        of_panel = text_of(row, settings.panels or "")
        if of_panel == panel or of_panel not in content.panels:
            groups.setdefault((_reference_name(row, content), text_of(row, settings.lines or "")), []).append(row)
    names = list(dict.fromkeys(_reference_name(row, content) for row in content.references))
    for (name, line), rows in groups.items():
        style = _REFERENCES[names.index(name) % len(_REFERENCES)]
        for measure in unit.measures:
            if not (runs := runs_of(rows, measure)):
                continue
            own = settings.lines is None or line in content.lines
            colour = content.style(line if own else "", measure)["color"] if own else GREY
            axes.axhline(unit.factor * mean(runs), color=colour, linestyle=style, linewidth=1.3, zorder=1)
        canvas.add_entry(name, Line2D([], [], color=GREY, linestyle=style, linewidth=1.3))


def _reference_name(row: Row, content: Content) -> str:
    settings = content.settings
    if settings.reference and all(text_of(row, column) == text for column, text in settings.reference.items()):
        return ", ".join(settings.reference.values())
    told = [text_of(row, column) for column in content.axes if column != settings.x]
    shown = {text_of(row, settings.lines or ""), text_of(row, settings.panels or "")} & {
        *content.lines,
        *content.panels,
    }
    return ", ".join(text for text in told if text and text not in shown) or f"no {settings.x}"
