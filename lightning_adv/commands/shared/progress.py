"""How far a long piece of work is: a bar on a terminal, lines of text in a pipe, a file or the log of a cluster."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

ItemT = TypeVar("ItemT")


class Pace:
    """Says when a line about work is due: the first soon after it began, the others seldom.

    Example:
        >>> Pace().due()
        False
    """

    FIRST, EVERY = 10.0, 60.0
    """Seconds until the first line, and between the next ones."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self._next = self.began + self.FIRST

    @property
    def seconds(self) -> float:
        """Seconds since the work began."""
        return time.monotonic() - self.began

    def due(self) -> bool:
        """Whether it is time for a line; the next one is due later."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self.EVERY
        return True


@contextmanager
def shown_progress(what: str, total: int, *, shown: bool = True) -> Iterator[Callable[[int], None]]:
    """Show how far work is, and give what to call with each number of samples that is done.

    Args:
        what: What is being done, such as ``"attacking"``.
        total: The number of samples that there is to do.
        shown: False shows nothing: this is not the first process.
    """
    if not shown:
        yield lambda samples: None
    elif sys.stdout.isatty():
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, TextColumn("elapsed,"), TimeRemainingColumn(), TextColumn("to go")) as bar:
            task = bar.add_task(what, total=total)
            yield lambda samples: bar.update(task, advance=samples)
    else:
        yield _Lines(what, total).advance


def tracked(items: Iterable[ItemT], what: str, total: int) -> Iterator[ItemT]:
    """Return the items again, and show how many of them are done."""
    with shown_progress(what, total) as advance:
        for item in items:
            yield item
            advance(1)


class _Lines:
    """Prints how far work is, now and then."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._done, self._pace = what, total, 0, Pace()

    def advance(self, samples: int) -> None:
        self._done += samples
        if self._pace.due():
            to_go = self._pace.seconds * (self._total - self._done) / self._done if self._done else float("inf")
            told = f"{self._done:,} of {self._total:,}, {self._pace.seconds:.0f} s, about {to_go:.0f} s to go"
            print(f"{self._what}: {told}", flush=True)
