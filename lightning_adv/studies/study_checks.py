"""Checks of what stands in a study file: names, seeds, keys, and values of a kind that a configuration can have."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from lightning_adv.core.errors import UsageError
from lightning_adv.core.reading import shorten
from lightning_adv.core.suggestions import did_you_mean

_SEED_KEY = "seed_everything"
_CONTROLS = ("Cc", "Zl", "Zp")  # Unicode's categories of control characters and of ends of lines


def check_name(text: str, place: str) -> None:
    """Check that a name can stand in a line: of the table, of a message, of a folder's name.

    Raises:
        UsageError: It has an end of a line or another control character in it.
    """
    if any(unicodedata.category(character) in _CONTROLS for character in text):
        raise UsageError(f"a name is one line without control characters, got {text!r}.", key=place)


def check_setting(key: str, place: str) -> None:
    """Check that a dotted key is not one that a study itself sets.

    Raises:
        UsageError: It is.
    """
    if key == _SEED_KEY:
        raise UsageError(f"{_SEED_KEY} is set by seeds, or by the seed of a stage.", key=place)
    if key == "ckpt_path":
        raise UsageError("ckpt_path is the study's to set: a cell goes on where it was stopped.", key=place)


def check_plain(value: Any, place: str) -> None:
    """Check that a value is one that a configuration can have; YAML has more kinds.

    Raises:
        UsageError: There is a date, a set or binary data in it.
    """
    if isinstance(value, Mapping):
        for key, item in value.items():
            check_plain(item, f"{place}.{key}")
    elif isinstance(value, list):
        for item in value:
            check_plain(item, place)
    elif not isinstance(value, str | int | float | None):
        kind = type(value).__name__
        raise UsageError(f"it must be text, a number, a list or a mapping, got the {kind} {value}.", key=place)


def check_text(given: Any, place: str, what: str = "text") -> None:
    """Check that a value is text, or null.

    Raises:
        UsageError: It is something else.
    """
    if not isinstance(given, str | None):
        raise UsageError(f"it must be {what}, got {given!r}.", key=place)


def as_mapping(given: Any, place: str) -> dict[str, Any]:
    """Return a value that is a mapping.

    Raises:
        UsageError: It is something else, or a key is no text.
    """
    if not isinstance(given, dict) or not all(isinstance(key, str) for key in given):
        raise UsageError(f"it must be a mapping, whose keys are text, got {shorten(repr(given))}.", key=place)
    return given


def check_seed(seed: Any, place: str) -> None:
    """Check a seed.

    Raises:
        UsageError: It is none that torch and NumPy take.
    """
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise UsageError(f"a seed is a whole number between 0 and 4294967295, got {seed!r}.", key=place)


def check_names(given: Mapping[str, Any], known: Sequence[str], what: str) -> None:
    """Check that there are no other keys than those that are known.

    Raises:
        UsageError: There is another.
    """
    for name in given:
        if name not in known:
            told = ", ".join(key for key in known if key != "points")
            raise UsageError(f"{what} has no key {name!r}.{did_you_mean(name, known)} It has {told}.")
