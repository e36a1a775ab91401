"""Lightning's finders of a learning rate and a batch size: they look first, and the run has what they found.

A finder that looks within a run leaves a run that no configuration describes, and state behind that its steps have
changed. Here it looks with a Trainer, a network and data of its own. What it found is written into the configuration,
in its place: the run is the one that ``config.yaml`` repeats, and that its checkpoints go on with.
"""

from __future__ import annotations

import tempfile
from typing import Any, cast

from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder
from lightning.pytorch.utilities.seed import isolate_rng

from lightning_adv.commands.shared.parser import Parser
from lightning_adv.core.errors import UsageError
from lightning_adv.nn.weights.load import say

_FINDERS = ("LearningRateFinder", "BatchSizeFinder")
_LEARNING_RATES = ("optimizer.init_args.lr", "lr", "learning_rate")
"""Where a regime and a LightningModule of somebody else have a learning rate, below ``model.init_args``."""

_COUNTS = ("num_training_steps", "init_val", "steps_per_trial", "max_trials")


class _LookedError(Exception):
    """Ends the fit of a trial: the finder has looked."""


class _StopAfterLooking(Callback):
    """Stands behind the finder, which looks when the fit starts."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the trial (a Lightning hook)."""
        raise _LookedError


def use_finders(config: Namespace, parser: Any, *, resumed: bool, trains: bool) -> None:
    """Put what the finders in ``trainer.callbacks`` find in their place.

    Args:
        config: The parsed configuration of a run; changed in place.
        parser: What parsed it.
        resumed: Whether the run goes on from a checkpoint.
        trains: Whether the command trains; one that does not has nothing to find.

    Raises:
        UsageError: The run has found already, computes on several devices, or nothing was found.
    """
    given = config.trainer.callbacks if isinstance(config.trainer.callbacks, list) else []
    finders = [part for part in given if part.class_path.rpartition(".")[2] in _FINDERS]
    if not finders:
        return
    config.trainer.callbacks = [part for part in given if not any(part is finder for finder in finders)]
    for finder in finders if trains and not config.trainer.fast_dev_run else ():
        name = finder.class_path.rpartition(".")[2]
        if resumed:
            raise UsageError(
                f"trainer.callbacks has {name}, but the run that ckpt_path goes on with has what it found: give the "
                "config.yaml of its folder."
            )
        for count in _COUNTS:
            if (number := finder.init_args.get(count, 1)) < 1:
                raise UsageError(f"trainer.callbacks: {name}.{count} must be at least 1, got {number}.")
        key = _batch_size(config, finder) if name == "BatchSizeFinder" else _learning_rate(config, finder)
        found = _look(config, cast(Parser, parser), finder)
        say(f"{name}: {key} is {found:.6g}, and was {config[key]}. The run's config.yaml has it, and no finder.")
        config[key] = found


def _batch_size(config: Namespace, finder: Namespace) -> str:
    return _known(config, [f"data.init_args.{finder.init_args.batch_arg_name}"], "BatchSizeFinder")


def _learning_rate(config: Namespace, finder: Namespace) -> str:
    """Return the key of the learning rate; the finder looks, and leaves its writing to the configuration."""
    named = finder.init_args.attr_name
    finder.init_args.update_attr = False
    return _known(
        config, [f"model.init_args.{name}" for name in ([named] if named else _LEARNING_RATES)], "LearningRateFinder"
    )


def _known(config: Namespace, keys: list[str], name: str) -> str:
    for key in keys:
        if config.get(key) is not None:
            return key
    raise UsageError(f"trainer.callbacks has {name}, and the configuration does not have {' or '.join(keys)}: set it.")


def _look(config: Namespace, parser: Parser, finder: Namespace) -> int | float:
    """Return what a finder finds, by a trial that leaves no trace: the run draws what it would have drawn."""
    trial = config.clone()
    quiet = {
        "logger": False, "callbacks": [finder], "enable_checkpointing": False, "enable_progress_bar": False,
        "enable_model_summary": False, "num_sanity_val_steps": 0, "max_epochs": -1, "profiler": None,
        "check_val_every_n_epoch": 10**9,  # it is found in training; adversarial validation would take as long
    }  # fmt: skip
    for key, value in quiet.items():
        trial.trainer[key] = value
    with isolate_rng(), tempfile.TemporaryDirectory() as folder:
        built = parser.instantiate(trial)
        options = {**vars(built.trainer), "default_root_dir": folder}
        looks = built.trainer.callbacks[0]
        options["callbacks"] = [looks, _StopAfterLooking()]
        trainer = Trainer(**options)
        if trainer.world_size > 1:
            raise UsageError(
                f"trainer.callbacks has {type(looks).__name__}, which looks on one device, and there are "
                f"{trainer.world_size}: run it with trainer.devices=1, and set what it finds."
            )
        try:
            trainer.fit(built.model, datamodule=built.data)
        except _LookedError:
            return _found(looks)
        raise AssertionError  # a fit starts


def _found(finder: Callback) -> int | float:
    """Return the number that a finder has.

    Raises:
        UsageError: It has none.
    """
    if isinstance(finder, BatchSizeFinder) and finder.optimal_batch_size is not None:
        return finder.optimal_batch_size
    found = finder.optimal_lr.suggestion() if isinstance(finder, LearningRateFinder) and finder.optimal_lr else None
    if found is None:
        raise UsageError(
            f"trainer.callbacks: {type(finder).__name__} found nothing. A learning rate takes at least a dozen steps "
            "with a finite loss: set its num_training_steps, min_lr and max_lr."
        )
    return found
