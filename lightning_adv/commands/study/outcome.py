"""What a study leaves in its folder while it runs and at its end: the table, what the report reads, the figure."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.table import Table

from lightning_adv.commands.evaluate.output import save_figure
from lightning_adv.commands.shared.printing import plain_console
from lightning_adv.core.errors import UsageError
from lightning_adv.core.files import to_json, write_whole
from lightning_adv.studies.attempts import read_failure, read_seconds
from lightning_adv.studies.cells import Plan
from lightning_adv.studies.collect import parse_collect
from lightning_adv.studies.figures import check_figure, draw_study, settings_of
from lightning_adv.studies.folder import StudyFolder
from lightning_adv.studies.grid import axis_columns
from lightning_adv.studies.results import CellReader, StageResult
from lightning_adv.studies.rows import TablePoint, build_table
from lightning_adv.studies.table import StudyTable, check_columns, expected_measures, interval_columns

_MOST_ROWS = 60  # that are printed; the file has them all
_VERSION = 1


class Outcome:
    """The table of a study and what is drawn of it.

    Args:
        plan: The study.
        folder: Its folder.
    """

    def __init__(self, plan: Plan, folder: StudyFolder) -> None:
        self._plan, self._folder = plan, folder
        study = plan.study
        self._axes = axis_columns(study)
        self._stages = {name: stage.command for name, stage in study.stages.items()}
        self._collect = parse_collect(study.collect, study.stages)
        self._reader = CellReader(self._collect)

    def check(self) -> None:
        """Check what is collected and drawn, before anything is trained.

        Raises:
            UsageError: Two columns have one name, or the figure shows what there is not.
        """
        study = self._plan.study
        check_columns(self._axes, self._stages, study.collect)
        values = {
            column: list(dict.fromkeys(point.names[column] for point in self._plan.points if column in point.names))
            for column in self._axes
        }
        check_figure(study.figure, values, expected_measures(self._stages, study.collect))

    def write(self, statuses: Mapping[str, str]) -> StudyTable:
        """Write the table, and what the report reads.

        Args:
            statuses: The status of each cell by id.

        Raises:
            OSError: They cannot be written.
        """
        plan, study = self._plan, self._plan.study
        points = [
            TablePoint(
                point.names,
                point.seed,
                {
                    stage: StageResult(plan.cells[id_].command, statuses[id_], plan.cells[id_].folder)
                    for stage, id_ in chain.items()
                },
            )
            for point, chain in zip(plan.points, plan.chains, strict=True)
        ]
        table = build_table(
            points,
            axes=self._axes,
            stages=self._stages,
            collect=self._collect,
            folder=self._folder.path,
            reader=self._reader,
            title=study.title,
            figure=study.figure,
        )
        table.write(self._folder.path)
        write_whole(self._folder.json, to_json(self._described(table, statuses)))
        return table

    def _described(self, table: StudyTable, statuses: Mapping[str, str]) -> dict[str, Any]:
        study = self._plan.study
        cells = {}
        for cell in self._plan.cells.values():
            status = statuses[cell.id]
            failure = read_failure(cell.folder, cell.command) if status == "failed" else None
            cells[cell.id] = {
                "stage": cell.stage,
                "folder": os.path.relpath(cell.folder, self._folder.path).replace(os.sep, "/"),
                "names": dict(cell.names),
                "status": status,
                "seconds": None if status == "missing" else read_seconds(cell.folder),
                "error": None if failure is None else failure.error,
            }
        return {
            "title": study.title,
            "name": study.name,
            "axes": self._axes,
            "measures": list(table.measures),
            "stages": {name: {"command": s.command, "config": list(s.configs)} for name, s in study.stages.items()},
            "figure": asdict(settings_of(table.rows, study.figure)),
            "cells": cells,
            "points": [dict(chain) for chain in self._plan.chains],
            "rows": len(table.rows),
            "version": _VERSION,
        }

    def finish(self, table: StudyTable) -> None:
        """Draw the figure, and print the table.

        Raises:
            OSError: The figure cannot be written.
        """
        study = self._plan.study
        try:
            save_figure(draw_study(table.rows, study.figure, study.title), self._folder.png)
        except UsageError as error:  # a measure that only results could have shown to be none
            plain_console(stderr=True).print(f"There is no figure: {error}")
        self._print(table)
        for told in table.told:
            plain_console(stderr=True).print(f"The table: {told}.")

    def _print(self, table: StudyTable) -> None:
        shown = settings_of(table.rows, self._plan.study.figure).y
        printed = Table(title=self._plan.study.title)
        named_by = (*self._axes, "seed", "status")
        for column in named_by:
            printed.add_column(column, overflow="fold")
        for measure in shown:
            printed.add_column(measure.replace("_", " "), justify="right")
        for row in table.rows[:_MOST_ROWS]:
            named = ["" if (value := row.get(column)) is None else str(value) for column in named_by]
            printed.add_row(*named, *(_shown(row, measure) for measure in shown))
        plain_console().print(printed)
        if others := [measure for measure in table.measures if measure not in shown]:
            print(f"{self._folder.csv} has besides: {', '.join(others)}.")
        if len(table.rows) > _MOST_ROWS:
            print(f"These are the first {_MOST_ROWS} of {len(table.rows)} rows: {self._folder.csv} has all.")


def _shown(row: Mapping[str, Any], measure: str) -> str:
    """Return a number as the table on the terminal has it: an accuracy in percent, with its interval.

    Example:
        >>> _shown({"robust_accuracy": 0.5, "robust_low": 0.4, "robust_high": 0.6}, "robust_accuracy")
        '50.0 (40.0–60.0)'
        >>> _shown({"loss": 0.1234567}, "loss"), _shown({}, "loss")
        ('0.1235', '')
    """
    value = row.get(measure)
    if not isinstance(value, int | float):
        return "" if value is None else str(value)
    ends = interval_columns(measure)
    if ends is None:
        return f"{100 * value:.1f}" if measure.endswith("_rate") else f"{value:.4g}"
    low, high = (row.get(end) for end in ends)
    if not (isinstance(low, int | float) and isinstance(high, int | float)):
        return f"{100 * value:.1f}"
    return f"{100 * value:.1f} ({100 * low:.1f}–{100 * high:.1f})"
