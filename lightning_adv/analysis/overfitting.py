"""The two ways in which adversarial training overfits, told from three accuracies.

*Catastrophic* overfitting: within an epoch, a network that is trained with a single-step attack learns to withstand
that attack only. Its accuracy under FGSM rises while that under PGD falls to 0 (Wong et al. 2020, "Fast is better than
free"; Andriushchenko & Flammarion 2020, "Understanding and improving fast adversarial training").

*Robust* overfitting: robust accuracy goes on rising on the training images and falls on others (Rice et al. 2020,
"Overfitting in adversarially robust deep learning").
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_adv.attacks import Attack, held_still


def robustly_correct(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    attack: Attack,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return which images a network still classifies correctly when they are attacked.

    Their share is the robust accuracy. The network is in eval mode meanwhile, and is left as it was.

    Args:
        network: Maps images (N, C, H, W) to logits (N, K).
        x: Clean images (N, C, H, W) in [0, 1].
        y: Labels (N,).
        attack: The attack.
        generator: The attack's source of randomness, see :class:`~lightning_adv.attacks.Attack`.

    Returns:
        (N,) bool.

    Example:
        >>> from lightning_adv.attacks import FGSM
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> robustly_correct(network, torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 1]), FGSM(eps=0.1)).shape
        torch.Size([3])
    """
    x_adv = attack(network, x, y, generator=generator)
    with held_still(network) as still, torch.no_grad():
        return torch.as_tensor(still(x_adv).argmax(1) == y)


@dataclass(frozen=True)
class Accuracies:
    """The accuracies that tell whether adversarial training overfits, fractions of 1.

    Attributes:
        fgsm_accuracy: On validation images under the single-step attack FGSM.
        robust_accuracy: On the same images under a strong attack, such as PGD.
        train_robust_accuracy: On training images under the strong attack.
    """

    fgsm_accuracy: float
    robust_accuracy: float
    train_robust_accuracy: float

    @property
    def catastrophic_gap(self) -> float:
        """How much weaker FGSM is than the strong attack."""
        return self.fgsm_accuracy - self.robust_accuracy

    @property
    def robust_gap(self) -> float:
        """How much more robust the network is on the images that it was trained on."""
        return self.train_robust_accuracy - self.robust_accuracy


def catastrophic_overfitting(found: Accuracies, best: float, *, gap: float, already: bool = False) -> bool:
    """Tell whether FGSM no longer finds what the strong attack finds.

    A wide gap alone is no proof: FGSM is the weaker attack, most of all on a network that is not robust yet. It is
    overfitting once the network does not become more robust any more.

    Args:
        found: The accuracies now.
        best: The highest robust accuracy of the looks before, 0 before the first.
        gap: The :attr:`Accuracies.catastrophic_gap` up to which FGSM is only weaker, a fraction of 1.
        already: What the look before said. Overfitting lasts until the gap has closed.

    Example:
        >>> catastrophic_overfitting(Accuracies(0.9, 0.0, 0.0), best=0.4, gap=0.2)
        True
    """
    return _overfits(found.catastrophic_gap > gap, found, best, already)


def robust_overfitting(found: Accuracies, best: float, *, gap: float, already: bool = False) -> bool:
    """Tell whether the network becomes robust on its training images only (Rice et al. 2020).

    Args:
        found: The accuracies now.
        best: The highest robust accuracy of the looks before, 0 before the first.
        gap: The :attr:`Accuracies.robust_gap` up to which the network generalises, a fraction of 1.
        already: What the look before said. Overfitting lasts until the gap has closed.

    Example:
        >>> robust_overfitting(Accuracies(0.5, 0.4, 0.9), best=0.45, gap=0.2)
        True
    """
    return _overfits(found.robust_gap > gap, found, best, already)


def _overfits(wide: bool, found: Accuracies, best: float, already: bool) -> bool:
    return wide and (already or found.robust_accuracy <= best)
