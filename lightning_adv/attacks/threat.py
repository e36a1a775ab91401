"""What an accuracy was measured against, in words that a table has room for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning_adv.attacks.balls import Ball, get_ball
from lightning_adv.attacks.base import Attack
from lightning_adv.attacks.distance import parse_distance
from lightning_adv.core.errors import UsageError

_LABELS = {
    "predicted": ", predicted labels",
    "random": ", random targets",
    "most_likely": ", most-likely targets",
    "least_likely": ", least-likely targets",
}


def ball_of(attack: Attack) -> Ball | None:
    """Return the ball of an attack's ``norm``, which may be the name of a norm; None if it is None, or not there.

    Raises:
        UsageError: It is neither a :class:`~lightning_adv.attacks.Ball` nor the name of a norm.
    """
    norm = getattr(attack, "norm", None)
    if norm is None or isinstance(norm, Ball):
        return norm
    if not isinstance(norm, str):
        raise UsageError(f"{type(attack).__name__}.norm must be linf, l2, l1 or a Ball, got {norm!r}.")
    try:
        return get_ball(norm.lower())
    except ValueError as error:
        raise UsageError(f"{type(attack).__name__}.{error}") from error


def eps_of(attack: Attack) -> float | None:
    """Return an attack's ``eps``, which may be a fraction as text; None if it is None, or not there.

    Raises:
        UsageError: It is no distance.
    """
    eps = getattr(attack, "eps", None)
    return None if eps is None else parse_distance(eps, f"{type(attack).__name__}.eps")


def threat_model(attack: Attack) -> dict[str, Any] | None:
    """Return the norm and ``eps`` of the ball that an attack stays in; None if it stays in none, as GD does.

    Raises:
        UsageError: It has an ``eps`` and no ``norm``, or a ``norm`` and no ``eps``, so that nobody knows what it stays
            in; or one of them cannot be read. An attack that stays in no ball of a norm has neither, or None for it.
    """
    name, given = type(attack).__name__, [hasattr(attack, part) for part in ("norm", "eps")]
    if getattr(attack, "eps", None) is not None and not given[0]:
        raise UsageError(
            f"{name} has eps {attack.eps!r}, but says no norm: keep it in self.norm, as in self.norm = 'linf', or None "  # type: ignore[attr-defined]
            "if it stays in no ball of a norm."
        )
    ball = ball_of(attack)
    if ball is not None and not given[1]:
        raise UsageError(
            f"{name} has norm {ball.name!r}, but says no eps: keep the radius in self.eps, so that the attack can be "
            "moved to another one."
        )
    eps = eps_of(attack)
    if ball is None or eps is None or not getattr(attack, "project", True):
        return None
    return {"norm": type(ball).__name__, "eps": eps}


def attack_name(attack: Attack) -> str:
    """Return the attack's name as papers write it: PGD-20.

    Example:
        >>> from lightning_adv.attacks import PGD
        >>> attack_name(PGD(steps=20))
        'PGD-20'
        >>> attack_name(PGD(steps=20, label="random"))
        'PGD-20, random targets'
        >>> attack_name(PGD(steps=20, early_stop=True))  # broken if any iterate succeeds, not the last alone
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
