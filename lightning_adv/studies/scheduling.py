"""Running the cells of a study: each once the cells that it needs are done, on whatever engine there is."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from lightning_adv.core.files import unwritable
from lightning_adv.studies.attempts import Failure, is_done, is_held, read_failure, write_failure
from lightning_adv.studies.cells import Cell
from lightning_adv.studies.engines.base import Engine, WorkerLostError

_LOSSES = 3
"""How often a cell whose worker was lost is given to another."""

_LOOK = 1.0
"""Seconds between two looks at a cell that another study runs."""


@dataclass(frozen=True)
class Event:
    """Something that happened to a cell.

    Args:
        kind: ``began`` (a worker has it), ``done``, ``failed``, ``lost`` (its worker died; another gets it), ``held``
            (another study runs it, and this one waits for the result), ``waits`` (what it needs failed: it is not run).
        cell: The cell.
        told: Why, in one line; empty where there is nothing to say.
    """

    kind: Literal["began", "done", "failed", "lost", "held", "waits"]
    cell: Cell
    told: str = ""


def run_cells(
    cells: Sequence[Cell],
    engine: Engine,
    *,
    retry: bool = False,
    on_event: Callable[[Event], None] = lambda event: None,
) -> dict[str, str]:
    """Run the cells that are not done, and return once none is left that could be run.

    A cell that fails stops only those that need it. A cell whose worker dies is given to another worker, at most three
    times. A cell that another study runs is waited for while there is anything else to do, and then taken over.

    Args:
        cells: The cells; those that are done are left alone. All that a cell needs are among them.
        engine: Where they run; it is open, and stays so.
        retry: Whether cells that failed before are run again.
        on_event: Called with what happens, in this thread.

    Returns:
        By cell, the error of those that failed, in one line.
    """
    return _Run(cells, engine, retry, on_event).to_the_end()


class _Run:
    def __init__(self, cells: Sequence[Cell], engine: Engine, retry: bool, on_event: Callable[[Event], None]) -> None:
        self._engine, self._tell = engine, on_event
        self._done = {cell.id for cell in cells if is_done(cell.folder, cell.command)}
        self._waiting = {cell.id: cell for cell in cells if cell.id not in self._done}
        self._running: dict[str, Cell] = {}
        self._failed: dict[str, str] = {}
        self._stuck: set[str] = set()
        self._held: set[str] = set()
        self._losses: Counter[str] = Counter()
        for cell in list(self._waiting.values()) if not retry else []:
            if (failure := read_failure(cell.folder, cell.command)) is not None:
                self._fail(cell, failure.error)

    def to_the_end(self) -> dict[str, str]:
        while True:
            self._take_over()
            self._leave_out_stuck()
            held = self._submit()
            if self._running:
                for folder, error in self._engine.wait(_LOOK if held else 3600.0):
                    self._end(self._running.pop(folder), error)
            elif held:
                time.sleep(_LOOK)
            else:
                assert not self._waiting, "a cell needs one that is not among them"
                return self._failed

    def _take_over(self) -> None:
        """Take what other studies have made of the cells that they ran."""
        for cell in [self._waiting[id_] for id_ in self._held & self._waiting.keys()]:
            if is_held(cell.folder):
                continue
            self._held.discard(cell.id)
            if is_done(cell.folder, cell.command) or read_failure(cell.folder, cell.command) is not None:
                del self._waiting[cell.id]
                self._end(cell, None)

    def _leave_out_stuck(self) -> None:
        """Leave out the cells that wait for one that failed, and those that wait for them."""
        while stuck := [cell for cell in self._waiting.values() if self._stuck & set(cell.needs)]:
            for cell in stuck:
                del self._waiting[cell.id]
                self._stuck.add(cell.id)
                self._tell(Event("waits", cell))

    def _submit(self) -> bool:
        """Give the engine as many cells as it runs at once; return whether there are cells that somebody else runs."""
        held = False
        for cell in list(self._waiting.values()):
            if len(self._running) >= self._engine.slots:
                break
            if not self._done >= set(cell.needs):
                continue
            if cell.id in self._held or is_held(cell.folder):
                held = True
                if cell.id not in self._held:
                    self._held.add(cell.id)
                    self._tell(Event("held", cell))
                continue
            del self._waiting[cell.id]
            self._running[str(cell.folder)] = cell
            self._tell(Event("began", cell))
            self._engine.submit(str(cell.folder))
        return held

    def _end(self, cell: Cell, error: BaseException | None) -> None:
        if is_done(cell.folder, cell.command):  # also where the worker died just after
            self._done.add(cell.id)
            self._tell(Event("done", cell))
        elif isinstance(error, WorkerLostError):
            self._lose(cell, str(error))
        elif error is not None:
            self._fail(cell, unwritable(error) if isinstance(error, OSError) else str(error))
        else:
            failure = read_failure(cell.folder, cell.command)
            self._fail(cell, "it has ended without a result" if failure is None else failure.error)

    def _lose(self, cell: Cell, told: str) -> None:
        self._losses[cell.id] += 1
        if (losses := self._losses[cell.id]) <= _LOSSES:
            self._waiting = {cell.id: cell, **self._waiting}  # the first: others may wait for it
            self._tell(Event("lost", cell, told))
            return
        failure = Failure(f"it has lost {losses} workers; of the last: {told}", attempts=losses)
        with suppress(OSError):  # of a full disk; it is told, and the next study runs the cell again
            write_failure(cell.folder, failure)
        self._fail(cell, failure.error)

    def _fail(self, cell: Cell, told: str) -> None:
        self._waiting.pop(cell.id, None)
        self._failed[cell.id] = told
        self._stuck.add(cell.id)
        self._tell(Event("failed", cell, told))
