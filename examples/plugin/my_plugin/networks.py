"""A network: a function, or a class, that gives a module from images to logits."""

from torch import nn


def two_convolutions(num_classes: int, in_channels: int, width: int = 8) -> nn.Module:
    """Return a network of two convolutions.

    Args:
        num_classes: Number of classes K, which the data module says.
        in_channels: Channels C of the images, which the backbone says.
        width: Channels of the layers; ``options: {width: 16}`` sets it.
    """
    return nn.Sequential(
        nn.Conv2d(in_channels, width, kernel_size=3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, kernel_size=3, stride=2, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, num_classes),
    )
