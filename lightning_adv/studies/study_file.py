"""The study file: what varies, the stages that each point goes through, and what is collected."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_adv.core.errors import UsageError
from lightning_adv.core.reading import read_yaml, shorten
from lightning_adv.core.suggestions import did_you_mean
from lightning_adv.studies.study_checks import (
    as_mapping,
    check_name,
    check_names,
    check_plain,
    check_seed,
    check_setting,
    check_text,
)

COMMANDS = ("fit", "evaluate", "transfer")
KEYS = ("title", "name", "config", "stages", "grid", "seeds", "set", "threads", "cells", "collect", "figure", "points")
_STAGE_KEYS = ("command", "config", "set", "seed", "cells")
_STAGE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Stage:
    """One command that every point of a study runs, unless the point leaves it out.

    Attributes:
        name: Its name in the study.
        command: ``fit``, ``evaluate`` or ``transfer``.
        configs: Names or files of configurations; later ones override.
        settings: Dotted keys and their values, for every cell of the stage.
        seed: The seed of a ``fit``, in place of the study's; None takes those.
        cells: Folder of the stage's cells, which several studies may share; None is that of the study.
    """

    name: str
    command: str = "fit"
    configs: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    cells: str | None = None


@dataclass(frozen=True)
class Study:
    """A study file, as plain data.

    Attributes:
        title: Title of the figure and of the table.
        name: Which study a folder belongs to.
        stages: The stages by name, in order.
        grid: Mappings of axes; the points of each are joined.
        seeds: Seeds of every ``fit`` without a seed of its own.
        settings: Dotted keys and their values for every ``fit``.
        threads: Threads of the processor that a cell computes with; None shares the cores among the workers.
        cells: Folder of the cells; None is the folder ``cells`` in that of the study.
        collect: Further columns of the table by name: ``stage:path.in.the.results``.
        figure: How the figure is drawn; None chooses by the grid.
    """

    title: str
    name: str
    stages: Mapping[str, Stage]
    grid: tuple[Mapping[str, Any], ...] = ({},)
    seeds: tuple[int, ...] = (0,)
    settings: Mapping[str, Any] = field(default_factory=dict)
    threads: int | None = None
    cells: str | None = None
    collect: Mapping[str, str] = field(default_factory=dict)
    figure: Mapping[str, Any] | None = None

    def to_plain(self) -> dict[str, Any]:
        """Return the study as a study file has it; :func:`make_study` makes the same of it again."""
        stages = {
            stage.name: _given(
                command=stage.command, config=list(stage.configs), set=dict(stage.settings), seed=stage.seed,
                cells=stage.cells,
            )
            for stage in self.stages.values()
        }  # fmt: skip
        return _given(
            title=self.title, name=self.name, stages=stages, grid=[dict(axes) for axes in self.grid],
            seeds=list(self.seeds), set=dict(self.settings), threads=self.threads, cells=self.cells,
            collect=dict(self.collect), figure=None if self.figure is None else dict(self.figure),
        )  # fmt: skip


def _given(**entries: Any) -> dict[str, Any]:
    return {name: value for name, value in entries.items() if value not in (None, {}, [])}


def read_study_files(paths: Sequence[Path], overrides: Sequence[tuple[str, Any]] = ()) -> dict[str, Any]:
    """Read study files as one, in which later files override earlier ones and ``overrides`` all of them.

    Mappings are merged key by key, but for the axes of a grid; everything else is replaced.

    Args:
        paths: The files.
        overrides: Keys as after ``--`` on a command line, such as ``set.trainer.max_epochs``, with their values.

    Raises:
        UsageError: A file cannot be read, or is no mapping of a study's keys.
    """
    merged: dict[str, Any] = {}
    for path in paths:
        try:
            content = read_yaml(path)
        except UsageError as error:
            raise UsageError(f"--config: {path} cannot be read: {error}.") from error
        if not isinstance(content, dict):
            raise UsageError(f"--config: {path} must be a mapping of a study's keys, but is {shorten(content)!r}.")
        check_names(content, KEYS, f"{path}: a study")
        merged = _merge(merged, _with_stages(content))
    for key, value in overrides:
        merged = _merge(merged, _nested(key, value, merged))
    return merged


def _with_stages(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a file's keys with ``stages: {fit: {config: ...}}`` for its ``config``.

    Raises:
        UsageError: It has both.
    """
    if content.get("config") is None:
        return dict(content)
    if content.get("stages") is not None:
        raise UsageError("it stands beside config, which is a study of one stage, called fit.", key="stages")
    return {
        **{key: value for key, value in content.items() if key != "config"},
        "stages": {"fit": {"config": content["config"]}},
    }


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        mergeable = isinstance(old, dict) and isinstance(value, dict) and key != "grid"
        merged[key] = _merge(old, value) if mergeable else value  # type: ignore[arg-type]  # old is a dict here
    return merged


def _nested(key: str, value: Any, merged: Mapping[str, Any]) -> dict[str, Any]:
    """Return the mapping of one option; what follows ``set.`` and ``grid.`` is a key with dots of its own.

    Raises:
        UsageError: There is no such key.
    """
    first, _, rest = key.partition(".")
    check_names({first: None}, KEYS, f"--{key}: a study")
    if not rest:
        return {first: value}
    if first == "stages":
        stage, _, inner = rest.partition(".")
        name, _, dotted = inner.partition(".")
        if not inner:
            return {first: {stage: value}}
        return {first: {stage: {name: {dotted: value} if dotted else value}}}
    if first == "grid":
        axes = merged.get("grid", {})
        if not isinstance(axes, dict):
            raise UsageError("this study's grid is a list of mappings: give it whole, with --grid.", key=f"--{key}")
        return {first: {**axes, rest: value}}
    if first not in ("set", "collect", "figure"):
        raise UsageError(f"{first} has no keys below it.", key=f"--{key}")
    return {first: {rest: value}}


def make_study(content: Mapping[str, Any], *, name: str) -> Study:
    """Make a study of what study files hold, after a look at all of its own keys.

    Args:
        content: The keys, as :func:`read_study_files` returns them.
        name: The study's name, where the file gives none.

    Raises:
        UsageError: A key does not exist, or does not take its value.

    Example:
        >>> study = make_study({"config": "digits/madry", "grid": {"trainer.max_epochs": [1, 7]}}, name="epochs")
        >>> study.stages["fit"].configs, study.seeds
        (('digits/madry',), (0,))
    """
    check_names(content, KEYS, "a study")
    given = {key: value for key, value in _with_stages(content).items() if value is not None}
    for key, value in given.items():
        check_plain(value, key)
    for key in ("title", "name", "cells"):
        check_text(given.get(key), key)
    stages = _stages(given.get("stages"))
    name = given.get("name", name)
    if not name.strip():
        raise UsageError("it must be a name, got nothing.", key="name")
    check_name(name, "name")
    check_name(given.get("cells", ""), "cells")
    if Path(name).is_absolute() or ".." in Path(name).parts:  # the folder is runs/NAME: a file gives no other place
        raise UsageError(f"it must be the name of a folder below runs, got {name!r}: -o is for others.", key="name")
    collect = as_mapping(given.get("collect", {}), "collect")
    for column in collect:
        check_name(column, "collect")
    return Study(
        title=given.get("title", name),
        name=name,
        stages=stages,
        grid=_grid(given.get("grid", {})),
        seeds=_seeds(given.get("seeds", [0])),
        settings=_settings(given.get("set", {}), "set"),
        threads=_threads(given.get("threads")),
        cells=given.get("cells"),
        collect=collect,
        figure=as_mapping(given["figure"], "figure") if "figure" in given else None,
    )


def _stages(given: Any) -> dict[str, Stage]:
    if given is None:
        raise UsageError("a study must have config, of what is trained, or stages.", key="config")
    # a stage that a later file sets to null is taken out of the study
    found = {name: _stage(name, stage) for name, stage in as_mapping(given, "stages").items() if stage is not None}
    if not any(stage.command == "fit" for stage in found.values()):
        raise UsageError("at least one must be a fit, since a study's table is of trained networks.", key="stages")
    return found


def _stage(name: str, given: Any) -> Stage:
    place = f"stages.{name}"
    if not _STAGE_NAME.fullmatch(name):
        raise UsageError(f"a stage's name is letters, digits, _ and -, from a letter on, got {name!r}.", key="stages")
    check_names(as_mapping(given, place), _STAGE_KEYS, f"{place}: a stage")
    given = {key: value for key, value in given.items() if value is not None}
    command = given.get("command", "fit")
    if command not in COMMANDS:
        hint = did_you_mean(command, COMMANDS)
        raise UsageError(f"it must be {', '.join(COMMANDS)}, got {command!r}.{hint}", key=f"{place}.command")
    configs = given.get("config", [])
    configs = [configs] if isinstance(configs, str) else configs
    if not isinstance(configs, list) or not all(isinstance(config, str) for config in configs):
        key = "config" if name == "fit" else f"{place}.config"
        raise UsageError(f"it must be a configuration's name or file, or a list of them, got {configs!r}.", key=key)
    if "seed" in given and command != "fit":
        raise UsageError(f"only a fit has it; give a seed of {command} as set: {{seed: 0}}.", key=f"{place}.seed")
    check_text(given.get("cells"), f"{place}.cells", "the path of a folder")
    check_name(given.get("cells", ""), f"{place}.cells")
    seed = given.get("seed")
    if seed is not None:
        check_seed(seed, f"{place}.seed")
    settings = _settings(given.get("set", {}), f"{place}.set")
    return Stage(name, command, tuple(configs), settings, seed, given.get("cells"))


def _settings(given: Any, place: str) -> dict[str, Any]:
    settings = as_mapping(given, place)
    for key in settings:
        check_setting(key, place)
    return settings


def _grid(given: Any) -> tuple[dict[str, Any], ...]:
    mappings = given if isinstance(given, list) else [given]
    if not mappings:
        raise UsageError("it must be a mapping of axes, or a list of such mappings, got an empty list.", key="grid")
    return tuple(
        as_mapping(axes, f"grid[{number}]" if isinstance(given, list) else "grid")
        for number, axes in enumerate(mappings)
    )


def _seeds(given: Any) -> tuple[int, ...]:
    seeds = [given] if isinstance(given, int) else given
    if not isinstance(seeds, list) or not seeds:
        raise UsageError(f"it must be a list of whole numbers, such as [0, 1, 2], got {given!r}.", key="seeds")
    for seed in seeds:
        check_seed(seed, "seeds")
    if len(set(seeds)) < len(seeds):
        raise UsageError(f"each must stand there once, got {seeds}.", key="seeds")
    return tuple(seeds)


def _threads(given: Any) -> int | None:
    if given is not None and (not isinstance(given, int) or isinstance(given, bool) or given < 1):
        raise UsageError(f"it must be a whole number of at least 1, got {given!r}.", key="threads")
    return given
