"""What a misspelled name was probably meant to be."""

from __future__ import annotations

import difflib
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
