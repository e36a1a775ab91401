"""A look at a few fixed images after an epoch: does adversarial training overfit?"""

from __future__ import annotations

import time
from typing import Any, Literal, cast, get_args

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_adv.analysis.overfitting import (
    Accuracies,
    catastrophic_overfitting,
    robust_overfitting,
    robustly_correct,
)
from lightning_adv.analysis.signals import loss_along_line
from lightning_adv.attacks import FGSM, PGD, Attack
from lightning_adv.callbacks.any_module import ModuleParts, Parts
from lightning_adv.callbacks.fixed_images import NO_IMAGES, FixedImages, take_images
from lightning_adv.callbacks.observed import ObservedModule
from lightning_adv.callbacks.undisturbed import undisturbed
from lightning_adv.core.errors import UsageError
from lightning_adv.core.keywords import Unpack
from lightning_adv.core.seeds import run_seed
from lightning_adv.core.suggestions import did_you_mean
from lightning_adv.nn.batchnorm import through

Action = Literal["warn", "stop", "restore"]

OBSERVER = "early_warning"


class EarlyWarning(Callback):
    """Warns of catastrophic and of robust overfitting, and on request stops or goes back.

    It looks at the same ``images`` training and validation images each time, with the same attack noise, and logs

    * ``early_warning/fgsm_accuracy`` and ``early_warning/robust_accuracy``: on the validation images,
    * ``early_warning/train_robust_accuracy``: on the training images, as the data module's loader gives them,
    * ``early_warning/catastrophic_gap``: the first less the second,
    * ``early_warning/robust_gap``: the third less the second.

    * with ``loss_peaks``, ``early_warning/loss_peaks``: the share of validation images for which the loss is largest on
      the way to the example of ``fgsm``, and not at one of its ends.

    See :mod:`~lightning_adv.analysis.overfitting` for what they mean and where they come from.

    It warns when a gap exceeds its limit while robust accuracy is no higher than at any look before, and then not again
    until the gap has closed. It only logs, and never warns, during ``eps_warmup_epochs`` and where the regime does not
    train for robustness (its ``monitor`` is a clean accuracy): there FGSM is the weaker attack by far, without anything
    being overfitted.

    A gap says that it has happened. ``loss_peaks`` warns while robust accuracy still stands, as a rule: it is judged at
    each look by itself, during ``eps_warmup_epochs`` too. It is for training with a single-step attack: with several
    steps training can be sound although the loss peaks so.

    The network is measured as it is trained: in the Trainer's precision, through the regime's ``inference_domain``,
    with the weights of the last step and not their average where there is one (Lightning's ``WeightAveraging``).

    Args:
        every_n_epochs: Look at the end of every this many training epochs, after validation.
        images: Number of training images, and of validation images; fewer where there are not so many.
        attack: The strong attack; None takes the regime's ``evaluation_attack``.
        fgsm: The single-step attack; None takes FGSM with the ``eps`` and ``norm`` of ``attack``.
        catastrophic_gap: Limit in [0, 1]. Where nothing is overfitted the gap is 0.10 (Madry et al. 2018, table 2, FGSM
            and PGD-20 on CIFAR-10). Wong et al.'s code stops when robust accuracy falls by 0.2 in an epoch.
        overfitting_gap: Limit in [0, 1]. With 256 images a gap has a standard error of up to 0.044: 0.1 may be chance.
        loss_peaks: Limit in [0, 1] of the share of images whose loss peaks on the way to their single-step example, as
            0.05; None does not look.
        action: ``"warn"`` only; ``"stop"`` training too; ``"restore"`` the weights and buffers of the last look that
            warned of nothing, and stop. The optimizer's state stays, and checkpoints hold those weights as well.
        **parts: Where a LightningModule that is no regime has its network and images: ``network``, ``batch``, ``mean``,
            ``std`` and ``evaluation_attack``, as of :class:`~lightning_adv.callbacks.Observer`.

    Attributes:
        seconds: Wall time that the looks took so far, over resumed runs too.

    Raises:
        UsageError: An argument is out of its range.

    Example:
        >>> EarlyWarning(images=128, action="stop").state_dict()["best"]
        0.0
    """

    def __init__(
        self,
        every_n_epochs: int = 1,
        images: int = 256,
        attack: Attack | None = None,
        fgsm: Attack | None = None,
        catastrophic_gap: float = 0.2,
        overfitting_gap: float = 0.2,
        action: Action = "warn",
        loss_peaks: float | None = None,
        **parts: Unpack[Parts],
    ) -> None:
        for name, number in (("every_n_epochs", every_n_epochs), ("images", images)):
            if not isinstance(number, int) or number < 1:
                raise UsageError(f"early_warning.{name} must be an integer of at least 1, got {number!r}.")
        limits = {"catastrophic_gap": catastrophic_gap, "overfitting_gap": overfitting_gap, "loss_peaks": loss_peaks}
        for name, limit in limits.items():
            if limit is not None and not 0 <= limit <= 1:
                raise UsageError(f"early_warning.{name} must lie in [0, 1], got {limit}.")
        if action not in get_args(Action):
            hint = did_you_mean(str(action), get_args(Action))
            raise UsageError(
                f"early_warning.action must be one of {', '.join(get_args(Action))}, got {action!r}.{hint}"
            )
        self.every_n_epochs = every_n_epochs
        self.images = images
        self.attack = None if attack is None else Attack.from_config(attack)
        self.fgsm = None if fgsm is None else Attack.from_config(fgsm)
        self.catastrophic_gap = catastrophic_gap
        self.overfitting_gap = overfitting_gap
        self.loss_peaks = loss_peaks
        self.action = action
        self._parts = ModuleParts(OBSERVER, **parts)
        self._observed: ObservedModule | None = None
        self._seed: int | None = None
        self._resumed = False
        self.seconds = 0.0
        self._best = 0.0
        self._catastrophic = self._robust = self._peaking = False
        self._good: dict[str, Any] | None = None
        self._train = self._val = NO_IMAGES

    # When to look -------------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check what the Trainer was given, and take the fixed images (a Lightning hook).

        Raises:
            UsageError: It cannot be looked at, or the action cannot be taken.
        """
        module = self._checked(trainer, pl_module)
        self._train, self._val = (
            take_images(trainer, module, observer=OBSERVER, split=split, default=self.images)
            for split in ("training", "validation")
        )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look, log and judge (a Lightning hook)."""
        if (trainer.current_epoch + 1) % self.every_n_epochs:
            return
        start = time.perf_counter()
        module = cast(ObservedModule, self._observed)
        look = self._look(trainer, module)
        peaks = None if self.loss_peaks is None else self._share_of_peaks(trainer, module)
        self.seconds += time.perf_counter() - start
        numbers = {
            "fgsm_accuracy": look.fgsm_accuracy,
            "robust_accuracy": look.robust_accuracy,
            "train_robust_accuracy": look.train_robust_accuracy,
            "catastrophic_gap": look.catastrophic_gap,
            "robust_gap": look.robust_gap,
            **({} if peaks is None else {"loss_peaks": peaks}),
        }
        # All processes have the same numbers; without sync_dist Lightning would warn that they may not.
        pl_module.log_dict({f"early_warning/{name}": n for name, n in numbers.items()}, sync_dist=True, batch_size=1)
        warm = trainer.current_epoch >= getattr(module, "eps_warmup_epochs", 0)
        if _trains_for_robustness(module) and (warm or peaks is not None):
            self._judge(trainer, pl_module, look if warm else None, peaks)
        self._best = max(self._best, look.robust_accuracy)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let go of the images (a Lightning hook)."""
        self._train = self._val = NO_IMAGES
        self._observed = None

    def state_dict(self) -> dict[str, Any]:
        """Return what the looks so far have found, for the checkpoint; with ``"restore"`` the good weights too."""
        told = {"catastrophic": self._catastrophic, "robust": self._robust, "seconds": self.seconds}
        if self.loss_peaks is not None:
            told["peaking"] = self._peaking
        return {"best": self._best, "good": self._good, "seed": self._seed, **told}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint's looks."""
        self._best = state_dict["best"]
        self._seed = state_dict.get("seed")  # earlier versions kept none
        self._resumed = True
        self._catastrophic = state_dict["catastrophic"]
        self._robust = state_dict["robust"]
        self._peaking = state_dict.get("peaking", False)  # where it did not look, there is none
        self.seconds = state_dict["seconds"]
        self._good = state_dict["good"] if self.action == "restore" else None

    # The look -----------------------------------------------------------------------------------------------------

    def _look(self, trainer: Trainer, module: ObservedModule) -> Accuracies:
        attack, fgsm = self._attacks(module)
        measured = ((self._val, fgsm), (self._val, attack), (self._train, attack))
        with undisturbed(trainer, module.network):
            counts = torch.stack([self._count(module, *measurement) for measurement in measured])
        correct = trainer.strategy.reduce(counts, reduce_op="sum")
        return Accuracies(*(n / fixed.size for n, (fixed, _) in zip(correct.tolist(), measured, strict=True)))

    def _count(self, module: ObservedModule, fixed: FixedImages, attack: Attack) -> Tensor:
        """Count the images of this process that withstand an attack: int64 ()."""
        correct = torch.zeros((), dtype=torch.int64, device=module.device)
        network = through(module.network, module.inference_domain)
        for batch in fixed.batches:
            x, y, noise = batch.to(module.device)
            robust = robustly_correct(network, x, y, attack, generator=noise)
            correct += robust.sum()
        return correct

    def _share_of_peaks(self, trainer: Trainer, module: ObservedModule) -> float:
        """Return for which share of the validation images the loss peaks on the way to the single-step example."""
        _, fgsm = self._attacks(module)
        network = through(module.network, module.inference_domain)
        peaks = torch.zeros((), dtype=torch.int64, device=module.device)
        with undisturbed(trainer, module.network):
            for batch in self._val.batches:
                x, y, noise = batch.to(module.device)
                peaks += loss_along_line(network, x, fgsm(network, x, y, generator=noise), y).peaks_inside.sum()
        return float(trainer.strategy.reduce(peaks, reduce_op="sum")) / self._val.size

    def _attacks(self, module: ObservedModule) -> tuple[Attack, Attack]:
        attack = module.evaluation_attack if self.attack is None else self.attack
        if self.fgsm is not None:
            return attack, self.fgsm
        if not isinstance(attack, PGD):
            raise UsageError(
                f"early_warning.fgsm must be given: {type(attack).__name__} is not a PGD, of which it could take eps "
                "and norm."
            )
        return attack, FGSM(attack.eps, norm=attack.norm, label=attack.label, batchnorm=attack.batchnorm)

    def _checked(self, trainer: Trainer, pl_module: LightningModule) -> ObservedModule:
        if not self._resumed or self._seed is None:  # processes that nobody seeded have a seed each
            self._seed = trainer.strategy.broadcast(run_seed())
        self._resumed = False
        needs = ["network", "inference_domain", *(() if self.attack is not None else ("evaluation_attack",))]
        module = self._observed = self._parts.of(pl_module, type(self).__name__, needs, self._seed)
        self._attacks(module)
        if self.action != "warn" and not _trains_for_robustness(module):
            raise UsageError(
                f"early_warning.action is {self.action!r}, but {type(pl_module).__name__} is monitored by "
                f"{_monitor(module)} and does not train for robustness: use 'warn', which logs the numbers."
            )
        averaging = any(isinstance(callback, WeightAveraging) for callback in cast(Any, trainer).callbacks)
        if self.action == "restore" and averaging:
            raise UsageError(
                "early_warning.action is 'restore', but WeightAveraging puts the average over all epochs in the place "
                "of the restored weights: use 'stop' or 'warn'."
            )
        return module

    # What follows from it -----------------------------------------------------------------------------------------

    def _judge(
        self, trainer: Trainer, pl_module: LightningModule, look: Accuracies | None, peaks: float | None
    ) -> None:
        told = [] if look is None else self._judge_accuracies(trainer, look)
        before = self._peaking
        self._peaking = peaks is not None and peaks > cast(float, self.loss_peaks)
        if self._peaking and not before:
            told.append(f"Catastrophic overfitting may follow epoch {trainer.current_epoch}: for {peaks:.1%} of ")
            told.append(f"{self._val.size} validation images the loss peaks on the way to the FGSM example. ")
        if not (self._catastrophic or self._robust or self._peaking) and self.action == "restore":
            weights = {name: value.to("cpu", copy=True) for name, value in pl_module.state_dict().items()}
            self._good = {"epoch": trainer.current_epoch, "weights": weights}
        if told:
            rank_zero_warn("".join([*told, self._act(trainer, pl_module)]).rstrip())

    def _judge_accuracies(self, trainer: Trainer, look: Accuracies) -> list[str]:
        """Tell which overfitting begins."""
        before = (self._catastrophic, self._robust)
        self._catastrophic = catastrophic_overfitting(
            look, self._best, gap=self.catastrophic_gap, already=self._catastrophic
        )
        self._robust = robust_overfitting(look, self._best, gap=self.overfitting_gap, already=self._robust)
        strong = type(self._attacks(cast(ObservedModule, self._observed))[0]).__name__
        robust = f"{look.robust_accuracy:.1%} of {self._val.size} validation images withstand {strong}"
        told = []
        if self._catastrophic and not before[0]:
            told.append(f"Catastrophic overfitting after epoch {trainer.current_epoch}: {robust}, but ")
            told.append(f"{look.fgsm_accuracy:.1%} withstand FGSM. ")
        if self._robust and not before[1]:
            told.append(f"Robust overfitting after epoch {trainer.current_epoch}: {robust}, but ")
            told.append(f"{look.train_robust_accuracy:.1%} of {self._train.size} training images do. ")
        return told

    def _act(self, trainer: Trainer, pl_module: LightningModule) -> str:
        """Do what was asked for, and say so."""
        if self.action == "warn":
            return ""
        trainer.should_stop = True
        if self.action == "stop":
            return "Training stops."
        if self._good is None:
            return "Training stops; the weights stay as they are, since no look before was a good one."
        pl_module.load_state_dict(self._good["weights"])
        return f"Training stops with the weights of epoch {self._good['epoch']}, the last good look."


def _trains_for_robustness(module: ObservedModule) -> bool:
    return _monitor(module).endswith("robust_accuracy")


def _monitor(module: ObservedModule) -> str:
    return str(getattr(module, "monitor", "val/robust_accuracy"))
