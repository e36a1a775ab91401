"""Errors that help: what a misspelled name was probably meant to be, and no more than one can read."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Return a sentence for the end of an error, or nothing where no name is near.

    Example:
        >>> did_you_mean("layer_1", ["layer1", "head"])
        " Did you mean 'layer1'?"
        >>> did_you_mean("x", ["layer1", "head"])
        ''
    """
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def bounded(message: object) -> str:
    """Return a message that a terminal has room for: an error repeats what was given, be it a path of a megabyte.

    Words of more than 500 characters and a text of more than 3,000 lose their middle.

    Example:
        >>> bounded("There is no file " + "x" * 1000 + ".")[:28], len(bounded("x" * 1000))
        ('There is no file xxxxxxxxxxx', 105)
    """
    return _without_middle(re.sub(r"\S{501,}", lambda word: _without_middle(word[0], 100), str(message)), 3000)


def _without_middle(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-(most // 2) :]}"
