"""A line for each epoch where no progress bar can be: a pipe, a file, the log of a cluster."""

from __future__ import annotations

import sys
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar

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
    """

    def __init__(self) -> None:
        self._began = 0.0
        self._epoch: int | None = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line of the epoch before (a Lightning hook)."""
        self._print(trainer)
        self._epoch, self._began = trainer.current_epoch, time.monotonic()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the last line (a Lightning hook)."""
        self._print(trainer)

    def _print(self, trainer: Trainer) -> None:
        if self._epoch is None or not trainer.is_global_zero:
            return
        seconds, epochs = time.monotonic() - self._began, trainer.max_epochs
        of = f"/{epochs}" if epochs is not None and epochs > 0 else ""
        measured = {words: trainer.callback_metrics.get(name) for name, words in _SHOWN.items()}
        told = [f"{words} {float(value):.4g}" for words, value in measured.items() if value is not None]
        print(f"epoch {self._epoch + 1}{of}: {', '.join([*told, f'{seconds:.1f} s'])}", flush=True)
        self._epoch = None
