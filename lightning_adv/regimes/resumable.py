"""A classifier whose training can be stopped, and gone on with from its checkpoint to the same bits."""

from __future__ import annotations

import os
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torchmetrics import MeanMetric

from lightning_adv.core.errors import UsageError
from lightning_adv.core.recipe import find_class, public_path
from lightning_adv.core.seeds import run_seed
from lightning_adv.nn.weights.load import say
from lightning_adv.regimes.changed_settings import (
    Change,
    check_changes,
    describe_optimizers,
    describe_trainer,
    optimizer_changes,
    settings_changes,
    use_changes,
)
from lightning_adv.regimes.measured import MeasuredClassifier
from lightning_adv.regimes.optimizers import callable_to_config, configure, learning_rate_of, with_learning_rate
from lightning_adv.regimes.rebuilding import modules_digest
from lightning_adv.regimes.training_data import Purpose, compare_data, data_of, describe_data
from lightning_adv.regimes.weight_averaging import save_current_weights


class ResumableClassifier(MeasuredClassifier):
    """A :class:`~lightning_adv.regimes.measured.MeasuredClassifier` that is trained, and says in its checkpoints how.

    Attributes:
        optimizer: Takes parameter groups and returns an optimizer.
        scheduler: Takes the optimizer and returns a schedule, or None.
        scheduler_interval: When the schedule steps, ``"epoch"`` or ``"step"``.
        decay_norm_and_bias: False leaves biases and normalisation parameters out of weight decay.
        train_loss: The mean loss of the epoch.
        trained_on: :func:`~lightning_adv.regimes.training_data.describe_data` of the training.
        changes: What the run went on with otherwise than before.
        coverage: What the training was by: images or batches used, and available, by name.
    """

    optimizer: OptimizerCallable
    scheduler: LRSchedulerCallable | None
    scheduler_interval: str
    decay_norm_and_bias: bool
    train_loss: MeanMetric
    trained_on: dict[str, Any] | None
    changes: list[dict[str, Any]]
    coverage: dict[str, tuple[int, int | None]]
    _resumed: dict[str, Any] | None
    _other_optimizer: list[Change]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what a resumed run goes on with (a Lightning hook)."""
        super().on_save_checkpoint(checkpoint)
        save_current_weights(checkpoint)
        # Lightning forgets the running mean of an epoch that it resumes in the middle.
        with self.train_loss.sync_context():
            train_loss = {name: torch.as_tensor(value).clone() for name, value in self.train_loss.metric_state.items()}
        checkpoint["regime"] = {"class_path": public_path(type(self)), "seed": self.seed, "train_loss": train_loss}
        checkpoint["regime"]["network_changed_by"] = self.network_changed_by
        checkpoint["regime"]["modules"] = modules_digest(self.network)
        data = self.trained_on
        for name in ("class_names", "image_shape"):
            checkpoint["regime"][name] = None if data is None else data.get(name)
        checkpoint["regime"] |= {"data": data, "trainer": describe_trainer(self.trainer), "changes": self.changes}
        coverage = {name: {"used": used, "available": available} for name, (used, available) in self.coverage.items()}
        checkpoint["regime"]["coverage"] = coverage
        for optimizer in self.trainer.optimizers[:1]:
            checkpoint["regime"]["optimizers"] = describe_optimizers(optimizer, self._schedule())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check the checkpoint, and take from it what a resumed run goes on with (a Lightning hook).

        Raises:
            UsageError: It is of another network or regime, or of images that are split in another way.
        """
        if "regime" not in checkpoint:
            super().on_load_checkpoint(checkpoint)
            return
        used = self._trainer is not None
        if used and not self._is_of_class(checkpoint["regime"]["class_path"]):
            trained = checkpoint["regime"]["class_path"].rpartition(".")[2]
            raise UsageError(
                f"ckpt_path: this is a run of {trained}, and model.class_path is {type(self).__name__}: give the one "
                "that was trained. To begin with its weights, give the file as model.init_args.backbone.checkpoint."
            )
        super().on_load_checkpoint(checkpoint)
        self.trained_on = data_of(checkpoint)
        self.changes = list(checkpoint["regime"].get("changes", []))
        if used and (told := self._compare_data("ckpt_path")):
            say(told, warn=True)
        if used and self.trainer.training:
            self._go_on(checkpoint)

    def _go_on(self, checkpoint: dict[str, Any]) -> None:
        """Take from a checkpoint what a run goes on with."""
        if checkpoint["regime"]["seed"] is None:  # of a run that has not begun: Lightning's finders save and load it
            return
        self._resumed = checkpoint
        given, self.seed = run_seed(), checkpoint["regime"]["seed"]
        coverage = checkpoint["regime"].get("coverage", {})  # nothing may be left to train or validate
        self.coverage |= {name: (told["used"], told["available"]) for name, told in coverage.items()}
        if self.global_rank == 0:  # the state is that of all processes together
            for name, value in checkpoint["regime"]["train_loss"].items():
                setattr(self.train_loss, name, value.to(self.device))
        if given != self.seed and "PL_GLOBAL_SEED" in os.environ:
            say(f"ckpt_path: the run goes on with its own seed_everything {self.seed}, not with {given}.", warn=True)

    def _compare_data(self, argument: str) -> str | None:
        """Compare the images that there are with those of the training; see :func:`compare_data`."""
        stages: dict[str, Purpose] = {"fit": "train", "validate": "validate"}
        purpose = stages.get(str(getattr(self.trainer.state.fn, "value", None)), "test")
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if not getattr(data, "has_labels", True):  # nothing is measured on them
            return None
        return compare_data(self.trained_on, describe_data(data), purpose, argument=argument)

    def _is_of_class(self, class_path: str) -> bool:
        """Whether a dotted path, by which an earlier version may have named the class, is that of this regime."""
        if class_path == public_path(type(self)):  # that of a class in a function or a notebook cannot be found
            return True
        try:
            return find_class(class_path, ResumableClassifier) is type(self)
        except ValueError:  # nobody has imported it: it is another one
            return False

    @property
    def optimizer_lr(self) -> float:
        """The learning rate that the optimizer begins with: the ``attr_name`` for Lightning's LearningRateFinder.

        To set it puts it into :attr:`optimizer`, for an optimizer that is built afterwards, and into the
        hyper-parameters if the optimizer is a ``functools.partial``.
        """
        return learning_rate_of(self.optimizer)

    @optimizer_lr.setter
    def optimizer_lr(self, value: float) -> None:
        self.optimizer = with_learning_rate(self.optimizer, value)
        if (config := callable_to_config(self.optimizer)) is not None:
            self.hparams["optimizer"] = config

    def _schedule(self) -> Any:
        """Return the schedule; None where there is none."""
        configs = self.trainer.lr_scheduler_configs
        return configs[0].scheduler if configs else None

    def configure_optimizers(self) -> Any:
        """Build the optimizer and the schedule (a Lightning hook).

        Raises:
            UsageError: A run that goes on has others, and its checkpoint's state is none of theirs.
        """
        built = configure(
            self.network, self.optimizer, self.scheduler, self.scheduler_interval, self.decay_norm_and_bias
        )
        if self._resumed is not None:
            described = describe_optimizers(built["optimizer"], built.get("lr_scheduler", {}).get("scheduler"))
            self._other_optimizer = optimizer_changes(self._resumed, self.hparams, described)
            data = self.trainer.datamodule  # type: ignore[attr-defined]
            others = settings_changes(self._resumed, self.hparams, data, self.trainer)
            check_changes(others, [str(getattr(each, "monitor", "")) for each in self.trainer.checkpoint_callbacks])
            self._tell([*self._other_optimizer, *others], self._resumed)
            self._resumed = None  # the weights in it would stay in memory
        return built

    def _tell(self, changes: list[Change], checkpoint: dict[str, Any]) -> None:
        """Say what a run goes on with otherwise than before, and keep it for its results."""
        if not changes:
            return
        say(f"ckpt_path: the run goes on with {', '.join(str(change) for change in changes)}.", warn=True)
        at = {"epoch": checkpoint["epoch"], "step": checkpoint["global_step"]}
        self.changes += [{**at, **change._asdict()} for change in changes]

    def on_train_start(self) -> None:
        """Let the optimizer go on with the settings that are others than they were (a Lightning hook)."""
        if self._other_optimizer:
            fresh = configure(
                self.network, self.optimizer, self.scheduler, self.scheduler_interval, self.decay_norm_and_bias
            )
            use_changes(self.trainer.optimizers[0], self._schedule(), fresh, self._other_optimizer)
            self._other_optimizer = []
