"""Wide ResNets for 32×32 images, registered with timm: ``wide_resnet28_10``, ``wide_resnet34_10``, ``wide_resnet``.

Zagoruyko, Komodakis, "Wide Residual Networks" (2016), in the form of TRADES (Zhang et al. 2019) that RobustBench calls
its standard WideResNet: pre-activation blocks, no bias in the convolutions, He initialisation. The state dict has
the keys of those checkpoints.

What other robust networks of this family change is an option: blocks and channels of each stage (Huang et al. 2021,
section 4), the padding of the convolutions that halve the resolution (Gowal et al. 2020, whose JAX networks pad as
TensorFlow does), a classifier by angles (Pang et al. 2020), and images standardised one by one (Ding et al. 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch.nn.functional as F
from timm.layers import Conv2dSame
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from lightning_adv.core.arguments import check_choices
from lightning_adv.core.errors import UsageError

Head = Literal["linear", "cosine"]


def convolution3x3(in_channels: int, out_channels: int, stride: int, same_padding: bool) -> nn.Conv2d:
    """Build a 3×3 convolution without bias.

    Args:
        in_channels: Channels of its input.
        out_channels: Channels of its output.
        stride: 1 or 2.
        same_padding: Where the stride is 2, pad as TensorFlow's ``SAME`` does: features of even size get a row below
            and a column to the right, and none above and to the left.
    """
    if same_padding and stride > 1:
        convolution: nn.Conv2d = Conv2dSame(in_channels, out_channels, 3, stride=stride, bias=False)
        return convolution
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)


class CosineLinear(nn.Linear):
    """The cosines of the angles between features and the weights of each class (Pang et al. 2020, section 3.2)."""

    def forward(self, x: Tensor) -> Tensor:
        """Map features (N, C) to logits (N, K) in [-1, 1]."""
        return F.linear(F.normalize(x), F.normalize(self.weight))


def standardize(x: Tensor) -> Tensor:
    """Give each image (N, C, H, W) the mean 0 and the standard deviation 1 over all its pixels and channels.

    The standard deviation is held above 1 / √(C · H · W), as TensorFlow's ``per_image_standardization`` does.
    """
    pixels = x.flatten(1)
    scale = pixels.std(1).clamp_min(pixels.shape[1] ** -0.5)
    return (x - pixels.mean(1).view(-1, 1, 1, 1)) / scale.view(-1, 1, 1, 1)


class WideBlock(nn.Module):
    """BatchNorm, ReLU, 3×3 convolution, twice; dropout before the second convolution (figure 1d).

    Where the number of channels changes, the shortcut is a 1×1 convolution of the pre-activated input.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, drop_rate: float, same_padding: bool = False
    ) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()
        self.conv1 = convolution3x3(in_channels, out_channels, stride, same_padding)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu2 = nn.ReLU()
        self.drop = nn.Dropout(drop_rate) if drop_rate > 0 else nn.Identity()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.convShortcut: nn.Module | None = None  # spelled as the key in checkpoints
        if in_channels != out_channels:
            self.convShortcut = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (N, C, H, W) to (N, C', ⌈H / stride⌉, ⌈W / stride⌉)."""
        activated = self.relu1(self.bn1(x))
        shortcut = x if self.convShortcut is None else self.convShortcut(activated)
        residual: Tensor = self.conv2(self.drop(self.relu2(self.bn2(self.conv1(activated)))))
        return residual + shortcut


class WideStage(nn.Module):
    """Blocks of one resolution, under the key ``layer``."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        blocks: int,
        stride: int,
        drop_rate: float,
        same_padding: bool = False,
    ) -> None:
        super().__init__()
        first = WideBlock(in_channels, out_channels, stride, drop_rate, same_padding)
        rest = (WideBlock(out_channels, out_channels, 1, drop_rate) for _ in range(blocks - 1))
        self.layer = nn.Sequential(first, *rest)

    def forward(self, x: Tensor) -> Tensor:
        """Run the blocks one after the other."""
        features: Tensor = self.layer(x)
        return features


class WideResNet(nn.Module):
    """Three stages of wide blocks between a 3×3 stem and global average pooling.

    Args:
        num_classes: Number of classes K. 0 leaves the classifier out.
        in_chans: Channels of the images.
        depth: Convolutions on the longest path: 6n + 4 with n blocks in each stage.
        widen_factor: Channels of the stages, in multiples of 16, 32 and 64.
        drop_rate: Probability of dropout inside the blocks.
        blocks: Blocks of each of the three stages, in the place of what ``depth`` says.
        channels: Channels of each of the three stages, in the place of what ``widen_factor`` says.
        same_padding: Pad the convolutions that halve the resolution as TensorFlow does (:func:`convolution3x3`).
        head: ``cosine`` makes the last layer a :class:`CosineLinear`.
        standardize_images: Standardise each image by itself first (:func:`standardize`).

    Raises:
        UsageError: ``depth`` is not 6n + 4 with n of at least 1, ``blocks`` or ``channels`` are not three positive
            numbers, or there is no such ``head``.
    """

    unused_keys = ("sub_block1.",)
    """TRADES registers a copy of the first stage that its forward pass leaves out: checkpoints have its tensors."""

    def __init__(
        self,
        num_classes: int = 10,
        in_chans: int = 3,
        depth: int = 28,
        widen_factor: int = 10,
        drop_rate: float = 0.0,
        blocks: Sequence[int] | None = None,
        channels: Sequence[int] | None = None,
        same_padding: bool = False,
        head: Head = "linear",
        standardize_images: bool = False,
    ) -> None:
        super().__init__()
        blocks, channels = _stages(depth, widen_factor, blocks, channels)
        self.head = head
        check_choices(self, WideResNet)
        self.standardize_images = standardize_images
        self.num_features = channels[2]
        self.conv1 = nn.Conv2d(in_chans, 16, 3, padding=1, bias=False)
        self.block1 = WideStage(16, channels[0], blocks[0], 1, drop_rate, same_padding)
        self.block2 = WideStage(channels[0], channels[1], blocks[1], 2, drop_rate, same_padding)
        self.block3 = WideStage(channels[1], channels[2], blocks[2], 2, drop_rate, same_padding)
        self.bn1 = nn.BatchNorm2d(self.num_features)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc: nn.Module
        self.reset_classifier(num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Start a new last layer. ``global_pool`` is timm's; the pooling here is always the average."""
        self.num_classes = num_classes
        self.fc = nn.Identity()
        if num_classes > 0 and self.head == "cosine":
            self.fc = CosineLinear(self.num_features, num_classes, bias=False)
        elif num_classes > 0:
            self.fc = nn.Linear(self.num_features, num_classes)
            nn.init.zeros_(self.fc.bias)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the activated features (N, 64 · widen_factor, ⌈H / 4⌉, ⌈W / 4⌉) before pooling."""
        x = standardize(x) if self.standardize_images else x
        x = self.block1(self.conv1(x))
        x = self.relu(self.bn1(self.block3(self.block2(x))))
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, K) of images (N, C, H, W)."""
        logits: Tensor = self.fc(self.pool(self.forward_features(x)).flatten(1))
        return logits


def _stages(
    depth: int, widen_factor: int, blocks: Sequence[int] | None, channels: Sequence[int] | None
) -> tuple[Sequence[int], Sequence[int]]:
    """Return the blocks and the channels of each stage."""
    each, rest = divmod(depth - 4, 6)
    if blocks is None and (rest != 0 or each < 1):
        raise UsageError(f"depth must be 10, 16, 22, 28, 34, ... (6n + 4), got {depth}.")
    blocks = [each] * 3 if blocks is None else blocks
    channels = [width * widen_factor for width in (16, 32, 64)] if channels is None else channels
    for name, values in (("blocks", blocks), ("channels", channels)):
        if len(values) != 3 or min(values) < 1:
            raise UsageError(f"{name} must be three positive numbers, one for each stage, got {list(values)}.")
    return blocks, channels


_CFG = {
    "num_classes": 10,
    "input_size": (3, 32, 32),
    "mean": (0.0, 0.0, 0.0),  # TRADES gives the network the pixels as they are
    "std": (1.0, 1.0, 1.0),
    "first_conv": "conv1",
    "classifier": "fc",
}
default_cfgs = generate_default_cfgs({"wide_resnet": _CFG, "wide_resnet28_10": _CFG, "wide_resnet34_10": _CFG})


def wide_resnet(pretrained: bool = False, **kwargs: Any) -> WideResNet:
    """Build a wide ResNet of any size by :class:`WideResNet`'s arguments. There are no pretrained weights."""
    network: WideResNet = build_model_with_cfg(WideResNet, "wide_resnet", pretrained, **kwargs)
    return network


def wide_resnet28_10(pretrained: bool = False, **kwargs: Any) -> WideResNet:
    """Build WRN-28-10. There are no pretrained weights."""
    arguments = {"depth": 28, "widen_factor": 10, **kwargs}
    network: WideResNet = build_model_with_cfg(WideResNet, "wide_resnet28_10", pretrained, **arguments)
    return network


def wide_resnet34_10(pretrained: bool = False, **kwargs: Any) -> WideResNet:
    """Build WRN-34-10. There are no pretrained weights."""
    arguments = {"depth": 34, "widen_factor": 10, **kwargs}
    network: WideResNet = build_model_with_cfg(WideResNet, "wide_resnet34_10", pretrained, **arguments)
    return network


register_model(wide_resnet)
register_model(wide_resnet28_10)
register_model(wide_resnet34_10)
