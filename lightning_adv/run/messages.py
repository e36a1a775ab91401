"""jsonargparse's errors in one sentence: where the mistake is, what was given, what is nearest."""

from __future__ import annotations

import inspect
import re
import sys
import traceback
from collections.abc import Iterable, Mapping
from typing import Any, get_type_hints

from lightning.pytorch import Callback, LightningDataModule
from lightning.pytorch.loggers import Logger
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lightning_adv.hints import did_you_mean
from lightning_adv.recipe import Recipe, import_class
from lightning_adv.regimes import Regime

_WHERE = re.compile(r'(?:Parser key "(?P<key>[^"]+)"|Problem with given class_path \'(?P<path>[^\']+)\'):')


def explain(message: str, keys: Iterable[str]) -> str:
    """Return a message that names the key, what was given, and what is allowed or nearest.

    Args:
        message: An error of the parser, which may nest one error in another over many lines.
        keys: The parser's own keys, such as ``trainer.max_epochs``.

    Returns:
        One or two sentences; the beginning of ``message`` where its form is not known.
    """
    if found := re.search(r"(?:unrecognized arguments: --|does not accept option ')([\w.]+)", message):
        return f"There is no key {found[1]!r}.{did_you_mean(found[1], keys)}"
    given = _given(message)
    # What takes a list or a class says of a misspelled class that it is no list: the class is the better news.
    for unimportant in (("NoneType", "list"), ("NoneType",)):
        where: list[tuple[int, str]] = []
        classes: list[str] = []
        for line in message.splitlines():
            indent, text = len(line) - len(line.lstrip(" -")), line.strip(" -")
            # A callable's error stands on the line that says so, and may go on below it.
            text = re.sub(r"^Type .* expects a function or a callable class: ", "", text)
            if matched := _WHERE.match(text):
                where = [place for place in where if place[0] < indent]
                where.append((indent, matched["key"] or matched["path"].rpartition(".")[2]))
                classes += [matched["path"]] if matched["path"] else []
            elif where and (what := _mistake(text, classes, given, unimportant)):
                return " > ".join(place for _, place in where) + f": {what}"
    return _bounded(message)


def _bounded(message: str) -> str:
    """Return the beginning of a message whose form is not known: one reads no hundred lines of types."""
    lines = message.strip().splitlines()
    told = "\n".join(lines[:2])
    return told if len(told) <= 400 else f"{told[:400]}..."


def not_built(message: str) -> str | None:
    r"""Return why a class could not be built, out of an error that tells it among all types of its key; else None.

    Example:
        >>> not_built("Errors:\n  - Problem with given class_path 'a.B':\n      b is missing\n  - Expected null")
        'a.B cannot be built: b is missing'
    """
    found = re.findall(r"Problem with given class_path '([^']+)':\n\s*(\S.*)", message)
    if found:
        return f"{found[-1][0]} cannot be built: {found[-1][1]}"
    reasons = re.findall(r"^  - (.*)$", message, re.MULTILINE)
    return next((reason for reason in reasons if not reason.startswith(("Expected ", "Not a valid "))), None)


def explain_value(message: str) -> str:
    """Return what a class says of its arguments, out of what jsonargparse makes of it where null is allowed too.

    Args:
        message: An error of instantiation.

    Returns:
        The first reason that is not that the argument is not null; ``message`` itself where it is of another form.
    """
    if not message.startswith("Does not validate against any of the Union subtypes"):
        return message
    reasons = re.findall(r"^  - (.*)$", message, re.MULTILINE)
    return next((reason for reason in reasons if "NoneType" not in reason), message)


def _given(message: str) -> str:
    """Return the value that the innermost error is about."""
    if found := re.search(r"NestedArg\(key='[^']*', val='?(.*?)'?\)$", message, re.MULTILINE):
        return found[1]
    found = re.search(r"^\s*Given value: (.*?)(?:\. Got value: .*)?$", message, re.MULTILINE)
    return found[1] if found else ""


def _mistake(text: str, classes: list[str], given: str, unimportant: tuple[str, ...]) -> str | None:
    """Return what the innermost line of an error says; None for a line that says nothing."""
    if found := re.match(r"Option '([\w.]+)' is not accepted(?:.*class_path='([\w.]+)')?", text):
        path = found[2] if found[2] else classes[-1] if classes else None
        options = inspect.signature(import_class(path)).parameters if path else ()
        return f"there is no option {found[1]!r}.{did_you_mean(found[1], options)}"
    if found := re.match(r"Expected a dot import path string: (\S+)", text):
        known = _class_names()
        if found[1].rpartition(".")[2] in known:
            return f"{found[1]!r} is not of a class that is allowed here."
        return f"there is no class {found[1]!r}.{did_you_mean(found[1], known)}"
    if found := re.match(r"module '([\w.]+)' has no attribute '(\w+)'", text):
        names = [name for name, value in vars(sys.modules[found[1]]).items() if isinstance(value, type)]
        return f"there is no class {found[2]!r} in {found[1]}.{did_you_mean(found[2], names)}"
    if found := re.match(r"Multiple subclasses with name (\w+)\. .*: (.*)\.", text):
        return f"there are several classes {found[1]!r}: write {found[2].replace(', ', ' or ')}."
    if found := re.match(r"the following arguments are required: (.*)", text):
        return f"{found[1]} must be given."
    if found := re.match(r"Expected a typing\.Literal\[(.*)\]\. Got value: (.*)", text):
        return f"it must be one of {found[1]}, got {found[2]}."
    if found := re.match(r"Expected a <class '(?:\w+\.)*(\w+)'>(?:\. Got value: (.*?)(?:\. Got value: .*)?$)?", text):
        got = given if found[2] is None else found[2]  # alone with its key, the value stands on this line
        return None if found[1] in unimportant else f"it must be of type {found[1]}, got {got if got else 'nothing'}."
    if found := re.match(r"Type .* expects .*?: (.*)", text):
        return f"{found[1]}."
    return None


def missing_recipe(class_path: str, arguments: Mapping[str, Any]) -> str | None:
    """Return what is wrong where a class gets ``null`` for a part that it needs, such as an attack; else None.

    jsonargparse lets ``null`` pass for any class.

    Args:
        class_path: The class.
        arguments: Its arguments.
    """
    kind = import_class(class_path)
    needed: dict[str, Any] = {}
    for base in kind.__mro__:  # what a class does not name it hands on; a subclass may allow what its base does not
        if "__init__" in vars(base):
            needed = get_type_hints(vars(base)["__init__"]) | needed
    for name, part in needed.items():
        if isinstance(part, type) and issubclass(part, Recipe) and arguments.get(name, "") is None:
            choices = ", ".join(_subclasses([part]))
            return f"{name} is null, but {kind.__name__} needs one: {choices if choices else part.__name__}."
    return None


def _class_names() -> list[str]:
    return _subclasses([Recipe, Regime, LightningDataModule, Callback, Logger, Optimizer, LRScheduler])


def _subclasses(waiting: list[type]) -> list[str]:
    """The names of the classes that can be built among these and all that derive from them."""
    names: list[str] = []
    while waiting:
        found = waiting.pop(0)
        waiting += found.__subclasses__()
        names += [] if inspect.isabstract(found) or found.__name__.startswith("_") else [found.__name__]
    return names


def told_by_us(error: BaseException) -> BaseException | None:
    """Return the error of ours that this one is, or wraps; None for a library's, whose traceback is needed.

    Ours are written for the user. jsonargparse wraps those of constructors in its own.
    """
    inner: BaseException | None = error
    while inner is not None:
        frames = list(traceback.walk_tb(inner.__traceback__))
        if frames and str(frames[-1][0].f_globals.get("__name__", "")).startswith("lightning_adv."):
            return inner
        inner = inner.__cause__
    return None
