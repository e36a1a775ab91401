"""The points of a study's grid: every combination of the values of its axes, and every seed."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from lightning_adv.core.errors import UsageError
from lightning_adv.core.reading import shorten
from lightning_adv.core.suggestions import did_you_mean
from lightning_adv.studies.study_checks import check_name, check_setting
from lightning_adv.studies.study_file import Stage, Study

SEED_KEY = "seed_everything"
RESERVED = ("seed", "status", "run", "test_images")
"""Columns of the table that are of no axis."""
_MOST_POINTS = 100_000
_MOST_SUBSETS = 16  # of which there are 65,535


@dataclass(frozen=True)
class Point:
    """One row of a study's table: a value of each axis, and a seed.

    Attributes:
        names: The text of the value of each axis by column, in the grid's order; axes that its mapping of the grid has
            not are absent.
        seed: The seed of every ``fit`` without one of its own.
        settings: For each stage that the point goes through its dotted keys and their values, in the order in which
            they are applied.
    """

    names: Mapping[str, str]
    seed: int
    settings: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class _Axis:
    """An axis: its key, and what each of its values, by its text, sets; a stage with null is left out."""

    key: str
    named: bool
    values: Mapping[str, Mapping[str, Any]]


def expand(study: Study) -> list[Point]:
    """Return the points of a grid: the last axis varies first, and the seeds before it.

    Raises:
        UsageError: An axis is not one, names a stage that does not exist, or sets what another sets too.

    Example:
        >>> from lightning_adv.studies.study_file import make_study
        >>> grid = {"model.init_args.cutoff": ["m1", None], "new": {"yes": {"model.init_args.reinitialize": True}}}
        >>> points = expand(make_study({"config": "digits/blockwise", "grid": grid}, name="cutoffs"))
        >>> [dict(point.names) for point in points]
        [{'cutoff': 'm1', 'new': 'yes'}, {'cutoff': 'none', 'new': 'yes'}]
        >>> points[0].settings["fit"]
        {'model.init_args.cutoff': 'm1', 'model.init_args.reinitialize': True, 'seed_everything': 0}
    """
    mappings = [_axes(study, axes) for axes in study.grid]
    columns = _columns(mappings)
    count = sum(_product(len(axis.values) for axis in axes) for axes in mappings) * len(study.seeds)
    if count > _MOST_POINTS:
        raise UsageError(f"it has {count:,} points, and a study takes up to {_MOST_POINTS:,}.", key="grid")
    points: dict[tuple[Any, ...], Point] = {}
    for axes in mappings:
        for chosen in itertools.product(*(axis.values for axis in axes)):
            names = {columns[axis.key]: text for axis, text in zip(axes, chosen, strict=True)}
            variants = {axis.key: axis.values[text] for axis, text in zip(axes, chosen, strict=True)}
            settings = _point_settings(study, variants)
            for seed in study.seeds:
                point = Point(names, seed, _with_seeds(study, settings, seed))
                _add(points, point)
    return list(points.values())


def axis_columns(study: Study) -> list[str]:
    """Return the columns of the axes, in the grid's order."""
    return list(dict.fromkeys(_columns([_axes(study, axes) for axes in study.grid]).values()))


def _product(lengths: Iterator[int]) -> int:
    product = 1
    for length in lengths:
        product *= length
    return product


def _add(points: dict[tuple[Any, ...], Point], point: Point) -> None:
    """Add a point, unless it is there already.

    Raises:
        UsageError: Another point has the same names.
    """
    row = (tuple(point.names.items()), point.seed)
    if points.setdefault(row, point).settings != point.settings:
        told = ", ".join(f"{column}={text}" for column, text in point.names.items())
        raise UsageError(f"two points that differ are both called {told}: give them names.", key="grid")


# Axes -----------------------------------------------------------------------------------------------------------


def _axes(study: Study, given: Mapping[str, Any]) -> list[_Axis]:
    return [_axis(study, key, values) for key, values in given.items()]


def _axis(study: Study, key: str, values: Any) -> _Axis:
    place = f"grid.{key}"
    if not key.strip():
        raise UsageError("an axis must have a name, got nothing.", key="grid")
    check_name(key, "grid")
    if isinstance(values, Mapping) and set(values) == {"subsets"}:
        return _listed(study, key, _subsets(values["subsets"], place), place)
    if isinstance(values, Mapping) and set(values) == {"range"}:
        return _listed(study, key, _range(values["range"], place), place)
    if isinstance(values, Mapping):
        return _named(study, key, values, place)
    if not isinstance(values, list) or not values:
        raise UsageError(
            "an axis takes a list of values, {subsets: [...]}, {range: [first, last]}, or a mapping of names to the "
            f"keys that they set, got {shorten(repr(values))}.",
            key=place,
        )
    return _listed(study, key, values, place)


def _listed(study: Study, key: str, values: Sequence[Any], place: str) -> _Axis:
    if key in study.stages:
        raise UsageError(f"{key} is a stage: give one of its keys, as in {key}/trainer.max_epochs.", key=place)
    _check_key(study, key, place)
    texts = [value_text(value) for value in values]
    if len(set(texts)) < len(texts):  # classes that differ in an argument
        texts = [_flow(value) if isinstance(value, Mapping) else value_text(value) for value in values]
    for text in texts:
        check_name(text, place)
    twice = [text for text, count in Counter(texts).items() if count > 1]
    if twice:
        raise UsageError(f"the value {twice[0]} stands there twice.", key=place)
    return _Axis(key, False, {text: {key: value} for text, value in zip(texts, values, strict=True)})


def _named(study: Study, name: str, variants: Mapping[Any, Any], place: str) -> _Axis:
    found: dict[str, Mapping[str, Any]] = {}
    for variant, keys in variants.items():
        text = value_text(variant)
        check_name(text, place)
        keys = {} if keys is None else keys
        if not isinstance(keys, Mapping):
            raise UsageError(
                f"it must be a mapping of the keys that {text!r} sets, got {shorten(repr(keys))}.",
                key=f"{place}.{text}",
            )
        for key, value in keys.items():
            if key not in study.stages:
                _check_key(study, key, f"{place}.{text}")
            elif value is not None:
                raise UsageError(
                    f"{key} is a stage, which null leaves out; its keys are {key}/KEY. Got {shorten(repr(value))}.",
                    key=f"{place}.{text}",
                )
        found[text] = keys
    if not found:
        raise UsageError("it has no values.", key=place)
    return _Axis(name, True, found)


def _check_key(study: Study, key: Any, place: str) -> None:
    if not isinstance(key, str) or not key:
        raise UsageError(f"a key is text, got {key!r}.", key=place)
    stage, slash, dotted = key.rpartition("/")
    if slash and stage not in study.stages:
        raise UsageError(
            f"there is no stage {stage!r}.{did_you_mean(stage, study.stages)} It takes {', '.join(study.stages)}.",
            key=place,
        )
    check_setting(dotted, place)


def _subsets(items: Any, place: str) -> list[list[Any]]:
    """Return all subsets of a list that are not empty, the smaller ones first."""
    if not isinstance(items, list) or not 1 <= len(items) <= _MOST_SUBSETS:
        raise UsageError(f"subsets takes a list of 1 to {_MOST_SUBSETS} values, got {shorten(repr(items))}.", key=place)
    return [list(chosen) for size in range(1, len(items) + 1) for chosen in itertools.combinations(items, size)]


def _range(given: Any, place: str) -> list[int]:
    """Return the whole numbers from the first to the last, both of them too."""
    whole = isinstance(given, list) and all(isinstance(item, int) and not isinstance(item, bool) for item in given)
    if not whole or len(given) not in (2, 3) or (step := [*given, 1][2]) < 1 or given[1] < given[0]:
        raise UsageError(
            f"range takes [first, last] or [first, last, step], whole numbers that increase, got {given!r}.", key=place
        )
    values = range(given[0], given[1] + 1, step)
    if (count := (values[-1] - values[0]) // step + 1) > _MOST_POINTS:  # len() takes no number beyond 2**63
        raise UsageError(f"range has {count:,} values, and a study takes up to {_MOST_POINTS:,} points.", key=place)
    return list(values)


def value_text(value: Any) -> str:
    """Return a value as the table has it: as in YAML, a list's with ``+`` between, null as ``none``, a class's name.

    Example:
        >>> value_text(0.1), value_text(True), value_text(None), value_text(["m0", "m2"])
        ('0.1', 'true', 'none', 'm0+m2')
        >>> value_text({"class_path": "lightning_adv.attacks.PGD", "init_args": {"steps": 7}})
        'PGD'
    """
    if value is None:
        return "none"
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and not any(isinstance(item, (list, Mapping)) for item in value):
        return "+".join(value_text(item) for item in value)
    if isinstance(value, Mapping) and isinstance(path := value.get("class_path"), str):
        return path.rpartition(".")[2]
    return _flow(value)


def _flow(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True)
    return text.removesuffix("...\n").strip()


def _columns(mappings: Sequence[Sequence[_Axis]]) -> dict[str, str]:
    """Return the column of each axis by its key: its last component, or the whole key where two would be the same."""
    axes = {axis.key: axis for axes in mappings for axis in axes}
    short = {key: key if axis.named else key.rpartition("/")[2].rpartition(".")[2] for key, axis in axes.items()}
    counts = Counter([*short.values(), *RESERVED])
    columns = {key: name if counts[name] == 1 or axes[key].named else key for key, name in short.items()}
    for key, column in columns.items():
        if column in RESERVED or list(columns.values()).count(column) > 1:
            raise UsageError(f"the table has another column {column!r}: call it otherwise.", key=f"grid.{key}")
    return columns


# Settings of a point --------------------------------------------------------------------------------------------


def _point_settings(study: Study, variants: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the settings of each stage that a combination of values leaves in."""
    left_out = {key for variant in variants.values() for key in variant if key in study.stages}
    stages = {name: stage for name, stage in study.stages.items() if name not in left_out}
    fits = [name for name, stage in stages.items() if stage.command == "fit"]
    if not fits:
        raise UsageError(f"{', '.join(variants)} leave no fit to do.", key="grid")
    settings = {name: _base(study, stage) for name, stage in stages.items()}
    setters: dict[tuple[str, str], str] = {}
    for axis, variant in variants.items():
        for key, value in variant.items():
            if key in study.stages:
                continue
            stage, _, dotted = key.rpartition("/")
            stage = stage or fits[-1]
            other = setters.setdefault((stage, dotted), axis)
            if other != axis:
                raise UsageError(f"{other} sets {dotted} of {stage} too.", key=f"grid.{axis}")
            if stage in settings:  # one that is left out has nothing to set
                settings[stage].pop(dotted, None)  # it comes after what the study sets
                settings[stage][dotted] = value
    return settings


def _base(study: Study, stage: Stage) -> dict[str, Any]:
    return {**stage.settings, **study.settings} if stage.command == "fit" else dict(stage.settings)


def _with_seeds(study: Study, settings: Mapping[str, dict[str, Any]], seed: int) -> dict[str, dict[str, Any]]:
    seeds = {name: seed if study.stages[name].seed is None else study.stages[name].seed for name in settings}
    return {
        name: {**keys, SEED_KEY: seeds[name]} if study.stages[name].command == "fit" else keys
        for name, keys in settings.items()
    }
