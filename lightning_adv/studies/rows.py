"""The rows of a study's table, from what its cells have left."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lightning_adv.core.reading import Problems
from lightning_adv.studies.collect import CollectPath
from lightning_adv.studies.results import CellReader, StageResult, Value
from lightning_adv.studies.table import SHARES, StudyTable


class TablePoint(NamedTuple):
    """A point of the grid, and what its stages came to.

    Attributes:
        names: What varies, by column; columns that this point has not are absent.
        seed: The seed.
        stages: The result of each stage that the point has, in their order.
    """

    names: Mapping[str, str]
    seed: int
    stages: dict[str, StageResult]


def build_table(
    points: Sequence[TablePoint],
    *,
    axes: Sequence[str],
    stages: Mapping[str, str],
    collect: Mapping[str, CollectPath],
    folder: Path,
    reader: CellReader | None = None,
    title: str = "",
    figure: Mapping[str, Any] | None = None,
) -> StudyTable:
    """Return the table of a study, as far as its cells have ended.

    Args:
        points: The points, in the grid's order.
        axes: The columns of what varies.
        stages: The command of each stage, by its name, in order.
        collect: What is collected besides, by column.
        folder: The study's folder, from which the folders of runs are named.
        reader: One of the same ``collect``, that remembers what it has read; a new one if it is not given.
        title: The study's.
        figure: How its figure is drawn.
    """
    reader, clashes = reader or CellReader(collect), Problems()
    rows: list[dict[str, Value]] = []
    for point in points:
        row: dict[str, Value] = {**point.names, "seed": point.seed, "status": point_status(point)}
        last = next((stage for stage in reversed(point.stages) if point.stages[stage].command == "fit"), None)
        for stage, result in point.stages.items():
            of_stage = reader.values(stage, result)
            kept = {*collect, f"{stage}_seconds"} if result.command == "fit" and stage != last else None
            for column, value in of_stage.items():
                if kept is not None and column not in kept:
                    continue
                if column in row:
                    clashes.add(
                        f"the column {column} is another's already, and not that of {stage}", str(result.folder)
                    )
                else:
                    row[column] = value
        if last is not None and _has_run(point.stages[last]):
            row["run"] = _relative(point.stages[last].folder / "version_0", folder)
        rows.append(row)
    _name_threats(rows, [stage for stage, command in stages.items() if command == "evaluate"])
    columns = _columns(rows, axes, stages, collect)
    whole = tuple({column: row.get(column) for column in columns} for row in rows)
    told = (*reader.told.clauses(), *clashes.clauses())
    return StudyTable(tuple(axes), columns, whole, title, figure or {}, told)


def point_status(point: TablePoint) -> str:
    """Return the status of a point: ``failed`` if a stage failed, ``done`` if all are done.

    Example:
        >>> point_status(TablePoint({}, 0, {"fit": StageResult("fit", "begun", Path("x"))}))
        'begun'
    """
    statuses = [result.status for result in point.stages.values()]
    return next((status for status in ("failed", "waits", "running", "begun", "missing") if status in statuses), "done")


def _has_run(result: StageResult) -> bool:
    """Return whether a fit has a run folder; one that has just been started may have none yet."""
    if result.status == "running":
        return (result.folder / "version_0").is_dir()
    return result.status not in ("missing", "waits")


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


def _name_threats(rows: Sequence[dict[str, Value]], stages: Iterable[str]) -> None:
    """Take the radius out of the columns of stages that attack each network at one radius."""
    for stage in stages:
        named = re.compile(rf"{re.escape(stage)}_robust_(accuracy|low|high)_.*")
        found = [[column for column in row if named.fullmatch(column)] for row in rows]
        if all(len([column for column in columns if "_accuracy_" in column]) <= 1 for columns in found):
            for row, columns in zip(rows, found, strict=True):
                for column in columns:
                    part = named.fullmatch(column)
                    row[f"{stage}_robust_{part and part[1]}"] = row.pop(column)


def _columns(
    rows: Sequence[Mapping[str, Value]], axes: Sequence[str], stages: Mapping[str, str], collect: Iterable[str]
) -> tuple[str, ...]:
    """Return the columns in the order of ``docs/files.md``; those that no row has yet are there too."""
    found = list(dict.fromkeys(column for row in rows for column in row))
    expected = [*axes, "seed", "status", *SHARES]
    ends = ["test_images"]
    for stage, command in stages.items():
        own = [name for name in found if name.startswith(f"{stage}_") and name not in (*collect, f"{stage}_seconds")]
        if command == "evaluate":
            radii = any(name.startswith(f"{stage}_robust_accuracy_") for name in own)
            ends += [f"{stage}_{name}" for name in (SHARES[:3] if radii else SHARES)] + own
        elif command == "transfer":
            ends += [f"{stage}_black_box_rate", f"{stage}_white_box_rate"]
    ends += [*collect, *(f"{stage}_seconds" for stage in stages), "run"]
    domains = [name for name in found if name not in (*expected, *ends)]
    return tuple(dict.fromkeys([*expected, *domains, *ends]))
