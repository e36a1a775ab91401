"""Adversarial training (Madry et al. 2018): minimise the loss at the worst point of each ball."""

from __future__ import annotations

import copy

from torch import Tensor

from lightning_adv.attacks import PGD, Attack
from lightning_adv.core.errors import UsageError
from lightning_adv.nn.backbones import Backbone
from lightning_adv.regimes.base import Regime
from lightning_adv.regimes.keywords import RegimeKeywords, Unpack
from lightning_adv.regimes.objectives import CrossEntropy, ImagesToLogits, Objective
from lightning_adv.regimes.weight_perturbation import WeightPerturbation


class MadryTraining(Regime):
    """min over theta of E[max over delta of loss(x + delta, y; theta)] (Madry et al. 2018, equation 2.1).

    What the field built on it are settings: ``objective`` is TRADES or MART, ``weight_perturbation`` is AWP, a single
    step from a random start (``PGD(steps=1, step_size=1.25 eps)``) is fast adversarial training (Wong et al. 2020).

    Args:
        backbone: What network to build.
        attack: The inner maximisation. The default is that of "Dissecting Local Properties of Adversarial Examples",
            section 3: PGD-10 at 8/255 with steps of 2/255. Its ``batchnorm`` says how BatchNorm works meanwhile.
        objective: The outer minimisation: :class:`CrossEntropy`, :class:`TRADES` or :class:`MART`.
        weight_perturbation: :class:`WeightPerturbation` (AWP) or None.
        eps_warmup_epochs: Number of epochs over which ``eps`` and ``step_size`` grow to their full length, in equal
            parts: the first of 5 epochs attacks at a fifth of ``eps``, the fifth in full. 0 is no warm-up.
        clean_after_epochs: Number of epochs after which training goes on with clean images alone, by the plain
            cross-entropy: adversarial pretraining and clean fine-tuning in one schedule (Xie 2020, figure 7.2, whose
            first 175 epochs are adversarial). Neither an attack nor the objective nor the weight perturbation is
            computed then, and the best checkpoint is the one of these epochs with the best clean accuracy. None never
            switches, and neither does a run of no more epochs, whose best checkpoint is chosen by robust accuracy.
        **kwargs: The other arguments of :class:`~lightning_adv.regimes.base.Regime`.

    Raises:
        UsageError: An argument is out of its range.

    Example:
        >>> import torch
        >>> regime = MadryTraining(Backbone("small_cnn", in_channels=1), num_classes=10, attack=PGD(steps=2))
        >>> regime(torch.rand(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        attack: Attack = PGD(eps="8/255", steps=10),  # noqa: B008 (a recipe)
        objective: Objective = CrossEntropy(),  # noqa: B008 (a recipe)
        weight_perturbation: WeightPerturbation | None = None,
        eps_warmup_epochs: int = 0,
        clean_after_epochs: int | None = None,
        **kwargs: Unpack[RegimeKeywords],
    ) -> None:
        if eps_warmup_epochs < 0:
            raise UsageError(f"eps_warmup_epochs must be at least 0, got {eps_warmup_epochs}.")
        super().__init__(backbone, **kwargs)
        self.attack = Attack.from_config(attack)
        if eps_warmup_epochs:
            copy.copy(self.attack).scaled(1.0)  # one that cannot be scaled says so now
        self.objective = Objective.from_config(objective)
        if self.label_smoothing and not self.objective.smooths_labels:
            raise UsageError(
                f"label_smoothing is {self.label_smoothing}, but {type(self.objective).__name__} has no smoothed form: "
                "leave it at 0."
            )
        self.weight_perturbation = (
            None if weight_perturbation is None else WeightPerturbation.from_config(weight_perturbation)
        )
        self.eps_warmup_epochs = eps_warmup_epochs
        self.clean_after_epochs = clean_after_epochs
        self._check_clean_after()

    def _check_clean_after(self) -> None:
        clean_after = self.clean_after_epochs
        if clean_after is None:
            return
        if clean_after < 1:
            raise UsageError(
                f"clean_after_epochs must be at least 1, or null for never, got {clean_after}: StandardTraining has "
                "clean images from the start."
            )
        awp = self.weight_perturbation
        warmups = {"eps_warmup_epochs": self.eps_warmup_epochs}
        if awp is not None:
            warmups["weight_perturbation.warmup_epochs"] = awp.warmup_epochs + 1
        for name, epochs in warmups.items():
            if epochs > clean_after:
                raise UsageError(
                    f"clean_after_epochs is {clean_after}, before {name} has ended: there would be no epoch of what it "
                    "warms up to."
                )

    @property
    def monitor(self) -> str:
        """The metric of what training ends with: robust accuracy, or clean accuracy where the last epochs are clean."""
        return super().monitor if self._first_clean_epoch is None else "val/clean_accuracy"

    @property
    def chosen_from_epoch(self) -> int:
        """The first epoch whose network may be the best checkpoint: the first clean one, if training gets there."""
        return self._first_clean_epoch or 0

    @property
    def _first_clean_epoch(self) -> int | None:
        """The first clean epoch; None where there is none, as in a Trainer of no more epochs than adversarial ones."""
        clean_after = self.clean_after_epochs
        epochs = None if self._trainer is None else self.trainer.max_epochs
        return None if clean_after is None or (epochs is not None and 0 <= epochs <= clean_after) else clean_after

    def prepare_network(self) -> None:
        """Refuse what the weight perturbation cannot do."""
        if self.weight_perturbation is not None:
            self.weight_perturbation.check_network(self.network)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss: the inner maximisation, then the objective of the outer minimisation."""
        if self.clean_after_epochs is not None and self.current_epoch >= self.clean_after_epochs:
            return self.clean_loss(x, y)
        x_adv = self.inner_maximisation(x, y)
        return self.outer_minimisation(x, x_adv, y)

    def inner_maximisation(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the adversarial examples (N, C, H, W), attacked at this epoch's ``eps``."""
        attack = self.attack
        if self.current_epoch < self.eps_warmup_epochs:
            attack = attack.scaled((self.current_epoch + 1) / self.eps_warmup_epochs)
        return self.attacked(attack, x, y)

    def outer_minimisation(self, x: Tensor, x_adv: Tensor, y: Tensor) -> Tensor:
        """Return the objective, at the worst weights nearby if asked."""

        def loss(forward: ImagesToLogits) -> Tensor:
            return self.objective(forward, x, x_adv, y, self.criterion)

        awp = self.weight_perturbation
        if awp is None or self.current_epoch < awp.warmup_epochs:
            return loss(self)
        return loss(awp.perturb(self.network, loss, self._average))

    def clean_loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss of the clean images alone."""
        return self.criterion(self(x), y)

    def _average(self, tensor: Tensor) -> Tensor:
        """Average over the processes."""
        averaged: Tensor = self.trainer.strategy.reduce(tensor, reduce_op="mean")
        return averaged
