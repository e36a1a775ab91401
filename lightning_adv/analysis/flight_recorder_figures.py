"""The picture of a flight recorder's table: every signal over training, below the accuracies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lightning_adv.core.figures import (
    COLOURS,
    GREY,
    SMALL,
    draw_curve,
    in_words,
    label,
    new_figure,
    set_looks,
    set_text,
)
from lightning_adv.core.table import Row, looks, series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACCURACIES = {"clean_accuracy": GREY, "fgsm_accuracy": COLOURS[0], "robust_accuracy": COLOURS[1]}
"""The statistics of the panel on top, by their colours."""

COLUMNS = 3


def plot_signals(rows: Sequence[Row]) -> Figure:
    """Draw every signal of the whole network over training.

    Args:
        rows: The table, with the rows of the whole network (name ``""``).

    Returns:
        A figure of three columns. Each has the accuracies on top, so that what lies below a point of their curves is
        the same look, and below them a panel for each signal.

    Example:
        >>> found = {"robust_accuracy": 0.4, "gradient_alignment": 0.9, "elle": 0.01}
        >>> rows = [Row(0, 9, "", "", statistic, value) for statistic, value in found.items()]
        >>> [axes.get_title() for axes in plot_signals(rows).axes]
        ['Accuracy', 'Accuracy', 'Gradient alignment', 'ELLE']
    """
    own = [row for row in rows if row.name == ""]
    at, unit = looks(own)
    domain = own[0].domain if own else ""
    told = (*ACCURACIES, "attack_steps", "attack_restarts")  # the last two are of an attack that was shortened
    signals = [each for each in dict.fromkeys(row.statistic for row in own) if each not in told]
    columns = min(COLUMNS, max(1, len(signals)))
    down = 1 + -(-len(signals) // columns)
    figure = new_figure(3.6 * columns, 0.6 + 1.9 * down)
    panels = figure.subplots(down, columns, sharex=True, squeeze=False)
    for number, axes in enumerate(panels.flat):
        statistic = signals[number - columns] if columns <= number < columns + len(signals) else None
        drawn = ACCURACIES if number < columns else {} if statistic is None else {statistic: COLOURS[2]}
        for each, colour in drawn.items():
            points = [
                (at[step], 100 * value if number < columns else value) for step, value in series(own, "", domain, each)
            ]
            draw_curve(axes, points, color=colour, label=label(in_words(each).removesuffix(" accuracy")))
        if number < columns:
            set_text(axes, "Accuracy", y="%")
            axes.set_ylim(0, 100)
        elif statistic is None:
            axes.remove()
        else:
            set_text(axes, label(in_words(statistic)))
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=SMALL)
    _label_lowest(panels, len(signals), columns, unit)
    return figure


def _label_lowest(panels: Any, signals: int, columns: int, unit: str) -> None:
    """Name the x axis below the last panel of each column."""
    for column in range(columns):
        lowest: Axes = panels[-(-(signals - column) // columns), column]
        set_looks(lowest, unit)
        lowest.tick_params(labelbottom=True)
