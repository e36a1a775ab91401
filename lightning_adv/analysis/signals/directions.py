"""Whether one gradient step and many lead the same way: the direction of FGSM against that of PGD.

Andriushchenko & Flammarion, "Understanding and improving fast adversarial training" (NeurIPS 2020), follow the mean
cosine between the perturbations of FGSM and of PGD over training (their code: ``cos_fgsm_pgd``): it drops together with
the robust accuracy at the onset of catastrophic overfitting.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_adv.analysis.signals.batches import check_labelled, check_pair, cosine, in_parts
from lightning_adv.attacks import FGSM
from lightning_adv.attacks.balls import Norm
from lightning_adv.attacks.distance import Distance
from lightning_adv.attacks.forward import at_least_fp32


def perturbation_cosine(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return the cosine between two perturbations of each image.

    Args:
        x: Clean images (N, C, H, W).
        first: Adversarial examples (N, C, H, W) of these.
        second: Others (N, C, H, W).

    Returns:
        Cosines (N,) in [-1, 1], float32 or wider; nan for an image that one of the two has not changed.

    Raises:
        UsageError: The shapes differ.

    Example:
        >>> x = torch.full((1, 1, 1, 2), 0.5)
        >>> perturbation_cosine(x, x + torch.tensor([0.25, 0.25]), x + torch.tensor([0.25, -0.25]))
        tensor([0.])
    """
    for images in (first, second):
        check_pair(x, images)
    clean = at_least_fp32(x.detach())
    return cosine(*(at_least_fp32(images.detach()) - clean for images in (first, second)))


def direction_agreement(
    network: nn.Module,
    x: Tensor,
    x_adv: Tensor,
    y: Tensor,
    eps: Distance,
    *,
    norm: Norm = "linf",
    batch_size: int | None = None,
) -> Tensor:
    """Return the cosine between FGSM's perturbation of each image and that of a stronger attack.

    The network is in eval mode meanwhile and is left as it was. Cost: one forward and one backward pass to the images.
    Where FGSM's examples are there already, :func:`perturbation_cosine` costs none.

    Args:
        network: Maps images (N, C, H, W) to logits (N, K).
        x: Clean images (N, C, H, W) in [0, 1], at least one.
        x_adv: Examples (N, C, H, W) of the stronger attack on this network, such as PGD's.
        y: Labels (N,).
        eps: Radius of the ball, which is FGSM's step; ``"8/255"`` is taken too.
        norm: Norm of the ball.
        batch_size: How many images to look at at a time; None takes all.

    Returns:
        Cosines (N,) in [-1, 1], float32 or wider; nan for an image that one of the two has not changed.

    Raises:
        UsageError: ``x`` are no images in [0, 1], ``y`` are not their labels, ``x_adv`` has another shape, or the
            logits have no gradient.

    Example:
        >>> from lightning_adv.attacks import PGD
        >>> linear = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> x, y = torch.full((2, 1, 2, 2), 0.5), torch.tensor([0, 1])
        >>> x_adv = PGD(eps="8/255", steps=10, step_size="2/255")(linear, x, y)
        >>> direction_agreement(linear, x, x_adv, y, "8/255") > 0.999
        tensor([True, True])
    """
    check_labelled(x, y)
    check_pair(x, x_adv)
    fgsm = FGSM(eps, norm=norm)
    parts = in_parts(batch_size, x, x_adv, y)
    return torch.cat(
        [perturbation_cosine(clean, fgsm(network, clean, labels), strong) for clean, strong, labels in parts]
    )
