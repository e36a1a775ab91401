"""A data module that is small enough to train on in a test."""

from __future__ import annotations

from typing import Any, cast

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from lightning_adv.core.errors import UsageError
from lightning_adv.data.sampler import EpochSampler, Key, TrainLoader


class SmallImages(LightningDataModule):
    """Random images around one random image for each class: 32 of them, in batches of 8.

    A run on them can be resumed in the middle of an epoch.

    Args:
        in_channels: Number of channels C.
        num_classes: Number of classes K.
        size: Height and width in pixels.

    Raises:
        UsageError: One of them is too small.

    Example:
        >>> x, y = next(iter(SmallImages(in_channels=1, num_classes=3).val_dataloader()))
        >>> x.shape, y.tolist()
        (torch.Size([8, 1, 8, 8]), [0, 1, 2, 0, 1, 2, 0, 1])
    """

    name = "small images"

    def __init__(self, in_channels: int, num_classes: int, size: int = 8) -> None:
        super().__init__()
        for name, value, least in (("in_channels", in_channels, 1), ("num_classes", num_classes, 2), ("size", size, 1)):
            if value < least:
                raise UsageError(f"{name} must be at least {least}, got {value}.")
        self.num_classes = num_classes
        self.image_shape = (in_channels, size, size)
        drawn = torch.Generator().manual_seed(0)
        self.y = torch.arange(32) % num_classes
        centres = torch.rand(num_classes, *self.image_shape, generator=drawn)
        self.x = 0.5 * centres[self.y] + 0.5 * torch.rand(32, *self.image_shape, generator=drawn)

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the images in an order that depends on the epoch."""
        images, trainer = _Keyed(self.x, self.y), cast(Any, self.trainer)
        replicas = {"num_replicas": trainer.world_size, "rank": trainer.global_rank}
        loader = TrainLoader(images, batch_size=8, sampler=EpochSampler(images, seed=0, drop_last=False, **replicas))
        loader.trainer = trainer
        return loader

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the images in order."""
        return DataLoader(TensorDataset(self.x, self.y), batch_size=8)

    test_dataloader = predict_dataloader = val_dataloader


class _Keyed(TensorDataset):
    """Indexed by (epoch, index), as an ``EpochSampler`` does, or by the index alone."""

    def __getitem__(self, key: Key | int) -> tuple[Tensor, ...]:
        return tuple(tensor[key if isinstance(key, int) else key[1]] for tensor in self.tensors)
