"""The pictures of :mod:`~lightning_adv.analysis.features.saliency`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lightning_adv.analysis.features.saliency import saliency_pictures
from lightning_adv.core.errors import UsageError
from lightning_adv.core.figures import COLOURS, SMALL, draw_curve, in_words, label, new_figure, set_looks, set_text
from lightning_adv.core.table import Row, looks, series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

_ACROSS = 14  # pictures side by side, as far as whole groups go: what a page holds
_NUMBERS = (
    ("gini", "Sparsity of the maps", "Gini index"),
    ("l2", "L2 distance of the maps", "Distance"),
    ("cosine", "Cosine distance of the maps", "Distance"),
)


def plot_saliency(
    images: Mapping[str, Tensor | Mapping[str, Tensor]],
    maps: Mapping[str, Mapping[str, Tensor]],
    captions: Sequence[str] = (),
) -> Figure:
    """Draw images with the saliency maps of several networks beside them (Zhang & Zhu 2019, figures 2 and 8 to 10).

    There is a group of columns for each image: the image, and a map for each network. The versions of the images are
    below each other.

    Args:
        images: The images (N, C, H, W) in [0, 1] of one or three channels, by version, such as ``clean`` and
            ``saturation 1024``. Where each network has images of its own, such as adversarial examples, these by
            network: they stand above their maps.
        maps: The maps E (N, C, H, W) by version and network; each version has the same networks.
        captions: What to write above the images.

    Returns:
        A figure; each map is over its own 99th percentile
        (:func:`~lightning_adv.analysis.features.saliency_pictures`).

    Raises:
        UsageError: There are no images or networks, the versions or networks of both differ, or images have another
            number of channels.

    Example:
        >>> import torch
        >>> x = torch.rand(2, 1, 4, 4)
        >>> figure = plot_saliency({"clean": x}, {"clean": {"standard": x, "madry": x}}, ["a", "b"])
        >>> [axes.get_title() for axes in figure.axes[:3]]
        ['a', 'standard', 'madry']
    """
    count, networks = _check(images, maps)
    groups = [_lines_of(images, maps, networks, number) for number in range(count)]
    rows, columns = len(groups[0]), 1 + len(networks)
    across = min(count, max(1, _ACROSS // columns))
    bands = -(-count // across)
    figure, panels = _grid(
        ([1.0] * rows + [0.3]) * (bands - 1) + [1.0] * rows,
        ([1.0] * columns + [0.1]) * (across - 1) + [1.0] * columns,
    )
    for axes in panels.flat:
        axes.axis("off")
    for number, lines in enumerate(groups):
        top, left = number // across * (rows + 1), number % across * (columns + 1)
        for row, (name, pictures) in enumerate(lines, top):
            for axes, picture in zip(panels[row, left : left + columns], pictures, strict=True):
                _show(axes, picture)
            if left == 0:
                panels[row, 0].axis("on")
                panels[row, 0].set_ylabel(label(name).replace(" ", "\n"), fontsize=SMALL)
        caption = captions[number] if number < len(captions) else "image"
        for axes, title in zip(panels[top, left : left + columns], [caption, *networks], strict=True):
            axes.set_title(label(title), fontsize=SMALL)
    return figure


def plot_saliency_over_training(x: Tensor, pictures: Mapping[int, Tensor], unit: str = "epoch") -> Figure:
    """Draw images and their saliency maps at the looks of a run.

    Args:
        x: Images (N, C, H, W) in [0, 1] of one or three channels; a row for each.
        pictures: Their maps (N, H, W) in [0, 1] by epoch or step, as
            :func:`~lightning_adv.analysis.features.saliency_pictures` returns them; at least one.
        unit: What the looks are counted in.

    Example:
        >>> import torch
        >>> figure = plot_saliency_over_training(torch.rand(2, 1, 4, 4), {1: torch.rand(2, 4, 4)})
        >>> [axes.get_title() for axes in figure.axes[:2]]
        ['image', 'epoch 1']
    """
    figure, panels = _grid([1.0] * len(x), [1.0] * (1 + len(pictures)))
    for axes, title in zip(panels[0], ["image", *(f"{unit} {at}" for at in pictures)], strict=True):
        axes.set_title(title, fontsize=SMALL)
    for number, line in enumerate(panels):
        shown = [_as_picture(x[number]), *(_numbers(each[number]) for each in pictures.values())]
        for axes, picture in zip(line, shown, strict=True):
            _show(axes, picture)
    return figure


def plot_saliency_numbers(rows: Sequence[Row]) -> Figure:
    """Draw how sparse the saliency maps of fixed images are over training, and how far they move.

    Args:
        rows: The table of :class:`~lightning_adv.callbacks.SaliencyMaps`.

    Example:
        >>> figure = plot_saliency_numbers([Row(0, 9, "", "", "gini", 0.5)])
        >>> [axes.get_title() for axes in figure.axes]
        ['Sparsity of the maps', 'L2 distance of the maps', 'Cosine distance of the maps']
    """
    when = looks(rows)
    figure = new_figure(12, 3.2)
    for axes, (begin, name, y) in zip(figure.subplots(1, 3), _NUMBERS, strict=True):
        found = [row for row in rows if row.statistic.startswith(begin)]
        for number, (domain, statistic) in enumerate(dict.fromkeys((row.domain, row.statistic) for row in found)):
            points = [(when.at[step], value) for step, value in series(found, "", domain, statistic)]
            written = in_words(statistic.removeprefix(f"{begin}_")) + (f", {domain}" if domain else "")
            draw_curve(axes, points, color=COLOURS[number % len(COLOURS)], label=label(written))
        set_text(axes, name, y=y)
        set_looks(axes, when.unit)
        if len(axes.lines) > 1:
            axes.legend(fontsize=SMALL)
    return figure


def _check(
    images: Mapping[str, Tensor | Mapping[str, Tensor]], maps: Mapping[str, Mapping[str, Tensor]]
) -> tuple[int, list[str]]:
    """Return the number of images and the names of the networks.

    Raises:
        UsageError: There are none, or images and maps do not belong together.
    """
    if not images or list(images) != list(maps):
        raise UsageError(f"images and maps must have the same versions, got {list(images)} and {list(maps)}.")
    networks = list(next(iter(maps.values())))
    shapes = set()
    for version, given in images.items():
        own = given if isinstance(given, Mapping) else dict.fromkeys(networks, given)
        if not networks or list(maps[version]) != networks or list(own) != networks:
            raise UsageError(
                f"maps and images must have the same networks in each version, at least one, got {list(own)} and "
                f"{list(maps[version])} in {version!r}, and {networks} in the first."
            )
        shapes |= {tuple(each.shape) for each in (*own.values(), *maps[version].values())}
    shape = next(iter(shapes))
    if len(shapes) != 1 or len(shape) != 4 or shape[0] < 1 or shape[1] not in (1, 3):
        raise UsageError(
            "images and maps must have one shape (N, C, H, W), with at least one image of one or three channels, got "
            f"{sorted(shapes)}."
        )
    return shape[0], networks


def _lines_of(
    images: Mapping[str, Tensor | Mapping[str, Tensor]],
    maps: Mapping[str, Mapping[str, Tensor]],
    networks: Sequence[str],
    number: int,
) -> list[tuple[str, list[Any]]]:
    """Return the rows of one image: their names, and pictures or None."""
    lines: list[tuple[str, list[Any]]] = []
    for version, given in images.items():
        shown = [_numbers(saliency_pictures(maps[version][name][number, None])[0]) for name in networks]
        if isinstance(given, Mapping):
            lines.append((version, [None, *(_as_picture(given[name][number]) for name in networks)]))
            lines.append((f"{version}, maps", [None, *shown]))
        else:
            lines.append((version, [_as_picture(given[number]), *shown]))
    return lines


def _grid(heights: Sequence[float], widths: Sequence[float]) -> tuple[Figure, Any]:
    """Return a figure of square panels, with room for titles and names; sizes are relative to those of a picture.

    Its layout is fixed: to fit a hundred panels to each other takes Matplotlib many seconds.
    """
    from matplotlib.figure import Figure

    picture, gap, left, top = 0.9, 0.06, 0.4, 0.3  # inches
    width = sum(widths) * picture + gap * (len(widths) - 1)
    height = sum(heights) * picture + gap * (len(heights) - 1)
    figure = Figure(figsize=(width + left + gap, height + top + gap))
    ratios = {"height_ratios": heights, "width_ratios": widths}
    panels = figure.subplots(len(heights), len(widths), squeeze=False, gridspec_kw=ratios)
    figure.subplots_adjust(
        left / (width + left + gap),
        gap / (height + top + gap),
        (left + width) / (width + left + gap),
        (height + gap) / (height + top + gap),
        gap * len(widths) / (sum(widths) * picture),
        gap * len(heights) / (sum(heights) * picture),
    )
    return figure, panels


def _show(axes: Axes, picture: Any) -> None:
    """Draw a picture in [0, 1], or none, without ticks."""
    axes.set_xticks([])
    axes.set_yticks([])
    if picture is None:
        axes.set_frame_on(False)
        return
    axes.axis("on")
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def _as_picture(image: Tensor) -> Any:
    """Return an image (C, H, W) as Matplotlib takes it."""
    picture = _numbers(image).transpose(1, 2, 0)
    return picture[..., 0] if picture.shape[-1] == 1 else picture


def _numbers(values: Tensor) -> Any:
    return values.detach().float().cpu().numpy()
