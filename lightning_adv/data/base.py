"""What the data modules share: splits, loaders, determinism."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSampler
from torch.utils.data import DataLoader, Dataset, Sampler

from lightning_adv.core.errors import UsageError
from lightning_adv.core.suggestions import did_you_mean
from lightning_adv.data.in_memory import InMemoryDataset, UInt8Batch, to_images
from lightning_adv.data.sampler import DrawnOrder, EpochSampler, SharedDrawnOrder, TrainLoader
from lightning_adv.data.splits import Indices, stratified_split


class Splits(NamedTuple):
    """The three parts of a data set. Each returns whole batches from ``__getitems__``.

    Each may have an attribute ``fingerprint``, a text that tells which images they are.
    """

    train: Dataset[Any]
    val: Dataset[Any]
    test: Dataset[Any]


class ImageDataModule(LightningDataModule):
    """Base of the data modules: images (N, C, H, W) float32 in [0, 1] with labels (N,) int64.

    Validation images are split from the training images, stratified by class, and never from the test images.
    The order and the augmentation of the training images depend on the seed and the epoch only: not on the number of
    worker processes, nor on the global random state, which is left alone. A run that is resumed from any checkpoint
    trains on the batches that the run would have seen.

    Training leaves out the images of an epoch that do not fill a batch, other ones in each epoch: a last batch of a
    few images would have noisy BatchNorm statistics and the weight of a full one. Only where the training set is
    smaller than one batch, it is that one batch. Evaluation sees every image once, under DDP too, in the order of the
    data set. Where that is the order of the classes and the Trainer takes a part of it only (``limit_val_batches``,
    ``limit_test_batches``, ``overfit_batches``), the order is drawn from the seed, once, so that all classes take part.

    Subclasses set the attributes below and implement :meth:`load`.

    Args:
        batch_size: Images in a training batch, for each process.
        evaluation_batch_size: Images in a validation, test or prediction batch, for each process.
        num_workers: Processes that load images; 0 loads in the main process, None leaves it to the subclass.
        val_fraction: Share of the training images that is held out for validation, in (0, 1).
        train_fraction: Share of the remaining training images that is trained on, stratified by class, in (0, 1].
        seed: Seed of the splits, the order and the augmentation.
        on_device: Keep the images on the Trainer's device and make the batches there: the same batches, and only
            their indices are moved. Without a Trainer that is the CPU. It needs ``num_workers`` 0, a subclass that
            loads an ``InMemoryDataset`` for each split, and memory: the loaders raise a ValueError where it is short.

    Attributes:
        name: The data set's name in results.
        image_shape: (C, H, W).

    Raises:
        UsageError: An argument is outside its range.
    """

    name: str
    image_shape: tuple[int, int, int]

    def __init__(
        self,
        *,
        batch_size: int,
        evaluation_batch_size: int,
        num_workers: int | None,
        val_fraction: float,
        train_fraction: float,
        seed: int,
        on_device: bool = False,
    ) -> None:
        super().__init__()
        check_at_least("batch_size", batch_size, 1)
        check_at_least("evaluation_batch_size", evaluation_batch_size, 1)
        if num_workers is not None:
            check_at_least("num_workers", num_workers, 0)
        check_fraction("val_fraction", val_fraction)
        check_fraction("train_fraction", train_fraction, or_one=True)
        check_at_least("seed", seed, 0)
        if seed >= 2**32:
            raise UsageError(f"data.seed must be less than 2**32, got {seed}.")
        if on_device and num_workers:
            raise UsageError(
                f"data.on_device needs data.num_workers 0, got {num_workers}: the batches are made by the process that "
                "trains."
            )
        self.batch_size = batch_size
        self.evaluation_batch_size = evaluation_batch_size
        self.num_workers = num_workers
        self.val_fraction = val_fraction
        self.train_fraction = train_fraction
        self.seed = seed
        self.on_device = on_device
        self._splits: Splits | None = None
        self._identity: dict[str, Any] | None = None

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        raise NotImplementedError

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes, in the order of the labels; None where they are not known."""
        return None

    def load(self) -> Splits:
        """Read the data set and split it.

        Raises:
            UsageError: It is not there, or damaged.
        """
        raise NotImplementedError

    def setup(self, stage: str | None = None) -> None:
        """Read the data set, once. Without a Trainer this prepares it first."""
        if self._splits is None:
            if self.trainer is None:
                self.prepare_data()
            self._splits = self.load()

    def identity(self) -> dict[str, Any]:
        """Say which images these are, as plain data: what a checkpoint keeps of the data that it was trained on.

        It does not depend on where the images lie, nor on how they are loaded or augmented.

        Returns:
            ``class_path``, ``name``, ``seed``, ``val_fraction``, ``train_fraction``, ``test_fraction`` (None where the
            test images are a part of their own), ``class_names`` (a list, or None), ``image_shape`` ([C, H, W]),
            ``images`` (their number in train, val and test) and ``fingerprints`` of these three: 16 hexadecimal digits
            each, from file names or indices and labels, in order; None for a data set without ``fingerprint``.

        Raises:
            RuntimeError: :meth:`setup` has not been called.

        Example:
            >>> from lightning_adv.data import DigitsDataModule
            >>> digits = DigitsDataModule()
            >>> digits.setup()
            >>> digits.identity()["images"]
            {'train': 1293, 'val': 144, 'test': 360}
        """
        if self._splits is None:
            raise RuntimeError("Call setup() before identity().")
        if self._identity is None:
            names = self.class_names
            parts: dict[str, Any] = self._splits._asdict()
            self._identity = {
                "class_path": f"{type(self).__module__}.{type(self).__qualname__}",
                "name": self.name,
                "seed": self.seed,
                "val_fraction": self.val_fraction,
                "train_fraction": self.train_fraction,
                "test_fraction": getattr(self, "test_fraction", None),
                "class_names": None if names is None else list(names),
                "image_shape": list(self.image_shape),
                "images": {part: len(dataset) for part, dataset in parts.items()},
                "fingerprints": {part: getattr(dataset, "fingerprint", None) for part, dataset in parts.items()},
            }
        return deepcopy(self._identity)

    def train_dataloader(self) -> DataLoader[Any]:
        """Training batches in an order that depends on (seed, epoch)."""
        dataset = self._split("train")
        replicas, rank = self._processes()
        drop_last = len(cast(Any, dataset)) >= self.batch_size * replicas
        sampler: Sampler[Any] = EpochSampler(
            dataset, num_replicas=replicas, rank=rank, seed=self.seed, drop_last=drop_last
        )
        if getattr(self.trainer, "overfit_batches", 0) and replicas == 1 and is_by_class(dataset):
            sampler = DrawnOrder(dataset, seed=self.seed)
        loader = TrainLoader(
            dataset, batch_size=self.batch_size, sampler=sampler, drop_last=drop_last, **self._loader_options()
        )
        loader.trainer = self.trainer
        return loader

    def val_dataloader(self) -> DataLoader[Any]:
        """Validation batches, in order."""
        return self._evaluation_loader("val", getattr(self.trainer, "limit_val_batches", None))

    def test_dataloader(self) -> DataLoader[Any]:
        """Test batches, in order."""
        return self._evaluation_loader("test", getattr(self.trainer, "limit_test_batches", None))

    def predict_dataloader(self) -> DataLoader[Any]:
        """The test batches."""
        return self._evaluation_loader("test")

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Turn a batch into ``(x, y)`` on the device. The Trainer calls this."""
        return to_images(batch) if isinstance(batch, UInt8Batch) else batch

    def split_training_data(self, labels: Indices, *, own_val: bool = False) -> tuple[Indices, Indices]:
        """Return the indices to train on and those to validate on, from the labels (N,) of all training images.

        Args:
            labels: The labels.
            own_val: Whether the data set has validation images of its own, so that none of these are held out.
        """
        if own_val:
            train, val = np.arange(len(labels)), np.arange(0)
        else:
            train, val = stratified_split(labels, self.val_fraction, self.seed, argument="data.val_fraction")
        if self.train_fraction < 1:
            _, chosen = stratified_split(labels[train], self.train_fraction, self.seed, argument="data.train_fraction")
            train = train[chosen]
        return train, val

    def _split(self, name: str) -> Dataset[Any]:
        if self._splits is None:
            raise RuntimeError(f"Call setup() before {name}_dataloader().")
        if self.on_device:
            self._splits = self._splits._replace(**{name: self._placed(name, getattr(self._splits, name))})
        return cast(Dataset[Any], getattr(self._splits, name))

    def _placed(self, name: str, dataset: InMemoryDataset) -> InMemoryDataset:
        device = self._device()
        try:
            return dataset.to(device)  # the data set's own tensors where they are there already
        except torch.OutOfMemoryError as error:
            raise UsageError(
                f"data.on_device is true, but the {name} images ({dataset.images.nbytes / 1e6:,.0f} MB) do not fit on "
                f"{device}: set it to false."
            ) from error

    def _device(self) -> torch.device:
        """Return where the images are kept."""
        if self.on_device and self.trainer is not None:
            return self.trainer.strategy.root_device
        return torch.device("cpu")

    def _evaluation_loader(self, name: str, limit: float | None = None) -> DataLoader[Any]:
        dataset = self._split(name)
        replicas, rank = self._processes()
        batches = math.ceil(math.ceil(len(cast(Any, dataset)) / replicas) / self.evaluation_batch_size)
        cut = limit is not None and (limit < batches if isinstance(limit, int) else limit < 1)
        sampler: Sampler[Any] | None = None
        if cut and is_by_class(dataset):
            sampler = DrawnOrder(dataset, seed=self.seed)
            if replicas > 1:
                sampler = SharedDrawnOrder(dataset, num_replicas=replicas, rank=rank, seed=self.seed)
        elif replicas > 1:
            # Lightning would add torch's DistributedSampler, which repeats images to make the processes even
            sampler = UnrepeatedDistributedSampler(dataset, num_replicas=replicas, rank=rank, shuffle=False)
        return DataLoader(dataset, batch_size=self.evaluation_batch_size, sampler=sampler, **self._loader_options())

    def _loader_options(self) -> dict[str, Any]:
        workers = self._workers()
        return {
            "num_workers": workers,
            "persistent_workers": workers > 0,
            "pin_memory": torch.cuda.is_available() and self._device().type == "cpu",
            "collate_fn": _already_collated,
            # a loader draws a seed for its workers each time it is iterated: not from the global generator
            "generator": torch.Generator().manual_seed(self.seed),
        }

    def _workers(self) -> int:
        return 0 if self.num_workers is None else self.num_workers

    def _processes(self) -> tuple[int, int]:
        return (1, 0) if self.trainer is None else (self.trainer.world_size, self.trainer.global_rank)


def is_by_class(dataset: Dataset[Any]) -> bool:
    """Whether the images of a data set are in the order of their labels, or their order is not known."""
    labels = getattr(dataset, "labels", None)
    if labels is None:
        return True
    labels = torch.as_tensor(labels)
    return bool((labels[1:] >= labels[:-1]).all())


def _already_collated(batch: Any) -> Any:
    return batch


def check_at_least(name: str, value: int, lowest: int) -> None:
    """Raise a ValueError if ``value`` is below ``lowest``."""
    if value < lowest:
        raise UsageError(f"data.{name} must be at least {lowest}, got {value}.")


def check_fraction(name: str, value: float, *, or_one: bool = False) -> None:
    """Raise a ValueError unless ``value`` lies in (0, 1), or in (0, 1] with ``or_one``."""
    if not (0 < value < 1 or (or_one and value == 1)):
        raise UsageError(f"data.{name} must lie in (0, 1{']' if or_one else ')'}, got {value}.")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise a ValueError that suggests the nearest choice unless ``value`` is one of ``choices``."""
    if value not in choices:
        hint = did_you_mean(value, choices)
        raise UsageError(f"data.{name} must be one of {', '.join(choices)}, got {value!r}.{hint}")
