"""What every observer promises, as one check: for observers of one's own, and for those of this package."""

from __future__ import annotations

import copy
import math
import random
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor

from lightning_adv.attacks import PGD
from lightning_adv.callbacks import Observer
from lightning_adv.core.table import Row, read_table
from lightning_adv.nn.backbones import Backbone
from lightning_adv.regimes import MadryTraining
from lightning_adv.testing.images import SmallImages
from lightning_adv.testing.training_step import require

_EPOCHS = 2
_MIDDLE = "middle.ckpt"
_TABLE = "The table is tidy"


def check_observer(
    observer: Callback,
    module: LightningModule | None = None,
    data: LightningDataModule | None = None,
    **options: Any,
) -> None:
    """Check that an observer keeps what every observer promises, by a few small trainings on the CPU.

    1. Training is the same to the last bit with and without it: weights, BatchNorm buffers, the state of the optimizer,
       every random state, train flags, gradients' flags, hooks, and what others log.
    2. It looks at least once in two epochs. Its table has ``epoch, step, name, domain, statistic, value`` with finite
       values, each number once a look; what it logs is finite, and is called ``<analysis>/...``.
    3. A run that is resumed after its first epoch has the table of one that never stopped; what a checkpoint holds of
       the observer is plain data.
    4. It works without a logger, and in a dry run (``fast_dev_run``), which writes nothing.

    A callback that is not an :class:`~lightning_adv.callbacks.Observer` has no table: of it the other promises are
    checked.

    Args:
        observer: The observer, as it is built: it stays as it is, since copies of it are used.
        module: What is trained, as it is built; None is adversarial training of a small network with BatchNorm. Any
            LightningModule will do whose training can be resumed to the last bit: without dropout, as a rule.
        data: What it is trained on; None is :class:`~lightning_adv.testing.SmallImages` of 8×8 pixels.
        **options: Arguments of the Trainer, such as ``precision``; ``callbacks`` are there in every training.

    Raises:
        AssertionError: A promise is broken; the message says which.

    Example:
        >>> from lightning_adv.callbacks import WeightSmoothness
        >>> check_observer(WeightSmoothness(every_n_steps=3))
    """
    runs = _Runs(module, data, options)
    with TemporaryDirectory() as folder:
        without, observed = runs.train(Path(folder, "without"), []), runs.train(Path(folder, "with"), [observer])
        _check_same(without, observed, type(observer).__name__)
        if isinstance(observer, Observer):
            _check_table(observed, observer)
            _check_resume(runs, observed, Path(folder, "resumed"), observer)
        with _kept("It works without a logger"):
            short: dict[str, Any] = {"limit_train_batches": 2, "limit_val_batches": 1}
            runs.train(Path(folder, "no logger"), [observer], logger=False, **short)
        dry = Path(folder, "dry")
        with _kept("It works in a dry run"):
            runs.train(dry, [observer], fast_dev_run=True)
        written = [str(path.relative_to(dry)) for path in dry.rglob("*") if path.is_file()]
        require(not written, "A dry run writes nothing", f"there is {', '.join(written)}")


class _End:
    """What a training ended in."""

    def __init__(self, trainer: Trainer, draws: _RandomStates, folder: Path) -> None:
        module = trainer.lightning_module
        self.folder = folder
        self.weights = {name: value.detach().clone() for name, value in module.named_parameters()}
        self.buffers = {name: value.clone() for name, value in module.named_buffers()}
        self.optimizers = [copy.deepcopy(optimizer.state_dict()) for optimizer in trainer.optimizers]
        self.random_states = [*draws.before_batches, _random_state()]
        self.flags = {name: each.training for name, each in module.named_modules()}
        self.trainable = {name: value.requires_grad for name, value in module.named_parameters()}
        self.hooks = {
            name: len(each._forward_hooks) + len(each._forward_pre_hooks) + len(each._backward_hooks)
            for name, each in module.named_modules()
        }
        self.metrics = {name: value.clone() for name, value in trainer.callback_metrics.items()}


class _Runs:
    """Trainings that begin alike."""

    def __init__(
        self, module: LightningModule | None, data: LightningDataModule | None, options: dict[str, Any]
    ) -> None:
        self._module = _small_training() if module is None else module
        self._data = SmallImages(1, 2) if data is None else data
        self._options = options

    def train(self, folder: Path, callbacks: Sequence[Callback], path: Path | None = None, **options: Any) -> _End:
        """Train a copy of the module, with copies of the callbacks."""
        folder.mkdir(parents=True, exist_ok=True)
        draws = _RandomStates()
        settings: dict[str, Any] = {
            "logger": CSVLogger(folder, name="", version=""), "max_epochs": _EPOCHS, "log_every_n_steps": 1,
            "num_sanity_val_steps": 0,
        }  # fmt: skip
        others = [*self._options.get("callbacks", ()), *callbacks]
        trainer = Trainer(
            default_root_dir=folder, accelerator="cpu", devices=1, enable_progress_bar=False,
            enable_model_summary=False, enable_checkpointing=True,
            **settings | self._options | options
            | {"callbacks": [draws, *map(copy.deepcopy, others), _AfterTheFirstEpoch(folder / _MIDDLE)]},
        )  # fmt: skip
        for seed in (torch.manual_seed, np.random.seed, random.seed):
            seed(0)
        trainer.fit(copy.deepcopy(self._module), copy.deepcopy(self._data), ckpt_path=path, weights_only=True)
        return _End(trainer, draws, folder)


class _AfterTheFirstEpoch(Checkpoint):
    """Saves once, after the callbacks that are no checkpoints."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 0 and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            trainer.save_checkpoint(self.path)


def _small_training() -> LightningModule:
    attack = PGD(eps=0.1, steps=2, step_size=0.05)
    backbone = Backbone("small_cnn", in_channels=1, mean=[0.5], std=[0.5], options={"width": 4})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MadryTraining(backbone, num_classes=2, attack=attack, evaluation_attack=attack)


class _RandomStates(Callback):
    """Takes down the random states before each batch, before a module seeds them anew."""

    def __init__(self) -> None:
        self.before_batches: list[tuple[Any, ...]] = []

    def on_train_batch_start(self, *_: Any) -> None:
        self.before_batches.append(_random_state())


def _random_state() -> tuple[Any, ...]:
    name, keys, *position = np.random.get_state()
    return (
        torch.get_rng_state(),
        (name, torch.as_tensor(np.asarray(keys).astype(np.int64)), *position),
        random.getstate(),
    )


# The promises ---------------------------------------------------------------------------------------------------------


def _check_same(without: _End, observed: _End, observer: str) -> None:
    differences = list(_differences(without, observed, observer))
    require(not differences, "Training is the same with and without it", "; ".join(differences))


def _differences(without: _End, observed: _End, observer: str) -> Iterator[str]:
    """Yield the first difference of each kind."""
    for part, told in (
        ("flags", "module {!r} is in another mode (train or eval)"),
        ("trainable", "requires_grad of {} is another"),
        ("hooks", "module {!r} keeps a hook"),
        ("weights", "the weights {} differ"),
        ("buffers", "the buffer {} differs"),
    ):
        before, after = getattr(without, part), getattr(observed, part)
        others = [name for name, value in before.items() if not _equal(value, after.get(name))]
        others += [name for name in after if name not in before]
        if others:
            yield told.format(others[0])
    if not _equal(without.optimizers, observed.optimizers):
        yield "the state of the optimizer differs"
    for batch, states in enumerate(zip(without.random_states, observed.random_states, strict=True)):
        drawn = [
            source for source, *both in zip(("torch", "NumPy", "Python"), *states, strict=True) if not _equal(*both)
        ]
        if drawn:
            when = "at the end" if batch == len(without.random_states) - 1 else f"before batch {batch}"
            yield f"{observer} drew from the random state of {', '.join(drawn)}, which differs {when}"
            break
    logged = [name for name, value in without.metrics.items() if not _equal(value, observed.metrics.get(name))]
    if logged:
        yield f"what is logged as {logged[0]} differs"


def _check_table(observed: _End, observer: Observer) -> None:
    path = observed.folder / "analyses" / f"{observer.analysis}.csv"
    require(path.is_file(), "It looks at least once in two epochs", "there is no table: let it look more often")
    rows = read_table(path)
    require(len(rows) > 0, _TABLE, "it has no rows")
    for key, count in Counter(row[:-1] for row in rows).items():
        require(count == 1, _TABLE, f"{_told(key)} is there {count} times")
    for row in rows:
        require(bool(row.statistic), _TABLE, f"a statistic of {row.name!r} in step {row.step} has no name")
        require(math.isfinite(row.value), "Its values are finite", f"{_told(row)} is {row.value}")
    for name, value in observed.metrics.items():
        if name.startswith(f"{observer.analysis}/"):
            require(bool(torch.isfinite(value)), "What it logs is finite", f"{name} is {value}")


def _check_resume(runs: _Runs, whole: _End, folder: Path, observer: Observer) -> None:
    promise = "A resumed run has the table of one that never stopped"
    with _kept("What a checkpoint holds of it is plain data"):
        torch.load(whole.folder / _MIDDLE, weights_only=True)
    shutil.copytree(whole.folder, folder)  # what comes after the checkpoint is in the table already
    with _kept(promise):
        runs.train(folder, [observer], folder / _MIDDLE)
    name = f"analyses/{observer.analysis}.csv"
    expected, found = (read_table(run / name) for run in (whole.folder, folder))
    require(len(expected) == len(found), promise, f"there are {len(found)} rows and not {len(expected)}")
    for row, other in zip(expected, found, strict=True):
        require(row == other, promise, f"{_told(row[:-1])} is {other.value}, and was {row.value}")


def _told(row: Row | tuple[Any, ...]) -> str:
    epoch, step, name, domain, statistic, *_ = row
    of = "".join(f" of {each!r}" for each in (name, domain) if each)
    return f"{statistic!r}{of} in epoch {epoch}, step {step},"


def _equal(first: Any, second: Any) -> bool:
    """Compare to the last bit; NaN is the same as NaN."""
    if isinstance(first, Tensor):
        return isinstance(second, Tensor) and torch.equal(first.nan_to_num(), second.nan_to_num())
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(_equal(value, second[key]) for key, value in first.items())
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(_equal, first, second))
    return bool(first == second)


@contextmanager
def _kept(promise: str) -> Iterator[None]:
    """Say which promise it is that an exception breaks."""
    try:
        yield
    except Exception as error:
        raise AssertionError(f"{promise}: {type(error).__name__}: {error}") from error
