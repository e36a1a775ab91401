"""The fixed images that an observer looks at: the same in each look, whatever the number of processes."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from lightning_adv.callbacks.observed import ObservedModule
from lightning_adv.core.errors import UsageError
from lightning_adv.core.loaders import indices_of, sampler_of
from lightning_adv.core.seeds import derive_seed, run_seed
from lightning_adv.regimes.checks import as_pair

Split: TypeAlias = Literal["validation", "training", "test"]
"""Whose images are looked at. Test images are for looking at alone: nothing may be chosen by them."""


@dataclass(frozen=True)
class ImageBatch:
    """Images that are looked at together.

    Attributes:
        index: The batch's number among those of all processes.
        seed: Seed of the attack's noise, the same in each look.
        x: Images (n, C, H, W) in [0, 1], on the CPU.
        y: Labels (n,), on the CPU.
    """

    index: int
    seed: int
    x: Tensor
    y: Tensor

    def to(self, device: torch.device) -> tuple[Tensor, Tensor, torch.Generator]:
        """Return images, labels and a newly seeded generator, on a device."""
        return self.x.to(device), self.y.to(device), torch.Generator(device).manual_seed(self.seed)


@dataclass(frozen=True)
class FixedImages:
    """The images of an observer. Processes share the batches, and each batch has noise of its own.

    Attributes:
        batches: The batches of this process.
        size: Number of images of all processes together.
        count: Number of batches of all processes together.
    """

    batches: list[ImageBatch]
    size: int
    count: int


NO_IMAGES = FixedImages([], 0, 0)


def take_images(
    trainer: Trainer,
    module: ObservedModule,
    *,
    observer: str,
    split: str = "validation",
    images: int | None = None,
    default: int = 256,
    batch_size: int = 64,
    argument: str | None = None,
) -> FixedImages:
    """Take images of the training, validation or test data by index: no loader, sampler or worker moves on.

    Which images, their order and their noise depend on the run's seed, the observer and the split. Images are as the
    data set gives them: a training set that augments does so, with a fixed seed. Test images are those of the data
    module's ``test_dataloader``, after ``setup("test")`` of a copy of it; nothing may be chosen by them.

    Args:
        trainer: The Trainer, in ``on_train_start``.
        module: What it trains.
        observer: Name of the observer, for the seeds and for errors.
        split: ``training``, ``validation`` or ``test``.
        images: Number of images; None takes ``default``, or all images where there are fewer.
        default: How many images stand for ``images=None``.
        batch_size: Images that are looked at together; the last batch may have fewer.
        argument: What errors call the observer; None is ``observer``.

    Raises:
        UsageError: There is no such data, it has no index, or it has fewer images than were asked for.

    Example:
        >>> from lightning.pytorch import Callback
        >>> from lightning_adv.nn import Backbone
        >>> from lightning_adv.regimes import StandardTraining
        >>> from lightning_adv.testing import SmallImages
        >>> class Look(Callback):
        ...     def on_train_start(self, trainer, module):
        ...         self.images = take_images(trainer, module, observer="look", images=12, batch_size=8)
        >>> look, data = Look(), SmallImages(in_channels=1, num_classes=2)
        >>> regime = StandardTraining(Backbone("small_cnn", in_channels=1, options={"width": 4}), num_classes=2)
        >>> quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        >>> Trainer(accelerator="cpu", callbacks=[look], fast_dev_run=True, **quiet).fit(regime, data)
        >>> [len(batch.x) for batch in look.images.batches]
        [8, 4]
    """
    told = observer if argument is None else argument
    dataset, given, collate = _images_of(trainer, split, told)
    if images is not None and images > len(given):
        raise UsageError(
            f"{told}.images is {images}, but the {split} set has {len(given)} images: ask for that many at most."
        )
    own = getattr(module, "seed", None)
    # Processes that nobody seeded have a seed each, and would not share one set of images.
    seed = trainer.strategy.broadcast(run_seed() if own is None else own)
    drawn = torch.Generator().manual_seed(derive_seed(seed, observer, split))
    index = torch.randperm(len(given), generator=drawn)[: default if images is None else images]
    index = torch.as_tensor(given)[index]
    parts = list(enumerate(torch.split(index, batch_size)))
    shared = parts[trainer.global_rank :: trainer.world_size]
    reader = DataLoader(dataset, batch_sampler=[part.tolist() for _, part in shared], collate_fn=collate)
    # a loader draws from the global generator, and a data set that augments may too
    with _stage(trainer, split), isolate_rng():
        for set_seed in (random.seed, np.random.seed, torch.default_generator.manual_seed):
            set_seed(seed % 2**32)
        pairs = [_checked(module, _on_device(trainer, batch)) for batch in reader]
    batches = [
        ImageBatch(number, derive_seed(seed, observer, split, number), x.cpu(), y.cpu())
        for (number, _), (x, y) in zip(shared, pairs, strict=True)
    ]
    return FixedImages(batches, len(index), len(parts))


def _checked(module: ObservedModule, batch: Any) -> tuple[Tensor, Tensor]:
    """Return the images and labels of a batch, by the module's own check where it has one."""
    check = getattr(module, "check_batch", None)
    if check is not None:
        return cast(tuple[Tensor, Tensor], check(batch, 0))
    x, y = as_pair(batch)
    return x.to(cast(torch.dtype, module.dtype)), y


def split_size(trainer: Trainer, split: str, observer: str) -> int:
    """Return the number of training, validation or test images.

    Raises:
        UsageError: There are none, or they have no index.
    """
    return len(_images_of(trainer, split, observer)[1])


@contextmanager
def _stage(trainer: Trainer, split: str) -> Iterator[None]:
    """Tell the data module's hooks which images it is about: many augment wherever ``trainer.training`` is true."""
    trainer.validating, trainer.testing = split == "validation", split == "test"
    try:
        yield
    finally:
        trainer.training = True


def _images_of(trainer: Trainer, split: str, observer: str) -> tuple[Any, Sequence[int], Any]:
    """Return the data set of the first loader, the indices that it gives, and what makes batches of its items."""
    if split == "validation" and trainer.val_dataloaders is None and trainer.enable_validation:
        # Lightning leaves it to the first epoch that validates, which may come after the first look.
        with _stage(trainer, split):
            trainer.fit_loop.epoch_loop.val_loop.setup_data()
    if split == "test":
        loaders = _test_loaders(trainer)
    else:
        loaders = trainer.train_dataloader if split == "training" else trainer.val_dataloaders
    found = [] if loaders is None else CombinedLoader(loaders).flattened
    if not found:
        without_step = split == "validation" and not is_overridden("validation_step", trainer.lightning_module)
        why = ": Lightning reads none for a module without a validation_step" if without_step else ""
        raise UsageError(f"{observer} needs {split} images, and the Trainer has no {split} loader that gives any{why}.")
    loader = found[0]
    dataset = getattr(loader, "dataset", None)
    indexed = hasattr(dataset, "__len__") and not isinstance(dataset, IterableDataset)
    if not isinstance(loader, DataLoader) or loader.batch_sampler is None or not indexed:
        raise UsageError(
            f"{observer} takes its {split} images by their index: it needs a DataLoader that makes batches of a data "
            f"set with a length, got a {type(loader).__name__} over a {type(dataset).__name__}."
        )
    return dataset, _indices(loader, split, observer), loader.collate_fn


def _test_loaders(trainer: Trainer) -> Any:
    """Return what gives the test images; None where nobody has any. What is trained and validated on stays as it is."""
    data, module = trainer.datamodule, trainer.lightning_module  # type: ignore[attr-defined]
    with _stage(trainer, "test"), isolate_rng():
        if data is not None and is_overridden("test_dataloader", data, LightningDataModule):
            own = copy(data)  # setup may read all parts again, and a new training set must not take the old one's place
            own.setup("test")
            return own.test_dataloader()
        return module.test_dataloader() if is_overridden("test_dataloader", module, LightningModule) else None


def _indices(loader: DataLoader[Any], split: str, observer: str) -> Sequence[int]:
    found = indices_of(loader)
    if found is None:
        raise UsageError(
            f"{observer} takes its {split} images by their index, and cannot tell which images a "
            f"{type(sampler_of(loader)).__name__} gives: hold them out with torch.utils.data.Subset."
        )
    return found


def _on_device(trainer: Trainer, batch: Any) -> Any:
    """Do to a batch what the Trainer's loops do, the data module's hooks included."""
    batch = trainer.lightning_module._on_before_batch_transfer(trainer.precision_plugin.convert_input(batch))
    return trainer.strategy.batch_to_device(batch)
