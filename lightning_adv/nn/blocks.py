"""A network as an ordered list of blocks, to be frozen, reinitialised and retrained one by one.

Siddiqui, Breuel, "Identifying Layers Susceptible to Adversarial Attacks" (2021). Section 3 dissects a network into the
modules m0, m1, ... that its down-sampling layers delimit, section 5.1 into single layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_adv.core.errors import UsageError
from lightning_adv.core.suggestions import did_you_mean
from lightning_adv.nn.block_parts import layers, stages, timm_groups
from lightning_adv.nn.trace import (
    LAYERS,
    POOLED,
    Piece,
    expand,
    forward_order,
    leaves,
    trace_forward,
    unwrap,
)

Unit = Literal["block", "layer"]
Side = Literal["before", "after"]


@dataclass(frozen=True)
class Block:
    """A part of a network.

    Args:
        name: ``m0``, ``m1``, ... or the path of a layer.
        modules: Dotted paths of the modules, in forward order; each stands for all that is inside it.
        parameters: Dotted paths of parameters that lie in none of the modules (a ViT's ``cls_token``).
    """

    name: str
    modules: tuple[str, ...]
    parameters: tuple[str, ...] = ()


def split_blocks(network: nn.Module, image_shape: Sequence[int], *, unit: Unit = "block") -> list[Block]:
    """Split a network into blocks or single layers (Siddiqui and Breuel 2021, sections 3 and 5.1).

    ``unit="block"`` follows the resolution of the features through the network's children, opening a ``Sequential``
    within which it changes:

    - Where the resolution changes, a block begins. What comes after the global pooling is the last block, the head. A
      part without parameters that would be a block of its own joins the block before it.
    - If the first stage works at the resolution of the images, because the stem does not down-sample (CIFAR stems), the
      stem is still a block of its own. ResNets and VGGs so have the paper's six modules, whatever their stem.
    - timm's networks of tokens, or of a single resolution (ViT, MLP-Mixer), are split into the coarse groups of their
      ``group_matcher``: the stem, each transformer block, the head.

    ``unit="layer"`` makes a block of each convolution, linear layer or ``nn.MultiheadAttention``, together with the
    modules that run between it and the next one: normalisation, activation, dropout. It is named by its path. The
    convolution of a down-sampling shortcut is a layer of its own, and so are those of squeeze-and-excitation.

    Each parameter and each BatchNorm belongs to exactly one block. Parameters of a module that was split belong to
    the first block inside that module; a module that does not run belongs to the block of the one registered before
    it. The normalisation of a :class:`~lightning_adv.nn.normalize.NormalizedNetwork` belongs to none.

    The network runs once, in eval mode, on black images, which are enlarged to 64×64 where it takes them so: a last
    stage that only gets 1×1 features is still told apart. It is left as it was.

    Args:
        network: A classifier of images (N, C, H, W), also with domain BatchNorms and replaced activations.
        image_shape: Shape (C, H, W) of the images.
        unit: ``block`` or ``layer``.

    Returns:
        The blocks in forward order, with paths inside ``network``.

    Raises:
        UsageError: An argument is outside what is allowed, or the network does not take such images, or has no
            layers.

    Example:
        >>> from torchvision.models import resnet18
        >>> [block.modules for block in split_blocks(resnet18(), (3, 32, 32))]
        [('conv1', 'bn1', 'relu'), ('maxpool', 'layer1'), ('layer2',), ('layer3',), ('layer4',), ('avgpool', 'fc')]
    """
    if unit not in ("block", "layer"):
        raise UsageError(f"unit must be 'block' or 'layer', got {unit!r}.")
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise UsageError(f"image_shape must be three positive numbers (C, H, W), got {tuple(image_shape)}.")
    if not any(isinstance(module, LAYERS) for module in network.modules()):
        raise UsageError("network has no convolution or linear layer to make a block of.")
    trace, image_resolution = trace_forward(network, image_shape)
    prefix, inner = unwrap(network)
    if unit == "layer":
        parts = layers(forward_order(leaves(inner, prefix), trace))
        names = [next(path for path, module in part if isinstance(module, LAYERS)) for part in parts]
    else:
        pieces = forward_order(expand(inner, prefix, trace), trace)
        parts = stages(pieces, trace, image_resolution)
        has_tokens = any(len(trace.get(module, POOLED)) == 1 for _, module in pieces)
        if hasattr(inner, "group_matcher") and (has_tokens or len(parts) < 3):
            parts = timm_groups(inner, prefix)
        names = [f"m{index}" for index in range(len(parts))]
    return _blocks(network, names, parts)


def choose_blocks(
    blocks: Sequence[Block],
    *,
    names: Sequence[str] | None = None,
    cutoff: int | str | None = None,
    side: Side = "before",
) -> list[Block]:
    """Choose blocks by their names, by a cut-off (section 3), or all of them.

    Args:
        blocks: All blocks of a network, in forward order.
        names: Names of the blocks to choose, in any order (section 5.2).
        cutoff: A number k with 0 < k < n cuts the n blocks into the first k and the other n - k. The name of
            a block cuts right before that block.
        side: The blocks ``before`` or those ``after`` the cut-off.

    Returns:
        The chosen blocks, in forward order.

    Raises:
        UsageError: An argument is outside what is allowed.

    Example:
        >>> blocks = [Block(name, ()) for name in ("m0", "m1", "m2")]
        >>> [block.name for block in choose_blocks(blocks, cutoff=1, side="after")]
        ['m1', 'm2']
    """
    known = [block.name for block in blocks]
    if names is not None and cutoff is not None:
        raise UsageError(f"names {list(names)} and cutoff {cutoff!r} are both given: leave one out.")
    if side not in ("before", "after"):
        raise UsageError(f"side must be 'before' or 'after', got {side!r}.")
    if cutoff is None and side == "after":
        raise UsageError("side 'after' needs a cutoff.")
    if names is not None:
        indices = {_index(known, name, argument="names") for name in names}
        if not indices:
            raise UsageError(f"names must hold at least one of {', '.join(known)}, got none.")
        return [blocks[index] for index in sorted(indices)]
    if cutoff is None:
        return list(blocks)
    cut = _index(known, cutoff, argument="cutoff") if isinstance(cutoff, str) else cutoff
    if not 0 < cut < len(blocks):
        raise UsageError(
            f"cutoff must leave blocks on both sides: a number from 1 to {len(blocks) - 1} or one of "
            f"{', '.join(known[1:])}, got {cutoff!r}."
        )
    return list(blocks[:cut] if side == "before" else blocks[cut:])


def freeze_except(network: nn.Module, blocks: Sequence[Block], *, only_batchnorm: bool = False) -> list[nn.Module]:
    """Freeze all of a network but some blocks, in place.

    Frozen parameters require no gradient and hold none, so that an optimizer leaves them out, weight decay included.
    What was frozen before stays frozen. To stop the statistics of frozen BatchNorms, dropout and stochastic depth, the
    modules that are returned must be in eval mode whenever the network is in train mode.

    Args:
        network: The network that the blocks are of.
        blocks: The blocks to train.
        only_batchnorm: Train the affine parameters of these blocks' BatchNorms only, and let only their statistics
            move; dropout in the blocks is off (Xie 2020, section 6.4.4).

    Returns:
        Every module that holds no trained part. Modules around trained parts, such as ``network``, are not among
        them.

    Raises:
        UsageError: Nothing would be left to train, or a block is not of this network.

    Example:
        >>> network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
        >>> freeze_except(network, [Block("m1", modules=("1",))])[0] is network[0]  # what must be in eval mode
        True
        >>> [name for name, parameter in network.named_parameters() if parameter.requires_grad]
        ['1.weight', '1.bias']
    """
    roots = [_find(network.get_submodule, path, block) for block in blocks for path in block.modules]
    chosen = {module for root in roots for module in root.modules()}
    single = [_find(network.get_parameter, path, block) for block in blocks for path in block.parameters]
    if only_batchnorm:
        chosen = {module for module in chosen if isinstance(module, _BatchNorm)}
        single = []
    trained = {id(p) for module in chosen for p in module.parameters(recurse=False)} | {id(p) for p in single}
    if not any(id(parameter) in trained and parameter.requires_grad for parameter in network.parameters()):
        what = "BatchNorm parameter" if only_batchnorm else "parameter"
        raise UsageError(f"blocks {[block.name for block in blocks]} hold no {what} that can be trained.")
    for parameter in network.parameters():
        if id(parameter) not in trained:
            parameter.requires_grad_(False)
            parameter.grad = None  # an optimizer would step, and decay, a parameter that has one
    # without the modules of chosen blocks, with parameters or (dropout) without, and without those around them
    return [module for module in network.modules() if chosen.isdisjoint(module.modules())]


def reinitialize(network: nn.Module, fresh: nn.Module, blocks: Sequence[Block]) -> None:
    """Put the initial parameters and buffers of a freshly built network into blocks, in place.

    ``reset_parameters()`` of the layers would be another initialisation than the network's own: it sets to one the
    last BatchNorm of a residual block that timm starts at zero.

    Args:
        network: The network that the blocks are of.
        fresh: A network that was built the same way, under a seed of the caller's choice.
        blocks: The blocks to reinitialise.

    Raises:
        UsageError: A block's parameters or buffers differ in name or shape between the networks; nothing is copied.

    Example:
        >>> network, fresh = (nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)) for _ in range(2))
        >>> reinitialize(network, fresh, [Block("m1", modules=("1",))])
        >>> [torch.equal(layer.weight, initial.weight) for layer, initial in zip(network, fresh, strict=True)]
        [False, True]
    """
    pairs: list[tuple[Tensor, Tensor]] = []
    for block in blocks:
        state, new = _state(network, block), _state(fresh, block)
        differing = sorted(
            name
            for name in state.keys() | new.keys()
            if name not in state or name not in new or state[name].shape != new[name].shape
        )
        if differing:
            raise UsageError(f"fresh is built differently from network: block {block.name} differs in {differing[0]}.")
        pairs += [(tensor, new[name]) for name, tensor in state.items()]
    with torch.no_grad():
        for tensor, initial in pairs:
            tensor.copy_(initial)


def _blocks(network: nn.Module, names: list[str], parts: list[list[Piece]]) -> list[Block]:
    """Name the parts, and give the parameters that are in none to the first part inside the module that has them."""
    inside = {id(parameter) for part in parts for _, module in part for parameter in module.parameters()}
    loose: list[list[str]] = [[] for _ in parts]
    for name, parameter in network.named_parameters():
        if id(parameter) not in inside:
            holder = name[: name.rfind(".") + 1]
            first = next(i for i, part in enumerate(parts) if any(path.startswith(holder) for path, _ in part))
            loose[first].append(name)
    return [
        Block(name, tuple(path for path, _ in part), tuple(own))
        for name, part, own in zip(names, parts, loose, strict=True)
    ]


def _index(known: list[str], name: str, argument: str) -> int:
    if name not in known:
        raise UsageError(f"{argument} must be of {', '.join(known)}, got {name!r}.{did_you_mean(name, known)}")
    return known.index(name)


def _find(lookup: Callable[[str], Any], path: str, block: Block) -> Any:
    try:
        return lookup(path)
    except AttributeError as error:
        raise UsageError(f"block {block.name} is not of this network, which has no {path}.") from error


def _state(network: nn.Module, block: Block) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {path: _find(network.get_parameter, path, block) for path in block.parameters}
    for path in block.modules:
        module = _find(network.get_submodule, path, block)
        state |= {f"{path}.{name}": tensor for name, tensor in module.state_dict().items()}
    return state
