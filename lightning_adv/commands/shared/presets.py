"""The settings of the commands that take presets, from these, files, the command line and a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import yaml
from jsonargparse import ActionConfigFile, Namespace  # type: ignore[attr-defined]  # the stubs leave the first out

import lightning_adv.data  # noqa: F401 (what is imported can be named by its class name alone)
from lightning_adv.commands.shared.configs import (
    complete_flags,
    own_config,
    plugin_configs,
    preset_names,
    resolve_configs,
)
from lightning_adv.commands.shared.mistakes import check_parsed
from lightning_adv.commands.shared.parser import Parser, read_files_as_data
from lightning_adv.commands.shared.run_folder import run_folder_of
from lightning_adv.commands.shared.trusting import add_trust, trust_given
from lightning_adv.core.errors import UsageError
from lightning_adv.core.reading import read_yaml
from lightning_adv.nn.named_by_files import check_named, check_texts

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SettingsT = TypeVar("SettingsT", bound="DataclassInstance")


@dataclass(frozen=True)
class PresetCommand(Generic[SettingsT]):
    """A command whose settings come from presets, files and the command line.

    Attributes:
        kind: The settings' dataclass, with the fields ``data`` and ``output`` (``-o`` for short). A field that is true
            or false by default is a flag too.
        name: The command's name.
        description: What the command does.
        default: The preset, such as ``evaluation/quick``, that stands before the arguments if they leave ``what`` out;
            None for a command without presets.
        what: The fields that say what to run, of which one is enough.
        checkpoint: Returns the checkpoint whose run says what the data are, where they are not given.
    """

    kind: type[SettingsT]
    name: str
    description: str
    default: str | None
    what: Sequence[str]
    checkpoint: Callable[[Namespace], str | None]

    def settings(self, arguments: Sequence[str]) -> tuple[SettingsT, dict[str, Any]]:
        """Parse a command line into settings.

        Args:
            arguments: The command line after the command's name.

        Returns:
            The settings, and the configuration that they were made from as plain data.

        Raises:
            SystemExit: With status 2 where the arguments do not parse, told in one line; 0 after ``--help``.
            UsageError: There is no configuration of a name, or an argument is not allowed.
        """
        parser = self.make_parser()
        parsed = self.parse(parser, resolve_configs(arguments))
        path = self.checkpoint(parsed)
        if parsed.data is None and path is not None and (data := _data_of_run(path)):
            parsed = parser.parse_object({"data": data}, namespace=parsed)
        check_parsed(parser, parsed)
        plain = yaml.safe_load(parser.dump(parsed, skip_unset=False))
        made = parser.instantiate(parsed)
        return self.kind(**{field.name: made[field.name] for field in fields(self.kind)}), plain

    def make_parser(self) -> Parser:
        """Return a parser of the settings."""
        read_files_as_data()
        parser = Parser(prog=f"lightning-adv {self.name}", description=self.description, allow_abbrev=False)
        parser.add_argument("-c", "--config", action=ActionConfigFile, help=self._help_of_config())
        parser.add_class_arguments(self.kind)
        add_trust(parser)
        return parser

    def _help_of_config(self) -> str:
        if self.default is None:
            return "a file of these options"
        folder = self.default.partition("/")[0]
        presets = [*preset_names(folder), *(name for _, name, _ in plugin_configs() if name.startswith(f"{folder}/"))]
        return f"a preset ({', '.join(presets)}) or a file; {self.default} if no {self.what[0][:-1]} is given"

    def parse(self, parser: Parser, arguments: Sequence[str]) -> Namespace:
        """Parse a command line, after the default preset where it is needed; then trust whom it trusts.

        Args:
            parser: The parser.
            arguments: The command line, with the configurations' paths in place of their names.

        Raises:
            SystemExit: With status 2 where the arguments do not parse, told in one line; 0 after ``--help``.
        """
        long = ["--output" if each == "-o" else each for each in arguments]  # jsonargparse makes no short names
        given = complete_flags(
            long, *(f"--{field.name}" for field in fields(self.kind) if isinstance(field.default, bool))
        )
        parsed = parser.parse_args(given)
        if self.default is not None and all(parsed[name] in (None, []) for name in self.what):
            parsed = parser.parse_args(["--config", own_config(self.default), *given])
        trust_given(parsed.get("trust"))
        return parsed


def _data_of_run(checkpoint: str) -> Mapping[str, Any] | None:
    """Return the data module that the run of a checkpoint was configured with, as plain data; None if nobody says.

    Raises:
        UsageError: The file cannot be read, or it is of a module that nobody has imported: a run folder may be somebody
            else's.
    """
    run = run_folder_of(checkpoint)
    if run is None:
        return None
    try:
        content = read_yaml(run / "config.yaml")
    except UsageError as error:
        raise UsageError(
            f"{run / 'config.yaml'}, which says what data the run was of, cannot be read ({error}): name the data set "
            "with --data."
        ) from error
    data = content.get("data") if isinstance(content, dict) else None
    if not isinstance(data, dict | None):  # a text may be the name of a file, with names of its own
        raise UsageError(f"{run / 'config.yaml'}: data: must hold a class_path: name the data set with --data.")
    try:
        check_named(data)
        check_texts(data, "data")
    except UsageError as error:
        raise UsageError(f"{run / 'config.yaml'}: data: {error} Or name it yourself, with --data.") from error
    return data
