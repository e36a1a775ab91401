"""What a user gives an observer, checked: its name, numbers, and attacks of its own."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from lightning_adv.attacks import Attack
from lightning_adv.attacks.describe import shortfall
from lightning_adv.core.errors import UsageError
from lightning_adv.nn.weights.load import say

_NAME = re.compile(r"\w[\w.-]*")


def name_of_class(kind: type) -> str:
    """Return what the table of an observer's class is called: the class's name in lower case, with underscores.

    Example:
        >>> name_of_class(type("WeightNorm", (), {}))
        'weight_norm'
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind.__name__.lstrip("_")).lower()


def check_name(name: str | None, analysis: str) -> None:
    """Check that an observer's name can name files.

    Raises:
        UsageError: It cannot.
    """
    if name is not None and (not isinstance(name, str) or not _NAME.fullmatch(name)):
        raise UsageError(f"{analysis}.name names files: it must be of letters, digits, '_', '-' and '.', got {name!r}.")


def check_apart(analysis: str, others: Iterable[str]) -> None:
    """Check that no other observer of a run, by the names of their tables, writes into the table of one.

    Args:
        analysis: The name of its table.
        others: The names of all tables, with its own.

    Raises:
        UsageError: Another one does, on a file system that may not tell capitals apart.
    """
    if sum(other.lower() == analysis.lower() for other in others) > 1:
        raise UsageError(
            f"trainer.callbacks has two observers whose analysis is {analysis!r}: they would write into one table. "
            "Give one of them a name of its own."
        )


def given_attacks(arguments: dict[str, Any]) -> dict[str, Attack]:
    """Return the attacks among an observer's arguments, and in dictionaries of them, by what errors call them.

    Args:
        arguments: Its attributes; of dictionaries those that are not private.

    Example:
        >>> from lightning_adv.attacks import FGSM, PGD
        >>> list(given_attacks({"attack": None, "attacks": {"fgsm": FGSM(), "pgd": PGD()}}))
        ['attacks.fgsm', 'attacks.pgd']
    """
    found: dict[str, Attack] = {}
    for name, value in arguments.items():
        several = value.items() if isinstance(value, dict) and not name.startswith("_") else ()
        found |= {name: value} if isinstance(value, Attack) else {}
        found |= {f"{name}.{each}": attack for each, attack in several if isinstance(attack, Attack)}
    return found


def tell_shortfalls(attacks: dict[str, Attack], analysis: str) -> None:
    """Warn of attacks that cannot reach the edge of their ball."""
    for name, attack in attacks.items():
        if (short := shortfall(attack, f"{analysis}.{name}")) is not None:
            say(short, warn=True)
