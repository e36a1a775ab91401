"""jsonargparse's errors in one sentence: where the mistake is, what was given, what is nearest."""

from __future__ import annotations

import re
from collections.abc import Collection

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
