"""The first mistake in a configuration, found by walking it beside the types of the parser.

jsonargparse tells of a mistake in a class by the errors of all types that the key has, nested over many lines. Here the
classes that a configuration names are known, so that the mistake is told of the one that was meant.
"""

from __future__ import annotations

from argparse import Action
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from jsonargparse import Namespace

from lightning_adv.commands.shared.class_paths import MistakeError
from lightning_adv.commands.shared.sources import load_text
from lightning_adv.commands.shared.values import Walk, actions_of, check_value, is_file
from lightning_adv.core.suggestions import did_you_mean


def first_mistake(parser: Any, given: Iterable[Mapping[str, Any]], *, leaves: bool) -> str | None:
    """Return what is wrong with a command line and the files that it names; None where nothing is found.

    Args:
        parser: The parser, or that of the subcommand.
        given: See :func:`~lightning_adv.commands.shared.sources.sources`.
        leaves: Whether plain values are checked too, which the parser does as well, in other words.
    """
    walk = Walk(leaves=leaves)
    try:
        for source in given:
            _check_keys(source, actions_of(parser), walk, "")
    except MistakeError as error:
        return str(error)
    return None


def check_parsed(parser: Any, config: Namespace) -> None:
    """Check what was parsed: every class is of its kind, nothing else would be called, and no part is null.

    Args:
        parser: The parser, or that of the subcommand.
        config: Its result.

    Raises:
        MistakeError: A configuration names a function, or a class of another kind, or lacks a part.
    """
    _check_keys(_plain(config), actions_of(parser), Walk(parsed=True), "")


def _plain(value: Any) -> Any:
    if isinstance(value, Namespace):
        return {key: _plain(item) for key, item in vars(value).items()}
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        return [_plain(item) for item in value]
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, dict) else value


def _check_keys(given: Mapping[Any, Any], actions: Mapping[str, Action], walk: Walk, prefix: str) -> None:
    """Check the keys of a command, and of its groups such as trainer."""
    for name, value in given.items():
        if not isinstance(name, str):
            raise MistakeError(f"{prefix}{name!r} is no key: a key is text.{_near(str(name), prefix, actions)}")
        dest = f"{prefix}{name.removesuffix('+')}"
        action = actions.get(dest)
        if name.startswith("__") or name == "$schema" or dest == "config":
            continue
        if hasattr(action, "_typehint"):
            check_value(value, action, walk, dest, dest)
        elif any(key.startswith(f"{dest}.") for key in actions):
            value = load_text(value)
            if isinstance(value, Mapping):
                _check_keys(value, actions, walk, f"{dest}.")
            elif not (isinstance(value, str) and is_file(value)):
                raise MistakeError(
                    f"{dest}: it must be a mapping of keys, such as {_example(dest, actions)}, got {value!r}."
                )
        elif action is None and not walk.parsed:
            raise MistakeError(f"There is no key {dest!r}.{_near(dest, prefix, actions)}")


def _near(dest: str, prefix: str, actions: Mapping[str, Action]) -> str:
    """Return a hint: a section of this level, or a key, or the key that ends in this name and stands elsewhere."""
    level = {key[len(prefix) :].split(".")[0] for key in actions if key.startswith(prefix)}
    keys = [key for key in actions if not key.endswith(".help")]
    if near := did_you_mean(dest, [f"{prefix}{name}" for name in level]):
        return near
    elsewhere = [key for key in keys if key.rpartition(".")[2] == dest.rpartition(".")[2]]
    return did_you_mean(elsewhere[0], elsewhere[:1]) if elsewhere else did_you_mean(dest, keys)


def _example(dest: str, actions: Mapping[str, Action]) -> str:
    return next(key.rpartition(".")[2] for key in actions if key.startswith(f"{dest}.") and not key.endswith(".help"))
