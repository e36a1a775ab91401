"""What a file that was read must look like: fields, what belongs in each, and the sentence about one that is not so."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from lightning_adv.core.errors import UsageError


class Form(NamedTuple):
    """What a value may be.

    Attributes:
        belongs: It in words, for the error.
        holds: Whether a value is so.
    """

    belongs: str
    holds: Callable[[Any], bool]


class Field(NamedTuple):
    """One field of a checkpoint.

    Attributes:
        path: The keys that lead to it; ``*`` is every key of a mapping or item of a list.
        form: What belongs there.
        required: Whether it must be there; a field that is not may still not be of another form.
    """

    path: tuple[str, ...]
    form: Form
    required: bool = True


def check_form(content: Any, fields: Sequence[Field], *, source: str) -> None:
    """Check that what was read from a file is the checkpoint that a reader takes.

    Args:
        content: What was read.
        fields: The fields that it takes, outer ones before inner ones.
        source: The argument and the file, for the error.

    Raises:
        UsageError: A field is missing, or holds something else than belongs there.

    Example:
        >>> check_form({"epoch": "three"}, [Field(("epoch",), COUNT)], source="checkpoint: last.ckpt")
        Traceback (most recent call last):
        lightning_adv.core.errors.UsageError: checkpoint: last.ckpt has in the field epoch the text 'three', ...
    """
    if not MAPPING.holds(content):
        raise UsageError(f"{source} holds {told(content)}, where the mapping of a checkpoint belongs.")
    for field in fields:
        for name, value, found in _values(content, field.path, ""):
            if found and not field.form.holds(value):
                raise UsageError(f"{source} has in the field {name} {told(value)}, where {field.form.belongs} belongs.")
            if not found and field.required:
                raise UsageError(f"{source} lacks the field {name}, where {field.form.belongs} belongs.")


def told(value: Any) -> str:
    """Say what a value is, in a few words."""
    if value is None:
        return "nothing (None)"
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    if isinstance(value, (bool, int, float)):
        return repr(value)
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, Mapping):
        other = next((key for key in value if not isinstance(key, str)), None)
        if other is not None:
            return f"a mapping with the key {str(other)[:40]}"
        wrong = [(key, type(item).__name__) for key, item in value.items() if not isinstance(item, Tensor)]
        of = f" of {wrong[0][0]!r} to a {wrong[0][1]}" if wrong else ""
        return f"a mapping{of}" if value else "an empty mapping"
    return f"a {type(value).__name__}" + (" without items" if isinstance(value, Sequence) and not value else "")


def _values(content: Any, path: tuple[str, ...], name: str) -> Iterator[tuple[str, Any, bool]]:
    """Yield the name, the value and whether it is there, of every field that a path leads to."""
    if not path:
        yield name, content, True
        return
    key, rest = path[0], path[1:]
    if key == "*":
        if isinstance(content, (Mapping, list, tuple)):
            items = content.items() if isinstance(content, Mapping) else enumerate(content)
            for inner, value in items:
                yield from _values(value, rest, f"{name}[{inner!r}]")
    elif isinstance(content, Mapping):  # what is none was told of the field around it, if it must be one
        inside = f"{name}.{key}" if name else key
        if key in content:
            yield from _values(content[key], rest, inside)
        elif not rest:
            yield inside, None, False


def is_count(value: Any) -> bool:
    """Whether a value is a whole number from 0 on."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _is_tensors(value: Any) -> bool:
    return _is_mapping(value) and all(isinstance(item, Tensor) for item in value.values())


def _is_recipe(value: Any) -> bool:
    return _is_mapping(value) and isinstance(value.get("class_path"), str) and _is_mapping(value.get("init_args", {}))


def _is_progress(value: Any) -> bool:
    return _is_mapping(value) and all(
        _is_mapping(value.get(part))
        and {"ready", "completed"} <= value[part].keys()
        and all(is_count(number) for number in value[part].values())
        for part in ("total", "current")
    )


def or_none(form: Form) -> Form:
    """Return the form of what may be left empty."""
    return Form(f"{form.belongs}, or None,", lambda value: value is None or form.holds(value))


def list_of(what: str, holds: Callable[[Any], bool]) -> Form:
    """Return the form of a list, by what its items are in words and whether one is."""
    return Form(f"a list of {what}", lambda value: isinstance(value, (list, tuple)) and all(map(holds, value)))


COUNT = Form("a whole number", is_count)
TEXT = Form("text", lambda value: isinstance(value, str))
SWITCH = Form("true or false", lambda value: isinstance(value, bool))
MAPPING = Form("a mapping with names as keys", _is_mapping)
STATE = Form("a mapping", lambda value: isinstance(value, Mapping))
TENSORS = Form("a mapping of names to tensors", _is_tensors)
WEIGHTS = Form("a mapping of names to tensors, at least one,", lambda value: _is_tensors(value) and bool(value))
RECIPE = Form("a class_path and init_args", _is_recipe)
FACTORY = Form("a class_path and init_args", lambda value: _is_recipe(value) and "init_args" in value)
VERSION = Form("a version such as 2.6.0", lambda value: isinstance(value, str) and value[:1].isdigit() and "." in value)
PROGRESS = Form("a total and a current mapping of counts", _is_progress)
TENSOR = Form("a tensor", lambda value: isinstance(value, Tensor))
CLASSES = Form("a whole number from 2 on", lambda value: is_count(value) and value >= 2)
SHAPE = Form(
    "three positive whole numbers (C, H, W)",
    lambda value: isinstance(value, (list, tuple)) and len(value) == 3 and all(is_count(n) and n for n in value),
)
