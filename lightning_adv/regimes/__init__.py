"""The training regimes: LightningModules, one file for each."""

from lightning_adv.regimes.advprop import AdvPropTraining, advprop_attack
from lightning_adv.regimes.augmentation import AutoAugment
from lightning_adv.regimes.base import Regime
from lightning_adv.regimes.blockwise import BlockwiseRetraining
from lightning_adv.regimes.madry import MadryTraining
from lightning_adv.regimes.objectives import MART, TRADES, CrossEntropy, Objective
from lightning_adv.regimes.sat import SmoothAdversarialTraining
from lightning_adv.regimes.standard import StandardTraining
from lightning_adv.regimes.weight_perturbation import WeightPerturbation

__all__ = [
    "MART", "TRADES", "AdvPropTraining", "AutoAugment", "BlockwiseRetraining", "CrossEntropy", "MadryTraining",
    "Objective", "Regime", "SmoothAdversarialTraining", "StandardTraining", "WeightPerturbation", "advprop_attack",
]  # fmt: skip
