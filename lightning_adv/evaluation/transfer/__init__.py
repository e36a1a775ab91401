"""Do adversarial examples of one network fool another?"""

from lightning_adv.evaluation.transfer.figures import plot_ensemble_transfer, plot_transfer
from lightning_adv.evaluation.transfer.rates import (
    TransferRate,
    add_rates,
    commonly_correct,
    ensemble_rates,
    transfer_rates,
)

__all__ = [
    "TransferRate",
    "add_rates",
    "commonly_correct",
    "ensemble_rates",
    "plot_ensemble_transfer",
    "plot_transfer",
    "transfer_rates",
]
