"""``lightning-adv study``: a grid of runs, its table and its figure; the same command again goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lightning_adv.commands.shared.telling import told_in_one_line
from lightning_adv.commands.shared.trusting import trust_given
from lightning_adv.commands.study.options import Options, parse_options, threads_of
from lightning_adv.core.errors import UsageError
from lightning_adv.studies.attempts import read_seconds
from lightning_adv.studies.cells import Plan, count_cells, make_plan
from lightning_adv.studies.folder import StudyFolder, seconds_left, statuses
from lightning_adv.studies.grid import expand
from lightning_adv.studies.study_file import Study, make_study, read_study_files

MOST_CELLS = 1000
STATUSES = ("done", "begun", "failed", "waits", "missing")


def run_study(arguments: Sequence[str]) -> None:
    """Run the command.

    Args:
        arguments: The command line after ``study``.

    Raises:
        SystemExit: With status 1 for something that is no study, told in one line before anything is trained, and at
            the end where a cell failed; 2 where the arguments do not parse; 130 after Ctrl-C.
    """
    with told_in_one_line("lightning-adv study"):
        options = parse_options(arguments)
        trust_given(options.trust or None)
        study = make_study(read_study_files(options.configs, options.overrides), name=options.name)
        folder = StudyFolder(options.output or Path("runs") / study.name)
        folder.check_belongs(study)
        plan = plan_study(study, options, folder)
        if options.dry_run:
            print_plan(plan, options.workers)
            return
        raise UsageError("only --dry-run is there yet.")


def plan_study(study: Study, options: Options, folder: StudyFolder) -> Plan:
    """Return the cells of a study, each with its whole configuration.

    Raises:
        UsageError: There are more than a thousand and nobody has said that this is meant; or a key of the grid does not
            exist, or does not take its value.
    """
    points = expand(study)
    count = count_cells(study, points)
    if count > MOST_CELLS and not options.yes:
        raise UsageError(f"it has {count:,} cells: give --yes if more than {MOST_CELLS:,} are meant.", key="grid")
    from lightning_adv.commands.study.resolving import Resolver  # imports Lightning

    cells = Path(study.cells) if study.cells else folder.path / "cells"
    folders = {stage.name: (Path(stage.cells) if stage.cells else cells).absolute() for stage in study.stages.values()}
    threads = threads_of(study.threads, options.workers)
    return make_plan(study, points, Resolver(study, options.trust), folders=folders, threads=threads)


def print_plan(plan: Plan, workers: int) -> None:
    """Print the cells, what is there of each, and the time that is left."""
    found = statuses(plan)
    table = Table(title=plan.study.title)
    for column in ("stage", "cell", "status", "seconds"):
        table.add_column(column, justify="right" if column == "seconds" else "left", overflow="fold")
    for cell in plan.cells.values():
        seconds = read_seconds(cell.folder)
        names = ", ".join(f"{column}={text}" for column, text in cell.names.items())
        table.add_row(cell.stage, names, found[cell.id], "" if seconds is None else f"{seconds:.0f}")
    Console().print(table)
    counts = Counter(found.values())
    told = ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])
    Console().print(f"{len(plan.points)} points, {len(plan.cells)} cells: {told}.", highlight=False)
    left, unknown = seconds_left(plan, found)
    if left:
        Console().print(f"About {_duration(left / workers)} left with --workers {workers}.", highlight=False)
    if unknown:
        Console().print(f"How long {', '.join(unknown)} takes is not known yet: no cell has ended.", highlight=False)


def _duration(seconds: float) -> str:
    """Return a duration in words.

    Example:
        >>> _duration(40), _duration(5400)
        ('40 s', '1 h 30 min')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
