"""What an accuracy was measured against, in words that a table has room for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning_adv.attacks.base import Attack

_LABELS = {
    "predicted": ", predicted labels",
    "random": ", random targets",
    "least_likely": ", least-likely targets",
}


def threat_model(attack: Attack) -> dict[str, Any] | None:
    """Return the norm and ``eps`` of the ball that an attack stays in; None if it stays in none, as GD does."""
    norm, eps = getattr(attack, "norm", None), getattr(attack, "eps", None)
    if norm is None or eps is None or not getattr(attack, "project", True):
        return None
    return {"norm": type(norm).__name__, "eps": eps}


def attack_name(attack: Attack) -> str:
    """Return the attack's name as papers write it: PGD-20.

    Example:
        >>> from lightning_adv.attacks import PGD
        >>> attack_name(PGD(steps=20))
        'PGD-20'
        >>> attack_name(PGD(steps=20, label="random"))
        'PGD-20, random targets'
        >>> attack_name(PGD(steps=20, early_stop=True))  # broken if any iterate is misclassified, not the last alone
        'PGD-20, any iterate'
    """
    steps = getattr(attack, "steps", 1)
    restarts = getattr(attack, "restarts", 1)
    name = type(attack).__name__ + (f"-{steps}" if steps > 1 else "")
    name += f" × {restarts} restarts" if restarts > 1 else ""
    parts: Sequence[str] = getattr(attack, "attacks", ())
    name += f" ({parts[0]})" if len(parts) == 1 else ""
    name += f" ({attack.name})" if hasattr(attack, "name") else ""  # one class for all attacks of a package
    name += _LABELS.get(getattr(attack, "label", "true"), "")
    return name + (", any iterate" if getattr(attack, "early_stop", False) else "")
