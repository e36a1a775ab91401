"""Accuracy, loss and learning rate over epochs, read from a run's ``metrics.csv``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from lightning_adv.core.errors import UsageError
from lightning_adv.core.figures import COLOURS, GREY, SMALL, draw_curve, label, new_figure, set_looks, set_text
from lightning_adv.core.reading import WIDTH, CsvFile, Problems, read_csv

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MetricCurve: TypeAlias = Sequence[tuple[float, float]]
"""Points (epoch, value) in the order in which they were logged."""

_DOMAIN = "val/clean_accuracy_"
_COLOURS = {"clean": COLOURS[0], "robust": COLOURS[1], "train": GREY}


_LAST_EPOCH = 1e9  # what is after it is a damaged number


def read_metrics(path: str | Path) -> dict[str, list[tuple[float, float]]]:
    r"""Read the CSVLogger's file, also one that is being written: an unfinished last line is left out.

    Args:
        path: A ``metrics.csv`` with a column ``epoch``; other columns are metrics, empty where nothing was logged.

    Returns:
        For each metric its points (epoch, value).

    Raises:
        UsageError: Something in the file cannot be read; :func:`salvage_metrics` returns the rest.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "metrics.csv")
        ...     _ = path.write_text("epoch,step,train/loss\n0,9,2.5\n1,19,1.25\n2,2")
        ...     read_metrics(path)
        {'train/loss': [(0.0, 2.5), (1.0, 1.25)]}
    """
    curves, problems = salvage_metrics(path)
    if problems:
        raise UsageError(f"{path}: {problems[0]}.")
    return curves


def salvage_metrics(path: str | Path) -> tuple[dict[str, list[tuple[float, float]]], list[str]]:
    """Read of the CSVLogger's file what can be read.

    Args:
        path: See :func:`read_metrics`.

    Returns:
        The curves, and one clause for each kind of thing that was left out, such as ``cells that are no numbers
        are left out: 2, the first train/loss in line 5``.

    Raises:
        UsageError: Nothing in it can be read. The reason does not name the file.
    """
    table = read_csv(Path(path))
    if table is None:
        return {}, []
    told = Problems(table.damage)
    metrics = _metric_columns(table.columns, told)
    curves: dict[str, list[tuple[float, float]]] = {}
    for number, epoch, cells in _rows_at_epochs(table, told):
        for k, name in metrics:
            if not cells[k]:
                continue
            value = _number(cells[k])
            if value is None:
                told.add("cells that are no numbers are left out", f"{name} in line {number}")
            else:
                curves.setdefault(name, []).append((epoch, value))
    return curves, told.clauses()


def _metric_columns(columns: Sequence[str], told: Problems) -> list[tuple[int, str]]:
    """Return the metrics and where they stand."""
    twice = {name for name, count in Counter(columns).items() if count > 1}
    if twice & {"epoch", "step"} or not {"epoch", "step"} & set(columns):  # a run that has just begun has no epoch
        raise UsageError("it has no column epoch or step, or has it twice")
    for name in sorted(twice):
        told.add("columns that stand twice are left out", name)
    return [(k, name) for k, name in enumerate(columns) if name not in ("epoch", "step", *twice)]


def _rows_at_epochs(table: CsvFile, told: Problems) -> Iterator[tuple[int, float, list[str]]]:
    """Yield the number of each line, its epoch and its cells."""
    place = table.columns.index("epoch") if "epoch" in table.columns else None
    upcoming = 0.0
    for number, cells in table.rows:
        if len(cells) != len(table.columns):
            told.add(WIDTH, f"in line {number}")
            continue
        given = "" if place is None else cells[place]
        # LearningRateMonitor writes rows without an epoch, when the next one begins.
        at = _number(given) if given else upcoming
        if at is None or not 0 <= at < _LAST_EPOCH:
            told.add("rows with an epoch that cannot be are left out", f"in line {number}")
            continue
        if at < upcoming - 1:
            told.add("epochs go back, and the curves with them", f"in line {number}")
        upcoming = at + 1 if given else at
        yield number, at, cells


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def plot_training_curves(curves: Mapping[str, MetricCurve]) -> Figure:
    """Draw three panels: validation accuracy in %, losses, learning rate.

    Args:
        curves: What :func:`read_metrics` returns. The names used are ``val/clean_accuracy``,
            ``val/robust_accuracy`` (by BatchNorm domain where there are some, as in ``val/clean_accuracy_main``),
            ``train/loss``, ``val/clean_loss``, ``val/robust_loss`` and ``lr-*``.

    Returns:
        A figure of three panels.

    Example:
        >>> figure = plot_training_curves({"val/clean_accuracy": [(0, 0.5), (1, 0.75)]})
        >>> [(line.get_label(), line.get_ydata().tolist()) for line in figure.axes[0].lines]
        [('clean', [50.0, 75.0])]
    """
    figure = new_figure(12, 3.6)
    accuracy, loss, rate = figure.subplots(1, 3)
    domains = [name.removeprefix(_DOMAIN) for name in curves if name.startswith(_DOMAIN)]
    accuracies = {kind: _curve(curves, f"val/{kind}_accuracy", 100) for kind in ("clean", "robust")}
    if domains:
        accuracies = {
            f"{kind}, {label(domain)}": _curve(curves, f"val/{kind}_accuracy_{domain}", 100)
            for domain in sorted(domains, key=lambda domain: (domain != "main", domain))
            for kind in ("clean", "robust")
        }
    _draw(accuracy, "Accuracy (%)", accuracies)
    losses = {"train": _curve(curves, "train/loss")}
    losses |= {kind: _curve(curves, f"val/{kind}_loss") for kind in ("clean", "robust")}
    _draw(loss, "Loss", losses)
    rates: dict[str, MetricCurve] = {}
    for name, curve in curves.items():
        if name.startswith("lr-") and curve not in rates.values():  # parameter groups mostly share one rate
            rates[label(name.removeprefix("lr-"))] = curve
    _draw(rate, "Learning rate", rates)
    accuracy.set_ylim(0, 100)
    loss.set_ylim(bottom=0)
    if any(value > 0 for curve in rates.values() for _, value in curve):
        rate.set_yscale("log")
    return figure


def _curve(curves: Mapping[str, MetricCurve], name: str, factor: float = 1) -> MetricCurve:
    return [(epoch, factor * value) for epoch, value in curves.get(name, ())]


def _draw(axes: Axes, title: str, curves: Mapping[str, MetricCurve]) -> None:
    set_text(axes, title)
    set_looks(axes, "epoch")
    for text, curve in curves.items():
        if curve:
            kind, _, domain = text.partition(", ")
            style = "--" if text == "train" else "-" if domain in ("", "main") else ":"
            draw_curve(axes, curve, style, color=_COLOURS.get(kind), label=text)
    if axes.lines:
        axes.legend(fontsize=SMALL)
