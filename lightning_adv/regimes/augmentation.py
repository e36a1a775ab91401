"""Augmentation that makes a domain of its own: AutoAugment, for fine-grained AdvProp."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lightning_adv.core.arguments import check_choices
from lightning_adv.core.recipe import Recipe


class AutoAugment(Recipe):
    """torchvision's AutoAugment, another draw for each image (Cubuk et al. 2019).

    It draws from torch's global random state, which a regime seeds in each training step.

    Args:
        policy: The data set whose policy it is: ``"imagenet"``, ``"cifar10"`` or ``"svhn"``.

    Raises:
        UsageError: There is no such policy.

    Example:
        >>> AutoAugment("cifar10")(torch.rand(4, 3, 32, 32)).shape
        torch.Size([4, 3, 32, 32])
    """

    def __init__(self, policy: Literal["imagenet", "cifar10", "svhn"] = "imagenet") -> None:
        self.policy = policy
        check_choices(self, AutoAugment)

    def __call__(self, x: Tensor) -> Tensor:
        """Return augmented copies of images (N, C, H, W) in [0, 1], rounded to grey levels of 1/255."""
        from torchvision.transforms import v2

        augment = v2.AutoAugment(v2.AutoAugmentPolicy(self.policy))
        levels = (255 * x).round().to(torch.uint8)  # what the policies' magnitudes are for
        return torch.stack([augment(image) for image in levels]).to(x.dtype) / 255
