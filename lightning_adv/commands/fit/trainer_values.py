"""The values of a run's own keys: what Lightning would refuse late, in other words, or take in silence."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any

import torch
from jsonargparse import Namespace

from lightning_adv.core.errors import UsageError

_Rule = tuple[Callable[[Any], bool], str]


def _at_least(lowest: int) -> _Rule:
    return lambda value: value >= lowest, f"at least {lowest}"


def _is_share(value: float) -> bool:
    """Whether this is a number of batches, or a share of them; text and durations are Lightning's to read."""
    return value >= 0 if isinstance(value, int) else 0 <= value <= 1


_SHARE: _Rule = (_is_share, "a number of batches (0, 1, 2, ...) or a share of them (0.0 to 1.0)")

ALLOWED: dict[str, _Rule] = {
    "seed_everything": (lambda value: 0 <= value < 2**32, "between 0 and 4294967295"),
    "trainer.max_epochs": (lambda value: value >= -1, "at least 0, or -1 for no limit"),
    "trainer.min_epochs": _at_least(0),
    "trainer.max_steps": (lambda value: value >= -1, "at least 0, or -1 for no limit"),
    "trainer.min_steps": _at_least(0),
    "trainer.limit_train_batches": _SHARE,
    "trainer.limit_val_batches": _SHARE,
    "trainer.limit_test_batches": _SHARE,
    "trainer.limit_predict_batches": _SHARE,
    "trainer.overfit_batches": _SHARE,
    "trainer.val_check_interval": (
        lambda value: value >= 1 if isinstance(value, int) else 0 < value <= 1,
        "a number of batches (1, 2, ...) or a share of the epoch (above 0.0, to 1.0)",
    ),
    "trainer.check_val_every_n_epoch": _at_least(1),
    "trainer.num_sanity_val_steps": (lambda value: value >= -1, "at least 0, or -1 for all batches"),
    "trainer.log_every_n_steps": _at_least(0),
    "trainer.fast_dev_run": _at_least(0),
    "trainer.num_nodes": _at_least(1),
    "trainer.accumulate_grad_batches": _at_least(1),
    "trainer.reload_dataloaders_every_n_epochs": _at_least(0),
    # Lightning 2.6 clips by a negative norm without a word, which turns every gradient round.
    "trainer.gradient_clip_val": (lambda value: math.isfinite(value) and value >= 0, "a finite number of at least 0"),
    "trainer.gradient_clip_algorithm": (lambda value: value in ("norm", "value"), "norm or value"),
    "best_checkpoint.every_n_epochs": _at_least(1),
    "last_checkpoint.every_n_epochs": _at_least(0),
    "last_checkpoint.every_n_train_steps": _at_least(0),
}
"""What is allowed by key, and in words."""


def check_values(config: Any) -> None:
    """Check the keys of :data:`ALLOWED`; null takes what Lightning does without.

    Args:
        config: The parsed configuration of a subcommand.

    Raises:
        UsageError: One of them is out of its range.
    """
    for key, value in _given(config):
        allowed, words = ALLOWED[key]
        if not allowed(value):
            raise UsageError(f"{key} must be {words}, got {value!r}.")


def _given(config: Any) -> Iterator[tuple[str, Any]]:
    """Return the keys that have a value of the kind that the table is about: no text where a number stands."""
    for key in ALLOWED:
        value = config.get(key)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number or (key.endswith("algorithm") and value is not None):
            yield key, value


def write_out_defaults(config: Any) -> None:
    """Put text in the place of defaults that the parser cannot write down: enums and devices.

    Those are Timer's ``interval`` and StochasticWeightAveraging's ``device`` in Lightning 2.6.

    Args:
        config: The parsed configuration of a subcommand; changed in place.
    """
    items = vars(config).items() if isinstance(config, Namespace) else enumerate(config)
    for key, value in list(items):
        if isinstance(value, str) and isinstance(value, Enum):
            config[key] = value.value
        elif isinstance(value, torch.device):
            config[key] = str(value)
        elif isinstance(value, (Namespace, list)):
            write_out_defaults(value)


def check_trainer(config: Any) -> None:
    """Check that a run can end under this Trainer: in the test of its best checkpoint.

    Args:
        config: The Trainer's arguments.

    Raises:
        UsageError: It cannot.
    """
    strategy = config.strategy
    name = strategy if isinstance(strategy, str) else ""
    arguments = strategy.get("init_args") if isinstance(strategy, Namespace) else None
    method = "popen" if arguments is None else arguments.get("start_method", "popen")
    if name.startswith(("ddp_spawn", "ddp_fork", "ddp_notebook")) or method != "popen":
        raise UsageError(
            f"trainer.strategy is {name or method!r}, whose processes end with the training, and the test after it "
            "would start others: use 'ddp'."
        )
    if config.enable_checkpointing is False:
        raise UsageError(
            "trainer.enable_checkpointing is false, but every run keeps its best checkpoint, which is tested, and its "
            "last: leave it out."
        )
    given = config.get("callbacks")
    each = given if isinstance(given, list) else []
    called = [(callback.class_path, (callback.get("init_args") or {}).get("name")) for callback in each]
    for path, own in called:
        if path.startswith("lightning_adv.callbacks.") and called.count((path, own)) > 1:
            raise UsageError(
                f"trainer.callbacks has {path.rpartition('.')[2]} {called.count((path, own))} times, but it runs "
                "once: take it out of one configuration, or give observers of one class a name each. The config.yaml "
                "of a run has the callbacks of that run."
            )
