"""What plain data of a file names, by which nothing may be imported, and no function called, unless it is trusted."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from lightning_adv.core.errors import UsageError
from lightning_adv.core.plugins import parts
from lightning_adv.core.reading import read_yaml
from lightning_adv.core.recipe import NotImportedError, check_class_paths, check_trusted
from lightning_adv.core.trust import is_of, is_trusted
from lightning_adv.nn.libraries import find_network
from lightning_adv.nn.own_networks import OWN, import_network, is_path


def check_named(config: Any) -> None:
    """Check that every class and every network that plain data of a file name may be imported because the file says so.

    Raises:
        NotImportedError: One is of a module that was not imported, and is not trusted; or a function of one that was
            imported, and is not trusted.

    Example:
        >>> check_named({"backbone": {"name": "beside.Network"}})
        Traceback (most recent call last):
        lightning_adv.core.recipe.NotImportedError: backbone.name 'beside.Network' is not of this package, ...
    """
    check_class_paths(config)
    for name in own_networks_in(config):
        library, path = find_network(name)
        if library == "python":
            check_trusted(path, what=f"backbone.name {path!r}")
            found = import_network(path)
            announced = any(part.path == path for part in parts(["network"]))
            if not (isinstance(found, type) or announced or _may_be_called(found)):
                raise NotImportedError(
                    f"backbone.name {path!r} is a function of a package that is not trusted: none is called because a "
                    f"file names it.{_how_to_trust_function(found)}"
                )


def _home(function: Any) -> str:
    """Return the module that a function is from, not that by which it was reached: ``trusted.module.os.system``."""
    while isinstance(function, partial):
        function = function.func
    return str(getattr(function, "__module__", ""))


def _how_to_trust_function(function: Any) -> str:
    package = _home(function).partition(".")[0]
    if not package.isidentifier() or package in sys.stdlib_module_names or package == "lightning_adv":
        return ""
    return (
        f" If you trust it, say so: --trust {package} on the command line, or "
        f"lightning_adv.core.trust.trust({package!r}) in Python."
    )


def _may_be_called(function: Any) -> bool:
    """Return whether a file may have a function called, with what the file says as its arguments.

    Of this package it is those that build networks: ``lightning_adv.cli.main`` is a function too.
    """
    home = _home(function)
    return is_trusted(home) and (not is_of(home, {"lightning_adv"}) or is_of(home, {"lightning_adv.nn.zoo"}))


def own_networks_in(config: Any) -> Iterator[str]:
    """Yield the names in plain data that a :class:`~lightning_adv.nn.backbones.Backbone` may take for import paths.

    Example:
        >>> list(own_networks_in({"backbone": {"name": "my_package.MyNet"}, "data": [{"name": "digits"}]}))
        ['my_package.MyNet']
    """
    if isinstance(config, Mapping):
        name = config.get("name")
        if isinstance(name, str) and is_path(name.removeprefix(f"{OWN}/")):
            yield name
        for value in config.values():
            yield from own_networks_in(value)
    elif isinstance(config, (list, tuple)):
        for value in config:
            yield from own_networks_in(value)


def check_texts(value: Any, where: str) -> None:
    """Check that no text in plain data of a file is the path of something that may not be imported, or holds one.

    For data that jsonargparse makes objects of: it takes any text in the place of a callable or a class for a path to
    import, for YAML, or for a file of it.

    Args:
        value: The data.
        where: What an error calls it.

    Raises:
        NotImportedError: One is.

    Example:
        >>> check_texts({"loss": "mean", "file": "best.ckpt"}, "data")
    """
    if isinstance(value, Mapping):
        for key, each in value.items():
            if key != "class_path":  # which check_named has looked at
                check_texts(each, f"{where}.{key}")
    elif isinstance(value, (list, tuple)):
        for each in value:
            check_texts(each, where)
    elif isinstance(value, str):
        if is_path(value) and find_spec(value.partition(".")[0]) is not None:  # "best.ckpt" is of no module
            check_trusted(value, what=f"{where} {value!r}")
        check_named(_as_yaml(value))


def _as_yaml(text: str) -> Any:
    """Return what a text is to jsonargparse where it stands for a class: YAML, or a file of it."""
    try:
        return read_yaml(Path(text)) if text.endswith((".yaml", ".yml", ".json")) else yaml.safe_load(text)
    except (UsageError, yaml.YAMLError):
        return None  # then it is a text
