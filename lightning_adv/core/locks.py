"""Locks on files: one process at a time writes into a folder, and a lock ends with its process.

They are ``flock``'s, which the kernel takes back however a process ends. On NFS, Linux asks the server, so that they
hold between machines too, unless it is mounted with ``nolock`` or ``local_lock``; Lustre has them with the mount option
``flock``, and within one machine only with ``localflock``. Where a file system refuses, it is said, and the command
goes on without.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from lightning_adv.core.errors import UsageError

if sys.platform != "win32":
    import fcntl

_log = logging.getLogger("lightning_adv")
_held: set[int] = set()


def try_lock(descriptor: int) -> bool:
    """Lock an open file, without waiting; closing it releases the lock.

    Returns:
        Whether it is locked now; False if another process, or another opening of this one, holds it. Windows has no
        such locks: always True there.

    Raises:
        OSError: The file system has no locks.
    """
    if sys.platform != "win32":
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
    return True


@contextmanager
def alone(path: Path, what: str, *, instead: str, wait: float = 0.0) -> Iterator[None]:
    """Hold a lock while a block runs; the file is there as long, and so are folders that are made for it.

    Args:
        path: The lock's file.
        what: What is being written, with the argument that named it: ``"output: runs/x"``.
        instead: What else can be done than to wait: ``"give another --output"``.
        wait: For how many seconds to wait for another process.

    Raises:
        UsageError: Another process holds it.
        OSError: The file cannot be made.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, alone(Path(folder) / ".lock", folder, instead="go"):
        ...     print((Path(folder) / ".lock").is_file())
        True
    """
    made = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + wait
    while (descriptor := _take(path)) is None and time.monotonic() < until:
        time.sleep(0.05)
    if descriptor is None:
        raise UsageError(f"{what} is being written by {_holder(path)}: wait until it has ended, or {instead}.")
    _held.add(descriptor)
    try:
        yield
    finally:
        _held.discard(descriptor)
        with suppress(OSError):
            path.unlink()  # before it is released: whoever opened it meanwhile sees that it is no longer there
        os.close(descriptor)
        with suppress(OSError):  # there is something in it now
            for folder in made:
                folder.rmdir()


def _take(path: Path) -> int | None:
    """Return the open file once it is locked; None if another process holds it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            taken = try_lock(descriptor)
        except OSError as error:
            _log.warning(
                f"{path.parent} is on a file system without locks ({error.strerror}): see to it that no other process "
                "writes there."
            )
            return descriptor
        if not taken:
            os.close(descriptor)
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                break
        os.close(descriptor)  # its holder has just removed it
    me = {"pid": os.getpid(), "host": platform.node(), "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}
    with suppress(OSError):  # it is held on a full disk too; who holds it is not said there
        os.truncate(descriptor, 0)
        os.write(descriptor, json.dumps(me).encode())
    return descriptor


def _holder(path: Path) -> str:
    """Say who holds a lock."""
    try:
        told: Any = json.loads(path.read_text(encoding="utf-8"))
        return f"process {told['pid']} on {told['host']}, since {told['since']}"
    except (OSError, ValueError, KeyError, TypeError):  # it is about to write it down, or has just ended
        return "another process"


def _let_go() -> None:
    """Close the locks in a forked process, such as a loader's worker: it may outlive the one that holds them."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
