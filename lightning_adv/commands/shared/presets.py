"""What ``evaluate`` and ``transfer`` share: settings from presets and from a run, and how a command ends early."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

import yaml
from jsonargparse import ActionConfigFile, Namespace  # type: ignore[attr-defined]  # the stubs leave the first out

import lightning_adv.data  # noqa: F401 (what is imported can be named by its class name alone)
from lightning_adv.commands.shared.configs import complete_flags, find_config, preset_names, resolve_configs
from lightning_adv.commands.shared.messages import sentence
from lightning_adv.commands.shared.mistakes import check_parsed
from lightning_adv.commands.shared.parser import Parser, read_files_as_data
from lightning_adv.commands.shared.run_folder import run_folder_of
from lightning_adv.core.errors import UsageError
from lightning_adv.core.files import unwritable
from lightning_adv.core.reading import read_yaml
from lightning_adv.core.recipe import check_class_paths
from lightning_adv.core.suggestions import bounded

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SettingsT = TypeVar("SettingsT", bound="DataclassInstance")


@contextmanager
def told_in_one_line(command: str, *, stopped: str) -> Iterator[None]:
    """End the command where something goes wrong inside, with one line on the standard error.

    Args:
        command: Its name, such as ``"evaluate"``.
        stopped: What to say after Ctrl-C or a SIGTERM.

    Raises:
        SystemExit: With status 1 after a UsageError, or an OSError of a file, 130 after Ctrl-C, 143 after a SIGTERM.
    """
    try:
        with _sigterm_interrupts():
            yield
    except KeyboardInterrupt as interrupt:
        sys.stderr.write(f"{stopped}\n")
        number = signal.SIGTERM if isinstance(interrupt, _Terminated) else signal.SIGINT
        raise SystemExit(128 + number) from interrupt
    except UsageError as error:
        sys.stderr.write(f"lightning-adv {command}: error: {bounded(sentence(error))}\n")
        raise SystemExit(1) from error
    except OSError as error:
        if error.filename is None:  # of something else than a file
            raise
        sys.stderr.write(f"lightning-adv {command}: error: {bounded(unwritable(error))}\n")
        raise SystemExit(1) from error


class _Terminated(KeyboardInterrupt):
    """A SIGTERM, which ends a command as Ctrl-C does."""


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    def interrupt(*_: object) -> None:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():  # only there can a signal be taken
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def parse_with_preset(
    kind: type[SettingsT],
    arguments: Sequence[str],
    *,
    command: str,
    description: str,
    default: str,
    what: Sequence[str],
    checkpoint: Callable[[Namespace], str | None],
) -> tuple[SettingsT, dict[str, Any]]:
    """Parse a command line into settings.

    Args:
        kind: The settings' dataclass, with a field ``data``. A field that is true or false by default is a flag too.
        arguments: The command line after the command's name.
        command: That name.
        description: What the command does.
        default: The preset, such as ``evaluation/quick``, that stands before the arguments if they leave ``what`` out.
        what: The fields that say what to run, of which one is enough.
        checkpoint: Returns the checkpoint whose run says what the data are, where they are not given.

    Returns:
        The settings, and the configuration that they were made from as plain data.

    Raises:
        SystemExit: With status 2 where the arguments do not parse, told in one line; 0 after ``--help``.
        UsageError: There is no configuration of a name, or an argument is not allowed.
    """
    read_files_as_data()
    parser = Parser(prog=f"lightning-adv {command}", description=description, allow_abbrev=False)
    presets = ", ".join(preset_names(default.partition("/")[0]))
    parser.add_argument(
        "-c",
        "--config",
        action=ActionConfigFile,
        help=f"a preset ({presets}) or a file; {default} if no attack is given",
    )
    parser.add_class_arguments(kind)
    flags = [f"--{field.name}" for field in fields(kind) if isinstance(field.default, bool)]
    given = resolve_configs(complete_flags(arguments, *flags))
    parsed = parser.parse_args(given)
    if all(parsed[name] in (None, []) for name in what):
        parsed = parser.parse_args(["--config", find_config(default), *given])
    path = checkpoint(parsed)
    if parsed.data is None and path is not None and (data := _data_of_run(path)):
        parsed = parser.parse_object({"data": data}, namespace=parsed)
    check_parsed(parser, parsed)
    plain = yaml.safe_load(parser.dump(parsed, skip_unset=False))
    made = parser.instantiate(parsed)
    return kind(**{field.name: made[field.name] for field in fields(kind)}), plain


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
    try:
        check_class_paths(data)
    except UsageError as error:
        raise UsageError(f"{run / 'config.yaml'}: data: {error} Or name it yourself, with --data.") from error
    return data
