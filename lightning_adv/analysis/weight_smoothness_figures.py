"""The pictures of :mod:`~lightning_adv.analysis.weight_smoothness`, drawn from its table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning_adv.analysis.weight_smoothness import MEANS
from lightning_adv.core.figure_labels import label
from lightning_adv.core.table import Row, looks, series

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#595959")  # Okabe & Ito: told apart by all eyes
_MOST_LABELS = 40


def plot_smoothness(rows: Sequence[Row]) -> Figure:
    """Draw the quadratic sum of parameters (figure 5a) and the mean relative measures of the kernels over training.

    Args:
        rows: The table, with the rows of the whole network (name ``""``).

    Returns:
        A figure of two panels; nothing global is touched and no screen is needed.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    panels = figure.subplots(1, 2)
    at, unit = looks(rows)
    domains = dict.fromkeys(row.domain for row in rows if row.statistic == "quadratic_sum")
    lines = [(0, "quadratic_sum", domain, label(domain)) for domain in domains]
    lines += [(1, measure, "", measure.replace("_", " ").capitalize()) for measure in MEANS]
    for panel, statistic, domain, name in lines:
        axes = panels[panel]
        points = series(rows, "", domain, statistic)
        marker = "." if len(points) < 40 else ""
        style = {"color": _COLOURS[len(axes.lines) % len(_COLOURS)], "marker": marker, "label": name}
        axes.plot([at[step] for step, _ in points], [value for _, value in points], **style)
    for axes, title in zip(panels, ("Quadratic sum of parameters", "Kernels, mean over convolutions"), strict=True):
        axes.set_title(title)
        axes.set_xlabel(unit.capitalize())
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[1].set_ylabel("Relative to the weights")
    panels[1].legend()
    if any(domains):
        panels[0].legend(title="BatchNorm domain")
    return figure


def plot_kernels(rows: Sequence[Row], statistic: str = "high_frequency_share") -> Figure:
    """Draw a measure of every convolution over training, as a heat map layer × look.

    Args:
        rows: The table.
        statistic: The measure; see :class:`~lightning_adv.analysis.weight_smoothness.KernelSmoothness`.

    Returns:
        A figure of one panel; nothing global is touched and no screen is needed.
    """
    from matplotlib.figure import Figure

    rows = [row for row in rows if row.name and row.statistic == statistic]
    at, unit = looks(rows)
    names = list(dict.fromkeys(row.name for row in rows))
    columns = {step: column for column, step in enumerate(at)}
    values = [[float("nan")] * len(columns) for _ in names]
    for row in rows:
        values[names.index(row.name)][columns[row.step]] = row.value
    figure = Figure(figsize=(9, 1.4 + 0.22 * min(max(5, len(names)), _MOST_LABELS)), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(values, aspect="auto", cmap="viridis", interpolation="nearest")
    figure.colorbar(picture, ax=axes, label=statistic.replace("_", " ").capitalize())
    apart = -(-len(names) // _MOST_LABELS)
    axes.set_yticks(range(0, len(names), apart), list(map(label, names[::apart])), fontsize=8)
    ticks = range(0, len(columns), -(-len(columns) // 10))
    axes.set_xticks(ticks, [str(list(at.values())[tick]) for tick in ticks])
    axes.set_xlabel(unit.capitalize())
    axes.set_title(f"{statistic.replace('_', ' ').capitalize()} of the kernels")
    return figure
