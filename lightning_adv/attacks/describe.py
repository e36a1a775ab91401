"""What is said of an attack: its name in a table, and a warning where it cannot reach the edge of its ball."""

from __future__ import annotations

from lightning_adv.attacks.base import Attack
from lightning_adv.attacks.checks import check_counts
from lightning_adv.core.distances import tell_distance

_LABELS = {
    "predicted": ", predicted labels",
    "random": ", random targets",
    "most_likely": ", most-likely targets",
    "least_likely": ", least-likely targets",
}
_ROUNDING = 1e-6  # ten steps of a tenth are an exact match to people


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

    Raises:
        UsageError: Its ``restarts`` are not a whole number of at least 1.
    """
    check_counts(attack, "restarts")
    steps = 1 if attack.steps is None else attack.steps
    name = type(attack).__name__ + (f"-{steps}" if steps > 1 else "")
    name += f" × {attack.restarts} restarts" if attack.restarts > 1 else ""
    name += f" ({attack.variant})" if attack.variant else ""
    return name + _LABELS.get(str(attack.label), "") + (", any iterate" if attack.early_stop else "")


def shortfall(attack: Attack, argument: str, *, steps: int | None = None) -> str | None:
    """Return a warning of an attack whose steps cannot lead from the centre of its ball to the edge; None otherwise.

    It is allowed: such an attack is a way to look at small perturbations, or at the random start alone.

    Args:
        attack: The attack.
        argument: The argument that gave it, for the warning.
        steps: The number of steps; None takes the attack's own.

    Raises:
        UsageError: The attack does not say what it stays in, see :attr:`Attack.threat_model`.

    Example:
        >>> from lightning_adv.attacks import PGD
        >>> shortfall(PGD(eps=0.2, steps=20), "attack") is None
        True
        >>> shortfall(PGD(eps=0.2, steps=20, step_size=0.005), "attack")[:59]
        'attack: PGD-20 cannot reach the edge of its ball: 20 steps '
    """
    eps, reach, own = attack.threat_model.eps, attack.reach, attack.steps
    if eps is None or reach is None:
        return None
    if steps is not None and own:
        reach *= steps / own
    if reach >= eps * (1 - _ROUNDING):
        return None
    name = attack_name(attack) if steps is None else f"{type(attack).__name__} over steps"
    count = own if steps is None else steps
    taken = "its steps go" if count is None else f"{count} steps go" if count != 1 else "its one step goes"
    return (
        f"{argument}: {name} cannot reach the edge of its ball: {taken} {tell_distance(reach)} far at most, and eps is "
        f"{tell_distance(eps)}, so that a robust accuracy under it may be far too high. Leave step_size out, and it "
        "follows eps, or give a larger one or more steps."
    )
