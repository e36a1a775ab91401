"""The learning rate in ``metrics.csv`` and the other loggers, at the epoch that it is of."""

from __future__ import annotations

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import LearningRateMonitor


class LearningRate(LearningRateMonitor):
    """Lightning's ``LearningRateMonitor``, whose values have an epoch as all others have.

    It gives them to the loggers itself, past the Trainer, which adds the epoch to what modules log; so its rows would
    have a step only.
    """

    def _extract_stats(self, trainer: Trainer, interval: str) -> dict[str, float]:
        found = super()._extract_stats(trainer, interval)
        return found | {"epoch": trainer.current_epoch} if found else found
