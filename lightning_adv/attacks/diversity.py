"""Input diversity: random resizing and padding before each gradient."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def diversify(x: Tensor, probability: float, scale: float, generator: torch.Generator) -> Tensor:
    """Transform a batch (N, C, H, W) by :func:`resize_and_pad` with a probability (Xie et al. 2019, equation 3.6)."""
    return resize_and_pad(x, scale, generator) if draw_bernoulli(probability, generator) else x


def draw_bernoulli(probability: float, generator: torch.Generator) -> bool:
    """Return True with a probability. A probability of 0 draws nothing."""
    if probability == 0:
        return False
    return torch.rand((), generator=generator, device=generator.device).item() < probability


def fork_to_host(generator: torch.Generator) -> torch.Generator:
    """Return a generator on the CPU that is seeded by another, from which the host draws what it decides by.

    A number that is drawn on an accelerator has to be waited for: now the host waits once, for the seed. And how often
    one run draws is no matter of the next.
    """
    seed = torch.randint(2**62, (), generator=generator, device=generator.device)
    return torch.Generator().manual_seed(int(seed))


def resize_and_pad(x: Tensor, scale: float, generator: torch.Generator) -> Tensor:
    """Resize to a random size, then pad with zeros at a random place (Xie et al. 2019, section 3.3.3).

    The paper resizes 299 pixels to a size in [299, 330) and pads to 330: ``scale`` = 330 / 299. A scale below 1
    resizes to a size in [round(scale * H), H) and pads to H, for networks that take one size only.

    Args:
        x: Images (N, C, H, W).
        scale: The size after padding over the size before (above 1), or the smallest size over it (below 1).
        generator: Draws one size and one place for the batch.

    Returns:
        Images (N, C, H', W'), with H' = H and W' = W if ``scale`` is below 1, else ``round(scale * H)`` and so on.
    """
    height, width = x.shape[-2:]
    low, high = sorted((1.0, scale))
    smallest = [max(1, round(low * side)) for side in (height, width)]
    largest = [round(high * side) for side in (height, width)]
    share = torch.rand((), generator=generator, device=generator.device).item()
    size = [int(a + share * (b - a)) for a, b in zip(smallest, largest, strict=True)]
    room = [b - side for b, side in zip(largest, size, strict=True)]
    resized = F.interpolate(x, size=size, mode="nearest")
    top, left = (int(torch.randint(0, free + 1, (), generator=generator, device=generator.device)) for free in room)
    return F.pad(resized, (left, room[1] - left, top, room[0] - top))
