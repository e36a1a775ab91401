"""The pictures of :mod:`~lightning_adv.analysis.images.perturbations`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from lightning_adv.analysis.images.perturbations import PerturbationViews, perturbation_views
from lightning_adv.core.errors import UsageError
from lightning_adv.core.figures import DIVERGING, SMALL, label, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = ("red", "green", "blue")


class _Column(NamedTuple):
    """A column of pictures (N, H, W), or (N, H, W, 3) in colour; signed ones in units of 1/255."""

    title: str
    pictures: Any
    signed: bool = False


def plot_perturbations(
    x: Tensor, examples: Mapping[str, Tensor], captions: Sequence[str] | Mapping[str, Sequence[str]] = ()
) -> Figure:
    """Draw images, their adversarial examples, and the perturbations overall, as mean of the channels and each channel.

    "Dissecting Local Properties of Adversarial Examples", figures 3, 7 and 8.

    Args:
        x: Clean images (N, C, H, W) in [0, 1] of one or three channels; a row for each. Grey images have one view of
            their perturbation.
        examples: Adversarial examples (N, C, H, W) by the network that they were made on.
        captions: What to write beside the rows, or by network under their adversarial examples, such as what these
            are taken for.

    Returns:
        A figure; red is lighter than the clean image, blue darker, on one scale for all.

    Raises:
        UsageError: There are no examples, these are not images in [0, 1] of one shape, or they have another number of
            channels.

    Example:
        >>> import torch
        >>> x = torch.full((1, 1, 2, 2), 0.5)
        >>> figure = plot_perturbations(x, {"pgd": x + 0.1})
        >>> figure.axes[0].get_title(), figure.axes[2].get_title()
        ('clean', 'perturbation')
    """
    if not examples or x.ndim != 4 or x.shape[1] not in (1, 3):
        raise UsageError(
            f"x must be images of one or three channels with adversarial examples of at least one network, got shape "
            f"{tuple(x.shape)} and {len(examples)} networks."
        )
    views = {name: perturbation_views(x, x_adv) for name, x_adv in examples.items()}
    scale = 255 * max(each.scale for each in views.values())
    columns = [_Column("clean", _as_picture(x))]
    for name, x_adv in examples.items():
        columns += [_Column("adversarial", _as_picture(x_adv)), *_columns(views[name])]
    figure = new_figure(1.2 * len(columns) + 0.8, 1.25 * len(x) + 0.7)
    panels = figure.subplots(len(x), len(columns), squeeze=False)
    limits = {"cmap": DIVERGING, "vmin": -scale or -1, "vmax": scale or 1}
    for column, line in zip(columns, panels.T, strict=True):
        line[0].set_title(column.title, fontsize=SMALL)
        for picture, axes in zip(column.pictures, line, strict=True):
            style = limits if column.signed else {"cmap": "gray", "vmin": 0, "vmax": 1}
            drawn = axes.imshow(picture, interpolation="nearest", **style)
            axes.set_xticks([])
            axes.set_yticks([])
    figure.colorbar(drawn, ax=panels, label="Perturbation (1/255)", shrink=0.8)  # the last column is signed
    of_each = (len(columns) - 1) // len(examples)
    for number, name in enumerate(examples):
        first = 1 + number * of_each
        panels[0, first].set_title(f"{label(name)}\n{columns[first].title}", fontsize=SMALL)
        if isinstance(captions, Mapping):
            _write(panels[:, first].tolist(), captions.get(name, ()))
    if not isinstance(captions, Mapping):
        _write(panels[:, 0].tolist(), captions)
    return figure


def _columns(views: PerturbationViews) -> list[_Column]:
    channels = [255 * _numbers(channel) for channel in views.channels.unbind(1)]
    if len(channels) == 1:
        return [_Column("perturbation", channels[0], signed=True)]
    return [
        _Column("overall", _as_picture(views.overall)),
        _Column("mean", 255 * _numbers(views.mean), signed=True),
        *(_Column(colour, channel, signed=True) for colour, channel in zip(_COLOURS, channels, strict=True)),
    ]


def _write(line: Sequence[Axes], captions: Sequence[str]) -> None:
    for axes, caption in zip(line, captions, strict=False):
        axes.set_xlabel("\n".join(map(label, caption.split("\n"))), fontsize=SMALL)


def _numbers(values: Tensor) -> Any:
    return values.detach().float().cpu().numpy()


def _as_picture(images: Tensor) -> Any:
    pictures = _numbers(images).transpose(0, 2, 3, 1)
    return pictures[..., 0] if pictures.shape[-1] == 1 else pictures
