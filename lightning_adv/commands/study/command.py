"""``lightning-adv study``: a grid of runs, its table and its figure; the same command again goes on."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from lightning_adv.commands.shared.printing import plain_console
from lightning_adv.commands.shared.telling import told_in_one_line
from lightning_adv.commands.shared.trusting import trust_given
from lightning_adv.commands.study.options import Options, parse_options, threads_of
from lightning_adv.core.errors import UsageError
from lightning_adv.studies.attempts import is_held, read_seconds
from lightning_adv.studies.cells import Plan, count_cells, make_plan
from lightning_adv.studies.folder import RUNNING, StudyFolder, statuses, write_cell
from lightning_adv.studies.grid import expand
from lightning_adv.studies.scheduling import Event, run_cells
from lightning_adv.studies.study_file import Study, make_study, read_study_files
from lightning_adv.studies.time_left import TimeLeft, duration

if TYPE_CHECKING:
    from lightning_adv.commands.study.outcome import Outcome
    from lightning_adv.studies.engines.base import Engine

MOST_CELLS = 1000
STATUSES = ("done", RUNNING, "begun", "failed", "waits", "missing")


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
        from lightning_adv.commands.study.engines import make_engine  # these import Lightning
        from lightning_adv.commands.study.outcome import Outcome

        outcome = Outcome(plan, folder)
        outcome.check()
        engine = make_engine(options.engine, options.engine_arguments)
        if options.dry_run:
            print_plan(plan, options.workers)
            return
        from lightning_adv.commands.shared.stopping import stoppable

        with folder.alone(), stoppable("Stopped. The same command again goes on from here."):
            failed = _run(plan, outcome, engine, folder, options)
    if failed:
        raise SystemExit(1)


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


def _run(plan: Plan, outcome: Outcome, engine: Engine, folder: StudyFolder, options: Options) -> bool:
    """Run the cells, and return whether one failed."""
    from lightning_adv.commands.study.mending import upstream_again
    from lightning_adv.commands.study.progress import StudyProgress
    from lightning_adv.commands.study.trial import try_first
    from lightning_adv.commands.study.work import run_cell

    for cell, lost, reader in upstream_again(list(plan.cells.values())) if options.retry else ():
        print(f"{cell.label}: run again, since {reader.label} needs {lost}, which is not there or damaged.")
    found = statuses(plan)
    runnable = ("begun", "missing", *(("failed", "waits") if options.retry else ()))
    todo = [cell for cell in plan.cells.values() if found[cell.id] in runnable]
    with closing(engine):
        if todo:
            workers = min(options.workers, len(todo))  # each takes seconds of the processor to start
            engine.open(run_cell, workers=workers, threads=plan.cells[todo[0].id].threads)
            try_first(list(plan.cells.values()), engine, folder.path, retry=options.retry)
        folder.write_plan(plan)
        for cell in todo:
            write_cell(cell)
        outcome.write(found)
        progress = StudyProgress(plan, options.workers)
        running: set[str] = set()

        def take(event: Event) -> None:
            now = statuses(plan)
            progress.take(event, now)
            (running.add if event.kind in ("began", "held") else running.discard)(event.cell.id)
            outcome.write({**now, **dict.fromkeys(running, RUNNING)})

        try:
            with progress.shown(found):
                failures = run_cells(list(plan.cells.values()), engine, retry=options.retry, on_event=take)
        finally:  # after Ctrl-C too
            engine.close()
            table = outcome.write(statuses(plan))
    outcome.finish(table)
    print(f"Everything is in {folder.path}")
    print(f"lightning-adv report {folder.path}")
    if failures:
        sys.stderr.write(f"{len(failures)} of {len(plan.cells)} cells failed; --retry runs them again:\n")
        for id_, told in failures.items():
            sys.stderr.write(f"  {plan.cells[id_].label}: {told} (its log: {plan.cells[id_].folder / 'log.txt'})\n")
    return bool(failures)


def print_plan(plan: Plan, workers: int) -> None:
    """Print the cells, what is there of each, and the time that is left."""
    found = statuses(plan)
    now = {
        id_: RUNNING if status != "done" and is_held(plan.cells[id_].folder) else status
        for id_, status in found.items()
    }
    table = Table(title=plan.study.title)
    for column in ("stage", "cell", "status", "seconds"):
        table.add_column(column, justify="right" if column == "seconds" else "left", overflow="fold")
    for cell in plan.cells.values():
        seconds = read_seconds(cell.folder)
        names = ", ".join(f"{column}={text}" for column, text in cell.names.items())
        table.add_row(cell.stage, names, now[cell.id], "" if seconds is None else f"{seconds:.0f}")
    plain_console().print(table)
    counts = Counter(now.values())
    told = ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])
    print(f"{len(plan.points)} points, {len(plan.cells)} cells: {told}.")
    left, unknown = TimeLeft(plan).seconds(found)
    if left:
        print(f"About {duration(left / workers)} left with --workers {workers}.")
    if unknown:
        print(f"How long a cell of {', '.join(unknown)} takes is not known yet: none is done.")
