"""What a run folder says, as plain data; also of a run that goes on, was killed, or lost some of its files."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml

from lightning_adv.analysis.table import read_table
from lightning_adv.analysis.training_curves import read_metrics
from lightning_adv.report.configs import flatten

ANALYSES = ("bn_drift", "bn_gap", "smoothness", "local_response")
"""The analyses that the page has a section for; each is ``analyses/<name>.csv`` in the run folder."""

_PNG_BEGINS, _PNG_ENDS = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_Read = TypeVar("_Read")


class Table(NamedTuple):
    """The table of an analysis, number by number.

    Attributes:
        looks: When the analysis looked: (epoch, step), in the order of the steps.
        series: For each (name, domain, statistic) its value in each look; NaN where a look has none.
    """

    looks: list[tuple[int, int]]
    series: dict[tuple[str, str, str], list[float]]


@dataclass
class Run:
    """What is known of a run.

    Attributes:
        folder: The run folder.
        config: The flat configuration, as :func:`lightning_adv.report.configs.flatten` gives it.
        metrics: For each metric its points (epoch, value).
        results: What is in ``results.json``.
        tables: The analyses, by name.
        figures: The pictures' bytes, by name.
        missing: One sentence for each thing that is not there or cannot be read.
    """

    folder: Path
    config: dict[str, str] | None = None
    metrics: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    results: dict[str, Any] | None = None
    tables: dict[str, Table] = field(default_factory=dict)
    figures: dict[str, bytes] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


def read_run(folder: Path) -> Run:
    """Read a run folder, with whatever is in it.

    Raises:
        ValueError: There is no such folder, or nothing in it can be read as part of a run.
    """
    if not folder.is_dir():
        raise ValueError(
            f"RUN: {folder} is {'a file, not' if folder.exists() else 'not there; it must be'} a run folder."
        )
    run = Run(folder)
    run.config = _read(run, "config.yaml", _config, "its settings are not known")
    run.metrics = _read(run, "metrics.csv", read_metrics, "there are no training curves") or {}
    run.results = _read(run, "results.json", _results, "the run goes on, or stopped before its test")
    if not any((folder / "analyses" / f"{name}.csv").exists() for name in ANALYSES):
        run.missing.append("There are no analyses: no observer looked at this run.")
    else:
        for name in ANALYSES:
            table = _read(run, f"analyses/{name}.csv", _table, "this analysis is not shown")
            if table is not None:
                run.tables[name] = table
    for path in sorted((folder / "figures").glob("*.png")):
        if (picture := _read(run, f"figures/{path.name}", _picture, "it is not shown")) is not None:
            run.figures[path.stem] = picture
    if run.config is None and run.results is None and not (run.metrics or run.tables or run.figures):
        inside = sorted(path.parent for path in folder.glob("*/config.yaml"))
        hint = f" Did you mean {inside[-1]}?" if inside else ""
        raise ValueError(
            f"RUN: {folder} is no run folder: config.yaml, metrics.csv, results.json, analyses/ and figures/ are "
            f"missing or cannot be read.{hint}"
        )
    return run


def is_finished(folder: Path) -> bool:
    """Return whether a run has ended with its test."""
    return (folder / "results.json").is_file()


def signature(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Return what changes when a file of a run changes: each file's name, time and size."""
    paths = [folder / name for name in ("config.yaml", "metrics.csv", "results.json")]
    paths += [folder / "analyses" / f"{name}.csv" for name in ANALYSES]
    paths += sorted((folder / "figures").glob("*.png"))
    found: list[tuple[str, int, int]] = []
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            continue
        found.append((str(path), status.st_mtime_ns, status.st_size))
    return tuple(found)


def name_runs(folders: Sequence[Path]) -> list[str]:
    """Name each run by as few of the last parts of its path as tell it from the others.

    ``runs/digits-madry/version_0`` is ``digits-madry``, unless another version of it is there.
    """
    parts = [path.resolve().parts for path in folders]
    names = ["/".join(p[-2:-1] if len(p) > 2 and p[-1].startswith("version_") else p[-1:]) for p in parts]
    length = 1
    while len(set(names)) < len(names):
        length += 1
        names = ["/".join(p[-length:]) if names.count(name) > 1 else name for name, p in zip(names, parts, strict=True)]
    return names


def _read(run: Run, name: str, reader: Callable[[Path], _Read], otherwise: str) -> _Read | None:
    """Read one file; note down what is wrong with it."""
    path = run.folder / name
    if not path.is_file():
        run.missing.append(f"There is no {name}: {otherwise}.")
        return None
    try:
        return reader(path)
    except (OSError, ValueError, TypeError, csv.Error, yaml.YAMLError) as error:
        reason = str(error).replace(str(path), name).partition("\n")[0].rstrip(".")
        run.missing.append(f"{name} cannot be read ({reason}): {otherwise}.")
        return None


def _config(path: Path) -> dict[str, str]:
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(config, dict):
        raise ValueError("it holds no settings")
    return flatten(config)


def _results(path: Path) -> dict[str, Any]:
    results = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(results, dict):
        raise ValueError("it holds no results")
    return results


def _table(path: Path) -> Table:
    rows = read_table(path)
    looks = sorted({(row.step, row.epoch) for row in rows})
    index = {step: number for number, (step, _) in enumerate(looks)}
    series: dict[tuple[str, str, str], list[float]] = {}
    for _, step, name, domain, statistic, value in rows:
        key = (name, domain, statistic)
        if key not in series:
            series[key] = [math.nan] * len(looks)
        series[key][index[step]] = value
    return Table([(epoch, step) for step, epoch in looks], series)


def _picture(path: Path) -> bytes:
    content = path.read_bytes()
    if not content.startswith(_PNG_BEGINS) or not content.endswith(_PNG_ENDS):
        raise ValueError("it is no whole PNG")
    return content
