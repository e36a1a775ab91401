"""A trial before a study: the first cell of each stage for one batch, so that a mistake is told at once."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_adv.callbacks import BestCheckpoint
from lightning_adv.commands.transfer import NONE_IN_COMMON
from lightning_adv.core.errors import UsageError
from lightning_adv.studies.attempts import is_done, last_checkpoint, read_failure
from lightning_adv.studies.cells import Cell, replace_texts, run_folder
from lightning_adv.studies.engines.base import Engine
from lightning_adv.studies.folder import write_cell
from lightning_adv.studies.scheduling import run_cells

_FOLDER = ".trial"
_FEW = {"images": 4, "suspicion_images": 4}
_ONE_BATCH = ("limit_train_batches", "limit_val_batches", "limit_test_batches")


class OneEpoch(Callback):
    """Ends training after an epoch; ``max_epochs``, on which schedules depend, stays as it is."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop (a Lightning hook)."""
        trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save a best checkpoint where none of the first epoch counts (a Lightning hook): a later stage may read it."""
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, BestCheckpoint) and not callback.best_model_path:
                trainer.save_checkpoint(Path(str(callback.dirpath)) / "best.ckpt")


def try_first(cells: Sequence[Cell], engine: Engine, folder: Path, *, retry: bool = False) -> None:
    """Run the first cell of each stage for one batch of training, validation and test images.

    A stage of which a cell is done, or has a checkpoint, has shown that it works. Nothing is left behind.

    Args:
        cells: The cells of a study, each after those that it needs.
        engine: Where they will run; it is open.
        folder: The study's folder, held by this process.
        retry: Whether cells that failed before will be run again.

    Raises:
        UsageError: A cell fails.
    """
    place = folder / _FOLDER
    shutil.rmtree(place, ignore_errors=True)  # of a study that was killed
    trials: dict[str, Cell] = {}
    for cell in _first_cells(cells, retry=retry):
        trials[cell.id] = _trial_of(cell, trials, cells, place)
    if not trials:
        return
    stages = dict.fromkeys(trial.stage for trial in trials.values())
    print(f"A trial of one batch of each stage, of which nothing is kept: {', '.join(stages)}.", flush=True)
    try:
        for trial in trials.values():
            write_cell(trial)
        failures = run_cells(list(trials.values()), engine)
    except BaseException:  # an interrupt: the workers would go on to write into the folder
        engine.close()
        raise
    finally:
        shutil.rmtree(place, ignore_errors=True)
    for failed, error in failures.items():
        if error.endswith(NONE_IN_COMMON):  # networks of one batch are right about hardly any image
            continue
        raise UsageError(f"its first cell fails in a trial of one batch: {error}", key=f"stages.{trials[failed].stage}")


def _first_cells(cells: Sequence[Cell], *, retry: bool) -> list[Cell]:
    """Return the first cell of each stage that nothing is known of, and the cells that it needs and are not done."""
    by_id = {cell.id: cell for cell in cells}
    shown: set[str] = set()
    left_out: set[str] = set()
    for cell in cells:
        if is_done(cell.folder, cell.command) or last_checkpoint(cell.folder) is not None:
            shown.add(cell.stage)
        elif left_out & set(cell.needs) or (not retry and read_failure(cell.folder, cell.command) is not None):
            left_out.add(cell.id)
    chosen: dict[str, Cell] = {}

    def choose(cell: Cell) -> None:
        if cell.id not in chosen and not is_done(cell.folder, cell.command):
            for needed in cell.needs:
                choose(by_id[needed])
            chosen[cell.id] = cell

    for cell in cells:
        if cell.stage not in shown and cell.id not in left_out:
            choose(cell)
            shown.add(cell.stage)
    return list(chosen.values())


def _trial_of(cell: Cell, trials: Mapping[str, Cell], cells: Sequence[Cell], place: Path) -> Cell:
    """Return a cell that does as little as there is to do, and stands on the trials of the cells that it needs."""
    trial = replace(cell, folder=place / cell.folder.name, needs=tuple(id_ for id_ in cell.needs if id_ in trials))
    moved = {str(run_folder(one)): str(run_folder(trials[one.id])) for one in cells if one.id in trial.needs}
    configuration = dict(cell.configuration)
    if moved:
        pattern = re.compile(f"({'|'.join(map(re.escape, moved))})")
        configuration = replace_texts(configuration, pattern, lambda found: moved[found])
    if cell.command == "fit":
        return replace(trial, configuration=_one_epoch(configuration, trial.folder))
    few = {name: min(configuration[name] or most, most) for name, most in _FEW.items() if name in configuration}
    return replace(trial, configuration={**configuration, **few, "output": str(run_folder(trial))})


def _one_epoch(configuration: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the configuration of a run of one batch, of which every checkpoint is written."""
    trainer = dict(configuration["trainer"])
    given = trainer.get("callbacks") or []
    given = given if isinstance(given, list) else [given]
    place = {"save_dir": str(folder.parent), "name": folder.name, "version": None}
    trainer |= {
        **{name: 0 if trainer.get(name) in (0, 0.0) else 1 for name in _ONE_BATCH},
        "callbacks": [*given, {"class_path": f"{OneEpoch.__module__}.{OneEpoch.__qualname__}"}],
        "logger": {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": place},
        "min_epochs": None,
        "min_steps": None,
        "val_check_interval": None,
        "check_val_every_n_epoch": 1,
    }
    keep = {name: {**configuration[name], "every_n_epochs": 1} for name in ("best_checkpoint", "last_checkpoint")}
    return {**configuration, **keep, "trainer": trainer}
