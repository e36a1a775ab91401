"""Panels of a study's figure: where they stand, their axes, one legend for all of them, and what is said below."""

from __future__ import annotations

import itertools
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from lightning_adv.core.figures import (
    COLOURS,
    GREY,
    MARKERS,
    SEQUENTIAL,
    SMALL,
    TEXT,
    TITLE,
    every,
    in_words,
    label,
    new_figure,
    set_text,
)
from lightning_adv.studies.figures.values import Row, is_share, numbers_of, spans_decades
from lightning_adv.studies.results import KINDS

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LETTER = 0.075
"""Inches that a letter of a label takes, about."""
_TITLE_LETTER, _NOTE_LETTER, _LINE = 0.1, 0.068, 0.17
_WIDEST, _MOST_PANELS, _MOST_ENTRIES = 14.0, 24, 60
_FEW_PANELS, _TICKS = 9, 12
_FEW_MEASURES = 4
_LONGEST_TITLE = 200
_ENDING = re.compile(r"(^|_)(clean_accuracy|robust_accuracy|black_box_rate|white_box_rate).*")
_STYLES = ("-", "--", ":", "-.")


@dataclass
class Canvas:
    """A figure in the making.

    Attributes:
        figure: The figure.
        panels: By panel and unit its axes.
        width: Inches of a panel.
        entries: The legend, by text.
        notes: Sentences below the figure.
    """

    figure: Figure
    panels: dict[tuple[str, Unit], Axes]
    width: float
    entries: dict[str, Artist] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add_entry(self, text: str, artist: Artist) -> None:
        """Add something to the legend, once."""
        self.entries.setdefault(label(text), artist)

    def finish(self, title: str) -> Figure:
        """Write the title, the legend and the notes, each where it has room."""
        figure, width = self.figure, self.figure.get_figwidth()
        legend = self._add_legend()
        above = textwrap.wrap(label(title, _LONGEST_TITLE), int(width / _TITLE_LETTER))
        below = textwrap.wrap(" ".join(map(label, self.notes)), int((width + legend) / _NOTE_LETTER))
        figure.set_size_inches(width + legend, figure.get_figheight() + _LINE * (len(above) + len(below)))
        if above:
            figure.suptitle("\n".join(above), fontsize=TITLE + 1, x=width / 2 / (width + legend))
        if below:
            figure.supxlabel("\n".join(below), fontsize=SMALL, color=GREY, x=0.1 / (width + legend), ha="left")
        return figure

    def _add_legend(self) -> float:
        """Add the legend beside the panels, and return the inches that it takes."""
        if not self.entries:
            return 0.0
        shown = list(self.entries.items())[:_MOST_ENTRIES]
        if len(shown) < len(self.entries):
            self.notes.append(f"The legend has the first {len(shown)} of {len(self.entries)}.")
        texts = [textwrap.shorten(text, 32, placeholder=" …") for text, _ in shown]
        columns = -(-len(shown) // max(int((self.figure.get_figheight() - 0.3) / 0.18), 1))
        artists = [artist for _, artist in shown]
        self.figure.legend(artists, texts, loc="outside right upper", fontsize=SMALL, ncols=columns)
        return columns * (0.6 + _NOTE_LETTER * max(map(len, texts)))


class Unit(NamedTuple):
    """Measures that share an axis.

    Attributes:
        measures: The measures.
        percent: Whether they are shares, drawn in percent.

    Example:
        >>> Unit(("clean_accuracy", "attacked_robust_accuracy"), True).label, Unit(("epochs",), False).label
        ('Accuracy (%)', 'Epochs')
    """

    measures: tuple[str, ...]
    percent: bool

    @property
    def label(self) -> str:
        """The name of the axis."""
        if not self.percent:
            return in_words(self.measures[0])
        kinds = {kind for kind in ("accuracy", "rate", "share") if any(kind in measure for measure in self.measures)}
        return f"{kinds.pop().capitalize() if len(kinds) == 1 else 'Share'} (%)"

    @property
    def factor(self) -> float:
        """What a number is multiplied by."""
        return 100.0 if self.percent else 1.0


def units_of(measures: Sequence[str], rows: Sequence[Row]) -> list[Unit]:
    """Return the measures by axis: accuracies and rates, in percent, together; every other alone."""
    shares = tuple(measure for measure in measures if is_share(measure, rows))
    others = [Unit((measure,), False) for measure in measures if measure not in shares]
    return [Unit(shares, True), *others] if shares else others


def make_canvas(
    panels: Sequence[str], units: Sequence[Unit], width: float, *, labels: float = 0.0, scale: bool = True
) -> Canvas:
    """Return a figure with a panel for each of some texts and each unit.

    Args:
        panels: The titles of panels; a single empty one where there is nothing to tell apart.
        units: What :func:`units_of` returned; a row of panels each.
        width: Inches that one panel needs.
        labels: Inches that the labels below take.
        scale: Whether the vertical axis is that of the unit, shares from 0 to 100.
    """
    shown = list(panels[:_MOST_PANELS])
    width = min(max(width, 3.0), _WIDEST) * (1 if len(shown) <= _FEW_PANELS else 0.7)
    count = len(shown) if len(shown) > 1 else len(units)
    across = max(1, min(count, int(_WIDEST // width), 4 if count <= _FEW_PANELS else 6))
    rows = -(-count // across) * (len(units) if len(shown) > 1 else 1)
    figure = new_figure(max(across * width, 4.2) + 0.4, rows * (2.8 + labels) + 0.2)
    grid = figure.subplots(rows, across, squeeze=False)
    canvas = Canvas(figure, {}, width)
    for axes in grid.flat:
        axes.set_visible(False)
    for number, panel in enumerate(shown):
        for place, unit in enumerate(units):
            if len(shown) > 1:
                line, column = number // across * len(units) + place, number % across
            else:
                line, column = divmod(place, across)
            axes = grid[line][column]
            axes.set_visible(True)
            left = column == 0 or len(shown) == 1
            title = textwrap.fill(label(panel), max(int(width / LETTER * 0.85), 12)) if place == 0 else ""
            set_text(axes, title, y=unit.label if left and scale else "")
            if scale and unit.percent:
                axes.set_ylim(-2, 102)
            canvas.panels[panel, unit] = axes
    if len(shown) < len(panels):
        canvas.notes.append(f"The first {len(shown)} of {len(panels)} panels are drawn.")
    return canvas


# Styles ---------------------------------------------------------------------------------------------------------------


def measure_text(measure: str) -> str:
    """Return a measure's name as text."""
    return measure.replace("_", " ")


def measure_styles(measures: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the colour and the line of each measure where colours are those of measures.

    The first of clean images and the first of robust ones have the house's colours. Many measures of a few stages or
    domains have a colour for each of these, and the measures of one are told apart by their lines.

    Example:
        >>> styles = measure_styles(["clean_accuracy", "robust_accuracy"])
        >>> styles["robust_accuracy"]["color"] == COLOURS[1], styles["clean_accuracy"]["linestyle"]
        (True, '-')
    """
    owners = [_ENDING.sub("", measure) for measure in measures]
    of_few = len(measures) > _FEW_MEASURES and all(map(_ENDING.search, measures))
    names = list(dict.fromkeys(owners if of_few else [*_firsts(measures), *measures]))
    styles = {}
    for measure, owner in zip(measures, owners, strict=True):
        style = style_of(names.index(owner), len(names)) if of_few else style_of(names.index(measure) % 6, 6)
        style["marker"] = "o"
        dashed = of_few and ("clean" in measure or "white_box" in measure)
        styles[measure] = style | ({"linestyle": "--", "markerfacecolor": "white"} if dashed else {"linestyle": "-"})
    return styles


def _firsts(measures: Sequence[str]) -> list[str]:
    """Return what has the first two colours; a place that no measure takes stays empty."""
    return [next((measure for measure in measures if kind in measure), f"no {kind}") for kind in KINDS]


def measure_style(measure: str, measures: Sequence[str]) -> str:
    """Return the line of a measure where colours are of something else: the first robust one is drawn through."""
    ordered = sorted(measures, key=lambda m: ("robust" not in m, "clean" not in m))
    return _STYLES[ordered.index(measure) % len(_STYLES)]


def style_of(number: int, count: int) -> dict[str, Any]:
    """Return the colour and the marker of one of some values; more than six take shades of one scale."""
    if count <= len(COLOURS):
        colour: Any = COLOURS[number]
    else:
        from matplotlib import colormaps

        colour = colormaps[SEQUENTIAL](0.95 * number / (count - 1))
    return {"color": colour, "marker": MARKERS[number % len(MARKERS)], "markersize": 4}


# The horizontal axis --------------------------------------------------------------------------------------------------


class Positions:
    """Where values stand along an axis: numbers where they are, others side by side.

    Args:
        texts: The values.
        categories: Side by side also where they are numbers.

    Example:
        >>> Positions(["0.1", "0.4"]).at, Positions(["m0", "m1"]).at
        ({'0.1': 0.1, '0.4': 0.4}, {'m0': 0.0, 'm1': 1.0})
    """

    def __init__(self, texts: Sequence[str], *, categories: bool = False) -> None:
        numbers = None if categories else numbers_of(texts)
        self.numeric = numbers is not None and len(texts) > 1
        if numbers is not None and self.numeric:
            self.at = dict(sorted(zip(texts, numbers, strict=True), key=lambda pair: pair[1]))
        else:
            self.at = {text: float(number) for number, text in enumerate(texts)}

    @property
    def width(self) -> float:
        """The inches that a panel should have."""
        return 4.0 if self.numeric else max(3.4, 1.0 + 0.3 * len(self.at))

    def upright(self, width: float) -> bool:
        """Return whether labels are written upwards, for a panel of a width in inches."""
        return not self.numeric and sum(len(label(text)) + 2 for text in self.at) * LETTER > width - 0.8

    @property
    def label_height(self) -> float:
        """The inches that labels take below a panel, besides a line of them."""
        if not self.upright(min(self.width, _WIDEST)):
            return 0.0
        return min(LETTER * max(len(shorten_label(text)) for text in self.at), 2.0)

    def set(self, axes: Axes, name: str, width: float) -> None:
        """Write the ticks and the name of a panel's axis."""
        axes.set_xlabel(label(in_words(name)) if name else "", fontsize=TEXT)
        if self.numeric:
            self._set_numbers(axes)
            return
        upright = self.upright(width)
        apart = every(len(self.at), int((width - 0.6) / 0.15))
        shown = [text for number, text in enumerate(self.at) if number % apart == 0]
        texts = [shorten_label(text) for text in shown]
        axes.set_xticks([self.at[text] for text in shown], texts, rotation=90 if upright else 0, fontsize=SMALL)
        axes.set_xlim(-0.6, max(len(self.at), 1) - 0.4)

    def _set_numbers(self, axes: Axes) -> None:
        from matplotlib.ticker import MaxNLocator, NullLocator

        numbers = list(self.at.values())
        if spans_decades(numbers) and min(numbers) >= 0:
            least = min(number for number in numbers if number > 0)
            axes.set_xscale("log") if min(numbers) > 0 else axes.set_xscale("symlog", linthresh=least)
        if len(numbers) > _TICKS:
            if axes.get_xscale() == "linear" and all(number == round(number) for number in numbers):
                axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            return
        axes.set_xticks(numbers, [shorten_label(text) for text in self.at], fontsize=SMALL)
        axes.xaxis.set_minor_locator(NullLocator())
        if _crowded(axes, list(self.at)):
            axes.tick_params(axis="x", rotation=90)


def _crowded(axes: Axes, texts: Sequence[str]) -> bool:
    """Whether two neighbours' labels overlap on a panel of about three inches."""
    places = axes.transAxes.inverted().transform(axes.transData.transform([(x, 0) for x in axes.get_xticks()]))[:, 0]
    room = [3.0 * (b - a) for a, b in itertools.pairwise(places)]
    need = [LETTER * (len(a) + len(b)) / 2 + 0.08 for a, b in itertools.pairwise(texts)]
    return any(space < needed for space, needed in zip(room, need, strict=True))


def shorten_label(text: str) -> str:
    """Return a value as a label of an axis."""
    return label(text if len(text) <= 26 else f"{text[:12]}…{text[-12:]}")
