"""Can an attack reach the edge of its ball? One that cannot reports a robustness that is not there."""

from __future__ import annotations

from lightning_adv.attacks.base import Attack
from lightning_adv.attacks.threat import attack_name, threat_model
from lightning_adv.core.distances import tell_distance

_ROUNDING = 1e-6  # ten steps of a tenth are an exact match to people


def shortfall(attack: Attack, argument: str, *, steps: int | None = None) -> str | None:
    """Return a warning of an attack whose steps cannot lead from the centre of its ball to the edge; None otherwise.

    It is allowed: such an attack is a way to look at small perturbations, or at the random start alone.

    Args:
        attack: The attack.
        argument: The argument that gave it, for the warning.
        steps: The number of steps; None takes the attack's own.

    Example:
        >>> from lightning_adv.attacks import PGD
        >>> shortfall(PGD(eps=0.2, steps=20), "attack") is None
        True
        >>> shortfall(PGD(eps=0.2, steps=20, step_size=0.005), "attack")[:59]
        'attack: PGD-20 cannot reach the edge of its ball: 20 steps '
    """
    if not hasattr(attack, "norm"):  # nobody knows what its eps is the radius of
        return None
    threat, reach = threat_model(attack), attack.reach
    if threat is None or reach is None:
        return None
    own = getattr(attack, "steps", None)
    if steps is not None and isinstance(own, int) and own:
        reach *= steps / own
    if reach >= threat["eps"] * (1 - _ROUNDING):
        return None
    name = attack_name(attack) if steps is None else f"{type(attack).__name__} over steps"
    count = own if steps is None else steps
    taken = "its steps go" if count is None else f"{count} steps go" if count != 1 else "its one step goes"
    return (
        f"{argument}: {name} cannot reach the edge of its ball: {taken} {tell_distance(reach)} far at most, and eps "
        f"is {tell_distance(threat['eps'])}, so that a robust accuracy under it may be far too high. Leave step_size "
        "out, and it follows eps, or give a larger one or more steps."
    )
