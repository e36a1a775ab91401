"""LightningModules as other people write them, and their data: no regime, and batches of many kinds."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

MEAN, STD = [0.5], [0.25]


def small_network(outputs: int = 2) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, outputs),
    )  # fmt: skip


class Task(LightningModule):
    """A classification task whose batches are dicts."""

    def __init__(self, outputs: int = 2, **options: Any) -> None:
        super().__init__()
        self.model = small_network(outputs)
        self.seen: list[dict[str, Tensor]] = []
        self.options = options

    def criterion(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(outputs, labels)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.seen.append({name: value.clone() for name, value in batch.items()})
        loss = self.criterion(self.model(batch["image"]), batch["label"])
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


def images(count: int = 16) -> Tensor:
    return torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(1))


def dicts(
    labels: Tensor, x: Tensor | None = None, batch_size: int = 4, replicas: dict[str, int] | None = None
) -> DataLoader[Any]:
    """Batches {"image", "label"} of as many images as there are labels, in order."""
    x = images(len(labels)) if x is None else x

    def collate(items: list[Any]) -> dict[str, Tensor]:
        return {"image": torch.stack([i for i, _ in items]), "label": torch.stack([y for _, y in items])}

    data = TensorDataset(x, labels)
    sampler = None if replicas is None else DistributedSampler(data, shuffle=False, **replicas)
    return DataLoader(data, batch_size=batch_size, collate_fn=collate, sampler=sampler)


def classes(count: int = 16) -> Tensor:
    return torch.arange(count) % 2
