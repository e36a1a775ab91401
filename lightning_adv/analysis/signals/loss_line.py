"""The loss along the line from an image to its adversarial example, and whether its worst point lies in between.

Kim, Lee & Lee, "Understanding catastrophic overfitting in single-step adversarial training" (AAAI 2021): a network that
overfits to the end of a single step is right at the image and at the end of the line, and wrong in between, its
decision boundary is distorted (their figure 1).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightning_adv.analysis.signals.batches import check_labelled, check_pair, in_parts
from lightning_adv.attacks import Forward, held_still
from lightning_adv.attacks.forward import at_least_fp32
from lightning_adv.attacks.losses import cross_entropy
from lightning_adv.core.errors import UsageError


class LossLine(NamedTuple):
    """What a network makes of P points on the lines from N images to their adversarial examples.

    Attributes:
        losses: Cross-entropy (N, P) in nats, float32 or wider; the first point is the image, the last one the example.
        correct: Whether each point is classified correctly, (N, P).
    """

    losses: Tensor
    correct: Tensor

    @property
    def peaks_inside(self) -> Tensor:
        """Whether the largest loss lies strictly between the ends, (N,)."""
        return self.losses[:, 1:-1].amax(1) > torch.maximum(self.losses[:, 0], self.losses[:, -1])

    @property
    def excess(self) -> Tensor:
        """By how much the largest loss of the line exceeds that at its end, (N,) in nats, at least 0."""
        return self.losses.amax(1) - self.losses[:, -1]

    @property
    def withstood(self) -> Tensor:
        """Whether both ends are classified correctly, (N,): the images among which :attr:`distorted` are counted."""
        return self.correct[:, 0] & self.correct[:, -1]

    @property
    def distorted(self) -> Tensor:
        """Whether both ends are classified correctly and a point in between is not, (N,)."""
        return self.withstood & ~self.correct.all(1)


def loss_along_line(
    network: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, *, points: int = 9, batch_size: int | None = None
) -> LossLine:
    """Return the loss at evenly spaced points ``x + k (x_adv - x)``, k from 0 to 1.

    The distortion of Kim et al. is ``line.distorted.sum() / line.withstood.sum()``; over several batches or processes
    both are summed first. For the sign of a single step, x_adv is FGSM's; PGD's example tells less, as it is the worst
    point by its making.

    The network is in eval mode meanwhile and is left as it was. Cost: ``points`` forward passes.

    Args:
        network: Maps images (N, C, H, W) to logits (N, K).
        x: Clean images (N, C, H, W) in [0, 1], at least one.
        x_adv: Their adversarial examples (N, C, H, W).
        y: Labels (N,).
        points: Number P of points, both ends included; at least 3.
        batch_size: How many images to look at at a time; None takes all.

    Raises:
        UsageError: ``x`` are no images in [0, 1], ``y`` are not their labels, ``x_adv`` has another shape, or there are
            fewer than three points.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))
        >>> network[1].weight.data = torch.tensor([[0.0], [2.0]])
        >>> x = torch.full((1, 1, 1, 1), 0.0)
        >>> loss_along_line(network, x, x + 1, torch.tensor([0]), points=3).losses
        tensor([[0.6931, 1.3133, 2.1269]])
    """
    check_labelled(x, y)
    check_pair(x, x_adv)
    if points < 3:
        raise UsageError(f"points must be at least 3, both ends and one in between, got {points}.")
    shares = torch.linspace(0, 1, points).tolist()
    losses, correct = [], []
    with held_still(network) as still, torch.no_grad():
        for clean, adversarial, labels in in_parts(batch_size, at_least_fp32(x), at_least_fp32(x_adv), y.long()):
            forward = Forward(still, x.dtype, labels)
            logits = [
                forward(torch.lerp(clean, adversarial, share)) for share in shares
            ]  # lerp meets both ends exactly
            losses.append(torch.stack([cross_entropy(each, labels) for each in logits], 1))
            correct.append(torch.stack([each.argmax(1) == labels for each in logits], 1))
    return LossLine(torch.cat(losses), torch.cat(correct))
