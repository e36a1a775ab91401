"""The files of a run folder, which somebody else may have packed: what is not there, and what cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from lightning_adv.core.errors import UsageError
from lightning_adv.core.reading import shorten

_Read = TypeVar("_Read")


class RunFiles:
    """A run folder, of which each file is read or noted down. Nothing outside of it is: a page is often passed on.

    Args:
        folder: The run folder.

    Attributes:
        missing: One sentence for each thing that is not there.
        damaged: By file, one sentence for each thing that cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.missing: list[str] = []
        self.damaged: dict[str, list[str]] = {}

    def has(self, name: str) -> bool:
        """Return whether there is something of a name, of whatever kind; also where nobody may look."""
        try:
            (self.folder / name).lstat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            pass
        return True

    def read(self, name: str, reader: Callable[[Path], _Read], without: str, absent: str | None = None) -> _Read | None:
        """Return what a file says; None, and a note, where it is not there or cannot be read.

        Args:
            name: The file's path in the folder.
            reader: Reads it; raises a ValueError whose reason does not name the file.
            without: What the page lacks without it.
            absent: What it means that the file is not there; the same if it is not given.
        """
        if not self.has(name):
            self.missing.append(f"There is no {name}: {absent or without}.")
            return None
        try:
            return reader(self._inside(name))
        except (ValueError, OSError, RuntimeError) as error:  # the last: links in a circle, before Python 3.13
            reason = error.strerror if isinstance(error, OSError) else error
            self.note(name, f"cannot be read ({shorten(reason, 300)}): {without}")
            return None

    def note(self, name: str, clause: str) -> None:
        """Note what is wrong with a file; the clause goes on after its name."""
        self.damaged.setdefault(name, []).append(f"{shorten(name)} {clause}.")

    def names(self, folder: str, suffix: str) -> list[str]:
        """Return the paths of the files in a folder of the run folder, in the order of their names."""
        if not self.has(folder):
            return []
        found = self.read(folder, lambda path: [each.name for each in path.iterdir()], "what is in it is not shown")
        return [f"{folder}/{name}" for name in sorted(found or ()) if name.endswith(suffix)]

    def _inside(self, name: str) -> Path:
        path = (self.folder / name).resolve()
        if not path.is_relative_to(self.folder.resolve()):
            raise UsageError("it is a link that leads out of the run folder")
        return path
