"""Configuration files as text: what YAML or its loader would take in silence, or refuse in its own words."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml


def check_config_file(path: str | Path, argument: str = "--config") -> None:
    """Check that a file is one YAML mapping of which every key counts.

    Args:
        path: The file.
        argument: What named it, for the error.

    Raises:
        ValueError: It cannot be read, is not UTF-8 text, is no YAML, holds several documents, or a mapping in it has a
            key twice, of which the loader would drop the first in silence.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{argument}: {path} is not text in UTF-8 (byte {error.start}): save it as UTF-8, or name another file."
        ) from error
    except OSError as error:
        raise ValueError(f"{argument}: {path} cannot be read: {error.strerror}.") from error
    try:
        documents = list(yaml.compose_all(text, Loader=yaml.CSafeLoader))
        if len(documents) == 1 and isinstance(documents[0], yaml.MappingNode):
            _check_keys(documents[0], f"{argument}: {path}", set())
            return
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{argument}: {path} is not YAML: {_short(error)}") from error
    if len(documents) > 1:
        line = documents[1].start_mark.line + 1
        raise ValueError(
            f"{argument}: {path} has {len(documents)} YAML documents, the second from line {line}: a configuration is "
            "one, without a line of ---."
        )
    found = "empty" if not documents or _is_null(documents[0]) else f"a {documents[0].id}"
    raise ValueError(f"{argument}: {path} must be a mapping of keys such as model, data and trainer, but is {found}.")


def _check_keys(node: Any, file: str, seen: set[int]) -> None:
    """Check that no mapping in a document has a key twice; anchors may refer to themselves."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            _check_keys(child, file, seen)
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[Hashable, int] = {}
    for key, value in node.value:
        line, name = key.start_mark.line + 1, (key.tag, str(key.value))
        if name in lines and key.tag != "tag:yaml.org,2002:merge":
            raise ValueError(
                f"{file} has {key.value!r} twice in one mapping, in line {lines[name]} and line {line}: the first "
                "would not count. Take one of them out."
            )
        lines[name] = line
        _check_keys(value, file, seen)


def _is_null(node: Any) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def _short(error: yaml.YAMLError | RecursionError) -> str:
    """Return what is wrong and in which line, in one line."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply."
    mark = getattr(error, "problem_mark", None)
    place = "" if mark is None else f" in line {mark.line + 1}, column {mark.column + 1}"
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error).splitlines()[0]
    return f"{problem}{place}."
