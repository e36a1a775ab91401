"""Thin observers: each decides when to look at a run, and where what it saw goes.

Import this folder as ``lightning_adv.callbacks``, which is a link to it.
"""

from lightning_adv.callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from lightning_adv.callbacks.early_warning import EarlyWarning
from lightning_adv.callbacks.throughput import Throughput
from lightning_adv.callbacks.training_curves import TrainingCurves

__all__ = ["BestCheckpoint", "EarlyWarning", "LastCheckpoint", "Throughput", "TrainingCurves"]
