"""The files of a study folder as the page can trust them: ``study.json``, which describes it, and ``study.csv``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from lightning_adv.core.errors import UsageError
from lightning_adv.core.reading import WIDTH, Problems, read_csv, read_json, shorten
from lightning_adv.report.results import is_amount, is_number, is_text, sound

_MOST_CELLS = 400_000  # of the table: some 20 MB of the page


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _text_or_texts(value: Any) -> bool:
    return isinstance(value, str) or _texts(value)


def _mappings(value: Any) -> bool:
    if not isinstance(value, list):
        return False
    return all(isinstance(each, dict) and all(isinstance(key, str) for key in each.values()) for each in value)


_FORM: Final[Mapping[str, Any]] = {
    **dict.fromkeys(("title", "name"), is_text),
    **dict.fromkeys(("axes", "measures"), _texts),
    **dict.fromkeys(("rows", "version"), is_amount),
    "points": _mappings,
    "stages": {"*": {"command": is_text}},
    "figure": {
        **dict.fromkeys(("kind", "x", "lines", "panels"), is_text),
        "y": _text_or_texts,
        "reference": {"*": is_text},
    },
    "cells": {
        "*": {
            **dict.fromkeys(("stage", "folder", "status", "error"), lambda value: isinstance(value, str)),
            "seconds": is_amount,
            "names": {"*": is_text},
        }
    },
}
"""What the page shows of ``study.json``, by key."""


def read_description(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Return what ``study.json`` says, and the keys of what in it is not of its kind and is left out.

    Raises:
        UsageError: The file cannot be read, or describes no study. The reason does not name it.
    """
    description = read_json(path)
    if not isinstance(description, dict):
        raise UsageError("it describes no study")
    kept, strange = sound(description, _FORM, "")
    for key in ("stages", "cells"):
        strange += [f"{key}.{name}" for name, value in (kept.get(key) or {}).items() if value is None]
        kept[key] = {name: value for name, value in (kept.get(key) or {}).items() if value is not None}
    return kept, strange


def read_rows(path: Path) -> tuple[list[str], list[dict[str, str]], list[str]]:
    """Return the columns and the rows of ``study.csv``, and one clause for each kind of thing that was left out.

    Raises:
        UsageError: The file is no table of a study. The reason does not name it.
    """
    table = read_csv(path)
    if table is None:
        raise UsageError("it is empty")
    twice = [name for name, count in Counter(table.columns).items() if count > 1]
    if twice or "status" not in table.columns:
        raise UsageError(
            f"its column {shorten(twice[0])} stands twice"
            if twice
            else "it has no column status, as a study's table has"
        )
    rows: list[dict[str, str]] = []
    told = Problems(table.damage)
    for number, cells in table.rows:
        if len(cells) != len(table.columns):
            told.add(WIDTH, f"in line {number}")
        elif (len(rows) + 1) * len(cells) > _MOST_CELLS:
            told.add("rows that are more than a page can show are left out", f"in line {number}")
        else:
            rows.append(dict(zip(table.columns, cells, strict=True)))
    return table.columns, rows, told.clauses()


def number(text: str) -> float | None:
    """Return the number that a cell of the table holds; None where it is none.

    Example:
        >>> number("0.25"), number("8/255") == 8 / 255, number("m0+m2"), number("nan")
        (0.25, True, None, None)
    """
    dividend, slash, divisor = text.partition("/")
    try:
        value = float(dividend) / float(divisor) if slash else float(text)
    except (ValueError, ZeroDivisionError):
        return None
    return value if is_number(value) else None
