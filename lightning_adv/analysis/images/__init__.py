"""Images as networks and attacks see them: frequencies, transforms, styles, perturbations."""

from lightning_adv.analysis.images.adain import AdaIN, adain
from lightning_adv.analysis.images.cue_conflict import (
    coarse_decisions,
    count_decisions,
    parse_cues,
    parse_mapping,
)
from lightning_adv.analysis.images.frequency import FREQUENCY_SCALE, accuracy_over_frequency, log_amplitude_spectrum
from lightning_adv.analysis.images.frequency_figures import (
    plot_frequency_accuracy,
    plot_spectra,
    plot_transformed_accuracy,
)
from lightning_adv.analysis.images.perturbation_figures import plot_perturbations
from lightning_adv.analysis.images.perturbations import attack_outcomes, perturbation_views
from lightning_adv.analysis.images.stylise import Paintings
from lightning_adv.analysis.images.texture_transfer import (
    TextureTransfer,
    from_laplacian_pyramid,
    laplacian_pyramid,
)
from lightning_adv.analysis.images.transformed_accuracy import (
    PAPER_LEVELS,
    TransformedAccuracy,
    accuracy_on_correctly_classified,
    answers_to,
    answers_to_transformed,
    correctly_classified,
    transform_images,
)
from lightning_adv.analysis.images.transforms import (
    high_pass,
    low_pass,
    patch_shuffle,
    random_filter,
    saturate,
    swap_frequencies,
)
from lightning_adv.analysis.images.version_figures import plot_versions

__all__ = [
    "FREQUENCY_SCALE", "PAPER_LEVELS", "AdaIN", "Paintings", "TextureTransfer", "TransformedAccuracy",
    "accuracy_on_correctly_classified", "accuracy_over_frequency", "adain", "answers_to", "answers_to_transformed",
    "attack_outcomes", "coarse_decisions", "correctly_classified", "count_decisions", "from_laplacian_pyramid",
    "high_pass", "laplacian_pyramid", "log_amplitude_spectrum", "low_pass", "parse_cues", "parse_mapping",
    "patch_shuffle", "perturbation_views", "plot_frequency_accuracy", "plot_perturbations", "plot_spectra",
    "plot_transformed_accuracy", "plot_versions", "random_filter", "saturate", "swap_frequencies",
    "transform_images",
]  # fmt: skip
