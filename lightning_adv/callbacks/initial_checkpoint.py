"""The weights that a run begins with, kept beside its other checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_adv.callbacks.checkpoint_io import save_atomically
from lightning_adv.nn.weights.runs import INITIAL


class InitialCheckpoint(Callback):
    """Keeps the weights of a new run just before its first step, as ``checkpoints/init.ckpt``.

    They are the weights that training begins with: drawn by the seed, or pretrained where a backbone brings weights,
    with what the regime has changed since, such as blocks that start anew. Blocks can be set back to them later (Zhang
    et al. 2019; Siddiqui & Breuel 2021, section 5.3). No run can go on from it: no optimizer is in it. A
    run that is resumed writes none, and a run of no steps writes it when it ends.

    Args:
        keep: Whether to write the file.

    Example:
        >>> InitialCheckpoint().keep
        True
    """

    def __init__(self, keep: bool = True) -> None:
        self.keep = keep
        self._path: Path | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Settle the file, which all processes must do together (a Lightning hook)."""
        folder = trainer.log_dir
        wanted = self.keep and stage == "fit" and not trainer.fast_dev_run and folder is not None  # type: ignore[attr-defined]
        self._path = Path(str(folder)) / "checkpoints" / INITIAL if wanted else None
        if wanted:
            save_atomically(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Save before the first step, when all that may change the network at the start has (a Lightning hook)."""
        self._save(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save where there was no step (a Lightning hook)."""
        self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        path, self._path = self._path, None
        if path is not None and trainer.global_step == 0:
            trainer.save_checkpoint(path, weights_only=True)
