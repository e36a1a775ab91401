"""The pictures of :mod:`.frequency` and :mod:`.transformed_accuracy`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightning_adv.analysis.images.frequency import FILTERS
from lightning_adv.analysis.images.transformed_accuracy import TransformedAccuracy
from lightning_adv.core.errors import UsageError
from lightning_adv.core.figure_labels import label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe & Ito: told apart by all eyes
_MARKERS = "osD^vP"
_IMAGES = {"clean": ("#0072B2", "o"), "adversarial": ("#D55E00", "s")}
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
}


def plot_frequency_accuracy(tables: Mapping[str, Sequence[TransformedAccuracy]]) -> Figure:
    """Draw the accuracy on filtered and on merged images over the frequency scale.

    "Dissecting Local Properties of Adversarial Examples", figures 1 and 6.

    Args:
        tables: By network, what :func:`~lightning_adv.analysis.images.frequency.accuracy_over_frequency` returned.

    Returns:
        A row of panels for each network, with 95 % intervals. Nothing global is touched and no screen is needed.

    Raises:
        UsageError: There are no rows.
    """
    from matplotlib.figure import Figure

    filters = [name for name in FILTERS if any(row.transform == name for rows in tables.values() for row in rows)]
    if not filters:
        raise UsageError("tables must have rows of accuracy_over_frequency, got none.")
    figure = Figure(figsize=(1 + 3.7 * len(filters), 0.8 + 2.9 * len(tables)), layout="constrained")
    panels = figure.subplots(len(tables), len(filters), squeeze=False, sharex=True, sharey=True)
    for (network, rows), line in zip(tables.items(), panels, strict=True):
        for name, axes in zip(filters, line, strict=True):
            for images, (colour, marker) in _IMAGES.items():
                found = [row for row in rows if (row.transform, row.images) == (name, images)]
                if found:
                    _draw(axes, found, f"{images} images", colour, marker)
            axes.set_title(_title(_TITLES[name], network), fontsize=10)
            axes.grid(alpha=0.3)
            axes.set_ylim(0, 100)
        line[0].set_ylabel("Accuracy (%)")
    for axes in panels[-1]:
        axes.set_xlabel("Frequency scale (1: half a cycle per pixel)")
    handles, labels = next(axes for axes in panels.flat if axes.lines).get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def plot_transformed_accuracy(tables: Mapping[str, Sequence[TransformedAccuracy]]) -> Figure:
    """Draw the accuracy on correctly classified images over the levels of each transform.

    "Interpreting Adversarially Trained Convolutional Neural Networks", figures 5 and 7.

    Args:
        tables: By network, what
            :func:`~lightning_adv.analysis.images.transformed_accuracy.accuracy_on_correctly_classified` returned.

    Returns:
        A panel for each transform, with a line and 95 % intervals for each network. Nothing global is touched and no
        screen is needed.

    Raises:
        UsageError: There are no rows.
    """
    from matplotlib.figure import Figure

    transforms = list(dict.fromkeys(row.transform for rows in tables.values() for row in rows))
    if not transforms:
        raise UsageError("tables must have rows of accuracy_on_correctly_classified, got none.")
    levels = {
        name: sorted({row.level for rows in tables.values() for row in rows if row.transform == name})
        for name in transforms
    }
    widths = [3.4 if len(several) > 1 else 1.8 for several in levels.values()]
    figure = Figure(figsize=(1 + sum(widths), 3.4), layout="constrained")
    panels = figure.subplots(1, len(transforms), squeeze=False, sharey=True, width_ratios=widths)[0]
    for name, axes in zip(transforms, panels, strict=True):
        for number, (network, rows) in enumerate(tables.items()):
            found = [row for row in rows if row.transform == name]
            if found:
                colour, marker = _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)]
                _draw(axes, found, label(network), colour, marker)
        title, unit = _LEVELS.get(name, (name, "Level"))
        axes.set_title(title, fontsize=10)
        axes.set_xlabel(unit, fontsize=9)
        axes.set_ylim(0, 100)
        axes.grid(alpha=0.3)
        if name == "saturation":
            axes.set_xscale("log", base=2)
        axes.set_xticks(levels[name], [f"{level:g}" for level in levels[name]], fontsize=8)
    panels[0].set_ylabel("Accuracy on correctly classified images (%)", fontsize=9)
    panels[0].legend(fontsize=8)
    return figure


def plot_spectra(clean: Tensor, adversarial: Mapping[str, Tensor]) -> Figure:
    """Draw logarithmic amplitude spectra, and how those of adversarial examples differ from that of clean images.

    "Dissecting Local Properties of Adversarial Examples", figure 2: the corners are the highest frequencies; what
    adversarial examples have more of is red, less blue.

    Args:
        clean: What :func:`.frequency.log_amplitude_spectrum` returned for clean images (H, W).
        adversarial: The same for their adversarial examples, by the network that these were made on.

    Returns:
        A figure; the spectra share one scale of colours and the differences another. Nothing global is touched and no
        screen is needed.

    Raises:
        UsageError: The spectra are not of one shape (H, W).
    """
    from matplotlib.figure import Figure

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
    figure = Figure(figsize=(3.1 * len(spectra) + 0.9, 5.6 if gaps else 3.2), layout="constrained")
    lines = figure.subplots(2 if gaps else 1, len(spectra), squeeze=False)
    _show(figure, lines[0].tolist(), spectra, ("log amplitude", "viridis", float(values.min()), float(values.max())))
    if gaps:
        lines[1, 0].axis("off")
        _show(figure, lines[1, 1:].tolist(), gaps, ("difference of log amplitudes", "RdBu_r", -most, most))
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
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("Frequency scale")
    line[0].set_ylabel("Frequency scale")
    figure.colorbar(drawn, ax=line, label=unit)


def _edges(size: int) -> tuple[float, float]:
    """Return where the first and the last mode of an axis begin and end, on the frequency scale."""
    first = -(size // 2)
    return (first - 0.5) * 2 / size, (first + size - 0.5) * 2 / size


def _draw(axes: Axes, rows: Sequence[TransformedAccuracy], of: str, colour: str, marker: str) -> None:
    rows = sorted(rows, key=lambda row: row.level)
    levels = [row.level for row in rows]
    low, high = zip(*(row.interval for row in rows), strict=True)
    axes.plot(levels, [100 * row.accuracy for row in rows], color=colour, marker=marker, markersize=4, label=of)
    if len(rows) > 1:
        axes.fill_between(levels, [100 * end for end in low], [100 * end for end in high], color=colour, alpha=0.15)
    else:
        axes.vlines(levels, 100 * low[0], 100 * high[0], color=colour)
