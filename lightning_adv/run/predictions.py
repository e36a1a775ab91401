"""The table that ``lightning-adv predict`` writes."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor


class PredictionTable(BasePredictionWriter):
    """Writes ``predictions.csv`` into the run folder while the images are predicted.

    A row has the image's index in the data set, its label, the predicted class and the probability of each class. Each
    of several processes writes the rows of its own images, into ``predictions-<rank>.csv``.

    Attributes:
        path: The file, once a batch was predicted.
        rows: Number of images so far.
    """

    def __init__(self) -> None:
        super().__init__(write_interval="batch")
        self.path: Path | None = None
        self.rows = 0
        self._folder: str | None = None
        self._file: TextIO | None = None

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ask for the run folder, which all processes must do together (a Lightning hook)."""
        self._folder = None if trainer.fast_dev_run else trainer.log_dir  # type: ignore[attr-defined]

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Tensor,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write the rows of a batch with probabilities (N, K) (a Lightning hook).

        Raises:
            ValueError: The loader does not say which images a batch is of.
        """
        if self._folder is None:
            return
        if not batch_indices:
            raise ValueError("predict needs a data module whose loader takes the images by their index.")
        probabilities, labels = prediction.tolist(), batch[1].tolist()
        if self._file is None:
            rank = f"-{trainer.global_rank}" if trainer.world_size > 1 else ""
            self._open(Path(self._folder) / f"predictions{rank}.csv", num_classes=prediction.shape[1])
        rows = zip(batch_indices, labels, prediction.argmax(1).tolist(), probabilities, strict=True)
        csv.writer(self._file).writerows(  # type: ignore[arg-type]  # it is open
            [index, label, predicted, *row] for index, label, predicted, row in rows
        )
        self.rows += len(labels)

    def _open(self, path: Path, num_classes: int) -> None:
        self.path = path
        self._file = self._unfinished.open("w", newline="")
        probabilities = [f"probability_{k}" for k in range(num_classes)]
        csv.writer(self._file).writerow(["index", "label", "predicted", *probabilities])

    @property
    def _unfinished(self) -> Path:
        return Path(f"{self.path}.part")  # a reader never takes half a table for a whole one

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the file, and give it its name (a Lightning hook)."""
        if self._file is not None and self.path is not None:
            self._file.close()
            self._unfinished.replace(self.path)
