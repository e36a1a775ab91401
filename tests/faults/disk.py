"""A disk that is full: a small file system where the machine lets us mount one, else the kernel's limit on a file."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

MEGABYTE = 1024**2


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Let this process write no file beyond ``size`` bytes: the write fails with an OSError, as on a full disk."""
    _limit(size)
    try:
        yield
    finally:
        _limit(resource.RLIM_INFINITY)


class SmallDisk:
    """A folder whose disk can be filled and emptied.

    Args:
        path: The folder.
        mounted: Whether it is a file system of its own. Otherwise no file of this process grows while it is full.
    """

    def __init__(self, path: Path, *, mounted: bool) -> None:
        self.path = path
        self._mounted = mounted
        self._ballast = path / "ballast"

    def fill(self, leave: int = 0) -> None:
        """Leave room for so many bytes."""
        if not self._mounted:
            _limit(leave)
            return
        with self._ballast.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass
        os.truncate(self._ballast, max(self._ballast.stat().st_size - leave, 0))

    def empty(self) -> None:
        """Take the ballast away."""
        if self._mounted:
            self._ballast.unlink(missing_ok=True)
        else:
            _limit(resource.RLIM_INFINITY)


@contextmanager
def small_disk(path: Path, size: int = 8 * MEGABYTE) -> Iterator[SmallDisk]:
    """Mount a small file system in the memory, where the machine lets us."""
    path.mkdir()
    mounted = _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path))
    disk = SmallDisk(path, mounted=mounted)
    try:
        yield disk
    finally:
        disk.empty()
        if mounted:
            subprocess.run(["umount", "--lazy", str(path)], check=True)


@contextmanager
def read_only(path: Path) -> Iterator[None]:
    """Let nobody write a file, root included; a test is skipped where the machine has no way."""
    before = path.stat().st_mode
    path.chmod(0o444)
    mounted = os.access(path, os.W_OK) and _mount("--bind", "-o", "ro", str(path), str(path))
    if os.access(path, os.W_OK):
        pytest.skip("this machine has no file that nobody may write")
    try:
        yield
    finally:
        if mounted:
            subprocess.run(["umount", str(path)], check=True)
        path.chmod(before)


def _limit(size: int) -> None:
    """Set the largest size of a file; Python ignores the signal that comes with it."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (size if hard == resource.RLIM_INFINITY else min(size, hard), hard))


def _mount(*arguments: str) -> bool:
    try:
        return subprocess.run(["mount", *arguments], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False
