"""What a study folder says, as plain data; also of a study that goes on, was copied in the middle, or lost runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

from lightning_adv.analysis.training_curves import salvage_metrics
from lightning_adv.core.errors import UsageError
from lightning_adv.core.reading import shorten
from lightning_adv.report.figures import one_rate
from lightning_adv.report.files import RunFiles
from lightning_adv.report.results import is_number
from lightning_adv.report.study_files import number, read_description, read_rows

Curves: TypeAlias = dict[str, list[tuple[float, float]]]
"""For each metric its points (epoch, value)."""


class Logged(NamedTuple):
    """What was read of the metrics of a run.

    Attributes:
        state: That of the file when it was read.
        curves: The training curves.
        problems: One clause for each thing that cannot be read.
    """

    state: object
    curves: Curves
    problems: list[str]


FILE, TABLE = "study.json", "study.csv"
_VERSION: Final = 1
_OVER: Final = frozenset({"done", "failed", "waits"})
_NO_MEASURE: Final = re.compile(r"seed|status|run|test_images|.*_seconds|(.*_)?(low|high)(_.*)?")


@dataclass
class Study:
    """What is known of a study.

    Attributes:
        folder: The study folder.
        title: The study's title; the folder's name if it is not known.
        stages: For each stage its command.
        axes: The columns of what varies, without the seed.
        measures: The columns of what was measured.
        figure: How the study draws its figure: ``kind``, ``x``, ``lines``, ``panels``, ``y``, ``reference``.
        columns: The columns of the table.
        rows: The rows of the table, as text; a cell that says nothing is empty.
        cells: By identity, each cell's ``stage``, ``folder``, ``names``, ``status``, ``error``.
        points: For each row the cell of each of its stages.
        curves: By cell, the training curves of its run.
        missing: One sentence for each thing that is not there.
        damaged: By file, one sentence for each thing that cannot be read.
    """

    folder: Path
    title: str
    stages: dict[str, str] = field(default_factory=dict)
    axes: list[str] = field(default_factory=list)
    measures: list[str] = field(default_factory=list)
    figure: dict[str, Any] = field(default_factory=dict)
    columns: list[str] = field(default_factory=list)
    rows: list[dict[str, str]] = field(default_factory=list)
    cells: dict[str, dict[str, Any]] = field(default_factory=dict)
    points: list[dict[str, str]] = field(default_factory=list)
    curves: dict[str, Curves] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    damaged: dict[str, list[str]] = field(default_factory=dict)


def is_study(folder: Path) -> bool:
    """Return whether a folder is that of a study, and not of a run."""
    try:
        return any((folder / name).is_file() for name in (FILE, TABLE, "study.yaml"))
    except OSError:
        return False


def read_study_folder(folder: Path, known: dict[Path, Logged] | None = None) -> Study:
    """Read a study folder, with whatever is in it, and the training curves of its runs.

    Args:
        folder: The folder.
        known: Of metrics that were read before, by file, its state and its curves; what is read is added to it.

    Raises:
        UsageError: Neither its ``study.json`` nor its ``study.csv`` can be read.
    """
    files = RunFiles(folder)
    said = files.read(FILE, read_description, "what varies is guessed from the table")
    table = files.read(TABLE, read_rows, "there are no accuracies")
    if said is None and table is None:
        reasons = [each for of_file in files.damaged.values() for each in of_file] + files.missing
        raise UsageError(f"RUN: {shorten(folder, 1000)} is the folder of a study that cannot be read: {reasons[0]}")
    description, strange = said or ({}, [])
    study = Study(folder, str(description.get("title") or folder.resolve().name))
    study.missing, study.damaged = files.missing, files.damaged
    if strange:
        files.note(FILE, f"holds what cannot be shown: {shorten(', '.join(strange), 300)}")
    _note_version(files, description.get("version") or _VERSION)
    study.stages = {name: str(of.get("command", "fit")) for name, of in (description.get("stages") or {}).items()}
    study.cells = description.get("cells") or {}
    if table is None:
        study.columns, study.rows = _rows_of_cells(study.cells)
    else:
        study.columns, study.rows, problems = table
        for problem in problems:
            files.note(TABLE, f"is damaged: {problem}")
    _choose_columns(study, description, files)
    study.points = _points(study, description.get("points"), guess=table is not None)
    wanted = description.get("rows")
    if table is not None and is_number(wanted) and len(study.rows) < wanted:
        files.note(TABLE, f"has {len(study.rows):,} of {wanted:,} rows: it was copied while it was written, or is cut")
    _read_curves(study, files, {} if known is None else known)
    return study


def is_finished(folder: Path) -> bool:
    """Return whether no cell of a study will be run any more: each is done, has failed, or waits for one that has."""
    try:
        cells = (read_description(folder / FILE)[0].get("cells") or {}).values()
    except (ValueError, OSError, RuntimeError):
        return False
    return bool(cells) and all(cell.get("status") in _OVER for cell in cells)


def signature(folder: Path) -> tuple[object, ...]:
    """Return what changes when a study goes on: the state of its files, and of the metrics of its runs."""
    try:
        cells = read_description(folder / FILE)[0].get("cells") or {}
    except (ValueError, OSError, RuntimeError):
        cells = {}
    paths = [folder / FILE, folder / TABLE]
    paths += [run / "metrics.csv" for key, cell in cells.items() if (run := _run_folder(folder, key, cell))]
    return tuple((str(path), _state(path)) for path in paths)


def failure(study: Study, row: int) -> str:
    """Return why a row has no results: the error of the first of its cells that failed, after the name of its stage.

    Empty where none has, or where its error is not known.
    """
    for stage, key in study.points[row].items():
        cell = study.cells.get(key, {})
        if cell.get("status") == "failed":
            return f"{stage}: {cell.get('error') or 'its error is not known'}"
    return ""


def _state(path: Path) -> object:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _note_version(files: RunFiles, version: float) -> None:
    if version > _VERSION:
        files.note(
            FILE,
            f"is of version {version:g}, and this version of lightning_adv knows {_VERSION}: what is new in it is not "
            "shown. Upgrade lightning_adv",
        )


def _rows_of_cells(cells: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[dict[str, str]]]:
    """Return a table of the cells, where that of the points is not there."""
    names = dict.fromkeys(str(name) for cell in cells.values() for name in cell.get("names") or {})
    columns = [*(name for name in names if name != "seed"), "seed", "stage", "status"]
    rows = []
    for cell in cells.values():
        row = dict.fromkeys(columns, "") | {name: str(value) for name, value in (cell.get("names") or {}).items()}
        rows.append(row | {"stage": str(cell.get("stage") or ""), "status": str(cell.get("status") or "")})
    return columns, rows


def _choose_columns(study: Study, description: Mapping[str, Any], files: RunFiles) -> None:
    """Set what varies, what was measured and the figure: as the description says, else as the table looks."""
    before_seed = study.columns[: study.columns.index("seed")] if "seed" in study.columns else []
    said = description.get("axes")
    axes = before_seed if said is None else [name for name in said if name in study.columns]
    study.axes = [name for name in axes if name not in ("seed", "status")]
    measured = [
        name
        for name in study.columns
        if name not in study.axes
        and not _NO_MEASURE.fullmatch(name)
        and any(number(row[name]) is not None for row in study.rows)
    ]
    said = description.get("measures")
    study.measures = measured if said is None else [name for name in said if name in study.columns]
    lost = [name for key in ("axes", "measures") for name in description.get(key) or () if name not in study.columns]
    if lost and TABLE not in files.damaged and not any(TABLE in sentence for sentence in files.missing):
        files.note(TABLE, f"lacks columns that {FILE} names: {shorten(', '.join(lost), 300)}")
    study.figure = _figure(study, description.get("figure") or {})


def _figure(study: Study, said: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figure that is shown first, of columns that are there."""
    axes = [*study.axes, *(["seed"] if "seed" in study.columns else [])]
    values = {axis: {row[axis] for row in study.rows} for axis in study.axes}
    varied = [axis for axis in study.axes if len(values[axis]) > 1]
    numbers = [axis for axis in varied if all(number(value) is not None for value in values[axis])]
    x = next(iter(numbers or varied[-1:]), "")
    lines = next((axis for axis in varied if axis != x), "")
    chosen = {"kind": "lines", "x": x, "lines": lines, "panels": ""}
    for key in chosen if said else ():
        name = said.get(key) or ""
        chosen[key] = name if key == "kind" or name in ["", *axes, *study.measures] else ""
    measured = [said["y"]] if isinstance(said.get("y"), str) else said.get("y") or []
    y = [name for name in measured if name in study.measures]
    usual = [name for name in ("robust_accuracy", "clean_accuracy") if name in study.measures]
    reference = {str(key): str(value) for key, value in (said.get("reference") or {}).items() if key in axes}
    return {**chosen, "y": (y or usual or study.measures)[:4], "reference": reference}


def _points(study: Study, said: Any, *, guess: bool) -> list[dict[str, str]]:
    """Return for each row its cells by stage: as the description says, else those whose run or names are the row's."""
    if not guess:
        return [{str(cell.get("stage")): key} for key, cell in study.cells.items()]
    if isinstance(said, list) and len(said) == len(study.rows):
        return [{stage: key for stage, key in point.items() if key in study.cells} for point in said]
    return [
        {str(cell.get("stage")): key for key, cell in study.cells.items() if _is_of(row, cell)} for row in study.rows
    ]


def _is_of(row: Mapping[str, str], cell: Mapping[str, Any]) -> bool:
    folder, names = cell.get("folder"), cell.get("names") or {}
    if folder and row.get("run") and Path(row["run"]).parts[: len(Path(folder).parts)] == Path(folder).parts:
        return True
    return bool(names) and all(row.get(str(name)) == str(value) for name, value in names.items())


def _run_folder(study: Path, key: str, cell: Mapping[str, Any]) -> Path | None:
    """Return where the run of a cell is; a folder without the cell's identity in its name is not one of the study."""
    folder = cell.get("folder")
    return study / folder / "version_0" if folder and key and Path(folder).name.endswith(f"-{key}") else None


def _read_curves(study: Study, files: RunFiles, known: dict[Path, Logged]) -> None:
    """Read the training curves of each cell that trains; say of how many there are none, and of damage once a kind."""
    lost: list[str] = []
    for key, cell in study.cells.items():
        if study.stages.get(str(cell.get("stage")), "fit") != "fit":
            continue
        run = _run_folder(study.folder, key, cell)
        if run is None or not run.is_dir():
            lost += [str(cell.get("folder"))] if cell.get("status") in ("done", "begun") else []
            continue
        path = run / "metrics.csv"
        if path not in known or known[path].state != _state(path):
            known[path] = _read_metrics(run)
        for clause in known[path].problems:
            files.note(f"{cell['folder']}/version_0/metrics.csv", clause)
        if known[path].curves:
            study.curves[key] = known[path].curves
    if lost:
        study.missing.append(
            f"The folders of {len(lost):,} runs are not there: they were moved or deleted, and there are no curves of "
            f"them. The first is {shorten(lost[0])}."
        )


def _read_metrics(run: Path) -> Logged:
    files, state = RunFiles(run), _state(run / "metrics.csv")
    found = files.read("metrics.csv", salvage_metrics, "there are no training curves")
    curves, problems = found or ({}, [])
    told = [f"is damaged: {problem}" for problem in problems]
    told += [said.partition(" ")[2].rstrip(".") for of_file in files.damaged.values() for said in of_file]
    return Logged(state, {name: list(curve) for name, curve in one_rate(curves).items()}, told)
