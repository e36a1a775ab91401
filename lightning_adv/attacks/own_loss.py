"""Attacks on a loss of one's own, whatever a network gives: multi-label, regression, dense outputs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lightning_adv.attacks.base import Attack
from lightning_adv.attacks.pgd import PGD
from lightning_adv.core.errors import UsageError


def attack_by_loss(
    attack: Attack,
    network: nn.Module,
    x: Tensor,
    loss: Callable[[Tensor], Tensor],
    *,
    generator: torch.Generator | None = None,
    told: str = "loss",
) -> Tensor:
    """Return adversarial examples that raise a loss of one's own, as far as the attack's ball lets them.

    The loss is shown to the attack as the logits (0, loss) of a network of two classes, of which the first is the true
    one: the log-odds that it is wrong are the loss itself, so that its gradient is what the attack climbs. All promises
    of attacks hold for ``network``.

    One number for each sample is best. Of one number for the whole batch, a mean or a sum, the gradient to a sample is
    that of its own loss up to a factor that all samples share, and no step depends on it: those of every ball go by
    signs or by the direction of each sample's gradient. So both climb the same, with BatchNorm in eval mode, except
    that of several ``restarts`` the best is then chosen for the batch as a whole.

    Args:
        attack: One that climbs a loss: PGD and what is made of it, or one whose ``selects_by_success`` is False.
        network: What ``loss`` runs: it is held still meanwhile.
        x: Images (N, ...) in [0, 1].
        loss: Maps images (N, ...) to their losses (N,), or to one number.
        generator: The source of randomness, as in a call of the attack.
        told: What errors call the loss.

    Returns:
        Adversarial images (N, ...), detached.

    Raises:
        UsageError: The attack goes by classes, or ``loss`` gives something else.

    Example:
        >>> network, x, heights = nn.Sequential(nn.Flatten(), nn.Linear(4, 1)), torch.rand(3, 1, 2, 2), torch.zeros(3)
        >>> x_adv = attack_by_loss(PGD(eps=0.1), network, x, lambda images: (network(images)[:, 0] - heights) ** 2)
        >>> bool(((network(x_adv)[:, 0] - heights) ** 2 >= (network(x)[:, 0] - heights) ** 2).all())
        True
    """
    check_climbs(attack)
    y = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    return attack(_LossAsLogits(network, loss, len(x), told), x, y, generator=generator)


def check_climbs(attack: Attack, key: str = "attack") -> None:
    """Check that an attack climbs a loss, and does not go by the classes that logits tell.

    Raises:
        UsageError: It does not.
    """
    name = type(attack).__name__
    if attack.selects_by_success and not isinstance(attack, PGD):
        raise UsageError(
            f"{key}: {name} keeps what leaves a class, and a loss of one's own has no classes: use PGD or one of its "
            "family; an attack of your own that only climbs says selects_by_success = False."
        )
    for option, allowed in (("label", ("true",)), ("early_stop", (False,)), ("loss", ("cross_entropy", "margin"))):
        given = getattr(attack, option, allowed[0])
        if not isinstance(given, str | bool) or given not in allowed:
            raise UsageError(
                f"{key}.{option} is {given!r}, which goes by the logits of classes: leave it out where the loss is "
                "one's own."
            )


class _LossAsLogits(nn.Module):
    """A loss as a network of two classes: images (N, ...) to logits (N, 2), of which the first are 0.

    Args:
        network: What the loss runs, so that it is held still.
        loss: Maps images (N, ...) to (N,) or ().
        images: N.
        told: What errors call the loss.
    """

    def __init__(self, network: nn.Module, loss: Callable[[Tensor], Tensor], images: int, told: str) -> None:
        super().__init__()
        self.network = network
        self._loss, self._images, self._told = loss, images, told

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        if len(images) != self._images:
            raise UsageError(
                f"attack: it takes {len(images)} of {self._images} images apart, and the loss is that of all together."
            )
        loss = self._loss(images)
        if not isinstance(loss, Tensor) or loss.shape not in ((), (self._images,)) or not loss.is_floating_point():
            found = f"{loss.dtype} of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise UsageError(
                f"{self._told} must give one number for each image, shape ({self._images},), or one for all, got "
                f"{found}."
            )
        if images.requires_grad and torch.is_grad_enabled() and not loss.requires_grad:
            raise UsageError(
                f"{self._told} has no gradient to the images: it must be differentiable, and not detached."
            )
        losses = loss.expand(self._images)
        return torch.stack([torch.zeros_like(losses), losses], 1)
