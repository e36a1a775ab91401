"""A classifier as a LightningModule: its network, its checkpoints, what goes in and how it is attacked."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from lightning_adv.attacks import Attack
from lightning_adv.attacks.checks import trust
from lightning_adv.attacks.describe import shortfall
from lightning_adv.attacks.forward import check_logits
from lightning_adv.core.errors import UsageError, raised_in
from lightning_adv.core.moved import renamed_argument
from lightning_adv.core.recipe import Recipe
from lightning_adv.core.seeds import derive_seed, run_seed
from lightning_adv.nn.backbones import Backbone
from lightning_adv.nn.batchnorm import through
from lightning_adv.nn.weights.checkpoint_form import check_activation
from lightning_adv.nn.weights.load import check_fits, say
from lightning_adv.regimes.attack_runner import AttackRunner
from lightning_adv.regimes.checks import (
    as_pair,
    check_attack_precision,
    check_batch,
    check_shape,
    no_statistics,
)
from lightning_adv.regimes.optimizers import callable_to_config
from lightning_adv.regimes.rebuilding import modules_of, network_changed_by
from lightning_adv.regimes.training_data import num_classes_of


class Classifier(LightningModule):
    """A LightningModule that holds an image classifier and attacks it.

    Args:
        backbone: What network to build.
        num_classes: Number of classes; None asks the Trainer's data module for its ``num_classes``.
        evaluation_attack: The attack of validation and test.
        compile: Whether ``torch.compile`` speeds the network up, in place: checkpoints stay the same.
        channels_last: Whether the network's convolutions work channels-last.

    Raises:
        UsageError: An argument is out of its range.
    """

    network: nn.Module

    domains: tuple[str, ...] = ()
    """The BatchNorm domains that validation and test measure; none in most regimes."""

    inference_domain: str | None = None
    """The domain that :meth:`forward` runs through."""

    attack_runner: AttackRunner
    """What runs the attacks."""

    step_noise: torch.Generator | None = None
    """The attacks' source of randomness in a training step."""

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int | None,
        evaluation_attack: Attack,
        compile: bool,
        channels_last: bool,
    ) -> None:
        super().__init__()
        self._save_recipes()
        if num_classes is not None and num_classes < 2:
            raise UsageError(f"num_classes must be at least 2, got {num_classes}.")
        self.backbone = Backbone.from_config(backbone)
        self.num_classes = num_classes
        self.evaluation_attack = Attack.from_config(evaluation_attack)
        self.compiles = compile
        self.channels_last = channels_last
        self.seed: int | None = None
        self.coverage: dict[str, tuple[int, int | None]] = {}  # used and available, of what a run was trained by
        self._warned: set[str] = set()
        self._built_of: list[tuple[str, type, str]] = []
        if num_classes is not None:
            self._build(num_classes)

    def __getattr__(self, name: str) -> Any:
        """Let an AttributeError within a property through: torch says that the property itself is missing."""
        found = getattr(type(self), name, None)
        if isinstance(found, property):
            return found.__get__(self)
        return super().__getattr__(name)

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
            UsageError: Nobody says how many classes there are, the data's images do not fit the network, a package that
                an attack needs is not installed, or attacks cannot have the precision that was asked.
        """
        for name in ("evaluation_attack", "attack"):
            attack = getattr(self, name, None)
            if attack is not None:
                attack.check_available()
                self._warn_of(shortfall(attack, name))
        self.evaluation_attack.threat_model  # noqa: B018 - an attack that does not say what it stays in says so now, not at the end
        if self._trainer is not None:
            check_attack_precision(self.hparams["attack_precision"], str(self.trainer.precision))
        data = getattr(self._trainer, "datamodule", None) if self._trainer is not None else None
        shape, classes = getattr(data, "image_shape", None), num_classes_of(data)
        if shape is not None and shape[0] != self.backbone.in_channels:
            raise UsageError(
                f"backbone.in_channels is {self.backbone.in_channels}, but the images of {type(data).__name__} have "
                f"{shape[0]} channels."
            )
        if self.num_classes is None:
            if classes is None:
                raise UsageError(
                    "num_classes must be given: the Trainer has no data module with a num_classes (or class_names)."
                )
            if classes < 2:
                raise UsageError(f"data: {type(data).__name__} has {classes} classes, and a classifier needs two.")
            self._build(int(classes))
        elif classes is not None and classes != self.num_classes:
            raise UsageError(f"num_classes is {self.num_classes}, but {type(data).__name__} has {classes} classes.")
        if shape is not None:
            check_shape(self.network, self.backbone.name, shape, type(data).__name__, self.num_classes)
        self.prepare_network()
        if self.channels_last:
            self.network.to(memory_format=torch.channels_last)
        if self.compiles and self.network._compiled_call_impl is None:
            # Training, attack and evaluation, in every domain and at the size of a last batch: more than torch's 8.
            torch.compiler.config.recompile_limit = max(64, torch.compiler.config.recompile_limit)
            self.network.compile()

    def _warn_of(self, text: str | None) -> None:
        if text is not None and text not in self._warned:  # a test that follows a training asks again
            self._warned.add(text)
            say(text, warn=True)

    def _build(self, num_classes: int) -> None:
        self.num_classes = self.hparams["num_classes"] = num_classes
        self.network = self.build_network(num_classes)
        self._built_of = modules_of(self.network)

    def build_network(self, num_classes: int) -> nn.Module:
        """Return the network that is trained. Override it to change what the backbone's recipe gives.

        It is called by ``__init__`` if ``num_classes`` is known there: what an override reads of ``self``, a subclass
        sets before it calls ``super().__init__``.

        Raises:
            UsageError: The backbone cannot be built.
        """
        try:
            return self.backbone.build(num_classes)
        except UsageError as error:
            raise error.under("backbone") from error

    def prepare_network(self) -> None:
        """Change the network once the data are known, before the optimizer, DDP and ``torch.compile`` get it.

        Override it; Lightning asks for it before every stage.
        """

    @property
    def network_changed_by(self) -> str | None:
        """What makes the network another than the backbone's recipe gives; None for the regimes of this package.

        A checkpoint says it, since only the regime itself can build such a network again.
        """
        return network_changed_by(self, self.network, self._built_of)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take out of the recipe where the first weights came from (a Lightning hook)."""
        hyper_parameters = dict(checkpoint[self.CHECKPOINT_HYPER_PARAMS_KEY])
        hyper_parameters["backbone"] = self.backbone.without_weights().to_config()["init_args"]
        checkpoint[self.CHECKPOINT_HYPER_PARAMS_KEY] = hyper_parameters

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint is of this network, before anything is loaded (a Lightning hook).

        Raises:
            UsageError: It is not.
        """
        check_fits(self, checkpoint["state_dict"], argument="ckpt_path")
        trained = checkpoint.get(self.CHECKPOINT_HYPER_PARAMS_KEY, {}).get("backbone")
        if trained is not None:
            recipe = self.backbone.without_weights().to_config()["init_args"]
            check_activation(trained, recipe, "ckpt_path: the network")

    def teardown(self, stage: str) -> None:
        """Let go of the views, which would stay on the device (a Lightning hook)."""
        self.attack_runner.clear()

    # What goes in, and what comes out -----------------------------------------------------------------------------

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, K) of images (N, C, H, W) in [0, 1]."""
        return self.logits(x, self.inference_domain)

    @renamed_argument("through", "domain")
    def logits(self, x: Tensor, domain: str | None) -> Tensor:
        """Return the logits (N, K) of images (N, C, H, W) through a BatchNorm domain, None: the active one.

        Raises:
            UsageError: The network gives something else, or cannot normalise a batch of one image.
        """
        try:
            output = through(self.network, domain)(x)
        except ValueError as error:
            if raised_in(error, "torch.nn.functional"):  # by its batch_norm alone: too few values for statistics
                raise UsageError(no_statistics(len(x))) from error
            raise
        return check_logits(output, len(x), self.num_classes)

    def attacked(
        self,
        attack: Attack,
        x: Tensor,
        y: Tensor,
        *,
        domain: str | None = None,
        generator: torch.Generator | None = None,
        reduced_precision: bool = True,
    ) -> Tensor:
        """Return the adversarial examples (N, C, H, W) of this network, made on a view of it where one can be.

        Args:
            attack: The attack.
            x: Clean images (N, C, H, W) in [0, 1].
            y: True labels (N,).
            domain: The BatchNorm domain to attack through; None is the active one.
            generator: The attack's source of randomness. None is the noise of the training step, and outside of one
                that of the first step of this epoch.
            reduced_precision: Whether ``attack_precision`` counts; False attacks in the network's own precision.
        """
        if generator is None:
            generator = self.noise("train", 0) if self.step_noise is None else self.step_noise
        network = through(self.network, domain)
        return self.attack_runner.run(attack, network, x, y, generator=generator, reduced_precision=reduced_precision)

    def check_batch(self, batch: Any, batch_idx: int) -> tuple[Tensor, Tensor]:
        """Return the batch as images (N, C, H, W) in the network's precision and labels (N,) int64.

        On an accelerator only the first batch is looked at: reading a value stops the queue.

        Raises:
            UsageError: It is not a pair, the images leave [0, 1], the labels leave [0, K), or the shapes do not agree.
        """
        x, y = as_pair(batch)
        return self._checked(x, y, batch_idx), y

    def _checked(self, x: Tensor, y: Tensor | None, batch_idx: int) -> Tensor:
        if batch_idx == 0 or x.device.type == "cpu":
            check_batch(x, y, self.backbone.in_channels, self.hparams["num_classes"])
        x = x.to(self.dtype)  # a data module may make its floats after Lightning has made those of 64-true
        trust(x, *(() if y is None else (y,)))  # the attacks need not look again
        return x

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
