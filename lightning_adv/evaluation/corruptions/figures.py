"""The picture of :mod:`~lightning_adv.evaluation.corruptions.errors`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lightning_adv.core.errors import UsageError
from lightning_adv.core.figures import SMALL, TITLE, label, new_figure
from lightning_adv.evaluation.corruptions.corrupt import GROUPS
from lightning_adv.evaluation.corruptions.errors import CorruptionError, mean_error, mean_errors

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DARK = 0.4  # where white figures are easier to read than black ones


def plot_corruption_errors(tables: Mapping[str, Sequence[CorruptionError]]) -> Figure:
    """Draw the error at each corruption and severity as a table of colours.

    Args:
        tables: By network, what :func:`.errors.corruption_errors` returned, with the
            same corruptions and severities.

    Returns:
        A panel for each network, with its mean error and each corruption's; lines part noise, blur, weather and
        digital. All panels share one scale of colours, 0 to 100 %.

    Raises:
        UsageError: There are no rows, a table is not complete, or the tables have other corruptions or severities.

    Example:
        >>> from lightning_adv.evaluation.corruptions.errors import CorruptionError
        >>> rows = [CorruptionError("fog", severity, "", correct=10 - severity, total=10) for severity in (1, 2, 3)]
        >>> len(plot_corruption_errors({"standard": rows}).axes) > 0
        True
    """
    if not tables:
        raise UsageError("tables must hold at least one network, got none.")
    means = {network: mean_errors(rows) for network, rows in tables.items()}
    first = next(iter(tables.values()))
    severities = sorted({row.severity for row in first})
    names = [name for group in GROUPS.values() for name in group if name in mean_errors(first)]
    for network, rows in tables.items():
        if {row[:2] for row in rows} != {row[:2] for row in first}:
            raise UsageError(f"tables must have the same corruptions and severities, {network} has others.")
    width = (len(severities) + 1) * 0.62
    figure = new_figure(2.3 + width * len(tables), 1.4 + 0.32 * len(names))
    panels = figure.subplots(1, len(tables), squeeze=False, sharey=True)[0]
    for axes, (network, rows) in zip(panels, tables.items(), strict=True):
        errors = {row[:2]: row.error for row in rows}
        table = [[*(errors[name, severity] for severity in severities), means[network][name]] for name in names]
        drawn = axes.imshow(np.array(table), cmap="magma_r", vmin=0, vmax=1, aspect="auto")
        _write(axes, table)
        axes.set_xticks(range(len(severities) + 1), [*map(str, severities), "mean"])
        axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
        axes.set_xlabel("Severity")
        title = f"{label(network)}: mean error {100 * mean_error(rows):.1f} %" if network else ""
        axes.set_title(title or f"mean error {100 * mean_error(rows):.1f} %", fontsize=TITLE)
        axes.axvline(len(severities) - 0.5, color="white", linewidth=3)
        for edge in _group_edges(names):
            axes.axhline(edge, color="white", linewidth=3)
    scale = figure.colorbar(drawn, ax=panels.tolist(), label=f"Error (%), images: {label(first[0].images)}")
    scale.set_ticks([0, 0.25, 0.5, 0.75, 1], labels=["0", "25", "50", "75", "100"])
    return figure


def _write(axes: Axes, table: Sequence[Sequence[float]]) -> None:
    for row, errors in enumerate(table):
        for column, error in enumerate(errors):
            colour = "white" if error > _DARK else "black"
            axes.text(column, row, f"{100 * error:.0f}", color=colour, ha="center", va="center", fontsize=SMALL)


def _group_edges(names: Sequence[str]) -> list[float]:
    """Return where one group ends and another begins."""
    groups = [next(group for group, members in GROUPS.items() if name in members) for name in names]
    return [place - 0.5 for place in range(1, len(groups)) if groups[place] != groups[place - 1]]
