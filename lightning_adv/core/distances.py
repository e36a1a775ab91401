"""How distances in pixel space are shown, by whatever shows them: a report does so without torch."""

from __future__ import annotations


def tell_distance(distance: float) -> str:
    """Write a distance as people do: in grey levels if it is a whole number of halves of them.

    Example:
        >>> tell_distance(8 / 255), tell_distance(0.1), tell_distance(1)
        ('8/255', '0.1', '1')
    """
    short = f"{distance:.6g}"
    levels = round(255 * distance, 6)
    return f"{levels:g}/255" if len(short) > 5 and levels and levels == round(levels, 1) else short
