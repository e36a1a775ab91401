"""Thin observers: each decides when to look at a run, and where its numbers and figures go.

The folder ``callbacks/`` at the top of the repository is a link to this one.
"""

from lightning_adv.callbacks.adversarial_batches import AdversarialBatches
from lightning_adv.callbacks.batchnorm_drift import BatchNormDrift
from lightning_adv.callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from lightning_adv.callbacks.early_warning import EarlyWarning
from lightning_adv.callbacks.feature_distributions import FeatureDistributions
from lightning_adv.callbacks.fixed_images import FixedImages, take_images
from lightning_adv.callbacks.flight_recorder import FlightRecorder
from lightning_adv.callbacks.flight_signals import (
    Calibration,
    CleanAdversarialSimilarity,
    DeadUnits,
    DirectionAgreement,
    GradientAlignment,
    GradientNoise,
    HessianEigenvalue,
    InputGradientNorm,
    LocalLinearity,
    LossAlongLine,
    Probe,
    Signal,
)
from lightning_adv.callbacks.frequency_curve import FrequencyCurve
from lightning_adv.callbacks.image_observer import ImageObserver
from lightning_adv.callbacks.initial_checkpoint import InitialCheckpoint
from lightning_adv.callbacks.layer_selection import LayerSelection
from lightning_adv.callbacks.local_response import LocalResponse
from lightning_adv.callbacks.looks import Look
from lightning_adv.callbacks.observed import ObservedModule
from lightning_adv.callbacks.observer import Observer
from lightning_adv.callbacks.perturbation_view import PerturbationView
from lightning_adv.callbacks.running_vs_batch import RunningVsBatch
from lightning_adv.callbacks.saliency_maps import SaliencyMaps
from lightning_adv.callbacks.throughput import Throughput
from lightning_adv.callbacks.training_curves import TrainingCurves
from lightning_adv.callbacks.weight_smoothness import WeightSmoothness
from lightning_adv.core.table import Record, Row

__all__ = [
    "AdversarialBatches",
    "BatchNormDrift",
    "BestCheckpoint",
    "Calibration",
    "CleanAdversarialSimilarity",
    "DeadUnits",
    "DirectionAgreement",
    "EarlyWarning",
    "FeatureDistributions",
    "FixedImages",
    "FlightRecorder",
    "FrequencyCurve",
    "GradientAlignment",
    "GradientNoise",
    "HessianEigenvalue",
    "ImageObserver",
    "InitialCheckpoint",
    "InputGradientNorm",
    "LastCheckpoint",
    "LayerSelection",
    "LocalLinearity",
    "LocalResponse",
    "Look",
    "LossAlongLine",
    "ObservedModule",
    "Observer",
    "PerturbationView",
    "Probe",
    "Record",
    "Row",
    "RunningVsBatch",
    "SaliencyMaps",
    "Signal",
    "Throughput",
    "TrainingCurves",
    "WeightSmoothness",
    "take_images",
]
