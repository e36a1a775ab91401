"""Adversarial training (Madry et al. 2018): minimise the loss at the worst point of each ball."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_adv.attacks import PGD, Attack
from lightning_adv.nn.backbones import Backbone
from lightning_adv.regimes.base import Regime


class MadryTraining(Regime):
    """min over theta of E[max over delta of loss(x + delta, y; theta)] (Madry et al. 2018, equation 2.1).

    Args:
        backbone: See :class:`~lightning_adv.regimes.base.Regime`.
        attack: The inner maximisation. The default is that of "Dissecting Local Properties of Adversarial Examples",
            section 3: PGD-10 at 8/255 with steps of 2/255. Its ``batchnorm`` says how BatchNorm works meanwhile.
        clean_fraction: Clean images that join the adversarial ones in the batch, as a share of them: 0 is Madry et
            al., 1 the mixture of Goodfellow et al. (Xie & Yuille 2020, section 6.4.1, figure 6.1).
        eps_warmup_epochs: Number of epochs over which ``eps`` and ``step_size`` grow to their full length, in equal
            parts: the first of 5 epochs attacks at a fifth of ``eps``, the fifth in full. 0 is no warm-up.
        **kwargs: The other arguments of :class:`~lightning_adv.regimes.base.Regime`.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> regime = MadryTraining(Backbone("small_cnn", in_channels=1), num_classes=10, attack=PGD(steps=2))
        >>> regime(torch.rand(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        attack: Attack = PGD(eps="8/255", steps=10, step_size="2/255"),  # noqa: B008 (a recipe)
        clean_fraction: float = 0.0,
        eps_warmup_epochs: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        if not 0 <= clean_fraction <= 1:
            raise ValueError(f"clean_fraction must lie in [0, 1], got {clean_fraction}.")
        if eps_warmup_epochs < 0:
            raise ValueError(f"eps_warmup_epochs must be at least 0, got {eps_warmup_epochs}.")
        self.attack = Attack.from_config(attack)
        self.clean_fraction = clean_fraction
        self.eps_warmup_epochs = eps_warmup_epochs

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss on the adversarial batch, with clean images beside it if asked."""
        x, y = self.check_batch(batch, batch_idx)
        x_adv = self._attack_now()(self.network, x, y, generator=self.noise("train", batch_idx))
        clean = round(self.clean_fraction * len(x))
        images, labels = torch.cat([x_adv, x[:clean]]), torch.cat([y, y[:clean]])
        return self.check_loss(self.criterion(self(images), labels))

    def _attack_now(self) -> Attack:
        """The attack at this epoch's ``eps``."""
        if self.current_epoch >= self.eps_warmup_epochs:
            return self.attack
        return self.attack.scaled((self.current_epoch + 1) / self.eps_warmup_epochs)
