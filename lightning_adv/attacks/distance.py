"""Distances in pixel space, written as people write them: ``8/255``."""

from __future__ import annotations

import math
import re
from typing import TypeAlias

from lightning_adv.core.errors import UsageError

Distance: TypeAlias = float | str
"""A number, or a fraction such as ``"8/255"``; in the unit of the images, which lie in [0, 1]."""

StepSize: TypeAlias = float | str | None
"""A :data:`Distance`, a share of the radius such as ``"eps/8"`` or ``"1.25*eps"``, which follows it, or None: the rule
of the attack, which follows the radius too."""

_SHARE = re.compile(r"(?:(?P<times>[^*/]+)\*)?\s*eps\s*(?:/(?P<over>[^*/]+))?")


def parse_distance(value: Distance, name: str, maximum: float = math.inf) -> float:
    """Return a distance as a number.

    Args:
        value: A number or a fraction, ``"8/255"``.
        name: The argument's name, for the error.
        maximum: The largest value allowed.

    Raises:
        UsageError: ``value`` is no number, or lies outside [0, ``maximum``].

    Example:
        >>> parse_distance("8/255", "eps") == 8 / 255
        True
    """
    try:
        numerator, slash, denominator = str(value).partition("/")
        number = float(numerator) / float(denominator) if slash else float(numerator)
    except (ValueError, ZeroDivisionError):
        raise UsageError(f"{name} must be a number or a fraction such as 8/255, got {value!r}.") from None
    if not 0 <= number <= maximum or math.isinf(number):
        allowed = "at least 0 and finite" if math.isinf(maximum) else f"between 0 and {maximum:g}"
        hint = " Images lie in [0, 1]: write 8 grey levels as 8/255." if number > maximum else ""
        raise UsageError(f"{name} must be {allowed}, got {value!r}.{hint}")
    return number


def parse_step_size(value: StepSize, eps: float, steps: int) -> float:
    """Return the length of a step as a number.

    None is a quarter of the radius, which is the 2/255 at 8/255 of Madry et al. (2018, section 5), but at least
    ``eps / steps``, so that the steps reach the edge of the ball from its centre.

    Args:
        value: A distance, a share of the radius such as ``"eps/8"``, or None.
        eps: The radius.
        steps: How many steps there are.

    Raises:
        UsageError: ``value`` is neither a distance nor a share of the radius.

    Example:
        >>> parse_step_size("eps/8", 0.2, 20), parse_step_size(None, 0.2, 20), parse_step_size(None, 0.2, 2)
        (0.025, 0.05, 0.1)
    """
    if value is None:
        return max(eps / 4, eps / steps)
    if isinstance(value, str) and (found := _SHARE.fullmatch(value.strip())):
        try:
            times, over = (1.0 if found[name] is None else float(found[name]) for name in ("times", "over"))
            share = times / over
        except (ValueError, ZeroDivisionError):
            share = math.nan
        if not 0 <= share < math.inf:
            raise UsageError(f"step_size must be a distance, or a share of eps such as eps/8, got {value!r}.")
        return eps * share
    return parse_distance(value, "step_size")
