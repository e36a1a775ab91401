"""Parts of a user's own, written into a module in the test's folder as a user has them in the working directory."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightning_adv.core.trust import trusting_for_a_command

NETWORKS = """
import torch
from torch import nn

class MyNet(nn.Module):
    def __init__(self, num_classes: int, in_channels: int = 3, width: int = 4) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(in_channels, width, 3, padding=1), nn.BatchNorm2d(width))
        self.body = nn.Sequential(nn.Conv2d(width, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.head = nn.Linear(width, num_classes)

    def forward(self, x):
        return self.head(self.body(torch.relu(self.stem(x))).mean((2, 3)))

def my_net(**kwargs):
    return MyNet(**kwargs)

class Fixed(nn.Sequential):
    def __init__(self, outputs: int = 10) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, outputs))

class NoNetwork:
    pass

built, number = Fixed(), 3

def seven(num_classes):
    return 7

def pretrained_net(num_classes, in_chans, pretrained=False):
    network = MyNet(num_classes, in_chans)
    if pretrained:
        nn.init.zeros_(network.head.weight)
    return network

class Lazy(nn.Sequential):
    def __init__(self, num_classes):
        super().__init__(nn.Flatten(), nn.LazyLinear(num_classes))

class Plain(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :5]

class Fails(nn.Module):
    def forward(self, x):
        raise RuntimeError("a mistake")

class Wrong(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.layer = nn.Linear(self.width, num_classes)
"""


def write_module(folder: Path, name: str, code: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Write a module into a folder that is the working directory for a while; it is forgotten at the end."""
    (folder / f"{name}.py").write_text(code)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    importlib.invalidate_caches()
    with trusting_for_a_command():
        yield
    forget(name)


def forget(name: str) -> None:
    """Let a module be as in a new process, which has not imported it."""
    sys.modules.pop(name, None)
