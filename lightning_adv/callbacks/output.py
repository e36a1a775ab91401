"""Where an observer's numbers and figures go: the run folder, and the loggers that take pictures and tables.

A name such as ``bn_drift/heatmap`` puts a figure into the group of its analysis, in W&B and in TensorBoard.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CometLogger, CSVLogger, Logger, MLFlowLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_warn
from PIL import Image

from lightning_adv.core.figures import to_png
from lightning_adv.core.files import write_whole
from lightning_adv.core.table import Row, append_rows, continue_table, read_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def run_folder(trainer: Trainer) -> Path | None:
    """Return the run's folder: that of the first logger, as for Lightning's checkpoints. On every process.

    None in a dry run (``fast_dev_run``), which writes nothing.
    """
    folder, logger = trainer.log_dir, trainer.logger  # the first asks all processes
    if logger is not None and not isinstance(logger, (CSVLogger, TensorBoardLogger)) and folder is not None:
        # Other loggers have one folder for all runs, in which Lightning makes one for the checkpoints of each.
        version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
        name, version = trainer.strategy.broadcast((str(logger.name), version))
        folder = str(Path(folder) / name / version)
    return None if folder is None or trainer.fast_dev_run else Path(folder)  # type: ignore[attr-defined]


class Output:
    """The table and the figures of one analysis; for the first process only.

    What cannot be written ends no training: :attr:`lost` says what is missing at the end.

    Args:
        folder: The run folder.
        analysis: The name of the table, and what the names of figures begin with.
        draw: Makes the figures of a table, by name.
    """

    def __init__(self, folder: Path, analysis: str, draw: Callable[[Sequence[Row]], Mapping[str, Figure]]) -> None:
        self.table = folder / "analyses" / f"{analysis}.csv"
        self._figures = folder / "figures"
        self._analysis = analysis
        self._draw = draw
        self._drawn_rows = 0
        self._waiting: list[Row] = []
        self._failed = False
        self._lost_rows: str | None = None
        self._lost_pictures: str | None = None

    @property
    def lost(self) -> str | None:
        """What could not be written, and why; None if everything could."""
        lost = [told for told in (self._lost_rows, self._lost_pictures) if told is not None]
        return ", ".join(lost) if lost else None

    def problem(self) -> str | None:
        """Say what is wrong with a table that is there and would be gone on with; None if nothing is."""
        try:
            if self.table.is_file():
                read_table(self.table)
        except (ValueError, OSError) as error:
            return f"{self._analysis}: {error} Move it away, or give the run another folder."
        return None

    def begin(self, last_step: int) -> None:
        """Keep the rows up to the last look that the run remembers: what comes after it is seen again."""
        continue_table(self.table, last_step)

    def append(self, rows: Sequence[Row]) -> None:
        """Write down a look; where the table cannot be written, the rows wait for the next one."""
        self._waiting += rows
        try:
            append_rows(self.table, self._waiting)
        except OSError as error:
            if self._lost_rows is None:
                rank_zero_warn(f"{self.table} cannot be written ({error.strerror}): training goes on, its rows wait.")
            self._lost_rows = f"{self.table} ({error.strerror})"
            return
        self._waiting, self._lost_rows = [], None

    def draw(self, trainer: Trainer) -> None:
        """Draw the table as it is, and send the pictures to the loggers that take them."""
        try:
            rows = read_table(self.table)
            self._drawn_rows = len(rows)
            for name, figure in self._draw(rows).items():
                png = self._figures / f"{self._analysis}_{name}.png"
                write_whole(png, to_png(figure))
                log_figure(trainer.loggers, f"{self._analysis}/{name}", png, rows[-1].step)
        except Exception as error:
            self._warn(error)

    def finish(self, trainer: Trainer) -> None:
        """Draw what is not drawn yet, and send the table to the loggers that take tables."""
        if self._waiting:
            self.append([])
        try:
            rows = read_table(self.table) if self.table.is_file() else []
            if len(rows) > self._drawn_rows:
                self.draw(trainer)
            log_table(trainer.loggers, f"{self._analysis}/table", rows)
        except Exception as error:
            self._warn(error)

    def _warn(self, error: Exception) -> None:
        """Tell once that a picture failed: days of training are worth more than it, and the table has its numbers."""
        if isinstance(error, OSError):
            reason = error if error.strerror is None else error.strerror
            self._lost_pictures = f"pictures of {self._analysis} ({reason})"
        if not self._failed:
            told = "" if isinstance(error, OSError) else "\n" + "".join(traceback.format_exception(error))
            rank_zero_warn(
                f"Pictures or tables of {self._analysis} are missing: {error!r}. The numbers are in {self.table}.{told}"
            )
        self._failed = True


# To the loggers ---------------------------------------------------------------------------------------------------


def log_figure(loggers: Iterable[Logger], name: str, png: Path, step: int) -> None:
    """Send a picture to every logger that takes pictures; for the first process only.

    Those are TensorBoardLogger, MLFlowLogger, CometLogger, and any logger with a method ``log_image(key, images,
    step)``, as WandbLogger has it.

    Args:
        loggers: The Trainer's loggers.
        name: The figure's name, such as ``bn_drift/heatmap``.
        png: The picture, a PNG file.
        step: The optimizer step that the scalars logged beside it have.
    """
    for logger in loggers:
        log_image = getattr(logger, "log_image", None)
        if log_image is not None:
            log_image(name, [str(png)], step=step)
        elif isinstance(logger, (TensorBoardLogger, MLFlowLogger, CometLogger)):
            with Image.open(png, formats=["PNG"]) as image:
                pixels = np.asarray(image.convert("RGB"))
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(name, pixels, step, dataformats="HWC")
            elif isinstance(logger, MLFlowLogger):
                logger.experiment.log_image(logger.run_id, pixels, key=name, step=step)
            else:
                logger.experiment.log_image(pixels, name=name, step=step)


def log_table(loggers: Iterable[Logger], name: str, rows: Sequence[Row]) -> None:
    """Send a table to every logger that takes tables; for the first process only.

    Those have a method ``log_table(key, columns, data, step)``, as WandbLogger has it. The table gets the step of its
    last row. W&B cuts a table off after 200,000 rows.

    Args:
        loggers: The Trainer's loggers.
        name: The table's name, such as ``bn_drift/table``.
        rows: The table; one without rows is not sent.
    """
    for logger in loggers if rows else ():
        takes_tables = getattr(logger, "log_table", None)
        if takes_tables is not None:
            takes_tables(name, columns=list(Row._fields), data=[list(row) for row in rows], step=rows[-1].step)
