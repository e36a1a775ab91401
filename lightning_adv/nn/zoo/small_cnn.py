"""A small convolutional network for 8×8 to 28×28 images, registered with timm as ``small_cnn``."""

from __future__ import annotations

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn


class SmallCNN(nn.Module):
    """Four 3×3 convolutions with BatchNorm and ReLU, global average pooling, one linear layer.

    The second and the fourth convolution have stride 2: 8×8 images end as 2×2 features, 28×28 as 7×7.

    Args:
        num_classes: Number of classes K. 0 leaves the classifier out.
        in_chans: Channels of the images.
        width: Channels of the first layer; the others have 2, 2 and 4 times as many.
    """

    def __init__(self, num_classes: int = 10, in_chans: int = 1, width: int = 16) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_features = 4 * width
        self.layer1 = _conv_bn_relu(in_chans, width, stride=1)
        self.layer2 = _conv_bn_relu(width, 2 * width, stride=2)
        self.layer3 = _conv_bn_relu(2 * width, 2 * width, stride=1)
        self.layer4 = _conv_bn_relu(2 * width, 4 * width, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc: nn.Module
        self.reset_classifier(num_classes)

    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Start a new last layer. ``global_pool`` is timm's; the pooling here is always the average."""
        self.num_classes = num_classes
        self.fc = nn.Linear(self.num_features, num_classes) if num_classes > 0 else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the features (N, 4 · width, ⌈H / 4⌉, ⌈W / 4⌉) before pooling."""
        x = self.layer2(self.layer1(x))
        x = self.layer4(self.layer3(x))
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, K) of images (N, C, H, W)."""
        logits: Tensor = self.fc(self.pool(self.forward_features(x)).flatten(1))
        return logits


def _conv_bn_relu(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


default_cfgs = generate_default_cfgs(
    {
        "small_cnn": {
            "num_classes": 10,
            "input_size": (1, 8, 8),
            "mean": (0.5,),
            "std": (0.5,),
            "first_conv": "layer1.0",
            "classifier": "fc",
        }
    }
)


def small_cnn(pretrained: bool = False, **kwargs: Any) -> SmallCNN:
    """Build :class:`SmallCNN`. There are no pretrained weights."""
    network: SmallCNN = build_model_with_cfg(SmallCNN, "small_cnn", pretrained, **kwargs)
    return network


register_model(small_cnn)
