"""What every regime promises, as one check: for regimes of one's own, and for those of this package."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from lightning_adv.attacks import Attack
from lightning_adv.core.errors import UsageError
from lightning_adv.regimes import Regime
from lightning_adv.testing.images import SmallImages
from lightning_adv.testing.training_step import WatchedStep, require
from lightning_adv.testing.untouched import Snapshot

_EPOCHS = 2
_BATCHES = 4
_SEED = 0


def check_regime(regime: Regime, data: LightningDataModule | None = None) -> None:
    """Check that a regime keeps what every regime promises, by a few small trainings on the CPU.

    1. A training step ends in a finite loss, with a gradient to each parameter that is trained.
    2. Frozen means frozen: no gradient, no weight decay, no update of running statistics.
    3. Computing the loss leaves weights, gradients and train flags alone, and moves running statistics by what the loss
       is of only. So do the regime's attacks, which leave the running statistics alone, too.
    4. What is drawn depends on the seed, the epoch and the batch only.
    5. Validation reports the network's clean and robust accuracy, by which the best checkpoint is chosen.
    6. A checkpoint is plain data, ``load_from_checkpoint`` needs nothing else and predicts the same.
    7. A run that is resumed ends in the same bits as one that never stopped.
    8. It trains in mixed precision and with gradients that are accumulated.

    Args:
        regime: A regime with a small network, as it is built: it stays as it is, since copies of it are trained.
        data: What it is trained on, two epochs of up to four batches; None is :class:`SmallImages` of 8×8 pixels.

    Raises:
        AssertionError: A promise is broken; the message says which.
        UsageError: The regime has no network yet, or was trained already.

    Example:
        >>> from lightning_adv.attacks import PGD
        >>> from lightning_adv.nn.backbones import Backbone
        >>> class OnNoise(Regime):
        ...     def loss(self, x, y):
        ...         return self.criterion(self(x + 0.1 * torch.randn_like(x)), y)
        >>> tiny = Backbone("small_cnn", in_channels=1, options={"width": 4})
        >>> check_regime(OnNoise(tiny, num_classes=2, evaluation_attack=PGD(eps=0.1, steps=1)))
    """
    if regime.num_classes is None:
        raise UsageError("regime must have its network: give it num_classes.")
    if regime._trainer is not None:
        raise UsageError("regime must be as it was built, and this one has a Trainer already.")
    images = SmallImages(regime.backbone.in_channels, regime.num_classes) if data is None else data
    with TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        whole = _Run(regime, images, Path(folder), whole_epochs=data is not None)
        check_attacks(whole.regime, whole.step.batch)
        _check_seeds(regime, whole)
        _check_checkpoint(whole)
        _check_resume(regime, whole)
        with _kept("A regime trains in mixed precision and with accumulated gradients"):
            options: dict[str, Any] = {"precision": "bf16-mixed", "accumulate_grad_batches": 2}
            _fit(copy.deepcopy(regime), images, whole.folder, [WatchedStep()], **options)


class _Run:
    """A copy of a regime that was trained to the end, with what was seen meanwhile."""

    def __init__(self, regime: Regime, data: LightningDataModule, folder: Path, *, whole_epochs: bool) -> None:
        self.data = data
        self.folder = folder
        self.middle, self.end = folder / "middle.ckpt", folder / "end.ckpt"
        self.regime = copy.deepcopy(regime)
        self.step = WatchedStep()
        torch.manual_seed(_SEED)
        callbacks = [self.step, _Validation(), _Save(self.middle, whole_epochs=whole_epochs)]
        self.trainer = _fit(self.regime, data, folder, callbacks)
        self.trainer.save_checkpoint(self.end)
        self.metrics = dict(self.trainer.callback_metrics)


def _fit(
    regime: Regime, data: LightningDataModule, folder: Path, callbacks: list[Callback], path: Path | None = None,
    **options: Any,
) -> Trainer:  # fmt: skip
    """Train a regime, in silence."""
    trainer = Trainer(
        default_root_dir=folder, accelerator="cpu", devices=1, logger=False, num_sanity_val_steps=0,
        enable_progress_bar=False, enable_model_summary=False, callbacks=callbacks,
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
        limit_train_batches=_BATCHES, limit_val_batches=2, **{"max_epochs": _EPOCHS} | options,
    )  # fmt: skip
    trainer.fit(regime, copy.deepcopy(data), ckpt_path=path, weights_only=True)
    return trainer


class _Save(Checkpoint):
    """Saves once on the way: in the middle of the second epoch, or after the first where a loader cannot be resumed."""

    def __init__(self, path: Path, *, whole_epochs: bool) -> None:
        self.path, self.whole_epochs = path, whole_epochs

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if not self.whole_epochs and trainer.global_step == trainer.num_training_batches + 2:
            trainer.save_checkpoint(self.path)

    def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
        if self.whole_epochs and trainer.current_epoch == 0:
            trainer.save_checkpoint(self.path)


class _Validation(Callback):
    """Counts what validation reports."""

    def on_validation_epoch_start(self, *_: Any) -> None:
        self.images, self.clean, self.robust = 0, 0, 0

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        x, y = pl_module.check_batch(batch, batch_idx)
        noise = pl_module.noise("val", batch_idx)
        x_adv = pl_module.attacked(
            pl_module.evaluation_attack, x, y, domain=pl_module.inference_domain, generator=noise
        )
        self.images += len(x)
        self.clean += int((pl_module(x).argmax(1) == y).sum())
        self.robust += int((pl_module(x_adv).argmax(1) == y).sum())

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        metrics = trainer.callback_metrics
        for kind in ("clean", "robust"):
            name, counted = f"val/{kind}_accuracy", getattr(self, kind) / self.images
            promise = f"Validation reports {name}"
            require(name in metrics, promise, "it is not there")
            reported = float(metrics[name])
            require(abs(reported - counted) < 1e-6, promise, f"it says {reported:.4f}, and {counted:.4f} was counted")
        monitored = f"there is no {pl_module.monitor}"
        require(pl_module.monitor in metrics, "The best checkpoint is chosen by what validation reports", monitored)


def check_attacks(regime: Regime, batch: tuple[Tensor, Tensor]) -> None:
    """Check that the attacks of a regime leave its network as it is.

    Args:
        regime: A regime, trained or not.
        batch: Images (N, C, H, W) and labels (N,).

    Raises:
        AssertionError: One does not.
    """
    regime.train()
    for name, attack in vars(regime).items():
        for domain in (regime.domains or (None,)) if isinstance(attack, Attack) else ():
            before = Snapshot(regime.network)
            regime.attacked(attack, *batch, domain=domain)
            left = before.difference()
            require(left is None, f"{name} leaves the network untouched", f"afterwards {left}")


def _check_seeds(regime: Regime, whole: _Run) -> None:
    """Train again, from another state of every global source of random numbers, with the same seed."""
    again = copy.deepcopy(regime)
    torch.manual_seed(_SEED)
    torch.rand(7)
    _fit(again, whole.data, whole.folder, [_Draws()])
    _require_same(whole, again, "What is drawn depends on the seed, the epoch and the batch only", "a second run")


class _Draws(Callback):
    """Draws a number before each batch."""

    def on_train_batch_start(self, *_: Any) -> None:
        torch.rand(1)


def _check_checkpoint(whole: _Run) -> None:
    with _kept("A checkpoint is plain data, and load_from_checkpoint needs nothing else"):
        torch.load(whole.end, weights_only=True)
        loaded = type(whole.regime).load_from_checkpoint(whole.end)
    x = whole.step.batch[0]
    with torch.no_grad():
        same = torch.equal(loaded.eval()(x), whole.regime.eval()(x))
    require(same, "load_from_checkpoint predicts the same", "the logits of a batch differ")


def _check_resume(regime: Regime, whole: _Run) -> None:
    """Go on from the checkpoint with a regime that is built of it."""
    resumed = type(regime).load_from_checkpoint(whole.middle)
    # A lambda, which no checkpoint holds.
    resumed.optimizer, resumed.scheduler = regime.optimizer, regime.scheduler
    with torch.no_grad():
        for parameter in resumed.parameters():
            parameter.add_(1)  # what is not loaded shows
    torch.manual_seed(_SEED + 1)
    promise = "A resumed run ends in the same bits"
    with _kept(promise):
        trainer = _fit(resumed, whole.data, whole.folder, [_Draws()], whole.middle)
    _require_same(whole, resumed, promise, "the resumed run")
    for name, value in whole.metrics.items():
        told = f"{name} is {trainer.callback_metrics.get(name)} and was {value}"
        require(torch.equal(torch.as_tensor(trainer.callback_metrics.get(name, torch.nan)), value), promise, told)


@contextmanager
def _kept(promise: str) -> Iterator[None]:
    """Say which promise it is that an exception breaks."""
    try:
        yield
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(f"{promise}: {type(error).__name__}: {error}") from error


def _require_same(whole: _Run, other: Regime, promise: str, run: str) -> None:
    state = other.state_dict()
    for name, value in whole.regime.state_dict().items():
        require(torch.equal(value, state[name]), promise, f"{name} differs in {run}")
