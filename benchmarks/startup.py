"""The time from a command to its answer, or to the first training step; beside it, importing torch and Lightning alone.

README.md beside this file says what is measured and how to read the table.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
REACHED = 40  # first_step.REACHED, which cannot be imported without Lightning

_FIRST_STEP = ["--trainer.callbacks+=first_step.EndAfterFirstStep", "--trainer.accelerator=cpu"]
_SHORT = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.accelerator=cpu"]


class Command(NamedTuple):
    """A command line of Python's, and the status that it ends with."""

    arguments: list[str]
    status: int = 0


class Cost(NamedTuple):
    """What a process took, its children included.

    Attributes:
        cpu: Seconds of user and system time.
        wall: Seconds.
    """

    cpu: float
    wall: float


def ours(*arguments: str, status: int = 0) -> Command:
    return Command(["-m", "lightning_adv", *arguments], status)


COMMANDS = {
    "import torch alone": Command(["-c", "import torch"]),
    "import lightning.pytorch alone": Command(["-c", "import lightning.pytorch"]),
    "lightning-adv --help": ours("--help"),
    "a misspelled command": ours("fitt", status=2),
    "a misspelled configuration": ours("fit", "--config=digits/mardy", status=1),
    "lightning-adv fit --help": ours("fit", "--help"),
    "lightning-adv evaluate --help": ours("evaluate", "--help"),
    "lightning-adv transfer --help": ours("transfer", "--help"),
    "lightning-adv export --help": ours("export", "--help"),
    "lightning-adv export": ours("export", "--checkpoint=RUN/checkpoints/best.ckpt", "--overwrite"),
    "lightning-adv report": ours("report", "RUN"),
    "fit, digits/standard, to the first step": ours("fit", "--config=digits/standard", *_FIRST_STEP, status=REACHED),
    "fit, digits/madry, to the first step": ours("fit", "--config=digits/madry", *_FIRST_STEP, status=REACHED),
}


# The measurement ------------------------------------------------------------------------------------------------------


def spend(command: Command, checkout: Path, folder: Path) -> Cost:
    """Run a command in a process of its own and return what it took.

    Args:
        command: What to run; ``RUN`` in it is the run of :func:`make_run`.
        checkout: The repository that ``lightning_adv`` is imported from.
        folder: Where it runs.

    Raises:
        RuntimeError: It ended with another status than it should.
    """
    arguments = [argument.replace("RUN", "runs/digits-standard/version_0") for argument in command.arguments]
    paths = [str(checkout), str(HERE)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    ended = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if ended.returncode != command.status:
        told = f"{' '.join(arguments)} ended with {ended.returncode} instead of {command.status}"
        raise RuntimeError(f"{told}, in {checkout}:\n{ended.stderr}")
    return Cost(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall)


def make_run(checkout: Path, folder: Path) -> None:
    """Make the run that is exported and reported."""
    spend(ours("fit", "--config=digits/standard", *_SHORT), checkout, folder)


def take_turns(commands: Mapping[str, Command], checkouts: Mapping[str, Path], rounds: int) -> dict[str, list[Cost]]:
    """Return what each command took in each round, by "checkout: command".

    In a round the commands come in a random order, and a command's checkouts one after the other: A B, B A, A B, ...
    Files and bytecode are read once before, so that every round finds them cached.
    """
    shuffled = random.Random(0)
    costs: dict[str, list[Cost]] = {f"{label}: {name}": [] for name in commands for label in checkouts}
    with tempfile.TemporaryDirectory() as scratch:
        folders = {label: Path(scratch) / str(index) for index, label in enumerate(checkouts)}
        for label, folder in folders.items():
            folder.mkdir()
            make_run(checkouts[label], folder)
        for number in range(rounds + 1):
            for name in shuffled.sample(list(commands), len(commands)):
                for label in list(checkouts) if number % 2 == 0 else list(checkouts)[::-1]:
                    cost = spend(commands[name], checkouts[label], folders[label])
                    if number > 0:
                        costs[f"{label}: {name}"].append(cost)
    return costs


# The table ------------------------------------------------------------------------------------------------------------


_HEADINGS = {"cpu": "CPU s", "wall": "wall s"}


def cell(seconds: Sequence[float]) -> str:
    """Return the median, the lowest and the highest."""
    return f"{median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"


def print_table(costs: Mapping[str, Sequence[Cost]], commands: Sequence[str], labels: Sequence[str]) -> None:
    """Print a row for each command: CPU seconds by checkout, then wall seconds."""
    fields = [(kind, label) for kind in Cost._fields for label in labels]
    print(f"| | {' | '.join(f'{_HEADINGS[kind]}, {label}' for kind, label in fields)} |")
    print("|---" * (len(fields) + 1) + "|")
    for name in commands:
        cells = [cell([getattr(cost, kind) for cost in costs[f"{label}: {name}"]]) for kind, label in fields]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--before", type=Path, help="another checkout of this repository, to compare with")
    parser.add_argument("--commands", nargs="+", choices=list(COMMANDS), default=list(COMMANDS), metavar="COMMAND")
    parser.add_argument("--rounds", type=int, default=7, help="times that each command is run")
    parser.add_argument("--json", type=Path, help="file for the seconds of every round")
    args = parser.parse_args(arguments)
    checkouts = {} if args.before is None else {"before": args.before.resolve()}
    checkouts["now"] = HERE.parent
    costs = take_turns({name: COMMANDS[name] for name in args.commands}, checkouts, args.rounds)
    print(f"\n{args.rounds} rounds, one thread, Python {sys.version.split()[0]}\n")
    print_table(costs, args.commands, list(checkouts))
    if args.json is not None:
        args.json.write_text(json.dumps({name: [cost._asdict() for cost in own] for name, own in costs.items()}))


if __name__ == "__main__":
    main()
