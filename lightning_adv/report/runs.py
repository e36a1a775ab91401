"""What a run folder says, as plain data; also of a run that goes on, was killed, or lost some of its files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_adv.analysis.training_curves import salvage_metrics
from lightning_adv.core.errors import UsageError
from lightning_adv.core.reading import MEGABYTE, read_yaml, shorten
from lightning_adv.report.configs import flatten
from lightning_adv.report.files import RunFiles
from lightning_adv.report.pictures import read_picture
from lightning_adv.report.results import read_results
from lightning_adv.report.tables import Table, arrange_table

_MOST_CELLS = 12_000_000  # of all tables of a run: 64 MB of the page
_MOST_PICTURES = 100 * MEGABYTE


@dataclass
class Run:
    """What is known of a run.

    Attributes:
        folder: The run folder.
        config: The flat configuration, as :func:`lightning_adv.report.configs.flatten` gives it; of a run that was
            resumed the one with which it went on.
        metrics: For each metric its points (epoch, value).
        results: What is in ``results.json``, as :func:`lightning_adv.report.results.read_results` gives it.
        tables: The tables in ``analyses/``, by name, whoever wrote them.
        figures: The pictures' bytes, by name.
        missing: One sentence for each thing that is not there.
        damaged: By file, one sentence for each thing that cannot be read.
    """

    folder: Path
    config: dict[str, str] | None = None
    metrics: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    results: dict[str, Any] | None = None
    tables: dict[str, Table] = field(default_factory=dict)
    figures: dict[str, bytes] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    damaged: dict[str, list[str]] = field(default_factory=dict)


def read_run_folder(folder: Path) -> Run:
    """Read a run folder, with whatever is in it.

    Raises:
        UsageError: There is no such folder, or nothing in it can be read as part of a run.
    """
    check_folder(folder)
    files = RunFiles(folder)
    resumed = files.has("config-resumed.yaml")  # the whole configuration, with which the run went on
    run = Run(folder, missing=files.missing, damaged=files.damaged)
    run.config = files.read("config-resumed.yaml" if resumed else "config.yaml", _config, "its settings are not known")
    run.metrics = _read_metrics(files)
    run.results = _read_results(files)
    run.tables = _read_tables(files)
    run.figures = _read_pictures(files)
    if run.config is None and run.results is None and not (run.metrics or run.tables or run.figures):
        raise UsageError(_nothing(files))
    return run


def check_folder(folder: Path) -> None:
    """Check that a run folder is one.

    Raises:
        UsageError: It is not there, or is something else.
    """
    try:
        is_folder, is_there = folder.is_dir(), folder.exists()
    except OSError as error:
        raise UsageError(f"RUN: {shorten(folder)} cannot be read ({error.strerror}).") from error
    if not is_folder:
        raise UsageError(
            f"RUN: {shorten(folder)} is {'a file, not' if is_there else 'not there; it must be'} a run folder."
        )


def _nothing(files: RunFiles) -> str:
    """Say why nothing can be read."""
    folder = shorten(files.folder, 1000)
    if files.damaged:
        return f"RUN: nothing in {folder} can be read: {next(iter(files.damaged.values()))[0]}"
    inside = sorted(path.parent for path in files.folder.glob("*/config.yaml"))
    hint = f" Did you mean {shorten(inside[-1], 1000)}?" if inside else ""
    return (
        f"RUN: {folder} is no run folder: config.yaml, metrics.csv, results.json, analyses/ and figures/ are "
        f"missing.{hint}"
    )


def is_finished(folder: Path) -> bool:
    """Return whether a run has ended with its test."""
    try:
        return (folder / "results.json").is_file()
    except OSError:
        return False


def signature(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Return what changes when a file of a run changes: each file's name, time and size."""
    paths = [folder / name for name in ("config.yaml", "config-resumed.yaml", "metrics.csv", "results.json")]
    paths += [*sorted((folder / "analyses").glob("*.csv")), *sorted((folder / "figures").glob("*.png"))]
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


def _config(path: Path) -> dict[str, str]:
    config = read_yaml(path)
    if not isinstance(config, dict):
        raise UsageError("it holds no settings")
    return flatten(config)


def _read_results(files: RunFiles) -> dict[str, Any] | None:
    predicted = any(files.folder.glob("predictions*.csv"))
    absent = "there are no results" if predicted else "the run goes on, or stopped before its test"
    found = files.read("results.json", read_results, "its results are not known", absent)
    if found is None:
        return None
    results, strange = found
    if strange:
        files.note("results.json", f"holds what cannot be shown: {shorten(', '.join(strange), 300)}")
    return results


def _read_metrics(files: RunFiles) -> dict[str, list[tuple[float, float]]]:
    name, without = "metrics.csv", "there are no training curves"
    found = files.read(name, salvage_metrics, without)
    if found is None:
        return {}
    curves, problems = found
    for problem in problems:
        files.note(name, f"is damaged: {problem}")
    if not curves and not problems:
        files.missing.append(f"{name} has no number yet: {without}.")
    _note_gaps(files, name, sum(not math.isfinite(value) for curve in curves.values() for _, value in curve))
    return curves


def _read_tables(files: RunFiles) -> dict[str, Table]:
    there = files.names("analyses", ".csv")
    if not there and "analyses" not in files.damaged:
        files.missing.append("There are no analyses: no observer looked at this run.")
    tables: dict[str, Table] = {}
    for name in there:
        found = files.read(name, arrange_table, "this analysis is not shown")
        if found is None:
            continue
        table, problems = found
        for problem in problems:
            files.note(name, f"is damaged: {problem}")
        _note_gaps(files, name, table.gaps)
        if not table.looks and not problems:
            files.missing.append(f"{name} has no whole row yet: this analysis is not shown.")
        if table.every > 1:
            files.missing.append(f"{name} has more looks than a page can show: one in {table.every} is shown.")
        if sum(map(_cells, tables.values())) + _cells(table) > _MOST_CELLS:
            files.note(name, "and what comes after it is not shown: the tables are too large together")
            break
        if table.looks:
            tables[Path(name).stem] = table
    return tables


def _cells(table: Table) -> int:
    return len(table.looks) * len(table.series)


def _read_pictures(files: RunFiles) -> dict[str, bytes]:
    pictures: dict[str, bytes] = {}
    for name in files.names("figures", ".png"):
        picture = files.read(name, read_picture, "it is not shown")
        if picture is None:
            continue
        if sum(map(len, pictures.values())) + len(picture) > _MOST_PICTURES:
            files.note(name, "and what comes after it is not shown: the pictures are too large together")
            break
        pictures[Path(name).stem] = picture
    return pictures


def _note_gaps(files: RunFiles, name: str, count: int) -> None:
    if count:
        values = "1 value that is" if count == 1 else f"{count} values that are"
        files.note(name, f"has {values} NaN or infinite: there are gaps in the curves")
