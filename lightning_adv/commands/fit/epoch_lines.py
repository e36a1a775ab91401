"""Lines where no progress bar can be: a pipe, a file, the log of a cluster. One for each epoch, more for long ones."""

from __future__ import annotations

import sys
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar

from lightning_adv.commands.shared.progress import Pace

_SHOWN = {"train/loss": "train loss", "val/clean_accuracy": "val clean", "val/robust_accuracy": "val robust"}


def wants_lines(enable_progress_bar: bool | None, callbacks: Any) -> bool:
    """Whether lines take the place of the progress bar: nobody asked for a bar or for silence, and nobody looks on.

    Args:
        enable_progress_bar: The Trainer's argument.
        callbacks: The callbacks that the user gave: one, a list or None.
    """
    given = callbacks if isinstance(callbacks, (list, tuple)) else [callbacks]
    own = any(isinstance(callback, ProgressBar) for callback in given)
    return enable_progress_bar is None and not own and not sys.stdout.isatty()


class EpochLines(Callback):
    """Prints one line after each epoch: losses, accuracies and seconds, as far as they were measured.

    An epoch's line stands when the next begins, or training ends: the epoch's mean loss is known after all hooks.
    Where an epoch, a validation or a test takes long, lines in between say how far it is: the first after ten seconds,
    then each minute.
    """

    def __init__(self) -> None:
        self._pace = Pace()
        self._epoch: str | None = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line of the epoch before (a Lightning hook)."""
        self._print(trainer)
        epochs = trainer.max_epochs
        of = f"/{epochs}" if epochs is not None and epochs > 0 else ""
        self._epoch = f"epoch {trainer.current_epoch + 1}{of}"
        self._pace = Pace()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Say how far the epoch is, if it takes long (a Lightning hook)."""
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        self._tell(trainer, str(self._epoch), batch_idx, trainer.num_training_batches, loss)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note when a validation begins; one within training counts from the epoch's last line (a Lightning hook)."""
        if self._epoch is None:
            self._pace = Pace()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note when a test begins (a Lightning hook)."""
        self._pace = Pace()

    on_predict_start = on_test_start

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, loader: int = 0
    ) -> None:
        """Say how far the validation is, if it takes long (a Lightning hook)."""
        stage = "validation" if self._epoch is None else f"{self._epoch}, validation"
        self._tell(trainer, stage, batch_idx, _length(trainer.num_val_batches, loader))

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, loader: int = 0
    ) -> None:
        """Say how far the test is, if it takes long (a Lightning hook)."""
        self._tell(trainer, "test", batch_idx, _length(trainer.num_test_batches, loader))

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, loader: int = 0
    ) -> None:
        """Say how far the prediction is, if it takes long (a Lightning hook)."""
        self._tell(trainer, "prediction", batch_idx, _length(trainer.num_predict_batches, loader))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the last line (a Lightning hook)."""
        self._print(trainer)

    def _tell(self, trainer: Trainer, stage: str, batch_idx: int, batches: int | float, loss: Any = None) -> None:
        if not trainer.is_global_zero or not self._pace.due():
            return
        of = f" of {batches}" if isinstance(batches, int) else ""
        told = f", loss {float(loss):.4g}" if isinstance(loss, torch.Tensor) else ""
        print(f"{stage}: batch {batch_idx + 1}{of}{told}, {self._pace.seconds:.0f} s", flush=True)

    def _print(self, trainer: Trainer) -> None:
        if self._epoch is None or not trainer.is_global_zero:
            return
        measured = {words: trainer.callback_metrics.get(name) for name, words in _SHOWN.items()}
        told = [f"{words} {float(value):.4g}" for words, value in measured.items() if value is not None]
        print(f"{self._epoch}: {', '.join([*told, f'{self._pace.seconds:.1f} s'])}", flush=True)
        self._epoch = None


def _length(batches: list[int | float], loader: int) -> int | float:
    return batches[loader] if loader < len(batches) else float("inf")
