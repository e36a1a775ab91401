"""Signals of adversarial training in danger: what can be measured of a network before its robustness falls.

Each is a pure function of a network and images. It leaves the network as it was: flags, buffers, gradients and the
global random state; BatchNorms go by their running statistics, through the domain of
:class:`~lightning_adv.nn.InDomain` where there is one. Results are one number for each image wherever there is one, so
that means over batches and processes are exact.
"""

from lightning_adv.analysis.signals.calibration import calibration_error
from lightning_adv.analysis.signals.curvature import largest_hessian_eigenvalue
from lightning_adv.analysis.signals.dead_units import dead_units, relu_layers
from lightning_adv.analysis.signals.directions import direction_agreement, perturbation_cosine
from lightning_adv.analysis.signals.gradient_noise import (
    GradientMoments,
    GradientNoise,
    gradient_moments,
    gradient_noise,
)
from lightning_adv.analysis.signals.linearity import elle, gradient_alignment, input_gradient_norm
from lightning_adv.analysis.signals.loss_line import LossLine, loss_along_line
from lightning_adv.analysis.signals.similarity import Similarity, layer_similarity, linear_cka

__all__ = [
    "GradientMoments", "GradientNoise", "LossLine", "Similarity", "calibration_error", "dead_units",
    "direction_agreement", "elle", "gradient_alignment", "gradient_moments", "gradient_noise", "input_gradient_norm",
    "largest_hessian_eigenvalue", "layer_similarity", "linear_cka", "loss_along_line", "perturbation_cosine",
    "relu_layers",
]  # fmt: skip
