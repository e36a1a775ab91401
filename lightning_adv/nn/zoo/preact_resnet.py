"""Pre-activation ResNet-18 for 32×32 images, registered with timm as ``preact_resnet18``.

He, Zhang, Ren, Sun, "Identity Mappings in Deep Residual Networks" (2016), section 4, in the form of Rice, Wong,
Kolter, "Overfitting in adversarially robust deep learning" (2020): a single 3×3 convolution as the stem, BatchNorm and
ReLU before each convolution, and once more before the pooling. The state dict has the keys of their
checkpoints.

Other robust networks of this family leave out the last BatchNorm and ReLU and take their shortcuts from the input of
the block, before its first BatchNorm (Wong, Rice, Kolter 2020; Andriushchenko, Flammarion 2020). Those of Gowal et al.
(2021) do the latter with 3×3 convolutions, and pad as TensorFlow does where the resolution is halved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from lightning_adv.core.arguments import check_choices
from lightning_adv.nn.zoo.wide_resnet import convolution3x3

ShortcutOf = Literal["activated", "input"]
ShortcutKernel = Literal[1, 3]


class PreActBlock(nn.Module):
    """Two 3×3 convolutions, each after BatchNorm and ReLU (figure 4e of He et al.).

    Where the shape changes, the shortcut is a convolution of the pre-activated input, or of the input as it is.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        shortcut_of: ShortcutOf = "activated",
        shortcut_kernel: ShortcutKernel = 1,
        same_padding: bool = False,
    ) -> None:
        super().__init__()
        self.shortcut_of = shortcut_of
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()
        self.conv1 = convolution3x3(in_channels, out_channels, stride, same_padding)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.shortcut: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            convolution = (
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
                if shortcut_kernel == 1
                else convolution3x3(in_channels, out_channels, stride, same_padding)
            )
            # a Sequential, for the key "shortcut.0.weight" that checkpoints have
            self.shortcut = nn.Sequential(convolution)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (N, C, H, W) to (N, C', ⌈H / stride⌉, ⌈W / stride⌉)."""
        activated = self.relu1(self.bn1(x))
        shortcut = x
        if self.shortcut is not None:
            shortcut = self.shortcut(activated if self.shortcut_of == "activated" else x)
        residual: Tensor = self.conv2(self.relu2(self.bn2(self.conv1(activated))))
        return residual + shortcut


class PreActResNet(nn.Module):
    """Four stages of pre-activation blocks between a 3×3 stem and global average pooling.

    Args:
        num_classes: Number of classes K. 0 leaves the classifier out.
        in_chans: Channels of the images.
        layers: Blocks of each stage; each stage but the first halves the resolution.
        channels: Channels of each stage.
        shortcut_of: Where the shape changes, the shortcut begins behind the first BatchNorm and ReLU of a block
            (``activated``) or before them (``input``).
        shortcut_kernel: Size of the shortcut's convolution, 1 or 3.
        same_padding: Pad the 3×3 convolutions that halve the resolution as TensorFlow does
            (:func:`~lightning_adv.nn.zoo.wide_resnet.convolution3x3`).
        last_norm: Whether there are a BatchNorm and a ReLU before the pooling.

    Raises:
        UsageError: ``shortcut_of`` or ``shortcut_kernel`` is not one of its choices.
    """

    unused_keys = ("model_preact_hl1.",)
    """Andriushchenko and Flammarion (2020) register their first layers twice: checkpoints have the tensors twice."""

    def __init__(
        self,
        num_classes: int = 10,
        in_chans: int = 3,
        layers: Sequence[int] = (2, 2, 2, 2),
        channels: Sequence[int] = (64, 128, 256, 512),
        shortcut_of: ShortcutOf = "activated",
        shortcut_kernel: ShortcutKernel = 1,
        same_padding: bool = False,
        last_norm: bool = True,
    ) -> None:
        super().__init__()
        self.shortcut_of, self.shortcut_kernel = shortcut_of, shortcut_kernel
        check_choices(self, PreActResNet)
        settings = (shortcut_of, shortcut_kernel, same_padding)
        self.num_features = channels[3]
        self.conv1 = nn.Conv2d(in_chans, channels[0], 3, padding=1, bias=False)
        self.layer1 = _stage(channels[0], channels[0], layers[0], 1, *settings)
        self.layer2 = _stage(channels[0], channels[1], layers[1], 2, *settings)
        self.layer3 = _stage(channels[1], channels[2], layers[2], 2, *settings)
        self.layer4 = _stage(channels[2], channels[3], layers[3], 2, *settings)
        self.bn = nn.BatchNorm2d(self.num_features) if last_norm else nn.Identity()
        self.relu = nn.ReLU() if last_norm else nn.Identity()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear: nn.Module
        self.reset_classifier(num_classes)

    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return self.linear

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Start a new last layer. ``global_pool`` is timm's; the pooling here is always the average."""
        self.num_classes = num_classes
        self.linear = nn.Linear(self.num_features, num_classes) if num_classes > 0 else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the activated features (N, 512, ⌈H / 8⌉, ⌈W / 8⌉) before pooling."""
        x = self.layer2(self.layer1(self.conv1(x)))
        x = self.relu(self.bn(self.layer4(self.layer3(x))))
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, K) of images (N, C, H, W)."""
        logits: Tensor = self.linear(self.pool(self.forward_features(x)).flatten(1))
        return logits


def _stage(
    in_channels: int,
    out_channels: int,
    blocks: int,
    stride: int,
    shortcut_of: ShortcutOf,
    shortcut_kernel: ShortcutKernel,
    same_padding: bool,
) -> nn.Sequential:
    settings = (shortcut_of, shortcut_kernel, same_padding)
    first = PreActBlock(in_channels, out_channels, stride, *settings)
    return nn.Sequential(first, *(PreActBlock(out_channels, out_channels, 1, *settings) for _ in range(blocks - 1)))


default_cfgs = generate_default_cfgs(
    {
        "preact_resnet18": {
            "num_classes": 10,
            "input_size": (3, 32, 32),
            "mean": (0.4914, 0.4822, 0.4465),  # CIFAR-10's, as Rice et al. normalise
            "std": (0.2471, 0.2435, 0.2616),
            "first_conv": "conv1",
            "classifier": "linear",
        }
    }
)


def preact_resnet18(pretrained: bool = False, **kwargs: Any) -> PreActResNet:
    """Build the pre-activation ResNet-18 of Rice et al. (2020). There are no pretrained weights."""
    network: PreActResNet = build_model_with_cfg(PreActResNet, "preact_resnet18", pretrained, **kwargs)
    return network


register_model(preact_resnet18)
