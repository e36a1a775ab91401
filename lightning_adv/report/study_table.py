"""The table of a study as HTML, readable without scripts, and what varies in it."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from html import escape
from typing import NamedTuple

from lightning_adv.report.labels import describe_measure
from lightning_adv.report.studies import Study, failure
from lightning_adv.report.study_files import number
from lightning_adv.report.summary import duration


class Axis(NamedTuple):
    """Something that varies.

    Attributes:
        name: Its column.
        values: Its values, in the order of the grid; numbers by their size.
        at: For each row the place of its value; -1 where it has none.
        numbers: The values as numbers; None if one of them is none.
    """

    name: str
    values: list[str]
    at: list[int]
    numbers: list[float] | None


def read_axis(study: Study, name: str) -> Axis:
    """Return what a column of the table varies over."""
    values = [value for value in dict.fromkeys(row[name] for row in study.rows) if value != ""]
    found = [number(value) for value in values]
    numbers = [each for each in found if each is not None]
    if whole := bool(values) and len(numbers) == len(values):
        values = [value for _, value in sorted(zip(numbers, values, strict=True))]
    place = {value: index for index, value in enumerate(values)}
    return Axis(name, values, [place.get(row[name], -1) for row in study.rows], sorted(numbers) if whole else None)


def has_parts(axis: Axis) -> bool:
    """Return whether the values of an axis are sets of parts, as ``m0+m2``; ``1e+3`` is a number."""
    return any("+" in value and number(value) is None for value in axis.values)


def shares_of(study: Study) -> set[str]:
    """Return the measures that are shown in percent: shares by their name, and all between 0 and 1."""
    named = {name for name in study.measures if describe_measure(name).group == "%"}
    for row in study.rows:
        named -= {name for name in named if not 0 <= (number(row[name]) or 0) <= 1}
    return named


def row_labels(study: Study, axes: Sequence[Axis], name: str) -> list[str]:
    """Return for each row what tells it from the others."""
    varied = [axis for axis in axes if len(axis.values) > 1]
    return [
        ", ".join(
            f"{axis.name} {row[axis.name]}" if axis.numbers else row[axis.name] for axis in varied if row[axis.name]
        )
        or name
        for row in study.rows
    ]


def table(study: Study, axes: Sequence[Axis], labels: Sequence[str], shares: Container[str]) -> str:
    """Return the table of a study as HTML.

    Args:
        study: The study.
        axes: What varies.
        labels: What tells each row from the others.
        shares: The columns that are shown in percent.
    """
    by_name = {axis.name: axis for axis in axes}
    ends = {end for measure in study.measures for end in ends_of(measure)}
    columns = [column for column in study.columns if column not in ends]
    units = {column: f"%{', 95 % interval' * (ends_of(column)[0] in study.columns)}" for column in columns}
    head = "".join(
        f'<th scope="col" aria-sort="none"{_class(study, column)}><button type="button">{escape(column)}</button>'
        f"{f'<small>{units[column]}</small>' * (column in shares)}</th>"
        for column in columns
    )
    rows = "".join(
        f'<tr data-status="{escape(row.get("status", ""))}"><td>{_box(study, place, labels[place])}</td>'
        f"{''.join(_cell(study, by_name, shares, place, column) for column in columns)}</tr>"
        for place, row in enumerate(study.rows)
    )
    return f'<table><thead><tr><th scope="col">Curves</th>{head}</tr></thead><tbody>{rows}</tbody></table>'


def _box(study: Study, place: int, label: str) -> str:
    known = any(key in study.curves for key in study.points[place].values())
    return f'<input type="checkbox" aria-label="Curves of {escape(label)}">' if known else ""


def _cell(study: Study, axes: Mapping[str, Axis], shares: Container[str], place: int, column: str) -> str:
    """Return a cell of the table; ``data-v`` is what it is sorted by, where that is not its text."""
    row = study.rows[place]
    text, value = row[column], number(row[column])
    shown, order, below = escape(text), value, ""
    if column == "status":
        lost = text in ("done", "begun") and study.points[place] and not _box(study, place, "")
        below = failure(study, place) or ("no training curves" if lost else "")
    elif column in axes:
        order = None if text == "" else axes[column].at[place]
    elif value is not None and column in shares:
        low, high = (number(row.get(end, "")) for end in ends_of(column))
        shown = f"{100 * value:.1f}"
        below = "" if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f}"
    elif value is not None and column.endswith("_seconds"):
        shown = duration(value) or ""
    elif value is not None and column in study.measures:
        shown = f"{value:.4g}"
    sort = "" if order is None else f' data-v="{order:.9g}"'
    small = f"<small>{escape(below)}</small>" if below else ""
    return f"<td{_class(study, column)}{sort}>{shown}{small}</td>"


def _class(study: Study, column: str) -> str:
    if column == "status":
        return ' class="status"'
    return ' class="number"' if column in study.measures or column.endswith("_seconds") else ""


def ends_of(column: str) -> tuple[str, str]:
    """Return the columns of the ends of the interval of an accuracy; of anything else, which has none, empty texts.

    Example:
        >>> ends_of("attacked_robust_accuracy_Linf_8/255"), ends_of("moved_black_box_rate")
        (('attacked_robust_low_Linf_8/255', 'attacked_robust_high_Linf_8/255'), ('', ''))
    """
    if "accuracy" not in column:
        return "", ""
    low, high = (re.sub("accuracy(?!.*accuracy)", end, column) for end in ("low", "high"))
    return low, high
