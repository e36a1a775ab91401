"""An attack that asks the network for logits alone."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lightning_adv.attacks import Attack, Forward


class RandomCorners(Attack):
    """The worst of some random corners of the ball, for each sample.

    Args:
        eps: Radius of the Linf ball.
        draws: How many corners are tried.
    """

    norm = "linf"  # with eps, the ball that the result is brought into
    black_box = True  # it needs no gradients

    def __init__(self, eps: float = 8 / 255, draws: int = 10) -> None:
        self.eps = eps  # each argument in an attribute of its name: the attack is a recipe then
        self.draws = draws

    def perturb(self, forward: Forward, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return adversarial images (N, C, H, W); the base class does the rest."""
        worst, highest = x, torch.full((len(x),), -torch.inf, device=x.device)
        for _ in range(self.draws):
            noise = torch.rand(x.shape, generator=generator, device=x.device)
            corner = (x + self.eps * (noise - 0.5).sign()).clamp(0, 1)
            loss = cross_entropy(forward(corner), y, reduction="none")
            worse = loss > highest
            worst = torch.where(worse[:, None, None, None], corner, worst)
            highest = torch.where(worse, loss, highest)
        return worst
