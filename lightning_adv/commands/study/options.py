"""The command line of ``lightning-adv study``: its own options, and any key of the study file."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_adv.commands.shared.configs import find_config
from lightning_adv.commands.shared.plain_parser import PlainParser
from lightning_adv.commands.shared.sources import Text, load_text
from lightning_adv.commands.shared.trusting import HELP as TRUST_HELP
from lightning_adv.core.errors import UsageError
from lightning_adv.core.suggestions import did_you_mean
from lightning_adv.studies.study_file import KEYS


@dataclass(frozen=True)
class Options:
    """What the command line says.

    Attributes:
        configs: The study files.
        name: The study's name, where no file gives one: ``digits-blockwise`` of ``studies/digits/blockwise``.
        overrides: Keys of the study file with their values.
        output: The study's folder; None is ``runs/NAME``.
        workers: How many cells run at once.
        engine: ``local``, ``ray``, ``slurm`` or a class path.
        engine_arguments: Arguments of the engine's class.
        dry_run: Only say what would be run.
        retry: Run the cells that failed again.
        yes: Run more than a thousand cells.
        trust: Packages whose classes files may name.
    """

    configs: list[Path]
    name: str
    overrides: list[tuple[str, Any]]
    output: Path | None
    workers: int
    engine: str
    engine_arguments: dict[str, Any]
    dry_run: bool
    retry: bool
    yes: bool
    trust: list[str]


def parse_options(arguments: Sequence[str]) -> Options:
    """Parse the command line.

    Args:
        arguments: What stands after ``study``.

    Raises:
        SystemExit: With status 2 where the arguments do not parse; 0 after ``--help``.
        UsageError: There is no study of a name, or an option lacks its value.
    """
    given, rest = _parser().parse_known_args(list(arguments))
    configs = [Path(find_config(name)) for name in given.config]
    engine, overrides = {}, []
    known = [*KEYS, *(name for name in vars(given) if name != "config")]
    for key, value in _pairs(rest):
        first, _, below = key.partition(".")
        if first == "engine" and below:
            engine[below] = value
        elif first in KEYS:
            overrides.append((key, value))
        else:
            names = [name.replace("_", "-") for name in known]
            raise UsageError(f"there is no such option.{did_you_mean(first, names)}", key=f"--{key}")
    return Options(
        configs=configs,
        name=_name(configs[0]),
        overrides=overrides,
        output=given.output,
        workers=given.workers,
        engine=given.engine,
        engine_arguments=engine,
        dry_run=given.dry_run,
        retry=given.retry,
        yes=given.yes,
        trust=[name.strip() for each in given.trust for name in each.strip("[]").split(",")],
    )


def _pairs(rest: Sequence[str]) -> list[tuple[str, Any]]:
    pairs = []
    waiting = list(rest)
    while waiting:
        option = waiting.pop(0)
        name, equals, value = option.partition("=")
        if not name.startswith("--"):
            raise UsageError(f"{option!r} belongs to no option. See lightning-adv study --help.")
        if not equals:
            if not waiting or waiting[0].startswith("--"):
                raise UsageError("it needs a value. See lightning-adv study --help.", key=name)
            value = waiting.pop(0)
        pairs.append((name[2:], load_text(Text(value))))
    return pairs


def _name(path: Path) -> str:
    """Return the name of a study file: below a folder ``studies`` that of its folder too.

    Example:
        >>> _name(Path("configs/studies/digits/blockwise.yaml")), _name(Path("mine/widths.yaml"))
        ('digits-blockwise', 'widths')
    """
    parts = path.with_suffix("").parts
    below = parts[len(parts) - parts[::-1].index("studies") :] if "studies" in parts[:-1] else parts[-1:]
    return "-".join(below)


def _parser() -> argparse.ArgumentParser:
    parser = PlainParser(
        prog="lightning-adv study",
        description="Train and evaluate a grid of runs: what varies and the stages of each point are in a study file. "
        "The same command again goes on, and what is done is not done twice.",
        epilog="Any key of the study file is an option too, such as --seeds '[0]', --threads 1, or "
        "--set.trainer.max_epochs 1 for every network that is trained.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "-c", "--config", action="append", required=True, metavar="NAME_OR_FILE",
        help="a study's name, such as studies/digits/blockwise, or a file; a later one overrides an earlier one",
    )  # fmt: skip
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="the study's folder (default: runs/NAME)")
    parser.add_argument(
        "--workers", type=_count, default=1, metavar="N", help="how many cells run at once (default: %(default)s)"
    )
    parser.add_argument(
        "--engine", default="local", metavar="NAME",
        help="where cells run: local, ray, slurm, or the class path of an engine (default: %(default)s); --engine.KEY "
        "sets an argument of it, such as --engine.address",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="print the cells, what is there, and the time left")
    parser.add_argument("--retry", action="store_true", help="run the cells that failed once more")
    parser.add_argument("--yes", action="store_true", help="run a study of more than 1,000 cells")
    parser.add_argument("--trust", action="append", default=[], metavar="PACKAGE", help=TRUST_HELP)
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text}")
    return int(text)


def threads_of(threads: int | None, workers: int) -> int:
    """Return how many threads a cell computes with: those that are given, or its share of the cores."""
    if threads is not None:
        return threads
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(cores // workers, 1)
