"""A data module and networks that are small enough to train in a test."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningDataModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_adv.attacks import PGD
from lightning_adv.data.sampler import EpochSampler, TrainLoader
from lightning_adv.nn.backbones import Backbone

BACKBONE = Backbone("small_cnn", in_channels=1, mean=[0.5], std=[0.5], options={"width": 4})
ATTACK = PGD(eps=0.1, steps=2, step_size=0.05)


class ToyData(LightningDataModule):
    """Two classes of noisy 8×8 images, bright above or bright below."""

    name = "toy"
    num_classes = 2
    image_shape = (1, 8, 8)

    def __init__(self, x: torch.Tensor | None = None, y: torch.Tensor | None = None, batch_size: int = 8) -> None:
        super().__init__()
        drawn = torch.Generator().manual_seed(0)
        self.y = torch.arange(32) % 2 if y is None else y
        images = torch.rand(len(self.y), 1, 8, 8, generator=drawn) * 0.5
        images[self.y == 0, :, :4] += 0.4
        images[self.y == 1, :, 4:] += 0.4
        self.x = images if x is None else x
        self.batch_size = batch_size

    def train_dataloader(self) -> DataLoader:
        return DataLoader(TensorDataset(self.x, self.y), batch_size=self.batch_size)

    val_dataloader = test_dataloader = predict_dataloader = train_dataloader


class ResumableToyData(ToyData):
    """The same, shuffled, with a training loader that a resumed run enters in the middle of an epoch."""

    def train_dataloader(self) -> DataLoader:
        images = _Keyed(self.x, self.y)
        replicas = {"num_replicas": self.trainer.world_size, "rank": self.trainer.global_rank}
        sampler = EpochSampler(images, seed=0, drop_last=False, **replicas)
        loader = TrainLoader(images, batch_size=self.batch_size, sampler=sampler)
        loader.trainer = self.trainer
        return loader


class _Keyed(TensorDataset):
    """Indexed by (epoch, index), as the sampler's keys are."""

    def __getitem__(self, key: tuple[int, int] | int) -> Any:
        return super().__getitem__(key if isinstance(key, int) else key[1])


class Graphs:
    """A torch.compile backend that runs the graphs as they are, and counts them."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.count += 1
        return graph.forward


def attacked_by_hand(network: nn.Module, x: torch.Tensor, y: torch.Tensor, label: str = "true") -> torch.Tensor:
    """FGSM at 0.1 of a network in eval mode, written out; the network trains afterwards."""
    network.eval()
    leaf = x.clone().requires_grad_()
    logits = network(leaf)
    F.cross_entropy(logits, logits.argmax(1) if label == "predicted" else y).backward()
    network.train()
    return (x + 0.1 * leaf.grad.sign()).clamp(0, 1)


def trained_by_hand(parameters: Any, loss: Any) -> None:
    """An epoch of plain SGD on a loss of images and labels."""
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    for x, y in ToyData().train_dataloader():
        value = loss(x, y)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()


def assert_same(trained: nn.Module, reference: nn.Module) -> None:
    """Parameters and buffers are the same up to rounding."""
    state = trained.state_dict()
    for name, value in reference.state_dict().items():
        torch.testing.assert_close(state[name], value, msg=name)


def quiet_trainer(tmp_path: Any, **kwargs: Any) -> Trainer:
    """A Trainer that prints and logs nothing."""
    options = {"max_epochs": 1, "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(default_root_dir=tmp_path, accelerator="cpu", enable_model_summary=False, **options | kwargs)
