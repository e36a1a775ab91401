"""What a cell's folder tells of it: whether it is done, why its last attempt failed, and how long it has taken."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightning_adv.core.errors import UsageError
from lightning_adv.core.files import to_json, write_whole
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
    """Return whether a cell has its result."""
    return result_of(folder, command).is_file()


def last_checkpoint(folder: Path) -> Path | None:
    """Return what a cell's training goes on from; None where it begins."""
    path = folder / "version_0" / "checkpoints" / "last.ckpt"
    return path if path.is_file() else None


def lock_of(folder: Path) -> Path:
    """Return the lock that whoever runs a cell holds; beside the cell's folder, which tells nothing but the cell."""
    folder = folder.resolve()
    return folder.with_name(f".{folder.name}.lock")


def read_failure(folder: Path) -> Failure | None:
    """Return why a cell's last attempt failed; None where none has."""
    told = _read(folder / FAILED)
    return Failure(told["error"], told.get("traceback"), told.get("attempts", 1)) if "error" in told else None


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
