"""What ``--retry`` puts out of the way of cells: files that are damaged, and runs that lack a file that others need.

Nothing is deleted: what is put aside keeps its place beside what takes its name, as ``aside-NAME``.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lightning_adv.core.errors import UsageError
from lightning_adv.core.locks import alone
from lightning_adv.core.reading import MEGABYTE, read_json
from lightning_adv.nn.weights.load import read_checkpoint
from lightning_adv.studies.attempts import is_done, lock_of, read_failure, set_aside
from lightning_adv.studies.cells import Cell, replace_texts, run_folder
from lightning_adv.studies.folder import status_of

_IN_RUN = r"/checkpoints/\w+\.ckpt"


class Again(NamedTuple):
    """A cell that is done and has to be run again.

    Attributes:
        cell: The cell.
        lost: The file that is not there, or damaged.
        reader: The cell that reads it.
    """

    cell: Cell
    lost: Path
    reader: Cell


def put_damage_aside(cell: Cell) -> Iterator[tuple[Path, Path]]:
    """Put aside what of a cell that failed cannot be read, so that the next attempt does not end there again.

    A result, and parts of an evaluation, are computed again alone. Training cannot go on without one of its
    checkpoints, so its whole run folder is put aside, and it begins anew.

    Args:
        cell: The cell; its lock is held.

    Yields:
        What was damaged, and where what was put aside is.

    Raises:
        OSError: It cannot be renamed.
    """
    run = run_folder(cell)
    if cell.command == "fit":
        damaged = [path for path in sorted((run / "checkpoints").glob("*.ckpt")) if not _is_checkpoint(path)]
        if damaged:
            yield damaged[0], set_aside(run)
            return
    for path in [run / "results.json"] if cell.command == "fit" else sorted(run.rglob("*.json")):
        if path.is_file() and not _is_json(path):
            yield path, set_aside(path)


def upstream_again(cells: Sequence[Cell]) -> list[Again]:
    """Put aside the runs of cells that are done and lack a file that a cell that is still to be run reads.

    Args:
        cells: The cells of a study, each after those that it needs.

    Returns:
        The cells that are to be run again.

    Raises:
        OSError: A folder cannot be renamed.
    """
    by_id = {cell.id: cell for cell in cells}
    again: dict[str, Again] = {}
    for cell in reversed(cells):
        if cell.id not in again and status_of(cell) in ("done", "begun"):  # the second goes on from its own
            continue
        for needed in (by_id[id_] for id_ in cell.needs if id_ not in again):
            lost = next((path for path in _files(cell, run_folder(needed)) if not _is_whole(path)), None)
            if lost is not None and is_done(needed.folder, needed.command):
                again[needed.id] = Again(needed, lost, cell)
    for cell, *_ in again.values():
        with alone(lock_of(cell.folder), f"The cell {cell.folder}", instead="stop it", wait=float("inf")):
            set_aside(run_folder(cell))
    return list(again.values())


def _files(cell: Cell, run: Path) -> list[Path]:
    """Return what a cell reads in a run folder: what its configuration names, and what its last error does."""
    found: list[str] = []

    def note(path: str) -> str:
        found.append(path)
        return path

    replace_texts(cell.configuration, re.compile(f"^({re.escape(str(run))}.*)"), note)
    failure = read_failure(cell.folder, cell.command)
    if failure is not None:
        found += re.findall(re.escape(str(run)) + _IN_RUN, failure.error)
    return [Path(path) for path in dict.fromkeys(found)]


def _is_whole(path: Path) -> bool:
    return _is_checkpoint(path) if path.suffix == ".ckpt" else path.exists()


def _is_checkpoint(path: Path) -> bool:
    try:
        found = path.stat()
    except OSError:
        return False
    return _reads(path, found.st_mtime_ns, found.st_size)


@functools.lru_cache(maxsize=1000)  # of a network that hundreds of cells begin with
def _reads(path: Path, changed: int, size: int) -> bool:
    """Return whether a file is a checkpoint; ``changed`` and ``size`` tell when to look again."""
    try:
        return isinstance(read_checkpoint(path, argument="checkpoint"), Mapping)
    except UsageError:
        return False


def _is_json(path: Path) -> bool:
    try:
        read_json(path, most=1000 * MEGABYTE)
    except UsageError:
        return False
    return True
