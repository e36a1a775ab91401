"""Adversarial perturbations as pictures, of attacks that succeeded and of attacks that failed.

"Dissecting Local Properties of Adversarial Examples" (ICLR 2022 submission, anonymous), section 3.2 and appendix B,
figures 3 (successful PGD), 7 (FGSM) and 8 (failed PGD).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightning_adv.analysis.images.transformed_accuracy import correctly_classified
from lightning_adv.analysis.images.transforms import check_image_batch
from lightning_adv.core.errors import UsageError


class PerturbationViews(NamedTuple):
    """One perturbation δ = x_adv - x seen in three ways.

    Attributes:
        overall: ``(δ / scale + 1) / 2`` as an image (N, C, H, W) in [0, 1]: no change is grey.
        mean: Mean of the channels (N, H, W), with its sign, in the unit of the images.
        channels: Each channel (N, C, H, W), likewise.
        scale: The largest |δ| of all pixels of all images; eps, as a rule, for an Linf attack.
    """

    overall: Tensor
    mean: Tensor
    channels: Tensor
    scale: float


class Outcomes(NamedTuple):
    """What became of attacks. Images that are misclassified to begin with are in neither.

    Attributes:
        successful: Which images (N,) are classified correctly, and their adversarial examples are not.
        failed: Which images (N,) are classified correctly, and so are their adversarial examples.
    """

    successful: Tensor
    failed: Tensor


def perturbation_views(x: Tensor, x_adv: Tensor) -> PerturbationViews:
    """Return perturbations overall, as the mean of the channels, and channel by channel (figure 3(c) to 3(g)).

    Args:
        x: Clean images (N, C, H, W) in [0, 1], at least one.
        x_adv: Their adversarial examples (N, C, H, W).

    Raises:
        UsageError: These are no images in [0, 1] of one shape, or there are none.

    Example:
        >>> x = torch.full((1, 1, 1, 2), 0.5)
        >>> perturbation_views(x, x + 0.25).overall
        tensor([[[[1., 1.]]]])
    """
    check_image_batch(x)
    check_image_batch(x_adv, "x_adv")
    if x.shape != x_adv.shape or not x.numel():
        raise UsageError(
            f"x and x_adv must be images of one shape, at least one, got {tuple(x.shape)} and {tuple(x_adv.shape)}."
        )
    delta = x_adv.detach().to(x.device) - x.detach()
    scale = float(delta.abs().max())
    overall = (delta / scale + 1) / 2 if scale else torch.full_like(delta, 0.5)
    return PerturbationViews(overall, delta.mean(1), delta, scale)


def attack_outcomes(network: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, *, batch_size: int = 256) -> Outcomes:
    """Return which attacks were successful and which failed.

    Args:
        network: Maps images (N, C, H, W) to logits (N, K). It is in eval mode meanwhile, and is left as it was.
        x: Clean images (N, C, H, W).
        x_adv: Their adversarial examples (N, C, H, W).
        y: Labels (N,).
        batch_size: How many images to classify at a time.

    Example:
        >>> brighter = nn.Flatten()  # of two pixels, the brighter one is the class
        >>> x = torch.tensor([[[[0.2, 0.8]]], [[[0.4, 0.6]]]])
        >>> attack_outcomes(brighter, x, x + torch.tensor([0.2, -0.2]), torch.tensor([1, 1])).successful
        tensor([False,  True])
    """
    correct, withstood = (correctly_classified(network, images, y, batch_size=batch_size) for images in (x, x_adv))
    return Outcomes(correct & ~withstood, correct & withstood)
