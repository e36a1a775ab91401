"""The network of a run of this package, from the run's checkpoint."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from lightning_adv.nn.backbones import Backbone
from lightning_adv.nn.checkpoints import read_checkpoint


class RunCheckpoint(NamedTuple):
    """What a checkpoint says of its network.

    Attributes:
        backbone: The recipe of the network, which starts from no weights.
        num_classes: Number of classes.
        settings: The regime's arguments, as plain data.
        content: All that is in the file.
    """

    backbone: Backbone
    num_classes: int
    settings: Mapping[str, Any]
    content: Mapping[str, Any]


def read_run(path: str | os.PathLike[str], *, argument: str) -> RunCheckpoint:
    """Read the checkpoint that a regime of this package was saved in.

    Args:
        path: The file.
        argument: What an error calls it.

    Raises:
        ValueError: The file is missing, cannot be read, or is no such checkpoint.
    """
    content = read_checkpoint(path, argument=argument)
    settings = content.get("hyper_parameters") if isinstance(content, dict) else None
    if not isinstance(settings, dict) or "regime" not in content or settings.get("num_classes") is None:
        raise ValueError(f"{argument}: {path} is not the checkpoint of a run of this package.")
    backbone = Backbone.from_config(settings["backbone"]).without_weights()
    return RunCheckpoint(backbone, settings["num_classes"], settings, content)
