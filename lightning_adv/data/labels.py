"""Labels as files have them, numbers or names, as numbers from 0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_adv.core.errors import UsageError

Labels = npt.NDArray[Any]


def name_classes(labels: Labels, names: Sequence[str] | None, where: str) -> tuple[str, ...]:
    """Return the names of the classes in the order of their numbers.

    Args:
        labels: Labels (N,) of the training images: whole numbers from 0, or names.
        names: The names of numbers, where they are known.
        where: The start of the error: whose labels they are.

    Raises:
        UsageError: They are neither, or a number or a name is missing; there are not two classes, or two of one name.

    Example:
        >>> name_classes(np.array(["fox", "cat", "fox"]), None, "The labels")
        ('cat', 'fox')
        >>> name_classes(np.array([1, 0, 2]), None, "The labels")
        ('0', '1', '2')
    """
    _check_labels(labels, where)
    class_names = _classes(np.unique(labels), names, where)
    if len(class_names) < 2:
        told = ", ".join(class_names) or "none"
        raise UsageError(f"{where} has {len(class_names)} classes ({told}): a classifier needs two at least.")
    if twice := sorted({name for name in class_names if class_names.count(name) > 1}):
        raise UsageError(f"{where} has several classes of the name {twice[0]!r}: each has a name of its own.")
    return class_names


def _classes(found: Labels, names: Sequence[str] | None, where: str) -> tuple[str, ...]:
    """Return the names of the classes whose labels are ``found``, each once."""
    if names is not None:
        return tuple(names)
    if found.dtype.kind in "US":
        return tuple(map(_text, found))
    numbers = found.astype(np.int64).tolist()
    if numbers != list(range(len(numbers))):
        raise UsageError(
            f"{where} has the numbers {', '.join(map(str, numbers[:5]))}{', ...' if len(numbers) > 5 else ''}, and "
            "classes are counted from 0 without a gap: count them so, or give the names of all."
        )
    return tuple(map(str, numbers))


def number_labels(labels: Labels, class_names: Sequence[str], where: str) -> npt.NDArray[np.int64]:
    """Return labels (N,), numbers or names, as int64 in [0, K).

    Args:
        labels: The labels.
        class_names: The K classes, by :func:`name_classes`.
        where: The start of the error: whose labels they are.

    Raises:
        UsageError: One is of no class, or they are neither numbers nor names.

    Example:
        >>> number_labels(np.array(["fox", "cat"]), ("cat", "fox"), "The labels")
        array([1, 0])
    """
    _check_labels(labels, where)
    if labels.dtype.kind in "US":
        number = {name: k for k, name in enumerate(class_names)}
        numbered = np.array([number.get(_text(name), -1) for name in labels], dtype=np.int64)
    else:
        numbered = labels.astype(np.int64)
    wrong = (numbered < 0) | (numbered >= len(class_names))
    if wrong.any():
        raise UsageError(
            f"{where} has {_text(labels[wrong][0])!r} for image {int(wrong.argmax())}, which is none of the "
            f"{len(class_names)} classes ({', '.join(class_names[:3])}, ...): it has no label, or one of its own."
        )
    return numbered


def _check_labels(labels: Labels, where: str) -> None:
    if not labels.size:
        raise UsageError(f"{where} is empty: there is no image.")
    missing = [number for number, label in enumerate(labels) if label is None] if labels.dtype.kind == "O" else []
    if missing:
        raise UsageError(
            f"{where} has no label for {len(missing)} of {len(labels)} images, of which image {missing[0]} is the "
            "first: leave them out."
        )
    if labels.dtype.kind not in "iubUS":
        raise UsageError(f"{where} is of {labels.dtype}: labels are whole numbers from 0, or names.")


def _text(name: Any) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
