"""The pictures of :mod:`~lightning_adv.analysis.weight_smoothness`, drawn from its table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning_adv.analysis.weight_smoothness import MEANS
from lightning_adv.core.figures import (
    COLOURS,
    SMALL,
    TITLE,
    by_layer,
    draw_curve,
    draw_layers,
    in_words,
    label,
    layers_figure,
    new_figure,
    set_looks,
    set_text,
)
from lightning_adv.core.table import Row, looks, series

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_smoothness(rows: Sequence[Row]) -> Figure:
    """Draw the quadratic sum of parameters (figure 5a) and the mean relative measures of the kernels over training.

    Args:
        rows: The table, with the rows of the whole network (name ``""``).

    Returns:
        A figure of two panels.

    Example:
        >>> rows = [Row(epoch, 10 * epoch, "", "", "quadratic_sum", value) for epoch, value in enumerate((4.0, 2.0))]
        >>> plot_smoothness(rows).axes[0].lines[0].get_ydata().tolist()
        [4.0, 2.0]
    """
    figure = new_figure(9, 3.4)
    panels = figure.subplots(1, 2)
    at, unit = looks(rows)
    domains = dict.fromkeys(row.domain for row in rows if row.statistic == "quadratic_sum")
    lines = [(panels[0], "quadratic_sum", domain, label(domain)) for domain in domains]
    lines += [(panels[1], measure, "", in_words(measure)) for measure in MEANS]
    for axes, statistic, domain, name in lines:
        points = [(at[step], value) for step, value in series(rows, "", domain, statistic)]
        draw_curve(axes, points, color=COLOURS[len(axes.lines) % len(COLOURS)], label=name)
    set_text(panels[0], "Quadratic sum of parameters")
    set_text(panels[1], "Kernels, mean over convolutions", y="Relative to the weights")
    for axes in panels:
        set_looks(axes, unit)
        axes.set_ylim(bottom=0)
    panels[1].legend(fontsize=SMALL)
    if any(domains):
        panels[0].legend(title="BatchNorm domain", fontsize=SMALL)
    return figure


def plot_kernels(rows: Sequence[Row], statistic: str = "high_frequency_share") -> Figure:
    """Draw a measure of every convolution over training, as a heat map layer × look.

    Args:
        rows: The table.
        statistic: The measure; see :class:`~lightning_adv.analysis.weight_smoothness.KernelSmoothness`.

    Returns:
        A figure of one panel.

    Example:
        >>> rows = [Row(0, 9, layer, "", "high_frequency_share", 0.5) for layer in ("conv1", "conv2")]
        >>> [label.get_text() for label in plot_kernels(rows).axes[0].get_yticklabels()]
        ['conv1', 'conv2']
    """
    found, names, when = by_layer(rows, statistic)
    figure = layers_figure(1, len(names))
    axes = figure.subplots()
    figure.colorbar(draw_layers(axes, found, names, when), ax=axes, label=in_words(statistic))
    axes.set_title(f"{in_words(statistic)} of the kernels", fontsize=TITLE)
    return figure
