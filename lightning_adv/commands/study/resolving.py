"""A cell's whole configuration, by the parser of its own command, which knows every key and what it takes."""

from __future__ import annotations

import copy
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jsonargparse import Namespace

from lightning_adv.commands.evaluate.settings import EVALUATE
from lightning_adv.commands.fit.command import AdversarialCLI
from lightning_adv.commands.fit.settings import own_settings
from lightning_adv.commands.fit.trainer_values import check_trainer, check_values, write_out_defaults
from lightning_adv.commands.shared.configs import resolve_configs
from lightning_adv.commands.shared.mistakes import check_parsed, first_mistake
from lightning_adv.commands.shared.parser import Parser, RefusedError, read_files_as_data
from lightning_adv.commands.shared.presets import PresetCommand
from lightning_adv.commands.shared.sources import sources
from lightning_adv.commands.shared.trusting import trust_given
from lightning_adv.commands.transfer import TRANSFER
from lightning_adv.core.errors import UsageError
from lightning_adv.studies.cells import MARK, mark_of, replace_texts
from lightning_adv.studies.grid import SEED_KEY
from lightning_adv.studies.study_file import Stage, Study


class Resolver:
    """Gives the configuration of a cell as ``--print_config`` shows it, for the same configurations and keys.

    What differs in nothing but its seed and the cells that it stands on is parsed once.

    Args:
        study: The study.
        trust: Packages whose classes files may name; they go into every configuration.

    Raises:
        UsageError: There is no configuration of a name.
    """

    def __init__(self, study: Study, trust: Sequence[str] = ()) -> None:
        trusted = [f"--trust=[{','.join(trust)}]"] if trust else []
        self._lines = {stage.name: [*_configs(stage), *trusted] for stage in study.stages.values()}
        made = {command: _COMMANDS[command]() for command in {stage.command for stage in study.stages.values()}}
        self._parsers = {stage.name: made[stage.command] for stage in study.stages.values()}
        self._known: dict[tuple[str, str], dict[str, Any]] = {}
        self._alike: dict[tuple[str, str], tuple[dict[str, Any], dict[str, Any]]] = {}

    def __call__(self, stage: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the configuration of a cell, with every default.

        Args:
            stage: Its stage.
            settings: Dotted keys and their values, in order.

        Raises:
            UsageError: A key does not exist, or does not take its value.
        """
        marks: list[str] = []

        def number(mark: str) -> str:
            if mark not in marks:
                marks.append(mark)
            return mark_of(marks.index(mark))

        given = {key: replace_texts(value, MARK, number) for key, value in settings.items() if key != SEED_KEY}
        known = (stage, json.dumps(list(given.items())))
        if known not in self._known:
            try:
                self._known[known] = self._resolve(stage, given)
            except (RefusedError, UsageError) as error:
                raise UsageError(str(error), key=f"stages.{stage}") from error
        configuration: dict[str, Any] = replace_texts(
            self._known[known], MARK, lambda index: mark_of(marks[int(index)])
        )
        return {**configuration, SEED_KEY: settings[SEED_KEY]} if SEED_KEY in settings else configuration

    def _resolve(self, stage: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Parse settings, or take the configuration of others that differ in numbers alone, and check the numbers."""
        line, parser = self._lines[stage], self._parsers[stage]
        numbers = {key: value for key, value in given.items() if _is_independent(key, value, given)}
        kinds = {key: type(value).__name__ for key, value in numbers.items()}
        shape = (stage, json.dumps(list({**given, **kinds}.items())))
        if numbers and shape in self._alike:
            others, resolved = self._alike[shape]
            if all(_at(resolved, key) is not None and _same(_at(resolved, key), others[key]) for key in numbers):
                parser.check([*line, *_options(given)], numbers)
                return _with_numbers(resolved, numbers)
        resolved = parser.parse([*line, *_options(given)])
        self._alike.setdefault(shape, (numbers, resolved))
        return resolved


def _configs(stage: Stage) -> list[str]:
    try:
        return resolve_configs([f"--config={name}" for name in stage.configs])
    except UsageError as error:
        raise UsageError(str(error).removeprefix("--config: "), key=f"stages.{stage.name}.config") from error


def _options(given: Mapping[str, Any]) -> list[str]:
    return [f"--{key}={_text(value)}" for key, value in given.items()]


def _is_independent(key: str, value: Any, given: Mapping[str, Any]) -> bool:
    """Whether a setting is a number, which names no class, at a place that no other setting replaces."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    return not any(key.startswith(f"{other.removesuffix('.class_path')}.") for other in given if other != key)


def _at(resolved: Any, key: str) -> Any:
    """Return what stands at a dotted key; None if there is no such place."""
    for name in key.split("."):
        resolved = resolved.get(name) if isinstance(resolved, dict) else None
    return resolved


def _same(value: Any, other: Any) -> bool:
    return type(value) is type(other) and bool(value == other)


def _with_numbers(resolved: dict[str, Any], numbers: Mapping[str, float]) -> dict[str, Any]:
    changed = copy.deepcopy(resolved)
    for key, value in numbers.items():
        above, _, name = key.rpartition(".")
        (_at(changed, above) if above else changed)[name] = value
    return changed


def _text(value: Any) -> str:
    """Return a value as the command line has it."""
    return value if isinstance(value, str) else json.dumps(value)


class _Command(ABC):
    """A command's parser, with what the command checks before it builds anything."""

    parser: Parser

    def parse(self, arguments: Sequence[str]) -> dict[str, Any]:
        """Return the whole configuration of a command line.

        Raises:
            RefusedError: A key does not exist, or does not take its value.
            UsageError: A value is out of its range.
        """
        parsed = self._parsed(arguments)
        check_parsed(self.parser, parsed)
        text = self.parser.dump(parsed, format="json", skip_unset=False, skip_validation=True)
        plain: dict[str, Any] = json.loads(text)
        return plain

    def check(self, arguments: Sequence[str], numbers: Mapping[str, float]) -> None:
        """Check the numbers of a command line whose other values are known to be right.

        Raises:
            RefusedError: A key does not take its number.
            UsageError: It is out of its range.
        """
        if mistake := first_mistake(self.parser, sources(arguments), leaves=True):
            raise RefusedError(mistake)
        check_values(numbers)

    @abstractmethod
    def _parsed(self, arguments: Sequence[str]) -> Namespace: ...


class _Fit(_Command):
    def __init__(self) -> None:
        self.parser = _FitParser().parser._children()["fit"]  # type: ignore[attr-defined]  # ours, by parser_class
        self.parser.raises = True

    def _parsed(self, arguments: Sequence[str]) -> Namespace:
        parsed = self.parser.parse_args(arguments)
        write_out_defaults(parsed)
        check_values(parsed)
        trust_given(parsed.get("trust"))
        check_trainer(parsed.trainer)
        return parsed


class _FitParser(AdversarialCLI):
    """The parser of ``fit``; nothing is built, and no seed is set."""

    def __init__(self) -> None:
        read_files_as_data()
        self._asked = "fit"
        super(AdversarialCLI, self).__init__(args=[], **own_settings({}))

    def parse_arguments(self, parser: Any, args: Any) -> None:
        """Leave out what would be run."""
        self.config = Namespace(subcommand=None)  # type: ignore[no-untyped-call]  # jsonargparse 4.53 has no types there

    def _set_seed(self) -> None: ...

    def before_instantiate_classes(self) -> None: ...

    def instantiate_classes(self) -> None: ...

    def after_instantiate_classes(self) -> None: ...


class _Preset(_Command):
    def __init__(self, command: PresetCommand[Any]) -> None:
        self._command, self.parser = command, command.make_parser()
        self.parser.raises = True

    def _parsed(self, arguments: Sequence[str]) -> Namespace:
        return self._command.parse(self.parser, arguments)


_COMMANDS: dict[str, Callable[[], _Command]] = {
    "fit": _Fit,
    "evaluate": lambda: _Preset(EVALUATE),
    "transfer": lambda: _Preset(TRANSFER),
}
