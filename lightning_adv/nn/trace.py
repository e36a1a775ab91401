"""In which order a network's modules run, and at which resolution."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from lightning_adv.core.errors import UsageError

# A module and its dotted path.
Piece = tuple[str, nn.Module]


class Trace(dict[nn.Module, tuple[int, ...]]):
    """The modules that ran, in the order in which they ended, with the resolution of their output.

    Attributes:
        several: Those that give out something else than one tensor, such as a list for each resolution.
    """

    def __init__(self) -> None:
        super().__init__()
        self.several: set[nn.Module] = set()


# Attention calls the linear layer inside by its weights: it counts as one layer.
LAYERS = (_ConvNd, nn.Linear, nn.MultiheadAttention)
POOLED = (1, 1)
# From 64×64 pixels on, a ResNet's last stage still changes the resolution: of 8×8 images, it gets 1×1 features.
TRACED_SIDE = 64


def trace_forward(network: nn.Module, image_shape: Sequence[int]) -> tuple[Trace, tuple[int, ...]]:
    """Return the trace of a forward pass and the resolution of its images.

    Small images are enlarged to :data:`TRACED_SIDE`, unless the network takes one size only.
    """
    channels, height, width = image_shape
    factor = -(-TRACED_SIDE // min(height, width))
    if factor > 1:
        try:
            return _run(network, (channels, factor * height, factor * width)), (factor * height, factor * width)
        except (RuntimeError, ValueError, AssertionError):
            pass
    try:
        return _run(network, (channels, height, width)), (height, width)
    except (RuntimeError, ValueError, AssertionError) as error:
        raise UsageError(f"image_shape {tuple(image_shape)} does not fit the network: {error}") from error


def _run(network: nn.Module, image_shape: Sequence[int]) -> Trace:
    trace = Trace()
    square = image_shape[1] == image_shape[2]

    def record(module: nn.Module, inputs: Any, output: Any) -> None:
        trace.setdefault(module, _resolution(output, square))
        if not isinstance(output, Tensor):
            trace.several.add(module)

    like = next(network.parameters())
    # two images: a BatchNorm without running statistics refuses a single value per channel
    images = torch.zeros(2, *image_shape, device=like.device, dtype=like.dtype)
    hooks = [module.register_forward_hook(record) for module in network.modules()]
    try:
        with _evaluating(network), torch.no_grad():
            network(images)
    finally:
        for hook in hooks:
            hook.remove()
    return trace


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    training = [module for module in network.modules() if module.training]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True


def _resolution(output: Any, square: bool) -> tuple[int, ...]:
    """Return (H, W) of features, (L,) of tokens (N, L, C), and POOLED for all else."""
    if isinstance(output, (tuple, list)) and output:
        return _resolution(output[0], square)
    if not isinstance(output, Tensor) or output.ndim not in (3, 4):
        return POOLED
    if output.ndim == 3:
        return (output.shape[1],)
    _, first, second, third = output.shape
    return (first, second) if channels_last(output, square) else (second, third)


def channels_last(features: Tensor, square: bool) -> bool:
    """Tell whether features of four axes are (N, H, W, C), as Swin has them, and not (N, C, H, W).

    Args:
        features: What a module gives out.
        square: Whether the images are; of others it cannot be told, and (N, C, H, W) is assumed.
    """
    _, first, second, third = features.shape
    return square and first == second != third


def unwrap(network: nn.Module) -> tuple[str, nn.Module]:
    """Return the network inside modules that only wrap it, such as NormalizedNetwork, and the prefix of its paths."""
    prefix = ""
    while not any(True for _ in network.parameters(recurse=False)):
        inside = [(name, child) for name, child in network.named_children() if has_parameters(child)]
        if len(inside) != 1 or isinstance(inside[0][1], LAYERS):
            break
        prefix, network = f"{prefix}{inside[0][0]}.", inside[0][1]
    return prefix, network


def has_parameters(module: nn.Module) -> bool:
    """Tell whether a module, or one inside it, has parameters."""
    return any(True for _ in module.parameters())


def expand(module: nn.Module, prefix: str, trace: Trace) -> list[Piece]:
    """Return the children, but of a Sequential in which the resolution changes, or of a ModuleList, what is inside."""
    found: list[Piece] = []
    for name, child in module.named_children():
        inside = expand(child, f"{prefix}{name}.", trace)
        resolutions = {trace[piece] for _, piece in inside if piece in trace}
        opened = len(resolutions) > 1 if isinstance(child, nn.Sequential) else child not in trace and bool(resolutions)
        found += inside if opened else [(f"{prefix}{name}", child)]
    return found


def leaves(module: nn.Module, prefix: str) -> list[Piece]:
    """Return the layers, and the largest modules without layers inside."""
    found: list[Piece] = []
    for name, child in module.named_children():
        is_leaf = isinstance(child, LAYERS) or not any(isinstance(inner, LAYERS) for inner in child.modules())
        found += [(f"{prefix}{name}", child)] if is_leaf else leaves(child, f"{prefix}{name}.")
    return found


def forward_order(pieces: list[Piece], trace: Trace) -> list[Piece]:
    """Sort pieces by when they ran. One that did not run stays behind the one registered before it."""
    order = {module: position for position, module in enumerate(trace)}
    placed: dict[nn.Module, tuple[int, str]] = {}  # a module in two places counts where it is registered first
    position = -1
    for path, module in pieces:
        position = order.get(module, position)
        placed.setdefault(module, (position, path))
    return [(path, module) for module, (_, path) in sorted(placed.items(), key=lambda item: item[1][0])]
