"""The published robust networks as functions that are written from the papers, with the keys of the authors' files.

Small: two blocks in a stage, and stages of 16, 32, ... channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CIFAR10 = ([0.4914, 0.4822, 0.4465], [0.2471, 0.2435, 0.2616])


class Layers:
    """Layers by key: each draws its tensors at its first call, and keeps them in ``state``."""

    def __init__(self) -> None:
        self.state: dict[str, Tensor] = {}
        self._generator = torch.Generator().manual_seed(0)

    def _tensor(self, key: str, *shape: int, scale: float = 1.0, shift: float = 0.0) -> Tensor:
        if key not in self.state:
            self.state[key] = shift + scale * torch.randn(shape, generator=self._generator)
        return self.state[key]

    def conv(self, key: str, x: Tensor, out: int, kernel: int = 3, stride: int = 1, pad: int | None = None) -> Tensor:
        scale = math.sqrt(2 / (x.shape[1] * kernel**2))
        weight = self._tensor(f"{key}.weight", out, x.shape[1], kernel, kernel, scale=scale)
        return F.conv2d(x, weight, stride=stride, padding=kernel // 2 if pad is None else pad)

    def same_conv(self, key: str, x: Tensor, out: int, stride: int) -> Tensor:
        """TensorFlow's SAME: of features of even size, a stride of 2 pads one row and one column, at the end."""
        x = F.pad(x, (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1))
        return self.conv(key, x, out, stride=stride, pad=0)

    def norm(self, key: str, x: Tensor) -> Tensor:
        channels = x.shape[1]
        self.state.setdefault(f"{key}.num_batches_tracked", torch.tensor(7))
        weight, bias = self._tensor(f"{key}.weight", channels, scale=0.1, shift=1.0), f"{key}.bias"
        variance = self._tensor(f"{key}.running_var", channels, scale=0.1, shift=1.0)
        mean = self._tensor(f"{key}.running_mean", channels, scale=0.1)
        return F.batch_norm(x, mean, variance, weight, self._tensor(bias, channels, scale=0.1))

    def linear(self, key: str, x: Tensor) -> Tensor:
        weight = self._tensor(f"{key}.weight", 10, x.shape[1], scale=x.shape[1] ** -0.5)
        return F.linear(x, weight, self._tensor(f"{key}.bias", 10))


def normalized(x: Tensor, mean: list[float], std: list[float]) -> Tensor:
    return (x - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)


def pooled(x: Tensor) -> Tensor:
    return x.mean((2, 3))


def features_of_wide(
    of: Layers,
    x: Tensor,
    keys: dict[str, str],
    act: Callable[[Tensor], Tensor] = F.relu,
    channels: tuple[int, ...] = (16, 32, 64),
    same: bool = False,
) -> Tensor:
    """Return the pooled features of Zagoruyko and Komodakis' wide ResNet, whose layers are called as ``keys`` says."""
    x = of.conv(keys["stem"], x, 16)
    for stage, out in enumerate(channels):
        for index in range(2):
            stride = 2 if stage and not index else 1
            key = keys["stage"].format(stage, stage + 1) + f".{index}."
            activated = act(of.norm(key + keys["norm1"], x))
            widened = x.shape[1] != out
            shortcut = of.conv(key + keys["shortcut"], activated, out, kernel=1, stride=stride) if widened else x
            first = key + keys["conv1"]
            y = of.same_conv(first, activated, out, stride) if same else of.conv(first, activated, out, stride=stride)
            x = shortcut + of.conv(key + keys["conv2"], act(of.norm(key + keys["norm2"], y)), out)
    return pooled(act(of.norm(keys["norm"], x)))


def wide(of: Layers, x: Tensor, keys: dict[str, str], **settings: Any) -> Tensor:
    """Return its logits."""
    return of.linear(keys["head"], features_of_wide(of, x, keys, **settings))


_BLOCK = {"norm1": "bn1", "conv1": "conv1", "norm2": "bn2", "conv2": "conv2", "head": "fc", "norm": "bn1"}
TRADES = {**_BLOCK, "stem": "conv1", "stage": "block{1}.layer", "shortcut": "convShortcut"}
HUANG2021 = {**_BLOCK, "stem": "stem_conv", "stage": "blocks.{0}.layer", "shortcut": "convShortcut"}
HUANG2022 = {**HUANG2021, "shortcut": "shortcut.0", "norm": "norm1"}
GOWAL = {
    "stem": "init_conv",
    "stage": "layer.{0}.block",
    "norm1": "batchnorm_0",
    "conv1": "conv_0",
    "norm2": "batchnorm_1",
    "conv2": "conv_1",
    "shortcut": "shortcut",
    "norm": "batchnorm",
    "head": "logits",
}


def carmon(of: Layers, x: Tensor) -> Tensor:
    logits = wide(of, x, TRADES)
    copied = {key: value + 1 for key, value in of.state.items() if key.startswith("block1.")}
    of.state |= {f"sub_{key}": value for key, value in copied.items()}  # registered by TRADES, and never run
    return logits


def rice(of: Layers, x: Tensor) -> Tensor:
    return wide(of, normalized(x, *CIFAR10), TRADES)


def hendrycks(of: Layers, x: Tensor) -> Tensor:
    return wide(of, 2 * x - 1, TRADES)


def ding(of: Layers, x: Tensor) -> Tensor:
    images = [image - image.mean() for image in x]  # as TensorFlow's documentation of per_image_standardization says
    x = torch.stack([image / max(image.std().item(), image.numel() ** -0.5) for image in images])
    return wide(of, x, TRADES)


def pang(of: Layers, x: Tensor) -> Tensor:
    features = features_of_wide(of, normalized(x, *CIFAR10), TRADES)
    of.linear("fc", features)
    del of.state["fc.bias"]
    return F.cosine_similarity(features[:, None], of.state["fc.weight"][None], dim=2)


def gowal(of: Layers, x: Tensor) -> Tensor:
    return wide(of, normalized(x, *CIFAR10), GOWAL, act=F.silu, same=True)


def huang2021(of: Layers, x: Tensor) -> Tensor:
    return wide(of, x, HUANG2021, channels=(32, 48, 24))


def huang2022(of: Layers, x: Tensor) -> Tensor:
    return wide(of, normalized(x, *CIFAR10), HUANG2022, act=F.silu, channels=(32, 48, 24))


def gowal_r18(of: Layers, x: Tensor) -> Tensor:
    x = of.conv("conv_2d", normalized(x, *CIFAR10), 8)
    for stage, out in enumerate([8, 16, 24, 32]):
        for index in range(2):
            stride, key = (2 if stage and not index else 1), f"layer_{stage}.{index}."
            shortcut = of.same_conv(f"{key}shortcut", x, out, stride) if stride == 2 else x
            y = of.same_conv(f"{key}conv_2d_1", F.silu(of.norm(f"{key}batchnorm_0", x)), out, stride)
            x = shortcut + of.conv(f"{key}conv_2d_2", F.silu(of.norm(f"{key}batchnorm_1", y)), out)
    return of.linear("logits", pooled(F.silu(of.norm("batchnorm", x))))


def andriushchenko(of: Layers, x: Tensor) -> Tensor:
    x = of.conv("conv1", x, 8)
    for stage, out in enumerate([8, 16, 24, 32]):
        for index in range(2):
            stride, key = (2 if stage and not index else 1), f"layer{stage + 1}.{index}."
            shortcut = of.conv(f"{key}shortcut.0", x, out, kernel=1, stride=stride) if stride == 2 else x
            y = of.conv(f"{key}conv1", F.relu(of.norm(f"{key}bn1", x)), out, stride=stride)
            x = shortcut + of.conv(f"{key}conv2", F.relu(of.norm(f"{key}bn2", y)), out)
    twice = {"model_preact_hl1.1.weight": of.state["conv1.weight"]}
    logits = of.linear("linear", pooled(x))
    of.state |= twice
    return logits


def kuangliu(of: Layers, x: Tensor, bottleneck: bool = False) -> Tensor:
    x = F.relu(of.norm("bn1", of.conv("conv1", x, 64)))
    for stage, planes in enumerate([8, 16, 24, 32]):
        for index in range(2):
            stride, key = (2 if stage and not index else 1), f"layer{stage + 1}.{index}."
            out = 4 * planes if bottleneck else planes
            shortcut = x
            if stride == 2 or x.shape[1] != out:
                shortcut = of.norm(f"{key}shortcut.1", of.conv(f"{key}shortcut.0", x, out, kernel=1, stride=stride))
            if bottleneck:
                y = F.relu(of.norm(f"{key}bn1", of.conv(f"{key}conv1", x, planes, kernel=1)))
                y = F.relu(of.norm(f"{key}bn2", of.conv(f"{key}conv2", y, planes, stride=stride)))
                y = of.norm(f"{key}bn3", of.conv(f"{key}conv3", y, out, kernel=1))
            else:
                y = F.relu(of.norm(f"{key}bn1", of.conv(f"{key}conv1", x, planes, stride=stride)))
                y = of.norm(f"{key}bn2", of.conv(f"{key}conv2", y, out))
            x = F.relu(y + shortcut)
    return of.linear("linear", pooled(x))


def engstrom(of: Layers, x: Tensor) -> Tensor:
    return kuangliu(of, normalized(x, CIFAR10[0], [0.2023, 0.1994, 0.2010]), bottleneck=True)


WIDE = {"depth": 16, "widen_factor": 1}
PREACT = {"channels": [8, 16, 24, 32]}
RESNET = {"channels": [8, 16, 24, 32], "layers": [2, 2, 2, 2]}
HUANG = {"blocks": [2, 2, 2], "channels": [32, 48, 24]}

SMALL: dict[str, tuple[Callable[[Layers, Tensor], Tensor], dict[str, Any]]] = {
    "Carmon2019Unlabeled": (carmon, WIDE),
    "Rice2020Overfitting": (rice, WIDE),
    "Hendrycks2019Using": (hendrycks, WIDE),
    "Ding2020MMA": (ding, WIDE),
    "Pang2020Boosting": (pang, WIDE),
    "Gowal2020Uncovering_70_16": (gowal, WIDE),
    "Wang2023Better_WRN-70-16": (gowal, WIDE),
    "Huang2021Exploring": (huang2021, HUANG),
    "Huang2022Revisiting_WRN-A4": (huang2022, HUANG),
    "Rade2021Helper_R18_extra": (gowal_r18, PREACT),
    "Andriushchenko2020Understanding": (andriushchenko, PREACT),
    "Addepalli2022Efficient_RN18": (kuangliu, RESNET),
    "Engstrom2019Robustness": (engstrom, RESNET),
}
"""Entries by name: the authors' network, and the options that make ours as small."""


def weights_and_logits(entry: str, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Draw the authors' weights, and return what they make of images (N, 3, H, W) in [0, 1]."""
    layers = Layers()
    logits = SMALL[entry][0](layers, x)
    return layers.state, logits
