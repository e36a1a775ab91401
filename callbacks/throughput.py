"""How long training takes, and how many images a second that is."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class Throughput(Callback):
    """Counts the images that are trained on and the seconds it takes, over resumed runs too.

    Attributes:
        images: Number of training images so far, over all processes.
        training_seconds: Wall time of the training loop without validation.
        validation_seconds: Wall time of validation during training.
    """

    def __init__(self) -> None:
        self.images = 0
        self.training_seconds = 0.0
        self.validation_seconds = 0.0
        self._since: float | None = None

    @property
    def images_per_second(self) -> float:
        """Images over seconds of training; 0 before the first."""
        return self.images / self.training_seconds if self.training_seconds else 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock (a Lightning hook)."""
        self._since = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch (a Lightning hook)."""
        self.images += len(batch[0]) * trainer.world_size
        self.training_seconds += self._lap()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the time of training (a Lightning hook)."""
        self.training_seconds += self._lap()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the time of validation (a Lightning hook)."""
        self.validation_seconds += self._lap()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock (a Lightning hook)."""
        self.training_seconds += self._lap()
        self._since = None

    def state_dict(self) -> dict[str, Any]:
        """Return the counts, for the checkpoint."""
        return {
            "images": self.images,
            "training_seconds": self.training_seconds,
            "validation_seconds": self.validation_seconds,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint's counts."""
        self.images = state_dict["images"]
        self.training_seconds = state_dict["training_seconds"]
        self.validation_seconds = state_dict["validation_seconds"]

    def _lap(self) -> float:
        """Seconds since the last lap; 0 while the clock stands (before training, as in the sanity check)."""
        if self._since is None:
            return 0.0
        now = time.perf_counter()
        lap, self._since = now - self._since, now
        return lap
