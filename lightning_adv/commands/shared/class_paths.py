"""From a name in a configuration to what it means, or one sentence that says why it cannot stand there."""

from __future__ import annotations

import importlib
import inspect
import logging
import sys
import typing
from collections.abc import Iterable
from typing import Any, Literal

from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.loggers import Logger
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lightning_adv.attacks import Attack, Loss
from lightning_adv.commands.shared.takes import Takes
from lightning_adv.core.errors import UsageError
from lightning_adv.core.importing import find_module
from lightning_adv.core.plugins import Part, parts, plugins_in, several
from lightning_adv.core.recipe import Recipe
from lightning_adv.core.suggestions import did_you_mean
from lightning_adv.core.trust import trust_package_of
from lightning_adv.interpretation import Section
from lightning_adv.regimes import Regime
from lightning_adv.regimes.objectives import Objective

_BASES = (Recipe, Regime, LightningDataModule, Callback, Logger, Optimizer, LRScheduler)
_ANNOUNCED = {
    "attack": Attack, "callback": Callback, "data": LightningDataModule, "loss": Loss, "objective": Objective,
    "regime": Regime, "section": Section,
}  # fmt: skip
"""What derives from what, of the classes that plugins announce by their kinds."""
_LONGEST_LIST = 250
_HOOKS = ("torch.distributed.algorithms.", "torch.distributed.fsdp.")
"""Where the functions come from that Lightning's strategies are given: hooks of communication, policies of wrapping."""


class MistakeError(UsageError):
    """A mistake in a configuration, in the words of an error."""


def find_part(name: str, allowed: Takes) -> Any:
    """Return what a class path names, after checking that it belongs in its place.

    Nothing is called: only the module is imported.

    Args:
        name: A class path, or the name alone of a class that is imported already or that a plugin announces.
        allowed: What the key takes.

    Raises:
        MistakeError: It names nothing, or nothing of the kind that is taken. A function is no part, except one that
            says by its annotation that it returns such a part, as ``timm.optim.create_optimizer_v2`` does.
    """
    found = _find(name, allowed)
    if inspect.isclass(found):
        _check_class(found, allowed)
    elif not isinstance(found, allowed.classes):
        check_function(found, allowed, name)
    if "." in name:  # the user's own configuration: what files name of the same package has run already
        trust_package_of(name)
    return found


def check_function(found: Any, allowed: Takes, name: str) -> None:
    """Check that a function belongs where its name stands.

    Raises:
        MistakeError: It does not say by its annotation that it returns what is taken.
    """
    if not callable(found):
        raise MistakeError(f"{name!r} is no class.{choices(allowed.classes)}")
    hook = allowed.anything_callable and str(getattr(found, "__module__", "")).startswith(_HOOKS)
    if hook or makes(found, allowed.classes):
        return
    if not allowed.classes:
        raise MistakeError(f"{name!r} is a function, and a configuration calls none: name a class of objects to call.")
    raise MistakeError(
        f"{name!r} is a function, and a configuration calls none that does not say that it returns "
        f"{one_of(allowed.classes)}.{choices(allowed.classes)}"
    )


def makes(function: Any, kinds: tuple[type, ...]) -> bool:
    """Whether a function's annotation says that what it returns is of one of these classes."""
    try:
        returned = typing.get_type_hints(function).get("return")
    except Exception:
        return False
    members = typing.get_args(returned) or (returned,)
    return bool(kinds) and all(inspect.isclass(member) and issubclass(member, kinds) for member in members)


def class_names(kinds: Iterable[type] = _BASES) -> dict[str, list[type]]:
    """Return the classes that can be built among some and all that derive from them, by name."""
    names: dict[str, list[type]] = {}
    waiting, seen = list(kinds), set[type]()
    while waiting:
        found = waiting.pop(0)
        if found in seen:
            continue
        seen.add(found)
        waiting += found.__subclasses__()
        if not (inspect.isabstract(found) or found.__name__.startswith("_") or "<locals>" in found.__qualname__):
            names.setdefault(found.__name__, []).append(found)
    return names


def _find(name: str, allowed: Takes) -> Any:
    """Return the object of a name."""
    if "." in name:
        return _import(name, allowed)
    _load_announced(name, allowed)
    known = class_names(allowed.classes)
    found = known.get(name, [])
    public = {f"{kind.__module__}.{kind.__qualname__}": kind for kind in found}
    if len(public) > 1 and len({_shortest(kind) for kind in found}) > 1:
        raise MistakeError(f"there are several classes {name!r}: write {' or '.join(sorted(map(_shortest, found)))}.")
    if found:
        return found[0]
    if base := [kind for kind in allowed.classes if kind.__name__ == name]:
        return base[0]
    if other := class_names().get(name):
        _check_class(other[0], allowed)
    if elsewhere := parts(name=name):
        kind = elsewhere[0].kind
        raise MistakeError(f"{name!r} is announced as {kind} by {elsewhere[0].plugin}.{choices(allowed.classes)}")
    named = [
        choice for leaf in allowed.leaves if typing.get_origin(leaf) is Literal for choice in typing.get_args(leaf)
    ]
    hint = did_you_mean(name, [*known, *(part.name for part in announced(allowed.classes)), *map(str, named)])
    raise MistakeError(f"there is no class {name!r}.{hint}{choices(allowed.classes, own=not hint)}")


def announced(kinds: tuple[type, ...], name: str | None = None) -> list[Part]:
    """Return the classes that plugins announce for a key that takes some kinds, by one name or by any."""
    fitting = [
        kind
        for kind, base in _ANNOUNCED.items()
        if any(issubclass(base, each) or issubclass(each, base) for each in kinds)
    ]
    return parts(fitting, name)


def _load_announced(name: str, allowed: Takes) -> None:
    """Import the class that a plugin announces by a name, so that it is found among all that are imported.

    Raises:
        MistakeError: It cannot be imported; or another plugin announces one of that name, or this package has one.
    """
    found = announced(allowed.classes, name)
    if not found:
        return
    plugins = {part.plugin.name for part in found}
    others = [
        kind
        for kind in class_names(allowed.classes).get(name, [])
        if not plugins & plugins_in([kind.__module__]).keys()
    ]
    if len(found) + len(others) > 1:
        paths = dict.fromkeys(map(_shortest, others)) | {part.path: part.plugin for part in found}
        raise MistakeError(several(f"class {name!r}", paths))
    try:
        found[0].load()
    except UsageError as error:
        raise MistakeError(str(error)) from error


def load_all_announced() -> None:
    """Import all classes that plugins announce: help lists them. One that cannot be imported is told, and left out."""
    for part in parts(_ANNOUNCED):
        try:
            part.load()
        except UsageError as error:
            logging.getLogger(__name__).warning("%s It is left out.", error)


def _import(name: str, allowed: Takes) -> Any:
    """Import what a dotted path names; a class may lie in another."""
    if not all(part.isidentifier() for part in name.split(".")):
        raise MistakeError(f"{name!r} is no class path, such as my_package.MyClass.{choices(allowed.classes)}")
    try:
        module, names = find_module(name)
    except UsageError as error:
        raise MistakeError(str(error)) from error
    found: Any = module
    for number, attribute in enumerate(names):
        if not hasattr(found, attribute):
            missing = attribute if number == len(names) - 1 else None
            raise _not_there(name, found, missing, allowed)
        found = getattr(found, attribute)
    if module is None:
        raise _not_there(name, None, None, allowed)
    return found


def _not_there(name: str, module: Any, missing: str | None, allowed: Takes) -> MistakeError:
    """Return the error of a path that ends early: in a module that lacks a class, or where there is no module."""
    if missing is None:
        near = did_you_mean(name.rpartition(".")[2], class_names(allowed.classes or _BASES))
        return MistakeError(f"{name!r} cannot be imported: there is no module {name.rpartition('.')[0]!r}.{near}")
    classes = [key for key, value in vars(module).items() if inspect.isclass(value)]
    where = getattr(module, "__name__", name)
    return MistakeError(f"there is no class {missing!r} in {where}.{did_you_mean(missing, classes)}")


def _check_class(found: type, allowed: Takes) -> None:
    """Check that a class is of a kind that is taken, and can be built.

    Raises:
        MistakeError: It is not.
    """
    # Python's own, such as functools.partial, would bring a function where none may be named.
    own = found.__module__.partition(".")[0] not in sys.stdlib_module_names
    fits = issubclass(found, allowed.classes) or (allowed.anything_callable and own and "__call__" in dir(found))
    if not fits and issubclass(found, LightningModule) and Regime in allowed.classes:
        raise MistakeError(
            f"{found.__name__!r} is a LightningModule, and this command trains a Regime: give the module to "
            "Lightning's Trainer or LightningCLI, whose callbacks AdversarialBatches and the observers may be. "
            "docs/any_lightning_module.md shows how."
        )
    if not fits:
        kinds = [kind for kind in _BASES if issubclass(found, kind)]
        what = f", which is {one_of(tuple(kinds[:1]))}" if kinds and kinds[0] is not Recipe else ""
        raise MistakeError(
            f"{found.__name__!r}{what} is not of a class that is allowed here.{choices(allowed.classes)}"
        )
    if inspect.isabstract(found):
        raise MistakeError(f"{found.__name__!r} is the base of others.{choices((found,))}")


def one_of(kinds: tuple[type, ...]) -> str:
    """Return the names of classes as a sentence has them: ``an Attack``."""
    names = " or ".join(dict.fromkeys(kind.__name__ for kind in kinds))
    return f"{'an' if names.startswith(('A', 'E', 'I', 'O', 'LR')) else 'a'} {names}" if names else "what belongs there"


def choices(kinds: tuple[type, ...], *, own: bool = True) -> str:
    """Return a sentence of what is allowed: the base class, and the names of what derives from it."""
    if not kinds:
        return ""
    told = f" It takes {one_of(kinds)}"
    named = class_names(kinds) if own else {}
    names = [name for name, found in named.items() if found[0] not in kinds or not found[0].__subclasses__()]
    ours = {name for name in names if named[name][0].__module__.startswith("lightning_adv.")}
    others = {*names, *(part.name for part in announced(kinds) if own)} - ours
    shown: list[str] = []
    for name in [*sorted(ours), *sorted(others)]:
        if len(", ".join([*shown, name])) > _LONGEST_LIST:
            shown.append("...")
            break
        shown.append(name)
    return f"{told}: {', '.join(shown)}." if shown else f"{told}."


def _shortest(kind: type) -> str:
    """Return the shortest path by which a class is public: ``lightning_adv.attacks.PGD``."""
    parts = kind.__module__.split(".")
    for length in range(1, len(parts) + 1):
        module = ".".join(parts[:length])
        try:
            if getattr(importlib.import_module(module), kind.__name__, None) is kind:
                return f"{module}.{kind.__name__}"
        except ImportError:
            break
    return f"{kind.__module__}.{kind.__qualname__}"
