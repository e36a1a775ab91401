"""The parts of plugins: as ``lightning-adv --help`` lists them, and which of them a result is of."""

from __future__ import annotations

import os
import re
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from os import PathLike
from typing import Any

from lightning_adv.commands.shared.configs import plugin_configs
from lightning_adv.core.plugins import KINDS, Plugin, parts, plugins_in

_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")


def told_parts() -> str:
    """Return the plugins and what each announces, in lines; nothing where there is no plugin. None is imported."""
    announced: dict[Plugin, dict[str, list[str]]] = {}
    for part in parts():
        announced.setdefault(part.plugin, {}).setdefault(part.kind, []).append(part.name)
    for plugin, name, _ in plugin_configs():
        announced.setdefault(plugin, {}).setdefault("configs", []).append(name)
    return "\n".join(line for plugin in sorted(announced) for line in _lines(plugin, announced[plugin]))


def _lines(plugin: Plugin, names: dict[str, list[str]]) -> Iterator[str]:
    yield f"  {plugin}"
    for kind in (*KINDS, "configs"):
        if kind in names:
            yield f"    {kind:<10} {', '.join(names[kind])}"


def taking_part(objects: Iterable[object], *given: Any) -> dict[str, str]:
    """Return the names and versions of the plugins that a result depends on.

    Args:
        objects: The objects that took part: a regime, the modules of a network, a data module, ...
        *given: What a command was given, as plain data: the classes and the files of configurations that it names.

    Example:
        >>> taking_part([1.5], {"class_path": "lightning_adv.attacks.PGD"})
        {}
    """
    named = set(_texts(given))
    modules = {kind.__module__ for each in objects for kind in type(each).__mro__} | set(filter(_PATH.fullmatch, named))
    of_files = {plugin.name: plugin.version for plugin, _, path in plugin_configs() if str(path) in named}
    return dict(sorted((plugins_in(modules) | of_files).items()))


def _texts(given: Any) -> Iterator[str]:
    if isinstance(given, Namespace):
        given = vars(given)
    if isinstance(given, (Mapping, list, tuple)):
        for value in given.values() if isinstance(given, Mapping) else given:
            yield from _texts(value)
    elif isinstance(given, (str, PathLike)):
        yield os.fspath(given)
