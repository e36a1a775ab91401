"""Layers by their names: what an analysis calls a layer, and how a user picks some by pattern.

A name is the module's dotted path as timm or torchvision have it: the wrapper that normalises images does not show, and
a BatchNorm has one name whether it has domains or not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_adv.core.errors import UsageError
from lightning_adv.core.suggestions import did_you_mean
from lightning_adv.nn.batchnorm import without_domain
from lightning_adv.nn.domain_batchnorm import DomainBatchNorm
from lightning_adv.nn.trace import unwrap

Module = TypeVar("Module", bound=nn.Module)


def named_layers(network: nn.Module) -> dict[str, nn.Module]:
    """Return every module inside a network by its name, each once, in the order of registration.

    A domain BatchNorm is one layer, without those in it. ``InDomain`` shows in no name either.

    Example:
        >>> from lightning_adv.nn.batchnorm import convert_batchnorm
        >>> list(named_layers(convert_batchnorm(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))))
        ['0', '1']
    """
    _, inner = unwrap(without_domain(network)[0])
    layers = {name: module for name, module in inner.named_modules() if name}
    inside = tuple(f"{name}." for name, module in layers.items() if isinstance(module, DomainBatchNorm))
    return {name: module for name, module in layers.items() if not name.startswith(inside)}


def named_batchnorms(network: nn.Module) -> dict[str, _BatchNorm]:
    """Return the BatchNorms of a network by their layers' names: in ``InDomain`` of its, else of the active domain.

    Raises:
        UsageError: There is no BatchNorm.

    Example:
        >>> list(named_batchnorms(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))))
        ['1']
    """
    domain = without_domain(network)[1]
    norms: dict[str, _BatchNorm] = {}
    for name, module in named_layers(network).items():
        if isinstance(module, DomainBatchNorm):
            chosen = module.domain_switch.active if domain is None else domain
            module = module.norms[chosen]
        if isinstance(module, _BatchNorm):
            norms[name] = module
    if not norms:
        raise UsageError(f"The network, a {type(unwrap(network)[1]).__name__}, has no BatchNorm to look at.")
    return norms


def select_layers(layers: Mapping[str, Module], patterns: str | Sequence[str], *, argument: str) -> dict[str, Module]:
    """Pick layers by pattern.

    Args:
        layers: The layers to choose from.
        patterns: One or more names, in which ``*`` stands for anything without a dot and ``**`` for anything:
            ``layer*`` is layer1 to layer4, ``layer3.**`` all that is inside layer3.
        argument: What an error calls the patterns.

    Returns:
        The layers that match any pattern, in their own order.

    Raises:
        UsageError: A pattern matches no layer.

    Example:
        >>> layers = {"conv1": nn.Identity(), "layer1": nn.Identity(), "layer1.0": nn.Identity()}
        >>> list(select_layers(layers, "layer*", argument="layers"))
        ['layer1']
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    chosen: set[str] = set()
    for pattern in patterns:
        parts = (re.escape(part) for part in re.split(r"(\*\*|\*)", pattern))
        expression = "".join({r"\*\*": ".*", r"\*": "[^.]*"}.get(part, part) for part in parts)
        found = {name for name in layers if re.fullmatch(expression, name)}
        if not found:
            hint = did_you_mean(pattern, layers)
            raise UsageError(f"{argument} has the pattern {pattern!r}, which no layer matches.{hint} There are "
                             f"{', '.join(layers)}.")  # fmt: skip
        chosen |= found
    if not chosen:
        raise UsageError(f"{argument} must have at least one pattern. There are {', '.join(layers)}.")
    return {name: layer for name, layer in layers.items() if name in chosen}
