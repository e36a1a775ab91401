"""The weakest attack: random perturbations, of which the worst for the network is kept."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_adv.attacks.balls import Ball, Linf, Norm, draw, get_ball
from lightning_adv.attacks.base import Attack
from lightning_adv.attacks.checks import check_counts
from lightning_adv.attacks.distance import Distance, parse_distance
from lightning_adv.attacks.forward import Forward, round_towards
from lightning_adv.attacks.hold import BatchNormMode
from lightning_adv.attacks.losses import margin
from lightning_adv.core.arguments import check_choices


class RandomNoise(Attack):
    """The best of many draws from the ball: a black-box attack that sees the logits and no gradient.

    It is a baseline that every gradient attack must beat: where random perturbations find what gradients do not, the
    gradients are masked (Athalye et al. 2018, section 3.1; Carlini et al. 2019, "On Evaluating Adversarial
    Robustness"). Of each sample the perturbation with the largest margin is kept, the clean image counts as the first,
    and a sample that is misclassified draws no more. In Linf every other draw is a corner of the ball, eps times random
    signs: these are the points that are farthest off.

    With ``batchnorm="batch"`` samples see each other, and all are drawn again until the last one is misclassified.

    Args:
        eps: Radius of the ball, in the unit of the images; a number or a fraction such as ``"8/255"``.
        draws: Number of perturbations of each sample, at least 1. Each costs one forward pass.
        norm: ``"linf"``, ``"l2"``, ``"l1"`` or a :class:`~lightning_adv.attacks.Ball`.
        batchnorm: What BatchNorms normalise by: ``"eval"`` running statistics, ``"batch"`` those of the batch.

    Raises:
        UsageError: An argument is out of its range.

    Example:
        >>> from torch import nn
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
        >>> x, y = torch.rand(5, 3, 2, 2), torch.tensor([0, 1, 0, 1, 0])
        >>> x_adv = RandomNoise(eps="8/255", draws=10)(network, x, y)
        >>> bool((x_adv - x).abs().max() <= 8 / 255 + 1e-6)
        True
    """

    norm: Ball
    eps: float

    def __init__(
        self,
        eps: Distance = "8/255",
        draws: int = 100,
        *,
        norm: Norm = "linf",
        batchnorm: BatchNormMode = "eval",
    ) -> None:
        self.norm = get_ball(norm)
        self.eps = parse_distance(eps, "eps", self.norm.max_eps)
        self.draws = draws
        self.batchnorm = batchnorm
        check_counts(self, "draws")
        check_choices(self, RandomNoise)

    @property
    def black_box(self) -> bool:
        """True."""
        return True

    @torch.no_grad()
    def perturb(self, forward: Forward, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return the adversarial examples; see :meth:`Attack.perturb`."""
        worst = x.clone()
        lead = margin(forward(x), y)
        for number in range(self.draws):
            noisy = self._draw(x, number, forward.dtype, generator)
            rows = (lead <= 0).nonzero().flatten()
            if not len(rows):
                break
            if self.batchnorm == "batch":  # who leaves the batch would change its statistics
                rows = torch.arange(len(x), device=x.device)
            found = margin(forward(noisy[rows]), y[rows])
            better = (found > lead[rows]) & (lead[rows] <= 0)
            worst[rows[better]], lead[rows[better]] = noisy[rows[better]], found[better]
        return worst

    def _draw(self, clean: Tensor, number: int, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
        """Return noisy images (N, ...): for everyone, so that a sample's noise does not depend on the others."""
        if isinstance(self.norm, Linf) and number % 2:
            delta = self.eps * (2 * (draw(torch.rand, clean.shape, clean, generator) < 0.5).to(clean.dtype) - 1)
        else:
            delta = self.norm.sample(clean, self.eps, generator)
        # Rounded before the network sees it, to what the result can hold.
        return round_towards(clean.to(dtype), (clean + delta).clamp(0, 1)).to(clean)
