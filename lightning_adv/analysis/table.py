"""The tidy table of an analysis: one number a row, with what it is about."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from lightning_adv.files import keep_aside, write_whole


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
        ValueError: The file is no such table.
    """
    with Path(path).open(newline="", encoding="utf-8-sig") as file:  # Excel puts a mark before the first name
        text = file.read()
    whole = text[: text.rfind("\n") + 1]
    header, *lines = csv.reader(whole.splitlines()) if whole else [list(Row._fields)]
    if tuple(header) != Row._fields:
        raise ValueError(f"{path} is no table of an analysis: its columns are {header}, not {list(Row._fields)}.")
    rows: list[Row] = []
    for number, line in enumerate(lines, start=2):
        try:
            epoch, step, name, domain, statistic, value = line
            rows.append(Row(int(epoch), int(step), name, domain, statistic, float(value)))
        except ValueError as error:
            raise ValueError(f"{path}, line {number} is no row of {', '.join(Row._fields)}: {line}.") from error
    return rows


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
        ValueError: The file is no such table.
    """
    if not path.is_file():
        return
    rows = read_table(path)
    kept = [row for row in rows if row.step <= last_step]
    if len(kept) < len(rows) or not path.read_bytes().endswith(b"\n"):
        keep_aside(path)
        write_whole(path, _lines(kept, header=True))


def series(rows: Sequence[Row], name: str, domain: str, statistic: str) -> list[tuple[int, float]]:
    """Return the points (step, value) of one number over a run, in the order of the steps."""
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
