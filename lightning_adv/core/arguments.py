"""Plain data as the arguments of a class: whether names and types are right, before the class is built."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from lightning_adv.core.errors import UsageError

_SCALARS: dict[Any, tuple[type, ...]] = {bool: (bool,), int: (int,), float: (int, float), str: (str,)}


def check_arguments(kind: type, arguments: Any, *, source: str) -> None:
    """Check that plain data can be the keyword arguments of a class.

    What ``**kwargs`` take in is looked up in the base classes. Annotations that are neither plain values nor containers
    of them are left to the class.

    Args:
        kind: The class.
        arguments: What is to be its arguments.
        source: What gave them, for the error.

    Raises:
        UsageError: The class is abstract, or an argument is unknown, missing or of another type.

    Example:
        >>> from lightning_adv.attacks import PGD
        >>> check_arguments(PGD, {"steps": "many"}, source="attack")
        Traceback (most recent call last):
        lightning_adv.core.errors.UsageError: attack: steps of PGD is 'many', which is not of type int.
    """
    if inspect.isabstract(kind):
        raise UsageError(f"{source}: {kind.__name__} is the base of such classes, and none itself: name one of them.")
    if not isinstance(arguments, Mapping) or not all(isinstance(name, str) for name in arguments):
        raise UsageError(f"{source}: the arguments of {kind.__name__} must be a mapping of names, got {arguments!r}.")
    known = parameters_of(kind)
    for name, value in arguments.items():
        if name not in known:
            raise UsageError(f"{source}: {kind.__name__} has no argument {name!r}; it has {', '.join(known)}.")
        if not _fits(value, known[name]):
            told = getattr(known[name], "__name__", str(known[name])) if known[name] in _SCALARS else str(known[name])
            raise UsageError(
                f"{source}: {name} of {kind.__name__} is {value!r}, which is not of type {told.replace('typing.', '')}."
            )
    for parameter in _own(kind):
        if parameter.default is parameter.empty and parameter.name not in arguments:
            raise UsageError(f"{source}: {kind.__name__} needs {parameter.name}, which is not given.")


def check_choices(built: object, kind: type) -> None:
    """Check that what an object keeps of its constructor's arguments is what their ``Literal`` annotations allow.

    Called by a constructor once it has kept them, under their own names. Of ``Literal["a"] | Other`` a value of the
    other types is left alone.

    Args:
        built: The object.
        kind: The class whose constructor it is, of which the object's own may be a subclass.

    Raises:
        UsageError: An argument is not among its choices.

    Example:
        >>> class Sampler:
        ...     def __init__(self, order: Literal["random", "sorted"] = "random") -> None:
        ...         self.order = order
        ...         check_choices(self, Sampler)
        >>> Sampler("reversed")
        Traceback (most recent call last):
        lightning_adv.core.errors.UsageError: order must be one of random, sorted, got 'reversed'.
    """
    for name, (choices, hint) in _choices_of(kind).items():
        given = getattr(built, name)
        if not _fits(given, hint):
            raise UsageError(f"{name} must be one of {', '.join(choices)}, got {given!r}.")


@functools.cache
def _choices_of(kind: type) -> dict[str, tuple[tuple[str, ...], Any]]:
    """Return by argument what a constructor's ``Literal`` annotations offer, as text, and the annotations."""
    found = {}
    for name, hint in get_type_hints(vars(kind)["__init__"]).items():
        literals = [part for part in _parts(hint) if get_origin(part) is Literal]
        if literals:
            # True stands for a "true" that YAML reads so, and is not offered
            offered = [value for part in literals for value in get_args(part) if value is not True]
            found[name] = (tuple(map(str, offered)), hint)
    return found


def _parts(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def parameters_of(kind: type) -> dict[str, Any]:
    """Return the names of a class's keyword arguments with their types, those that ``**kwargs`` hand on included."""
    known: dict[str, Any] = {}
    for base in kind.__mro__:
        if base is object or "__init__" not in vars(base):
            continue
        try:
            hints = get_type_hints(vars(base)["__init__"])
        except (NameError, TypeError):  # names that are imported for type checkers only
            hints = {}
        signature = inspect.signature(vars(base)["__init__"]).parameters.values()
        for parameter in list(signature)[1:]:
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                known.setdefault(parameter.name, hints.get(parameter.name, Any))
        if all(parameter.kind != parameter.VAR_KEYWORD for parameter in signature):
            break
    return known


def _own(kind: type) -> list[inspect.Parameter]:
    variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return [parameter for parameter in inspect.signature(kind).parameters.values() if parameter.kind not in variable]


def _fits(value: Any, hint: Any) -> bool:
    """Tell whether a value is of an annotated type; one that is not known here fits."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, part) for part in inner)
    if origin is Literal:
        return any(type(value) is type(part) and value == part for part in inner)
    if hint in (None, type(None)):
        return value is None
    if hint in _SCALARS:
        return isinstance(value, _SCALARS[hint]) and (hint is bool or not isinstance(value, bool))
    container = origin if isinstance(origin, type) else hint if isinstance(hint, type) else None
    if container is None:
        return True
    if issubclass(container, Mapping):
        return isinstance(value, Mapping) and (not inner or all(_fits(item, inner[1]) for item in value.values()))
    if container in (list, tuple, Sequence):
        items = inner[:1] if len(inner) == 2 and inner[1] is ... else inner
        return isinstance(value, (list, tuple)) and (
            not items or all(_fits(item, items[index % len(items)]) for index, item in enumerate(value))
        )
    return True
