"""Standard training: the clean images, and nothing else."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_adv.regimes.base import Regime


class StandardTraining(Regime):
    """min over theta of E[loss(x, y; theta)]: what every other regime is compared with.

    The arguments are those of :class:`~lightning_adv.regimes.base.Regime`.
    """

    @property
    def adversarial(self) -> bool:
        """False: nothing is attacked in training."""
        return False

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss on the clean batch."""
        x, y = self.check_batch(batch, batch_idx)
        return self.check_loss(self.criterion(self(x), y))
