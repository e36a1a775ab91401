"""What a dotted path names, with the line of the user's own module where that cannot be imported."""

from __future__ import annotations

import importlib
import traceback
from pathlib import Path
from types import ModuleType

from lightning_adv.core.errors import UsageError


def find_module(path: str) -> tuple[ModuleType | None, list[str]]:
    """Import the longest part of a dotted path that is a module, for a path that the user names or trusts.

    Returns:
        The module, None where there is none, and the names after it: a class may lie in another.

    Raises:
        UsageError: A module is there, and raises when it is imported.

    Example:
        >>> find_module("lightning_adv.core.errors.UsageError.under")
        (<module 'lightning_adv.core.errors' from '...errors.py'>, ['UsageError', 'under'])
        >>> find_module("no_such_package.Network")
        (None, [])
    """
    parts = path.split(".")
    for length in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:length])
        try:
            return importlib.import_module(module), parts[length:]
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise _failed(path, error) from error
        except Exception as error:  # whatever the user's module raises is the user's to read
            raise _failed(path, error) from error
    return None, []


def _failed(path: str, error: Exception) -> UsageError:
    """Return the error of a module that is there and cannot be imported, with the line that raised."""
    return UsageError(f"{path!r} cannot be imported: {told_with_line(error)}.")


def told_with_line(error: Exception) -> str:
    """Return what an exception says, and the file and the line that raised it, which is the user's own code.

    Example:
        >>> try:
        ...     raise KeyError("width")
        ... except KeyError as error:
        ...     told_with_line(error)
        "KeyError: 'width' (..., line 2)"
    """
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} ({error.filename}, line {error.lineno})"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    own = [frame for frame in frames if Path(frame.filename) != Path(__file__)]
    where = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{where}"
