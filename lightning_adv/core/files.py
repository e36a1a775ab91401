"""Writing files so that nothing already written is lost and no reader sees half of one."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from lightning_adv.core.errors import UsageError
from lightning_adv.core.locks import try_lock

_UNFINISHED = re.compile(r"(?P<name>.+)\.[0-9a-f]{8}\.part")


def set_aside(path: Path) -> Path | None:
    """Rename a file that a resumed run writes anew: ``results.json`` becomes ``results-until-resume-1.json``.

    Returns:
        The new path; None if there is no such file.
    """
    if not path.is_file():
        return None
    aside = _aside(path)
    os.replace(path, aside)
    return aside


def keep_aside(path: Path) -> Path:
    """Copy a file that a resumed run cuts, under the name that :func:`set_aside` gives; it stays where it is too.

    Returns:
        The copy.
    """
    aside = _aside(path)
    write_whole(aside, path.read_bytes())
    return aside


def _aside(path: Path) -> Path:
    names = (path.with_name(f"{path.stem}-until-resume-{number}{path.suffix}") for number in itertools.count(1))
    return next(name for name in names if not name.exists())


def to_json(content: Mapping[str, Any]) -> str:
    """Return plain data as JSON, which knows neither NaN nor infinity: they are null, and ``not_finite`` names them.

    Example:
        >>> print(to_json({"loss": float("inf")}))
        {
          "loss": null,
          "not_finite": {
            "loss": "inf"
          }
        }
        <BLANKLINE>
    """
    found: dict[str, str] = {}

    def plain(value: Any, name: str) -> Any:
        if isinstance(value, Mapping):
            return {key: plain(item, f"{name}.{key}" if name else str(key)) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item, f"{name}.{number}") for number, item in enumerate(value)]
        if isinstance(value, float) and not math.isfinite(value):
            found[name] = str(value)
            return None
        return value

    told = plain(content, "")
    return json.dumps(told | {"not_finite": found} if found else told, indent=2, ensure_ascii=False) + "\n"


def write_whole(path: Path, content: str | bytes | memoryview) -> None:
    """Write a file whole or not at all, and make its folder. A link is followed.

    Raises:
        UsageError: There is something else than a file in its place.
        OSError: It cannot be written; what was there stays. The error has the file's name.
    """
    with writing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Write a file that gets its name when the block ends, and is gone where it ends in an error.

    It lies beside its place, since a rename is only whole within one file system, under a name of its own that
    :func:`clear_unfinished` knows. Its content is on the disk before it gets its name: after a power cut there is the
    file that was there before or the new one.

    Args:
        path: The file's place. Its folder is made, and a link is followed.

    Raises:
        UsageError: There is something else than a file in its place.
        OSError: It cannot be written; what was there stays. The error has the file's name.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with writing(Path(folder) / "table.csv") as file:
        ...         _ = file.write(b"epoch,loss")
        ...     (Path(folder) / "table.csv").read_text()
        'epoch,loss'
    """
    path = path.resolve()
    if path.exists() and not path.is_file():  # a pipe or a device would be replaced by a file
        raise UsageError(f"{path} is no file that could be written.")
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("xb") as file:
            with suppress(OSError):  # a file system without locks: then a file that a kill leaves is not cleared
                try_lock(file.fileno())
            yield file
            file.flush()
            os.fsync(file.fileno())
            if os.name == "nt":  # where an open file cannot be renamed
                file.close()
            os.replace(unfinished, path)
    except BaseException as error:  # an interrupt too
        with suppress(OSError):
            unfinished.unlink()
        if isinstance(error, OSError):  # that of a full disk names no file, and nobody knows the unfinished one
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def unwritable(error: OSError) -> str:
    """Return a sentence of an error that names a file: which one, and why."""
    return f"{error.filename}: {error.strerror}."


def clear_unfinished(folder: Path, name: str | None = None) -> None:
    """Remove what processes that were killed while writing have left; for the start of a command.

    Whoever is writing holds a lock on the file, which the kernel releases with the process.

    Args:
        folder: Where to look, not below it.
        name: Only what would have become this file; None for all.
    """
    with suppress(OSError):
        for path in list(folder.iterdir()):
            found = _UNFINISHED.fullmatch(path.name)
            if found is None or name not in (None, found["name"]):
                continue
            with suppress(OSError), path.open("rb+") as file:
                if try_lock(file.fileno()):
                    path.unlink()
