"""Common corruptions in an evaluation: the baseline of the mCE, and what is told of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table

from lightning_adv.core.errors import UsageError
from lightning_adv.core.reading import read_json, shorten
from lightning_adv.evaluation import CommonCorruptions, Summary
from lightning_adv.evaluation.corruptions.corrupt import family_of
from lightning_adv.evaluation.corruptions.errors import (
    ALEXNET_CLEAN_ERROR,
    ALEXNET_ERRORS,
    CorruptionError,
    mce,
    mean_error,
    mean_errors,
    read_errors,
    relative_mce,
)


class Baseline(NamedTuple):
    """What the mean corruption error is relative to.

    Attributes:
        name: The file, or ``alexnet``.
        errors: Its errors.
        clean_error: Its error on clean images.
    """

    name: str
    errors: Sequence[CorruptionError] | Mapping[str, float]
    clean_error: float


def check_corruptible(corruptions: CommonCorruptions | None, shape: tuple[int, ...], seed: int) -> None:
    """Check that images of a shape (C, H, W) can be corrupted as asked, before attacks take hours.

    Raises:
        UsageError: They are too small for the family, the seed is below 0, or the baseline is of other images.
    """
    if corruptions is None:
        return
    if seed < 0:
        raise UsageError(f"seed must be at least 0 for corruptions, got {seed}.")
    family = family_of(torch.empty(0, *shape), corruptions.family)
    if corruptions.baseline == "alexnet" and family != "imagenet":
        raise UsageError(
            f"corruptions.baseline is alexnet, whose errors are on ImageNet, but the images get the {family} "
            "corruptions: give the evaluation.json of a network on the same images."
        )


def read_baseline(corruptions: CommonCorruptions | None) -> Baseline | None:
    """Return the baseline that is asked for.

    Raises:
        UsageError: The file is no evaluation with the corruptions and severities that are asked for.
    """
    if corruptions is None or corruptions.baseline is None:
        return None
    if corruptions.baseline == "alexnet":
        baseline = Baseline("alexnet", ALEXNET_ERRORS, ALEXNET_CLEAN_ERROR)
    else:
        path = Path(corruptions.baseline).expanduser()
        if not os.path.isfile(path):
            raise UsageError(f"corruptions.baseline must be alexnet or an evaluation.json: there is no file {path}.")
        baseline = _read_evaluation(path)
    asked = [
        CorruptionError(name, severity, "", 0, 1) for name in corruptions.chosen for severity in corruptions.severities
    ]
    try:
        mce(asked, baseline.errors)
    except UsageError as error:
        raise UsageError(f"corruptions.baseline: {baseline.name} does not match what is asked for: {error}") from error
    return baseline


def _read_evaluation(path: Path) -> Baseline:
    told = f"corruptions.baseline: {path} is no evaluation.json with corruptions"
    try:
        content = read_json(path)
        rows, accuracy = read_errors(content["corruptions"]["errors"]), content["clean"]["accuracy"]
    except (KeyError, TypeError) as error:
        raise UsageError(f"{told}.") from error
    except UsageError as error:
        raise UsageError(f"{told} ({str(error).rstrip('.')}).") from error
    if type(accuracy) not in (int, float) or not 0 <= accuracy <= 1:
        raise UsageError(f"{told}: its clean accuracy must lie in [0, 1], got {shorten(accuracy)}.")
    return Baseline(str(path), rows, 1 - accuracy)


def corruptions_to_plain(summary: Summary, baseline: Baseline | None) -> dict[str, Any] | None:
    """Return the errors on corrupted images as plain data; None where there are none."""
    rows = summary.corruptions
    if not rows:
        return None
    plain: dict[str, Any] = {
        "images": rows[0].images,
        "mean_error": mean_error(rows),
        "mean_errors": mean_errors(rows),
        "errors": [{**row._asdict(), "error": row.error, "interval": list(row.interval)} for row in rows],
    }
    return plain | ({} if baseline is None else _relative(summary, baseline))


def print_corruptions(console: Console, title: str, summary: Summary, baseline: Baseline | None) -> None:
    """Print the error by corruption and severity, and the means."""
    rows = summary.corruptions
    severities = sorted({row.severity for row in rows})
    table = Table(title=f"{title}: error (%) on common corruptions, {rows[0].images}")
    table.add_column("corruption")
    for severity in severities:
        table.add_column(str(severity), justify="right")
    table.add_column("mean", justify="right")
    errors = {(row.corruption, row.severity): row.error for row in rows}
    for name, mean in mean_errors(rows).items():
        shown = [f"{100 * errors[name, severity]:.1f}" for severity in severities]
        table.add_row(name, *shown, f"{100 * mean:.1f}")
    console.print(table)
    console.print(
        f"mean error {100 * mean_error(rows):.1f} %, on clean images {100 * (1 - summary.clean.accuracy):.1f} %"
    )
    if baseline is not None:
        told = _relative(summary, baseline)
        relative = told["relative_mce"]
        console.print(
            f"mCE {100 * told['mce']:.1f} %, relative mCE {'none' if relative is None else f'{100 * relative:.1f} %'}, "
            f"against {baseline.name}"
        )


def _relative(summary: Summary, baseline: Baseline) -> dict[str, Any]:
    rows = summary.corruptions
    try:
        relative = relative_mce(
            rows, baseline.errors, clean_error=1 - summary.clean.accuracy, baseline_clean_error=baseline.clean_error
        )
    except UsageError:  # a corruption costs the baseline nothing: there is nothing to be relative to
        relative = None
    return {"baseline": baseline.name, "mce": mce(rows, baseline.errors), "relative_mce": relative}
