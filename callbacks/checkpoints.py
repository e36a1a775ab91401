"""The two checkpoints of a run: the best one, to use, and the last one, to resume from."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class BestCheckpoint(ModelCheckpoint):
    """Keeps the checkpoint with the best validation metric, as ``checkpoints/best.ckpt``.

    Args:
        monitor: Name of the metric. None takes the regime's own (``val/robust_accuracy`` where it is adversarial).
        mode: ``"max"`` or ``"min"``.
        every_n_epochs: Look at the metric every this many epochs.
    """

    def __init__(
        self, monitor: str | None = None, mode: Literal["max", "min"] = "max", every_n_epochs: int = 1
    ) -> None:
        super().__init__(
            filename="best",
            monitor=monitor,
            mode=mode,
            every_n_epochs=every_n_epochs,
            auto_insert_metric_name=False,  # the "/" of the metric's name would make a folder
            enable_version_counter=False,
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the regime's metric where none was given (a Lightning hook)."""
        if self.monitor is None:
            self.monitor = getattr(pl_module, "monitor", "val/robust_accuracy")
        super().setup(trainer, pl_module, stage)


class LastCheckpoint(ModelCheckpoint):
    """Keeps the newest checkpoint, as ``checkpoints/last.ckpt``: what a stopped run resumes from.

    Lightning writes to a temporary file and renames it, so that a run killed while saving leaves the one before.

    Args:
        every_n_epochs: Save every this many epochs, after validation. None or 0 only saves as the next two say.
        every_n_train_steps: Save every this many steps instead.
        train_time_interval: Save whenever this much time has passed instead.
    """

    def __init__(
        self,
        every_n_epochs: int | None = None,
        every_n_train_steps: int | None = None,
        train_time_interval: timedelta | None = None,
    ) -> None:
        super().__init__(
            filename="last",
            every_n_epochs=every_n_epochs,
            every_n_train_steps=every_n_train_steps,
            train_time_interval=train_time_interval,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
