"""Images side by side with what was made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from lightning_adv.core.errors import UsageError
from lightning_adv.core.figures import SMALL, label, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_versions(
    versions: Mapping[str, Tensor], answers: Mapping[str, Mapping[str, Sequence[str]]] | None = None
) -> Figure:
    """Draw images in rows and their versions in columns, with what networks take them for.

    Zhang & Zhu, "Interpreting Adversarially Trained Convolutional Neural Networks" (ICML 2019), figures 1, 3, 4 and 6.

    Args:
        versions: By title, images (N, C, H, W) in [0, 1] of one or three channels: the same N, whatever was done.
        answers: By title and network, what the network says of each of the N images, such as the probability of the
            true class; it is written below them, as in figure 6.

    Returns:
        A figure of N rows.

    Raises:
        UsageError: There are no images, or versions have another number of them, or other channels than 1 or 3.

    Example:
        >>> import torch
        >>> x = torch.rand(2, 3, 4, 4)
        >>> figure = plot_versions({"original": x, "2 × 2": x}, {"original": {"standard": ["90 %", "25 %"]}})
        >>> figure.axes[1].get_title(), figure.axes[2].get_xlabel()
        ('2 × 2', 'standard: 25 %')
    """
    shapes = {tuple(images.shape[:2]) for images in versions.values() if images.ndim == 4}
    if len(shapes) != 1 or not (rows := len(next(iter(versions.values())))) or {*shapes} - {(rows, 1), (rows, 3)}:
        got = {title: tuple(images.shape) for title, images in versions.items()}
        raise UsageError(f"versions must be as many images (N, C, H, W) each, of one or three channels, got {got}.")
    told = {} if answers is None else answers
    lines = max((len(networks) for networks in told.values()), default=0)
    figure = new_figure(1.35 * len(versions) + 0.2, (1.35 + 0.16 * lines) * rows + 0.4)
    panels = figure.subplots(rows, len(versions), squeeze=False)
    for (title, images), line in zip(versions.items(), panels.T, strict=True):
        line[0].set_title(label(title), fontsize=SMALL)
        pictures = images.detach().float().cpu().numpy().transpose(0, 2, 3, 1)
        for number, (picture, axes) in enumerate(zip(pictures, line, strict=True)):
            shown = picture.squeeze(-1) if picture.shape[-1] == 1 else picture
            axes.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            words = [f"{label(network)}: {label(each[number])}" for network, each in told.get(title, {}).items()]
            axes.set_xlabel("\n".join(words), fontsize=SMALL - 1)
    return figure
