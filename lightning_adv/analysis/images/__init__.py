"""Images as networks and attacks see them: frequencies, transforms, perturbations."""

from lightning_adv.analysis.images.frequency import FREQUENCY_SCALE, accuracy_over_frequency, log_amplitude_spectrum
from lightning_adv.analysis.images.frequency_figures import (
    plot_frequency_accuracy,
    plot_spectra,
    plot_transformed_accuracy,
)
from lightning_adv.analysis.images.perturbation_figures import plot_perturbations
from lightning_adv.analysis.images.perturbations import attack_outcomes, perturbation_views
from lightning_adv.analysis.images.transformed_accuracy import (
    PAPER_LEVELS,
    TransformedAccuracy,
    accuracy_on_correctly_classified,
    correctly_classified,
)
from lightning_adv.analysis.images.transforms import (
    high_pass,
    low_pass,
    patch_shuffle,
    random_filter,
    saturate,
    swap_frequencies,
)

__all__ = [
    "FREQUENCY_SCALE", "PAPER_LEVELS", "TransformedAccuracy", "accuracy_on_correctly_classified",
    "accuracy_over_frequency", "attack_outcomes", "correctly_classified", "high_pass", "log_amplitude_spectrum",
    "low_pass", "patch_shuffle", "perturbation_views", "plot_frequency_accuracy", "plot_perturbations", "plot_spectra",
    "plot_transformed_accuracy", "random_filter", "saturate", "swap_frequencies",
]  # fmt: skip
