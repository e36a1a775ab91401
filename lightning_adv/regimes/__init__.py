"""The LightningModules: each says what is minimised on a batch."""

from lightning_adv.regimes.base import Regime
from lightning_adv.regimes.madry import MadryTraining
from lightning_adv.regimes.standard import StandardTraining

__all__ = ["MadryTraining", "Regime", "StandardTraining"]
