"""What every regime shares: the network, its evaluation, its optimizer, its seeds and its checks."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric, SumMetric
from torchmetrics.classification import MulticlassAccuracy

from lightning_adv.attacks import PGD, Attack, attacking
from lightning_adv.attacks.base import check_images, check_labels
from lightning_adv.nn.backbones import Backbone
from lightning_adv.nn.checkpoints import check_fits
from lightning_adv.recipe import Recipe
from lightning_adv.regimes.noise import derive_seed, run_seed
from lightning_adv.regimes.optimizers import callable_from_config, callable_to_config, configure


class Regime(LightningModule):
    """A LightningModule that trains an image classifier and measures how robust it is.

    A subclass writes :meth:`training_step`: what is minimised on a batch. The rest is here.

    Args:
        backbone: What network to build.
        num_classes: Number of classes; None asks the Trainer's data module for its ``num_classes``.
        evaluation_attack: The attack of validation and test. The default is that of "Dissecting Local Properties of
            Adversarial Examples", section 3: PGD-20 at 8/255 with steps of 1/255.
        optimizer: Takes parameter groups and returns an optimizer. A ``functools.partial`` can be stored in
            checkpoints, a lambda cannot.
        scheduler: Takes the optimizer and returns a schedule, or None.
        scheduler_interval: When the schedule steps, ``"epoch"`` or ``"step"``.
        decay_norm_and_bias: False leaves biases and normalisation parameters out of weight decay.
        label_smoothing: Share of the target that is spread over all classes, in [0, 1).

    Raises:
        ValueError: An argument is out of its range.
    """

    monitor: ClassVar[str] = "val/robust_accuracy"
    """The metric by which the best checkpoint is chosen; larger is better."""

    adversarial: ClassVar[bool] = True
    """Whether training attacks the network."""

    network: nn.Module

    def __init__(
        self,
        backbone: Backbone,
        *,
        num_classes: int | None = None,
        evaluation_attack: Attack = PGD(eps="8/255", steps=20, step_size="1/255"),  # noqa: B008 (a recipe)
        optimizer: OptimizerCallable = lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=5e-4),
        scheduler: LRSchedulerCallable | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
        decay_norm_and_bias: bool = True,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self._save_recipes()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must lie in [0, 1), got {label_smoothing}.")
        if num_classes is not None and num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {num_classes}.")
        self.backbone = Backbone.from_config(backbone)
        self.num_classes = num_classes
        self.evaluation_attack = Attack.from_config(evaluation_attack)
        self.optimizer = callable_from_config(optimizer)
        self.scheduler = callable_from_config(scheduler)
        self.scheduler_interval = scheduler_interval
        self.decay_norm_and_bias = decay_norm_and_bias
        self.label_smoothing = label_smoothing
        self.seed: int | None = None
        self.train_loss = MeanMetric(nan_strategy="disable")  # check_loss has looked
        if num_classes is not None:
            self._build(num_classes)

    # Construction and checkpoints ---------------------------------------------------------------------------------

    def _save_recipes(self) -> None:
        """Keep the arguments as plain data, so that a checkpoint loads with ``weights_only=True`` and needs no more."""
        self.save_hyperparameters(logger=False)
        for name, value in list(self.hparams.items()):
            if isinstance(value, Recipe):
                self.hparams[name] = value.to_config()
            elif callable(value):
                self.hparams[name] = callable_to_config(value)
                if self.hparams[name] is None:  # a lambda: a module loaded from the checkpoint takes the default
                    del self.hparams[name]

    def configure_model(self) -> None:
        """Build the network once the data module has said how many classes there are (a Lightning hook).

        Raises:
            ValueError: Nobody says how many classes there are, or the data's images do not fit the network.
        """
        data = getattr(self._trainer, "datamodule", None) if self._trainer is not None else None
        shape, classes = getattr(data, "image_shape", None), getattr(data, "num_classes", None)
        if shape is not None and shape[0] != self.backbone.in_channels:
            raise ValueError(
                f"backbone.in_channels is {self.backbone.in_channels}, but the images of {type(data).__name__} have "
                f"{shape[0]} channels."
            )
        if self.num_classes is None:
            if classes is None:
                raise ValueError("num_classes must be given: the Trainer has no data module that knows it.")
            self._build(int(classes))
        elif classes is not None and classes != self.num_classes:
            raise ValueError(f"num_classes is {self.num_classes}, but {type(data).__name__} has {classes} classes.")
        if shape is not None:
            self._try_shape(shape, type(data).__name__)

    def _try_shape(self, shape: tuple[int, ...], data: str) -> None:
        """Run one black image through the network: some take one size only."""
        try:
            with attacking(self.network) as network, torch.no_grad():  # leaves flags and statistics as they are
                network(torch.zeros(1, *shape, device=self.device))
        except (AssertionError, RuntimeError) as error:
            raise ValueError(
                f"backbone.name {self.backbone.name!r} does not take the images of {data}, of shape {tuple(shape)}: "
                f"{error}"
            ) from error

    def _build(self, num_classes: int) -> None:
        self.num_classes = self.hparams["num_classes"] = num_classes
        self.network = self.backbone.build(num_classes)
        self.meters = nn.ModuleDict({stage: _meters(num_classes) for stage in ("val", "test")})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what a resumed run goes on with, and take out of the recipe where the first weights came from."""
        # Lightning forgets the running mean of an epoch that it resumes in the middle.
        with self.train_loss.sync_context():
            train_loss = {name: torch.as_tensor(value).clone() for name, value in self.train_loss.metric_state.items()}
        checkpoint["regime"] = {"seed": self.seed, "train_loss": train_loss}
        hyper_parameters = dict(checkpoint[self.CHECKPOINT_HYPER_PARAMS_KEY])
        recipe = self.backbone.to_config()["init_args"]
        hyper_parameters["backbone"] = {**recipe, "pretrained": False, "checkpoint": None}
        checkpoint[self.CHECKPOINT_HYPER_PARAMS_KEY] = hyper_parameters

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint is of this network, before anything is loaded.

        Raises:
            ValueError: It is not, or this is the base class, which Lightning would build without a word.
        """
        if type(self) is Regime:
            raise ValueError(
                "Regime is the base of the regimes: call load_from_checkpoint of the class that was trained, or of "
                "LightningModule, which finds it."
            )
        check_fits(self, checkpoint["state_dict"], argument="ckpt_path")
        if self._trainer is not None and self.trainer.training and "regime" in checkpoint:
            self.seed = checkpoint["regime"]["seed"]
            if self.global_rank == 0:  # the state is that of all processes together
                for name, value in checkpoint["regime"]["train_loss"].items():
                    setattr(self.train_loss, name, value.to(self.device))

    # Training -----------------------------------------------------------------------------------------------------

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, K) of images (N, C, H, W) in [0, 1]."""
        logits: Tensor = self.network(x)
        return logits

    def criterion(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the mean cross-entropy of logits (N, K) and labels (N,), smoothed if asked."""
        return F.cross_entropy(logits.float(), y, label_smoothing=self.label_smoothing)

    def configure_optimizers(self) -> Any:
        """Build the optimizer and the schedule (a Lightning hook)."""
        return configure(
            self.network, self.optimizer, self.scheduler, self.scheduler_interval, self.decay_norm_and_bias
        )

    def on_fit_start(self) -> None:
        """Settle the seed and check the precision (a Lightning hook).

        Raises:
            ValueError: The images would be rounded by more than an attack moves them.
        """
        if self.seed is None:
            self.seed = run_seed()
        if self.adversarial and str(self.trainer.precision).startswith(("16-true", "bf16-true")):
            raise ValueError(
                f"trainer.precision is {self.trainer.precision}, which rounds an image by more than a step of the "
                "attack; use 32-true, bf16-mixed or 16-mixed."
            )

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed what the network itself draws (dropout), so that a resumed run draws the same (a Lightning hook)."""
        if batch_idx == 0:  # an epoch that is resumed in the middle goes on with its mean loss
            self.train_loss.reset()
        seed = self._seed_of("network", batch_idx, self.current_epoch)
        # Not torch.manual_seed, which seeds every kind of device: 0.3 to 0.9 ms a call where one is not there.
        torch.default_generator.manual_seed(seed)
        if self.device.type != "cpu":
            torch.get_device_module(self.device).manual_seed(seed)

    def noise(self, stage: str, batch_idx: int) -> torch.Generator:
        """Return the attack's source of randomness, on this module's device.

        In training it depends on (seed, epoch, batch, rank); elsewhere not on the epoch, so that epochs compare.
        """
        epoch = self.current_epoch if stage == "train" else 0
        generator = torch.Generator(self.device)
        return generator.manual_seed(self._seed_of(stage, batch_idx, epoch))

    def _seed_of(self, purpose: str, batch_idx: int, epoch: int) -> int:
        seed = run_seed() if self.seed is None else self.seed
        return derive_seed(seed, purpose, epoch, batch_idx, self.global_rank)

    def check_batch(self, batch: Any, batch_idx: int) -> tuple[Tensor, Tensor]:
        """Return the batch as images (N, C, H, W) and labels (N,).

        On an accelerator only the first batch is looked at: reading a value stops the queue.

        Raises:
            ValueError: The images leave [0, 1], the labels leave [0, K), or the shapes do not agree.
        """
        x, y = batch
        if batch_idx == 0 or x.device.type == "cpu":
            if x.ndim != 4 or x.shape[1] != self.backbone.in_channels:
                raise ValueError(
                    f"x must be images (N, {self.backbone.in_channels}, H, W) as backbone.in_channels says, got shape "
                    f"{tuple(x.shape)}."
                )
            check_images(x, y)
            check_labels(y, self.hparams["num_classes"])
        return x, y

    def check_loss(self, loss: Tensor) -> Tensor:
        """Return a finite loss; the epoch's mean is logged as ``train/loss``.

        Raises:
            FloatingPointError: The loss is NaN or infinite. The weights of the step before are still in place.
        """
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"The training loss is {loss.item()} at step {self.global_step} (epoch {self.current_epoch}). Training "
                "stops before the weights are touched again. Resume from checkpoints/last.ckpt or best.ckpt with a "
                "lower learning rate, clip gradients (trainer.gradient_clip_val) or use a wider precision."
            )
        self.train_loss.update(loss.detach())
        return loss

    def on_train_epoch_end(self) -> None:
        """Log the mean loss once: to log in every step would cost half a millisecond (a Lightning hook)."""
        self.log("train/loss", self.train_loss)

    # Evaluation ---------------------------------------------------------------------------------------------------

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Measure clean and robust accuracy and loss on validation images."""
        self._evaluate(batch, batch_idx, "val")

    def on_validation_epoch_end(self) -> None:
        """Stop at a network that computes no numbers, before it is saved (a Lightning hook).

        Raises:
            FloatingPointError: The loss on clean images is NaN or infinite.
        """
        loss = self.meters["val"]["clean_loss"].compute()  # type: ignore[index]
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"The validation loss is {loss.item()} after step {self.global_step} (epoch {self.current_epoch}). "
                "Training stops before the weights are saved. Lower the learning rate, clip gradients "
                "(trainer.gradient_clip_val) or use a wider precision."
            )

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Measure clean and robust accuracy and loss on test images."""
        self._evaluate(batch, batch_idx, "test")

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the class probabilities (N, K)."""
        x, _ = self.check_batch(batch, batch_idx)
        probabilities: Tensor = self(x).float().softmax(1)
        return probabilities

    def _evaluate(self, batch: Any, batch_idx: int, stage: Literal["val", "test"]) -> None:
        x, y = self.check_batch(batch, batch_idx)
        x_adv = self.evaluation_attack(self.network, x, y, generator=self.noise(stage, batch_idx))
        metrics: Any = self.meters[stage]
        for kind, images in (("clean", x), ("robust", x_adv)):
            logits = self(images).float()
            metrics[f"{kind}_accuracy"].update(logits, y)
            metrics[f"{kind}_loss"].update(F.cross_entropy(logits, y, reduction="none"))
        metrics["images"].update(len(x))
        for name, metric in metrics.items():
            if name != "images" or stage == "test":
                self.log(f"{stage}/{name}", metric, on_step=False, on_epoch=True)


def _meters(num_classes: int) -> nn.ModuleDict:
    metrics: dict[str, Metric] = {"images": SumMetric()}
    for kind in ("clean", "robust"):
        # Labels are checked already, with a clearer message.
        metrics[f"{kind}_accuracy"] = MulticlassAccuracy(num_classes, average="micro", validate_args=False)
        metrics[f"{kind}_loss"] = MeanMetric(nan_strategy="disable")  # the default leaves NaN out of the mean
    return nn.ModuleDict(metrics)
