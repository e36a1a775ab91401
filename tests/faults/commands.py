"""Commands in processes of their own, which can be killed: forks of a process that has imported the package already."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from lightning_adv.cli import main

_ROOT = Path(__file__).parents[2]
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "lightning_adv.commands.fit.command",
        "lightning_adv.commands.evaluate.command",
        "lightning_adv.commands.report",
    ]
)


class Command:
    """A command that runs in a folder; what it says goes to a file beside it.

    Args:
        folder: Its working directory.
        arguments: The command line without the program's name.
        temporary: Its folder for temporary files.
    """

    def __init__(self, folder: Path, *arguments: str, temporary: Path | None = None) -> None:
        self._said = folder / f"said-{time.monotonic_ns()}.txt"
        self.process = _CONTEXT.Process(target=_run, args=(folder, arguments, self._said, temporary or folder))
        sys.path.append(str(_ROOT))  # where the new process finds this module
        try:
            self.process.start()
        finally:
            sys.path.remove(str(_ROOT))
        self._began = time.monotonic()

    def kill_when(self, happened: Callable[[], bool]) -> bool:
        """Kill it by SIGKILL as soon as something has happened; return whether it had not ended before."""
        while self.process.is_alive():
            if happened():
                os.kill(self.process.pid, signal.SIGKILL)
                self.process.join()
                return self.process.exitcode == -signal.SIGKILL
        return False

    def kill_after(self, seconds: float) -> bool:
        """Kill it by SIGKILL; return whether it had not ended before."""
        return self.kill_when(lambda: time.monotonic() - self._began > seconds or time.sleep(0.001) is not None)

    def wait(self) -> tuple[int, str]:
        """Return its exit status and what it said, once it has ended."""
        self.process.join()
        return self.process.exitcode, self._said.read_text(encoding="utf-8")


def _run(folder: Path, arguments: tuple[str, ...], said: Path, temporary: Path) -> None:
    os.chdir(folder)
    os.environ["TMPDIR"], tempfile.tempdir = str(temporary), None
    descriptor = os.open(said, os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    sys.argv = ["lightning-adv", *arguments]
    main()
