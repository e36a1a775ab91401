"""Several processes of one command: when one of them has ended, all end, and the reason is said.

Lightning's launcher ends the others by itself when one that it launched has ended, but not when it has itself, and on a
SIGTERM every process waits in a broadcast that the others may never enter (Lightning 2.6, _SignalConnector). What is
here needs nothing of a thread that waits for another process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence

_LAUNCHER = "LIGHTNING_ADV_LAUNCHER"
_ending = threading.Lock()
_kept: set[int] = set()


def follow_launcher() -> None:
    """End this process when the one that launched it has ended; called first, since importing takes seconds.

    A process that was launched by anything else is left alone, and is the launcher of those that it launches.
    """
    parent = os.getppid()
    if os.environ.get("LOCAL_RANK", "0") != "0" and os.environ.get(_LAUNCHER) == str(parent):
        threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    os.environ[_LAUNCHER] = str(os.getpid())


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.2)
    _end(1, f"Process {parent}, which launched this one (rank {os.environ['LOCAL_RANK']}), has ended: it ends too.\n")


def let_launcher_end() -> None:
    """Wait a second after an error in a process that was launched: the launcher's end is said, where it is the cause.

    A collective operation fails as soon as the connection does, which is before :func:`follow_launcher` looks again.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0":
        time.sleep(1)


def keep_together(launched: Sequence[subprocess.Popen[bytes]], go_on: Callable[[], str]) -> None:
    """Let a SIGTERM end this process at once, and with it those that it launched; and let their ends end this one.

    Called in every process, and again after anything else has taken the signal.

    Args:
        launched: The other processes, where this one launched them.
        go_on: Returns a sentence on how to go on, or nothing.
    """
    if threading.current_thread() is not threading.main_thread():  # only there can a signal be taken
        return
    signal.signal(signal.SIGTERM, lambda *_: None)
    if os.getpid() in _kept:
        return
    _kept.add(os.getpid())
    # Python runs a handler when its main thread comes back, but the main thread may wait in a collective operation for
    # ever. The byte comes at once.
    heard, told = os.pipe()
    os.set_blocking(told, False)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    threading.Thread(target=_hear, args=(heard, launched, go_on), daemon=True).start()
    for rank, process in enumerate(launched, start=1):
        threading.Thread(target=_wait, args=(rank, process, launched, go_on), daemon=True).start()


def _hear(heard: int, launched: Sequence[subprocess.Popen[bytes]], go_on: Callable[[], str]) -> None:
    while os.read(heard, 1) != bytes([signal.SIGTERM]):
        pass
    leads = os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"  # one of them speaks
    _end(128 + signal.SIGTERM, f"Stopped by SIGTERM.{go_on()}\n" if leads else "", launched)


def _wait(
    rank: int,
    process: subprocess.Popen[bytes],
    launched: Sequence[subprocess.Popen[bytes]],
    go_on: Callable[[], str],
) -> None:
    status = process.wait()
    if status == 0:
        return
    by = -status if status < 0 else status - 128  # by the signal itself, or by what is above
    if by > 0:
        why, status = f"by {signal.Signals(by).name}", 128 + by
    else:
        why = f"with status {status}"
        time.sleep(1)  # it is an error, which this process mostly has too, and tells better
    _end(status, f"Rank {rank} (process {process.pid}) has ended {why}: the others end too.{go_on()}\n", launched)


def _end(status: int, words: str, launched: Sequence[subprocess.Popen[bytes]] = ()) -> None:
    """End at once; the first thread that wants it says why."""
    if not _ending.acquire(blocking=False):
        return
    sys.stderr.write(words)
    sys.stderr.flush()
    for process in launched:
        process.kill()
    os._exit(status)
