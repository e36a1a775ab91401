"""The objects that a configuration names, and what their constructors raise."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar

from lightning.fabric.utilities.exceptions import MisconfigurationException

from lightning_adv.commands.shared.messages import not_built
from lightning_adv.core.errors import UsageError

Builder = tuple[Callable[..., Any], type, bool]
"""A function that builds the objects of a class, that class, and whether it does so for its subclasses too."""

_LIBRARIES = ("torch", "timm", "lightning")
_REFUSALS = (ValueError, TypeError, ImportError, MisconfigurationException)

_building: ContextVar[bool] = ContextVar("_building", default=False)


BuiltT = TypeVar("BuiltT")


def build(make: Callable[[list[Builder] | None], BuiltT], builders: Sequence[Builder]) -> BuiltT:
    """Build objects by jsonargparse, and let what a constructor raises come out as it was raised.

    jsonargparse makes one text of the errors of all types that a key has, and loses the traceback.

    Args:
        make: Calls jsonargparse with the builders; with None inside of another call of this function, which has its
            own.
        builders: What builds the objects of some classes.

    Raises:
        UsageError: A class of Lightning's, torch's or timm's refuses its options, or jsonargparse does.
    """
    if _building.get():
        return make(None)
    failed: list[Exception] = []
    token = _building.set(True)
    try:
        return make([(_noting(each, failed), kind, below) for each, kind, below in [*builders, (_call, object, True)]])
    except Exception as error:
        if not failed and isinstance(error, ValueError):  # jsonargparse's own, of a value that does not fit
            raise UsageError(not_built(str(error)) or error) from error
        if not failed:
            raise
    finally:
        _building.reset(token)
    raise failed[0]  # out of the block, so that it keeps its own context


def _call(kind: type, *args: Any, **kwargs: Any) -> Any:
    return kind(*args, **kwargs)


def _noting(builder: Callable[..., Any], failed: list[Exception]) -> Callable[..., Any]:
    """Return a builder that keeps what a constructor raises."""

    @functools.wraps(builder)  # jsonargparse looks at its signature
    def noting(kind: type, *args: Any, **kwargs: Any) -> Any:
        try:
            return builder(kind, *args, **kwargs)
        except Exception as error:
            failed.append(_told(kind, error))
            raise

    return noting


def _told(kind: type, error: Exception) -> Exception:
    """Return the error of a constructor: a library's refusal of its options as a sentence, any other as it is."""
    if kind.__module__.partition(".")[0] not in _LIBRARIES or not isinstance(error, _REFUSALS):
        return error
    told = UsageError(f"{kind.__module__}.{kind.__qualname__} cannot be built: {' '.join(str(error).split())}")
    told.__cause__ = error
    return told
