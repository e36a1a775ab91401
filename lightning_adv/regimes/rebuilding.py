"""What a regime's checkpoint must say for the regime, or its network alone, to be built again from it."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from lightning_adv.core.arguments import check_arguments, parameters_of
from lightning_adv.core.recipe import Recipe, find_class
from lightning_adv.nn.named_by_files import check_texts
from lightning_adv.regimes.optimizers import callable_from_config

_DECIDE = ("build_network", "prepare_network", "configure_model", "forward", "logits")
"""The methods that decide what network there is, and what it is asked."""

_RECIPES, _FACTORIES = ("attack", "evaluation_attack", "objective", "weight_perturbation"), ("optimizer", "scheduler")


REPLACED = "what replaced modules of it after build_network"


def modules_of(network: nn.Module) -> list[tuple[str, type, str]]:
    """Return the paths, classes and, of torch's own, settings of a network's modules.

    BatchNorms count as one class, synchronised or not. Dropout, which may be scheduled, is nothing that predicts.
    """
    return [(path, *_kind(module, untold=_DropoutNd)) for path, module in network.named_modules(remove_duplicate=False)]


def modules_digest(network: nn.Module) -> str:
    """Return a checksum of what a network is made of: the paths, classes and, of torch's own, settings of its modules.

    Two networks of the same keys may differ in it: an average in the place of a maximum, another stride.

    Example:
        >>> same = modules_digest(nn.MaxPool2d(2)) == modules_digest(nn.MaxPool2d(2))
        >>> same, modules_digest(nn.MaxPool2d(2)) == modules_digest(nn.MaxPool2d(3))
        (True, False)
    """
    told = []
    for path, module in network.named_modules(remove_duplicate=False):
        kind, settings = _kind(module)
        told.append((path, kind.__qualname__, settings))
    return hashlib.sha256(repr(told).encode()).hexdigest()


def _kind(module: nn.Module, untold: type | tuple[type, ...] = ()) -> tuple[type, str]:
    """Return a module's class, and its settings if it is torch's and not of one of some classes."""
    if isinstance(module, _BatchNorm):
        return _BatchNorm, ""
    torchs = type(module).__module__.startswith("torch.nn.") and not isinstance(module, untold)
    return type(module), module.extra_repr() if torchs else ""


def asked_by(regime: LightningModule) -> str | None:
    """Return the method of another package that decides what a regime's network is asked; None where there is none."""
    return _by_another(regime, ("forward", "logits"))


def network_changed_by(regime: LightningModule, network: nn.Module, built: list[tuple[str, type, str]]) -> str | None:
    """Return what makes a regime's network another than this package rebuilds from its checkpoint; None for nothing.

    Args:
        regime: The regime.
        network: Its network as it is.
        built: :func:`modules_of` the network when it was built.
    """
    if (method := _by_another(regime, _DECIDE)) is not None:
        return method
    if modules_of(network) != built:
        return REPLACED
    return None


def _by_another(regime: LightningModule, methods: tuple[str, ...]) -> str | None:
    for name in methods:
        owner = next((kind for kind in type(regime).__mro__ if name in vars(kind)), type(regime))
        if not _is_ours(owner):
            return f"{owner.__module__}.{owner.__qualname__}.{name}"
    return None


def _is_ours(kind: type[Any]) -> bool:
    return kind.__module__.startswith("lightning_adv.regimes.")


def check_saved_arguments(
    kind: type[LightningModule], saved: Mapping[str, Any], given: Mapping[str, Any], *, source: str
) -> None:
    """Check that the arguments in a checkpoint are those of a regime's class, before it is built.

    Args:
        kind: The class.
        saved: The arguments in the checkpoint.
        given: The caller's arguments: Lightning's own, and those that replace the file's.
        source: The argument and the file, for the error.

    Raises:
        UsageError: One is unknown, missing or of another type, or the class that they are for cannot be found.
    """
    if given.get("hparams_file") is not None:
        return
    if saved.get("_class_path") is not None:  # of a command's run: Lightning builds this class, and not the one asked
        kind = find_class(saved["_class_path"], kind)
    lightnings = inspect.signature(LightningModule.load_from_checkpoint).parameters
    replaced = {name: value for name, value in given.items() if name not in lightnings}
    own = {name: value for name, value in saved.items() if not name.startswith("_")}  # the others are Lightning's
    takes_all = inspect.getfullargspec(kind.__init__).varkw is not None
    known = parameters_of(kind)
    arguments = {name: value for name, value in (own | replaced).items() if takes_all or name in known}
    check_arguments(kind, arguments, source=f"{source}: hyper_parameters")


def built_parts(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Build the parts among a regime's saved arguments: jsonargparse, which Lightning would build them with, imports.

    It takes any text in a place for a callable or a class for a path to import: ``loss: beside.Loss``, or for a file
    that has one.

    Args:
        saved: The arguments in the checkpoint, after :func:`~lightning_adv.nn.named_by_files.check_named`.

    Raises:
        UsageError: A part is not one of those that there are, or an argument of another package's regime holds the path
            of something that was not imported and is not trusted.
    """
    built: dict[str, Any] = {}
    for name, value in saved.items():
        if name in _FACTORIES:
            built[name] = callable_from_config(value)
        elif name in _RECIPES and value is not None:
            built[name] = find_class(value["class_path"], Recipe).from_config(value)
        elif name != "backbone" and not name.startswith("_"):
            check_texts(value, name)
    return built
