"""The two checkpoints of a run: the best one, to use, and the last one, to resume from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_adv.callbacks.checkpoint_io import save_atomically
from lightning_adv.core.errors import NotFiniteError, UsageError
from lightning_adv.nn.weights.finite import not_finite
from lightning_adv.nn.weights.load import say
from lightning_adv.regimes.checks import begin_again

_PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")


def check_finite(trainer: Trainer, checkpoint: Mapping[str, Any]) -> None:
    """Check that all that is saved are numbers: weights, running statistics, averages, the state of the optimizers.

    One look at each tensor, which is little beside writing it. All processes come here, and decide together: running
    statistics are not the same on each, and a process that raises alone would leave the others waiting.

    Raises:
        NotFiniteError: They are not, on this process or another one.
    """
    saved = dict(_saved(trainer, checkpoint))
    broken = not_finite(saved)
    if trainer.strategy.reduce_boolean_decision(not broken, all=True):
        return
    where = f"{broken[0]}, {len(broken)} of {len(saved)} tensors in all" if broken else "on another process"
    raise NotFiniteError(
        f"What would be saved is NaN or infinite after step {trainer.global_step} (epoch {trainer.current_epoch}): "
        f"{where}. It is not saved, and what was saved before stays as it was. "
        f"{begin_again(trainer.checkpoint_callbacks)} a lower learning rate, clip gradients "
        "(trainer.gradient_clip_val) or use a wider precision."
    )


def _saved(trainer: Trainer, checkpoint: Mapping[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the floating tensors of a checkpoint by name; weight averaging has a second state dict."""
    for part in ("state_dict", "current_model_state", "averaging_state"):
        for name, value in checkpoint.get(part, {}).items():
            yield name if part == "state_dict" else f"{part}.{name}", value
    module = trainer.lightning_module
    names: dict[Any, str] = {parameter: name for name, parameter in module.named_parameters()}
    for optimizer in trainer.optimizers:
        for parameter, state in optimizer.state.items():
            for key, value in state.items():
                yield f"{type(optimizer).__name__}'s {key} of {names.get(parameter, 'a parameter')}", value


class _RunCheckpoint(ModelCheckpoint):
    _trains = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Settle the folder, by the one path that it has from everywhere (a Lightning hook).

        A kill leaves whole files in it. ModelCheckpoint compares paths as text: by another text for the same file it
        would take the checkpoint that it has just written for the one before, and delete it.
        """
        save_atomically(trainer)
        self._trains = stage == "fit"
        super().setup(trainer, pl_module, stage)
        if self.dirpath is not None and "://" not in str(self.dirpath):
            self.dirpath = os.path.realpath(self.dirpath)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Look at the weights, and let the loggers write what they hold back (a Lightning hook).

        A run that is killed resumes here, and would miss what was logged. Lightning calls this before it writes the
        file: if the weights are no numbers, the checkpoint that was there stays.

        Raises:
            NotFiniteError: A tensor holds NaN or an infinite number. In the middle of an epoch this is how an
                exploding step is found: its own loss was finite, and no loss of the new weights was computed yet.
        """
        ours = (callback for callback in trainer.checkpoint_callbacks if isinstance(callback, _RunCheckpoint))
        if next(ours) is self:  # once is enough
            check_finite(trainer, checkpoint)
        for logger in trainer.loggers:
            logger.save()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the checkpoints of the run folder, by whatever path it is named now.

        ModelCheckpoint would forget the best score of a run folder that has moved, and warns of each, also in a test,
        which saves nothing and has a folder of its own.
        """
        if not self._trains:
            return
        here = Path(str(self.dirpath))

        def found(path: str) -> str:
            return str(here / Path(path).name) if path and (here / Path(path).name).is_file() else path

        moved: dict[str, Any] = {name: found(state_dict[name]) for name in _PATHS}
        scores = {found(path): score for path, score in state_dict["best_k_models"].items()}
        if all(Path(path).parent == here for path in scores):
            moved["dirpath"] = self.dirpath
        super().load_state_dict({**state_dict, **moved, "best_k_models": scores})


class BestCheckpoint(_RunCheckpoint):
    """Keeps the checkpoint with the best validation metric, as ``checkpoints/best.ckpt``.

    Args:
        monitor: Name of the metric. None takes the regime's own (``val/robust_accuracy`` where it is adversarial).
        mode: ``"max"`` or ``"min"``.
        every_n_epochs: Look at the metric every this many epochs.
    """

    def __init__(
        self, monitor: str | None = None, mode: Literal["max", "min"] = "max", every_n_epochs: int = 1
    ) -> None:
        super().__init__(
            filename="best",
            monitor=monitor,
            mode=mode,
            every_n_epochs=every_n_epochs,
            auto_insert_metric_name=False,  # the "/" of the metric's name would make a folder
            enable_version_counter=False,
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the regime's metric where none was given (a Lightning hook)."""
        if self.monitor is None:
            self.monitor = getattr(pl_module, "monitor", "val/robust_accuracy")
        super().setup(trainer, pl_module, stage)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the metric where epochs are not over with their validation (a Lightning hook)."""
        if self._counts(trainer, pl_module):
            super().on_validation_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the metric where they are (a Lightning hook)."""
        if self._counts(trainer, pl_module):
            super().on_train_epoch_end(trainer, pl_module)

    @staticmethod
    def _counts(trainer: Trainer, pl_module: LightningModule) -> bool:
        """Whether this epoch's network may be the best: a regime may change what it trains for in the middle."""
        return trainer.current_epoch >= getattr(pl_module, "chosen_from_epoch", 0)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Find what this callback knew, whenever it looks now, if it still counts (a Lightning hook).

        Lightning keeps it under a key that has all of the callback's settings.

        Raises:
            UsageError: It chose by another metric, whose values do not compare.
        """
        known = {
            key: state
            for key, state in checkpoint.get("callbacks", {}).items()
            if key.startswith(type(self).__qualname__)
        }
        none_yet = not any(state.get("best_model_path") for state in known.values())
        if trainer.training and (none_yet or checkpoint["epoch"] < getattr(pl_module, "chosen_from_epoch", 0)):
            for key in known:  # a run that was shorter has chosen among epochs that do not count in this one
                del checkpoint["callbacks"][key]
            return
        if not trainer.training or self.state_key in known or len(known) != 1:
            return
        state = next(iter(known.values()))
        if state["monitor"] != self.monitor or f"'mode': {self.mode!r}" not in next(iter(known)):
            raise UsageError(
                f"ckpt_path: best_checkpoint.monitor is {self.monitor} ({self.mode}), but this run's best checkpoint "
                f"is chosen by {state['monitor']}: leave it as it was."
            )
        checkpoint["callbacks"][self.state_key] = state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the best checkpoint, or begin to look for one where it was left behind."""
        if not self._trains:
            return
        best = Path(str(self.dirpath)) / Path(state_dict["best_model_path"]).name
        if (
            self._trains
            and state_dict["best_model_path"]
            and not best.is_file()
            and not Path(state_dict["best_model_path"]).is_file()
        ):
            say(
                f"ckpt_path: the run's best checkpoint is not there ({best}): the best is that of the epochs from here "
                "on.",
                warn=True,
            )
            return
        super().load_state_dict(state_dict)


class LastCheckpoint(_RunCheckpoint):
    """Keeps the newest checkpoint, as ``checkpoints/last.ckpt``: what a stopped run resumes from.

    It is written beside its place and renamed, so that a run killed while saving leaves the one before.

    Args:
        every_n_epochs: Save every this many epochs, after validation.
        every_n_train_steps: Save every this many steps too.

    Raises:
        UsageError: A number is below 1.
    """

    def __init__(self, every_n_epochs: int = 1, every_n_train_steps: int | None = None) -> None:
        for name, number in (("every_n_epochs", every_n_epochs), ("every_n_train_steps", every_n_train_steps)):
            if number is not None and number < 1:
                raise UsageError(f"last_checkpoint.{name} must be at least 1, got {number}.")
        super().__init__(
            filename="last",
            every_n_epochs=every_n_epochs,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
        self.steps_between = every_n_train_steps
        self._saved_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the step that a resumed run begins with (a Lightning hook).

        Saved again there, in the middle of accumulating gradients, those of the first batches would be lost.
        """
        super().on_train_start(trainer, pl_module)
        self._saved_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save between the ends of epochs, and where training stops there (a Lightning hook).

        Not after the last batch of an epoch: resumed there, Lightning would leave the epoch's validation out.
        """
        step = trainer.global_step
        due = self.steps_between is not None and step % self.steps_between == 0
        stops = trainer.should_stop or 0 <= trainer.max_steps <= step
        wanted = (due or stops) and step != self._saved_step and not trainer.is_last_batch
        if wanted and not self._should_skip_saving_checkpoint(trainer):
            self._saved_step = step
            trainer.save_checkpoint(Path(str(self.dirpath)) / "last.ckpt", weights_only=False)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save at the end of an epoch (a Lightning hook).

        Not of one that was cut short: resumed there, Lightning would take it for complete.
        """
        if trainer.is_last_batch:
            super().on_train_epoch_end(trainer, pl_module)
