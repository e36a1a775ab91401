"""Rows of a study's table as figures see them: texts of what varies, numbers of what was measured."""

from __future__ import annotations

import itertools
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from lightning_adv.studies.collect import to_number
from lightning_adv.studies.table import interval_columns

Row: TypeAlias = Mapping[str, Any]
"""A row of a table, by column, from :class:`.table.StudyTable` or from pandas, where an empty cell is NaN."""

EMPTY = ("", "none")
_ENUMERATED = re.compile(r"\D*\d+(\.\d+)*\D*")


class Run(NamedTuple):
    """One measured number.

    Attributes:
        value: The number.
        interval: Its 95 % confidence interval; None where there is none.
    """

    value: float
    interval: tuple[float, float] | None


class Medians(NamedTuple):
    """What having a part changes, over all subsets (Siddiqui & Breuel 2021, figure 6).

    Attributes:
        with_it: The median over the rows whose subset has the part; None where there are none.
        without_it: The median over the others.
        all_with: The numbers that the first is of.
        all_without: The numbers that the second is of.
    """

    with_it: float | None
    without_it: float | None
    all_with: tuple[float, ...]
    all_without: tuple[float, ...]


def text_of(row: Row, column: str) -> str:
    """Return what stands in a column of what varies; the empty text where nothing does.

    Example:
        >>> text_of({"width": 16.0}, "width"), text_of({"width": float("nan")}, "width")
        ('16', '')
    """
    value = row.get(column)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))  # pandas makes floats of a column of integers that has an empty cell
    return str(value)


def number_of(row: Row, column: str) -> float | None:
    """Return what was measured; None where nothing was, or no finite number."""
    value = row.get(column)
    if isinstance(value, bool | str) or value is None:
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def run_of(row: Row, measure: str) -> Run | None:
    """Return what was measured in one row, with its interval where the table has one."""
    value = number_of(row, measure)
    if value is None:
        return None
    low, high = (number_of(row, column) for column in interval_columns(measure) or ("", ""))
    return Run(value, None if low is None or high is None else (low, high))


def runs_of(rows: Iterable[Row], measure: str) -> list[Run]:
    """Return what was measured in rows, without those where nothing was."""
    return [run for row in rows if (run := run_of(row, measure)) is not None]


def values_of(rows: Iterable[Row], column: str) -> list[str]:
    """Return the values of what varies, in the order of the rows; without the empty one."""
    return [text for text in dict.fromkeys(text_of(row, column) for row in rows) if text]


def axes_of(rows: Sequence[Row]) -> list[str]:
    """Return the columns of what varies: those before the seed."""
    axes: dict[str, None] = {}
    for row in rows:
        columns = list(row)
        axes |= dict.fromkeys(columns[: columns.index("seed")] if "seed" in columns else ())
    return list(axes)


def numbers_of(texts: Sequence[str]) -> list[float] | None:
    """Return texts as numbers; None unless all of them, at least one, are."""
    numbers = [to_number(text) for text in texts]
    found = [number for number in numbers if number is not None]
    return found if texts and len(found) == len(texts) else None


def is_ordered(texts: Sequence[str]) -> bool:
    """Return whether values have an order of their own: numbers, or names that differ in a number.

    Example:
        >>> is_ordered(["1e-4", "5e-4"]), is_ordered(["m0", "m1", "m10"]), is_ordered(["resnet18", "vgg16"])
        (True, True, False)
    """
    if numbers_of(texts) is not None:
        return True
    return all(map(_ENUMERATED.fullmatch, texts)) and len({re.sub(r"\d+(\.\d+)*", "0", text) for text in texts}) == 1


def are_subsets(texts: Sequence[str]) -> bool:
    """Return whether values are subsets, as ``m0+m2``, at least one of them of several parts."""
    parts = [text.split("+") for text in texts]
    return any(len(each) > 1 and numbers_of([text]) is None for each, text in zip(parts, texts, strict=True))


def parts_of(text: str) -> tuple[str, ...]:
    """Return the parts of a subset; none of the empty one.

    Example:
        >>> parts_of("m0+m2"), parts_of("none")
        (('m0', 'm2'), ())
    """
    return () if text in EMPTY else tuple(text.split("+"))


def medians_by_part(rows: Sequence[Row], axis: str, measure: str) -> dict[str, Medians]:
    """Return for each part the median over the rows whose subset has it, and over the others.

    Args:
        rows: The rows.
        axis: The column of subsets; nothing and ``none`` are the empty subset.
        measure: What was measured. Rows without it are left out.

    Returns:
        By part, in the order in which parts first stand in the rows; the number parts of a subset does not matter.

    Example:
        >>> rows = [{"blocks": "a", "acc": 0.5}, {"blocks": "a+b", "acc": 0.7}, {"blocks": None, "acc": 0.1}]
        >>> medians_by_part(rows, "blocks", "acc")["a"]
        Medians(with_it=0.6, without_it=0.1, all_with=(0.5, 0.7), all_without=(0.1,))
    """
    subsets = [(parts_of(text_of(row, axis)), number_of(row, measure)) for row in rows]
    found: dict[str, Medians] = {}
    for part in dict.fromkeys(part for parts, _ in subsets for part in parts):
        has = tuple(value for parts, value in subsets if value is not None and part in parts)
        lacks = tuple(value for parts, value in subsets if value is not None and part not in parts)
        found[part] = Medians(_median(has), _median(lacks), has, lacks)
    return found


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def is_share(measure: str, rows: Iterable[Row]) -> bool:
    """Return whether a measure is drawn in percent: by its name an accuracy or a rate, and all between 0 and 1."""
    named = re.search(r"(^|_)(accuracy|rate|share)(_|$)", measure) is not None
    return named and all(0 <= run.value <= 1 for run in runs_of(rows, measure))


def spans_decades(numbers: Iterable[float]) -> bool:
    """Return whether a linear axis would crowd the small ones of some numbers.

    That is where positive ones differ by a factor of 30, or by one of 8 in steps that are about one factor.

    Example:
        >>> spans_decades([1, 2, 4, 8]), spans_decades([0, 1e-4, 3e-4, 1e-2]), spans_decades([1, 3, 5, 7, 10])
        (True, True, False)
    """
    positive = sorted({number for number in numbers if number > 0})
    steps = [b / a for a, b in itertools.pairwise(positive)]
    if len(positive) < 2:
        return False
    span = positive[-1] / positive[0]
    return span >= 30 or (span >= 8 and max(steps) <= 1.5 * min(steps))
