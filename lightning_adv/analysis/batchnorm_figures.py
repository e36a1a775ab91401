"""Figures 6.5 and 6.6 of Xie 2020, and the course of a run, drawn from the tables of the BatchNorm analyses.

Every function takes table rows and returns a figure of its own: nothing global is touched, and no screen is needed.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from lightning_adv.analysis.running_vs_batch import IMAGE_KINDS
from lightning_adv.core.figure_labels import label
from lightning_adv.core.table import Looks, Row, looks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CHANNEL = re.compile(r"(?P<statistic>.+)\[(?P<channel>\d+)\]")
_MOMENTS = ("mean", "variance")
# Okabe & Ito: told apart by all eyes
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = "osD^vP"
_MOST_LABELS = 40


class _Points(NamedTuple):
    """One value for each channel, and how it is drawn."""

    label: str
    values: Mapping[int, float]
    style: Mapping[str, Any]


def channel_layers(rows: Sequence[Row]) -> list[str]:
    """Return the layers of which a table has single channels, in its order."""
    return list(dict.fromkeys(row.name for row in rows if row.statistic.endswith("]")))


def references(rows: Sequence[Row]) -> list[str]:
    """Return what a table of BatchNorm drift has distances from, in its order."""
    found = (re.fullmatch("kl_from_(.+)", row.statistic) for row in rows)
    return list(dict.fromkeys(match[1] for match in found if match is not None))


# BatchNorm drift ------------------------------------------------------------------------------------------------------


def plot_channels_by_domain(rows: Sequence[Row], layer: str) -> Figure:
    """Draw figure 6.5: running mean and running variance of a layer's sampled channels, as of the last look.

    Args:
        rows: A table of BatchNorm drift.
        layer: One of its :func:`channel_layers`.

    Returns:
        Two panels with the channels on the x axis; one marker for each domain. Where there are no domains, the first
        look is drawn against the last.
    """
    found, when = _channels(rows, layer)
    domains = _domains(found)
    several = domains != [""]
    first, last = min(when.at), max(when.at)
    shown = [(last, domain) for domain in domains]
    if not several:
        shown = [(step, "") for step in dict.fromkeys((first, last))]
    labels = [label(domain) if several else f"{when.unit} {when.at[step]}" for step, domain in shown]
    figure = _figure(10, 3.4)
    axes = figure.subplots(1, 2)
    for panel, which in zip(axes, _MOMENTS, strict=True):
        points = [
            _Points(text, _at(found, step, domain, f"running_{which}"), _marker(number))
            for number, (text, (step, domain)) in enumerate(zip(labels, shown, strict=True))
        ]
        _draw_channels(panel, f"Running {which}", points)
    _add_legend(figure)
    figure.suptitle(f"{label(layer)}, {when.unit} {when.at[last]}", fontsize="medium")
    return figure


def plot_drift(rows: Sequence[Row], reference: str = "start") -> Figure:
    """Draw how far each layer is from a reference at each look: its symmetric KL divergence, averaged over channels.

    The divergence and not a difference, since layers whose features have different units share one scale of colours.

    Args:
        rows: A table of BatchNorm drift.
        reference: One of its :func:`references`.

    Returns:
        A heat map for each domain that has this distance, layers × looks, with a logarithmic scale. What is zero or no
        number is grey.
    """
    found = [row for row in rows if row.statistic == f"kl_from_{reference}"]
    domains, layers = _domains(found), list(dict.fromkeys(row.name for row in found))
    when = looks(found)
    figure = _figure(1.8 + 4.2 * len(domains), min(max(2.8, 1.4 + 0.2 * len(layers)), 11))
    axes = figure.subplots(1, len(domains), squeeze=False, sharey=True)[0]
    values = {(row.domain, row.name, row.step): row.value for row in found}
    norm = _colour_scale(list(values.values()))
    image = None
    for panel, domain in zip(axes, domains, strict=True):
        grid = [[values.get((domain, name, step), math.nan) for step in when.at] for name in layers]
        image = _draw_grid(panel, grid, norm)
        _label_looks(panel, when)
        panel.set_title(label(domain), fontsize="medium")
    every = -(-len(layers) // _MOST_LABELS)
    axes[0].set_yticks(range(0, len(layers), every), list(map(label, layers[::every])), fontsize="x-small")
    if image is not None:
        figure.colorbar(image, ax=list(axes), label="Symmetric KL divergence (nats)")
    figure.suptitle(f"Running statistics: distance from {label(reference)}", fontsize="medium")
    return figure


# Running against batch statistics -------------------------------------------------------------------------------------


def plot_running_against_batch(rows: Sequence[Row], layer: str) -> Figure:
    """Draw figure 6.6: the statistics of batches and the running statistics of a layer's channels, at the last look.

    Args:
        rows: A table of running against batch statistics.
        layer: One of its :func:`channel_layers`.

    Returns:
        Two panels, mean and variance, with the channels on the x axis, for each domain and kind of image.
    """
    found, when = _channels(rows, layer)
    last = max(when.at)
    shown = [
        (domain, kind)
        for domain in _domains(found)
        for kind in IMAGE_KINDS
        if any(row.statistic.startswith(kind) and row.domain == domain for row in found)
    ]
    figure = _figure(10, 0.6 + 2.6 * len(shown))
    axes = figure.subplots(len(shown), 2, squeeze=False, sharey="col")
    for panels, (domain, kind) in zip(axes, shown, strict=True):
        for panel, which in zip(panels, _MOMENTS, strict=True):
            points = [_Points("running", _at(found, last, domain, f"running_{which}"), _RUNNING)]
            while values := _at(found, last, domain, f"{kind}_{which}_batch{len(points) - 1}"):
                points.append(_Points(f"batch {len(points) - 1}", values, _marker(len(points) - 1)))
            through = f", {label(domain)} BatchNorm" if domain else ""
            _draw_channels(panel, f"{which.capitalize()}, {kind} images{through}", points)
    _add_legend(figure)
    figure.suptitle(f"{label(layer)}, {when.unit} {when.at[last]}", fontsize="medium")
    return figure


def plot_gaps(rows: Sequence[Row]) -> Figure:
    """Draw over the run how far the statistics of batches are from the running statistics, averaged over layers.

    Args:
        rows: A table of running against batch statistics.

    Returns:
        Two panels, the relative gaps in mean and in variance, with a curve for each domain and kind of image.
    """
    from matplotlib.ticker import MaxNLocator

    figure = _figure(10, 3.4)
    when = looks(rows)
    marker = "." if len(when.at) < _MOST_LABELS else ""
    for panel, which, unit in zip(figure.subplots(1, 2), _MOMENTS, ("σ", "σ²"), strict=True):
        for kind, colour in zip(IMAGE_KINDS, _COLOURS, strict=False):
            found = [row for row in rows if row.statistic == f"{kind}_relative_{which}_gap"]
            for style, domain in zip(itertools.cycle(("-", ":", "--", "-.")), _domains(found), strict=False):
                curve = _over_layers(found, domain)
                of = f"{kind} images, {label(domain)}" if domain else f"{kind} images"
                at = [when.at[step] for step in curve]
                panel.plot(at, list(curve.values()), style, marker=marker, color=colour, label=of)
        panel.set_title(f"Gap in {which} (in units of running {unit})", fontsize="medium")
        panel.set_xlabel(when.unit.capitalize())
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.3)
    _add_legend(figure)
    return figure


# Reading the table ----------------------------------------------------------------------------------------------------


def _domains(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.domain for row in rows))


def _channels(rows: Sequence[Row], layer: str) -> tuple[list[Row], Looks]:
    """Return what the first and the last look say of a layer's single channels, and when there were looks."""
    found = [row for row in rows if row.name == layer and row.statistic.endswith("]")]
    when = looks(found)
    ends = (min(when.at), max(when.at))
    return [row for row in found if row.step in ends], when


def _at(rows: Sequence[Row], step: int, domain: str, statistic: str) -> dict[int, float]:
    """Return one statistic of each channel at one look."""
    found: dict[int, float] = {}
    for row in rows:
        match = _CHANNEL.fullmatch(row.statistic)
        if match is not None and (row.step, row.domain, match["statistic"]) == (step, domain, statistic):
            found[int(match["channel"])] = row.value
    return found


def _over_layers(rows: Sequence[Row], domain: str) -> dict[int, float]:
    """Return the mean over layers at each step."""
    values: dict[int, dict[str, float]] = {}
    for row in rows:
        if row.domain == domain:
            values.setdefault(row.step, {})[row.name] = row.value
    return {step: sum(layers.values()) / len(layers) for step, layers in sorted(values.items())}


# Drawing --------------------------------------------------------------------------------------------------------------

_RUNNING = {"marker": "_", "markersize": 9, "markeredgewidth": 2, "color": "black"}


def _marker(number: int) -> dict[str, Any]:
    colour = _COLOURS[number % len(_COLOURS)]
    return {"marker": _MARKERS[number % len(_MARKERS)], "markersize": 4.5, "color": colour}


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _draw_channels(axes: Axes, title: str, points: Sequence[_Points]) -> None:
    """Channels have no order: a line joins the values of one channel, and none joins channels."""
    channels = sorted(set().union(*(values for _, values, _ in points)))
    for x, channel in enumerate(channels):
        of_channel = [values[channel] for _, values, _ in points if math.isfinite(values.get(channel, math.nan))]
        if len(of_channel) > 1:
            axes.vlines(x, min(of_channel), max(of_channel), color="0.8", linewidth=1, zorder=0)
    for text, values, style in points:
        y = [values.get(channel, math.nan) for channel in channels]
        axes.plot(range(len(channels)), y, linestyle="none", label=text, **style)
    every = -(-max(len(channels), 1) // _MOST_LABELS)
    axes.set_xticks(range(0, len(channels), every), [str(channel) for channel in channels[::every]])
    axes.tick_params(axis="x", labelrotation=90, labelsize="small")
    axes.set_xlabel("Channel")
    axes.set_title(title, fontsize="medium")
    axes.grid(axis="y", alpha=0.3)


def _add_legend(figure: Figure) -> None:
    """Beside the panels, which share it, and not on what it would hide."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize="small")


def _colour_scale(values: Sequence[float]) -> Any:
    from matplotlib.colors import LogNorm

    positive = [value for value in values if value > 0 and math.isfinite(value)]
    if not positive:
        return LogNorm(0.1, 1)
    high = max(positive)
    low = max(min(positive), 1e-6 * high)  # one look close to the reference must not take all colours
    return LogNorm(low if low < high else high / 10, high)


def _draw_grid(axes: Axes, grid: Sequence[Sequence[float]], norm: Any) -> Any:
    import numpy as np
    from matplotlib import colormaps

    values = np.array(grid, dtype=float)
    shown = np.ma.masked_where(~(values > 0) | ~np.isfinite(values), values)
    return axes.imshow(
        shown, norm=norm, cmap=colormaps["viridis"].with_extremes(bad="0.85"), aspect="auto", interpolation="nearest"
    )


def _label_looks(axes: Axes, when: Looks) -> None:
    every = next(n for k in itertools.count() for n in (10**k, 2 * 10**k, 5 * 10**k) if 10 * n >= len(when.at))
    steps = list(when.at)[::every]
    axes.set_xticks(range(0, len(when.at), every), [str(when.at[step]) for step in steps], fontsize="small")
    axes.set_xlabel(when.unit.capitalize())
