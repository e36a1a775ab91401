"""jsonargparse's errors in one sentence: where the mistake is, what was given, what is nearest."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterable

from lightning.pytorch import Callback, LightningDataModule
from lightning.pytorch.loggers import Logger

from lightning_adv.attacks import Attack
from lightning_adv.recipe import import_class
from lightning_adv.regimes import Regime

_WHERE = re.compile(r'(?:Parser key "(?P<key>[^"]+)"|Problem with given class_path \'(?P<path>[^\']+)\'):')


def explain(message: str, keys: Iterable[str]) -> str:
    """Return a message that names the key, what was given, and what is allowed or nearest.

    Args:
        message: An error of the parser, which may nest one error in another over many lines.
        keys: The parser's own keys, such as ``trainer.max_epochs``.

    Returns:
        One or two sentences; ``message`` itself where its form is not known.
    """
    if found := re.search(r"(?:unrecognized arguments: --|does not accept option ')([\w.]+)", message):
        return f"There is no key {found[1]!r}.{_nearest(found[1], keys)}"
    given = re.search(r"^\s*Given value: (.*)$", message, re.MULTILINE)
    where: list[tuple[int, str]] = []
    classes: list[str] = []
    for line in message.splitlines():
        indent, text = len(line) - len(line.lstrip(" -")), line.strip(" -")
        if matched := _WHERE.match(text):
            where = [place for place in where if place[0] < indent]
            where.append((indent, matched["key"] or matched["path"].rpartition(".")[2]))
            classes += [matched["path"]] if matched["path"] else []
        elif what := _mistake(text, classes, given[1] if given else ""):
            return " > ".join(place for _, place in where) + f": {what}"
    return message


def _mistake(text: str, classes: list[str], given: str) -> str | None:
    """Return what the innermost line of an error says; None for a line that says nothing."""
    if found := re.match(r"Option '([\w.]+)' is not accepted", text):
        options = inspect.signature(import_class(classes[-1])).parameters if classes else ()
        return f"there is no option {found[1]!r}.{_nearest(found[1], options)}"
    if found := re.match(r"Expected a dot import path string: (\S+)", text):
        return f"there is no class {found[1]!r}.{_nearest(found[1], _class_names())}"
    if found := re.match(r"Expected a typing\.Literal\[(.*)\]\. Got value: (.*)", text):
        return f"it must be one of {found[1]}, got {found[2]}."
    if (found := re.match(r"Expected a <class '(?:\w+\.)*(\w+)'>", text)) and found[1] != "NoneType":
        return f"it must be of type {found[1]}, got {given}."
    if found := re.match(r"Type .* expects .*?: (.*)", text):
        return f"{found[1]}."
    return None


def _class_names() -> list[str]:
    names: list[str] = []
    waiting: list[type] = [Regime, Attack, LightningDataModule, Callback, Logger]
    while waiting:
        found = waiting.pop()
        waiting += found.__subclasses__()
        names += [] if inspect.isabstract(found) or found.__name__.startswith("_") else [found.__name__]
    return names


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
