"""The settings of runs, side by side: each ``config.yaml`` as one flat list, and the keys in which they differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

_OF_THE_FOLDER = ("trainer.logger.", "ckpt_path")
"""Where a run was written and resumed from: different in every run, and no setting."""

MAIN = {
    "model": "Regime",
    "model.backbone.name": "Network",
    "model.backbone.stem": "Stem",
    "data": "Data",
    "data.batch_size": "Batch size",
    "model.attack": "Training attack",
    "model.attack.norm": "Norm",
    "model.attack.eps": "eps",
    "model.attack.steps": "Steps",
    "model.attack.step_size": "Step size",
    "model.objective": "Objective",
    "model.evaluation_attack": "Evaluation attack",
    "model.evaluation_attack.eps": "Evaluation eps",
    "model.evaluation_attack.steps": "Evaluation steps",
    "model.optimizer": "Optimizer",
    "model.optimizer.lr": "Learning rate",
    "model.optimizer.weight_decay": "Weight decay",
    "model.scheduler": "Schedule",
    "trainer.max_epochs": "Epochs",
    "trainer.precision": "Precision",
    "seed_everything": "Seed",
}
"""The settings that a reader asks for first, by key, with their names."""


def flatten(config: Mapping[str, Any]) -> dict[str, str]:
    """Return a resolved configuration as one level of keys with their values as text.

    A class is the value of its key, and its arguments are keys below it: ``model.attack`` is ``PGD`` and
    ``model.attack.eps`` is ``0.2``. In a list of classes the class takes the place of the index.

    Args:
        config: What is in a ``config.yaml``.
    """
    flat: dict[str, str] = {}
    _flatten(config, "", flat)
    return {key: value for key, value in flat.items() if not key.startswith(_OF_THE_FOLDER)}


def _flatten(value: Any, key: str, flat: dict[str, str]) -> None:
    below = f"{key}." if key else ""
    if isinstance(value, Mapping) and "class_path" in value:
        flat[key] = _class_name(value)
        _flatten({k: v for k, v in value.items() if k not in ("class_path", "init_args")}, key, flat)
        _flatten(value.get("init_args") or {}, key, flat)
    elif isinstance(value, Mapping):
        for name, part in value.items():
            _flatten(part, f"{below}{name}", flat)
    elif isinstance(value, list) and any(isinstance(part, Mapping | list) for part in value):
        for index, part in enumerate(value):
            name = _class_name(part) if isinstance(part, Mapping) and "class_path" in part else str(index)
            _flatten(part, f"{below}{name}" if f"{below}{name}" not in flat else f"{below}{name}#{index}", flat)
    else:
        flat[key] = _text(value)


def _class_name(described: Mapping[str, Any]) -> str:
    return str(described["class_path"]).rpartition(".")[2]


def _text(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_text(part) for part in value)}]"
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def differences(configs: Sequence[Mapping[str, str] | None]) -> dict[str, list[str | None]]:
    """Return the settings in which runs differ.

    Where a part is of different classes, or not in every run, its settings are rows if every run has them, or if they
    are in :data:`MAIN`. What a run does not have is as good as null.

    Args:
        configs: For each run what :func:`flatten` returns; None where a run has no configuration.

    Returns:
        For each such key the value of each run, None where the run does not have it. Runs without a configuration
        differ in nothing.
    """
    known = [config for config in configs if config is not None]
    keys = list(dict.fromkeys(key for config in known for key in config))
    rooms = list(dict.fromkeys(key.partition(".")[0] for key in keys))
    found: dict[str, list[str | None]] = {}
    for key in sorted(keys, key=lambda key: rooms.index(key.partition(".")[0])):
        parts = key.split(".")
        above = (".".join(parts[:length]) for length in range(1, len(parts)))
        of_some = any(name in found for name in above) and any(key not in config for config in known)
        if len({config.get(key, "null") for config in known}) > 1 and (key in MAIN or not of_some):
            found[key] = [None if config is None else config.get(key) for config in configs]
    return found


def shared(configs: Sequence[Mapping[str, str] | None]) -> dict[str, str]:
    """Return the settings that all runs with a configuration have in common."""
    known = [config for config in configs if config is not None]
    return {
        key: value
        for key, value in (known[0].items() if known else ())
        if all(config.get(key) == value for config in known)
    }
