"""A study of one-epoch digits runs against the same runs as commands in a shell loop.

README.md beside this file says what is measured and how to read the table.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import json
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median

import psutil
import yaml
from startup import Command, Cost, cell, ours, spend

HERE = Path(__file__).resolve().parent
CONFIG = "digits/standard"
SETTINGS = {"trainer.max_epochs": 1, "trainer.accelerator": "cpu"}
MEASURED = ("clean_accuracy", "robust_accuracy")
_LOOK = 0.2  # seconds between two looks at the processes
_PR_SET_CHILD_SUBREAPER = 36  # of Linux: who has lost its parent becomes a child of this process

Contender = Callable[[Path, int], Cost]
"""Runs so many cells in a folder, and returns what that took."""


def shell_loop(folder: Path, cells: int) -> Cost:
    options = [f"--{key}={value}" for key, value in SETTINGS.items()]
    costs = [
        _cost(ours("fit", f"--config={CONFIG}", f"--seed_everything={seed}", *options), folder) for seed in range(cells)
    ]
    return Cost(sum(cost.cpu for cost in costs), sum(cost.wall for cost in costs))


def study(*options: str) -> Contender:
    """Return the command with an engine."""

    def run(folder: Path, cells: int) -> Cost:
        content = {"config": CONFIG, "seeds": list(range(cells)), "set": SETTINGS, "threads": 1}
        (folder / "study.yaml").write_text(yaml.safe_dump(content))
        return _cost(_study(*options), folder)

    return run


def _cost(command: Command, folder: Path) -> Cost:
    """Return what a command takes, with all of its processes: ``getrusage`` leaves out those that nobody waits for."""
    with _watched() as seconds:
        wall = spend(command, HERE.parent, folder).wall
    return Cost(sum(seconds.values()), wall)


@contextmanager
def _watched() -> Iterator[dict[tuple[int, float], float]]:
    """Note the CPU seconds of each process below this one while a block runs, a process known by pid and beginning."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    seconds: dict[tuple[int, float], float] = {}
    over = threading.Event()

    def look() -> None:
        this = psutil.Process()
        while not over.wait(_LOOK):
            for process in this.children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    times = process.cpu_times()
                    seconds[process.pid, process.create_time()] = times.user + times.system

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield seconds
    finally:
        over.set()
        watcher.join()
        with suppress(ChildProcessError):
            while os.waitpid(-1, 0):  # what the command has left: all of it ends by itself
                pass


def _study(*options: str) -> Command:
    return ours("study", "--config=study.yaml", "-o=study", *options)


CONTENDERS: dict[str, Contender] = {
    "fit commands in a loop": shell_loop,
    "study, one worker": study("--workers=1"),
    "study, one worker of Ray": study("--workers=1", "--engine=ray"),
}


def accuracies(folder: Path) -> list[tuple[float, ...]]:
    """Return the accuracies of the runs in a folder, those of a study or of a loop, by seed."""
    if (table := folder / "study" / "study.csv").is_file():
        with table.open(newline="") as file:
            return [tuple(float(row[name]) for name in MEASURED) for row in csv.DictReader(file)]
    runs = sorted(folder.glob("runs/*/version_*/results.json"), key=lambda path: int(path.parent.name.split("_")[1]))
    told = [json.loads(path.read_text()) for path in runs]
    return [tuple(results[name] for name in MEASURED) for results in told]


def take_turns(contenders: Sequence[str], cells: int, rounds: int) -> dict[str, list[Cost]]:
    """Return what each took in each round; in every other round they come the other way round.

    Raises:
        RuntimeError: The accuracies of two are not the same.
    """
    costs: dict[str, list[Cost]] = {name: [] for name in contenders}
    expected = None
    for number in range(rounds):
        for name in list(contenders)[:: 1 if number % 2 == 0 else -1]:
            with tempfile.TemporaryDirectory() as folder:
                costs[name].append(CONTENDERS[name](Path(folder), cells))
                found = accuracies(Path(folder))
            expected = found if expected is None else expected
            if found != expected or len(found) != cells:
                raise RuntimeError(f"{name} has other accuracies: {found}, and not {expected}")
    return costs


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--cells", type=int, default=16, help="how many runs")
    parser.add_argument("--contenders", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS))
    parser.add_argument("--rounds", type=int, default=3, help="times that each is measured")
    parser.add_argument("--json", type=Path, help="file for the seconds of every round")
    args = parser.parse_args(arguments)
    costs = take_turns(args.contenders, args.cells, args.rounds)
    print(f"\n{args.cells} cells, {args.rounds} rounds, one thread, Python {sys.version.split()[0]}\n")
    print("| | CPU s | of the first | wall s |\n|---|---|---|---|")
    first = costs[args.contenders[0]]
    for name, own in costs.items():
        shares = [one.cpu / other.cpu for one, other in zip(own, first, strict=True)]
        print(f"| {name} | {cell([one.cpu for one in own])} | {median(shares):.2f} | {cell([c.wall for c in own])} |")
    if args.json is not None:
        args.json.write_text(json.dumps({name: [cost._asdict() for cost in own] for name, own in costs.items()}))


if __name__ == "__main__":
    main()
