"""The tidy table of an analysis: one number a row, with what it is about."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from lightning_adv.core.errors import UsageError
from lightning_adv.core.files import keep_aside, write_whole
from lightning_adv.core.reading import WIDTH, Problems, read_csv, shorten

_LARGEST = 2**53  # epochs and steps that a page and a spreadsheet count exactly


class Record(NamedTuple):
    """One number that an analysis found in one look.

    Attributes:
        name: The layer, or the empty string where the number is about the whole network.
        domain: The BatchNorm domain, or the empty string where there are none.
        statistic: What was measured; of one channel ``running_mean[17]``.
        value: The number.
    """

    name: str
    domain: str
    statistic: str
    value: float


class Row(NamedTuple):
    """A record with when it was found.

    Attributes:
        epoch: The epoch, from 0, as in ``metrics.csv``.
        step: The last optimizer step, from 0, as in ``metrics.csv``.
        name: See :class:`Record`.
        domain: See :class:`Record`.
        statistic: See :class:`Record`.
        value: See :class:`Record`.
    """

    epoch: int
    step: int
    name: str
    domain: str
    statistic: str
    value: float


def read_table(path: str | Path) -> list[Row]:
    """Read a table, also one that is being written: an unfinished last line is left out.

    Raises:
        UsageError: The file is no such table, or a row of it cannot be read; :func:`salvage_table` returns the rest.
    """
    try:
        rows, problems = salvage_table(path)
    except UsageError as error:
        raise UsageError(f"{path} is no table of an analysis: {error}.") from error
    if problems:
        raise UsageError(f"{path} is no table of an analysis: {problems[0]}.")
    return rows


def salvage_table(path: str | Path) -> tuple[list[Row], list[str]]:
    """Read of a table what can be read.

    Returns:
        The rows, and one clause for each kind of thing that was left out.

    Raises:
        UsageError: The file is no such table. The reason does not name it.
    """
    table = read_csv(Path(path))
    if table is None:
        return [], []
    if tuple(table.columns) != Row._fields:
        raise UsageError(f"its columns are {shorten(table.columns)}, not {list(Row._fields)}")
    rows: list[Row] = []
    once: dict[str, str] = {}  # a name is kept once, and not in each of a million rows
    told = Problems(table.damage)
    for number, cells in table.rows:
        if len(cells) != len(Row._fields):
            told.add(WIDTH, f"in line {number}")
            continue
        epoch, step, name, domain, statistic, value = cells
        try:
            name, domain, statistic = (once.setdefault(text, text) for text in (name, domain, statistic))
            rows.append(Row(_count(epoch), _count(step), name, domain, statistic, float(value)))
        except ValueError:
            told.add("rows without numbers where they belong are left out", f"in line {number}")
    return rows, told.clauses()


def _count(text: str) -> int:
    number = int(text)
    if abs(number) > _LARGEST:
        raise UsageError(f"{number} is no epoch and no step.")
    return number


def append_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write rows behind those that are there. A crash loses no earlier line; the last one may be cut for a moment.

    Raises:
        OSError: They cannot be written; the table is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    begun = path.is_file()
    size = path.stat().st_size if begun else 0
    try:
        with path.open("a", newline="", encoding="utf-8") as file:
            file.write(_lines(rows, header=not begun))
    except OSError as error:
        with suppress(OSError):  # rows that are written later must not go on in the middle of a line
            os.truncate(path, size)
        raise OSError(error.errno, error.strerror, str(path)) from error


def _lines(rows: Iterable[Row], *, header: bool) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow(Row._fields)
    writer.writerows([*row[:-1], f"{row.value:.9g}"] for row in rows)  # nine digits are all that fp32 has
    return text.getvalue()


def continue_table(path: Path, last_step: int) -> None:
    """Cut what a run that goes on will write again: the rows of steps after ``last_step``, and an unfinished line.

    A copy is set aside first if there is anything to cut, so that nothing is lost.

    Raises:
        UsageError: The file is no such table.
    """
    if not path.is_file():
        return
    rows = read_table(path)
    kept = [row for row in rows if row.step <= last_step]
    if len(kept) < len(rows) or not path.read_bytes().endswith(b"\n"):
        keep_aside(path)
        write_whole(path, _lines(kept, header=True))


def series(rows: Sequence[Row], name: str, domain: str, statistic: str) -> list[tuple[int, float]]:
    """Return the points (step, value) of one number over a run, in the order of the steps.

    Example:
        >>> series([Row(1, 19, "fc", "", "norm", 2.0), Row(0, 9, "fc", "", "norm", 1.0)], "fc", "", "norm")
        [(9, 1.0), (19, 2.0)]
    """
    found = {row.step: row.value for row in rows if (row.name, row.domain, row.statistic) == (name, domain, statistic)}
    return sorted(found.items())


class Looks(NamedTuple):
    """When there were looks, for the axis of a figure.

    Attributes:
        at: By step, in order, where to draw the look: at its epoch, or at its step if an epoch has several looks.
        unit: ``epoch`` or ``optimizer step``.
    """

    at: dict[int, int]
    unit: str


def looks(rows: Sequence[Row]) -> Looks:
    """Return when the looks of a table were.

    Example:
        >>> looks([Row(0, 9, "", "", "norm", 1.0), Row(1, 19, "", "", "norm", 1.0)])
        Looks(at={9: 0, 19: 1}, unit='epoch')
    """
    epochs = {row.step: row.epoch for row in sorted(rows, key=lambda row: row.step)}
    if len(set(epochs.values())) == len(epochs):
        return Looks(epochs, "epoch")
    return Looks({step: step for step in epochs}, "optimizer step")
