"""Standard output and error whose failures end no command: a character that cannot be shown, a reader that is gone."""

from __future__ import annotations

import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class _NeverFailing(io.RawIOBase):
    """Writes to a descriptor, and nowhere once that has failed: a pipe's reader has gone, or the disk is full."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._failed = False

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return os.isatty(self._descriptor)

    def write(self, data: Any) -> int:
        """Write as much as goes now; all of it once nothing goes any more."""
        while not self._failed:
            try:
                return os.write(self._descriptor, data)
            except BlockingIOError:
                select.select([], [self._descriptor], [])
            except OSError:
                self._failed = True
        return len(data)


@contextmanager
def streams_that_never_fail() -> Iterator[None]:
    """Let no output of a block fail: what an encoding lacks is shown as ``?``.

    Streams that are not the process's own, such as those of a notebook, stay as they are.
    """
    before = {name: getattr(sys, name) for name in ("stdout", "stderr")}
    for name, stream in before.items():
        if type(stream) is io.TextIOWrapper:
            raw = io.BufferedWriter(_NeverFailing(stream.fileno()))
            lines, through = stream.line_buffering, stream.write_through
            replaced = io.TextIOWrapper(raw, stream.encoding, "replace", line_buffering=lines, write_through=through)
            setattr(sys, name, replaced)
    try:
        yield
    finally:
        for name, stream in before.items():
            if getattr(sys, name) is not stream:
                getattr(sys, name).flush()
                setattr(sys, name, stream)


@contextmanager
def output_into(path: Path) -> Iterator[None]:
    """Append to a file what a block writes to the standard output and error, libraries and started processes too.

    A disk that is full ends nothing: what was to be written is lost.

    Raises:
        OSError: The file cannot be opened.
    """
    streams = {name: getattr(sys, name) for name in ("stdout", "stderr")}
    with path.open("ab", buffering=0) as file:
        for stream in streams.values():
            stream.flush()
        saved = {number: os.dup(number) for number in (1, 2)}
        try:
            for number, name in zip(saved, streams, strict=True):
                os.dup2(file.fileno(), number)
                raw = io.BufferedWriter(_NeverFailing(number))
                setattr(sys, name, io.TextIOWrapper(raw, "utf-8", "replace", line_buffering=True))
            yield
        finally:
            for number, (name, stream) in zip(saved, streams.items(), strict=True):
                getattr(sys, name).flush()
                setattr(sys, name, stream)
                os.dup2(saved[number], number)
                os.close(saved[number])
