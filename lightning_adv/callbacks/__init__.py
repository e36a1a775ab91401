"""Thin observers: each decides when to look at a run, and where what it saw goes.

Import this folder as ``lightning_adv.callbacks``, which is a link to it.
"""

from lightning_adv.callbacks.batchnorm_drift import BatchNormDrift
from lightning_adv.callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from lightning_adv.callbacks.early_warning import EarlyWarning
from lightning_adv.callbacks.local_response import LocalResponse
from lightning_adv.callbacks.observer import Look, Observer
from lightning_adv.callbacks.running_vs_batch import RunningVsBatch
from lightning_adv.callbacks.throughput import Throughput
from lightning_adv.callbacks.training_curves import TrainingCurves
from lightning_adv.callbacks.weight_smoothness import WeightSmoothness

__all__ = [
    "BatchNormDrift",
    "BestCheckpoint",
    "EarlyWarning",
    "LastCheckpoint",
    "LocalResponse",
    "Look",
    "Observer",
    "RunningVsBatch",
    "Throughput",
    "TrainingCurves",
    "WeightSmoothness",
]
