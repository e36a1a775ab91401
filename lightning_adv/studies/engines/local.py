"""The engine that needs nothing: processes of this machine, each kept alive for many cells."""

from __future__ import annotations

import atexit
import os
import pickle
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing import connection, get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from lightning_adv.studies.engines.base import Engine, WorkerLostError, sendable

Work = Callable[[str], None]


class LocalEngine(Engine):
    """Runs cells in processes of this machine, which import Python's packages once and not once for each cell.

    The threads of the processor and the GPUs are divided between the processes: of four GPUs, each of two workers sees
    two, and each of eight shares one with another. ``CUDA_VISIBLE_DEVICES`` says which GPUs there are, where it is set.

    A worker that dies is replaced by another. All end with this process, however it ends, and take the processes that
    they have started with them.

    Example:
        >>> engine = LocalEngine()
        >>> engine.open(print, workers=1, threads=1)
        >>> engine.submit("runs/a")
        >>> engine.wait(60.0)
        [('runs/a', None)]
        >>> engine.close()
    """

    def __init__(self) -> None:
        self._workers: list[_Worker] = []
        self._waiting: deque[str] = deque()

    def open(self, work: Work, *, workers: int, threads: int) -> None:
        """Start the workers; they import while this process goes on."""
        for gpus in divided(visible_gpus(), workers):
            environment = {"OMP_NUM_THREADS": str(threads)}
            if gpus:
                environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
            self._workers.append(_Worker(work, environment))
        atexit.register(self.close)  # before multiprocessing waits for its processes at the end of this one

    @property
    def slots(self) -> int:
        """How many cells run at once: one in each worker."""
        return len(self._workers)

    def submit(self, folder: str) -> None:
        """Give a cell to a worker that has none, or let it wait for one."""
        self._waiting.append(folder)
        self._hand_out()

    def wait(self, seconds: float) -> list[tuple[str, BaseException | None]]:
        """Wait until a cell has ended; a worker that has died is replaced."""
        busy = [worker for worker in self._workers if worker.folder is not None]
        if not busy:
            time.sleep(seconds)
            return []
        ready = connection.wait([worker.connection for worker in busy], seconds)
        ended = [worker.end() for worker in busy if worker.connection in ready]
        self._workers = [worker.again() if worker.dead else worker for worker in self._workers]
        self._hand_out()
        return ended

    def close(self) -> None:
        """Kill the workers: a cell that is running goes on from its last checkpoint another time."""
        self._waiting.clear()
        for worker in self._workers:
            worker.kill()
        self._workers.clear()
        atexit.unregister(self.close)

    def _hand_out(self) -> None:
        for worker in self._workers:
            if worker.folder is None and self._waiting:
                worker.begin(self._waiting.popleft())


class _Worker:
    """A process that runs one cell after another.

    Args:
        work: What it does with a cell's folder.
        environment: Variables of the process, which are there before it imports anything.

    Attributes:
        folder: The cell that it runs; None if it runs none.
        dead: Whether the process has ended.
    """

    def __init__(self, work: Work, environment: Mapping[str, str]) -> None:
        self._work, self._environment = work, environment
        self.folder: str | None = None
        self.dead = False
        context = get_context("spawn")  # a fork of a process that has used CUDA, or has threads, does not work
        self.connection, theirs = context.Pipe()
        # Not a daemon, which may start no process: loaders of data do.
        self._process: SpawnProcess = context.Process(target=_serve, args=(theirs, pickle.dumps(work)))
        with _in_environment(environment):
            self._process.start()
        theirs.close()  # so that the connection ends with the process

    def begin(self, folder: str) -> None:
        """Send a cell; a worker that has died meanwhile is found when its cell is waited for."""
        self.folder = folder
        with suppress(BrokenPipeError):
            self.connection.send(folder)

    def end(self) -> tuple[str, BaseException | None]:
        """Return the cell that has ended and the error of its work, once the connection has something to say."""
        folder, self.folder = str(self.folder), None
        try:
            error: BaseException | None = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.kill()
            error = WorkerLostError(f"the worker ended {_how(self._process.exitcode)}")
        return folder, error

    def again(self) -> _Worker:
        """Return a worker in the place of this one."""
        return _Worker(self._work, self._environment)

    def kill(self) -> None:
        """End the process and those that it has started, and wait for its end."""
        assert self._process.pid is not None
        with suppress(ProcessLookupError):  # it does not lead a group yet, or none is left of it
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.join()
        self.connection.close()
        self.dead = True


def _serve(cells: Connection, work: bytes) -> None:
    """What a worker does: run cells until there are no more."""
    os.setpgid(0, 0)  # Ctrl-C is for the command, which ends its workers; and a group is killed with one call
    threading.Thread(target=_follow_parent, daemon=True).start()
    run: Work = pickle.loads(work)  # now: it imports torch
    while True:
        try:
            cell = cells.recv()
        except EOFError:
            return
        error: BaseException | None = None
        try:
            run(cell)
        except BaseException as raised:  # an exit too: the worker goes on with other cells
            error = raised
        cells.send(sendable(error))


def _follow_parent() -> None:
    """End this process, and those that it has started, with the one that has started it."""
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os.killpg(0, signal.SIGKILL)


def _how(status: int | None) -> str:
    """Say how a process ended.

    Example:
        >>> _how(-9), _how(1)
        ('by SIGKILL (of a user, or for want of memory)', 'with status 1')
    """
    if status is None or status >= 0:
        return f"with status {status}"
    told = signal.Signals(-status).name
    return f"by {told} (of a user, or for want of memory)" if told == "SIGKILL" else f"by {told}"


@contextmanager
def _in_environment(given: Mapping[str, str]) -> Iterator[None]:
    """Let a process that is started have these variables from its beginning."""
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def divided(gpus: list[str], workers: int) -> list[list[str]]:
    """Divide GPUs between workers: each has its own, or shares one where there are fewer.

    Example:
        >>> divided(["0", "1", "2", "3"], 2), divided(["0", "1"], 3), divided([], 2)
        ([['0', '2'], ['1', '3']], [['0'], ['1'], ['0']], [[], []])
    """
    if not gpus:
        return [[] for _ in range(workers)]
    return [gpus[number::workers] or [gpus[number % len(gpus)]] for number in range(workers)]


def visible_gpus() -> list[str]:
    """Return the GPUs that a process may use, as ``CUDA_VISIBLE_DEVICES`` names them; none where there are none."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip() not in ("", "-1")]
    try:
        # nvidia-smi -L has a line for each: asking torch would take seconds, and CUDA's state into this process
        told = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [str(number) for number, line in enumerate(told.stdout.splitlines()) if line.startswith("GPU ")]
