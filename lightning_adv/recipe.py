"""Recipes: objects that say what to build, and can be written down as plain data.

A checkpoint must load with ``torch.load(weights_only=True)``, so it cannot hold a network factory or an attack.
It holds their *recipe* instead, in the form that YAML has too: ``{"class_path": ..., "init_args": {...}}``.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any, Self


class Recipe:
    """Base of everything that a checkpoint stores by its arguments.

    The one rule for subclasses is scikit-learn's: ``__init__`` keeps each argument in an attribute of the same
    name, without changing what it means.

    Example:
        >>> from lightning_adv.attacks import PGD
        >>> PGD(eps="8/255", steps=3).to_config()["init_args"]["steps"]
        3
    """

    def to_config(self) -> dict[str, Any]:
        """Return ``{"class_path": str, "init_args": dict}`` made of plain Python values.

        Raises:
            ValueError: An argument is neither a plain value nor a recipe.
        """
        names = list(inspect.signature(type(self)).parameters)
        init_args = {name: _plain(getattr(self, name), f"{type(self).__name__}.{name}") for name in names}
        return {"class_path": f"{type(self).__module__}.{type(self).__qualname__}", "init_args": init_args}

    @classmethod
    def from_config(cls, config: Any) -> Self:
        """Build the recipe again from :meth:`to_config`'s result. A recipe is returned as it is.

        Raises:
            ValueError: ``config`` does not name a subclass of this class.
        """
        if isinstance(config, cls):
            return config
        if not isinstance(config, dict):
            raise ValueError(f"Expected a {cls.__name__} or its class_path and init_args, got {config!r}.")
        # A recipe whose class is fixed (Backbone) is written in YAML by its arguments alone.
        class_path, init_args = config.get("class_path"), config.get("init_args")
        built = cls if class_path is None else import_class(class_path)
        if not issubclass(built, cls):
            raise ValueError(f"{class_path} is not a {cls.__name__}.")
        arguments = config if class_path is None else ({} if init_args is None else init_args)
        return built(**arguments)


def import_class(class_path: str) -> type:
    """Import the class that a dotted path names.

    Raises:
        ValueError: There is no such class.
    """
    module, _, name = class_path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"class_path {class_path!r} cannot be imported: {error}") from error
    if not isinstance(found, type):
        raise ValueError(f"class_path {class_path!r} is not a class.")
    return found


def _plain(value: Any, name: str) -> Any:
    if isinstance(value, Recipe):
        return value.to_config()
    if isinstance(value, (list, tuple)):
        return [_plain(item, name) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item, name) for key, item in value.items()}
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise ValueError(f"{name} is {value!r}, which a checkpoint cannot hold as plain data.")
