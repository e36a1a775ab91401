"""Wide ResNets for 32×32 images, registered with timm as ``wide_resnet28_10`` and ``wide_resnet34_10``.

Zagoruyko, Komodakis, "Wide Residual Networks" (2016), in the form of TRADES (Zhang et al. 2019) that RobustBench calls
its standard WideResNet: pre-activation blocks, no bias in the convolutions, He initialisation. The state dict has
the keys of those checkpoints.
"""

from __future__ import annotations

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from lightning_adv.core.errors import UsageError


class WideBlock(nn.Module):
    """BatchNorm, ReLU, 3×3 convolution, twice; dropout before the second convolution (figure 1d).

    Where the number of channels changes, the shortcut is a 1×1 convolution of the pre-activated input.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, drop_rate: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
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

    def __init__(self, in_channels: int, out_channels: int, blocks: int, stride: int, drop_rate: float) -> None:
        super().__init__()
        first = WideBlock(in_channels, out_channels, stride, drop_rate)
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

    Raises:
        UsageError: ``depth`` is not 6n + 4 with n of at least 1.
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
    ) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 4, 6)
        if rest != 0 or blocks < 1:
            raise UsageError(f"depth must be 10, 16, 22, 28, 34, ... (6n + 4), got {depth}.")
        self.num_features = 64 * widen_factor
        self.conv1 = nn.Conv2d(in_chans, 16, 3, padding=1, bias=False)
        self.block1 = WideStage(16, 16 * widen_factor, blocks, 1, drop_rate)
        self.block2 = WideStage(16 * widen_factor, 32 * widen_factor, blocks, 2, drop_rate)
        self.block3 = WideStage(32 * widen_factor, 64 * widen_factor, blocks, 2, drop_rate)
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
        if num_classes > 0:
            self.fc = nn.Linear(self.num_features, num_classes)
            nn.init.zeros_(self.fc.bias)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the activated features (N, 64 · widen_factor, ⌈H / 4⌉, ⌈W / 4⌉) before pooling."""
        x = self.block1(self.conv1(x))
        x = self.relu(self.bn1(self.block3(self.block2(x))))
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, K) of images (N, C, H, W)."""
        logits: Tensor = self.fc(self.pool(self.forward_features(x)).flatten(1))
        return logits


_CFG = {
    "num_classes": 10,
    "input_size": (3, 32, 32),
    "mean": (0.0, 0.0, 0.0),  # TRADES gives the network the pixels as they are
    "std": (1.0, 1.0, 1.0),
    "first_conv": "conv1",
    "classifier": "fc",
}
default_cfgs = generate_default_cfgs({"wide_resnet28_10": _CFG, "wide_resnet34_10": _CFG})


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


register_model(wide_resnet28_10)
register_model(wide_resnet34_10)
