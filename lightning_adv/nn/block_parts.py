"""Where a network is cut into blocks: its parts, each a list of modules in forward order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd

from lightning_adv.nn.trace import LAYERS, Piece, Trace, has_parameters


def stages(pieces: list[Piece], trace: Trace, image_resolution: tuple[int, ...]) -> list[list[Piece]]:
    """Cut where the resolution of the features changes, and behind a CIFAR stem.

    Args:
        pieces: The modules that are not cut any further, in forward order.
        trace: The resolution of what each gives.
        image_resolution: That of the images.
    """
    parts: list[list[Piece]] = []
    resolution = None
    for path, module in pieces:
        before, resolution = resolution, trace.get(module, resolution)
        # a CIFAR stem, single layers at the resolution of the images, ends where a stage of several begins
        ends_stem = resolution == image_resolution and len(parts) == 1 and _any(parts[0], has_parameters)
        ends_stem = ends_stem and sum(isinstance(inner, _ConvNd) for inner in module.modules()) > 1
        if not parts or resolution != before or ends_stem:
            parts.append([])
        parts[-1].append((path, module))
    return _merge(parts, stands=has_parameters)


def layers(pieces: list[Piece]) -> list[list[Piece]]:
    """Cut before each convolution and linear layer: what has no such layer goes with the one before it."""
    parts: list[list[Piece]] = []
    for path, module in pieces:
        if not parts or isinstance(module, LAYERS):
            parts.append([])
        parts[-1].append((path, module))
    return _merge(parts, stands=lambda module: isinstance(module, LAYERS))


def _merge(parts: list[list[Piece]], stands: Callable[[nn.Module], bool]) -> list[list[Piece]]:
    """Join each part in which no module stands by itself to the part before, at the start to the part after."""
    merged: list[list[Piece]] = []
    for part in parts:
        if merged and not (_any(merged[0], stands) and _any(part, stands)):
            merged[-1] += part
        else:
            merged.append(list(part))
    return merged


def _any(part: list[Piece], stands: Callable[[nn.Module], bool]) -> bool:
    return any(stands(module) for _, module in part)


def timm_groups(network: Any, prefix: str) -> list[list[Piece]]:
    """Cut into the groups that timm puts parameters in, each as its largest modules.

    Args:
        network: A network of timm.
        prefix: Its path in the network that it lies in, with a dot at its end.
    """
    from timm.models import group_parameters

    named: dict[str, int] = group_parameters(network, network.group_matcher(coarse=True), reverse=True)
    # by the tensor: a parameter that is in two places has one name (CoaT shares its position encodings)
    groups = {id(parameter): named[name] for name, parameter in network.named_parameters()}
    seen: set[nn.Module] = set()
    parts: dict[int, list[Piece]] = {}
    group = 0

    def visit(module: nn.Module, inside: str) -> None:
        nonlocal group  # of the module before, for one without parameters
        for name, child in module.named_children():
            path = f"{inside}{name}"
            if child in seen:
                continue
            found = {groups[id(parameter)] for parameter in child.parameters()}
            if len(found) > 1:
                visit(child, f"{path}.")
            else:
                group = found.pop() if found else group
                seen.update(child.modules())
                parts.setdefault(group, []).append((f"{prefix}{path}", child))

    visit(network, "")
    return [part for _, part in sorted(parts.items())]
