"""Standard training: the clean images, and nothing else."""

from __future__ import annotations

from torch import Tensor

from lightning_adv.regimes.base import Regime


class StandardTraining(Regime):
    """min over theta of E[loss(x, y; theta)]: what every other regime is compared with.

    The arguments are those of :class:`~lightning_adv.regimes.base.Regime`.

    Example:
        >>> import torch
        >>> from lightning_adv.nn.backbones import Backbone
        >>> regime = StandardTraining(Backbone("small_cnn", in_channels=1), num_classes=10)
        >>> regime.loss(torch.rand(2, 1, 8, 8), torch.tensor([3, 7])).shape
        torch.Size([])
    """

    @property
    def adversarial(self) -> bool:
        """False: nothing is attacked in training."""
        return False

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss on the clean images."""
        return self.criterion(self(x), y)
