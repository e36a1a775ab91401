"""What the arguments of every attack are checked for."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_adv.attacks.base import Attack
from lightning_adv.core.errors import UsageError


def check_choices(attack: Attack, **allowed: Sequence[str]) -> None:
    """Check that arguments are among the names that are allowed for each.

    Raises:
        UsageError: One is not.
    """
    for name, names in allowed.items():
        given = getattr(attack, name)
        if given not in names:
            raise UsageError(f"{name} must be one of {', '.join(names)}, got {given!r}.")


def check_counts(attack: Attack, *names: str) -> None:
    """Check that arguments are whole numbers of at least 1.

    Raises:
        UsageError: One is not.
    """
    for name in names:
        given = getattr(attack, name)
        if not isinstance(given, int) or given < 1:
            raise UsageError(f"{name} must be an integer of at least 1, got {given!r}.")
