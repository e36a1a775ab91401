"""The picture of :mod:`.cue_conflict`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lightning_adv.analysis.images.cue_conflict import Decisions, add_decisions
from lightning_adv.core.errors import UsageError
from lightning_adv.core.figures import SMALL, add_legend, label, marker, new_figure, set_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_shape_bias(networks: Mapping[str, Mapping[str, Decisions]]) -> Figure:
    """Draw the shape bias of networks on the images of each shape and on all (Geirhos et al., figure 4).

    Args:
        networks: By network and class, the decisions on the images that have the shape of the class.

    Returns:
        A row for each class, and vertical lines at the bias on all images; a class without a decision for shape or
        texture has no mark.

    Raises:
        UsageError: There are no decisions for shape or texture at all.

    Example:
        >>> figure = plot_shape_bias({"standard": {"cat": Decisions(1, 3, 0), "dog": Decisions(0, 4, 0)}})
        >>> figure.axes[0].lines[0].get_xdata().tolist(), figure.axes[0].lines[1].get_xdata()
        ([25.0, 0.0], [12.5, 12.5])
    """
    if not any(decisions.bias for classes in networks.values() for decisions in classes.values()):
        raise UsageError("networks must have decisions for shape or texture, got none.")
    names = list(dict.fromkeys(name for classes in networks.values() for name in classes))
    figure = new_figure(6.4, 1.3 + 0.26 * len(names))
    axes = figure.subplots()
    for number, (network, classes) in enumerate(networks.items()):
        style = marker(number)
        found = [(share, names.index(name)) for name, decisions in classes.items() if (share := decisions.bias)]
        x, y = [100 * share.accuracy for share, _ in found], [row + 0.12 * number for _, row in found]
        axes.plot(x, y, label=label(network), linestyle="", **style)
        low, high = ([100 * share.interval[end] for share, _ in found] for end in (0, 1))
        axes.hlines(y, low, high, color=style["color"], alpha=0.4)
        if total := add_decisions(classes.values()).bias:
            axes.axvline(100 * total.accuracy, color=style["color"], linewidth=1)
    axes.invert_yaxis()
    axes.set_xlim(-2, 102)
    set_text(axes, x="Decisions for the shape among those for shape or texture (%)")
    axes.set_yticks(range(len(names)), list(map(label, names)), fontsize=SMALL)
    add_legend(figure, axes)
    return figure
