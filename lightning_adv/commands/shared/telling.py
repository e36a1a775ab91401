"""How a command ends where something is wrong: one line for what the user can mend, a traceback for everything else."""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from lightning_adv.core.errors import UsageError
from lightning_adv.core.files import unwritable
from lightning_adv.core.suggestions import bounded

_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


@contextmanager
def told_in_one_line(program: str, *, also: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """End the command with one line on the standard error, where the user can mend what is wrong.

    Args:
        program: What stands before the line, such as ``"lightning-adv evaluate"``.
        also: Exceptions by which a library refuses what the user has set.

    Raises:
        SystemExit: With status 1 after a UsageError, one of ``also``, or an OSError of a file that this package or the
            disk is to blame for.
    """
    try:
        yield
    except UsageError as error:
        _end(program, bounded(sentence(error)), error)
    except OSError as error:
        if error.filename is None or not (_met_by_us(error) or error.errno in _OF_THE_DISK):
            raise
        _end(program, bounded(unwritable(error)) + "".join(getattr(error, "__notes__", ())), error)
    except also as error:
        _end(program, " ".join(str(error).split()), error)


def _end(program: str, told: str, error: Exception) -> NoReturn:
    sys.stderr.write(f"{program}: error: {told}\n")
    raise SystemExit(1) from error


def sentence(error: UsageError) -> str:
    """Return what an error says, without the traceback that torch puts before it in a loader's worker process.

    Example:
        >>> sentence(UsageError("eps must be at least 0.", key="attack"))
        'attack: eps must be at least 0.'
    """
    return str(error).rpartition(f"\n{type(error).__module__}.{type(error).__qualname__}: ")[2].strip()


def _met_by_us(error: OSError) -> bool:
    """Whether this package met the error, itself or through Python's own modules, and not the user or a library."""
    modules = [str(frame.f_globals.get("__name__", "")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    others = [name for name in modules if name.partition(".")[0] not in sys.stdlib_module_names]
    return bool(others) and others[-1].startswith("lightning_adv.")
