"""A look at a few fixed images after an epoch: does adversarial training overfit?"""

from __future__ import annotations

import random
from difflib import get_close_matches
from typing import Any, Literal, NamedTuple, cast, get_args

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.utilities import CombinedLoader, rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from lightning_adv.analysis.overfitting import Look, catastrophic_overfitting, robust_overfitting, robustly_correct
from lightning_adv.attacks import FGSM, PGD, Attack
from lightning_adv.regimes import Regime
from lightning_adv.regimes.noise import derive_seed, run_seed

Action = Literal["warn", "stop", "restore"]

CHUNK = 64
"""Images that are attacked at once. Processes share the chunks, and each has its own noise: the numbers do not depend
on how many processes there are."""


class EarlyWarning(Callback):
    """Warns of catastrophic and of robust overfitting, and on request stops or goes back.

    It looks at the same ``images`` training and validation images each time, with the same attack noise, and logs

    * ``early_warning/fgsm_accuracy`` and ``early_warning/robust_accuracy``: on the validation images,
    * ``early_warning/train_robust_accuracy``: on the training images, as the data module's loader gives them,
    * ``early_warning/catastrophic_gap``: the first less the second,
    * ``early_warning/robust_gap``: the third less the second.

    See :mod:`~lightning_adv.analysis.overfitting` for what they mean and where they come from.

    It warns when a gap exceeds its limit while robust accuracy is no higher than at any look before, and then not again
    until the gap has closed. It only logs, and never warns, during ``eps_warmup_epochs`` and where the regime does not
    train for robustness (its ``monitor`` is a clean accuracy): there FGSM is the weaker attack by far, without anything
    being overfitted.

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
        action: ``"warn"`` only; ``"stop"`` training too; ``"restore"`` the weights and buffers of the last look that
            warned of nothing, and stop. The optimizer's state stays, and checkpoints hold those weights as well.

    Raises:
        ValueError: An argument is out of its range.

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
    ) -> None:
        for name, number in (("every_n_epochs", every_n_epochs), ("images", images)):
            if not isinstance(number, int) or number < 1:
                raise ValueError(f"early_warning.{name} must be an integer of at least 1, got {number!r}.")
        for name, gap in (("catastrophic_gap", catastrophic_gap), ("overfitting_gap", overfitting_gap)):
            if not 0 <= gap <= 1:
                raise ValueError(f"early_warning.{name} must lie in [0, 1], got {gap}.")
        if action not in get_args(Action):
            near = get_close_matches(str(action), get_args(Action), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"early_warning.action must be one of {', '.join(get_args(Action))}, got {action!r}.{hint}"
            )
        self.every_n_epochs = every_n_epochs
        self.images = images
        self.attack = None if attack is None else Attack.from_config(attack)
        self.fgsm = None if fgsm is None else Attack.from_config(fgsm)
        self.catastrophic_gap = catastrophic_gap
        self.overfitting_gap = overfitting_gap
        self.action = action
        self._best = 0.0
        self._catastrophic = self._robust = False
        self._good: dict[str, Any] | None = None
        self._seed = 0
        self._train = self._val = FixedImages([], 0)

    # When to look -------------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check what the Trainer was given, and take the fixed images (a Lightning hook).

        Raises:
            ValueError: It cannot be looked at, or the action cannot be taken.
        """
        regime = self._checked(trainer, pl_module)
        if trainer.val_dataloaders is None and trainer.enable_validation:
            # Lightning leaves it to the first epoch that validates, which may come after the first look.
            trainer.validating = True
            trainer.fit_loop.epoch_loop.val_loop.setup_data()
            trainer.training = True
        # Processes that nobody seeded have a seed each, and would not share one set of images.
        self._seed = trainer.strategy.broadcast(run_seed() if regime.seed is None else regime.seed)
        self._train = self._take_images(trainer, regime, trainer.train_dataloader, "training")
        self._val = self._take_images(trainer, regime, trainer.val_dataloaders, "validation")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look, log and judge (a Lightning hook)."""
        if (trainer.current_epoch + 1) % self.every_n_epochs:
            return
        regime = cast(Regime, pl_module)
        look = self._look(trainer, regime)
        numbers = {
            "fgsm_accuracy": look.fgsm_accuracy,
            "robust_accuracy": look.robust_accuracy,
            "train_robust_accuracy": look.train_robust_accuracy,
            "catastrophic_gap": look.catastrophic_gap,
            "robust_gap": look.robust_gap,
        }
        # All processes have the same numbers; without sync_dist Lightning would warn that they may not.
        regime.log_dict({f"early_warning/{name}": n for name, n in numbers.items()}, sync_dist=True, batch_size=1)
        if _trains_for_robustness(regime) and trainer.current_epoch >= getattr(regime, "eps_warmup_epochs", 0):
            self._judge(trainer, regime, look)
        self._best = max(self._best, look.robust_accuracy)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let go of the images (a Lightning hook)."""
        self._train = self._val = FixedImages([], 0)

    def state_dict(self) -> dict[str, Any]:
        """Return what the looks so far have found, for the checkpoint; with ``"restore"`` the good weights too."""
        told = {"catastrophic": self._catastrophic, "robust": self._robust}
        return {"best": self._best, "good": self._good, **told}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint's looks."""
        self._best = state_dict["best"]
        self._catastrophic = state_dict["catastrophic"]
        self._robust = state_dict["robust"]
        self._good = state_dict["good"] if self.action == "restore" else None

    # The look -----------------------------------------------------------------------------------------------------

    def _look(self, trainer: Trainer, regime: Regime) -> Look:
        attack, fgsm = self._attacks(regime)
        measured = ((self._val, fgsm), (self._val, attack), (self._train, attack))
        # A look of its own shapes is not worth a graph of a compiled network.
        with trainer.precision_plugin.forward_context(), torch.compiler.set_stance("force_eager"):
            counts = torch.stack([self._count(regime, *measurement) for measurement in measured])
        correct = trainer.strategy.reduce(counts, reduce_op="sum")
        return Look(*(n / fixed.size for n, (fixed, _) in zip(correct.tolist(), measured, strict=True)))

    def _count(self, regime: Regime, fixed: FixedImages, attack: Attack) -> Tensor:
        """Count the images of this process that withstand an attack: int64 ()."""
        correct = torch.zeros((), dtype=torch.int64, device=regime.device)
        for seed, x, y in fixed.chunks:
            noise = torch.Generator(regime.device).manual_seed(seed)
            x, y = x.to(regime.device), y.to(regime.device)
            robust = robustly_correct(regime.network, x, y, attack, domain=regime.inference_domain, generator=noise)
            correct += robust.sum()
        return correct

    def _attacks(self, regime: Regime) -> tuple[Attack, Attack]:
        attack = regime.evaluation_attack if self.attack is None else self.attack
        if self.fgsm is not None:
            return attack, self.fgsm
        if not isinstance(attack, PGD):
            raise ValueError(
                f"early_warning.fgsm must be given: {type(attack).__name__} is no PGD whose eps and norm it could take."
            )
        return attack, FGSM(attack.eps, norm=attack.norm, label=attack.label, batchnorm=attack.batchnorm)

    def _checked(self, trainer: Trainer, pl_module: LightningModule) -> Regime:
        if not isinstance(pl_module, Regime):
            raise ValueError(f"EarlyWarning looks at a Regime, got a {type(pl_module).__name__}.")
        self._attacks(pl_module)
        if self.action != "warn" and not _trains_for_robustness(pl_module):
            raise ValueError(
                f"early_warning.action is {self.action!r}, but {type(pl_module).__name__} is monitored by "
                f"{pl_module.monitor} and does not train for robustness: use 'warn', which logs the numbers."
            )
        averaging = any(isinstance(callback, WeightAveraging) for callback in cast(Any, trainer).callbacks)
        if self.action == "restore" and averaging:
            raise ValueError(
                "early_warning.action is 'restore', but WeightAveraging puts the average over all epochs in the place "
                "of the restored weights: use 'stop' or 'warn'."
            )
        return pl_module

    # The images ---------------------------------------------------------------------------------------------------

    def _take_images(self, trainer: Trainer, regime: Regime, loaders: Any, split: str) -> FixedImages:
        """Take images from the data set of the first loader by index: no loader, sampler or worker moves on."""
        loader = _first_loader(loaders, split)
        dataset = cast(Any, loader.dataset)
        drawn = torch.Generator().manual_seed(derive_seed(self._seed, "early_warning", split))
        index = torch.randperm(len(dataset), generator=drawn)[: self.images]
        seeds = [derive_seed(self._seed, "early_warning", split, k) for k in range(-(-len(index) // CHUNK))]
        share = slice(trainer.global_rank, None, trainer.world_size)
        parts = [part.tolist() for part in torch.split(index, CHUNK)][share]
        reader = DataLoader(dataset, batch_sampler=parts, collate_fn=loader.collate_fn)
        with isolate_rng():  # a loader draws from the global generator, and a data set that augments may too
            for seed in (random.seed, np.random.seed, torch.default_generator.manual_seed):
                seed(self._seed % 2**32)
            batches = [regime.check_batch(_on_device(trainer, regime, batch), 0) for batch in reader]
        chunks = [(seed, x.cpu(), y.cpu()) for seed, (x, y) in zip(seeds[share], batches, strict=True)]
        return FixedImages(chunks, len(index))

    # What follows from it -----------------------------------------------------------------------------------------

    def _judge(self, trainer: Trainer, regime: Regime, look: Look) -> None:
        before = (self._catastrophic, self._robust)
        self._catastrophic = catastrophic_overfitting(
            look, self._best, gap=self.catastrophic_gap, already=self._catastrophic
        )
        self._robust = robust_overfitting(look, self._best, gap=self.overfitting_gap, already=self._robust)
        if not (self._catastrophic or self._robust) and self.action == "restore":
            weights = {name: value.to("cpu", copy=True) for name, value in regime.state_dict().items()}
            self._good = {"epoch": trainer.current_epoch, "weights": weights}
        strong = type(self._attacks(regime)[0]).__name__
        robust = f"{look.robust_accuracy:.1%} of {self._val.size} validation images withstand {strong}"
        told = []
        if self._catastrophic and not before[0]:
            told.append(f"Catastrophic overfitting after epoch {trainer.current_epoch}: {robust}, but ")
            told.append(f"{look.fgsm_accuracy:.1%} withstand FGSM. ")
        if self._robust and not before[1]:
            told.append(f"Robust overfitting after epoch {trainer.current_epoch}: {robust}, but ")
            told.append(f"{look.train_robust_accuracy:.1%} of {self._train.size} training images do. ")
        if told:
            rank_zero_warn("".join([*told, self._act(trainer, regime)]).rstrip())

    def _act(self, trainer: Trainer, regime: Regime) -> str:
        """Do what was asked for, and say so."""
        if self.action == "warn":
            return ""
        trainer.should_stop = True
        if self.action == "stop":
            return "Training stops."
        if self._good is None:
            return "Training stops; the weights stay as they are, since no look before was a good one."
        regime.load_state_dict(self._good["weights"])
        return f"Training stops with the weights of epoch {self._good['epoch']}, the last good look."


def _trains_for_robustness(regime: Regime) -> bool:
    return regime.monitor.endswith("robust_accuracy")


class FixedImages(NamedTuple):
    """The images that are looked at.

    Attributes:
        chunks: This process's share: (seed of the noise, x (n, C, H, W), y (n,)), on the CPU.
        size: Number of images of all processes together.
    """

    chunks: list[tuple[int, Tensor, Tensor]]
    size: int


def _on_device(trainer: Trainer, regime: Regime, batch: Any) -> Any:
    """Do to a batch what the Trainer's loops do, the data module's hooks included."""
    batch = regime._on_before_batch_transfer(trainer.precision_plugin.convert_input(batch))
    return trainer.strategy.batch_to_device(batch)


def _first_loader(loaders: Any, split: str) -> DataLoader[Any]:
    found = [] if loaders is None else CombinedLoader(loaders).flattened
    if not found:
        raise ValueError(f"EarlyWarning needs {split} images, and the Trainer has no {split} loader that gives any.")
    loader = found[0]
    dataset = getattr(loader, "dataset", None)
    indexed = hasattr(dataset, "__len__") and not isinstance(dataset, IterableDataset)
    if not isinstance(loader, DataLoader) or loader.batch_sampler is None or not indexed:
        raise ValueError(
            f"EarlyWarning takes its {split} images by their index: it needs a DataLoader that makes batches of a data "
            f"set with a length, got a {type(loader).__name__} over a {type(dataset).__name__}."
        )
    return loader
