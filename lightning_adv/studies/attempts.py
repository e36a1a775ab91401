"""What a cell's folder tells of it: whether it is done, why its last attempt failed, and how long it has taken."""

from __future__ import annotations

import functools
import itertools
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightning_adv.core.errors import UsageError
from lightning_adv.core.files import to_json, write_whole
from lightning_adv.core.locks import try_lock
from lightning_adv.core.reading import read_json

LOG = "log.txt"
FAILED = "failed.json"
SECONDS = "seconds.json"
_RESULTS = {
    "fit": "version_0/results.json",
    "evaluate": "result/evaluation.json",
    "transfer": "result/transfer.json",
}


@dataclass(frozen=True)
class Failure:
    """Why the last attempt at a cell failed.

    Args:
        error: One line.
        traceback: Where the error is not one that the user can mend by a setting; else None.
        attempts: How many attempts have failed.
    """

    error: str
    traceback: str | None = None
    attempts: int = 1


def result_of(folder: Path, command: str) -> Path:
    """Return the file that the command of a cell writes last: where it is there, the cell is done.

    Example:
        >>> result_of(Path("cells/retrain-0a1b2c3d4e"), "evaluate").as_posix()
        'cells/retrain-0a1b2c3d4e/result/evaluation.json'
    """
    return folder / _RESULTS[command]


def is_done(folder: Path, command: str) -> bool:
    """Return whether a cell has its result, whole: one that cannot be read is none."""
    return _damage(folder, command) == ""


def _damage(folder: Path, command: str) -> str | None:
    """Return why a cell's result cannot be read; nothing of one that is whole, None where there is none."""
    path = result_of(folder, command)
    try:
        found = os.stat(path)
    except OSError:
        return None
    return _read_whole(path, found.st_mtime_ns, found.st_size)


@functools.lru_cache(maxsize=100_000)  # each is looked at again after each cell of a study
def _read_whole(path: Path, changed: int, size: int) -> str:
    """Return why a file is no mapping in JSON, or nothing; ``changed`` and ``size`` tell when to look again."""
    try:
        return "" if isinstance(read_json(path), dict) else "it is not a mapping"
    except UsageError as error:
        return str(error)


def last_checkpoint(folder: Path) -> Path | None:
    """Return what a cell's training goes on from; None where it begins."""
    path = folder / "version_0" / "checkpoints" / "last.ckpt"
    return path if path.is_file() else None


def lock_of(folder: Path) -> Path:
    """Return the lock that whoever runs a cell holds; beside the cell's folder, which tells nothing but the cell."""
    folder = folder.resolve()
    return folder.with_name(f".{folder.name}.lock")


def is_held(folder: Path) -> bool:
    """Return whether a process runs a cell now, on this machine or, with a file system that knows of it, another."""
    try:
        descriptor = os.open(lock_of(folder), os.O_RDWR)
    except OSError:  # nobody does
        return False
    try:
        return not try_lock(descriptor)
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(descriptor)


def read_failure(folder: Path, command: str) -> Failure | None:
    """Return why a cell's last attempt failed, or what is wrong with its result; None where nothing is."""
    if damage := _damage(folder, command):
        return Failure(f"{result_of(folder, command).name} cannot be read: {damage}.")
    told = _read(folder / FAILED)
    error, more, attempts = told.get("error"), told.get("traceback"), told.get("attempts")
    if not isinstance(error, str):
        return None
    return Failure(error, more if isinstance(more, str) else None, attempts if isinstance(attempts, int) else 1)


def set_aside(folder: Path) -> Path:
    """Rename a folder, so that another can be made in its place; ``version_0`` is ``aside-version_0`` then.

    Returns:
        Where it is now.

    Raises:
        OSError: It cannot be renamed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     for _ in range(2):
        ...         (Path(place) / "result").mkdir()
        ...         print(set_aside(Path(place) / "result").name)
        aside-result
        aside-result-2
    """
    name = f"aside-{folder.name}"
    names = (name if number == 1 else f"{name}-{number}" for number in itertools.count(1))
    aside = next(place for place in (folder.with_name(each) for each in names) if not os.path.lexists(place))
    return folder.rename(aside)


def write_failure(folder: Path, failure: Failure) -> None:
    """Write down why an attempt failed.

    Raises:
        OSError: It cannot be written.
    """
    write_whole(folder / FAILED, to_json(asdict(failure)))


def read_seconds(folder: Path) -> float | None:
    """Return the wall seconds of all attempts at a cell; None where nobody has written them down."""
    seconds = _read(folder / SECONDS).get("seconds")
    return float(seconds) if isinstance(seconds, int | float) else None


@contextmanager
def counting_seconds(folder: Path) -> Iterator[None]:
    """Add the seconds of an attempt to those of the attempts before it.

    An attempt that was killed has left when it began; it is taken to have lasted until it last wrote into its log.

    Raises:
        OSError: They cannot be written.
    """
    seconds, killed = read_seconds(folder) or 0.0, _read(folder / SECONDS).get("began")
    if isinstance(killed, int | float):
        with suppress(OSError):
            seconds += max((folder / LOG).stat().st_mtime - float(killed), 0.0)
    write_whole(folder / SECONDS, to_json({"seconds": seconds, "began": time.time()}))
    began = time.monotonic()
    try:
        yield
    finally:
        write_whole(folder / SECONDS, to_json({"seconds": seconds + time.monotonic() - began}))


def _read(path: Path) -> dict[str, Any]:
    """Return a file of an attempt; nothing where there is none, or it is damaged: no number depends on it."""
    try:
        content = read_json(path)
    except (OSError, UsageError):
        return {}
    return content if isinstance(content, dict) else {}
