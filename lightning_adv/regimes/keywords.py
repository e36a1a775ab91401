"""The keyword arguments that a regime hands on to its base class, by name and type."""

from __future__ import annotations

from typing import Literal, TypedDict

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable

from lightning_adv.attacks import Attack
from lightning_adv.core.keywords import Unpack as Unpack
from lightning_adv.regimes.attack_runner import AttackPrecision, View
from lightning_adv.regimes.objectives import Objective
from lightning_adv.regimes.weight_perturbation import WeightPerturbation


class RegimeKeywords(TypedDict, total=False):
    """The keyword arguments of :class:`~lightning_adv.regimes.base.Regime`, which says what they are.

    Example:
        >>> from lightning_adv.nn.backbones import Backbone
        >>> from lightning_adv.regimes import StandardTraining
        >>> class Own(StandardTraining):
        ...     def __init__(self, backbone: Backbone, weight: float = 1.0, **kwargs: Unpack[RegimeKeywords]) -> None:
        ...         super().__init__(backbone, **kwargs)
        ...         self.weight = weight
        >>> Own(Backbone("small_cnn", in_channels=1), num_classes=10, label_smoothing=0.1).label_smoothing
        0.1
    """

    num_classes: int | None
    evaluation_attack: Attack
    optimizer: OptimizerCallable
    scheduler: LRSchedulerCallable | None
    scheduler_interval: Literal["epoch", "step"]
    decay_norm_and_bias: bool
    label_smoothing: float
    running_statistics_epochs: int
    compile: bool
    view: View
    attack_precision: AttackPrecision
    compile_view: bool | str | None
    channels_last: bool


class AdversarialKeywords(RegimeKeywords, total=False):
    """Those of :class:`~lightning_adv.regimes.madry.MadryTraining` that no regime gives another default."""

    weight_perturbation: WeightPerturbation | None
    eps_warmup_epochs: int
    clean_after_epochs: int | None


class MadryKeywords(AdversarialKeywords, total=False):
    """The keyword arguments of :class:`~lightning_adv.regimes.madry.MadryTraining`."""

    attack: Attack
    objective: Objective
