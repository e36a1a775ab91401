"""Figures 6.5 and 6.6 of Xie 2020, and the course of a run, drawn from the tables of the BatchNorm analyses.

Every function takes table rows and returns a figure.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from lightning_adv.analysis.running_vs_batch import IMAGE_KINDS
from lightning_adv.core.figures import (
    COLOURS,
    TITLE,
    add_legend,
    by_layer,
    draw_curve,
    draw_layers,
    every,
    label,
    layers_figure,
    log_scale,
    marker,
    new_figure,
    set_looks,
    set_text,
)
from lightning_adv.core.table import Looks, Row, looks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CHANNEL = re.compile(r"(?P<statistic>.+)\[(?P<channel>\d+)\]")
_MOMENTS = ("mean", "variance")


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

    Example:
        >>> found = {"main": 0.25, "adversarial": 0.5}
        >>> rows = [Row(0, 9, "bn1", domain, "running_mean[3]", value) for domain, value in found.items()]
        >>> rows += [row._replace(statistic="running_variance[3]") for row in rows]
        >>> [line.get_label() for line in plot_channels_by_domain(rows, "bn1").axes[0].lines]
        ['main', 'adversarial']
    """
    found, when = _channels(rows, layer)
    domains = _domains(found)
    several = domains != [""]
    first, last = min(when.at), max(when.at)
    shown = [(last, domain) for domain in domains]
    if not several:
        shown = [(step, "") for step in dict.fromkeys((first, last))]
    labels = [label(domain) if several else f"{when.unit} {when.at[step]}" for step, domain in shown]
    figure = new_figure(10, 3.4)
    axes = figure.subplots(1, 2)
    for panel, which in zip(axes, _MOMENTS, strict=True):
        points = [
            _Points(text, _at(found, step, domain, f"running_{which}"), marker(number))
            for number, (text, (step, domain)) in enumerate(zip(labels, shown, strict=True))
        ]
        _draw_channels(panel, f"Running {which}", points)
    add_legend(figure, figure.axes[0])
    figure.suptitle(f"{label(layer)}, {when.unit} {when.at[last]}", fontsize=TITLE)
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

    Example:
        >>> rows = [Row(epoch, epoch, "bn1", "", "kl_from_start", kl) for epoch, kl in enumerate((0.25, 0.5))]
        >>> plot_drift(rows).axes[0].images[0].get_array().tolist()  # layers × looks
        [[0.25, 0.5]]
    """
    found, layers, when = by_layer(rows, f"kl_from_{reference}")
    domains = _domains(found)
    figure = layers_figure(len(domains), len(layers))
    axes = figure.subplots(1, len(domains), squeeze=False, sharey=True)[0]
    norm = log_scale([row.value for row in found])
    for panel, domain in zip(axes, domains, strict=True):
        image = draw_layers(panel, [row for row in found if row.domain == domain], layers, when, norm)
        panel.set_title(label(domain), fontsize=TITLE)
    if domains:
        figure.colorbar(image, ax=list(axes), label="Symmetric KL divergence (nats)")
    figure.suptitle(f"Running statistics: distance from {label(reference)}", fontsize=TITLE)
    return figure


# Running against batch statistics -------------------------------------------------------------------------------------


def plot_running_against_batch(rows: Sequence[Row], layer: str) -> Figure:
    """Draw figure 6.6: the statistics of batches and the running statistics of a layer's channels, at the last look.

    Args:
        rows: A table of running against batch statistics.
        layer: One of its :func:`channel_layers`.

    Returns:
        Two panels, mean and variance, with the channels on the x axis, for each domain and kind of image.

    Example:
        >>> rows = [
        ...     Row(0, 9, "bn1", "", name, 0.5)
        ...     for moment in ("mean", "variance")
        ...     for name in (f"running_{moment}[3]", f"clean_{moment}_batch0[3]", f"clean_{moment}_batch1[3]")
        ... ]
        >>> [line.get_label() for line in plot_running_against_batch(rows, "bn1").axes[0].lines]
        ['running', 'batch 0', 'batch 1']
    """
    found, when = _channels(rows, layer)
    last = max(when.at)
    shown = [
        (domain, kind)
        for domain in _domains(found)
        for kind in IMAGE_KINDS
        if any(row.statistic.startswith(kind) and row.domain == domain for row in found)
    ]
    figure = new_figure(10, 0.6 + 2.6 * len(shown))
    axes = figure.subplots(len(shown), 2, squeeze=False, sharey="col")
    for panels, (domain, kind) in zip(axes, shown, strict=True):
        for panel, which in zip(panels, _MOMENTS, strict=True):
            points = [_Points("running", _at(found, last, domain, f"running_{which}"), _RUNNING)]
            while values := _at(found, last, domain, f"{kind}_{which}_batch{len(points) - 1}"):
                points.append(_Points(f"batch {len(points) - 1}", values, marker(len(points) - 1)))
            through = f", {label(domain)} BatchNorm" if domain else ""
            _draw_channels(panel, f"{which.capitalize()}, {kind} images{through}", points)
    add_legend(figure, figure.axes[0])
    figure.suptitle(f"{label(layer)}, {when.unit} {when.at[last]}", fontsize=TITLE)
    return figure


def plot_gaps(rows: Sequence[Row]) -> Figure:
    """Draw over the run how far the statistics of batches are from the running statistics, averaged over layers.

    Args:
        rows: A table of running against batch statistics.

    Returns:
        Two panels, the relative gaps in mean and in variance, with a curve for each domain and kind of image.

    Example:
        >>> gaps = {"bn1": 0.25, "bn2": 0.75}
        >>> rows = [Row(0, 9, layer, "", "clean_relative_mean_gap", gap) for layer, gap in gaps.items()]
        >>> [line.get_ydata().tolist() for line in plot_gaps(rows).axes[0].lines]  # one look, the mean over layers
        [[0.5]]
    """
    figure = new_figure(10, 3.4)
    when = looks(rows)
    for panel, which, unit in zip(figure.subplots(1, 2), _MOMENTS, ("σ", "σ²"), strict=True):
        for kind, colour in zip(IMAGE_KINDS, COLOURS, strict=False):
            found = [row for row in rows if row.statistic == f"{kind}_relative_{which}_gap"]
            for style, domain in zip(itertools.cycle(("-", ":", "--", "-.")), _domains(found), strict=False):
                curve = [(when.at[step], value) for step, value in _over_layers(found, domain).items()]
                of = f"{kind} images, {label(domain)}" if domain else f"{kind} images"
                draw_curve(panel, curve, style, color=colour, label=of)
        set_text(panel, f"Gap in {which} (in units of running {unit})")
        set_looks(panel, when.unit)
        panel.set_ylim(bottom=0)
    add_legend(figure, figure.axes[0])
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
    set_text(axes, title, x="Channel", grid=False)
    axes.grid(axis="y", alpha=0.3)
    apart = every(len(channels))
    axes.set_xticks(range(0, len(channels), apart), [str(channel) for channel in channels[::apart]])
    axes.tick_params(axis="x", labelrotation=90)
