"""What the arguments of a Backbone may be, one by one and together. Every error names its argument."""

from __future__ import annotations

from typing import Any, Literal

import torch

from lightning_adv.core.errors import UsageError
from lightning_adv.nn.libraries import Channels
from lightning_adv.nn.normalize import NormalizedNetwork, check_values

Stem = Literal["default", "cifar"]

# arguments of the two libraries that Backbone sets by fields of its own
RESERVED_OPTIONS = (
    "num_classes",
    "in_chans",
    "pretrained",
    "checkpoint_path",
    "features_only",
    "weights",
    "aux_logits",
    "transform_input",
)


def check_sizes(num_classes: int, stem: str, in_channels: int) -> None:
    """Check the sizes and the stem, each by itself."""
    if num_classes < 2:
        raise UsageError(f"num_classes must be at least 2, got {num_classes}.")
    if stem not in ("default", "cifar"):
        raise UsageError(f"must be 'default' or 'cifar', got {stem!r}.", key="stem")
    if in_channels < 1:
        raise UsageError(f"must be at least 1, got {in_channels}.", key="in_channels")


def check_options(options: dict[str, Any], library: str) -> None:
    """Check that no option says what Backbone says by a field; a network by its import path checks its own."""
    reserved = [option for option in options if option in RESERVED_OPTIONS and library != "python"]
    if reserved:
        raise UsageError(
            f"cannot hold {reserved[0]!r}: Backbone sets {', '.join(RESERVED_OPTIONS)} itself.", key="options"
        )


def check_weights(
    pretrained: bool,
    checkpoint: str | None,
    domain: str | None,
    activation: str | None,
    activation_options: dict[str, Any] | None,
) -> None:
    """Check that nothing is said of weights or an activation that are not there, and no weights are given twice."""
    if pretrained and checkpoint is not None:
        raise UsageError(
            "is given with a checkpoint, which would replace every pretrained weight: leave one out.", key="pretrained"
        )
    if domain is not None and checkpoint is None:
        raise UsageError(f"is {domain!r}, but there is no checkpoint.", key="checkpoint_domain")
    if activation_options and activation is None:
        raise UsageError(f"are {activation_options}, but there is no activation.", key="activation_options")


def check_channels(in_channels: int, **given: Channels | None) -> None:
    """Check that ``mean`` and ``std`` have a value for each channel that a normalisation can have."""
    for name, values in given.items():
        if values is not None and len(values) != in_channels:
            raise UsageError(
                f"needs one value for each of the {in_channels} channels (in_channels), got {tuple(values)}.", key=name
            )
        if values is not None:
            check_values(name, values)


def check_carried_normalization(built: NormalizedNetwork, mean: Channels | None, std: Channels | None) -> None:
    """Check that the normalisation that a checkpoint has brought is the one that was asked for, if one was."""
    for name, given in (("mean", mean), ("std", std)):
        carried = getattr(built.normalize, name).flatten()
        if given is not None and not torch.allclose(carried, torch.tensor(given, dtype=carried.dtype), atol=1e-4):
            raise UsageError(
                f"is {tuple(given)}, but the checkpoint was trained with {carried.tolist()}: leave it out.", key=name
            )
