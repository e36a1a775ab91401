"""A network that is looked at, by its name."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Subject:
    """A named network, as sections get it.

    Attributes:
        name: Its name, which tables and pictures have.
        network: Maps images (n, C, H, W) in [0, 1] to logits (n, K). It is in eval mode, its parameters need no
            gradient, and it goes through the BatchNorm domain that it predicts with. What looks at it leaves it so.
    """

    name: str
    network: nn.Module
