"""The pictures of :mod:`~lightning_adv.analysis.local_response`, drawn from its table, and figure 4 of its paper."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lightning_adv.core.errors import UsageError
from lightning_adv.core.figures import (
    COLOURS,
    DIVERGING,
    SEQUENTIAL,
    SMALL,
    TEXT,
    TITLE,
    add_legend,
    draw_curve,
    every,
    label,
    new_figure,
    set_looks,
    set_text,
)
from lightning_adv.core.table import Row, looks, series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

FIGURE_4_PERTURBATIONS: Mapping[str, Sequence[Sequence[float]]] = {
    "locally disordered": ((-1, 8, 0), (-8, 8, -2), (-4, 4, -4)),
    "locally consistent": ((8, 8, 8), (8, 8, 8), (8, 8, 8)),
}
"""The perturbations of figure 4, in units of 1/255."""
FIGURE_4_KERNELS: Mapping[str, Sequence[Sequence[float]]] = {
    "disordered": ((-1, -1, -1), (-1, 9, -1), (-1, -1, -1)),
    "smooth": ((1 / 9,) * 3,) * 3,
}
"""Its kernels, of one mean and different variances."""

_TITLES = {"max": "Maximum difference of local responses", "total": "Total difference of local responses"}
_EXAMPLES = {  # the prefix or suffix of a statistic: label, colour, marker
    "{}": ("own examples", COLOURS[0], "o"),
    "transferred_{}": ("transferred examples", COLOURS[4], "s"),
    "{}_successful": ("own, attack successful", COLOURS[1], "^"),
    "{}_failed": ("own, attack failed", COLOURS[2], "v"),
}


def plot_responses(rows: Sequence[Row], domain: str = "") -> Figure:
    """Draw the maximum and the total difference of each layer over training (figures 5 and 9), for own examples.

    Args:
        rows: The table.
        domain: The BatchNorm domain to draw; the empty string for a network without.

    Returns:
        A figure of two panels.

    Example:
        >>> rows = [Row(epoch, 10 * epoch, "conv1", "", "max", value) for epoch, value in enumerate((0.25, 0.5))]
        >>> [line.get_ydata().tolist() for line in plot_responses(rows).axes[0].lines]
        [[0.25, 0.5]]
    """
    from matplotlib import colormaps

    names = _layers(rows)
    at, unit = looks(rows)
    shades = colormaps[SEQUENTIAL]  # the depth of a layer: dark comes first, and the yellow that paper swallows never
    figure = new_figure(10, max(3.4, 1.2 + 0.19 * len(names)))
    panels = figure.subplots(1, 2)
    for axes, (statistic, title) in zip(panels, _TITLES.items(), strict=True):
        for number, name in enumerate(names):
            points = [(at[step], value) for step, value in series(rows, name, domain, statistic)]
            draw_curve(axes, points, color=shades(0.88 * number / max(1, len(names) - 1)), label=label(name))
        set_text(axes, title, y="Mean over images")
        set_looks(axes, unit)
    panels[0].set_ylim(bottom=0)
    _logarithmic(panels[1], [row.value for row in rows if row.statistic == "total" and row.domain == domain])
    add_legend(figure, panels[0], title=f"Through {label(domain)}" if domain else None)
    return figure


def plot_last_responses(rows: Sequence[Row]) -> Figure:
    """Draw the differences of the last look by layer (tables 1 to 5): a column for each BatchNorm domain.

    Examples of several sources have a line each.

    Args:
        rows: The table.

    Returns:
        A figure of two panels for each domain.

    Example:
        >>> rows = [Row(0, 9, "conv1", "", statistic, 0.5) for statistic in ("max", "transferred_max")]
        >>> [line.get_label() for line in plot_last_responses(rows).axes[0].lines]
        ['own examples', 'transferred examples']
    """
    last = max(row.step for row in rows)
    rows = [row for row in rows if row.step == last]
    names = _layers(rows)
    domains = list(dict.fromkeys(row.domain for row in rows))
    values = {(row.name, row.domain, row.statistic): row.value for row in rows}
    kinds = _EXAMPLES | _sources(rows)
    figure = new_figure(min(max(5.0, 1.5 + 0.3 * len(names)), 15.0) * len(domains), 7)
    panels = figure.subplots(2, len(domains), sharex=True, sharey="row", squeeze=False)
    apart = every(len(names))
    for line, (statistic, title) in zip(panels, _TITLES.items(), strict=True):
        for axes, domain in zip(line, domains, strict=True):
            drawn: list[float] = []
            for pattern, (kind, colour, marker) in kinds.items():
                found = [(x, values.get((name, domain, pattern.format(statistic)))) for x, name in enumerate(names)]
                points = [(x, value) for x, value in found if value is not None]
                if points:
                    draw_curve(axes, points, color=colour, label=kind, marker=marker, alpha=0.8, linewidth=0.8)
                    drawn += [value for _, value in points]
            set_text(
                axes, f"{title}, {label(domain)}" if domain else title, y="Mean over images" if axes is line[0] else ""
            )
            _logarithmic(axes, drawn)
            axes.set_xticks(
                range(0, len(names), apart), list(map(label, names[::apart])), rotation=90 if len(names) > 8 else 0
            )
    for axes in panels[:, 0]:
        axes.set_ylabel("Mean over images", fontsize=TEXT)
    panels[0, 0].legend(fontsize=SMALL)
    return figure


def plot_kernel_arithmetic(
    perturbations: Mapping[str, Sequence[Sequence[float]]] | None = None,
    kernels: Mapping[str, Sequence[Sequence[float]]] | None = None,
) -> Figure:
    """Draw perturbations, kernels, and what each kernel makes of each perturbation (figure 4).

    A convolution is linear: what a perturbation adds to the response at one place is the sum of the products of its
    values there and the kernel's, whatever the image is (section 4.1).

    Args:
        perturbations: Perturbations by name, as rows of numbers in units of 1/255; None takes the paper's.
        kernels: Kernels by name, of the same size; None takes the paper's.

    Returns:
        A figure: the kernels above, a row for each perturbation, and the absolute differences where they meet.

    Raises:
        UsageError: They are not all of one size.

    Example:
        >>> figure = plot_kernel_arithmetic()
        >>> [text.get_text() for axes in figure.axes for text in axes.texts if "/255" in text.get_text()]
        ['79/255', '0.11/255', '8/255', '8/255']
    """
    import numpy as np

    across = {name: np.array(rows, dtype=float) for name, rows in (kernels or FIGURE_4_KERNELS).items()}
    down = {name: np.array(rows, dtype=float) for name, rows in (perturbations or FIGURE_4_PERTURBATIONS).items()}
    shapes = {numbers.shape for numbers in (*across.values(), *down.values())}
    if len(shapes) != 1 or any(len(shape) != 2 for shape in shapes):
        raise UsageError(f"perturbations and kernels must be of one size (rows, columns), got {sorted(shapes)}.")
    figure = new_figure(1.5 * (1 + len(across)), 1.6 * (1 + len(down)))
    panels = figure.subplots(1 + len(down), 1 + len(across), squeeze=False)
    panels[0, 0].axis("off")
    for axes, (name, kernel) in zip(panels[0, 1:], across.items(), strict=True):
        _draw_numbers(axes, f"Kernel, {name}", kernel)
    for line, (name, perturbation) in zip(panels[1:], down.items(), strict=True):
        _draw_numbers(line[0], f"Perturbation (1/255),\n{name}", perturbation)
        for axes, kernel in zip(line[1:], across.values(), strict=True):
            axes.axis("off")
            axes.set_title("Difference", fontsize=TITLE)
            difference = abs(float((kernel * perturbation).sum()))
            axes.text(0.5, 0.5, f"{difference:.2g}/255", ha="center", va="center", fontsize=1.4 * TITLE)
    return figure


def _draw_numbers(axes: Axes, title: str, numbers: NDArray[Any]) -> None:
    """Draw a small matrix as colours, with its numbers."""
    import numpy as np

    most = float(abs(numbers).max()) or 1.0
    axes.imshow(numbers, cmap=DIVERGING, vmin=-1.6 * most, vmax=1.6 * most)  # pale enough for the numbers
    for (row, column), number in np.ndenumerate(numbers):
        axes.text(column, row, f"{number:.2g}", ha="center", va="center", fontsize=TEXT)
    set_text(axes, title, grid=False)
    axes.set_xticks([])
    axes.set_yticks([])


def _sources(rows: Sequence[Row]) -> dict[str, tuple[str, str, str]]:
    """Return what is drawn of examples from each of several sources, as in ``_EXAMPLES``."""
    found = (re.fullmatch("(transferred_from_(.+)_)max", row.statistic) for row in rows)
    names = dict.fromkeys(match.groups() for match in found if match)
    return {
        f"{prefix}{{}}": (f"transferred from {label(name)}", COLOURS[(4 + number) % len(COLOURS)], "sDPX*"[number % 5])
        for number, (prefix, name) in enumerate(names)
    }


def _layers(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.name for row in rows if row.name))


def _logarithmic(axes: Axes, values: Sequence[float]) -> None:
    """Scale the values logarithmically, unless none is above 0 and there would be nothing to see."""
    if any(value > 0 for value in values):
        axes.set_yscale("log")
