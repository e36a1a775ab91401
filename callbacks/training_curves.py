"""The picture of a run: accuracies, losses and learning rate over its epochs."""

from __future__ import annotations

import io
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger

from lightning_adv.analysis.training_curves import plot_training_curves, read_metrics
from lightning_adv.files import write_whole


class TrainingCurves(Callback):
    """Writes ``figures/training_curves.png`` into the run folder when training ends.

    The curves are read from the ``metrics.csv`` of the Trainer's CSVLogger; without that logger nothing is drawn.
    """

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the figure on the first process (a Lightning hook)."""
        loggers = [logger for logger in trainer.loggers if isinstance(logger, CSVLogger)]
        if not trainer.is_global_zero or not loggers:
            return
        loggers[0].save()
        metrics = Path(loggers[0].log_dir) / "metrics.csv"
        if metrics.is_file():
            picture = io.BytesIO()
            plot_training_curves(read_metrics(metrics)).savefig(picture, format="png", dpi=150)
            write_whole(metrics.parent / "figures" / "training_curves.png", picture.getvalue())
