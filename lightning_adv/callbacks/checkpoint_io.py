"""Checkpoints that are complete after a kill at any moment."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH
from lightning.pytorch import Trainer

from lightning_adv.core.files import write_whole


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it.

    Lightning's own plugin writes into the temporary folder and moves the file, which copies it where that is another
    file system: a kill meanwhile leaves half a checkpoint in the place of a good one. Addresses such as ``s3://`` are
    left to it.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None) -> None:
        """Save a checkpoint (Lightning's interface).

        Raises:
            OSError: The file cannot be written; one that was there stays.
        """
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        content = io.BytesIO()  # torch's own writer ends in an internal error where the disk is full
        torch.save(checkpoint, content)
        write_whole(Path(path), content.getbuffer())


def save_atomically(trainer: Trainer) -> None:
    """Let a Trainer write its checkpoints by :class:`AtomicCheckpointIO`, unless it was given another plugin."""
    strategy = trainer.strategy
    if type(strategy.checkpoint_io) is TorchCheckpointIO:
        strategy.checkpoint_io = AtomicCheckpointIO()
