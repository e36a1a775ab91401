"""A run that goes on: which settings are others than they were, and what comes of that.

Weights, the state of the optimizer and that of the schedule come from the checkpoint; everything else is as it is
given. What is given otherwise than before is used and told, or refused.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any, NamedTuple

from torch.optim import Optimizer

from lightning_adv.core.errors import UsageError

_FREE = ("num_classes", "backbone", "optimizer", "scheduler")
"""Arguments of a regime that are looked at elsewhere, or known after training only."""

_FREE_DATA = (
    "seed", "val_fraction", "train_fraction", "test_fraction",  # compared as the images of the run
    "root", "name", "download", "num_workers", "in_memory", "on_device", "check_images", "evaluation_batch_size",
)  # fmt: skip
"""Arguments of a data module that no training step depends on, or that are looked at elsewhere."""

_TRAINER = ("precision", "accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm", "world_size")

_OPTIMIZER = ("lr", "weight_decay", "dampening", "nesterov", "betas", "eps", "alpha")
"""What an optimizer can go on with another value of: no state of its parameters is made by it."""


class Change(NamedTuple):
    """A setting that is another than it was.

    Attributes:
        setting: Its dotted name, such as ``optimizer.lr``.
        before: What it was, as plain data.
        now: What it is.
    """

    setting: str
    before: Any
    now: Any

    def __str__(self) -> str:
        """Return the change for the user."""
        return f"{self.setting} {_short(self.now)} (it was {_short(self.before)})"


def compare(before: Mapping[str, Any], now: Mapping[str, Any], above: str = "") -> Iterator[Change]:
    """Yield the settings that both have and that differ, by their dotted names without ``init_args``.

    Example:
        >>> before = {"attack": {"class_path": "PGD", "init_args": {"steps": 7}}}
        >>> print(*compare(before, {"attack": {"class_path": "PGD", "init_args": {"steps": 10}}}))
        attack.steps 10 (it was 7)
    """
    if _name(before.get("class_path")) != _name(now.get("class_path")):
        yield Change(above.rstrip("."), before.get("class_path"), now.get("class_path"))
        return
    for name, old in before.items():
        if name not in now or name == "class_path" or name.startswith("_"):
            continue
        new = now[name]
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from compare(old, new, above if name == "init_args" else f"{above}{name}.")
        elif _comparable(old) != _comparable(new):  # 8/255 is a number in Python and may be text in YAML
            yield Change(f"{above}{name}", old, new)


def settings_changes(checkpoint: Mapping[str, Any], now: Mapping[str, Any], data: Any, trainer: Any) -> list[Change]:
    """Return which settings of a run that goes on are others, without optimizer and schedule.

    Args:
        checkpoint: What the run goes on from.
        now: The regime's arguments, as plain data.
        data: The data module, or None.
        trainer: The Trainer.
    """
    told = {name: value for name, value in checkpoint.get("hyper_parameters", {}).items() if name not in _FREE}
    found = list(compare(told, now))
    options = [of.get("backbone", {}) for of in (checkpoint.get("hyper_parameters", {}), now)]
    options = [of.get("init_args", of).get("options", {}) for of in options]
    found += compare(options[0], options[1], "backbone.options.")
    arguments = checkpoint.get("datamodule_hyper_parameters", {})
    told = {name: value for name, value in arguments.items() if name not in _FREE_DATA}
    found += compare(told, {} if data is None else dict(data.hparams), "data.")
    return found + list(compare(checkpoint["regime"].get("trainer", {}), describe_trainer(trainer), "trainer."))


def check_changes(changes: list[Change], monitors: list[str]) -> None:
    """Check that a run can go on with other settings than it had.

    Args:
        changes: What :func:`settings_changes` returned.
        monitors: The metrics by which checkpoints are chosen.

    Raises:
        UsageError: It cannot.
    """
    for change in changes:
        kept = change.setting in ("scheduler_interval", "decay_norm_and_bias")
        measured = change.setting.startswith("evaluation_attack") and any("robust" in monitor for monitor in monitors)
        if kept or measured:
            reason = "the best checkpoint is chosen by it" if measured else "the optimizer's state is made for it"
            elsewhere = "; lightning-adv test and evaluate measure with another" if measured else ""
            raise UsageError(
                f"ckpt_path: {change.setting} is {_short(change.now)} and was {_short(change.before)}, but {reason}: "
                f"leave it as it was{elsewhere}."
            )


def describe_trainer(trainer: Any) -> dict[str, Any]:
    """Return the Trainer's settings that the weights depend on, as plain data."""
    return {name: _plain(getattr(trainer, name)) for name in _TRAINER}


def describe_optimizers(optimizer: Optimizer, scheduler: Any) -> dict[str, Any]:
    """Return which optimizer and schedule a run has, as plain data.

    Args:
        optimizer: The optimizer.
        scheduler: The schedule; None where there is none.
    """
    options = {name: _plain(value) for name, value in optimizer.defaults.items()}
    return {
        "optimizer": _class_path(optimizer),
        "options": options,
        "scheduler": None if scheduler is None else _class_path(scheduler),
    }


def optimizer_changes(checkpoint: Mapping[str, Any], now: Mapping[str, Any], built: Mapping[str, Any]) -> list[Change]:
    """Return what is other in the optimizer and the schedule of a run that goes on.

    Args:
        checkpoint: What it goes on from.
        now: The regime's arguments, as plain data.
        built: :func:`describe_optimizers` of what was built from them.

    Raises:
        UsageError: It is a change that the state in the checkpoint does not allow.
    """
    settings = checkpoint.get("hyper_parameters", {})
    known = checkpoint["regime"].get("optimizers", {})
    changes: list[Change] = []
    for part in ("optimizer", "scheduler"):
        recipe = settings.get(part)
        if part in known or isinstance(recipe, Mapping):
            before = known[part] if part in known else recipe["class_path"]
            if _name(before) != _name(built[part]):
                raise UsageError(
                    f"ckpt_path: the run has the {part} {_name(before)}, and {_name(built[part])} cannot go on with "
                    f"its state. Leave the {part} as it was, or begin anew with the run's weights "
                    "(model.init_args.backbone.checkpoint)."
                )
    recipes = [of.get("optimizer") for of in (settings, now)]
    before = known["options"] if "options" in known else recipes[0]["init_args"] if recipes[0] else {}
    changes += compare(before, built["options"], "optimizer.")
    recipes = [of.get("scheduler") for of in (settings, now)]
    if recipes[0] and recipes[1]:
        changes += compare(recipes[0]["init_args"], recipes[1]["init_args"], "scheduler.")
    for change in changes:
        _check_allowed(change, built)
    return changes


def _check_allowed(change: Change, built: Mapping[str, Any]) -> None:
    part, _, option = change.setting.partition(".")
    allowed = (
        part == "scheduler" or option in _OPTIMIZER or (option == "momentum" and _name(built["optimizer"]) == "SGD")
    )
    if not allowed:
        raise UsageError(
            f"ckpt_path: {change.setting} is {_short(change.now)} and was {_short(change.before)}, which the "
            "optimizer's state does not allow: leave it as it was."
        )
    if (part == "scheduler" or option == "lr") and _name(built["scheduler"]) == "ReduceLROnPlateau":
        raise UsageError(
            f"ckpt_path: {change.setting} is {_short(change.now)} and was {_short(change.before)}, but what "
            "ReduceLROnPlateau made of the learning rate so far cannot be repeated with it: leave it as it was."
        )


def use_changes(optimizer: Optimizer, scheduler: Any, fresh: Mapping[str, Any], changes: list[Change]) -> None:
    """Let an optimizer and a schedule that were restored go on with other settings.

    A learning rate or a schedule counts from the start: it becomes what it would be now if it had been so from the
    first step.

    Args:
        optimizer: The optimizer, changed in place.
        scheduler: Its schedule, changed in place; None where there is none.
        fresh: Optimizer and schedule as they are built now, as ``configure_optimizers`` returns them.
        changes: What :func:`optimizer_changes` returned.
    """
    built: Optimizer = fresh["optimizer"]
    names = {change.setting.partition(".")[2] for change in changes if change.setting.startswith("optimizer.")}
    if "lr" in names or any(change.setting.startswith("scheduler") for change in changes):
        if scheduler is not None:
            repeated = fresh["lr_scheduler"]["scheduler"]
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step\\(\\)` before")
                for _ in range(scheduler.last_epoch):
                    repeated.step()
            scheduler.load_state_dict(repeated.state_dict())
        names |= {name for name in built.param_groups[0] if name not in ("params", "name")}
    for group, new in zip(optimizer.param_groups, built.param_groups, strict=True):
        group.update({name: new[name] for name in names if name in new})


def _class_path(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _name(class_path: str | None) -> str:
    """The class' name: torch gives one class under several paths."""
    return "none" if class_path is None else class_path.rpartition(".")[2]


def _comparable(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_comparable(item) for item in value]
    try:
        return float(Fraction(value)) if isinstance(value, str) else value
    except (ValueError, ZeroDivisionError):
        return value


def _short(value: Any) -> str:
    text = _name(value) if isinstance(value, str) and "." in value else str(value)
    return text if len(text) <= 80 else f"{text[:80]} ..."


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
