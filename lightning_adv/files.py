"""Writing files so that nothing already written is lost and no reader sees half of one."""

from __future__ import annotations

import itertools
import os
from pathlib import Path


def set_aside(path: Path) -> Path | None:
    """Rename a file that a resumed run writes anew: ``results.json`` becomes ``results-until-resume-1.json``.

    Returns:
        The new path; None if there is no such file.
    """
    if not path.is_file():
        return None
    names = (path.with_name(f"{path.stem}-until-resume-{number}{path.suffix}") for number in itertools.count(1))
    aside = next(name for name in names if not name.exists())
    os.replace(path, aside)
    return aside


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all, and make its folder. A link is followed.

    Raises:
        ValueError: There is something else than a file in its place.
    """
    path = path.resolve()
    if path.exists() and not path.is_file():  # a pipe or a device would be replaced by a file
        raise ValueError(f"{path} is no file that could be written.")
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.part")
    unfinished.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(unfinished, path)
