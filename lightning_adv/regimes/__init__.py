"""The training regimes: LightningModules, one file for each."""

from lightning_adv.regimes.advprop import AdvPropTraining as AdvPropTraining
from lightning_adv.regimes.advprop import advprop_attack as advprop_attack
from lightning_adv.regimes.augmentation import AutoAugment as AutoAugment
from lightning_adv.regimes.base import Regime as Regime
from lightning_adv.regimes.blockwise import BlockwiseRetraining as BlockwiseRetraining
from lightning_adv.regimes.madry import MadryTraining as MadryTraining
from lightning_adv.regimes.objectives import MART as MART
from lightning_adv.regimes.objectives import TRADES as TRADES
from lightning_adv.regimes.objectives import CrossEntropy as CrossEntropy
from lightning_adv.regimes.objectives import Objective as Objective
from lightning_adv.regimes.sat import SmoothAdversarialTraining as SmoothAdversarialTraining
from lightning_adv.regimes.standard import StandardTraining as StandardTraining
from lightning_adv.regimes.weight_perturbation import WeightPerturbation as WeightPerturbation
