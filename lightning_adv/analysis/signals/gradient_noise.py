"""How long the gradient to the weights is, and how much of it is noise of the batch.

McCandlish et al., "An empirical model of large-batch training" (2018): the simple noise scale ``tr(Σ) / |G|²``
(equation 2.9), with the gradient G of the mean loss and the covariance Σ of the gradients of single images. It is the
number of images at which the noise of a batch is as long as its gradient.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightning_adv.analysis.signals.batches import in_parts
from lightning_adv.analysis.signals.weights import weights_of
from lightning_adv.attacks import Forward
from lightning_adv.attacks.checks import check_images
from lightning_adv.attacks.losses import LossChoice, get_loss
from lightning_adv.core.errors import UsageError


class GradientMoments(NamedTuple):
    """What the gradients of micro-batches add up to; those of several batches or processes add up field by field.

    Attributes:
        gradient_sum: Sum (P,) of the micro-batches' gradients to all P trained weights, each of a mean loss.
        squared_norms: Sum of their squared lengths.
        micro_batches: Their number.
        images: Number of images in all of them.
    """

    gradient_sum: Tensor
    squared_norms: float
    micro_batches: int
    images: int


class GradientNoise(NamedTuple):
    """The gradient to the weights and its noise.

    Attributes:
        norm: Length of the gradient of all images, as measured; its square is too large by ``variance / images``.
        squared_norm: Estimate of ``|G|²`` without that bias; it may be below zero where the noise is larger than G.
        variance: Estimate of tr(Σ) without bias, for single images.
        noise_scale: ``variance / squared_norm``, in images; infinite where ``squared_norm`` is not above zero.
    """

    norm: float
    squared_norm: float
    variance: float
    noise_scale: float


def gradient_moments(
    network: nn.Module, x: Tensor, y: Tensor, *, micro_batch: int = 32, loss: LossChoice = "cross_entropy"
) -> GradientMoments:
    """Return the sums over micro-batches from which :func:`gradient_noise` tells the noise scale.

    The network is in eval mode meanwhile and is left as it was: dropout and batch statistics add no noise of their own.
    Parameters that do not require a gradient are left out. Under autocast the network runs in the precision of its
    weights. Cost: one forward and one backward pass to the weights, and memory for one micro-batch and one gradient
    more.

    Args:
        network: Maps images (N, C, H, W) to logits (N, K).
        x: Images (N, C, H, W) in [0, 1], clean or adversarial, in random order. A rest that fills no micro-batch is
            left out; of no micro-batch the sums are zero, so that a process without images can take part.
        y: Labels (N,).
        micro_batch: Images of a micro-batch. One is the most exact, and takes one pass for each image.
        loss: What is trained on: the name of a loss or a function of logits (n, K) and labels (n,) to losses (n,).

    Raises:
        UsageError: ``x`` are no images in [0, 1], ``y`` are not their labels, ``micro_batch`` is below 1, or no
            parameter requires a gradient.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> moments = gradient_moments(network, torch.rand(70, 1, 2, 2), torch.arange(70) % 2)
        >>> moments.gradient_sum.shape, moments.micro_batches, moments.images
        (torch.Size([10]), 2, 64)
    """
    check_images(x, y)
    function = get_loss(loss)
    squares, count = 0.0, 0
    with weights_of(network) as (still, weights):
        total = torch.zeros(sum(map(torch.numel, weights)), device=weights[0].device)
        for images, labels in in_parts(micro_batch, x, y.long(), argument="micro_batch"):
            if len(images) < micro_batch:
                break
            mean = function(Forward(still, x.dtype, labels)(images), labels).mean()
            gradient = torch.autograd.grad(mean, weights, materialize_grads=True)
            flat = torch.cat([each.flatten().to(total) for each in gradient])
            total += flat
            squares += _squared_norm(flat)
            count += 1
    return GradientMoments(total, squares, count, count * micro_batch)


def gradient_noise(*moments: GradientMoments) -> GradientNoise:
    """Return the gradient norm and the noise scale, of one or several batches or processes.

    By the estimates of McCandlish et al., appendix A.1, with the micro-batches as the small batch and all images as the
    big one. For a smoother noise scale over training average ``squared_norm`` and ``variance`` over looks, and divide
    then: the mean of the ratios is biased, as they say there.

    Args:
        *moments: Sums over micro-batches, all of one size.

    Raises:
        UsageError: There are fewer than two micro-batches, or they differ in size.

    Example:
        >>> opposite = GradientMoments(torch.zeros(1), squared_norms=2.0, micro_batches=2, images=2)  # of +1 and -1
        >>> gradient_noise(opposite)
        GradientNoise(norm=0.0, squared_norm=-1.0, variance=2.0, noise_scale=inf)
    """
    count, big = (
        sum(numbers) for numbers in zip(*((each.micro_batches, each.images) for each in moments), strict=True)
    )
    if count < 2:
        raise UsageError(f"The noise scale needs at least two micro-batches, got {count}: take more images.")
    small = big // count
    if any(each.images != small * each.micro_batches for each in moments):
        raise UsageError("The noise scale needs micro-batches of one size.")
    whole = torch.stack([each.gradient_sum for each in moments]).sum(0) / count
    of_big, of_small = _squared_norm(whole), sum(each.squared_norms for each in moments) / count
    squared = (big * of_big - small * of_small) / (big - small)
    variance = (of_small - of_big) / (1 / small - 1 / big)
    return GradientNoise(math.sqrt(of_big), squared, variance, variance / squared if squared > 0 else math.inf)


def _squared_norm(vector: Tensor) -> float:
    return float(torch.linalg.vector_norm(vector)) ** 2
