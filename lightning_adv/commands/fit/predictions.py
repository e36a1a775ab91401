"""The table that ``lightning-adv predict`` writes."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, TextIO, cast

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

from lightning_adv.core.errors import UsageError
from lightning_adv.core.files import clear_unfinished, write_whole, writing
from lightning_adv.regimes.checks import parts_of
from lightning_adv.regimes.training_data import class_names_of


class PredictionTable(BasePredictionWriter):
    """Writes ``predictions.csv`` into the run folder while the images are predicted.

    A row has the image's index in the data set, its label (nothing where the batch has none), the predicted class and
    the probability of each class. Where they are known it has the image's ``file`` too, and the predicted class's name
    (``predicted_class``) with its ``probability``; ``classes.csv`` then has the names of all classes. Each of several
    processes writes the rows of its own images, into ``predictions-<rank>.csv``.

    Attributes:
        path: The file, once a batch was predicted.
        rows: Number of images so far.
    """

    def __init__(self) -> None:
        super().__init__(write_interval="batch")
        self.path: Path | None = None
        self.rows = 0
        self._folder: str | None = None
        self._files: Sequence[str] | None = None
        self._names: Sequence[str] | None = None
        self._file: TextIO | None = None
        self._open_files = ExitStack()

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
            UsageError: The loader does not say which images a batch is of.
        """
        if self._folder is None:
            return
        if not batch_indices:
            raise UsageError("predict needs a data module whose loader takes the images by their index.")
        probabilities, labels = prediction.tolist(), _labels(batch, len(prediction))
        if trainer.received_sigterm:  # Lightning looks at it in every other loop
            raise SIGTERMException
        if self._file is None:
            rank = f"-{trainer.global_rank}" if trainer.world_size > 1 else ""
            self._files = _files(trainer, dataloader_idx)
            self._names = _class_names(trainer, pl_module, num_classes=prediction.shape[1])
            self._open(Path(self._folder) / f"predictions{rank}.csv", num_classes=prediction.shape[1])
        rows = zip(batch_indices, labels, prediction.argmax(1).tolist(), probabilities, strict=True)
        self._write([*self._known(index, label, predicted, row), *row] for index, label, predicted, row in rows)
        self.rows += len(labels)

    def _open(self, path: Path, num_classes: int) -> None:
        clear_unfinished(path.parent, path.name)
        self.path = path
        # a reader never takes half a table for a whole one
        whole = self._open_files.enter_context(writing(path))
        # a file's name may be other bytes than UTF-8
        self._file = io.TextIOWrapper(whole, encoding="utf-8", errors="surrogateescape", newline="")
        header = {"index": True, "file": self._files, "label": True, "predicted": True}
        header |= {"predicted_class": self._names, "probability": self._names}
        known = [name for name, given in header.items() if given is not None]
        self._write([[*known, *(f"probability_{k}" for k in range(num_classes))]])

    def _known(self, index: int, label: int | None, predicted: int, probabilities: Sequence[float]) -> list[Any]:
        """Return what a row says before the probabilities."""
        file = [] if self._files is None else [self._files[index]]
        name = [] if self._names is None else [self._names[predicted], probabilities[predicted]]
        return [index, *file, label, predicted, *name]

    def _write(self, rows: Iterable[Sequence[Any]], *, last: bool = False) -> None:
        if self._file is None:
            return
        try:
            csv.writer(self._file).writerows(rows)
            if last:
                self._file.flush()
        except OSError as error:  # that of a full disk names no file
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the file, give it its name, and name the classes beside it (a Lightning hook)."""
        self._write((), last=True)
        self._open_files.close()
        if self.path is not None and self._names is not None and trainer.is_global_zero:
            text = io.StringIO(newline="")
            csv.writer(text).writerows([("index", "name"), *enumerate(self._names)])
            write_whole(self.path.with_name("classes.csv"), text.getvalue())

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Remove what is not finished (a Lightning hook)."""
        with suppress(OSError):  # the reason is known already
            self._open_files.__exit__(type(exception), exception, exception.__traceback__)


def _labels(batch: Any, count: int) -> list[int] | list[None]:
    """Return the labels of a batch of ``count`` images, or nothing for each where there are none."""
    labels = next(iter(parts_of(batch)[1:]), None)
    if not isinstance(labels, Tensor) or labels.shape != (count,):
        return [None] * count
    return cast(list[int], labels.long().tolist())


def _files(trainer: Trainer, dataloader_idx: int) -> Sequence[str] | None:
    """Return the files of a data set's images, in their order; None where it does not say."""
    loader = CombinedLoader(trainer.predict_dataloaders).flattened[dataloader_idx]
    return getattr(getattr(loader, "dataset", None), "files", None)


def _class_names(trainer: Trainer, module: LightningModule, num_classes: int) -> Sequence[str] | None:
    """Return the names of the classes that the network was trained on, else of the data module's; None if unknown."""
    trained_on = getattr(module, "trained_on", None) or {}
    names = trained_on.get("class_names") or class_names_of(trainer.datamodule)  # type: ignore[attr-defined]
    return names if names is not None and len(names) == num_classes else None
