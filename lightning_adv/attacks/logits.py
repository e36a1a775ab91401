"""What a network answers in eval mode, batch by batch: what most questions about it begin with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_adv.attacks import held_still


def logits_in_batches(network: nn.Module, x: Tensor, *, batch_size: int | None = None) -> list[Tensor]:
    """Return the logits of images in eval mode, without gradients. The network is left as it was.

    Args:
        network: Maps images (N, C, H, W) to logits (N, K).
        x: Images (N, C, H, W). Of none there is one empty batch.
        batch_size: How many images to look at at a time; None takes all.

    Returns:
        The logits (n, K) of each batch, in the order of the images and as the network gives them, unchecked.
    """
    with held_still(network) as still, torch.no_grad():
        return [still(part) for part in torch.split(x, len(x) if batch_size is None else batch_size)]
