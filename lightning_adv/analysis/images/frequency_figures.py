"""The pictures of :mod:`.frequency` and :mod:`.transformed_accuracy`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightning_adv.analysis.images.frequency import FILTERS
from lightning_adv.analysis.images.transformed_accuracy import TransformedAccuracy
from lightning_adv.core.errors import UsageError
from lightning_adv.core.figures import (
    DIVERGING,
    SEQUENTIAL,
    SMALL,
    TEXT,
    draw_shares,
    label,
    marker,
    new_figure,
    set_text,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_IMAGES = ("clean", "adversarial")
_TITLES = {
    "low_pass": "Frequencies up to here",
    "merged": "Above here, the other's frequencies",
    "high_pass": "Frequencies above here",
}
_LEVELS = {  # the transform: title, label of the levels
    "saturation": ("Saturation", "Level (2: the image)"),
    "patch_shuffle": ("Patch-shuffling", "Patches along a side"),
    "low_pass": ("Low-pass filter", "Frequency scale"),
    "high_pass": ("High-pass filter", "Frequency scale"),
    "random_filter": ("Random filter", "Share of frequencies gone"),
    "random_filter_each": ("Random filter, each mode", "Share of modes gone"),
}


def plot_frequency_accuracy(tables: Mapping[str, Sequence[TransformedAccuracy]]) -> Figure:
    """Draw the accuracy on filtered and on merged images over the frequency scale.

    "Dissecting Local Properties of Adversarial Examples", figures 1 and 6.

    Args:
        tables: By network, what :func:`~lightning_adv.analysis.images.frequency.accuracy_over_frequency` returned.

    Returns:
        A row of panels for each network, with 95 % intervals.

    Raises:
        UsageError: There are no rows.

    Example:
        >>> rows = [TransformedAccuracy("low_pass", radius, "clean", 8, 10) for radius in (0.5, 1.0)]
        >>> figure = plot_frequency_accuracy({"standard": rows, "robust": rows})
        >>> [axes.get_title() for axes in figure.axes]
        ['Frequencies up to here, standard', 'Frequencies up to here, robust']
    """
    filters = [name for name in FILTERS if any(row.transform == name for rows in tables.values() for row in rows)]
    if not filters:
        raise UsageError("tables must have rows of accuracy_over_frequency, got none.")
    figure = new_figure(1 + 3.7 * len(filters), 0.8 + 2.9 * len(tables))
    panels = figure.subplots(len(tables), len(filters), squeeze=False, sharex=True, sharey=True)
    for (network, rows), line in zip(tables.items(), panels, strict=True):
        for name, axes in zip(filters, line, strict=True):
            set_text(axes, _title(_TITLES[name], network))
            for number, images in enumerate(_IMAGES):
                found = [row for row in rows if (row.transform, row.images) == (name, images)]
                _draw(axes, found, f"{images} images", number)
        line[0].set_ylabel("Accuracy (%)", fontsize=TEXT)
    for axes in panels[-1]:
        axes.set_xlabel("Frequency scale (1: half a cycle per pixel)", fontsize=TEXT)
    handles, labels = next(axes for axes in panels.flat if axes.lines).get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=SMALL)
    return figure


def plot_transformed_accuracy(tables: Mapping[str, Sequence[TransformedAccuracy]]) -> Figure:
    """Draw the accuracy on correctly classified images, or on all, over the levels of each transform.

    "Interpreting Adversarially Trained Convolutional Neural Networks", figures 5 and 7.

    Args:
        tables: By network, what
            :func:`~lightning_adv.analysis.images.transformed_accuracy.accuracy_on_correctly_classified` returned. Rows
            of other images than ``correct`` make it the top-1 accuracy.

    Returns:
        A panel for each transform, with a line and 95 % intervals for each network.

    Raises:
        UsageError: There are no rows.

    Example:
        >>> rows = [TransformedAccuracy("saturation", level, "correct", 8, 10) for level in (2, 4)]
        >>> figure = plot_transformed_accuracy({"standard": rows})
        >>> figure.axes[0].get_xlabel(), figure.axes[0].lines[0].get_ydata().tolist()
        ('Level (2: the image)', [80.0, 80.0])
    """
    transforms = list(dict.fromkeys(row.transform for rows in tables.values() for row in rows))
    if not transforms:
        raise UsageError("tables must have rows of accuracy_on_correctly_classified, got none.")
    levels = {
        name: sorted({row.level for rows in tables.values() for row in rows if row.transform == name})
        for name in transforms
    }
    widths = [3.4 if len(several) > 1 else 1.8 for several in levels.values()]
    figure = new_figure(1 + sum(widths), 3.4)
    panels = figure.subplots(1, len(transforms), squeeze=False, sharey=True, width_ratios=widths)[0]
    for name, axes in zip(transforms, panels, strict=True):
        for number, (network, rows) in enumerate(tables.items()):
            _draw(axes, [row for row in rows if row.transform == name], label(network), number)
        title, unit = _LEVELS.get(name, (name, "Level"))
        set_text(axes, title, x=unit)
        if name == "saturation":
            axes.set_xscale("log", base=2)
        axes.set_xticks(levels[name], [f"{level:g}" for level in levels[name]])
    correct = all(row.images == "correct" for rows in tables.values() for row in rows)
    panels[0].set_ylabel(f"{'Accuracy on correctly classified images' if correct else 'Top-1'} (%)", fontsize=TEXT)
    panels[0].legend(fontsize=SMALL)
    return figure


def plot_spectra(clean: Tensor, adversarial: Mapping[str, Tensor]) -> Figure:
    """Draw logarithmic amplitude spectra, and how those of adversarial examples differ from that of clean images.

    "Dissecting Local Properties of Adversarial Examples", figure 2: the corners are the highest frequencies; what
    adversarial examples have more of is red, less blue.

    Args:
        clean: What :func:`.frequency.log_amplitude_spectrum` returned for clean images (H, W).
        adversarial: The same for their adversarial examples, by the network that these were made on.

    Returns:
        A figure; the spectra share one scale of colours and the differences another.

    Raises:
        UsageError: The spectra are not of one shape (H, W).

    Example:
        >>> figure = plot_spectra(torch.zeros(2, 2), {"standard": torch.ones(2, 2)})
        >>> figure.axes[1].get_title(), figure.axes[3].get_title()
        ('adversarial, standard', 'adversarial − clean, standard')
    """
    for name, spectrum in adversarial.items():
        if clean.ndim != 2 or spectrum.shape != clean.shape:
            raise UsageError(
                f"clean and adversarial must be spectra of one shape (H, W), got {tuple(clean.shape)} and for {name} "
                f"{tuple(spectrum.shape)}."
            )
    spectra = {"clean": clean} | {_title("adversarial", name): spectrum for name, spectrum in adversarial.items()}
    gaps = {_title("adversarial − clean", name): spectrum - clean for name, spectrum in adversarial.items()}
    values = torch.stack(list(spectra.values()))
    most = max([float(gap.abs().max()) for gap in gaps.values()], default=0.0) or 1.0
    figure = new_figure(3.1 * len(spectra) + 0.9, 5.6 if gaps else 3.2)
    lines = figure.subplots(2 if gaps else 1, len(spectra), squeeze=False)
    _show(figure, lines[0].tolist(), spectra, ("log amplitude", SEQUENTIAL, float(values.min()), float(values.max())))
    if gaps:
        lines[1, 0].axis("off")
        _show(figure, lines[1, 1:].tolist(), gaps, ("difference of log amplitudes", DIVERGING, -most, most))
    return figure


def _title(what: str, network: str) -> str:
    return f"{what}, {label(network)}" if network else what


def _show(
    figure: Figure, line: Sequence[Axes], pictures: Mapping[str, Tensor], scale: tuple[str, str, float, float]
) -> None:
    unit, colours, low, high = scale
    for axes, (title, picture) in zip(line, pictures.items(), strict=True):
        height, width = picture.shape
        edges = (*_edges(width), *_edges(height))
        drawn = axes.imshow(
            picture.cpu().numpy(), cmap=colours, vmin=low, vmax=high, extent=edges, origin="lower", aspect="equal"
        )
        set_text(axes, title, x="Frequency scale", grid=False)
    line[0].set_ylabel("Frequency scale", fontsize=TEXT)
    figure.colorbar(drawn, ax=line, label=unit)


def _edges(size: int) -> tuple[float, float]:
    """Return where the first and the last mode of an axis begin and end, on the frequency scale."""
    first = -(size // 2)
    return (first - 0.5) * 2 / size, (first + size - 0.5) * 2 / size


def _draw(axes: Axes, rows: Sequence[TransformedAccuracy], of: str, number: int) -> None:
    if rows:
        rows = sorted(rows, key=lambda row: row.level)
        levels, shares = [row.level for row in rows], [row.accuracy for row in rows]
        draw_shares(axes, levels, shares, [row.interval for row in rows], label=of, **marker(number))
