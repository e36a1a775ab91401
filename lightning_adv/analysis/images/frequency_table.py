"""The accuracy on filtered images as records of a table that grows look by look, and back again for its figures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning_adv.analysis.images.frequency_figures import plot_frequency_accuracy
from lightning_adv.analysis.images.transformed_accuracy import TransformedAccuracy
from lightning_adv.core.figures import draw_layers, layers_figure, set_text
from lightning_adv.core.table import Record, Row, looks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_POINT = re.compile(r"(?P<filter>\w+)_(?P<images>clean|adversarial)\[(?P<radius>.+)\]")
_MOST_LOOKS = 3


def frequency_records(rows: Sequence[TransformedAccuracy], domain: str = "") -> list[Record]:
    """Write down a curve: each point of it, where it is highest, and where it ends.

    Args:
        rows: What :func:`~lightning_adv.analysis.images.accuracy_over_frequency` returned.
        domain: The BatchNorm domain, or the empty string.

    Returns:
        For each filter and kind of images ``<filter>_<images>[<radius>]``, the accuracy; ``<filter>_<images>_peak`` and
        ``..._peak_radius``, the highest one and the smallest radius that has it; and ``..._end``, that of the largest
        radius.

    Example:
        >>> rows = [TransformedAccuracy("low_pass", radius, "clean", n, 4) for radius, n in ((0.5, 3), (1.0, 2))]
        >>> [(record.statistic, record.value) for record in frequency_records(rows)][2:]
        [('low_pass_clean_peak', 0.75), ('low_pass_clean_peak_radius', 0.5), ('low_pass_clean_end', 0.5)]
    """
    records: list[Record] = []
    for kind in dict.fromkeys((row.transform, row.images) for row in rows):
        curve = {row.level: row.correct / row.total for row in rows if (row.transform, row.images) == kind}
        peak = max(curve, key=lambda radius: (curve[radius], -radius))
        found = {f"[{radius:.4g}]": accuracy for radius, accuracy in curve.items()}
        found |= {"_peak": curve[peak], "_peak_radius": peak, "_end": curve[max(curve)]}
        records += [Record("", domain, "_".join(kind) + of, value) for of, value in found.items()]
    return records


def plot_frequency_curves(rows: Sequence[Row], domain: str = "") -> Figure:
    """Draw the accuracy over the frequency scale at the first look, one between and the last.

    Args:
        rows: The table, with ``images``, their number.
        domain: The BatchNorm domain to draw.

    Returns:
        A row of panels for each look, as :func:`~lightning_adv.analysis.images.plot_frequency_accuracy` draws them.

    Example:
        >>> found = [("images", 4.0), ("low_pass_clean[0.5]", 0.75), ("low_pass_clean[1]", 0.5)]
        >>> rows = [Row(epoch, epoch, "", "", *each) for epoch in range(5) for each in found]
        >>> [axes.get_title() for axes in plot_frequency_curves(rows).axes]
        ['Frequencies up to here, epoch 0', 'Frequencies up to here, epoch 2', 'Frequencies up to here, epoch 4']
    """
    images = {row.step: round(row.value) for row in rows if row.statistic == "images"}
    at, unit = looks(rows)
    steps = list(at)
    shown = [steps[round(n * (len(steps) - 1) / (_MOST_LOOKS - 1))] for n in range(_MOST_LOOKS)]
    tables: dict[str, list[TransformedAccuracy]] = {f"{unit} {at[step]}": [] for step in shown}
    for row in rows:
        point = _POINT.fullmatch(row.statistic)
        if point and row.step in shown and row.domain == domain:
            total = images[row.step]
            found = TransformedAccuracy(
                point["filter"], float(point["radius"]), point["images"], round(row.value * total), total
            )
            tables[f"{unit} {at[row.step]}"].append(found)
    return plot_frequency_accuracy(tables)


def plot_frequency_over_looks(rows: Sequence[Row], domain: str = "") -> Figure:
    """Draw the accuracy by radius and look as colours: a panel for each filter and kind of images.

    Args:
        rows: The table.
        domain: The BatchNorm domain to draw.

    Example:
        >>> rows = [Row(0, 9, "", "", f"low_pass_clean[{radius}]", 0.5) for radius in (0.5, 1)]
        >>> [axes.get_title() for axes in plot_frequency_over_looks(rows).axes]
        ['Low pass, clean', 'Accuracy']
    """
    from matplotlib.colors import Normalize

    kinds: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        point = _POINT.fullmatch(row.statistic)
        if point and row.domain == domain:
            kinds.setdefault((point["filter"], point["images"]), []).append(row._replace(name=point["radius"]))
    radii = sorted({row.name for found in kinds.values() for row in found}, key=float, reverse=True)
    figure = layers_figure(len(kinds), len(radii))
    panels = figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0]
    for axes, ((name, images), found) in zip(panels, kinds.items(), strict=True):
        drawn = draw_layers(axes, found, radii, looks(found))
        drawn.set_norm(Normalize(0, 1))  # an accuracy of 0 is a number too
        axes.set_title(f"{name.replace('_', ' ').capitalize()}, {images}", fontsize=10)
    panels[0].set_ylabel("Frequency scale", fontsize=9)
    bar = figure.colorbar(drawn, ax=list(panels))
    set_text(bar.ax, "Accuracy", grid=False)
    return figure
