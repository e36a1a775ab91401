"""Optimizers and schedules as recipes: a callable in Python, ``class_path`` and ``init_args`` in YAML."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lightning_adv.core.errors import UsageError
from lightning_adv.core.recipe import FACTORIES, find_class

_Rule = tuple[Callable[[float], bool], str]
_FINITE: _Rule = (lambda value: math.isfinite(value) and value >= 0, "a finite number of at least 0")
_DECAY: _Rule = (lambda value: 0 <= value < 1, "at least 0 and less than 1")
_COUNT: _Rule = (lambda value: value >= 1, "at least 1")

# torch 2.14 takes NaN for any of these, which compares as less than nothing, and a momentum that grows without end.
_OPTIMIZER_OPTIONS: dict[str, _Rule] = {
    "lr": _FINITE, "weight_decay": _FINITE, "momentum": _DECAY, "betas": _DECAY,
}  # fmt: skip
# It builds a schedule of these that divides by nothing when training is under way, or turns the learning rate round.
_SCHEDULE_OPTIONS: dict[str, _Rule] = {
    "step_size": _COUNT, "T_max": _COUNT,
    "gamma": (lambda value: math.isfinite(value) and value > 0, "a finite number above 0"),
}  # fmt: skip


def parameter_groups(module: nn.Module, decay_norm_and_bias: bool) -> list[dict[str, Any]]:
    """Return the optimizer's parameter groups; frozen parameters are in none.

    Args:
        module: The network.
        decay_norm_and_bias: False puts biases and the parameters of normalisation layers, which are the vectors
            (``ndim <= 1``), in a group without weight decay. Scalars are there in any case: decayed towards 0,
            SmoothReLU's alpha would take the activation away.
    """
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    spared = 0 if decay_norm_and_bias else 1
    decayed = [parameter for parameter in trainable if parameter.ndim > spared]
    others = [parameter for parameter in trainable if parameter.ndim <= spared]
    if decay_norm_and_bias and not others:
        return [{"params": trainable}]
    return [{"name": "decay", "params": decayed}, {"name": "no_decay", "params": others, "weight_decay": 0.0}]


def configure(
    module: nn.Module,
    optimizer: OptimizerCallable,
    scheduler: LRSchedulerCallable | None,
    interval: str,
    decay_norm_and_bias: bool,
) -> dict[str, Any]:
    """Return what ``LightningModule.configure_optimizers`` returns.

    Raises:
        UsageError: The optimizer or the schedule cannot be built of their options, or these make no sense; or the
            schedule looks at a metric, and does not say at which, or would step between epochs.
    """
    built = _build_optimizer(optimizer, parameter_groups(module, decay_norm_and_bias))
    if scheduler is None:
        return {"optimizer": built}
    schedule = _build_schedule(scheduler, built)
    config: dict[str, Any] = {"scheduler": schedule, "interval": interval}
    if isinstance(schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
        if not isinstance(schedule, ReduceLROnPlateau):
            raise UsageError(
                "scheduler is torch.optim.lr_scheduler.ReduceLROnPlateau, which does not know its metric: use "
                "lightning.pytorch.cli.ReduceLROnPlateau with monitor, such as val/clean_loss."
            )
        if interval != "epoch":
            raise UsageError(
                f"scheduler_interval is {interval!r}, but ReduceLROnPlateau looks at a metric of whole epochs: use "
                "'epoch'."
            )
        # Never: step_plateau does it.
        config |= {"monitor": schedule.monitor, "frequency": sys.maxsize}
    return {"optimizer": built, "lr_scheduler": config}


def _build_optimizer(optimizer: OptimizerCallable, groups: list[dict[str, Any]]) -> Optimizer:
    """Build an optimizer whose options make sense.

    Raises:
        UsageError: They do not.
    """
    try:
        built = optimizer(groups)
    except (ValueError, TypeError) as error:
        hint = ""
        if len(groups) > 1 and _takes_one_group(optimizer, groups):
            hint = ". It takes all parameters as one group: decay_norm_and_bias must be true."
        raise UsageError(f"optimizer cannot be built: {error}{hint}") from error
    if not isinstance(built, Optimizer):
        raise UsageError(f"optimizer must return a torch.optim.Optimizer, got {type(built).__name__}.")
    for group in built.param_groups:
        for name, (allowed, words) in _OPTIMIZER_OPTIONS.items():
            values = group.get(name)
            for value in values if isinstance(values, tuple) else (values,):
                if isinstance(value, (int, float, torch.Tensor)) and not allowed(float(value)):
                    raise UsageError(f"optimizer.{name} must be {words}, got {_plain(values)}.")
    return built


def _takes_one_group(optimizer: OptimizerCallable, groups: list[dict[str, Any]]) -> bool:
    """Whether an optimizer that refused parameter groups can be built for all parameters together."""
    try:
        optimizer([parameter for group in groups for parameter in group["params"]])
    except (ValueError, TypeError):  # it is something else that it refuses
        return False
    return True


def _build_schedule(scheduler: LRSchedulerCallable, optimizer: Optimizer) -> Any:
    """Build a schedule whose options make sense.

    Raises:
        UsageError: They do not.
    """
    try:
        schedule = scheduler(optimizer)
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise UsageError(f"scheduler cannot be built: {error}") from error
    if not callable(getattr(schedule, "step", None)):
        raise UsageError(f"scheduler must return a learning-rate schedule, got {type(schedule).__name__}.")
    for name, (allowed, words) in _SCHEDULE_OPTIONS.items():
        value = vars(schedule).get(name)
        if isinstance(value, (int, float)) and not allowed(value):
            raise UsageError(f"scheduler.{name} must be {words}, got {value}.")
    return schedule


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, torch.Tensor) and value.numel() == 1 else value


def step_plateau(module: LightningModule) -> None:
    """Step the schedules that look at a metric; called at the end of every training epoch, before it is saved.

    Lightning would step them after it has saved the epoch's checkpoint. Since the checkpoint holds no metrics, a run
    that is resumed from it leaves this step out, and ends in other weights than one that never stopped.

    An epoch without validation (``check_val_every_n_epoch``) has nothing new to look at, and does not count for the
    schedule's ``patience``; neither does one that was cut short.

    Raises:
        UsageError: Nothing of that name was measured in this run.
    """
    trainer = module.trainer
    every = trainer.check_val_every_n_epoch
    validated = every is None or (trainer.current_epoch + 1) % every == 0
    for config in trainer.lr_scheduler_configs:
        monitor = str(config.monitor)
        stale = monitor.startswith("val/") and not validated
        if not config.reduce_on_plateau or stale or not trainer.is_last_batch:
            continue
        metrics = trainer.callback_metrics
        if monitor not in metrics:
            raise UsageError(
                f"scheduler.monitor is {monitor!r}, which was not measured in epoch {trainer.current_epoch}; there are "
                f"{', '.join(sorted(metrics))}."
            )
        module.lr_scheduler_step(config.scheduler, metrics[monitor])


def callable_to_config(factory: Callable[..., Any] | None) -> dict[str, Any] | None:
    """Write ``functools.partial(SGD, lr=0.1)`` down as plain data; what cannot be written down is None."""
    if isinstance(factory, partial) and isinstance(factory.func, type) and not factory.args:
        path = f"{factory.func.__module__}.{factory.func.__qualname__}"
        return {"class_path": path, "init_args": dict(factory.keywords)}
    return None


def callable_from_config(factory: Any) -> Any:
    """Turn :func:`callable_to_config`'s result back into a callable; anything else is returned as it is.

    Raises:
        UsageError: The class is neither an optimizer nor a schedule, or was not imported: see
            :func:`~lightning_adv.core.recipe.find_class`.
    """
    if not isinstance(factory, dict):
        return factory
    built = find_class(factory["class_path"], object, allowed=FACTORIES)
    if not issubclass(built, (Optimizer, LRScheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)):
        raise UsageError(f"{factory['class_path']} is neither an optimizer nor a learning-rate schedule.")
    return partial(built, **factory["init_args"])


def learning_rate_of(factory: OptimizerCallable) -> float:
    """Return the learning rate of the optimizers that a callable makes."""
    groups = factory([{"params": [nn.Parameter(torch.zeros(1))]}]).param_groups
    return float(groups[0]["lr"])


def with_learning_rate(factory: OptimizerCallable, value: float) -> OptimizerCallable:
    """Return what makes the same optimizers with another learning rate."""
    if isinstance(factory, partial):
        return partial(factory, lr=value)

    def build(groups: Any) -> Optimizer:
        built = factory(groups)
        for group in built.param_groups:
            group["lr"] = value
        return built

    return build
