"""One style for all Matplotlib figures: sizes, colours, axes, names as text, and what is drawn of a table over a run.

Every figure is one of its own: nothing global is touched, and no screen is needed. Matplotlib is imported where a
figure is made.
"""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from lightning_adv.core.reading import shorten
from lightning_adv.core.table import Looks, Row, looks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe & Ito: told apart by all eyes. The first is that of clean images, the second of adversarial ones."""
GREY = "#595959"
MARKERS = "osD^vP"
SEQUENTIAL, DIVERGING = "viridis", "RdBu_r"
TITLE, TEXT, SMALL = 10, 9, 8
"""Sizes of letters, in points."""

_MOST_LABELS = 40
_LONGEST = 80
_ACRONYMS = ("cka", "elle", "fgsm", "pgd")


def label(name: str, most: int = _LONGEST) -> str:
    r"""Return a name so that Matplotlib writes it as it is.

    It takes what is between two dollars for mathematics, which ends a figure where it is none, leaves names that begin
    with ``_`` out of legends, and cannot write control characters.

    Args:
        name: The name.
        most: How many characters are shown of it.

    Example:
        >>> label("_orig_mod.layer1"), label("a$b$c")
        (' _orig_mod.layer1', 'a\\$b\\$c')
    """
    text = shorten(name, most).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def in_words(statistic: str) -> str:
    """Return the name of a statistic as text.

    Example:
        >>> in_words("high_frequency_share"), in_words("lowest_cka")
        ('High frequency share', 'Lowest CKA')
    """
    words = statistic.replace("_", " ").capitalize().split(" ")
    return " ".join(word.upper() if word.lower() in _ACRONYMS else word for word in words)


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure whose parts do not overlap, of a size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def to_png(figure: Figure, dpi: int = 120) -> bytes:
    """Return a figure as the content of a PNG file."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=dpi)
    return picture.getvalue()


def marker(number: int) -> dict[str, Any]:
    """Return the colour and the marker of one of several things in a plot."""
    return {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)], "markersize": 4}


def set_text(axes: Axes, title: str = "", x: str = "", y: str = "", *, grid: bool = True) -> None:
    """Give a panel its title, the names of its axes, and a grid."""
    axes.set_title(title, fontsize=TITLE)
    axes.set_xlabel(x, fontsize=TEXT)
    axes.set_ylabel(y, fontsize=TEXT)
    axes.tick_params(labelsize=SMALL)
    if grid:
        axes.grid(alpha=0.3)


def every(count: int, most: int = _MOST_LABELS) -> int:
    """Return of how many neighbours one is written, so that there are no more labels than are read."""
    return max(1, -(-count // most))


def add_legend(figure: Figure, axes: Axes, title: str | None = None) -> None:
    """Put the legend of a panel beside all panels, which share it, and not on what it would hide."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=SMALL, title=title)


# Over a run -----------------------------------------------------------------------------------------------------------


def draw_curve(axes: Axes, points: Iterable[tuple[float, float]], style: str = "-", **options: Any) -> None:
    """Draw a line through points (x, y), which are marked where they are few."""
    x, y = zip(*points, strict=True) if (points := list(points)) else ((), ())
    axes.plot(x, y, style, **{"marker": "." if len(x) < _MOST_LABELS else ""} | options)


def set_looks(axes: Axes, unit: str) -> None:
    """Let a panel's x axis be that of the looks of a run."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel(unit.capitalize(), fontsize=TEXT)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def draw_layers(axes: Axes, rows: Sequence[Row], names: Sequence[str], when: Looks, norm: Any = None) -> AxesImage:
    """Draw one statistic of each layer at each look, as colours: layers x looks.

    Args:
        axes: The panel.
        rows: The rows of this statistic, of one domain. The last of a layer and a look counts.
        names: The layers.
        when: The looks.
        norm: A scale of Matplotlib; None is linear, and positive numbers only are drawn on another.
    """
    import numpy as np
    from matplotlib import colormaps

    values = {(row.name, row.step): row.value for row in rows}
    grid = np.array([[values.get((name, step), math.nan) for step in when.at] for name in names], dtype=float)
    missing = ~np.isfinite(grid) if norm is None else ~np.isfinite(grid) | ~(grid > 0)
    colours = colormaps[SEQUENTIAL].with_extremes(bad="0.85")
    drawn = axes.imshow(
        np.ma.masked_where(missing, grid), norm=norm, cmap=colours, aspect="auto", interpolation="nearest"
    )
    set_text(axes, x=when.unit.capitalize(), grid=False)
    apart = every(len(names))
    axes.set_yticks(range(0, len(names), apart), list(map(label, names[::apart])), fontsize=SMALL)
    apart = next(n for k in itertools.count() for n in (10**k, 2 * 10**k, 5 * 10**k) if 10 * n >= len(when.at))
    axes.set_xticks(range(0, len(when.at), apart), [str(when.at[step]) for step in list(when.at)[::apart]])
    return drawn


def layers_figure(count: int, layers: int) -> Figure:
    """Return a figure for some panels of :func:`draw_layers`."""
    return new_figure(1.8 + 4.2 * count, min(max(2.8, 1.4 + 0.2 * layers), 10.2))


def by_layer(rows: Sequence[Row], statistic: str) -> tuple[list[Row], list[str], Looks]:
    """Return the rows of layers with one statistic, their layers, and when they were looked at."""
    found = [row for row in rows if row.name and row.statistic == statistic]
    return found, list(dict.fromkeys(row.name for row in found)), looks(found)


def log_scale(values: Sequence[float]) -> Any:
    """Return a logarithmic scale of colours for those of some numbers that have a logarithm."""
    from matplotlib.colors import LogNorm

    positive = [value for value in values if value > 0 and math.isfinite(value)]
    if not positive:
        return LogNorm(0.1, 1)
    high = max(positive)
    low = max(min(positive), 1e-6 * high)  # one small number must not take all colours
    return LogNorm(low if low < high else high / 10, high)


# Accuracies -----------------------------------------------------------------------------------------------------------


def draw_shares(
    axes: Axes,
    x: Sequence[float],
    shares: Sequence[float],
    intervals: Sequence[tuple[float, float]],
    **options: Any,
) -> None:
    """Draw shares in percent over x with their intervals; a single one has a bar in place of a band."""
    low, high = ([100 * interval[side] for interval in intervals] for side in (0, 1))
    style: dict[str, Any] = {"marker": "o", "markersize": 4, **options}
    axes.plot(x, [100 * share for share in shares], **style)
    if len(x) > 1:
        axes.fill_between(x, low, high, color=options["color"], alpha=0.15, linewidth=0)
    else:
        axes.vlines(x, low, high, color=options["color"])
    axes.set_ylim(0, 100)
