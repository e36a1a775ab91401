"""Modules of a network in the places of others, and whether these places are the only ones.

A network's layers are its registered children: conversions and replacements put new modules there. A network that
keeps a layer a second time where nobody sees it (in a Python list, say) goes on calling the old one.
"""

from __future__ import annotations

import functools
import types
import weakref
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from lightning_adv.core.errors import UsageError

# What torch keeps for itself in every module: children, tensors, hooks, the compiled call.
_TORCHS = frozenset(vars(nn.Module())) | {"_compiled_call_impl"}
_PLAIN = (bool, int, float, complex, str, bytes, type(None), Tensor, type, types.ModuleType, torch.dtype, fx.Graph)
_Found = Iterator[tuple[str, nn.Module]]


def replace_modules(
    network: nn.Module, new: Mapping[nn.Module, nn.Module], *, purpose: str, kind: type[nn.Module] | None = None
) -> nn.Module:
    """Put new modules wherever a network has old ones, in place, if these are the only places that it calls them from.

    Args:
        network: The network.
        new: The new module by the old one.
        purpose: What the new modules are for, as the error says it: ``"domain BatchNorms"``.
        kind: A class of which every module is to be replaced: one that is not registered at all is an error then.

    Returns:
        ``network``; what stands for it, if it is an old module itself.

    Raises:
        UsageError: The network holds an old module outside its registered children too. It is unchanged.

    Example:
        >>> network = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        >>> replace_modules(network, {network[1]: nn.SiLU()}, purpose="activations")[1]
        SiLU()
    """
    check_registered(network, new, purpose=purpose, kind=kind)
    return put_modules(network, new)


def check_registered(
    network: nn.Module, old: Collection[nn.Module], *, purpose: str, kind: type[nn.Module] | None = None
) -> None:
    """Check that a network holds modules as registered children only. See :func:`replace_modules`.

    Raises:
        UsageError: It holds one elsewhere too.
    """
    paths = {module: path for path, module in network.named_modules()}
    for holder, where, module in hidden_references(network):
        if module in old or (kind is not None and isinstance(module, kind) and module not in paths):
            raise UsageError(_told(holder, paths[holder], where, module, paths.get(module), purpose))


def put_modules(network: nn.Module, new: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """Do what :func:`replace_modules` does without its check, for callers that compare the outputs."""
    for parent in list(network.modules()):
        for name, child in list(parent._modules.items()):  # named_children leaves out what is there twice
            if child is not None and child in new:
                setattr(parent, name, new[child])
    return new.get(network, network)


def hidden_references(network: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """Yield each module that a network holds otherwise than as a registered child: in a list, a closure, a partial, ...

    Nothing runs, and of objects in objects only the outer one is looked into: a forward pass shows the rest.

    Args:
        network: The network.

    Yields:
        The module of the network that holds it, where (``layers[0]``), and the module.

    Example:
        >>> network = nn.Sequential(nn.ReLU())
        >>> network.layers = [network[0]]
        >>> [(where, module) for _, where, module in hidden_references(network)]
        [('layers[0]', ReLU())]
    """
    classes: set[type] = {nn.Module, object}
    for holder in network.modules():
        seen = {id(holder)}
        for name, value in vars(holder).items():
            if name not in _TORCHS:
                yield from ((holder, where, module) for where, module in _modules_in(value, name, seen, objects=1))
        for kind in type(holder).__mro__:  # a class made in a function can close over modules, and hold some
            if kind not in classes and not kind.__module__.startswith("torch."):
                for name, value in vars(kind).items():
                    yield from ((holder, where, module) for where, module in _modules_in(value, name, seen, objects=0))
            classes.add(kind)


def _modules_in(value: Any, where: str, seen: set[int], objects: int) -> _Found:
    """Yield the modules inside a value. ``objects`` is how many foreign objects deep to look."""
    if isinstance(value, _PLAIN) or id(value) in seen:
        return
    if isinstance(value, nn.Module):
        # not in `seen`: the same module in another place is another reference, of which the first is told
        yield where, value
        return
    seen.add(id(value))
    for place, part, deeper in _parts(value, where, objects):
        yield from _modules_in(part, place, seen, deeper)


def _parts(value: Any, where: str, objects: int) -> Iterator[tuple[str, Any, int]]:
    """Yield what a value is made of: where it is, the part, and how many objects deep to look in it."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield f"{where}[{key!r}]", part, objects
            yield f"{where}[{key!r}]", key, objects
    elif isinstance(value, (list, tuple, set, frozenset)):
        for index, part in enumerate(value):
            yield f"{where}[{index}]", part, objects
    elif isinstance(value, functools.partial):
        yield where, value.func, objects
        yield where, value.args, objects
        yield where, value.keywords, objects
    elif isinstance(value, types.MethodType):
        yield f"{where}.__self__", value.__self__, objects
        yield where, value.__func__, objects
    elif isinstance(value, types.FunctionType):
        for cell in value.__closure__ or ():
            yield f"the closure of {where}", _contents(cell), objects
        yield f"the defaults of {where}", value.__defaults__, objects
        yield f"the defaults of {where}", value.__kwdefaults__, objects
    elif isinstance(value, (staticmethod, classmethod)):
        yield where, value.__func__, objects
    elif isinstance(value, weakref.ref):
        yield where, value(), objects
    elif objects:
        for name, part in getattr(value, "__dict__", {}).items():
            yield f"{where}.{name}", part, objects - 1


def _contents(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # an empty one
        return None


def _told(holder: nn.Module, holder_path: str, where: str, module: nn.Module, path: str | None, purpose: str) -> str:
    owner = type(holder).__name__ + (f" at {holder_path}" if holder_path else "")
    which = f"its {type(module).__name__}" + ("" if path is None else f" {path}")
    also = "where it is not registered" if path is None else "beside its registered place"
    return (
        f"{owner} keeps {which} in {where}, {also}, and would go on calling the old module in place of the {purpose}: "
        "let it keep its layers in an nn.ModuleList, nn.ModuleDict or nn.Sequential, or call them by their attributes."
    )
