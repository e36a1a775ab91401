"""What a package offers, each module of which is imported when the first of its names is used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any


def offer(package: str, by_module: Mapping[str, Iterable[str]]) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a package: it imports what is asked for.

    A package defines its ``__getattr__`` by it, and its ``__all__``; the names stand below ``TYPE_CHECKING`` too.

    Args:
        package: The package's name.
        by_module: By module, relative to the package, what it offers; a module that is offered itself has its own name.

    Example:
        >>> offer("lightning_adv.core", {"errors": ["UsageError"]})("UsageError")
        <class 'lightning_adv.core.errors.UsageError'>
        >>> offer("lightning_adv.core", {"errors": ["errors"]})("errors")
        <module 'lightning_adv.core.errors' from '...errors.py'>
    """
    module_of = {name: module for module, names in by_module.items() for name in names}

    def get(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = import_module(f".{module_of[name]}", package)
        return module if name == module_of[name] else getattr(module, name)

    return get
