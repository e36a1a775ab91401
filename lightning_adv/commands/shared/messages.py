"""jsonargparse's errors in one sentence: where the mistake is, what was given, what is nearest."""

from __future__ import annotations

import inspect
import re
import traceback
from collections.abc import Collection, Mapping
from typing import Any, get_type_hints

from lightning_adv.core.errors import UsageError
from lightning_adv.core.recipe import Recipe, import_class
from lightning_adv.core.suggestions import did_you_mean

_WHERE = re.compile(r'(?:Parser key "(?P<key>[^"]+)"|Problem with given class_path \'(?P<path>[^\']+)\'):')


def explain(message: str, keys: Collection[str]) -> str:
    """Return a message that names the key that is missing, or the nearest of those that there are.

    Most mistakes are told by :func:`.mistakes.first_mistake` before; what is left is what the walk
    cannot know of one source alone.

    Args:
        message: An error of the parser, which may nest one error in another over many lines.
        keys: The parser's own keys, such as ``trainer.max_epochs``.

    Returns:
        One or two sentences; the beginning of ``message`` where its form is not known.
    """
    if found := re.search(r"(?:unrecognized arguments: --|does not accept option ')([\w.]+)", message):
        if found[1] in keys:
            return f"--{found[1]} is an option of a command, which stands before its options."
        return f"There is no key {found[1]!r}.{did_you_mean(found[1], keys)}"
    where: list[tuple[int, str]] = []
    for line in message.splitlines():
        indent, text = len(line) - len(line.lstrip(" -")), line.strip(" -")
        if matched := _WHERE.match(text):
            where = [place for place in where if place[0] < indent]
            where.append((indent, matched["key"] or matched["path"].rpartition(".")[2]))
        elif missing := re.match(r"the following arguments are required: (.*)", text):
            names = re.sub(r"\b(?:fit|validate|test|predict)\.", "", missing[1])
            place = " > ".join(name for _, name in where)
            return f"{place}: {names} must be given." if place else f"{names} must be given."
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


def _subclasses(waiting: list[type]) -> list[str]:
    """The names of the classes that can be built among these and all that derive from them."""
    names: list[str] = []
    while waiting:
        found = waiting.pop(0)
        waiting += found.__subclasses__()
        names += [] if inspect.isabstract(found) or found.__name__.startswith("_") else [found.__name__]
    return names


def sentence(error: UsageError) -> str:
    """Return what an error says, without the traceback that torch puts before it in a loader's worker process."""
    return str(error).rpartition(f"\n{type(error).__module__}.{type(error).__qualname__}: ")[2].strip()


def raised_by_us(error: OSError) -> bool:
    """Whether a line of this package has met an error of a file, and not one of a user's or a library's."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return str(frames[-1][0].f_globals.get("__name__", "")).startswith("lightning_adv.")
