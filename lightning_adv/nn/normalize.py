"""The normalisation as a network's first layer, so that attacks live in [0, 1] pixel space."""

# Without annotations as strings, which torch.jit.script does not read in the body of a class.

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_adv.core.errors import UsageError


class Normalize(nn.Module):
    """Subtract the mean and divide by the standard deviation of each channel.

    ``mean`` and ``std`` are persistent buffers of shape (C, 1, 1): a checkpoint carries them.

    Args:
        mean: Mean of each channel, in the unit of the images (pixels in [0, 1]).
        std: Standard deviation of each channel, in the same unit.

    Raises:
        UsageError: The lengths differ, or a value is not finite, or one of ``std`` not positive.

    Example:
        >>> Normalize(mean=[0.5], std=[0.25])(torch.ones(1, 1, 1, 1)).item()
        2.0
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std):
            raise UsageError(f"mean and std need one value for each channel, got {len(mean)} and {len(std)} values.")
        check_values("mean", mean)
        check_values("std", std)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise images (N, C, H, W) of a floating dtype, which is kept."""
        return (x - self.mean.to(x.dtype)) / self.std.to(x.dtype)

    def extra_repr(self) -> str:
        """Show the values when the network is printed."""
        return f"mean={self.mean.flatten().tolist()}, std={self.std.flatten().tolist()}"


def check_values(name: str, values: Sequence[float]) -> None:
    """Check the values of a mean or of a standard deviation.

    Args:
        name: The argument's name, for the error; it ends in ``mean`` or ``std``.
        values: One for each channel.

    Raises:
        UsageError: One is not finite, or of a standard deviation not positive, in the network's fp32.
    """
    rounded = torch.tensor(values, dtype=torch.float32, device="cpu")  # also where networks are built on meta
    positive = name.endswith("std")
    if not rounded.isfinite().all() or (positive and not (rounded > 0).all()):
        allowed = "positive and finite" if positive else "finite"
        raise UsageError(f"must be {allowed} in every channel, got {tuple(values)}.", key=name)


class NormalizedNetwork(nn.Module):
    """A network that takes pixels in [0, 1]: ``network(normalize(x))``.

    Args:
        normalize: The first layer.
        network: A classifier of normalised images, (N, C, H, W) -> (N, K).

    Attributes:
        new: Keys of ``network`` that started anew, although the rest of it came with weights (a classifier of another
            size, a CIFAR stem).
        description: What ``model.json`` says of a network that :func:`~lightning_adv.nn.from_pretrained` loaded; None
            of any other.
    """

    new: tuple[str, ...] = ()
    description: Mapping[str, Any] | None = None
    __jit_ignored_attributes__ = ("new", "description")  # torch.jit.script has no types for them

    def __init__(self, normalize: Normalize, network: nn.Module) -> None:
        super().__init__()
        self.normalize = normalize
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, K) of images (N, C, H, W) in [0, 1]."""
        logits: Tensor = self.network(self.normalize(x))
        return logits
