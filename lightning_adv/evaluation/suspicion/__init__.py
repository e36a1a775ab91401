"""Is a robust accuracy too good? Checks of a network, and of how attacks on it do."""

from lightning_adv.evaluation.suspicion.find import find_suspicions
from lightning_adv.evaluation.suspicion.network import (
    batch_dependent_output,
    probabilities,
    randomised_output,
    train_mode,
    zero_gradients,
)
from lightning_adv.evaluation.suspicion.normalisation import normalised_twice
from lightning_adv.evaluation.suspicion.verdicts import (
    Suspicion,
    blackbox_beats_whitebox,
    fgsm_beats_pgd,
    full_eps_leaves_accuracy,
    larger_eps_does_not_help,
    more_steps_do_not_help,
)

__all__ = [
    "Suspicion",
    "batch_dependent_output",
    "blackbox_beats_whitebox",
    "fgsm_beats_pgd",
    "find_suspicions",
    "full_eps_leaves_accuracy",
    "larger_eps_does_not_help",
    "more_steps_do_not_help",
    "normalised_twice",
    "probabilities",
    "randomised_output",
    "train_mode",
    "zero_gradients",
]
