"""A look at the test images before training: what they lack would be found when all training is done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import CombinedLoader, rank_zero_warn
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.seed import isolate_rng
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset, SequentialSampler

from lightning_adv.core.errors import UsageError
from lightning_adv.regimes import Regime
from lightning_adv.regimes.checks import check_shape
from lightning_adv.regimes.metrics import length_of

_IMAGES = 16


class HeldOutCheck(Callback):
    """Looks at a few test images before training, and afterwards at whether anything was trained on.

    Attributes:
        missing: Why there is nothing to test, or None.
    """

    def __init__(self) -> None:
        self.missing: str | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take test images, check them as a test would, and tell if there are none (a Lightning hook).

        Raises:
            UsageError: They are no images or labels that the network takes, there are several test loaders, or the
                share that is to be tested is none.
        """
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, LightningDataModule) or trainer.limit_test_batches == 0:
            return
        # a data set of the user's may draw, and a loader draws a seed for its workers
        with _test_stage(trainer), isolate_rng():
            data.setup("test")
            loaders = test_loaders(data)
            if len(loaders) > 1:
                raise UsageError(
                    f"data: {type(data).__name__}.test_dataloader() gives {len(loaders)} loaders, but the result of a "
                    "run is that of one: test the others by themselves."
                )
            _check_limit(trainer.limit_test_batches, loaders)
            batch = None if not loaders else _few(loaders[0])
            if batch is None:
                self.missing = f"{type(data).__name__} has no test images"
                rank_zero_warn(f"data: {self.missing}: the run will end with the numbers of its validation.")
            else:
                _check(trainer, cast(Regime, pl_module), data, batch)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notice that there was nothing to train on (a Lightning hook).

        Raises:
            UsageError: Not one step was made, although steps were asked for.
        """
        asked = trainer.max_epochs != 0 and trainer.max_steps != 0 and trainer.limit_train_batches != 0
        if trainer.global_step == 0 and asked and not trainer.interrupted:
            name = type(trainer.datamodule).__name__  # type: ignore[attr-defined]
            raise UsageError(f"data: {name}.train_dataloader() gives no batch: nothing was trained.")


def check_gives(data: LightningDataModule | None, stage: str) -> None:
    """Check that a data module has a loader for a stage.

    Args:
        data: The data module.
        stage: ``val``, ``test`` or ``predict``.

    Raises:
        UsageError: It has none.
    """
    if data is not None and not is_overridden(f"{stage}_dataloader", data, LightningDataModule):
        raise UsageError(f"data: {type(data).__name__} has no {stage}_dataloader(), which this command needs.")


def best_validation(best: ModelCheckpoint) -> str:
    """Say in one sentence what the validation of a run came to."""
    if best.best_model_score is None:
        return "Nothing was validated either."
    return f"The best validation has {best.monitor} {best.best_model_score:.4f}: {best.best_model_path}"


@contextmanager
def _test_stage(trainer: Trainer) -> Iterator[None]:
    """Tell the data module's hooks which images it is about: many augment wherever ``trainer.training`` is true."""
    stage = trainer.state.stage
    trainer.testing = True
    try:
        yield
    finally:
        trainer.state.stage = stage


def test_loaders(data: LightningDataModule) -> list[Any]:
    """Return the loaders of a data module's test images, which may give one, several or none."""
    if not is_overridden("test_dataloader", data, LightningDataModule):
        return []
    given = data.test_dataloader()
    return [] if given is None else [loader for loader in CombinedLoader(given).flattened if loader is not None]


def _check_limit(limit: int | float | None, loaders: Sequence[Any]) -> None:
    """Check that a share of the test batches is one at least; Lightning does so when the test begins."""
    count = length_of(loaders[0]) if loaders else None
    if count and isinstance(limit, float) and int(limit * count) == 0:
        raise UsageError(
            f"trainer.limit_test_batches is {limit}, which is less than one batch of {count}: give a larger share, or "
            "a number of batches."
        )


def _few(loader: Any) -> Any:
    """Return a small batch of a loader, None if it gives none. No worker is started where that can be helped."""
    dataset = getattr(loader, "dataset", None)
    indexed = hasattr(dataset, "__len__") and not isinstance(dataset, IterableDataset)
    whole = isinstance(loader, DataLoader) and isinstance(loader.sampler, (SequentialSampler, DistributedSampler))
    if indexed and whole and loader.batch_sampler is not None:
        count = len(cast(Any, dataset))
        # from all over the data set: folders are sorted by class
        drawn = torch.randperm(count, generator=torch.Generator().manual_seed(0))[:_IMAGES].tolist()
        loader = DataLoader(cast(Any, dataset), batch_sampler=[drawn] if drawn else [], collate_fn=loader.collate_fn)
    return next(iter(loader), None)


def _check(trainer: Trainer, regime: Regime, data: LightningDataModule, batch: Any) -> None:
    batch = regime._on_before_batch_transfer(trainer.precision_plugin.convert_input(batch))
    batch = trainer.strategy.batch_to_device(batch)
    name = type(data).__name__
    try:
        x, _ = regime.check_batch(batch, 0)
    except UsageError as error:
        raise UsageError(f"the test images of {name}: {error}", key="data") from error
    shape = tuple(x.shape[1:])
    if shape != tuple(getattr(data, "image_shape", shape)):
        check_shape(regime.network, regime.backbone.name, shape, f"{name}'s test", regime.num_classes)
