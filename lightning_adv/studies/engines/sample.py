"""Cells that do next to nothing, by which an engine is checked; this module imports neither torch nor Lightning."""

from __future__ import annotations

import importlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

MODULE = "only_on_the_path_of_the_command"
TICK = 0.02
"""Seconds."""


def run_sample(folder: str) -> None:
    """Do what the file ``what`` in a cell's folder says.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "what").write_text("raise")
        ...     try:
        ...         run_sample(folder)
        ...     except LookupError:
        ...         print("raised", Path(folder, "runs").read_text())
        raised x
    """
    path = Path(folder)
    with (path / "runs").open("a") as file:
        file.write("x")
    _DO[(path / "what").read_text()](path)


def _write(path: Path) -> None:
    value = importlib.import_module(MODULE).VALUE
    (path / "place").write_text(f"{os.getcwd()} {value}")


class HiddenError(Exception):
    """An exception that cannot be unpickled."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} {two}")


def _raise(path: Path) -> None:
    raise LookupError("words of the work")


def _hide(path: Path) -> None:
    raise HiddenError("words", "of the work")


def _die(path: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _tick(path: Path) -> None:
    while True:
        with (path / "ticks").open("a") as file:
            file.write("x")
        time.sleep(TICK)


_DO: dict[str, Callable[[Path], None]] = {"write": _write, "raise": _raise, "hide": _hide, "die": _die, "tick": _tick}
