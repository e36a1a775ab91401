"""The pictures of :mod:`~lightning_adv.analysis.local_response`, drawn from its table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning_adv.core.figure_labels import label
from lightning_adv.core.table import Row, looks, series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_LABELS = 50
_TITLES = {"max": "Maximum difference of local responses", "total": "Total difference of local responses"}
_KINDS = {  # the prefix or suffix of a statistic: label, Okabe & Ito colour, marker
    "{}": ("own examples", "#0072B2", "o"),
    "transferred_{}": ("transferred examples", "#E69F00", "s"),
    "{}_successful": ("own, attack successful", "#D55E00", "^"),
    "{}_failed": ("own, attack failed", "#009E73", "v"),
}


def plot_responses(rows: Sequence[Row], domain: str = "") -> Figure:
    """Draw the maximum and the total difference of each layer over training (figures 5 and 9), for own examples.

    Args:
        rows: The table.
        domain: The BatchNorm domain to draw; the empty string for a network without.

    Returns:
        A figure of two panels; nothing global is touched and no screen is needed.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    names = _layers(rows)
    at, unit = looks(rows)
    shades = colormaps["viridis"]  # the depth of a layer: dark comes first, and the yellow that paper swallows never
    figure = Figure(figsize=(10, max(3.8, 1.2 + 0.19 * len(names))), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, (statistic, title) in zip(panels, _TITLES.items(), strict=True):
        for number, name in enumerate(names):
            points = series(rows, name, domain, statistic)
            style = {"color": shades(0.88 * number / max(1, len(names) - 1)), "label": label(name)}
            marker = "." if len(points) < 40 else ""
            axes.plot([at[step] for step, _ in points], [value for _, value in points], marker=marker, **style)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel(unit.capitalize())
        axes.set_ylabel("Mean over images")
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[0].set_ylim(bottom=0)
    _logarithmic(panels[1], [row.value for row in rows if row.statistic == "total" and row.domain == domain])
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside right upper", fontsize=8, title=f"Through {label(domain)}" if domain else None
    )
    return figure


def plot_last_responses(rows: Sequence[Row]) -> Figure:
    """Draw the differences of the last look by layer (tables 1 to 5): a column for each BatchNorm domain.

    Args:
        rows: The table.

    Returns:
        A figure of two panels for each domain; nothing global is touched and no screen is needed.
    """
    from matplotlib.figure import Figure

    last = max(row.step for row in rows)
    rows = [row for row in rows if row.step == last]
    names = _layers(rows)
    domains = list(dict.fromkeys(row.domain for row in rows))
    values = {(row.name, row.domain, row.statistic): row.value for row in rows}
    width = min(max(5.0, 1.5 + 0.3 * len(names)), 15.0) * len(domains)
    apart = -(-len(names) // _MOST_LABELS)
    figure = Figure(figsize=(width, 7), layout="constrained")
    panels = figure.subplots(2, len(domains), sharex=True, sharey="row", squeeze=False)
    for line, (statistic, title) in zip(panels, _TITLES.items(), strict=True):
        for axes, domain in zip(line, domains, strict=True):
            drawn: list[float] = []
            for pattern, (kind, colour, marker) in _KINDS.items():
                found = [(name, values.get((name, domain, pattern.format(statistic)))) for name in names]
                points = [(names.index(name), value) for name, value in found if value is not None]
                if points:
                    style = {"color": colour, "label": kind, "marker": marker, "alpha": 0.8}
                    axes.plot([x for x, _ in points], [value for _, value in points], linewidth=0.8, **style)
                    drawn += [value for _, value in points]
            axes.set_title(f"{title}, {label(domain)}" if domain else title, fontsize=10)
            axes.grid(alpha=0.3)
            _logarithmic(axes, drawn)
            axes.set_xticks(
                range(0, len(names), apart), list(map(label, names[::apart])), rotation=90 if len(names) > 8 else 0
            )
    for axes in panels[:, 0]:
        axes.set_ylabel("Mean over images")
    panels[0, 0].legend(fontsize=8)
    return figure


def _layers(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.name for row in rows if row.name))


def _logarithmic(axes: Axes, values: Sequence[float]) -> None:
    """Scale the values logarithmically, unless none is above 0 and there would be nothing to see."""
    if any(value > 0 for value in values):
        axes.set_yscale("log")
