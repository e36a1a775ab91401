"""What several signals begin with: images in parts, and a network's losses and gradients there."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from lightning_adv.attacks.checks import check_images
from lightning_adv.attacks.forward import Forward, at_least_fp32, gradient_to
from lightning_adv.core.errors import UsageError

Slope = Callable[[Tensor, Tensor], Tensor]
"""Logits (N, K) and labels (N,) to the gradient (N, K) of a loss to the logits."""


def check_labelled(x: Tensor, y: Tensor) -> None:
    """Check that ``x`` (N, C, H, W) are images in [0, 1], at least one, and ``y`` (N,) their labels.

    Raises:
        UsageError: They are not.
    """
    check_images(x, y)
    if not len(x):
        raise UsageError("x must hold at least one image, got none.")


def check_pair(x: Tensor, x_adv: Tensor) -> None:
    """Check that ``x_adv`` are images of ``x``'s shape.

    Raises:
        UsageError: They are not.
    """
    if x.shape != x_adv.shape:
        raise UsageError(f"x_adv must have the shape of x, {tuple(x.shape)}, got {tuple(x_adv.shape)}.")


def in_parts(batch_size: int | None, *tensors: Tensor, argument: str = "batch_size") -> Iterator[tuple[Tensor, ...]]:
    """Yield tensors (N, ...) in parts of up to ``batch_size`` samples each; None takes all at once.

    The parts are copies: inside ``inference_mode`` a tensor takes part in no gradient, its copy outside does.

    Raises:
        UsageError: ``batch_size`` is below 1.
    """
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"{argument} must be at least 1, got {batch_size}.")
    size = len(tensors[0]) if batch_size is None else batch_size
    for parts in zip(*(torch.split(tensor.detach(), size) for tensor in tensors), strict=True):
        yield tuple(part.clone() for part in parts)


def input_gradients(network: nn.Module, x: Tensor, y: Tensor, slope: Slope, dtype: torch.dtype) -> Tensor:
    """Return the gradient (N, C, H, W) of a loss to images, each sample's by itself; in fp32 or more.

    Args:
        network: A network that is held still; its BatchNorms go by their running statistics.
        x: Images (N, C, H, W), a copy.
        y: Labels (N,).
        slope: The gradient of the loss to the logits.
        dtype: The dtype in which the network takes its images.

    Raises:
        NoGradientError: There is none.
    """
    images = at_least_fp32(x).requires_grad_()
    logits = Forward(network, dtype, y)(images)
    return gradient_to(images, logits, slope(logits.detach(), y.long()))


def cosine(first: Tensor, second: Tensor) -> Tensor:
    """Return the cosine (N,) of the angle between each two of N vectors (N, ...); nan where one of them is zero.

    Vectors are scaled by their largest entries first, so that squares of small gradients are not rounded to zero.
    """
    scaled = [at_least_fp32(each).flatten(1) for each in (first, second)]
    scaled = [each / each.abs().amax(1, keepdim=True) for each in scaled]
    norms = [torch.linalg.vector_norm(each, dim=1) for each in scaled]
    cosines: Tensor = (scaled[0] * scaled[1]).sum(1) / (norms[0] * norms[1])
    return cosines.clamp(-1, 1)
