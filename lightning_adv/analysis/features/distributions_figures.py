"""The pictures of :mod:`~lightning_adv.analysis.features.distributions`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lightning_adv.analysis.features.distributions import Estimate, FeatureMap
from lightning_adv.core.figures import (
    COLOURS,
    GREY,
    SEQUENTIAL,
    SMALL,
    TEXT,
    TITLE,
    add_legend,
    draw_curve,
    in_words,
    label,
    marker,
    new_figure,
    set_looks,
    set_text,
)
from lightning_adv.core.table import Row, looks, series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = {"clean": COLOURS[2], "adversarial": COLOURS[1]}
"""The paper's green and red, as eyes tell them apart that do not tell green from red."""

_LEVELS = (0.1, 0.25, 0.45, 0.7, 1.01)  # of the highest density of a panel
_ENDS = {"separability": 0.5, "overlap": 1.0, "energy_share": 0.0}
"""What each number is where both distributions are the same."""


def plot_distributions(
    maps: Mapping[str, Mapping[str, FeatureMap]],
    separabilities: Mapping[tuple[str, str], Estimate] | None = None,
) -> Figure:
    """Draw clean and adversarial vectors and their densities, as figure 8: a row for each network, a column a block.

    Densities are filled where they are above 10, 25, 45 and 70 % of the highest one of the panel.

    Args:
        maps: By network and block.
        separabilities: What to write over a panel beside the overlap, by network and block.

    Example:
        >>> from lightning_adv.analysis.features import FeatureVectors, density_overlap
        >>> import torch
        >>> places = FeatureVectors(torch.randn(50, 2), torch.randn(50, 2), torch.arange(50))
        >>> len(plot_distributions({"standard": {"m1": density_overlap(places)}}).axes)
        1
    """
    blocks = list(dict.fromkeys(block for found in maps.values() for block in found))
    figure = new_figure(0.6 + 2.9 * len(blocks), 0.7 + 3.1 * len(maps))
    panels = figure.subplots(len(maps), len(blocks), squeeze=False)
    for line, (network, found) in zip(panels, maps.items(), strict=True):
        line[0].set_ylabel(label(network), fontsize=TITLE)
        for axes, block in zip(line, blocks, strict=True):
            axes.set_xticks([])
            axes.set_yticks([])
            if block not in found:
                axes.set_axis_off()
                continue
            each = found[block]
            _draw_map(axes, each)
            told = [f"overlap {each.overlap.value:.2f}"]
            if separabilities is not None:
                told.append(f"told apart {separabilities[network, block].value:.2f}")
            axes.set_title(f"{label(block)}: {', '.join(told)}", fontsize=TEXT)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=SMALL, markerscale=6)
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1)
    return figure


def _draw_map(axes: Axes, found: FeatureMap) -> None:
    from matplotlib.colors import to_rgba

    highest = float(found.densities.max())
    both = list(KINDS.items())
    places = (found.clean, found.adversarial)
    for (kind, colour), points, density in zip(both, places, found.densities, strict=True):
        across, up = points.T
        axes.scatter(across, up, s=1.5, color=colour, alpha=0.35, linewidths=0, label=kind, rasterized=True)
        if np.isfinite(highest):
            shades = [to_rgba(colour, 0.12 + 0.14 * step) for step in range(len(_LEVELS) - 1)]
            levels = [level * highest for level in _LEVELS]
            axes.contourf(found.x, found.y, density, levels=levels, colors=shades)
            axes.contour(found.x, found.y, density, levels=levels[:1], colors=[colour], linewidths=1)


def plot_feature_numbers(numbers: Mapping[str, Mapping[tuple[str, str], Estimate]]) -> Figure:
    """Draw numbers with their intervals by block: a panel for each number, a line for each network.

    A dotted line is at what the number is where clean and adversarial vectors have one distribution.

    Args:
        numbers: For each statistic, such as ``separability``, the number by network and block.

    Example:
        >>> numbers = {("standard", "m1"): Estimate(0.7, 0.6, 0.8)}
        >>> [axes.get_title() for axes in plot_feature_numbers({"separability": numbers}).axes]
        ['Separability']
    """
    figure = new_figure(0.8 + 3.4 * len(numbers), 3.2)
    panels = figure.subplots(1, len(numbers), squeeze=False)[0]
    for axes, (statistic, found) in zip(panels, numbers.items(), strict=True):
        blocks = list(dict.fromkeys(block for _, block in found))
        networks = list(dict.fromkeys(network for network, _ in found))
        for number, network in enumerate(networks):
            own = [(blocks.index(block), estimate) for (of, block), estimate in found.items() if of == network]
            x = [place + 0.08 * (number - (len(networks) - 1) / 2) for place, _ in own]  # intervals beside each other
            values = np.array([estimate for _, estimate in own])
            reach = np.abs(values[:, 1:] - values[:, :1]).T
            axes.errorbar(x, values[:, 0], reach, label=label(network), capsize=2, linewidth=1, **marker(number))
        if statistic in _ENDS:
            axes.axhline(_ENDS[statistic], color=GREY, linestyle=":", linewidth=1)
        set_text(axes, in_words(statistic))
        axes.set_xticks(range(len(blocks)), [label(block) for block in blocks])
    add_legend(figure, panels[0])
    return figure


def plot_feature_curves(rows: Sequence[Row], domain: str = "") -> Figure:
    """Draw separability and the energy distance's share of each layer over training.

    Args:
        rows: The table of :class:`~lightning_adv.callbacks.FeatureDistributions`.
        domain: The BatchNorm domain to draw; the empty string for a network without.

    Example:
        >>> rows = [Row(epoch, 10 * epoch, "m1", "", "separability", 0.6) for epoch in (0, 1)]
        >>> [line.get_ydata().tolist() for line in plot_feature_curves(rows).axes[0].lines[:1]]
        [[0.6, 0.6]]
    """
    from matplotlib import colormaps

    names = list(dict.fromkeys(row.name for row in rows if row.name))
    at, unit = looks(rows)
    shades = colormaps[SEQUENTIAL]  # the depth of a layer: dark comes first, and the yellow that paper swallows never
    figure = new_figure(10, 3.4)
    panels = figure.subplots(1, 2)
    for axes, statistic in zip(panels, ("separability", "energy_share"), strict=True):
        for number, name in enumerate(names):
            colour = shades(0.88 * number / max(1, len(names) - 1))
            value, low, high = (
                [(at[step], value) for step, value in series(rows, name, domain, f"{statistic}{end}")]
                for end in ("", "_low", "_high")
            )
            draw_curve(axes, value, color=colour, label=label(name))
            if low and high:
                axes.fill_between(*zip(*low, strict=True), [y for _, y in high], color=colour, alpha=0.12, linewidth=0)
        axes.axhline(_ENDS[statistic], color=GREY, linestyle=":", linewidth=1)
        set_text(axes, in_words(statistic))
        set_looks(axes, unit)
    add_legend(figure, panels[0], title=f"Through {label(domain)}" if domain else None)
    return figure
