"""Study folders as `lightning-adv study` leaves them, in a moment: real files, numbers from plain formulas."""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning_adv.core.shares import wilson_interval
from tests.report.fake_runs import write_metrics

IMAGES = 360
MODULES = [f"m{k}" for k in range(6)]
SUBSETS = ["+".join(each) for size in range(1, 7) for each in itertools.combinations(MODULES, size)]
MEASURES = ["clean_accuracy", "robust_accuracy"]


def write_study(
    folder: Path,
    axes: Mapping[str, Sequence[str]],
    *,
    seeds: Sequence[int] = (0,),
    figure: Mapping | None = None,
    status: Mapping[int, str] | None = None,
    error: str = "ValueError: the loss is NaN",
    extra: Sequence[Mapping[str, str]] = (),
    epochs: int = 4,
    title: str = "A study",
    cells: str = "cells",
) -> Path:
    """Write a study of one pretraining for each seed and one retraining for each point.

    Args:
        folder: The study folder.
        axes: The columns of the grid and their values.
        seeds: The seeds of each point.
        figure: Of ``study.json``.
        status: By row, the status of those that are not done.
        error: The error of cells that failed.
        extra: Further points, which lack some of the columns.
        epochs: Of each run.
        title: Of the study.
        cells: The folder of the cells.
    """
    folder.mkdir(parents=True)
    points = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())] + list(extra)
    columns = [*axes, "seed", "status"]
    columns += [f"{kind}_{part}" for kind in ("clean", "robust") for part in ("accuracy", "low", "high")]
    columns += ["test_images", "pretrain_seconds", "retrain_seconds", "run"]
    described: dict[str, dict] = {}
    rows, of_points = [], []
    for number, (names, seed) in enumerate(itertools.product(points, seeds)):
        now = (status or {}).get(number, "done")
        pretrained = _cell(folder, cells, "pretrain", {"seed": str(seed)}, "done", described, epochs, error)
        retrained = _cell(folder, cells, "retrain", {**names, "seed": str(seed)}, now, described, epochs, error)
        row = dict.fromkeys(columns, "") | dict(names) | {"seed": str(seed), "status": now, "pretrain_seconds": "12.25"}
        if now == "done":
            row |= _measured(points.index(names), seed) | {"test_images": str(IMAGES), "retrain_seconds": "71.5"}
            row["run"] = f"{described[retrained]['folder']}/version_0"
        rows.append(row)
        of_points.append({"pretrain": pretrained, "retrain": retrained})
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    (folder / "study.csv").write_text(text.getvalue(), encoding="utf-8")
    stages = {"pretrain": {"command": "fit", "config": "digits/standard"}}
    stages["retrain"] = {"command": "fit", "config": "digits/blockwise"}
    description = {"title": title, "name": folder.name, "axes": list(axes), "measures": MEASURES, "stages": stages}
    description |= {
        "figure": dict(figure or {}),
        "cells": described,
        "rows": len(rows),
        "points": of_points,
        "version": 1,
    }
    (folder / "study.json").write_text(json.dumps(description))
    return folder


def _cell(folder, cells, stage, names, status, described, epochs, error):
    key = hashlib.sha256(repr((stage, names)).encode()).hexdigest()[:10]
    if key in described:
        return key
    where = f"{cells}/{stage}-{key}"
    described[key] = {"stage": stage, "folder": where, "names": names, "status": status, "seconds": None, "error": None}
    if status == "failed":
        described[key]["error"] = error
    if status in ("done", "begun"):
        run = folder / where / "version_0"
        run.mkdir(parents=True, exist_ok=True)
        write_metrics(run, epochs, (), 5e-4, random.Random(int(key, 16)))
    return key


def _measured(place, seed):
    """Accuracies that differ from point to point, and between seeds by three images."""
    found = {}
    for kind, correct in (("clean", 340 - 2 * (place % 60)), ("robust", 60 + 11 * (place % 17) + 3 * seed)):
        low, high = wilson_interval(correct, IMAGES)
        found |= {
            f"{kind}_accuracy": repr(correct / IMAGES),
            f"{kind}_low": f"{low:.6f}",
            f"{kind}_high": f"{high:.6f}",
        }
    return found
