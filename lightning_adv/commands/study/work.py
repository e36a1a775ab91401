"""What a worker does with one cell: the command that the cell is, in the cell's folder."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import lightning_adv.commands.fit.command  # noqa: F401 (a worker imports it before it is given a cell)
from lightning_adv.commands.running import run_command
from lightning_adv.commands.shared.run_folder import saved_checkpoints
from lightning_adv.commands.study.leftovers import no_leftovers
from lightning_adv.commands.study.mending import put_damage_aside
from lightning_adv.core.errors import UsageError
from lightning_adv.core.locks import alone
from lightning_adv.core.streams import output_into
from lightning_adv.core.suggestions import bounded
from lightning_adv.studies.attempts import (
    FAILED,
    LOG,
    Failure,
    counting_seconds,
    is_done,
    last_checkpoint,
    lock_of,
    read_failure,
    set_aside,
    write_failure,
)
from lightning_adv.studies.cells import Cell, run_folder
from lightning_adv.studies.engines.base import WorkerLostError
from lightning_adv.studies.folder import read_cell

_STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)
_TOLD = re.compile(r"^lightning-adv[ \w]*: error: (.+)$", re.MULTILINE)


def run_cell(folder: str) -> None:
    """Run a cell, or go on with it; a cell that is done stays as it is.

    What it prints is appended to ``log.txt``. Where another process runs it, this one waits.

    Args:
        folder: The cell's folder, with ``cell.json`` and ``config.yaml``.

    Raises:
        WorkerLostError: It was stopped by a signal.
        OSError: The folder cannot be written.
        UsageError: It fails, and the disk has no room for the reason.
    """
    path = Path(folder)
    cell = read_cell(path)
    with alone(lock_of(path), f"The cell {folder}", instead="stop it", wait=float("inf")):
        if is_done(path, cell.command):
            return
        known = read_failure(path, cell.command)
        with counting_seconds(path), no_leftovers():
            (path / FAILED).unlink(missing_ok=True)
            failure = _attempt(cell, again=known is not None)
        if failure is None:
            return
        attempts = 1 if known is None else known.attempts + 1
        try:
            write_failure(path, Failure(failure.error, failure.traceback, attempts))
        except OSError as error:
            raise UsageError(failure.error) from error


def _attempt(cell: Cell, *, again: bool) -> Failure | None:
    """Run a cell's command, and return why it failed; None where it has its result."""
    log = cell.folder / LOG
    begin = log.stat().st_size if log.exists() else 0
    status: int | str | None
    with output_into(log):
        torch.set_num_threads(cell.threads)
        for damaged, aside in put_damage_aside(cell) if again else ():
            print(f"{damaged} cannot be read: {aside} is put aside.")
        try:
            status, raised = (
                _run(_arguments(cell, again=again), alone=needs_own_process(cell.command, cell.configuration)),
                None,
            )
        except SystemExit as ended:
            status, raised = ended.code, None
        except Exception as error:
            traceback.print_exc()
            status, raised = 1, error
    if is_done(cell.folder, cell.command):
        return None
    if status in _STOPPED:  # a cluster takes its machine back; nothing is wrong with the cell
        raise WorkerLostError(f"it was stopped by {signal.Signals(status - 128).name}")
    with log.open("rb") as file:
        file.seek(begin)
        said = file.read().decode(errors="replace")
    if raised is not None:
        return Failure(_in_one_line(raised), "".join(traceback.format_exception(raised)))
    if found := _TOLD.findall(said):
        return Failure(bounded(found[-1]))
    if status in (0, None):
        return Failure(f"it has ended without a result: {_last_line(said)}")
    traced = said[said.rfind("Traceback (most recent call last)") :] if "Traceback (most" in said else None
    return Failure(f"{_last_line(said)} (status {status})", traced)


def _arguments(cell: Cell, *, again: bool) -> list[str]:
    """Return the command line of a cell; training goes on from its last checkpoint, or begins."""
    arguments = [cell.command, "--config", str(cell.folder / "config.yaml")]
    if cell.command != "fit":  # the same command again goes on by itself
        return arguments
    if (last := last_checkpoint(cell.folder)) is not None:
        return [*arguments, "--ckpt_path", str(last)]
    run = run_folder(cell)
    if again and saved_checkpoints(run):  # of training that nothing goes on from: the next is version 0 again
        set_aside(run)
    elif run.exists():  # killed before there was anything to go on from
        shutil.rmtree(run)
    return arguments


def _run(arguments: Sequence[str], *, alone: bool) -> int:
    """Run a command line in this process, or in one of its own; return its status.

    Raises:
        SystemExit: It failed in this process.
    """
    print(f"$ lightning-adv {' '.join(arguments)}")
    if alone:
        return subprocess.run([sys.executable, "-m", "lightning_adv", *arguments], check=False).returncode
    sys.argv = ["lightning-adv", *arguments]
    run_command(arguments)
    return 0


def needs_own_process(command: str, configuration: Mapping[str, Any]) -> bool:
    """Return whether a command starts further processes, which repeat the command line of the first.

    Args:
        command: ``fit``, ``evaluate`` or ``transfer``.
        configuration: Its whole configuration.

    Example:
        >>> needs_own_process("fit", {"trainer": {"accelerator": "cpu", "devices": 2, "strategy": "auto"}})
        True
        >>> needs_own_process("evaluate", {"accelerator": "cpu", "devices": "auto"})
        False
    """
    given = configuration.get("trainer", {}) if command == "fit" else configuration
    if given.get("strategy", "auto") != "auto" or (given.get("num_nodes") or 1) > 1:
        return True
    return _count(given.get("devices", "auto"), given.get("accelerator", "auto")) > 1


def _count(devices: Any, accelerator: str) -> int:
    """Return how many devices a Trainer would use, as Lightning reads the number, the list or the text."""
    if str(devices) in ("auto", "-1"):
        return torch.cuda.device_count() if accelerator in ("auto", "gpu", "cuda") else 1
    if isinstance(devices, str):
        parts = [part for part in devices.split(",") if part.strip()]
        return len(parts) if "," in devices else int(devices)
    return len(devices) if isinstance(devices, list) else int(devices)


def _in_one_line(error: Exception) -> str:
    """Say what was raised, and where: ``ValueError: no such layer (my_net.py, line 12, in forward)``."""
    said = " ".join(str(error).split())
    *_, (frame, line) = traceback.walk_tb(error.__traceback__)
    where = f"{Path(frame.f_code.co_filename).name}, line {line}, in {frame.f_code.co_name}"
    return bounded(f"{type(error).__name__}: {said} ({where})")


def _last_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return bounded(lines[-1]) if lines else "it said nothing"
