"""What every regime shares: the optimizer, the seeds and the checks of training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, Self, cast

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchmetrics import MeanMetric

from lightning_adv.attacks import PGD, Attack
from lightning_adv.core.arguments import check_choices
from lightning_adv.core.errors import UsageError
from lightning_adv.core.recipe import find_class
from lightning_adv.core.seeds import run_seed
from lightning_adv.nn.backbones import Backbone
from lightning_adv.nn.named_by_files import check_named
from lightning_adv.nn.weights.checkpoint_form import LOADABLE
from lightning_adv.nn.weights.form import check_form
from lightning_adv.nn.weights.load import read_checkpoint, say
from lightning_adv.regimes.attack_runner import AttackPrecision, AttackRunner, View
from lightning_adv.regimes.checks import check_last_epochs, check_loss_form, check_precision, check_training_loss
from lightning_adv.regimes.metrics import length_of
from lightning_adv.regimes.optimizers import callable_from_config, step_plateau
from lightning_adv.regimes.rebuilding import built_parts, check_saved_arguments
from lightning_adv.regimes.resumable import ResumableClassifier
from lightning_adv.regimes.training_data import describe_data
from lightning_adv.regimes.weight_averaging import check_averaging, follow_until_started

_NO_LOSS = "{} must say what it minimises, by a method loss(self, x, y)."


class Regime(ResumableClassifier):
    """A LightningModule that trains an image classifier and measures how robust it is.

    A subclass writes :meth:`loss`: what is minimised on a batch. The rest is here: the checks of batches and losses,
    the seeds, the optimizer, validation, checkpoints. Within :meth:`loss` there are ``self(x)``, the network's logits,
    :meth:`criterion`, the cross-entropy, and :meth:`attacked`, which attacks the network.

    Args:
        backbone: What network to build.
        num_classes: Number of classes; None asks the Trainer's data module for its ``num_classes``.
        evaluation_attack: The attack of validation and test. The default is that of "Dissecting Local Properties of
            Adversarial Examples", section 3: PGD-20 at 8/255 with steps of 1/255; at another ``eps`` the step follows.
        optimizer: Takes parameter groups and returns an optimizer. A ``functools.partial`` can be stored in
            checkpoints, a lambda cannot.
        scheduler: Takes the optimizer and returns a schedule, or None.
        scheduler_interval: When the schedule steps, ``"epoch"`` or ``"step"``.
        decay_norm_and_bias: False leaves biases and normalisation parameters out of weight decay.
        label_smoothing: Share of the target that is spread over all classes, in [0, 1).
        running_statistics_epochs: In the last this many epochs every BatchNorm normalises by its running statistics in
            training too, and no longer updates them (Xie & Yuille 2020, section 6.4.3, table 6.2: 10 of 110).
        compile: Whether ``torch.compile`` speeds the network up, in place: checkpoints stay the same.
        view: ``"auto"`` attacks a view of the network, which computes the same logits up to rounding and is faster
            (:func:`~lightning_adv.nn.view.attack_view`), wherever one can be made and the attack keeps BatchNorm
            in eval mode. ``"off"`` attacks the network itself, always.
        attack_precision: In which precision attacks compute, in training and validation: ``"same"`` as the network, or
            ``"bf16"`` or ``"fp16"``. Images, steps, what is measured, and the attack of a test stay as they are.
        compile_view: Whether ``torch.compile`` compiles the view, or a mode of it, such as ``"reduce-overhead"`` (CUDA
            graphs). None does what ``compile`` does.
        channels_last: Whether the network's convolutions work channels-last, which most processors prefer: the same
            numbers up to rounding. Views do so always.

    Raises:
        UsageError: An argument is out of its range.

    Example:
        >>> class HalfClean(Regime):
        ...     def loss(self, x, y):
        ...         x_adv = self.attacked(PGD(eps="8/255", steps=2), x, y)
        ...         return 0.5 * self.criterion(self(x), y) + 0.5 * self.criterion(self(x_adv), y)
        >>> regime = HalfClean(Backbone("small_cnn", in_channels=1), num_classes=10)
        >>> regime.loss(torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 3])).shape
        torch.Size([])
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        num_classes: int | None = None,
        evaluation_attack: Attack = PGD(eps="8/255", steps=20, step_size="eps/8"),  # noqa: B008 (a recipe)
        optimizer: OptimizerCallable = lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=5e-4),
        scheduler: LRSchedulerCallable | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
        decay_norm_and_bias: bool = True,
        label_smoothing: float = 0.0,
        running_statistics_epochs: int = 0,
        compile: bool = False,
        view: View = "auto",
        attack_precision: AttackPrecision = "same",
        compile_view: bool | str | None = None,
        channels_last: bool = False,
    ) -> None:
        if not 0 <= label_smoothing < 1:
            raise UsageError(f"label_smoothing must lie in [0, 1), got {label_smoothing}.")
        if running_statistics_epochs < 0:
            raise UsageError(f"running_statistics_epochs must be at least 0, got {running_statistics_epochs}.")
        self.scheduler_interval = scheduler_interval
        self.view = view
        self.attack_precision = attack_precision
        check_choices(self, Regime)
        runner = AttackRunner(view, attack_precision, compile=compile if compile_view is None else compile_view)
        super().__init__(backbone, num_classes, evaluation_attack, compile, channels_last)
        self.attack_runner = runner  # not an argument of the base class: hyper-parameters are saved from those
        self.optimizer = callable_from_config(optimizer)
        self.scheduler = callable_from_config(scheduler)
        self.decay_norm_and_bias = decay_norm_and_bias
        self.label_smoothing = label_smoothing
        self.running_statistics_epochs = running_statistics_epochs
        self.train_loss = MeanMetric(nan_strategy="disable")  # check_loss has looked
        self.trained_on = None
        self.changes = []
        self._resumed = None
        self._other_optimizer = []

    @property
    def adversarial(self) -> bool:
        """Whether training attacks the network."""
        return True

    @property
    def monitor(self) -> str:
        """The metric by which the best checkpoint is chosen; larger is better."""
        return "val/robust_accuracy" if self.adversarial else "val/clean_accuracy"

    @property
    def chosen_from_epoch(self) -> int:
        """The first epoch whose network may be the best checkpoint, from 0."""
        return 0

    # Checkpoints --------------------------------------------------------------------------------------------------

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Self:
        """Build a trained regime from its checkpoint: Lightning's method, after checks of the file.

        Nothing is imported because a checkpoint names it. Called on :class:`Regime`, it builds the class that was
        trained, one of this package or one that was imported before.

        Args:
            checkpoint_path: The file.
            *args: Those of ``LightningModule.load_from_checkpoint``.
            **kwargs: Those of Lightning's method; ``weights_only`` is true if it is not given.

        Raises:
            UsageError: The file is missing, cannot be read as data, names a class that was not imported, or has a field
                that is not what belongs there.
        """
        content = read_checkpoint(checkpoint_path, argument="checkpoint_path")
        source = f"checkpoint_path: {checkpoint_path}"
        check_form(content, LOADABLE, source=source)
        saved = content[cls.CHECKPOINT_HYPER_PARAMS_KEY]
        check_named(saved)
        kind = find_class(content["regime"]["class_path"], Regime) if cls is Regime and "regime" in content else cls
        check_saved_arguments(kind, saved, kwargs, source=source)
        kwargs = {**built_parts(saved), **kwargs}
        loaded = super(Regime, kind).load_from_checkpoint(checkpoint_path, *args, **{"weights_only": True, **kwargs})
        return cast(Self, loaded)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to be built as the base class, beside what every run checks (a Lightning hook).

        Raises:
            UsageError: This is the base class, which Lightning would build without a word.
        """
        if type(self) is Regime:
            raise UsageError("Regime is the base of the regimes, and the checkpoint does not say which one it is of.")
        super().on_load_checkpoint(checkpoint)

    # Training -----------------------------------------------------------------------------------------------------

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Return what is minimised on a batch: the one method that a regime has to write.

        The network is in train mode. What :meth:`attacked` draws, and what is drawn from torch's global random state,
        depends on the seed, the epoch, the batch and the process alone: a resumed run draws the same.

        Args:
            x: Images (N, C, H, W) in [0, 1].
            y: Labels (N,), int64.

        Returns:
            The loss, one number with a gradient to each parameter that is trained.
        """
        raise NotImplementedError(_NO_LOSS.format(type(self).__name__))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the :meth:`loss` of a batch (a Lightning hook).

        Raises:
            TypeError: :meth:`loss` gave something else than one number with a gradient.
        """
        x, y = self.check_batch(batch, batch_idx)
        self.step_noise = self.noise("train", batch_idx)
        try:
            loss = self.loss(x, y)
            check_loss_form(loss, f"{type(self).__name__}.loss", needs_gradient=self.automatic_optimization)
            return self.check_loss(loss)
        finally:
            self.step_noise = None

    def criterion(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the mean cross-entropy of logits (N, K) and labels (N,), smoothed if asked."""
        return F.cross_entropy(logits.float(), y, label_smoothing=self.label_smoothing)

    def on_fit_start(self) -> None:
        """Settle the seed and check the precision (a Lightning hook).

        Raises:
            UsageError: Images would be rounded by more than an attack moves them, or an average by more than its steps,
                or the regime does not say what it minimises.
        """
        if type(self).loss is Regime.loss and type(self).training_step is Regime.training_step:
            raise UsageError(_NO_LOSS.format(type(self).__name__))
        if self.seed is None:
            self.seed = run_seed()
        self.trained_on = describe_data(self.trainer.datamodule)  # type: ignore[attr-defined]
        if self.adversarial:
            check_precision(str(self.trainer.precision))
        check_averaging(self.trainer)
        if self.running_statistics_epochs:
            trainer, trained = self.trainer, self.backbone.brings_weights
            check_last_epochs(self.running_statistics_epochs, trainer.max_epochs, trainer.max_steps, trained)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed what the network itself draws (dropout), and hold still what is not trained (a Lightning hook).

        A resumed run draws the same.
        """
        for module in self.held_in_eval():
            module.training = False
        if batch_idx == 0:  # an epoch that is resumed in the middle goes on with its mean loss
            self.train_loss.reset()
        seed = self._seed_of("network", batch_idx, self.current_epoch)
        # Not torch.manual_seed, which seeds every kind of device: 0.3 to 0.9 ms a call where one is not there.
        torch.default_generator.manual_seed(seed)
        if self.device.type != "cpu":
            torch.get_device_module(self.device).manual_seed(seed)

    def held_in_eval(self) -> Iterable[nn.Module]:
        """Return the modules that stay in eval mode in this epoch, although the network trains."""
        epochs = self.running_statistics_epochs
        if not epochs or self.current_epoch < self.trainer.max_epochs - epochs:  # type: ignore[operator]
            return []
        return [module for module in self.network.modules() if isinstance(module, _BatchNorm)]

    def check_loss(self, loss: Tensor) -> Tensor:
        """Return a finite loss; the epoch's mean is logged as ``train/loss``.

        Raises:
            FloatingPointError: The loss is NaN or infinite. The weights of the step before are still in place.
        """
        checkpoints = () if self._trainer is None else self.trainer.checkpoint_callbacks  # a loop of one's own has none
        check_training_loss(loss, self.global_step, self.current_epoch, checkpoints)
        self.train_loss.update(loss.detach())
        if self._trainer is not None and getattr(self.trainer.progress_bar_callback, "is_enabled", False):
            self.log("loss", loss.detach(), prog_bar=True, logger=False, batch_size=1)  # of this step: there is no mean
        return loss

    def on_train_epoch_end(self) -> None:
        """Log the mean loss once, and step a schedule that looks at metrics (a Lightning hook).

        To log in every step would cost half a millisecond.
        """
        planned = self.trainer.num_training_batches  # infinite where the loader has no length
        used = (
            planned if isinstance(planned, int) else self.trainer.fit_loop.epoch_loop.batch_progress.current.completed
        )
        self.coverage["training_batches"] = used, length_of(self.trainer.train_dataloader)
        if self.train_loss.weight > 0:  # a training_step of one's own may call no check_loss
            self.log("train/loss", self.train_loss, prog_bar=True)
        step_plateau(self)
        follow_until_started(self.trainer, self)  # when training ends, Lightning puts the average in the weights' place

    def on_validation_start(self) -> None:
        """Let no average be validated that has not begun (a Lightning hook)."""
        super().on_validation_start()
        follow_until_started(self.trainer, self)

    def on_train_end(self) -> None:
        """Say if weights were to be averaged and none were (a Lightning hook)."""
        if follow_until_started(self.trainer, self):
            say(
                f"trainer.callbacks: weight averaging never began in {self.trainer.global_step} steps: the network has "
                "the weights of its last step.",
                warn=True,
            )
