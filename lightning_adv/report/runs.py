"""What a run folder says, as plain data; also of a run that goes on, was killed, or lost some of its files."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml

from lightning_adv.analysis.table import read_table
from lightning_adv.analysis.training_curves import read_metrics
from lightning_adv.report.configs import flatten
from lightning_adv.report.results import read_results

ANALYSES = ("bn_drift", "bn_gap", "smoothness", "local_response")
"""The analyses that the page has a section for; each is ``analyses/<name>.csv`` in the run folder."""

_PNG_BEGINS, _PNG_ENDS = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_Read = TypeVar("_Read")


class Table(NamedTuple):
    """The table of an analysis, number by number.

    Attributes:
        looks: When the analysis looked: (epoch, step), in the order of the steps.
        series: For each (name, domain, statistic) its value in each look; NaN where a look has none.
        gaps: How many values in the file are NaN or infinite.
    """

    looks: list[tuple[int, int]]
    series: dict[tuple[str, str, str], list[float]]
    gaps: int = 0


@dataclass
class Run:
    """What is known of a run.

    Attributes:
        folder: The run folder.
        config: The flat configuration, as :func:`lightning_adv.report.configs.flatten` gives it; of a run that was
            resumed the one with which it went on.
        metrics: For each metric its points (epoch, value).
        results: What is in ``results.json``, as :func:`lightning_adv.report.results.read_results` gives it.
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
    resumed = (folder / "config-resumed.yaml").is_file()  # the whole configuration, with which the run went on
    run.config = _read(run, "config-resumed.yaml" if resumed else "config.yaml", _config, "its settings are not known")
    run.metrics = _read_metrics(run)
    run.results = _read_results(run)
    if not any((folder / "analyses" / f"{name}.csv").exists() for name in ANALYSES):
        run.missing.append("There are no analyses: no observer looked at this run.")
    else:
        for name in ANALYSES:
            if (table := _read_table(run, name)) is not None:
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
    paths = [folder / name for name in ("config.yaml", "config-resumed.yaml", "metrics.csv", "results.json")]
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


def _read_results(run: Run) -> dict[str, Any] | None:
    predicted = any(run.folder.glob("predictions*.csv"))
    otherwise = "there are no results" if predicted else "the run goes on, or stopped before its test"
    found = _read(run, "results.json", read_results, otherwise)
    if found is None:
        return None
    results, strange = found
    if strange:
        run.missing.append(f"results.json holds what cannot be shown: {', '.join(strange)}.")
    return results


def _read_metrics(run: Run) -> dict[str, list[tuple[float, float]]]:
    metrics = _read(run, "metrics.csv", read_metrics, "there are no training curves") or {}
    found = {name: [point for point in curve if math.isfinite(point[0])] for name, curve in metrics.items()}
    if any(len(found[name]) < len(metrics[name]) for name in metrics):
        run.missing.append("metrics.csv has rows whose epoch is not a finite number: they are left out.")
    _note_gaps(run, "metrics.csv", sum(not math.isfinite(value) for curve in found.values() for _, value in curve))
    return {name: curve for name, curve in found.items() if curve}


def _read_table(run: Run, analysis: str) -> Table | None:
    name = f"analyses/{analysis}.csv"
    table = _read(run, name, _table, "this analysis is not shown")
    if table is None:
        return None
    if not table.looks:
        run.missing.append(f"{name} has no whole row yet: this analysis is not shown.")
        return None
    _note_gaps(run, name, table.gaps)
    return table


def _note_gaps(run: Run, name: str, count: int) -> None:
    if count:
        values = "1 value that is" if count == 1 else f"{count} values that are"
        run.missing.append(f"{name} has {values} NaN or infinite: there are gaps in the curves.")


def _table(path: Path) -> Table:
    rows = read_table(path)
    looks = sorted({row.step: row.epoch for row in rows}.items())
    index = {step: number for number, (step, _) in enumerate(looks)}
    series: dict[tuple[str, str, str], list[float]] = {}
    for _, step, name, domain, statistic, value in rows:
        key = (name, domain, statistic)
        if key not in series:
            series[key] = [math.nan] * len(looks)
        series[key][index[step]] = value
    gaps = sum(not math.isfinite(row.value) for row in rows)
    return Table([(epoch, step) for step, epoch in looks], series, gaps)


def _picture(path: Path) -> bytes:
    content = path.read_bytes()
    if not content.startswith(_PNG_BEGINS) or not content.endswith(_PNG_ENDS):
        raise ValueError("it is no whole PNG")
    return content
