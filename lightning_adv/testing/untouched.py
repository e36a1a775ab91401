"""Whether something left a network as it was."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class Snapshot:
    """A network as it is now, to be compared with what it is later.

    Args:
        network: The network.
        running_statistics: Whether those of its BatchNorms are looked at, and not its other buffers only.

    Example:
        >>> network = nn.Linear(2, 2)
        >>> before = Snapshot(network)
        >>> _ = network.eval()
        >>> before.difference()
        "module '' is in eval mode"
    """

    def __init__(self, network: nn.Module, *, running_statistics: bool = True) -> None:
        self._network = network
        self._statistics = running_statistics
        self._training = {name: module.training for name, module in network.named_modules()}
        self._trainable = {name: parameter.requires_grad for name, parameter in network.named_parameters()}
        self._tensors = {name: _copy(tensor) for name, tensor in self._now()}

    def difference(self) -> str | None:
        """Return what is another now than it was, in words; None where nothing is."""
        for name, module in self._network.named_modules():
            if module.training != self._training.get(name):
                return f"module {name!r} is in {'train' if module.training else 'eval'} mode"
        for name, parameter in self._network.named_parameters():
            if parameter.requires_grad != self._trainable.get(name):
                return f"requires_grad of {name} is {parameter.requires_grad}"
        for name, tensor in self._now():
            if not _same(tensor, self._tensors.get(name)):
                return f"{name} has other values"
        return None

    def _now(self) -> list[tuple[str, Tensor | None]]:
        found: list[tuple[str, Tensor | None]] = []
        for name, parameter in self._network.named_parameters():
            found += [(name, parameter), (f"{name}.grad", parameter.grad)]
        for path, module in self._network.named_modules():
            if self._statistics or not isinstance(module, _BatchNorm):
                found += [
                    (f"{path}.{name}".lstrip("."), buffer) for name, buffer in module.named_buffers(recurse=False)
                ]
        return found


def _copy(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().clone()


def _same(first: Tensor | None, second: Tensor | None) -> bool:
    """Whether two are the same to the bit; NaN is the same as NaN."""
    if first is None or second is None:
        return first is second
    return first.shape == second.shape and torch.equal(first.detach().nan_to_num(), second.nan_to_num())
