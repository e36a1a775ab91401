"""How steep the loss is around an image, and how far it is from linear there.

Adversarial training with one gradient step takes the loss within the ball for linear. Where it is not, the step misses
the worst point of the ball, and the network may learn to withstand that step only (catastrophic overfitting). Three
numbers for each image tell of it; each costs a few passes, and no gradient to the weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_adv.analysis.signals.batches import check_labelled, cosine, in_parts, input_gradients
from lightning_adv.attacks import Forward, held_still
from lightning_adv.attacks.balls import Norm, get_ball, per_sample
from lightning_adv.attacks.distance import Distance, parse_distance
from lightning_adv.attacks.forward import at_least_fp32
from lightning_adv.attacks.losses import cross_entropy, get_loss, log_odds_gradient


def input_gradient_norm(
    network: nn.Module, x: Tensor, y: Tensor, *, norm: Norm = "l2", batch_size: int | None = None
) -> Tensor:
    """Return the norm of the gradient of each image's cross-entropy to its pixels.

    To first order an Linf perturbation of size eps raises the loss by up to eps times the L1 norm, an L2 perturbation
    by up to eps times the L2 norm (Simon-Gabriel et al., "First-order adversarial vulnerability of neural networks and
    input dimension", ICML 2019, section 2).

    The network is in eval mode meanwhile and is left as it was. Cost: one forward and one backward pass to the images.

    Args:
        network: Maps images (N, C, H, W) to logits (N, K).
        x: Images (N, C, H, W) in [0, 1], at least one.
        y: Labels (N,).
        norm: ``"l2"``, ``"l1"`` or ``"linf"``.
        batch_size: How many images to look at at a time; None takes all.

    Returns:
        Norms (N,), in nats per unit of the images, float32 or wider.

    Raises:
        UsageError: ``x`` are no images in [0, 1], ``y`` are not their labels, or the logits have no gradient.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
        >>> network[1].weight.data = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
        >>> input_gradient_norm(network, torch.zeros(1, 1, 1, 2), torch.tensor([0]))  # half of the weights' length
        tensor([2.5000])
    """
    check_labelled(x, y)
    ball, slope = get_ball(norm), get_loss("cross_entropy").gradient
    with held_still(network) as still:
        norms = [
            ball.norm(input_gradients(still, images, labels, slope, x.dtype))
            for images, labels in in_parts(batch_size, x, y)
        ]
    return torch.cat(norms)


def gradient_alignment(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: Distance,
    *,
    generator: torch.Generator,
    norm: Norm = "linf",
    batch_size: int | None = None,
) -> Tensor:
    """Return the cosine between the gradients of the loss at an image and at a random point of the ball around it.

    ``cos(∇ℓ(x), ∇ℓ(x + η))`` with η uniform in the ball (Andriushchenko & Flammarion, "Understanding and improving fast
    adversarial training", NeurIPS 2020, sections 4 and 5): 1 where the loss is linear, near 0 after catastrophic
    overfitting. As there, x + η may leave [0, 1]. The loss is the cross-entropy; its gradient is taken of the log-odds,
    which point the same way and do not vanish where the network is confident.

    The network is in eval mode meanwhile and is left as it was. Cost: two forward and two backward passes to the
    images.

    Args:
        network: Maps images (N, C, H, W) to logits (N, K).
        x: Images (N, C, H, W) in [0, 1], at least one.
        y: Labels (N,).
        eps: Radius of the ball, in the unit of the images; ``"8/255"`` is taken too.
        generator: Draws η.
        norm: Norm of the ball.
        batch_size: How many images to look at at a time; None takes all. It does not change what is drawn.

    Returns:
        Cosines (N,) in [-1, 1], float32 or wider; nan for an image where one of the gradients is zero. The authors
        leave these out of their mean: ``cosines.nanmean()``.

    Raises:
        UsageError: ``x`` are no images in [0, 1], ``y`` are not their labels, ``eps`` is no distance, or the logits
            have no gradient.

    Example:
        >>> linear = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> x, generator = torch.rand(3, 1, 2, 2), torch.Generator().manual_seed(0)
        >>> gradient_alignment(linear, x, torch.tensor([0, 1, 0]), "8/255", generator=generator) > 0.999
        tensor([True, True, True])
    """
    check_labelled(x, y)
    noise = get_ball(norm).sample(at_least_fp32(x), parse_distance(eps, "eps"), generator)
    cosines = []
    with held_still(network) as still:
        for images, labels, moved in in_parts(batch_size, x, y, at_least_fp32(x) + noise):
            at_image, in_ball = (
                input_gradients(still, points, labels, log_odds_gradient, x.dtype) for points in (images, moved)
            )
            cosines.append(cosine(at_image, in_ball))
    return torch.cat(cosines)


def elle(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: Distance,
    *,
    generator: torch.Generator,
    norm: Norm = "linf",
    batch_size: int | None = None,
) -> Tensor:
    """Return how far the loss is from linear between two random points of the ball around each image.

    ``(ℓ((1 - α) x_a + α x_b) - (1 - α) ℓ(x_a) - α ℓ(x_b))²`` with x_a and x_b uniform in the ball and α in [0, 1]: the
    local linearity error of ELLE (Abad Rocamora et al., "Efficient local linearity regularization to overcome
    catastrophic overfitting", ICLR 2024; one triplet for each image, as in their code). It is zero where the
    cross-entropy ℓ is linear. As there, the points may leave [0, 1].

    The network is in eval mode meanwhile and is left as it was. Under autocast it runs in the precision of its weights:
    what half precision rounds is no error of linearity. Cost: three forward passes.

    Args:
        network: Maps images (N, C, H, W) to logits (N, K).
        x: Images (N, C, H, W) in [0, 1], at least one.
        y: Labels (N,).
        eps: Radius of the ball, in the unit of the images; ``"8/255"`` is taken too.
        generator: Draws the points.
        norm: Norm of the ball.
        batch_size: How many images to look at at a time; None takes all. It does not change what is drawn.

    Returns:
        Squared errors (N,), in nats², float32 or wider.

    Raises:
        UsageError: ``x`` are no images in [0, 1], ``y`` are not their labels, or ``eps`` is no distance.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> x, generator = torch.rand(3, 1, 2, 2), torch.Generator().manual_seed(0)
        >>> elle(network, x, torch.tensor([0, 1, 0]), "8/255", generator=generator) < 1e-6
        tensor([True, True, True])
    """
    check_labelled(x, y)
    centre, ball, radius = at_least_fp32(x), get_ball(norm), parse_distance(eps, "eps")
    ends = [centre + ball.sample(centre, radius, generator) for _ in range(2)]
    share = torch.rand(len(x), generator=generator, device=generator.device, dtype=centre.dtype).to(x.device)
    errors = []
    # the rounding of bf16 alone gives an error ten times that of a robust network at 8/255
    full_precision = torch.autocast(x.device.type, enabled=False)
    with held_still(network) as still, torch.no_grad(), full_precision:
        for labels, alpha, first, second in in_parts(batch_size, y.long(), share, *ends):
            between = torch.lerp(first, second, alpha.view(per_sample(first)))
            forward = Forward(still, x.dtype, labels)
            at_first, at_second, at_between = (cross_entropy(forward(at), labels) for at in (first, second, between))
            errors.append((at_between - torch.lerp(at_first, at_second, alpha)).square())
    return torch.cat(errors)
