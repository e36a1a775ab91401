"""What every engine of studies promises, as one check: for engines of one's own, and for those of this package."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from lightning_adv.studies.engines.base import Engine, WorkerLostError
from lightning_adv.studies.engines.sample import MODULE, TICK, run_sample
from lightning_adv.testing.training_step import require

_PATIENCE = 120.0  # seconds for a worker to start, or to be found lost
_SILENCE = 1.0  # seconds without a tick, after which the process has ended


def check_engine(engine: Engine, folder: str | Path | None = None) -> None:
    """Check that an engine keeps what every engine promises, with cells that do next to nothing.

    1. Each cell runs once, and is told once; more may be submitted than run at once.
    2. What the work raises is told, of its own class where that can be pickled, and the engine goes on.
    3. A worker that dies is told as :class:`~lightning_adv.studies.engines.base.WorkerLostError`, and the cell runs
       when it is submitted again.
    4. Cells run in the command's working directory and find the modules that the command finds.
    5. Waiting ends when its time is over.
    6. Closing ends cells in the middle, and may be done twice; the engine can be opened again.

    Args:
        engine: An engine, as it is built. It is opened with two workers of one thread, and closed.
        folder: An empty folder that all its machines see; default: a temporary one of this machine.

    Raises:
        AssertionError: A promise is broken; the message says which.

    Example:
        >>> from lightning_adv.studies.engines.local import LocalEngine
        >>> check_engine(LocalEngine())
    """
    if folder is None:
        with TemporaryDirectory() as temporary:
            check_engine(engine, temporary)
        return
    cells = _Cells(engine, Path(folder).resolve())
    module = cells.root / f"{MODULE}.py"
    module.write_text("VALUE = 7\n")
    sys.path.append(str(cells.root))
    try:
        engine.open(run_sample, workers=2, threads=1)
        require(engine.slots >= 1, "An engine runs at least one cell at once", f"slots are {engine.slots}")
        _check_cells(cells)
        _check_end(cells)
    finally:
        engine.close()
        sys.path.remove(str(cells.root))


class _Cells:
    """Cells that an engine is given, and what it has told of them."""

    def __init__(self, engine: Engine, root: Path) -> None:
        self.engine, self.root = engine, root
        self.told: dict[str, list[BaseException | None]] = {}

    def submit(self, what: str, name: str | None = None) -> Path:
        """Submit a cell that does what its name begins with, and return its folder."""
        folder = self.root / (name or what)
        folder.mkdir(exist_ok=True)
        (folder / "what").write_text(what)
        self.engine.submit(str(folder))
        return folder

    def wait(self, *folders: Path) -> None:
        """Wait until these have ended."""
        until = time.monotonic() + _PATIENCE
        for folder in folders:
            self.told.pop(str(folder), None)
        while missing := [folder.name for folder in folders if str(folder) not in self.told]:
            require(time.monotonic() < until, "A cell that has ended is told", f"nothing was said of {missing}")
            for ended, error in self.engine.wait(1.0):
                self.told.setdefault(ended, []).append(error)


def _check_cells(cells: _Cells) -> None:
    """Check what is told of cells that end."""
    ordinary = [cells.submit("write", f"write{number}") for number in range(3)]
    raising, hiding, dying = cells.submit("raise"), cells.submit("hide"), cells.submit("die")
    cells.wait(*ordinary, raising, hiding, dying)
    require(not cells.engine.wait(0.1), "A cell is told once", "one was told after all had been")
    for folder in ordinary:
        told, runs = cells.told[str(folder)], (folder / "runs").read_text()
        require(told == [None] and runs == "x", "Each cell runs once", f"{folder.name}: {told}, {len(runs)} runs")
        place = (folder / "place").read_text()
        require(place == f"{os.getcwd()} 7", "Cells run in the command's working directory", f"one ran in {place}")
    told = [*cells.told[str(raising)], *cells.told[str(hiding)]]
    kept = len(told) == 2 and isinstance(told[0], LookupError) and all("words of the work" in str(one) for one in told)
    require(kept, "What the work raises is told, of its class or in its words", f"told was {told}")
    told = cells.told[str(dying)]
    lost = len(told) == 1 and isinstance(told[0], WorkerLostError) and str(told[0])
    require(bool(lost), "A worker that dies is told as WorkerLostError, with words", f"told was {told}")
    cells.wait(cells.submit("write", dying.name))
    told = cells.told[str(dying)]
    require(told == [None], "A lost cell can be submitted again", f"told was {told}")


def _check_end(cells: _Cells) -> None:
    """Check that waiting and closing end."""
    ticking = cells.submit("tick")
    begun = time.monotonic()
    while not (ticking / "ticks").exists():
        require(time.monotonic() < begun + _PATIENCE, "A cell begins", "it did not, with workers free")
        time.sleep(TICK)
    begun = time.monotonic()
    told = cells.engine.wait(0.5)
    waited = time.monotonic() - begun
    require(not told and 0.4 < waited < 5, "Waiting ends when its time is over", f"it told {told} after {waited:.1f} s")
    cells.engine.close()
    cells.engine.close()
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        ticks = (ticking / "ticks").stat().st_size
        time.sleep(_SILENCE)
        if (ticking / "ticks").stat().st_size == ticks:
            break
    else:
        raise AssertionError("Closing ends cells in the middle: one goes on.")
    cells.engine.open(run_sample, workers=1, threads=1)
    cells.wait(cells.submit("write", "opened_again"))
