"""Distances in pixel space, written as people write them: ``8/255``."""

from __future__ import annotations

import math
from typing import TypeAlias

Distance: TypeAlias = float | str
"""A number, or a fraction such as ``"8/255"``; in the unit of the images, which lie in [0, 1]."""


def parse_distance(value: Distance, name: str, maximum: float = math.inf) -> float:
    """Return a distance as a number.

    Args:
        value: A number or a fraction, ``"8/255"``.
        name: The argument's name, for the error.
        maximum: The largest value allowed.

    Raises:
        ValueError: ``value`` is no number, or lies outside [0, ``maximum``].

    Example:
        >>> parse_distance("8/255", "eps") == 8 / 255
        True
    """
    try:
        numerator, slash, denominator = str(value).partition("/")
        number = float(numerator) / float(denominator) if slash else float(numerator)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{name} must be a number or a fraction such as 8/255, got {value!r}.") from None
    if not 0 <= number <= maximum or math.isinf(number):
        allowed = "at least 0 and finite" if math.isinf(maximum) else f"between 0 and {maximum:g}"
        hint = " Images lie in [0, 1]: write 8 grey levels as 8/255." if number > maximum else ""
        raise ValueError(f"{name} must be {allowed}, got {value!r}.{hint}")
    return number
