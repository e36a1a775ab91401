"""A BatchNorm in eval mode, folded into the layer before it.

With running statistics a BatchNorm multiplies each channel by a number and adds another, which a convolution or linear
layer before it can do itself: its weights times the number, its bias moved. That holds only if nobody else sees what
is between the two, so a trial forward pass watches who reads which memory.
"""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lightning_adv.core.errors import UsageError

Layer: TypeAlias = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear


@functools.cache
def foldable_layers() -> frozenset[type[nn.Module]]:
    """Return the layers that can take a BatchNorm in.

    Exact types: a subclass may do something else with its weights. Weight standardisation, say, undoes every scaling.
    """
    from timm.layers import Conv2dSame

    return frozenset((nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, Conv2dSame))


@functools.cache
def foldable_norms() -> frozenset[type[nn.Module]]:
    """Return the BatchNorms that are known, likewise."""
    from timm.layers import BatchNormAct2d
    from timm.layers.norm_act import SyncBatchNormAct

    torchs = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    return frozenset((*torchs, BatchNormAct2d, SyncBatchNormAct))


class Pair(NamedTuple):
    """A layer and the BatchNorm that alone reads its output."""

    layer: Layer
    norm: _BatchNorm


class Foldable(NamedTuple):
    """What of a network can be rewritten."""

    pairs: list[Pair]
    lone: list[_BatchNorm]
    """BatchNorms behind something else (a sum, a concatenation, an activation): an :class:`Affine` does for them."""


class Affine(nn.Module):
    """``scale * x + shift`` for each channel: a BatchNorm with running statistics.

    Unlike a BatchNorm it keeps no features for the backward pass.

    Args:
        channels: Number of channels C.
        like: Tells dtype and device.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, channels: int, like: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(channels, dtype=like.dtype, device=like.device))
        self.register_buffer("shift", torch.zeros(channels, dtype=like.dtype, device=like.device))

    def forward(self, x: Tensor) -> Tensor:
        """Map features (N, C, ...)."""
        shape = (-1,) + (1,) * (x.ndim - 2)
        # In the precision of the numbers, as a BatchNorm computes too: bf16's would be coarser than autocast's.
        y = torch.addcmul(self.shift.view(shape), x.to(self.scale.dtype), self.scale.view(shape))
        return y.to(x.dtype)


def find_foldable(network: nn.Module, images: Tensor, foreign: Iterable[Tensor] = ()) -> Foldable:
    """Return what can be rewritten in a network, from a forward pass in eval mode.

    A pair is found where a BatchNorm with running statistics takes the output of a convolution or linear layer as it
    is, each is called once, and nothing else reads this output or the weights of either. So an activation or a skip
    connection in between, a layer that is used twice and shared weights leave the BatchNorm alone.

    Args:
        network: The network, in eval mode and without hooks of its own. Hooks come and go.
        images: Images (N, C, H, W) for the pass.
        foreign: Tensors that the network must not read.

    Raises:
        UsageError: The network reads a foreign tensor, or numbers of tensors: what is computed then may be something
            else another time.
    """
    watch = _Watch(network, foreign)
    watch.run(network, images)
    if watch.decides:
        raise UsageError("it reads numbers of tensors (.item(), or an if on one), and may compute something else then")
    if watch.strayed:
        raise UsageError("a copy of the network computes with the tensors of the network itself, which it holds on to")
    return watch.foldable()


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes by which layer or BatchNorm (None: by anything else) each address of memory is read."""

    def __init__(self, network: nn.Module, foreign: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.watched = [m for m in network.modules() if type(m) in foldable_layers() | foldable_norms()]
        self.foreign = {_address(tensor) for tensor in foreign} - {0}
        self.strayed = self.decides = False
        self.readers: dict[int, set[nn.Module | None]] = defaultdict(set)
        self.calls: Counter[nn.Module] = Counter()
        self.running: nn.Module | None = None
        # Kept alive, so that no address is given out twice.
        self.inputs: dict[nn.Module, Tensor] = {}
        self.outputs: dict[nn.Module, Tensor] = {}

    def run(self, network: nn.Module, images: Tensor) -> None:
        hooks = [m.register_forward_pre_hook(self._enter) for m in self.watched]
        hooks += [m.register_forward_hook(self._leave) for m in self.watched]
        try:
            with torch.no_grad(), self:
                logits = network(images)
        finally:
            for hook in hooks:
                hook.remove()
        self._note(logits)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self._note((args, kwargs))
        self.decides |= func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **({} if kwargs is None else kwargs))

    def _note(self, read: Any) -> None:
        for tensor in tree_leaves(read):
            if isinstance(tensor, Tensor):
                address = _address(tensor)
                self.strayed |= address in self.foreign
                self.readers[address].add(self.running)

    def _enter(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.running = module
        self.calls[module] += 1
        if inputs and isinstance(inputs[0], Tensor):
            self.inputs[module] = inputs[0]

    def _leave(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self.running = None
        if isinstance(output, Tensor):
            self.outputs[module] = output
            if type(module) in foldable_layers():
                self.readers[_address(output)] = set()  # whoever reads it from here on

    def foldable(self) -> Foldable:
        """Return each BatchNorm with the layer that it can be folded into, and those that have none."""
        found = Foldable([], [])
        layers = (m for m in self.watched if type(m) in foldable_layers() and m in self.outputs)
        sources = {_address(self.outputs[layer]): layer for layer in layers}
        for norm in self._norms():
            layer = sources.get(_address(self.inputs[norm]))
            if layer is not None and self._fits(layer, norm):
                found.pairs.append(Pair(cast(Layer, layer), norm))
            else:
                found.lone.append(norm)
        return found

    def _norms(self) -> list[_BatchNorm]:
        """The BatchNorms with running statistics whose tensors nobody else reads."""
        norms = [cast(_BatchNorm, m) for m in self.watched if type(m) in foldable_norms() and m in self.inputs]
        return [n for n in norms if n.running_mean is not None and n.running_var is not None and self._is_private(n)]

    def _fits(self, layer: nn.Module, norm: _BatchNorm) -> bool:
        output = self.outputs[layer]
        return (
            self.calls[layer] == self.calls[norm] == 1
            and self._is_private(layer)
            and self.readers[_address(output)] == {norm}  # not even by a slice: that would be an operation too
            # A linear layer has its channels last, a BatchNorm second.
            and (not isinstance(layer, nn.Linear) or output.ndim == 2)
        )

    def _is_private(self, module: nn.Module) -> bool:
        own = (*module.parameters(recurse=False), *module.buffers(recurse=False))
        return all(self.readers[_address(tensor)] <= {module} for tensor in own)


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def scale_and_shift(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Return what a BatchNorm in eval mode multiplies each channel by, and what it adds: both (C,)."""
    mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    scale = (variance + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = norm.weight * scale
    shift = -mean * scale
    return scale, shift if norm.bias is None else norm.bias + shift


def folded_weights(layer: Layer, norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Return the weight and the bias with which ``layer`` alone computes ``norm(layer(x))``, up to rounding."""
    scale, shift = scale_and_shift(norm)
    weight = layer.weight * scale.view((-1,) + (1,) * (layer.weight.ndim - 1))
    return weight, shift if layer.bias is None else shift + layer.bias * scale


def after(norm: _BatchNorm, before: Iterable[nn.Module] = ()) -> nn.Module:
    """Return what stands in the place of a BatchNorm: ``before``, and the dropout and activation that timm puts in."""
    inside = [getattr(norm, name) for name in ("drop", "act") if isinstance(getattr(norm, name, None), nn.Module)]
    parts = [*before, *(part for part in inside if not isinstance(part, nn.Identity))]
    if not parts:
        return nn.Identity()
    return parts[0] if len(parts) == 1 else nn.Sequential(*parts)
