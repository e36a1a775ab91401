"""The pictures of an evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_adv.core.distances import tell_distance
from lightning_adv.core.errors import UsageError
from lightning_adv.core.figures import COLOURS, SMALL, TEXT, draw_shares, new_figure, set_text
from lightning_adv.evaluation.summary import Summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}


def plot_accuracy_over_eps(summary: Summary) -> Figure:
    """Draw the accuracy under all attacks together over the radius, a panel for each norm.

    Args:
        summary: What an evaluation found, under at least one ball of a norm.

    Returns:
        A figure with 95 % intervals; at radius 0 is the clean accuracy.

    Raises:
        UsageError: There is no ball of a norm.

    Example:
        >>> import torch
        >>> from lightning_adv.attacks import FGSM
        >>> from lightning_adv.evaluation import evaluate
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
        >>> x = torch.rand(8, 3, 2, 2)
        >>> figure = plot_accuracy_over_eps(evaluate(network, x, network(x).argmax(1), [FGSM()], {"linf": [0.1, 0.2]}))
        >>> figure.axes[0].get_xlabel()
        'eps in Linf'
    """
    norms = list(dict.fromkeys(threat.norm for threat in summary.all_or_nothing if threat.norm is not None))
    if not norms:
        raise UsageError("summary must have a threat model with a norm, got none.")
    figure = new_figure(0.6 + 4.2 * len(norms), 3.6)
    panels = figure.subplots(1, len(norms), squeeze=False, sharey=True)[0]
    for norm, axes in zip(norms, panels, strict=True):
        found = {threat.eps or 0.0: found for threat, found in summary.all_or_nothing.items() if threat.norm == norm}
        points = {0.0: summary.clean, **found}
        radii = list(points)
        shares, intervals = zip(*((each.accuracy, each.interval) for each in points.values()), strict=True)
        draw_shares(axes, radii, shares, intervals, color=COLOURS[0])
        set_text(axes, x=f"eps in {_NORMS.get(norm, norm)}")
        axes.set_xticks(radii, [tell_distance(eps) for eps in radii])
        axes.tick_params(axis="x", rotation=45 if len(radii) > 6 else 0)
        axes.set_xlim(left=0)
    panels[0].set_ylabel("Accuracy under all attacks (%)", fontsize=TEXT)
    return figure


def plot_accuracy_over_steps(summary: Summary) -> Figure:
    """Draw the accuracy over the number of attack steps (Xie 2020, figure 4.6): does it flatten?

    Args:
        summary: What an evaluation found, with at least one curve.

    Returns:
        A figure with a curve for each norm, and 95 % intervals.

    Raises:
        UsageError: There is no curve.

    Example:
        >>> import torch
        >>> from lightning_adv.attacks import FGSM, PGD
        >>> from lightning_adv.evaluation import StepsCurve, evaluate
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
        >>> x, curve = torch.rand(8, 3, 2, 2), StepsCurve(PGD(), steps=[1, 2, 4])
        >>> found = evaluate(network, x, network(x).argmax(1), [FGSM()], {"linf": [0.1]}, steps_curve=curve)
        >>> len(plot_accuracy_over_steps(found).axes)
        1
    """
    from matplotlib.ticker import NullFormatter, NullLocator

    if not summary.curves:
        raise UsageError("summary must have a curve over steps, got none.")
    figure = new_figure(6, 3.8)
    axes = figure.subplots()
    for curve, colour in zip(summary.curves, COLOURS, strict=False):
        shares, intervals = zip(*((each.accuracy, each.interval) for each in curve.accuracies), strict=True)
        draw_shares(axes, curve.steps, shares, intervals, color=colour, label=str(curve.threat))
        axes.set_xscale("log")
        axes.set_xticks(curve.steps, [f"{steps:,}" for steps in curve.steps])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", rotation=45)
    set_text(axes, x="Attack steps", y="Accuracy under PGD (%)")
    axes.legend(fontsize=SMALL)
    return figure
