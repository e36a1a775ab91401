"""What a command line gives, one source after another: the files that it names, and each of its options."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import get_loader


class Text(str):
    """A value as it was typed on the command line, which may be YAML."""


def sources(arguments: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Return each source as nested mappings, in the order in which they override each other.

    Args:
        arguments: The command line after the command's name, with the configurations' paths in place of their names.

    Example:
        >>> list(sources(["--trainer.max_epochs=3", "--seed_everything", "1"]))
        [{'trainer': {'max_epochs': '3'}}, {'seed_everything': '1'}]
    """
    waiting = list(arguments)
    while waiting:
        name, equals, value = waiting.pop(0).partition("=")
        if not name.startswith("-") or name == "--print_config":
            continue
        if not equals and waiting and not waiting[0].startswith("--"):
            value = waiting.pop(0)
        if name in ("--config", "-c"):
            if not value:  # the parser says so
                continue
            content = get_loader("yaml")(Path(value).read_text(encoding="utf-8"))
            if isinstance(content, dict):
                yield content
        else:
            yield _nested(name.lstrip("-").split("."), Text(value))


def _nested(names: Sequence[str], value: Any) -> dict[str, Any]:
    return {names[0]: value if len(names) == 1 else _nested(names[1:], value)}


def load_text(value: Any) -> Any:
    """Return what a text of the command line means as YAML; anything else as it is."""
    if not isinstance(value, Text):
        return value
    try:
        loaded = get_loader("yaml")(str(value))
    except yaml.YAMLError:
        return str(value)
    return loaded if loaded is None or isinstance(loaded, (Mapping, list, bool, int, float)) else str(value)
