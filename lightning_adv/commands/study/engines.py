"""The engine that the command line names, with its arguments."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lightning_adv.commands.shared.mistakes import check_parsed
from lightning_adv.commands.shared.parser import Parser, RefusedError, read_files_as_data
from lightning_adv.core.errors import UsageError
from lightning_adv.core.suggestions import did_you_mean
from lightning_adv.studies.engines.base import Engine

NAMES = {
    "local": "lightning_adv.studies.engines.local.LocalEngine",
    "ray": "lightning_adv.studies.engines.ray.RayEngine",
    "slurm": "lightning_adv.studies.engines.slurm.SlurmEngine",
}


def make_engine(name: str, arguments: Mapping[str, Any]) -> Engine:
    """Build an engine; it is not opened.

    Args:
        name: One of :data:`NAMES`, or the class path of an engine of one's own.
        arguments: Arguments of its class.

    Raises:
        UsageError: There is no such engine, or it does not take an argument.

    Example:
        >>> type(make_engine("local", {})).__name__
        'LocalEngine'
    """
    if name not in NAMES and "." not in name:
        raise UsageError(
            f"there is no engine {name!r}.{did_you_mean(name, NAMES)} There are {', '.join(NAMES)}, and class paths "
            "of engines of one's own.",
            key="engine",
        )
    read_files_as_data()
    parser = Parser(prog="lightning-adv study", allow_abbrev=False)
    parser.raises = True
    parser.add_subclass_arguments(Engine, "engine", required=True)
    options = [f"--engine.{key}={_text(value)}" for key, value in arguments.items()]
    try:
        parsed = parser.parse_args([f"--engine={NAMES.get(name, name)}", *options])
        check_parsed(parser, parsed)
    except RefusedError as error:
        raise UsageError(str(error)) from error
    engine: Engine = parser.instantiate(parsed).engine
    return engine


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
