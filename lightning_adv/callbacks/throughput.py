"""How long training takes, and how many images a second that is."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_adv.callbacks.early_warning import EarlyWarning
from lightning_adv.callbacks.observer import Observer
from lightning_adv.regimes.checks import parts_of


class Throughput(Callback):
    """Counts the images that are trained on and the seconds it takes, over resumed runs too.

    Attributes:
        images: Number of training images so far, over all processes.
        training_seconds: Wall time of the training loop without validation, and without what observers take.
        validation_seconds: Wall time of validation during training.
    """

    def __init__(self) -> None:
        self.images = 0
        self.training_seconds = 0.0
        self.validation_seconds = 0.0
        self._since: float | None = None
        self._observed = 0.0

    @property
    def images_per_second(self) -> float:
        """Images over seconds of training; 0 before the first."""
        return self.images / self.training_seconds if self.training_seconds else 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock (a Lightning hook)."""
        self._since, self._observed = time.perf_counter(), _observer_seconds(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch (a Lightning hook)."""
        self.images += len(parts_of(batch)[0]) * trainer.world_size
        self.training_seconds += self._lap(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the time of training (a Lightning hook)."""
        self.training_seconds += self._lap(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the time of validation (a Lightning hook)."""
        self.validation_seconds += self._lap(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock (a Lightning hook)."""
        self.training_seconds += self._lap(trainer)
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

    def _lap(self, trainer: Trainer) -> float:
        """Seconds since the last lap that no observer took; 0 while the clock stands (as in the sanity check)."""
        if self._since is None:
            return 0.0
        now, observed = time.perf_counter(), _observer_seconds(trainer)
        lap = now - self._since - (observed - self._observed)
        self._since, self._observed = now, observed
        return lap


def _observer_seconds(trainer: Trainer) -> float:
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return sum(callback.seconds for callback in callbacks if isinstance(callback, (EarlyWarning, Observer)))
