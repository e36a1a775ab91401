"""Every regime, as small as can be, for the tests of what all of them promise."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lightning_adv.attacks import PGD
from lightning_adv.regimes import (
    MART,
    TRADES,
    AdvPropTraining,
    AutoAugment,
    BlockwiseRetraining,
    CrossEntropy,
    MadryTraining,
    Regime,
    SmoothAdversarialTraining,
    StandardTraining,
    WeightPerturbation,
)
from tests.regimes.toy import BACKBONE

KL = PGD(eps=0.1, steps=2, step_size=0.05, loss="kl", start="gaussian")
FAST = PGD(eps=0.1, steps=1, step_size=0.125)
PREDICTED = PGD(eps=0.1, steps=2, step_size=0.05, label="predicted")

REGIMES: dict[str, tuple[type[Regime], dict[str, Any]]] = {
    "standard": (StandardTraining, {}),
    "madry": (MadryTraining, {"objective": CrossEntropy(clean_fraction=0.5, logit_pairing=0.5)}),
    "fast": (MadryTraining, {"attack": FAST}),
    "trades": (MadryTraining, {"attack": KL, "objective": TRADES()}),
    "mart": (MadryTraining, {"objective": MART()}),
    "awp": (MadryTraining, {"weight_perturbation": WeightPerturbation()}),
    "switching": (MadryTraining, {"clean_after_epochs": 1, "weight_perturbation": WeightPerturbation()}),
    "advprop": (AdvPropTraining, {}),
    "fine_grained": (AdvPropTraining, {"augmentation": AutoAugment("cifar10")}),
    "mixture_bn": (AdvPropTraining, {"reduction": "mean", "logit_pairing": 0.5, "inference_domain": "adversarial"}),
    "sat": (SmoothAdversarialTraining, {}),
    "smooth_relu": (SmoothAdversarialTraining, {"activation": "smooth_relu"}),
    "smooth_gradient": (SmoothAdversarialTraining, {"smooth_gradient": "both"}),
    "blockwise": (BlockwiseRetraining, {"cutoff": 2, "attack": PREDICTED}),
    "conventional": (BlockwiseRetraining, {"cutoff": 2, "side": "after", "attack": None}),
    "batchnorm": (BlockwiseRetraining, {"only_batchnorm": True, "reinitialize": False, "attack": PREDICTED}),
}
"""By name: the class and its arguments. ``sat`` and those after it also have a control or a case of their own."""


def make(name: str, folder: Path, **kwargs: Any) -> Regime:
    """Build a regime after seeding the global random state; it starts from weights in ``folder``."""
    torch.manual_seed(0)
    kind, arguments = REGIMES[name]
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(BACKBONE.build(2).state_dict(), folder / "pretrained.pth")
    backbone = replace(BACKBONE, checkpoint=str(folder / "pretrained.pth"))
    if kind is not StandardTraining:
        arguments = {"attack": PGD(eps=0.1, steps=2, step_size=0.05), **arguments}
    defaults = {
        "num_classes": 2,
        "evaluation_attack": PGD(eps=0.1, steps=2, step_size=0.05),
        "optimizer": partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=1e-3),
    }
    return kind(backbone, **{**defaults, **arguments, **kwargs})


def still(name: str) -> dict[str, Any]:
    """Arguments that leave nothing to chance: noise and augmentation depend on the batch's number and the process."""
    kind, arguments = REGIMES[name]
    changes: dict[str, Any] = {"running_statistics_epochs": 1}
    changes["evaluation_attack"] = PGD(eps=0.1, steps=2, step_size=0.05, start="zero")
    if kind is BlockwiseRetraining:
        changes["reinitialize"] = False
    if kind is StandardTraining or name == "conventional":
        return changes
    label = "predicted" if arguments.get("attack") is PREDICTED else "true"
    changes["attack"] = PGD(eps=0.1, steps=2, step_size=0.05, start="zero", label=label)
    if name == "fine_grained":
        changes["augmentation"] = None
    if name == "madry":  # half of 16 images and twice half of 8 are not the same images
        changes["objective"] = CrossEntropy(clean_fraction=1.0, logit_pairing=0.5)
    return changes
