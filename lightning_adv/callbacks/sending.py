"""Figures and tables on their way to the loggers that take them; each lies in the run folder whatever the loggers are.

A name such as ``bn_drift/heatmap`` puts a figure into the group of its analysis, in W&B and in TensorBoard.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from PIL import Image

from lightning_adv.core.table import Row


def send_figure(loggers: Iterable[Logger], name: str, png: Path, step: int) -> None:
    """Send a picture to every logger that takes pictures; for the first process only.

    Those are TensorBoardLogger and any logger with a method ``log_image(key, images, step)``, as WandbLogger has it.

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
        elif isinstance(logger, TensorBoardLogger):
            with Image.open(png, formats=["PNG"]) as image:
                pixels = np.asarray(image.convert("RGB"))
            logger.experiment.add_image(name, pixels, step, dataformats="HWC")


def send_table(loggers: Iterable[Logger], name: str, rows: Sequence[Row]) -> None:
    """Send a table to every logger that takes tables; for the first process only.

    Those have a method ``log_table(key, columns, data, step)``, as WandbLogger has it. The table gets the step of its
    last row. W&B cuts a table off after 200,000 rows.

    Args:
        loggers: The Trainer's loggers.
        name: The table's name, such as ``bn_drift/table``.
        rows: The table; one without rows is not sent.
    """
    for logger in loggers if rows else ():
        log_table = getattr(logger, "log_table", None)
        if log_table is not None:
            log_table(name, columns=list(Row._fields), data=[list(row) for row in rows], step=rows[-1].step)
