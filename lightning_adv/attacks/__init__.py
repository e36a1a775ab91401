"""The inner maximisation: ``x_adv = attack(network, x, y)``."""

import warnings
from typing import Any

from lightning_adv.attacks.apgd import APGD
from lightning_adv.attacks.balls import L1, L2, Ball, Linf
from lightning_adv.attacks.base import Attack
from lightning_adv.attacks.carlini_wagner import CarliniWagner, CarliniWagnerLinf, DCarliniWagner
from lightning_adv.attacks.ensemble import LogitEnsemble
from lightning_adv.attacks.external.autoattack import AutoAttack
from lightning_adv.attacks.external.foolbox_attack import FoolboxAttack
from lightning_adv.attacks.fgsm import DIFGSM, FGSM, GD, IFGSM, MDIFGSM, MIFGSM
from lightning_adv.attacks.forward import Forward
from lightning_adv.attacks.hold import held_still
from lightning_adv.attacks.losses import Loss
from lightning_adv.attacks.own_loss import attack_by_loss
from lightning_adv.attacks.pgd import PGD
from lightning_adv.attacks.random_noise import RandomNoise
from lightning_adv.attacks.spatial import StAdv

__all__ = [
    "APGD", "DIFGSM", "FGSM", "GD", "IFGSM", "L1", "L2", "MDIFGSM", "MIFGSM", "PGD", "Attack", "AutoAttack", "Ball",
    "CarliniWagner", "CarliniWagnerLinf", "DCarliniWagner", "FoolboxAttack", "Forward", "Linf", "LogitEnsemble", "Loss",
    "RandomNoise", "StAdv", "attack_by_loss", "held_still",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "attacking":
        warnings.warn(
            "attacking is held_still now; the old name is taken until version 0.4.", DeprecationWarning, stacklevel=2
        )
        return held_still
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
