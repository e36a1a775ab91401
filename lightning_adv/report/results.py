"""``results.json`` as the page can trust it: who writes one by hand may write anything."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeGuard

from lightning_adv.core.errors import UsageError
from lightning_adv.core.reading import read_json

_ACCURACIES: Final = tuple(f"{kind}_accuracy" for kind in ("clean", "robust"))
_INTERVALS: Final = tuple(f"{kind}_interval" for kind in ("clean", "robust"))


def read_results(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Read the file, and drop what the page would show and is not of its kind.

    Returns:
        The results, and the keys of what was dropped: ``domains.main.clean_interval``.

    Raises:
        UsageError: The file cannot be read, or holds no results. The reason does not name it.
    """
    results = read_json(path)
    if not isinstance(results, dict):
        raise UsageError("it holds no results")
    return sound(results, _FORM, "")


def is_number(value: Any) -> TypeGuard[float]:
    """Return whether a value is a finite number; true and false are none."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer that no float holds
        return False


def is_text(value: Any) -> bool:
    """Return whether a value is a text or a finite number."""
    return isinstance(value, str) or is_number(value)


def _is_share(value: Any) -> bool:
    return is_number(value) and 0 <= value <= 1


def _is_interval(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_share, value)) and value[0] <= value[1]


def is_amount(value: Any) -> bool:
    """Return whether a value is a finite number that is not negative."""
    return is_number(value) and value >= 0


_MEASURED: Final[Mapping[str, Any]] = dict.fromkeys(_ACCURACIES, _is_share) | dict.fromkeys(_INTERVALS, _is_interval)
_FORM: Final[Mapping[str, Any]] = {
    **_MEASURED,
    **dict.fromkeys(("dataset", "network", "regime", "inference_domain", "precision"), is_text),
    **dict.fromkeys(("epochs", "training_seconds", "images_per_second"), is_amount),
    "domains": {"*": _MEASURED},
    "training": {"attack": {"name": is_text}},
    "evaluation_attack": {"name": is_text},
    "threat_model": {"norm": is_text, "eps": is_amount},
}
"""What the page shows, by key: the test of a value, or what is below it. ``*`` is every key."""


def sound(values: Mapping[str, Any], form: Mapping[str, Any], above: str) -> tuple[dict[str, Any], list[str]]:
    """Drop what is not of its kind.

    Args:
        values: What a file says.
        form: By key, the test of a value, or what is below it; ``*`` is every key. Any other key is left as it is.
        above: What stands before the key in the name of what was dropped.

    Returns:
        The rest, and the keys of what was dropped.
    """
    kept: dict[str, Any] = {}
    strange: list[str] = []
    for key, value in values.items():
        wanted: Mapping[str, Any] | Callable[[Any], bool] | None = form.get(key, form.get("*"))
        if wanted is None or value is None:
            kept[key] = value
        elif callable(wanted):
            kept |= {key: value} if wanted(value) else {}
            strange += [] if wanted(value) else [f"{above}{key}"]
        elif isinstance(value, dict):
            kept[key], dropped = sound(value, wanted, f"{above}{key}.")
            strange += dropped
        else:
            strange.append(f"{above}{key}")
    return kept, strange
