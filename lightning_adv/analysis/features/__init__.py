"""What networks see in images: saliency maps, and how features are distributed.

A module is imported when the first of its names is used, as in :mod:`lightning_adv.analysis`.
"""

from typing import TYPE_CHECKING, Any

from lightning_adv.core.offering import offer

if TYPE_CHECKING:
    from lightning_adv.analysis.features.distributions import Estimate as Estimate
    from lightning_adv.analysis.features.distributions import FeatureMap as FeatureMap
    from lightning_adv.analysis.features.distributions import density_overlap as density_overlap
    from lightning_adv.analysis.features.distributions import energy_distance as energy_distance
    from lightning_adv.analysis.features.distributions import joint_map as joint_map
    from lightning_adv.analysis.features.distributions import separability as separability
    from lightning_adv.analysis.features.distributions_figures import plot_distributions as plot_distributions
    from lightning_adv.analysis.features.distributions_figures import plot_feature_curves as plot_feature_curves
    from lightning_adv.analysis.features.distributions_figures import plot_feature_numbers as plot_feature_numbers
    from lightning_adv.analysis.features.saliency import SaliencyDistances as SaliencyDistances
    from lightning_adv.analysis.features.saliency import gini as gini
    from lightning_adv.analysis.features.saliency import grad_saliency as grad_saliency
    from lightning_adv.analysis.features.saliency import saliency_distances as saliency_distances
    from lightning_adv.analysis.features.saliency import saliency_pictures as saliency_pictures
    from lightning_adv.analysis.features.saliency import smooth_grad as smooth_grad
    from lightning_adv.analysis.features.saliency_figures import plot_saliency as plot_saliency
    from lightning_adv.analysis.features.saliency_figures import plot_saliency_numbers as plot_saliency_numbers
    from lightning_adv.analysis.features.saliency_figures import (
        plot_saliency_over_training as plot_saliency_over_training,
    )
    from lightning_adv.analysis.features.vectors import FeatureVectors as FeatureVectors
    from lightning_adv.analysis.features.vectors import feature_layers as feature_layers
    from lightning_adv.analysis.features.vectors import feature_vectors as feature_vectors

_OFFERED: dict[str, tuple[str, ...]] = {
    "distributions": ("Estimate", "FeatureMap", "density_overlap", "energy_distance", "joint_map", "separability"),
    "distributions_figures": ("plot_distributions", "plot_feature_curves", "plot_feature_numbers"),
    "saliency": (
        "SaliencyDistances", "gini", "grad_saliency", "saliency_distances", "saliency_pictures", "smooth_grad",
    ),
    "saliency_figures": ("plot_saliency", "plot_saliency_numbers", "plot_saliency_over_training"),
    "vectors": ("FeatureVectors", "feature_layers", "feature_vectors"),
}  # fmt: skip

__all__ = [name for names in _OFFERED.values() for name in names]
_get = offer(__name__, _OFFERED)


def __dir__() -> list[str]:
    """Return what is offered too, for completion and the API reference."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """Import what is asked for."""
    return _get(name)
