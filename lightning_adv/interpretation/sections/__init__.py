"""The sections that come with the package, one file for each."""

from lightning_adv.interpretation.sections.feature_space import FeatureSpace
from lightning_adv.interpretation.sections.local_properties import LocalProperties
from lightning_adv.interpretation.sections.saliency import Saliency
from lightning_adv.interpretation.sections.shape_bias import ShapeBias
from lightning_adv.interpretation.sections.shape_texture import ShapeTexture

__all__ = ["FeatureSpace", "LocalProperties", "Saliency", "ShapeBias", "ShapeTexture"]
