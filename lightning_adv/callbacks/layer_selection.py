"""Which of a network's layers an observer looks at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import nn

from lightning_adv.nn.layers import select_layers

ModuleT = TypeVar("ModuleT", bound=nn.Module)


@dataclass(frozen=True)
class LayerSelection:
    """The patterns by which a user picks layers, and the key that an error about them names.

    Args:
        patterns: One or more names, in which ``*`` stands for anything without a dot and ``**`` for anything. None
            takes every layer that the observer can look at.
        key: What errors call them, such as ``bn_drift.layers``.

    Example:
        >>> layers = {"conv1": nn.Identity(), "layer1": nn.Identity(), "layer2": nn.Identity()}
        >>> list(LayerSelection("layer*", "sparsity.layers").among(layers))
        ['layer1', 'layer2']
    """

    patterns: str | Sequence[str] | None
    key: str

    def among(self, candidates: Mapping[str, ModuleT]) -> dict[str, ModuleT]:
        """Return the layers that match any pattern, in the candidates' order; all where there are no patterns.

        Args:
            candidates: The layers that the observer can look at, by name.

        Raises:
            UsageError: A pattern matches no candidate.
        """
        if self.patterns is None:
            return dict(candidates)
        return select_layers(candidates, self.patterns, argument=self.key)
