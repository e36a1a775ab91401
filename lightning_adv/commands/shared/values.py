"""What stands at one key of a configuration, compared with what the key takes: classes, their options, plain values."""

from __future__ import annotations

import functools
import inspect
from argparse import Action
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from lightning_adv.commands.shared.class_paths import MistakeError, check_function, choices, find_part, makes, one_of
from lightning_adv.commands.shared.sources import Text, load_text
from lightning_adv.commands.shared.takes import Takes, describe, takes
from lightning_adv.core.suggestions import did_you_mean

_SPEC = ("class_path", "init_args", "dict_kwargs")


@dataclass
class Walk:
    """What is known on the way through one source after another.

    Args:
        leaves: Whether plain values are checked too; without, only what names classes is.
        parsed: Whether it is the parser's result, which is complete, and has objects in the place of functions' names.
        found: The class at each key that has one, from the sources before.
    """

    leaves: bool = False
    parsed: bool = False
    found: dict[str, Any] = field(default_factory=dict)


def actions_of(parser: Any) -> dict[str, Action]:
    """Return what a parser knows of each of its keys."""
    return {action.dest: action for action in parser._actions}


def check_value(given: Any, action: Any, walk: Walk, where: str, place: str) -> None:
    """Check the value of one key."""
    hint, allowed = action._typehint, takes(action._typehint)
    value = load_text(given)
    if given == "" and walk.leaves:  # YAML's null, but no null on the command line
        _check_leaf(given, hint, where)
    elif value is None:
        if walk.parsed or walk.leaves:
            _check_null(action, allowed, where)
    elif not allowed.composed or (allowed.anything and not walk.parsed):
        if walk.leaves:
            _check_leaf(given, hint, where)
    elif isinstance(given, Text) and allowed.text and not isinstance(value, (dict, list)):
        return
    else:
        _check_composed(value, action, allowed, walk, where, place)


def _check_null(action: Any, allowed: Takes, where: str) -> None:
    if allowed.null or (action.default is None and not action.required):
        return
    needs = _needs(allowed) if allowed.composed else f"be {describe(action._typehint)}"
    raise MistakeError(f"{where}: it is null, but it must {needs}.{choices(allowed.classes)}")


def _needs(allowed: Takes) -> str:
    kinds = allowed.classes
    what = one_of(kinds) if kinds else "an object that can be called"
    if allowed.listed and not allowed.parts:
        return f"be a list, each item {what} by class_path and init_args"
    return f"be {what} by class_path and init_args"


def _check_composed(value: Any, action: Any, allowed: Takes, walk: Walk, where: str, place: str) -> None:
    """Check what takes a class: by its name, by class_path and init_args, in a list or in a mapping."""
    if isinstance(value, list) and allowed.listed is not None:
        for number, item in enumerate(value):
            _check_composed(item, action, allowed.listed, walk, f"{where}[{number}]", place)
        return
    if isinstance(value, Mapping) and allowed.mapped is not None and "class_path" not in value:
        for name, item in value.items():
            _check_composed(item, action, allowed.mapped, walk, f"{where}.{name}", f"{place}.{name}")
        return
    one = allowed if allowed.parts or allowed.made or allowed.anything_callable else allowed.listed or allowed
    if isinstance(value, str):
        if not (allowed.text or is_file(value) or _is_leaf(value, allowed)):
            _remember(walk, place, _located(value, one, where))
    elif isinstance(value, Mapping):
        if not (value == {} and walk.parsed):
            _check_part(value, action, one, walk, where, place)
    elif walk.parsed and (value is action.default or callable(value)):
        _check_object(value, action, one, where)
    elif value is not None and not _is_leaf(value, allowed):
        raise MistakeError(f"{where}: it must {_needs(allowed)}, got {_short(value)}.")


def is_file(name: str) -> bool:
    """Whether the part is in a file of its own, which the parser looks for beside the file that names it."""
    return name.endswith((".yaml", ".yml", ".json"))


def _is_leaf(value: Any, allowed: Takes) -> bool:
    """Whether a plain value is taken beside classes, as logger takes false and a loss its name."""
    return any(_fits(value, leaf) for leaf in allowed.leaves)


def _located(name: str, allowed: Takes, where: str) -> Any:
    try:
        return find_part(name, allowed)
    except MistakeError as error:
        raise MistakeError(f"{where}: {error}") from error


def _remember(walk: Walk, place: str, found: Any) -> None:
    """Keep a place's class; those of its parts go with the class before."""
    if walk.found.get(place) is not found:
        walk.found = {key: value for key, value in walk.found.items() if not key.startswith(f"{place}.")}
    walk.found[place] = found


def _check_object(value: Any, action: Any, allowed: Takes, where: str) -> None:
    """Check what the parser has made of a function's name."""
    if value is action.default or inspect.isclass(value) or isinstance(value, allowed.classes):
        return
    try:
        check_function(value, allowed, getattr(value, "__qualname__", repr(value)))
    except MistakeError as error:
        raise MistakeError(f"{where}: {error}") from error


# Parts ----------------------------------------------------------------------------------------------------------


def _check_part(value: Mapping[Any, Any], action: Any, allowed: Takes, walk: Walk, where: str, place: str) -> None:
    """Check a class and its options."""
    if "class_path" in value:
        path = value["class_path"]
        if not isinstance(path, str):
            raise MistakeError(f"{where}.class_path: it must be the name of a class, got {_short(path)}.")
        _remember(walk, place, _located(str(path), allowed, where))
    beside = [name for name in value if name not in _SPEC and not str(name).startswith("__")]
    if beside and len(beside) < len(value):
        other = next(name for name in value if name in _SPEC)
        hint = did_you_mean(beside[0], _SPEC) or " Options of the class go into init_args."
        raise MistakeError(f"{where}: {beside[0]!r} stands beside {other}.{hint}")
    kind = walk.found.get(place) or _default_class(action, allowed)
    if kind is None:
        near = did_you_mean(next(iter(value), ""), _SPEC)
        raise MistakeError(f"{where}: it must {_needs(allowed)}, got {_short(dict(value))}.{near}")
    label = f"{where} > {kind.__name__}"
    options = load_text(value.get("init_args", {} if "class_path" in value or "dict_kwargs" in value else value))
    if options is None and not walk.parsed:
        raise MistakeError(f"{label}: init_args is empty: leave it out, or give options.")
    if not isinstance(options, Mapping | None):
        raise MistakeError(f"{label}: init_args must be a mapping of the class's options, got {_short(options)}.")
    if (not inspect.isclass(kind)) and kind is not None and not _returns_part(kind, allowed):
        raise MistakeError(
            f"{where}: {kind.__name__} is a function, which is taken by its name alone: a configuration gives options "
            "to classes only."
        )
    known = _options(kind, bool(allowed.made) and inspect.isclass(kind) and issubclass(kind, allowed.made))
    further = load_text(value.get("dict_kwargs")) or {}
    if not isinstance(further, Mapping):
        raise MistakeError(f"{label}: dict_kwargs must be a mapping of the class's options, got {_short(further)}.")
    if known is not None:
        # What goes to a class as it is written is for those that take anything; what the parser knows, it checks.
        open_ = any(each.kind is each.VAR_KEYWORD for each in inspect.signature(kind).parameters.values())
        checked = {name: given for name, given in further.items() if name in known or not open_}
        _check_options({**(options or {}), **checked}, known, walk, label, place)


def _returns_part(function: Any, allowed: Takes) -> bool:
    """Whether a function returns the part itself, and not what a factory makes: then its options are all it needs."""
    return makes(function, allowed.parts)


def _default_class(action: Any, allowed: Takes) -> Any:
    """Return the class that options alone are for: that of the key's default, or the one that the key takes."""
    default = action.default
    if isinstance(default, (Namespace, dict)) and (path := default.get("class_path")):
        return find_part(path, allowed)
    if isinstance(default, allowed.classes):
        return type(default)
    concrete = [kind for kind in allowed.parts if not inspect.isabstract(kind)]
    return concrete[0] if len(concrete) == 1 and len(allowed.classes) == 1 else None


@functools.cache
def _options(kind: Any, made: bool) -> dict[str, Action] | None:
    """Return the options of a class; None where the parser cannot read its signature."""
    parser = ArgumentParser(exit_on_error=False)
    skip: set[str | int] = {1} if made else set()  # what a factory is called with
    try:
        if inspect.isclass(kind):
            parser.add_class_arguments(kind, fail_untyped=False, skip=skip)
        else:
            parser.add_function_arguments(kind, fail_untyped=False)
    except (ValueError, TypeError, AttributeError):
        return None
    return actions_of(parser)


def _check_options(given: Mapping[Any, Any], known: Mapping[str, Action], walk: Walk, label: str, place: str) -> None:
    for name, value in given.items():
        plain = str(name).removesuffix("+")
        action = known.get(plain)
        if hasattr(action, "_typehint"):
            check_value(value, action, walk, f"{label} > {plain}", f"{place}.{plain}")
        elif action is None and not walk.parsed and plain.split(".")[0] not in known and not plain.startswith("__"):
            names = [key for key in known if "." not in key and key != "help"]
            hint = did_you_mean(plain, names) or (f" It has {', '.join(names) or 'none'}." if len(names) < 20 else "")
            raise MistakeError(f"{label}: there is no option {plain!r}.{hint}")


# Plain values ---------------------------------------------------------------------------------------------------


def _check_leaf(given: Any, hint: Any, where: str) -> None:
    if not _fits(given, hint) and (expected := describe(hint)):
        raise MistakeError(f"{where}: it must be {expected}, got {_short(given)}.")


def _fits(given: Any, hint: Any) -> bool:
    """Whether the parser takes a value for a type."""
    parser = ArgumentParser(exit_on_error=False)
    try:
        parser.add_argument("--value", type=hint)
        parser.parse_args([f"--value={given}"]) if isinstance(given, Text) else parser.parse_object({"value": given})
    except (ArgumentError, ValueError, TypeError, KeyError):
        return False
    return True


def _short(value: Any) -> str:
    told = str(value) if isinstance(value, str) else repr(value)
    told = told if told else "nothing"
    return told if len(told) <= 100 else f"{told[:100]}..."
