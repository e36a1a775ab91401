"""Adversarial examples of many images, batch by batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lightning_adv.attacks.base import Attack


def attack_in_batches(
    attack: Attack,
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    generator: torch.Generator,
    batch_size: int,
    *,
    device: torch.device | None = None,
    done: Callable[[int], None] = lambda images: None,
) -> Tensor:
    """Return the adversarial examples of many images.

    Args:
        attack: The attack.
        network: Maps images (N, C, H, W) to logits (N, K). It is left as it was.
        x: Images (N, C, H, W) in [0, 1], at least one.
        y: Labels (N,).
        generator: What the attack draws from, batch after batch.
        batch_size: How many images to attack at a time. The draws of a random attack depend on it.
        device: Where each batch is attacked, and comes back from; None is where the images are.
        done: Called with the number of images of each batch that is done.

    Returns:
        (N, C, H, W), where ``x`` is.

    Raises:
        RuntimeError: The attack leaves [0, 1]: it is faulty.

    Example:
        >>> from lightning_adv.attacks import FGSM
        >>> network, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.rand(3, 1, 2, 2)
        >>> attack_in_batches(FGSM(), network, x, torch.zeros(3, dtype=int), torch.Generator(), 2).shape
        torch.Size([3, 1, 2, 2])
    """
    where = x.device if device is None else device
    found: list[Tensor] = []
    for part, labels in zip(torch.split(x, batch_size), torch.split(y, batch_size), strict=True):
        found.append(attack(network, part.to(where), labels.to(where), generator=generator).to(x.device))
        done(len(part))
    x_adv = torch.cat(found)
    if not ((x_adv >= 0) & (x_adv <= 1)).all():  # written so that NaN fails too, which would count as fooled
        raise RuntimeError(
            f"{type(attack).__name__} gave images with values from {x_adv.min():.6g} to {x_adv.max():.6g}, which must "
            "lie in [0, 1]: it is faulty."
        )
    return x_adv
