"""The cells of a study: each one run, known by what it computes, and shared by all points that need it."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_adv.core.errors import UsageError
from lightning_adv.core.suggestions import did_you_mean
from lightning_adv.studies.grid import SEED_KEY, Point
from lightning_adv.studies.study_file import Study

Resolve = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]
"""Gives the whole configuration of a stage's command, with every default, for the settings of one cell."""

_REFERENCE = re.compile(r"\{([A-Za-z][A-Za-z0-9_-]*)\}")
_IDENTITY = 10
_OWN = secrets.token_hex(8)  # no text of a user's is a mark
MARK = re.compile(rf"__cell_{_OWN}_([0-9a-f]{{{_IDENTITY}}})__")
"""What stands for the folder of a cell, or for its number, in a text until both are known: see :func:`mark_of`."""

_LONGEST_SLUG = 60
_NOT_IN_IDENTITY = {
    "fit": ("trainer.logger", "trainer.enable_progress_bar", "trainer.enable_model_summary", "trust"),
    "evaluate": ("output", "name", "overwrite", "trust"),
    "transfer": ("output", "name", "overwrite", "trust"),
}
"""What no number of a cell depends on."""


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Attributes:
        id: What it is known by: see :func:`identity`.
        stage: The stage of the study.
        command: ``fit``, ``evaluate`` or ``transfer``.
        names: What varies between the points and is the same in all that use it, and the seed.
        folder: Its folder, with its configuration, its log, and what it wrote.
        needs: The ids of the cells whose results it reads.
        configuration: The whole configuration of its command.
        threads: Threads of the processor that it computes with.
    """

    id: str
    stage: str
    command: str
    names: Mapping[str, str]
    folder: Path
    needs: tuple[str, ...]
    configuration: Mapping[str, Any]
    threads: int

    @property
    def label(self) -> str:
        """What a message calls it: ``retrain cutoff=m1 seed=0``."""
        return " ".join([self.stage, *(f"{column}={text}" for column, text in self.names.items())])


@dataclass(frozen=True)
class Plan:
    """What a study runs.

    Attributes:
        study: The study.
        points: The points of its grid.
        cells: The cells by id, each after those that it needs.
        chains: For each point the id of its cell by stage, in the stages' order; stages that it leaves out are absent.
    """

    study: Study
    points: tuple[Point, ...]
    cells: Mapping[str, Cell]
    chains: tuple[Mapping[str, str], ...]


def mark_of(cell: str | int) -> str:
    """Return the text that stands for a cell, known by its id or by a number.

    Example:
        >>> MARK.fullmatch(mark_of("0a1b2c3d4e"))[1], MARK.fullmatch(mark_of(3))[1]
        ('0a1b2c3d4e', '0000000003')
    """
    return f"__cell_{_OWN}_{cell:0>{_IDENTITY}}__"


def identity(command: str, configuration: Mapping[str, Any]) -> str:
    """Return what a cell is known by: ten hexadecimal digits of its command and of what its numbers depend on.

    Args:
        command: ``fit``, ``evaluate`` or ``transfer``.
        configuration: The whole configuration of the command, with ``{cell:ID}`` for the folder of another cell.

    Example:
        >>> configuration = {"seed_everything": 0, "trainer": {"max_epochs": 3, "logger": {"save_dir": "a"}}}
        >>> elsewhere = {"trainer": {"max_epochs": 3, "logger": {"save_dir": "b"}}, "seed_everything": 0}
        >>> identity("fit", configuration) == identity("fit", elsewhere)
        True
        >>> identity("fit", configuration) == identity("fit", {**configuration, "seed_everything": 1})
        False
    """
    kept = _without(configuration, _NOT_IN_IDENTITY[command])
    content = json.dumps([command, kept], sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(content.encode()).hexdigest()[:_IDENTITY]


def _without(configuration: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    kept = dict(configuration)
    for key in keys:
        group, _, name = key.rpartition(".")
        if not group:
            kept.pop(name, None)
        elif isinstance(inner := kept.get(group), Mapping):
            kept[group] = {key: value for key, value in inner.items() if key != name}
    return kept


def make_plan(
    study: Study, points: Sequence[Point], resolve: Resolve, *, folders: Mapping[str, Path], threads: int
) -> Plan:
    """Make the cells of all points; those of equal configurations are one.

    Args:
        study: The study.
        points: Its points.
        resolve: Gives the configuration of a cell.
        folders: For each stage the folder of its cells.
        threads: Threads of the processor that a cell computes with.

    Raises:
        UsageError: A stage waits for itself or for one that does not exist, or ``resolve`` refuses a setting.
    """
    maker = _Maker(study, resolve)
    chains = maker.chains(points)
    users: dict[str, list[Point]] = {}
    for point, chain in zip(points, chains, strict=True):
        for found in dict.fromkeys(chain.values()):
            users.setdefault(found, []).append(point)
    there = {path: _folders_by_id(path) for path in set(folders.values())}
    cells: dict[str, Cell] = {}
    for found, made in maker.made.items():
        names = _common_names(users.get(found, points), made.configuration.get(SEED_KEY))
        where = folders[made.stage]
        folder = there[where].get(found) or where / f"{_slug(made.stage, names)}-{found}"
        real = replace_texts(made.configuration, MARK, lambda known: str(run_folder(cells[known])))
        command = study.stages[made.stage].command
        cells[found] = Cell(
            found, made.stage, command, names, folder, made.needs, _placed(command, real, folder), threads
        )
    return Plan(study, tuple(points), cells, tuple(chains))


def count_cells(study: Study, points: Sequence[Point]) -> int:
    """Return how many cells there are at most, without a look at their configurations.

    Raises:
        UsageError: A stage waits for itself or for one that does not exist.
    """
    maker = _Maker(study, lambda stage, settings: {"stage": stage, "settings": settings})
    maker.chains(points)
    return len(maker.made)


def _common_names(points: Sequence[Point], seed: int | None) -> dict[str, str]:
    """Return what is the same in all points that use a cell."""
    first, *others = points
    names = {
        column: text for column, text in first.names.items() if all(point.names.get(column) == text for point in others)
    }
    if seed is None and all(point.seed == first.seed for point in others):
        seed = first.seed
    return names if seed is None else {**names, "seed": str(seed)}


@dataclass(frozen=True)
class _Made:
    """A cell without its place: folders of others stand as marks in its configuration."""

    stage: str
    needs: tuple[str, ...]
    configuration: Mapping[str, Any]


class _Maker:
    """Makes the cells of points, one after another.

    Attributes:
        made: The cells by id, each after those that it needs.
    """

    def __init__(self, study: Study, resolve: Resolve) -> None:
        self._study, self._resolve = study, resolve
        self.made: dict[str, _Made] = {}

    def chains(self, points: Sequence[Point]) -> list[dict[str, str]]:
        """Return for each point the id of each stage's cell, in the stages' order."""
        return [self._chain(point) for point in points]

    def _chain(self, point: Point) -> dict[str, str]:
        known: dict[str, str] = {}
        try:
            for stage in point.settings:
                self._make(point, stage, known, ())
        except UsageError as error:
            told = ", ".join(f"{column}={text}" for column, text in point.names.items())
            raise UsageError(f"{error} (In the point {told}.)" if told else str(error)) from error
        return {stage: known[stage] for stage in point.settings}

    def _make(self, point: Point, stage: str, known: dict[str, str], waiting: tuple[str, ...]) -> str:
        if stage in known:
            return known[stage]
        if stage in waiting:
            circle = " → ".join([*waiting[waiting.index(stage) :], stage])
            raise UsageError(f"it waits for itself: {circle}.", key=f"stages.{stage}")
        needs: dict[str, None] = {}

        def mark(name: str) -> str:
            found = self._make(point, self._referred(point, stage, name), known, (*waiting, stage))
            needs[found] = None
            return mark_of(found)

        settings = {key: replace_texts(value, _REFERENCE, mark) for key, value in point.settings[stage].items()}
        resolved = self._resolve(stage, settings)
        command = self._study.stages[stage].command
        found = identity(command, replace_texts(resolved, MARK, lambda id_: f"{{cell:{id_}}}"))
        self.made.setdefault(found, _Made(stage, tuple(needs), resolved))
        known[stage] = found
        return found

    def _referred(self, point: Point, stage: str, name: str) -> str:
        """Return the stage that ``{name}`` means in a point: the nearest fit before it where it is left out."""
        stages = list(self._study.stages)
        if name not in stages:
            raise UsageError(
                f"{{{name}}} is no stage.{did_you_mean(name, stages)} The stages are {', '.join(stages)}.",
                key=f"stages.{stage}",
            )
        if name in point.settings:
            return name
        before = stages[: stages.index(name)]
        fits = [each for each in before if each in point.settings and self._study.stages[each].command == "fit"]
        if not fits:
            raise UsageError(
                f"it waits for {name}, which is left out, and no fit stands before that.", key=f"stages.{stage}"
            )
        return fits[-1]


def replace_texts(value: Any, pattern: re.Pattern[str], replacement: Callable[[str], str]) -> Any:
    """Return plain data with what a pattern finds in any of its texts replaced, given the pattern's group."""
    if isinstance(value, str):
        return pattern.sub(lambda found: replacement(found[1]), value)
    if isinstance(value, Mapping):
        return {key: replace_texts(item, pattern, replacement) for key, item in value.items()}
    if isinstance(value, list):
        return [replace_texts(item, pattern, replacement) for item in value]
    return value


def run_folder(cell: Cell) -> Path:
    """Return the folder that a cell's command writes: of a ``fit`` its run folder."""
    return cell.folder / ("version_0" if cell.command == "fit" else "result")


def _placed(command: str, configuration: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a configuration that writes into the folder of its cell."""
    if command != "fit":
        return {**configuration, "output": str(folder / "result")}
    trainer = configuration["trainer"]
    given = trainer.get("logger")
    loggers = given if isinstance(given, list) else [given] if isinstance(given, dict) else []
    ours = [logger for logger in loggers if logger["class_path"].endswith("CSVLogger")]
    first: dict[str, Any] = ours[0] if ours else {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {}}
    place = {"save_dir": str(folder.parent), "name": folder.name, "version": None}
    placed = {**first, "init_args": {**(first.get("init_args") or {}), **place}}
    others = [logger for logger in loggers if not ours or logger is not ours[0]]
    return {**configuration, "trainer": {**trainer, "logger": [placed, *others] if others else placed}}


def _folders_by_id(cells: Path) -> dict[str, Path]:
    """Return the folders of cells that are there; what one varied in another study does not matter."""
    if not cells.is_dir():
        return {}
    return {path.name.rpartition("-")[2]: path for path in sorted(cells.iterdir()) if (path / "cell.json").is_file()}


def _slug(stage: str, names: Mapping[str, str]) -> str:
    told = "-".join([stage, *(f"{column}={text}" for column, text in names.items())])
    return re.sub(r"[^a-z0-9.=+_-]+", "_", told.lower())[:_LONGEST_SLUG].rstrip("-._")
