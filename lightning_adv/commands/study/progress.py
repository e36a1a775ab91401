"""How far a study is: a bar on a terminal, a line for each cell elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

from lightning_adv.commands.shared.printing import plain_console
from lightning_adv.studies.attempts import LOG
from lightning_adv.studies.cells import Cell, Plan
from lightning_adv.studies.scheduling import Event
from lightning_adv.studies.time_left import TimeLeft, duration

_MOST_NAMED = 3
"""Cells that the bar names at a time."""


class StudyProgress:
    """Shows what happens to the cells of a study.

    Args:
        plan: The study.
        workers: How many cells run at once.
    """

    def __init__(self, plan: Plan, workers: int) -> None:
        self._plan, self._workers = plan, workers
        self._time = TimeLeft(plan)
        self._running: dict[str, tuple[Cell, float]] = {}
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._to_go: tuple[float, list[str]] = (0.0, [])
        self._told_at = time.monotonic()

    @contextmanager
    def shown(self, statuses: Mapping[str, str]) -> Iterator[None]:
        """Show the bar, where the output is a terminal, while a block runs."""
        if not sys.stdout.isatty():
            yield
            return
        columns = (BarColumn(), MofNCompleteColumn(), _ToGo(self), TextColumn("{task.description}", markup=False))
        with Progress(*columns, console=plain_console()) as self._bar:
            self._task = self._bar.add_task("starting", total=len(self._plan.cells))
            self._refresh(statuses)
            yield
        self._bar = None

    def take(self, event: Event, statuses: Mapping[str, str]) -> None:
        """Show what has happened.

        Args:
            event: It.
            statuses: The status of each cell by id, after it.
        """
        cell = event.cell
        _, began = self._running.pop(cell.id, (cell, time.monotonic()))
        if event.kind == "began":
            self._running[cell.id] = (cell, time.monotonic())
        self._refresh(statuses)
        if event.kind == "failed":
            self._say(f"{cell.label}: failed: {event.told} (its log: {cell.folder / LOG})")
        elif event.kind == "lost":
            self._say(f"{cell.label}: {event.told}; another worker goes on with it")
        elif event.kind == "held":
            self._say(f"{cell.label}: another study runs it; this one waits for the result")
        elif event.kind == "waits":
            self._say(f"{cell.label}: not run, since what it needs failed")
        elif event.kind == "done" and self._bar is None:
            ended = sum(status == "done" for status in statuses.values())
            told = f"{cell.label}: done in {duration(time.monotonic() - began)}"
            print(f"[{ended} of {len(self._plan.cells)}] {told}{self.to_go()}", flush=True)

    def to_go(self) -> str:
        """Return how long the rest takes, as the end of a line; nothing where nobody knows."""
        seconds, unknown = self._to_go
        left = seconds / self._workers - (time.monotonic() - self._told_at)
        if not seconds:
            return ""
        without = f" without {', '.join(unknown)}" if unknown else ""
        return f", about {duration(max(left, 0.0))} to go{without}"

    def _refresh(self, statuses: Mapping[str, str]) -> None:
        now = time.monotonic()
        self._to_go = self._time.seconds(statuses, [now - began for _, began in self._running.values()])
        self._told_at = now
        if self._bar is not None:
            named = [cell.label for cell, _ in self._running.values()]
            more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
            ended = sum(status in ("done", "failed", "waits") for status in statuses.values())
            self._bar.update(self._task, completed=ended, description="; ".join(named[:_MOST_NAMED]) + more)

    def _say(self, line: str) -> None:
        """Write a line on the standard error, above the bar."""
        if self._bar is not None:
            self._bar.console.print(line)
        else:
            sys.stderr.write(f"{line}\n")


class _ToGo(ProgressColumn):
    """How long the rest takes."""

    def __init__(self, progress: StudyProgress) -> None:
        super().__init__()
        self._progress = progress

    def render(self, task: Task) -> Text:
        """Return the column's text (rich's interface)."""
        return Text(self._progress.to_go().removeprefix(", "))
