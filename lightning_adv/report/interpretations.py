"""What the folder of an interpretation says, as plain data: a table and pictures for each of its sections."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from lightning_adv.core.errors import UsageError
from lightning_adv.core.reading import MEGABYTE, WIDTH, Problems, read_csv, read_json, shorten
from lightning_adv.report.files import RunFiles
from lightning_adv.report.pictures import read_picture
from lightning_adv.report.results import is_amount, is_text, sound
from lightning_adv.report.runs import check_folder

FILE: Final = "interpretation.json"
COLUMNS: Final = ("network", "images", "layer", "statistic", "value", "low", "high", "count")
_FORM: Final[Mapping[str, Any]] = {
    "images": is_amount,
    "networks": {"*": {"checkpoint": is_text, "domain": is_text, "regime": is_text}},
    "attacks": {"*": {"class_path": is_text}},
    "sections": {"*": {"table": is_text}},
}
"""What the page shows of ``interpretation.json``, by key."""
_MOST_ROWS = 20_000  # of a section: some 4 MB of the page
_MOST_PICTURES = 100 * MEGABYTE


class Number(NamedTuple):
    """One number of a section's table with its 95 % interval, as texts: empty where there is no interval."""

    value: str
    low: str
    high: str


@dataclass
class SectionRead:
    """What is known of a section.

    Attributes:
        numbers: By images, layer and statistic, and then by network.
        pictures: The pictures' bytes, by name.
    """

    numbers: dict[tuple[str, str, str], dict[str, Number]] = field(default_factory=dict)
    pictures: dict[str, bytes] = field(default_factory=dict)


@dataclass
class Interpretation:
    """What is known of an interpretation.

    Attributes:
        folder: Its folder.
        description: What is in ``interpretation.json`` and of the right kind.
        sections: By name.
        missing: One sentence for each thing that is not there.
        damaged: By file, one sentence for each thing that cannot be read.
    """

    folder: Path
    description: dict[str, Any] = field(default_factory=dict)
    sections: dict[str, SectionRead] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    damaged: dict[str, list[str]] = field(default_factory=dict)


def is_interpretation(folder: Path) -> bool:
    """Return whether a folder is that of an interpretation, and not of a run."""
    try:
        return (folder / FILE).is_file() and not (folder / "config.yaml").is_file()
    except OSError:
        return False


def is_finished(folder: Path) -> bool:
    """Return True: its files are written when all is computed."""
    return True


def signature(folder: Path) -> object:
    """Return what changes when the interpretation is replaced: its description is written last."""
    try:
        status = (folder / FILE).stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def read_interpretation_folder(folder: Path) -> Interpretation:
    """Read the folder that ``lightning-adv interpret`` wrote.

    Raises:
        UsageError: There is no such folder, or ``interpretation.json`` describes no section.
    """
    check_folder(folder)
    files = RunFiles(folder)
    found = Interpretation(folder, missing=files.missing, damaged=files.damaged)
    description = files.read(FILE, _description, "it is not known which networks these are")
    if description is None:
        raise UsageError(f"RUN: {shorten(folder, 1000)}: {files.damaged[FILE][0]}")
    found.description, strange = description
    for key in strange:
        files.note(FILE, f"has something else at {shorten(key)} than what belongs there: it is left out")
    for name in found.description.get("sections") or {}:
        if not re.fullmatch(r"\w+", name):
            files.note(FILE, f"has a section {shorten(name)!r}, which is no name of one: it is left out")
            continue
        section = found.sections[name] = SectionRead()
        table = files.read(f"{name}.csv", _numbers, "its numbers are not shown")
        if table is not None:
            section.numbers = table[0]
            for problem in table[1]:
                files.note(f"{name}.csv", f"is damaged: {problem}")
    if not found.sections:
        raise UsageError(f"RUN: {shorten(folder, 1000)}: {FILE} has no sections.")
    _read_pictures(found, files)
    return found


def _description(path: Path) -> tuple[dict[str, Any], list[str]]:
    description = read_json(path)
    if not isinstance(description, dict):
        raise UsageError("it describes no interpretation")
    return sound(description, _FORM, "")


def _numbers(path: Path) -> tuple[dict[tuple[str, str, str], dict[str, Number]], list[str]]:
    """Return the numbers of a section's table, and one clause for each kind of thing that was left out."""
    table = read_csv(path)
    if table is None:
        raise UsageError("it is empty")
    if tuple(table.columns) != COLUMNS:
        raise UsageError(f"its columns are {shorten(table.columns)}, not {list(COLUMNS)}")
    told = Problems(table.damage)
    found: dict[tuple[str, str, str], dict[str, Number]] = {}
    for count, (number, cells) in enumerate(table.rows):
        if len(cells) != len(COLUMNS):
            told.add(WIDTH, f"in line {number}")
        elif count >= _MOST_ROWS:
            told.add("rows that are more than a page can show are left out", f"in line {number}")
        else:
            network, images, layer, statistic, *numbers, _ = cells
            try:
                shown = [f"{float(cell):.4g}" if cell else "" for cell in numbers]
            except ValueError:
                told.add("rows without numbers where they belong are left out", f"in line {number}")
                continue
            found.setdefault((images, layer, statistic), {})[network] = Number(*shown)
    return found, told.clauses()


def _read_pictures(found: Interpretation, files: RunFiles) -> None:
    """Read the pictures of all sections; of two whose names begin alike, a picture is the longer one's."""
    size = 0
    for path in files.names("figures", ".png"):
        stem = Path(path).stem
        of = max((name for name in found.sections if stem.startswith(f"{name}_")), key=len, default=None)
        picture = None if of is None else files.read(path, read_picture, "it is not shown")
        if of is None or picture is None:
            continue
        size += len(picture)
        if size > _MOST_PICTURES:
            files.note(path, "and what comes after it is not shown: the pictures are too large together")
            return
        found.sections[of].pictures[stem[len(of) + 1 :]] = picture
