"""Accuracy, loss and learning rate over epochs, read from a run's ``metrics.csv``."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve: TypeAlias = Sequence[tuple[float, float]]
"""Points (epoch, value) in the order in which they were logged."""

_DOMAIN = "val/clean_accuracy_"
_COLOURS = {"clean": "#0072B2", "robust": "#D55E00", "train": "#595959"}  # Okabe & Ito: told apart by all eyes


def read_metrics(path: str | Path) -> dict[str, list[tuple[float, float]]]:
    """Read the CSVLogger's file, also one that is being written: an unfinished last line is left out.

    Args:
        path: A ``metrics.csv`` with a column ``epoch``; other columns are metrics, empty where nothing was logged.

    Returns:
        For each metric its points (epoch, value).
    """
    curves: dict[str, list[tuple[float, float]]] = {}
    upcoming = 0.0
    with Path(path).open(newline="") as file:
        text = file.read()
    for row in csv.DictReader(text[: text.rfind("\n") + 1].splitlines()):
        epoch = row.pop("epoch", "")
        row.pop("step", None)
        # LearningRateMonitor writes rows without an epoch, when the next one begins.
        at = float(epoch) if epoch else upcoming
        upcoming = at + 1 if epoch else at
        for name, value in row.items():
            if value:
                curves.setdefault(name, []).append((at, float(value)))
    return curves


def plot_training_curves(curves: Mapping[str, Curve]) -> Figure:
    """Draw three panels: validation accuracy in %, losses, learning rate.

    Args:
        curves: What :func:`read_metrics` returns. The names used are ``val/clean_accuracy``,
            ``val/robust_accuracy`` (by BatchNorm domain where there are some, as in ``val/clean_accuracy_main``),
            ``train/loss``, ``val/clean_loss``, ``val/robust_loss`` and ``lr-*``.

    Returns:
        A figure of its own; nothing global is touched and no screen is needed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    accuracy, loss, rate = figure.subplots(1, 3)
    domains = [name.removeprefix(_DOMAIN) for name in curves if name.startswith(_DOMAIN)]
    accuracies = {kind: _curve(curves, f"val/{kind}_accuracy", 100) for kind in ("clean", "robust")}
    if domains:
        accuracies = {
            f"{kind}, {domain}": _curve(curves, f"val/{kind}_accuracy_{domain}", 100)
            for domain in sorted(domains, key=lambda domain: (domain != "main", domain))
            for kind in ("clean", "robust")
        }
    _draw(accuracy, "Accuracy (%)", accuracies)
    losses = {"train": _curve(curves, "train/loss")}
    losses |= {kind: _curve(curves, f"val/{kind}_loss") for kind in ("clean", "robust")}
    _draw(loss, "Loss", losses)
    rates: dict[str, Curve] = {}
    for name, curve in curves.items():
        if name.startswith("lr-") and curve not in rates.values():  # parameter groups mostly share one rate
            rates[name.removeprefix("lr-")] = curve
    _draw(rate, "Learning rate", rates)
    accuracy.set_ylim(0, 100)
    loss.set_ylim(bottom=0)
    if any(value > 0 for curve in rates.values() for _, value in curve):
        rate.set_yscale("log")
    return figure


def _curve(curves: Mapping[str, Curve], name: str, factor: float = 1) -> Curve:
    return [(epoch, factor * value) for epoch, value in curves.get(name, ())]


def _draw(axes: Axes, title: str, curves: Mapping[str, Curve]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title)
    axes.set_xlabel("Epoch")
    axes.grid(alpha=0.3)
    for label, curve in curves.items():
        if curve:
            epochs, values = zip(*curve, strict=True)
            kind, _, domain = label.partition(", ")
            style = "--" if label == "train" else "-" if domain in ("", "main") else ":"
            marker = "." if len(epochs) < 40 else ""
            axes.plot(epochs, values, style, marker=marker, color=_COLOURS.get(kind), label=label)
    if axes.lines:
        axes.legend()
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
