"""What a network's modules hold beside parameters and buffers, in a form that can be compared later."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from lightning_adv.core.errors import UsageError

# Exact types, compared as they are: nearly all that torch's own layers hold.
_VALUES = frozenset((bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.memory_format))
# Told by their identity: what they do does not change.
_FIXED = (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType, fx.Graph)
# What torch keeps for itself in every module.
_TORCHS = frozenset(vars(nn.Module())) - {"_parameters", "_buffers"} | {"_compiled_call_impl"}


def snapshot(modules: Iterable[nn.Module], shared: Iterable[object] = ()) -> list[Any]:
    """Return all that modules are and hold but the values of their tensors, to be compared with ``==``.

    Args:
        modules: All modules of a network.
        shared: Objects whose state does not count.

    Raises:
        UsageError: A module holds something whose changes cannot be told: a tensor or a foreign module in a list, say.
    """
    modules = list(modules)
    known = {id(module) for module in modules} | {id(other) for other in shared}
    known |= {id(parameter) for module in modules for parameter in module._parameters.values()}
    tensors: dict[int, int] = {}
    return [_attributes(module, known, tensors) for module in modules]


def _attributes(module: nn.Module, known: set[int], tensors: dict[int, int]) -> list[Any]:
    told: list[Any] = [type(module), *((name, _Same(child)) for name, child in module._modules.items())]
    try:
        for name, value in module.__dict__.items():
            if name not in _TORCHS:
                told.append(name)
                told.append(value if type(value) in _VALUES else _token(value, known, (), tensors))
    except _UnknownError as error:
        raise UsageError(f"its {type(module).__name__} holds a {error}, which may change without being seen") from None
    return told


class _UnknownError(Exception):
    """Of this kind is what cannot be compared."""


def _token(value: Any, known: set[int], inside: tuple[int, ...], tensors: dict[int, int] | None = None) -> Any:
    """Return what stands for a value: equal for equal ones.

    ``tensors`` are those that are a module's own, by their identities, in the order in which they were met: tied
    weights are one.
    """
    if type(value) in _VALUES:
        return value
    if tensors is not None and isinstance(value, Tensor):  # its numbers are copied
        return (value.shape, value.dtype, value.device, tensors.setdefault(id(value), len(tensors)))
    if isinstance(value, _FIXED) or id(value) in known or id(value) in inside:
        return _Same(value)
    inside = (*inside, id(value))
    if type(value) is tuple and all(type(item) in _VALUES for item in value):
        return value
    if isinstance(value, Mapping):
        nested = tensors if len(inside) == 1 else None  # a module's own parameters and buffers
        return [(_token(key, known, inside), _token(item, known, inside, nested)) for key, item in value.items()]
    if isinstance(value, (list, tuple, set, frozenset)):
        items = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value
        return [type(value), *(_token(item, known, inside) for item in items)]
    if isinstance(value, functools.partial):
        return [_token(part, known, inside) for part in (value.func, value.args, value.keywords)]
    if isinstance(value, types.MethodType):
        return [_token(part, known, inside) for part in (value.__func__, value.__self__)]
    if isinstance(value, (Tensor, nn.Module)) or not hasattr(value, "__dict__"):
        raise _UnknownError(type(value).__name__)
    return [type(value), _token(vars(value), known, inside)]


class _Same:
    """Equal to what stands for the same object. It keeps the object, so that no other gets its address."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)
