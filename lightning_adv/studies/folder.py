"""The folders of a study and of its cells: what is there, and what is known of it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from lightning_adv.core.errors import UsageError
from lightning_adv.core.files import clear_unfinished, write_whole
from lightning_adv.core.locks import alone
from lightning_adv.core.reading import read_json, read_yaml
from lightning_adv.studies.attempts import is_done, last_checkpoint, read_failure
from lightning_adv.studies.cells import Cell, Plan
from lightning_adv.studies.study_file import Study, make_study

RUNNING = "running"
"""The status of a cell that a process has now, which its files do not tell."""


class StudyFolder:
    """The folder of a study: the study as resolved, its table, its figure, and what the report reads.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.yaml, self.csv = path / "study.yaml", path / "study.csv"
        self.json, self.png = path / "study.json", path / "study.png"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder while this process runs its study.

        Raises:
            UsageError: Another process does.
            OSError: It cannot be written.
        """
        with alone(self.path / ".lightning-adv.lock", f"output: {self.path}", instead="give another -o"):
            clear_unfinished(self.path)
            yield

    def check_belongs(self, study: Study) -> None:
        """Check that the folder is new, or is that of this study.

        Raises:
            UsageError: It is a file, of another study, of a run, or its ``study.yaml`` cannot be read.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.path} is a file, and a study has a folder: give another -o.", key="output")
        if not self.yaml.exists():
            if (self.path / "config.yaml").exists():
                raise UsageError(f"{self.path} is the folder of a run: give another -o.", key="output")
            return
        there = read_study(self.path).name
        if there != study.name:
            raise UsageError(
                f"{self.path} belongs to the study {there!r}, and this one is {study.name!r}: give another -o, or the "
                "other name as name.",
                key="output",
            )

    def write_plan(self, plan: Plan) -> None:
        """Write the study as resolved: the merged study file, and its points with their cells."""
        points = [
            {"names": dict(point.names), "seed": point.seed, "cells": dict(chain)}
            for point, chain in zip(plan.points, plan.chains, strict=True)
        ]
        content = {**plan.study.to_plain(), "points": points}
        write_whole(self.yaml, yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120))


def read_study(path: str | Path) -> Study:
    """Return the study that a folder is of.

    Args:
        path: The folder of a study.

    Raises:
        UsageError: It is not the folder of a study.
    """
    file = Path(path) / "study.yaml"
    try:
        content = read_yaml(file)
    except UsageError as error:
        raise UsageError(f"{path} is not the folder of a study: of study.yaml, {error}.") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} is not the folder of a study: study.yaml is no mapping.")
    try:
        return make_study(content, name=Path(path).name)
    except UsageError as error:
        raise UsageError(f"{path} is not the folder of a study: of study.yaml, {error}") from error


# Cells ----------------------------------------------------------------------------------------------------------


def status_of(cell: Cell) -> str:
    """Return what is there of a cell: ``done``, ``failed``, ``begun`` or ``missing``."""
    if is_done(cell.folder, cell.command):
        return "done"
    if read_failure(cell.folder, cell.command) is not None:
        return "failed"
    return "missing" if last_checkpoint(cell.folder) is None else "begun"


def statuses(plan: Plan) -> dict[str, str]:
    """Return the status of each cell by id; what needs a cell that failed ``waits``."""
    found: dict[str, str] = {}
    for cell in plan.cells.values():
        status = status_of(cell)
        stuck = any(found[needed] in ("failed", "waits") for needed in cell.needs)
        found[cell.id] = "waits" if stuck and status != "done" else status
    return found


def write_cell(cell: Cell) -> None:
    """Write what a worker needs to run a cell: ``cell.json``, and the configuration that its command is given."""
    content = {key: value for key, value in asdict(cell).items() if key != "folder"}
    _write_if_other(cell.folder / "cell.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    text = yaml.safe_dump(dict(cell.configuration), sort_keys=False, allow_unicode=True, width=120)
    _write_if_other(cell.folder / "config.yaml", text)


def _write_if_other(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_whole(path, text)


def read_cell(folder: str | Path) -> Cell:
    """Return the cell of a folder.

    Raises:
        UsageError: It is not the folder of a cell.
    """
    folder = Path(os.path.abspath(folder))
    try:
        content: Mapping[str, Any] = read_json(folder / "cell.json")
        fields = {**content, "needs": tuple(content["needs"]), "folder": folder}
        return Cell(**fields)
    except (UsageError, KeyError, TypeError) as error:
        raise UsageError(f"{folder} is not the folder of a cell: cell.json, {error}.") from error
