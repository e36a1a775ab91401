"""The tidy tables of a run, number by number, and as the page reads them."""

from __future__ import annotations

import base64
import math
import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lightning_adv.core.errors import UsageError
from lightning_adv.core.table import salvage_table

_MOST_CELLS = 3_000_000  # of a table: 16 MB of the page
_MOST_SERIES = 100_000


class Table(NamedTuple):
    """The table of an analysis, number by number.

    Attributes:
        looks: When the analysis looked: (epoch, step), in the order of the steps.
        series: For each (name, domain, statistic) its value in each look; NaN where a look has none.
        gaps: How many values in the file are NaN or infinite.
        every: Of how many looks one is here: 1, unless the file has more than a page can show.
    """

    looks: list[tuple[int, int]]
    series: dict[tuple[str, str, str], list[float]]
    gaps: int = 0
    every: int = 1


def arrange_table(path: Path, most_cells: int = _MOST_CELLS) -> tuple[Table, list[str]]:
    """Read a table, series by series.

    A table of more cells (looks × series) than ``most_cells`` is thinned out: of each ``every`` looks the last stays.

    Returns:
        The table, and one clause for each kind of thing in the file that was left out.

    Raises:
        UsageError: The file is no such table, or has too many series. The reason does not name it.
    """
    rows, problems = salvage_table(path)
    looks = sorted({row.step: row.epoch for row in rows}.items())
    keys = dict.fromkeys((row.name, row.domain, row.statistic) for row in rows)
    if len(keys) > _MOST_SERIES:
        raise UsageError(f"it has {len(keys):,} series, more than a page can show")
    every = max(1, math.ceil(len(looks) / max(1, most_cells // max(1, len(keys)))))
    kept = looks[::-every][::-1]
    index = {step: number for number, (step, _) in enumerate(kept)}
    series = {key: [math.nan] * len(kept) for key in keys}
    for _, step, name, domain, statistic, value in rows:
        if step in index:
            series[name, domain, statistic][index[step]] = value
    gaps = sum(not math.isfinite(row.value) for row in rows)
    return Table([(epoch, step) for step, epoch in kept], series, gaps, every), problems


def pack_table(table: Table) -> dict[str, Any]:
    """Return a table as the page reads it. The tables are fp32 to begin with.

    Returns:
        ``epochs`` and ``steps``, the positions of the L looks on either axis; ``names``, ``domains`` and ``statistics``
        that occur; ``keys``, for each of S series the three indices into these, one after the other; ``values``, for
        each series L little-endian fp32 in base64, NaN where a look has no value.

    Example:
        >>> packed = pack_table(Table([(0, 9), (1, 19)], {("conv1", "", "norm"): [1.0, 2.0]}))
        >>> packed["names"], packed["keys"], packed["values"]
        (['conv1'], [0, 0, 0], ['AACAPwAAAEA='])
    """
    names, domains, statistics = (list(dict.fromkeys(key[part] for key in table.series)) for part in range(3))
    index = [{value: number for number, value in enumerate(values)} for values in (names, domains, statistics)]
    return {
        "epochs": _positions(epoch for epoch, _ in table.looks),
        "steps": [step for _, step in table.looks],
        "names": names,
        "domains": domains,
        "statistics": statistics,
        "keys": [index[part][key[part]] for key in table.series for part in range(3)],
        "values": [to_base64(values) for values in table.series.values()],
    }


def _positions(epochs: Iterable[int]) -> list[float]:
    """A look at the end of epoch e stands at e; several looks in it stand between e - 1 and e, the last one at e."""
    known = list(epochs)
    count, seen = Counter(known), Counter[int]()
    places: list[float] = []
    for epoch in known:
        seen[epoch] += 1
        places.append(round(epoch - 1 + seen[epoch] / count[epoch], 6))
    return places


def to_base64(values: Sequence[float]) -> str:
    """Return numbers as little-endian fp32 in base64, as the page reads them."""
    numbers = array("f", values)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode("ascii")


def merge(lists: Iterable[Sequence[str]]) -> list[str]:
    """Return the union of lists in an order that keeps that of each; where two contradict, that of the longer.

    Example:
        >>> merge([["conv1", "layer2"], ["conv1", "layer1", "fc"]])
        ['conv1', 'layer2', 'layer1', 'fc']
    """
    merged: list[str] = []
    known: set[str] = set()
    for each in sorted(dict.fromkeys(map(tuple, lists)), key=len, reverse=True):
        place = 0 if known.intersection(each) else len(merged)
        for name in each:
            if name in known:
                place = merged.index(name) + 1
            else:
                merged.insert(place, name)
                place += 1
        known.update(each)
    return merged
