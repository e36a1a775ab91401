"""Weight averaging that starts late: until it does, the average is the network itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel

from lightning_adv.core.errors import UsageError


def follow_until_started(trainer: Trainer, module: LightningModule) -> bool:
    """Let an average that has not begun be the weights of now; called before it is validated, or stands for them.

    Lightning validates, saves and tests the average from the first step on, also while ``update_starting_at_step`` or
    ``update_starting_at_epoch`` are ahead, when it still holds the weights before training
    (https://github.com/Lightning-AI/pytorch-lightning/issues/21724, whose mending ends this module). What the average
    becomes does not depend on it: its first update copies the weights.

    Returns:
        Whether there is such an average.
    """
    waiting = list(_waiting(trainer))
    for average in waiting:
        average.update_parameters(module)
        average.n_averaged.zero_()
    return bool(waiting)


def check_averaging(trainer: Trainer) -> None:
    """Check that an average can follow the weights, before training.

    An average in 16 bits moves by ``1 - decay`` of its distance from the weights: less than the spacing of its numbers.

    Raises:
        UsageError: The weights, and with them their average, have 16 bits; or Lightning's StochasticWeightAveraging
            would lose the statistics of a BatchNorm.
    """
    if any(isinstance(callback, StochasticWeightAveraging) for callback in trainer.callbacks):  # type: ignore[attr-defined]
        _check_last_pass(trainer)
    averages = any(isinstance(callback, WeightAveraging) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    if averages and str(trainer.precision) in ("16-true", "bf16-true"):
        raise UsageError(
            f"trainer.precision is {trainer.precision}, in which a step of weight averaging rounds to nothing: use "
            "32-true, bf16-mixed or 16-mixed, or leave the averaging out of trainer.callbacks."
        )


def _check_last_pass(trainer: Trainer) -> None:
    """Check what StochasticWeightAveraging begins with, a copy of the network, and ends with.

    That is a pass that computes the statistics of every BatchNorm anew.

    Raises:
        UsageError: A BatchNorm is held in eval mode: Lightning 2.6 forgets its statistics, and the pass has none for
            it. Or the network was not there yet when Lightning copied it, and nothing would be averaged.
    """
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    copies = [each._average_model for each in callbacks if isinstance(each, StochasticWeightAveraging)]
    if any(copy is not None and not list(copy.parameters()) for copy in copies):
        raise UsageError(
            "trainer.callbacks has StochasticWeightAveraging, which copies the network before the data say how many "
            "classes there are: set model.init_args.num_classes."
        )
    regime: Any = trainer.lightning_module
    held = {id(module) for module in regime.held_in_eval()}
    if regime.running_statistics_epochs or any(
        isinstance(module, _BatchNorm) and id(module) in held for module in regime.network.modules()
    ):
        raise UsageError(
            "trainer.callbacks has StochasticWeightAveraging, whose last pass computes the statistics of every "
            "BatchNorm anew, and some of this regime are held in eval mode: they would be lost. Use WeightAveraging or "
            "EMAWeightAveraging."
        )


def save_current_weights(checkpoint: dict[str, Any]) -> None:
    """Put the weights of now in the place of an average that has not begun, in a checkpoint that is being saved."""
    if "averaging_state" in checkpoint and not checkpoint["averaging_state"]["n_averaged"]:
        checkpoint["state_dict"] = checkpoint["current_model_state"]


def _waiting(trainer: Trainer) -> Iterator[AveragedModel]:
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks:
        average = callback._average_model if isinstance(callback, WeightAveraging) else None
        if average is not None and not average.n_averaged:
            yield average
