"""What runs the cells of a study: four methods, which an engine of one's own writes too."""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable


class WorkerLostError(Exception):
    """The process that ran a cell has ended before the cell had: killed, out of memory, or a crash in native code.

    The cell is given to another worker, which goes on where this one was. The message says how it ended, as far as
    the engine knows: ``"the worker ended with signal 9 (SIGKILL)"``.
    """


def sendable(error: BaseException | None) -> BaseException | None:
    """Return an exception that another process can read: itself, or what it says.

    Example:
        >>> sendable(KeyError("eps")), sendable(type("Hidden", (Exception,), {})("of no module"))
        (KeyError('eps'), RuntimeError('Hidden: of no module'))
    """
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever its class does when it is pickled
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


class Engine(ABC):
    """Where cells run. A study opens its engine, submits cells, waits for them, and closes it.

    All methods are called from one thread. An engine is an object of the configuration (``--engine.class_path``), so
    that its constructor's arguments are keys of it; what can fail belongs to :meth:`open`.

    Example:
        >>> class HereAndNow(Engine):
        ...     slots = 1
        ...
        ...     def open(self, work, *, workers, threads):
        ...         self.work, self.ended = work, []
        ...
        ...     def submit(self, folder):
        ...         self.work(folder)
        ...         self.ended.append((folder, None))
        ...
        ...     def wait(self, seconds):
        ...         ended, self.ended = self.ended, []
        ...         return ended
        ...
        ...     def close(self):
        ...         pass
        >>> engine = HereAndNow()
        >>> engine.open(print, workers=1, threads=1)
        >>> engine.submit("runs/a")
        runs/a
        >>> engine.wait(1.0)
        [('runs/a', None)]
    """

    @abstractmethod
    def open(self, work: Callable[[str], None], *, workers: int, threads: int) -> None:
        """Start what is needed to run cells, before the first is submitted.

        Args:
            work: Runs one cell, given its folder; it can be pickled. It returns after a cell that failed too, of which
                it writes down the reason; it raises where it cannot do even that.
            workers: How many cells run at once.
            threads: How many threads of the processor a cell computes with.

        Raises:
            UsageError: The engine is not installed or not reachable.
        """

    @property
    @abstractmethod
    def slots(self) -> int:
        """How many cells run at once; at least 1. More may be submitted, which then wait in the engine."""

    @abstractmethod
    def submit(self, folder: str) -> None:
        """Let a worker run the cell in a folder, and return at once.

        Args:
            folder: The cell's folder. The work sees the same files there as this process.
        """

    @abstractmethod
    def wait(self, seconds: float) -> list[tuple[str, BaseException | None]]:
        """Wait until a cell has ended.

        Args:
            seconds: For how long at most.

        Returns:
            The folders of the cells that have ended since the last call, each once: one or more, unless the time is
            over. With each the exception of the work, :class:`WorkerLostError` if its worker has died, or None.
        """

    @abstractmethod
    def close(self) -> None:
        """End all workers, also in the middle of cells, and wait until they have ended. May be called twice."""
