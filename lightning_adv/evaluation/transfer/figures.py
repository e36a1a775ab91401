"""The pictures of :mod:`~lightning_adv.evaluation.transfer.rates`."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from lightning_adv.core.errors import UsageError
from lightning_adv.core.figures import TEXT, TITLE, label, new_figure
from lightning_adv.evaluation.transfer.rates import TransferRate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

_CELL = 0.52  # inches
_LETTER = 0.075  # inches that a letter of a name takes, about
_LINE = 22  # letters of a name in one line


def plot_transfer(rates: Sequence[TransferRate]) -> Figure:
    """Draw the success rates of each attack, sources by targets (Xie 2020, table 3.1).

    Args:
        rates: What :func:`.rates.transfer_rates` returned; the rows of several chunks added
            up by :func:`.rates.add_rates`.

    Returns:
        A heat map for each attack, in percent on one scale from 0 to 100; white-box cells have a frame.

    Raises:
        UsageError: There are no rows, or two of one attack, source and target.

    Example:
        >>> from lightning_adv.evaluation.transfer.rates import TransferRate
        >>> pairs = [("a", "a"), ("a", "b"), ("b", "a"), ("b", "b")]
        >>> rates = [TransferRate("FGSM", source, target, source == target, 3, 10) for source, target in pairs]
        >>> len(plot_transfer(rates).axes) > 0
        True
    """
    cells = _by_cell(rates)
    attacks, sources = _once(row.attack for row in rates), _once(row.source for row in rates)
    targets = _once(row.target for row in rates)
    lines = math.ceil(len(attacks) / max(1, min(5, round(10 / (_CELL * len(targets))))))
    across = math.ceil(len(attacks) / lines)
    width = _length(sources) + across * (_CELL * len(targets) + 0.25) + 1.2
    height = _length(targets) + lines * (_CELL * len(sources) + 0.4) + 0.6
    figure = new_figure(max(width, 3.6), max(height, 2.6))
    panels = figure.subplots(lines, across, squeeze=False, sharex=True, sharey=True)
    for attack, axes in zip(attacks, panels.flat, strict=False):
        found = {(source, target): row for (name, source, target), row in cells.items() if name == attack}
        drawn = _heat_map(axes, found, sources, targets)
        axes.set_xlabel(label(attack), fontsize=TITLE)
    for axes in panels.flat[len(attacks) :]:
        axes.axis("off")
    for axes in panels[0]:
        _name_columns(axes, targets)
    figure.supylabel("Crafted on", fontsize=TITLE)
    figure.suptitle("Tested on (framed: white-box)", fontsize=TITLE)
    figure.colorbar(drawn, ax=panels, label="Success rate (%)", pad=0.02)
    return figure


def plot_ensemble_transfer(rates: Sequence[TransferRate]) -> Figure:
    """Draw the success rates of attacks on all networks but one (Xie 2020, table 3.3).

    Args:
        rates: What :func:`~lightning_adv.evaluation.transfer.rates.ensemble_rates` returned, added up.

    Returns:
        Two heat maps, attacks by held-out networks, in percent on one scale from 0 to 100: above, examples tested on
        the ensemble that they were crafted on (white-box); below, on the network that was held out (black-box). Nothing
        global is touched and no screen is needed.

    Raises:
        UsageError: There are no rows, or two of one attack, source and target.

    Example:
        >>> from lightning_adv.evaluation.transfer.rates import TransferRate
        >>> pairs = [("-a", "-a"), ("-a", "a"), ("-b", "-b"), ("-b", "b")]
        >>> rates = [TransferRate("FGSM", source, target, source == target, 3, 10) for source, target in pairs]
        >>> len(plot_ensemble_transfer(rates).axes) > 0
        True
    """
    _by_cell(rates)
    attacks, sources = _once(row.attack for row in rates), _once(row.source for row in rates)
    held_out = [source.removeprefix("-") for source in sources]
    width = _length(attacks) + _CELL * len(sources) + 1.4
    height = _length(held_out) + 2 * (_CELL * len(attacks) + 0.5) + 0.4
    figure = new_figure(max(width, 3.6), height)
    panels = figure.subplots(2, 1, sharex=True)
    for axes, white_box in zip(panels, (True, False), strict=True):
        found = {(row.attack, row.source): row for row in rates if row.white_box == white_box}
        drawn = _heat_map(axes, found, attacks, sources, frames=False)
        axes.set_xlabel("Ensemble\n(white-box)" if white_box else "Held out\n(black-box)", fontsize=TITLE)
    _name_columns(panels[0], held_out)
    figure.suptitle("Network held out", fontsize=TITLE)
    figure.colorbar(drawn, ax=panels, label="Success rate (%)", pad=0.02)
    return figure


def _by_cell(rates: Sequence[TransferRate]) -> dict[tuple[str, str, str], TransferRate]:
    if not rates:
        raise UsageError("rates must have rows, got none.")
    cells = {(row.attack, row.source, row.target): row for row in rates}
    if len(cells) < len(rates):
        raise UsageError(
            f"rates must have one row for each attack, source and target, got {len(rates)} rows for {len(cells)}: "
            "add up those of several chunks by add_rates."
        )
    return cells


def _heat_map(
    axes: Axes,
    cells: Mapping[tuple[str, str], TransferRate],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    frames: bool = True,
) -> AxesImage:
    """Draw cells in percent, by the names of their row and column; what is not there stays empty."""
    from matplotlib.patches import Rectangle

    percent = [
        [100 * cells[row, column].rate if (row, column) in cells else math.nan for column in columns] for row in rows
    ]
    drawn = axes.imshow(percent, cmap="viridis", vmin=0, vmax=100, aspect="equal")
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            if (row, column) not in cells:
                continue
            colour = "black" if percent[i][j] > 55 else "white"  # the upper half of the scale is light
            axes.text(j, i, f"{percent[i][j]:.0f}", ha="center", va="center", color=colour, fontsize=TEXT)
            if frames and cells[row, column].white_box:
                axes.add_patch(Rectangle((j - 0.46, i - 0.46), 0.92, 0.92, fill=False, edgecolor="red", linewidth=1.8))
    axes.set_yticks(range(len(rows)), _wrapped(rows), fontsize=TEXT)
    axes.set_xticks(range(len(columns)))
    axes.tick_params(length=0, labelbottom=False)
    return drawn


def _name_columns(axes: Axes, names: Sequence[str]) -> None:
    """Write the names above a panel, upright where they are longer than a cell."""
    upright = max(map(len, names)) * _LETTER > _CELL
    axes.set_xticks(range(len(names)), _wrapped(names), fontsize=TEXT, rotation=90 if upright else 0)
    axes.tick_params(labeltop=True)


def _wrapped(names: Iterable[str]) -> list[str]:
    return [textwrap.fill(label(name), _LINE) for name in names]


def _length(names: Iterable[str]) -> float:
    """Return the inches that the longest line takes."""
    return _LETTER * max((len(line) for name in _wrapped(names) for line in name.split("\n")), default=0)


def _once(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
