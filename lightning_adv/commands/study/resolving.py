"""A cell's whole configuration, by the parser of its own command, which knows every key and what it takes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jsonargparse import Namespace

from lightning_adv.commands.evaluate.settings import EVALUATE
from lightning_adv.commands.fit.command import AdversarialCLI
from lightning_adv.commands.fit.settings import own_settings
from lightning_adv.commands.fit.trainer_values import check_trainer, check_values, write_out_defaults
from lightning_adv.commands.shared.configs import find_config
from lightning_adv.commands.shared.mistakes import check_parsed
from lightning_adv.commands.shared.parser import Parser, RefusedError, read_files_as_data
from lightning_adv.commands.shared.presets import PresetCommand
from lightning_adv.commands.shared.trusting import trust_given
from lightning_adv.commands.transfer import TRANSFER
from lightning_adv.core.errors import UsageError
from lightning_adv.studies.cells import MARK, replace_texts
from lightning_adv.studies.grid import SEED_KEY
from lightning_adv.studies.study_file import Study


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
        self._lines = {
            stage.name: [*(f"--config={find_config(name)}" for name in stage.configs), *trusted]
            for stage in study.stages.values()
        }
        commands = {stage.command for stage in study.stages.values()}
        made = {command: _PARSERS[command]() for command in commands}
        self._parse = {stage.name: made[stage.command] for stage in study.stages.values()}
        self._known: dict[tuple[str, str], Any] = {}

    def __call__(self, stage: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the configuration of a cell, with every default.

        Args:
            stage: Its stage.
            settings: Dotted keys and their values, in order.

        Raises:
            UsageError: A key does not exist, or does not take its value.
        """
        seed = settings.get(SEED_KEY)
        marks: list[str] = []

        def number(mark: str) -> str:
            if mark not in marks:
                marks.append(mark)
            return f"__cell_{marks.index(mark):010}__"

        options = [
            f"--{key}={_text(replace_texts(value, MARK, number))}" for key, value in settings.items() if key != SEED_KEY
        ]
        known = (stage, json.dumps(options))
        if known not in self._known:
            try:
                self._known[known] = self._parse[stage]([*self._lines[stage], *options])
            except (RefusedError, UsageError) as error:
                raise UsageError(str(error), key=f"stages.{stage}") from error
        configuration: dict[str, Any] = replace_texts(
            self._known[known], MARK, lambda index: f"__cell_{marks[int(index)]}__"
        )
        return configuration if seed is None else {**configuration, SEED_KEY: seed}


def _text(value: Any) -> str:
    """Return a value as the command line has it."""
    return value if isinstance(value, str) else json.dumps(value)


def _fit() -> Callable[[Sequence[str]], dict[str, Any]]:
    parser = _FitParser().parser._children()["fit"]  # type: ignore[attr-defined]  # ours, by parser_class
    parser.raises = True

    def parse(arguments: Sequence[str]) -> dict[str, Any]:
        parsed = parser.parse_args(arguments)
        write_out_defaults(parsed)
        check_values(parsed)
        trust_given(parsed.get("trust"))
        check_trainer(parsed.trainer)
        check_parsed(parser, parsed)
        return _plain(parser, parsed)

    return parse


class _FitParser(AdversarialCLI):
    """The parser of ``fit``; nothing is built, and no seed is set."""

    def __init__(self) -> None:
        read_files_as_data()
        self._asked = "fit"
        super(AdversarialCLI, self).__init__(args=[], **own_settings({}))

    def parse_arguments(self, parser: Any, args: Any) -> None:
        """Leave out what would be run."""
        self.config = Namespace(subcommand=None)

    def _set_seed(self) -> None: ...

    def before_instantiate_classes(self) -> None: ...

    def instantiate_classes(self) -> None: ...

    def after_instantiate_classes(self) -> None: ...


def _preset(command: PresetCommand[Any]) -> Callable[[Sequence[str]], dict[str, Any]]:
    parser = command.make_parser()
    parser.raises = True

    def parse(arguments: Sequence[str]) -> dict[str, Any]:
        parsed = command.parse(parser, arguments)
        check_parsed(parser, parsed)
        return _plain(parser, parsed)

    return parse


def _plain(parser: Parser, parsed: Namespace) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(parser.dump(parsed, format="json", skip_unset=False, skip_validation=True))
    return plain


_PARSERS: dict[str, Callable[[], Callable[[Sequence[str]], dict[str, Any]]]] = {
    "fit": _fit,
    "evaluate": lambda: _preset(EVALUATE),
    "transfer": lambda: _preset(TRANSFER),
}
