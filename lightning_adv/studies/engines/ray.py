"""Cells on Ray: a cluster of its own on this machine, or one that is running."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from lightning_adv.core.errors import UsageError
from lightning_adv.studies.engines.base import Engine, WorkerLostError
from lightning_adv.studies.engines.place import InPlace

_OBJECT_STORE = 80 * 2**20  # bytes, about the least that Ray takes: nothing but a folder's name goes through it
_LONGEST_TEMPORARY_FOLDER = 30  # characters: Ray's sockets lie 76 below, and the name of a socket has at most 107
_ANSWER = 30  # seconds
_TOKEN = secrets.token_hex(32)


class RayEngine(Engine):
    """Runs each cell as a task of Ray Core, in workers that are kept for the next cell.

    Without an address it starts a cluster on this machine, for the study only. All nodes of a running cluster see the
    study's folder, the working directory and the installed packages under the same paths, through a shared file
    system; their environment variables are those of their ``ray start``.

    Args:
        address: ``HOST:PORT`` of a running cluster that this machine is a node of, or ``auto`` for the one that runs on
            it. Default: the environment variable ``RAY_ADDRESS``; without it, a cluster of its own.
        gpus_per_cell: GPUs that a cell reserves, such as 0.25 or 2. Default: those of the cluster divided by the
            workers, at most 1. A worker that had a GPU ends with its cell, as Ray has it.

    Example:
        >>> RayEngine(address="10.0.0.5:6379", gpus_per_cell=0.5)
        RayEngine(address='10.0.0.5:6379', gpus_per_cell=0.5)
    """

    def __init__(self, address: str | None = None, gpus_per_cell: float | None = None) -> None:
        self.address, self.gpus_per_cell = address, gpus_per_cell
        self._slots = 1
        self._running: dict[Any, str] = {}
        self._connected = False
        self._temporary: str | None = None

    def __repr__(self) -> str:
        return f"RayEngine(address={self.address!r}, gpus_per_cell={self.gpus_per_cell})"

    @property
    def slots(self) -> int:
        """How many cells run at once, on the whole cluster."""
        return self._slots

    def open(self, work: Callable[[str], None], *, workers: int, threads: int) -> None:
        """Start a cluster, or connect to the one that runs.

        Raises:
            UsageError: Ray is not installed, the cluster does not answer, or no node of it has what a cell needs.
        """
        _check_gpus(self.gpus_per_cell)
        ray = _ray()
        self._slots = workers
        address = self.address or os.environ.get("RAY_ADDRESS")
        if not ray.is_initialized():  # a program that has connected already keeps its cluster
            self._connected = True
            with _own_handlers():
                if address:
                    _connect(ray, address)
                else:
                    self._start(ray, workers * threads)
        try:
            gpus = _reserve(ray, threads, self.gpus_per_cell, workers)
        except UsageError:
            self.close()
            raise
        placed = InPlace(ray.cloudpickle.dumps(work))

        def run_cell(folder: str) -> BaseException | None:
            return placed(folder)

        # Given out again by the study, as for every engine, and counted there
        self._task = ray.remote(num_cpus=threads, num_gpus=gpus, max_retries=0)(run_cell)

    def _start(self, ray: ModuleType, cpus: int) -> None:
        """Start a cluster that ends with this process and writes only into a temporary folder."""
        parent = os.environ.get("RAY_TMPDIR", tempfile.gettempdir())
        self._temporary = tempfile.mkdtemp(
            prefix="ray-", dir=parent if len(parent) <= _LONGEST_TEMPORARY_FOLDER else "/tmp"
        )
        # Given a token, Ray writes none into the home folder
        with _variables(RAY_AUTH_TOKEN=_TOKEN, RAY_USAGE_STATS_ENABLED="0"):
            ray.init(
                address="local",
                num_cpus=cpus,
                object_store_memory=_OBJECT_STORE,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="error",
                _temp_dir=self._temporary,
            )

    def submit(self, folder: str) -> None:
        """Give a cell to Ray."""
        self._running[self._task.remote(folder)] = folder

    def wait(self, seconds: float) -> list[tuple[str, BaseException | None]]:
        """Wait for the cells that have ended."""
        ray = _ray()
        tasks = list(self._running)
        if not tasks:
            time.sleep(seconds)
            return []
        ended, _ = ray.wait(tasks, num_returns=1, timeout=seconds)
        if ended:
            ended, _ = ray.wait(tasks, num_returns=len(tasks), timeout=0)
        return [(self._running.pop(task), _exception(ray, task)) for task in ended]

    def close(self) -> None:
        """Cancel what runs; end the cluster if it is this engine's, leave another."""
        ray = _ray()
        for task in self._running:
            ray.cancel(task, force=True)
        self._running.clear()
        if self._connected:
            with _own_handlers():
                ray.shutdown()
            self._connected = False
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None


def _ray() -> ModuleType:
    """Import Ray."""
    try:
        import ray
    except ImportError as error:
        raise UsageError("engine: RayEngine needs ray: pip install 'lightning-adv[ray]'.") from error
    module: ModuleType = ray
    return module


def _check_gpus(gpus: float | None) -> None:
    """Say what Ray does not divide."""
    if gpus is not None and (gpus < 0 or (gpus > 1 and gpus != int(gpus))):
        raise UsageError(
            f"it must be a fraction of a GPU between 0 and 1 or a whole number of them, got {gpus}.",
            key="engine.gpus_per_cell",
        )


def _connect(ray: ModuleType, address: str) -> None:
    """Connect to a running cluster, within seconds or not at all."""
    host, _, port = address.rpartition(":")
    try:
        if address != "auto":
            if not host or not port.isdigit():
                raise ValueError("it must be HOST:PORT or auto")
            socket.create_connection((host, int(port)), timeout=_ANSWER).close()
            _ask_whether_it_answers(address)
        ray.init(address=address, log_to_driver=False, logging_level="error")
    except (OSError, RuntimeError, ValueError) as error:
        why = " ".join(str(error).split())
        raise UsageError(
            f"there is no cluster of Ray that this machine is a node of at {address!r} ({why}); start one by `ray "
            "start`, or give no address for one on this machine.",
            key="engine.address",
        ) from error


def _ask_whether_it_answers(address: str) -> None:
    """Raise an error if what listens there is not Ray: connecting would take minutes, and ends for no signal."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "status", "--address", address]
    try:
        subprocess.run(command, capture_output=True, timeout=_ANSWER)
    except subprocess.TimeoutExpired:
        raise ConnectionError(f"what listens there does not answer as Ray does within {_ANSWER} seconds") from None


def _reserve(ray: ModuleType, threads: int, gpus: float | None, workers: int) -> float:
    """Return the GPUs of a cell, after a look whether a node has what it needs: Ray waits for such a node for ever."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if gpus is None:
        gpus = min(1.0, int(sum(node.get("GPU", 0.0) for node in nodes) / workers * 1000) / 1000)
    if not any(node.get("CPU", 0.0) >= threads and node.get("GPU", 0.0) >= gpus for node in nodes):
        has = "; ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise UsageError(
            f"engine: a cell needs a node with {threads} CPUs (threads) and {gpus:g} GPUs (gpus_per_cell), the nodes "
            f"of the cluster have {has}."
        )
    return gpus


def _exception(ray: ModuleType, task: Any) -> BaseException | None:
    """Return what the work of a task that has ended has raised."""
    try:
        raised: BaseException | None = ray.get(task)
    except ray.exceptions.RayTaskError as error:  # before the work: the package is not there
        return RuntimeError(str(error).strip().splitlines()[-1])
    except ray.exceptions.RayError as error:
        return WorkerLostError(str(error).strip().splitlines()[0])
    return raised


@contextmanager
def _own_handlers() -> Iterator[None]:
    """Keep the handler of SIGTERM, in the place of which Ray puts its own."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is not handler:
            signal.signal(signal.SIGTERM, handler)


@contextmanager
def _variables(**values: str) -> Iterator[None]:
    """Set environment variables that are not set, for a block."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]
