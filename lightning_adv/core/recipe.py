"""Recipes: objects that say what to build, and can be written down as plain data.

A checkpoint must load with ``torch.load(weights_only=True)``, so it cannot hold a network factory or an attack.
It holds their *recipe* instead, in the form that YAML has too: ``{"class_path": ..., "init_args": {...}}``.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping
from typing import Any, Self, TypeVar

from lightning_adv.core.arguments import check_arguments, parameters_of
from lightning_adv.core.distances import tell_distance
from lightning_adv.core.errors import UsageError
from lightning_adv.core.importing import find_module
from lightning_adv.core.moved import new_class_path
from lightning_adv.core.trust import how_to_trust, is_of, is_trusted

KindT = TypeVar("KindT")

_OURS = "lightning_adv"

FACTORIES = ("torch.optim", "timm.optim", "timm.scheduler", "lightning.pytorch")
"""Packages of dependencies that optimizers and schedules come from, and that a file may name."""


class NotImportedError(UsageError):
    """A file names a class whose module nobody has imported, and nobody trusts."""


class Recipe:
    """Base of everything that a checkpoint stores by its arguments.

    The one rule for subclasses is scikit-learn's: ``__init__`` keeps each argument in an attribute of the same
    name, without changing what it means.

    Example:
        >>> from lightning_adv.attacks import PGD
        >>> PGD(eps="8/255", steps=3).to_config()["init_args"]["steps"]
        3
    """

    def __repr__(self) -> str:
        """Write the recipe down as the call that makes it, with every argument; grey levels as ``8/255``.

        Example:
            >>> from lightning_adv.attacks import FGSM
            >>> FGSM(eps=8 / 255)
            FGSM(eps=8/255, norm=Linf(), label='true', batchnorm='eval')
        """
        return (
            f"{type(self).__name__}({', '.join(f'{name}={_shown(value)}' for name, value in self.arguments().items())})"
        )

    def arguments(self) -> dict[str, Any]:
        """Return the arguments as they are kept: ``type(recipe)(**recipe.arguments())`` is the same recipe.

        Example:
            >>> from lightning_adv.attacks import FGSM
            >>> list(FGSM().arguments())
            ['eps', 'norm', 'label', 'batchnorm']
        """
        return {name: getattr(self, name) for name in parameters_of(type(self))}

    def to_config(self) -> dict[str, Any]:
        """Return ``{"class_path": str, "init_args": dict}`` made of plain Python values.

        Raises:
            UsageError: An argument is neither a plain value nor a recipe.
        """
        init_args = {name: _plain(value, f"{type(self).__name__}.{name}") for name, value in self.arguments().items()}
        return {"class_path": public_path(type(self)), "init_args": init_args}

    @classmethod
    def from_config(cls, config: Any) -> Self:
        """Build the recipe again from :meth:`to_config`'s result. A recipe is returned as it is.

        Raises:
            UsageError: ``config`` does not name a subclass of this class, or one that was not imported (see
                :func:`find_class`), or its arguments are not those of that class.
        """
        if isinstance(config, cls):
            return config
        if not isinstance(config, dict):
            # What a command gives to an argument without annotation is of its parser's class, and no dict.
            hint = f" Annotate the argument that takes it: {cls.__name__}." if isinstance(config, Namespace) else ""
            raise UsageError(f"Expected a {cls.__name__} or its class_path and init_args, got {config!r}.{hint}")
        # A recipe whose class is fixed (Backbone) is written in YAML by its arguments alone.
        class_path, init_args = config.get("class_path"), config.get("init_args")
        built = cls if class_path is None else find_class(class_path, cls)
        arguments = config if class_path is None else ({} if init_args is None else init_args)
        check_arguments(built, arguments, source=cls.__name__.lower() if class_path is None else str(class_path))
        return built(**arguments)


def public_path(kind: type) -> str:
    """Return the dotted path by which users import a class: that of the package that offers it, if one does.

    It is what files name a class by, so that a class may move to another module of its package.

    Example:
        >>> from lightning_adv.attacks import PGD
        >>> PGD.__module__, public_path(PGD)
        ('lightning_adv.attacks.pgd', 'lightning_adv.attacks.PGD')
    """
    package = ".".join(kind.__module__.split(".")[:2])
    offered = kind.__module__.startswith(f"{_OURS}.") and getattr(sys.modules.get(package), kind.__name__, None) is kind
    return f"{package}.{kind.__name__}" if offered else f"{kind.__module__}.{kind.__qualname__}"


def find_class(class_path: str, kind: type[KindT], *, allowed: tuple[str, ...] = ()) -> type[KindT]:
    """Return the class that a file names, if it may be imported because a file says so.

    Args:
        class_path: The dotted path. Its module must be trusted (:func:`~lightning_adv.core.trust.is_trusted`), or have
            been imported by whoever runs the program: a file of that name may lie beside the checkpoint.
        kind: What the class must be or derive from.
        allowed: Packages of dependencies that may be imported too, such as ``timm.optim``.

    Raises:
        NotImportedError: Its module was not imported, and is not trusted.
        UsageError: There is no such class, or it is of another kind.

    Example:
        >>> from lightning_adv.attacks import Attack
        >>> find_class("lightning_adv.attacks.PGD", Attack)
        <class 'lightning_adv.attacks.pgd.PGD'>
    """
    if not isinstance(class_path, str):
        raise UsageError(f"class_path must be the dotted path of a class, got {class_path!r}.")
    path = new_class_path(class_path)
    check_trusted(path, what=f"class_path {class_path!r}", allowed=allowed)
    found = import_class(path)
    if not issubclass(found, kind):
        raise UsageError(f"{class_path} is not a {kind.__name__}.")
    return found


def check_trusted(path: str, *, what: str, allowed: tuple[str, ...] = ()) -> None:
    """Check that a file may name what is at a dotted path; a name without a module imports nothing.

    Args:
        path: The path.
        what: What the error calls it.
        allowed: Packages that may be imported too.

    Raises:
        NotImportedError: Its module is neither trusted nor was it imported.

    Example:
        >>> check_trusted("beside.Network", what="backbone.name 'beside.Network'")
        Traceback (most recent call last):
        lightning_adv.core.recipe.NotImportedError: backbone.name 'beside.Network' is not of this package, ...
    """
    module = path.rpartition(".")[0]
    if not module or module in sys.modules or is_trusted(module) or is_of(module, set(allowed)):
        return
    raise NotImportedError(
        f"{what} is not of this package, and {module} was not imported: nothing is imported because a file names it. "
        f"{how_to_trust(module)}"
    )


def check_class_paths(config: Any) -> None:
    """Check that every ``class_path`` in plain data that a file holds could be found by :func:`find_class`.

    Raises:
        UsageError: One is of a module that was not imported and is not trusted.
    """
    if isinstance(config, Mapping):
        if isinstance(path := config.get("class_path"), str) and "." in path:  # a name alone imports nothing
            find_class(path, object, allowed=FACTORIES)
        for value in config.values():
            check_class_paths(value)
    elif isinstance(config, (list, tuple)):
        for value in config:
            check_class_paths(value)


def import_class(class_path: str) -> type:
    """Import the class that a dotted path names. For what the user names: see :func:`find_class` for files.

    Raises:
        UsageError: There is no such class.
    """
    if not isinstance(class_path, str):
        raise UsageError(f"class_path must be the dotted path of a class, got {class_path!r}.")
    module, names = find_module(class_path) if all(class_path.split(".")) else (None, [])
    if module is None:
        parent = class_path.rpartition(".")[0]
        why = f"there is no module {parent!r}" if parent else "it must be a dotted path, such as my_package.MyClass"
        raise UsageError(f"class_path {class_path!r} cannot be imported: {why}.")
    found: Any = module
    for name in names:
        if not hasattr(found, name):
            raise UsageError(f"class_path {class_path!r} cannot be imported: {found.__name__} has no {name!r}.")
        found = getattr(found, name)
    if not isinstance(found, type):
        raise UsageError(f"class_path {class_path!r} is not a class.")
    return found


def _shown(value: Any) -> str:
    """Write an argument of a call down; a number of grey levels as a fraction, if that is the same number."""
    levels, slash, _ = tell_distance(value).partition("/") if isinstance(value, float) else ("", "", "")
    return f"{levels}/255" if slash and float(levels) / 255 == value else repr(value)


def _plain(value: Any, name: str) -> Any:
    if isinstance(value, Recipe):
        return value.to_config()
    if isinstance(value, (list, tuple)):
        return [_plain(item, name) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item, name) for key, item in value.items()}
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise UsageError(f"{name} is {value!r}, which a checkpoint cannot hold as plain data.")
