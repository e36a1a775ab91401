"""What a key of a configuration takes, out of its type."""

from __future__ import annotations

import collections
import collections.abc
import inspect
import re
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from os import PathLike
from typing import Any, Literal

from jsonargparse.typing import get_registered_type
from torch import Tensor

_MODULE = r"\b(?:\w+\.)+"
_MAPPINGS = (
    dict, collections.OrderedDict, collections.defaultdict, collections.abc.Mapping, collections.abc.MutableMapping
)  # fmt: skip
_SEQUENCES = (
    list, tuple, set, frozenset, collections.deque, collections.abc.Iterable, collections.abc.Collection,
    collections.abc.Sequence, collections.abc.Set, collections.abc.MutableSequence, collections.abc.MutableSet,
)  # fmt: skip
_MARKS = (typing.Annotated, typing.Required, typing.NotRequired)


@dataclass(frozen=True)
class Takes:
    """What a key takes.

    Args:
        parts: Base classes: an object of one of them, given by its class_path and init_args.
        made: Base classes of what a factory makes, as an optimizer's key takes a class that is called later.
        anything_callable: Whether any object that can be called is taken.
        listed: What the items of a list are; None where no list of parts is taken.
        mapped: What the values of a mapping are; None where no mapping of parts is taken.
        leaves: What else is taken: numbers, texts, lists and mappings of such.
        null: Whether null is.
        anything: Whether nothing is known of it.
    """

    parts: tuple[type, ...] = ()
    made: tuple[type, ...] = ()
    anything_callable: bool = False
    listed: Takes | None = None
    mapped: Takes | None = None
    leaves: tuple[Any, ...] = ()
    null: bool = False
    anything: bool = False

    @property
    def classes(self) -> tuple[type, ...]:
        """All base classes, those of the items of lists and mappings too."""
        return self.parts + self.made + (self.listed.classes if self.listed else ())

    @property
    def composed(self) -> bool:
        """Whether the key takes a class at all."""
        return bool(self.classes) or self.anything_callable or self.listed is not None or self.mapped is not None

    @property
    def text(self) -> bool:
        """Whether any text is taken, which then need be no class."""
        return self.anything or any(leaf is str for leaf in self.leaves)


def takes(hint: Any) -> Takes:
    """Return what a key of this type takes.

    Example:
        >>> from lightning_adv.attacks import Attack
        >>> takes(Attack | None).parts, takes(Attack | None).null
        ((<class 'lightning_adv.attacks.base.Attack'>,), True)
        >>> takes(list[Attack]).listed.parts, takes(int | str).leaves
        ((<class 'lightning_adv.attacks.base.Attack'>,), (<class 'int'>, <class 'str'>))
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is None or hint is type(None):
        return Takes(null=True)
    if hint in (Any, object, inspect.Parameter.empty):
        return Takes(anything=True, null=True)
    if isinstance(hint, typing.NewType):
        return takes(hint.__supertype__)
    if origin in _MARKS:
        return takes(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return _together([takes(argument) for argument in arguments])
    if origin is collections.abc.Callable or hint in (typing.Callable, collections.abc.Callable):
        made = takes(arguments[-1]).parts if arguments else ()
        return Takes(made=made, anything_callable=not made)
    listed, mapped = _items(hint)
    if (items := _together([takes(item) for item in listed or mapped])).composed:
        return Takes(listed=items if listed else None, mapped=items if mapped else None)
    if getattr(hint, "_is_protocol", False) and "__call__" in vars(hint):
        return Takes(anything_callable=True)
    if inspect.isclass(hint) and issubclass(hint, Tensor):
        return Takes()  # as torch's learning rates: no file holds one
    if origin is Literal or not _is_part(origin or hint):
        return Takes(leaves=(hint,))
    return Takes(parts=(origin or hint,))


def _items(hint: Any) -> tuple[Sequence[Any], Sequence[Any]]:
    """Return the types of what a list holds, whichever place each has, and of the values of a mapping."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    named = inspect.isclass(hint) and issubclass(hint, tuple) and hasattr(hint, "_fields")
    if named or typing.is_typeddict(hint):
        fields = list(typing.get_type_hints(hint).values())
        return (fields if named else (), fields)
    return (arguments if origin in _SEQUENCES else (), arguments[1:] if origin in _MAPPINGS else ())


def _is_part(hint: Any) -> bool:
    """Whether this is a class that is given by class_path and init_args, as jsonargparse sees it."""
    if not inspect.isclass(hint) or hint.__module__ in ("builtins", "typing", "collections", "collections.abc"):
        return False
    if issubclass(hint, (Enum, PathLike, tuple)) or get_registered_type(hint) is not None:
        return False
    # What a protocol takes the parser compares method by method.
    return not (typing.is_typeddict(hint) or getattr(hint, "_is_protocol", False))


def _together(alternatives: list[Takes]) -> Takes:
    return Takes(
        parts=tuple(part for each in alternatives for part in each.parts),
        made=tuple(made for each in alternatives for made in each.made),
        anything_callable=any(each.anything_callable for each in alternatives),
        listed=next((each.listed for each in alternatives if each.listed), None),
        mapped=next((each.mapped for each in alternatives if each.mapped), None),
        leaves=tuple(leaf for each in alternatives for leaf in each.leaves),
        null=any(each.null for each in alternatives),
        anything=any(each.anything for each in alternatives),
    )


def describe(hint: Any) -> str:
    """Return the type in the words of an error, such as ``int`` or ``one of 'auto', 'off'``.

    Example:
        >>> describe(int | None), describe(Literal["a", "b"]), describe(float | list[str])
        ('of type int', "one of 'a', 'b'", 'of type float or list[str]')
    """
    found = takes(hint)
    choices = [
        choice for leaf in found.leaves if typing.get_origin(leaf) is Literal for choice in typing.get_args(leaf)
    ]
    types_ = [leaf for leaf in found.leaves if typing.get_origin(leaf) is not Literal]
    names = [leaf.__name__ if inspect.isclass(leaf) and not typing.get_args(leaf) else str(leaf) for leaf in types_]
    named = f"of type {' or '.join(re.sub(_MODULE, '', name) for name in names)}" if names else ""
    chosen = f"one of {', '.join(map(repr, choices))}" if choices else ""
    return " or ".join(each for each in (chosen, named) if each)
