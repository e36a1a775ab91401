"""What an evaluation leaves behind: a table on the terminal, ``evaluation.json``, verdicts by sample, two figures."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lightning_adv.attacks.describe import attack_name
from lightning_adv.commands.evaluate.corruptions import Baseline, corruptions_to_plain, print_corruptions
from lightning_adv.commands.shared.printing import plain_console
from lightning_adv.core.files import write_whole
from lightning_adv.core.shares import Share
from lightning_adv.evaluation import Plan, Summary
from lightning_adv.evaluation.corruptions.figures import plot_corruption_errors
from lightning_adv.evaluation.figures import plot_accuracy_over_eps, plot_accuracy_over_steps
from lightning_adv.evaluation.summary import CaseSummary
from lightning_adv.evaluation.verdicts import ChunkVerdicts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = (
    "index", "label", "predicted", "norm", "eps", "attack", "verdict", "stage", "adversarial_class", "distance",
)  # fmt: skip

_FIGURES = ("accuracy_over_eps.png", "accuracy_over_steps.png", "corruptions.png")


def to_plain(plan: Plan, summary: Summary, baseline: Baseline | None) -> dict[str, Any]:
    """Return the numbers of an evaluation as plain data."""
    return {
        "images": summary.clean.total,
        "clean": summary.clean.to_plain(),
        "threat_models": [
            {
                "norm": threat.norm,
                "eps": threat.eps,
                "attacks": [_case(found) for found in summary.cases if found.case.threat == threat],
                "all_or_nothing": summary.all_or_nothing[threat].to_plain(),
            }
            for threat in plan.threats
        ],
        "steps_curves": [
            {
                "norm": curve.threat.norm,
                "eps": curve.threat.eps,
                "attack": case.attack.to_config(),
                "images": curve.accuracies[0].total,
                "steps": list(curve.steps),
                "accuracies": [accuracy.to_plain() for accuracy in curve.accuracies],
            }
            for case, curve in zip(plan.curves, summary.curves, strict=True)
        ],
        "corruptions": corruptions_to_plain(summary, baseline),
        "left_out": [*plan.left_out, *plan.unfit],
    }


def write_verdicts(plan: Plan, chunks: Sequence[ChunkVerdicts], path: Path) -> None:
    """Write a row for each threat model, attack and sample, in this order, whole or not at all."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for case in plan.cases:
        samples: list[tuple[Any, ...]] = []
        for chunk in chunks:
            found = chunk.cases[case.key]
            before = zip(chunk.index, chunk.labels, chunk.predicted, strict=True)
            after = zip(found.verdicts, found.stage, found.predicted, found.distance, strict=True)
            samples += [(*sample, *outcome) for sample, outcome in zip(before, after, strict=True)]
        threat = (case.threat.norm, case.threat.eps, case.name)
        rows.writerows([*sample[:3], *threat, *sample[3:]] for sample in sorted(samples, key=lambda sample: sample[0]))
    write_whole(path, text.getvalue())


def write_figures(network: str, summary: Summary, folder: Path) -> list[Path]:
    """Draw the accuracy over eps, over the number of steps, and the errors on corrupted images, whichever there are.

    Args:
        network: The network's name.
        summary: What was found.
        folder: Where to write.

    Returns:
        The files.
    """
    figures = {}
    if any(threat.eps is not None for threat in summary.all_or_nothing):
        figures["accuracy_over_eps.png"] = plot_accuracy_over_eps(summary)
    if summary.curves:
        figures["accuracy_over_steps.png"] = plot_accuracy_over_steps(summary)
    if summary.corruptions:
        figures["corruptions.png"] = plot_corruption_errors({network: summary.corruptions})
    for name, figure in figures.items():
        save_figure(figure, folder / name)
    for name in _FIGURES:
        if name not in figures:  # of the evaluation that this one replaces
            (folder / name).unlink(missing_ok=True)
    return [folder / name for name in figures]


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=150)
    write_whole(path, image.getvalue())


def print_summary(title: str, plan: Plan, summary: Summary, baseline: Baseline | None, folder: Path) -> None:
    """Print the tables of an evaluation."""
    console = plain_console()
    if plan.cases:
        _print_attacks(console, title, plan, summary)
    if summary.corruptions:
        print_corruptions(console, title, summary, baseline)
    for name in plan.left_out:
        console.print(f"Left out, since eps has no radius for its norm: {name}")
    for reason in plan.unfit:
        console.print(f"Left out: {reason}")
    console.print(f"Everything is in {os.path.relpath(folder)}")


def _print_attacks(console: Console, title: str, plan: Plan, summary: Summary) -> None:
    table = Table(title=title)
    table.add_column("attack", overflow="fold")
    table.add_column("attacked", justify="right")
    table.add_column("broken", justify="right")
    table.add_column("accuracy" if plan.exhaustive else "accuracy left", justify="right")
    table.add_column("95 %", justify="right")
    _row(table, "clean", None, summary.clean)
    for threat in plan.threats:
        table.add_section()
        table.add_row(Text(str(threat), style="bold"))
        for found in summary.cases:
            if found.case.threat == threat:
                accuracy = found.alone if plan.exhaustive and found.alone is not None else found.left
                _row(table, found.case.name, found, accuracy)
        _row(table, "all together", None, summary.all_or_nothing[threat])
    console.print(table)
    if not plan.exhaustive:
        console.print(
            "A sample that is broken, at this eps or a smaller one, is not attacked again: each line has the accuracy "
            "that is left after it. --exhaustive gives each attack's own."
        )


def _row(table: Table, name: str, found: CaseSummary | None, accuracy: Share) -> None:
    low, high = accuracy.interval
    counts = ("", "") if found is None else (f"{found.attacked:,}", f"{found.broken:,}")
    table.add_row(name, *counts, f"{100 * accuracy.accuracy:.1f} %", f"{100 * low:.1f} to {100 * high:.1f} %")


def _case(found: CaseSummary) -> dict[str, Any]:
    stages = [attack_name(stage) for stage in found.case.attack.stages()]
    by_stage = [{"stage": name, "broken": count} for name, count in zip(stages, found.stages, strict=True)]
    return {
        "name": found.case.name,
        "attack": found.case.attack.to_config(),
        "attacked": found.attacked,
        "broken": found.broken,
        "alone": None if found.alone is None else found.alone.to_plain(),
        "left": found.left.to_plain(),
        "broken_by_stage": by_stage if len(stages) > 1 else None,
        "seconds": round(found.seconds, 3),
    }
