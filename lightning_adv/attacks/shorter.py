"""A shorter attack of the same kind, for where many images are attacked again and again."""

from __future__ import annotations

import copy

from lightning_adv.attacks.base import Attack
from lightning_adv.attacks.describe import shortfall


def shortened(attack: Attack, passes: int) -> Attack | None:
    """Return an attack as it is, but for fewer restarts and then fewer steps, so that it takes ``passes`` at most.

    The step size stays, unless so few steps could not reach the edge of the ball any more: then they are lengthened
    until they go as far as the steps of the whole attack did.

    Args:
        attack: The attack; it stays as it is.
        passes: How often an image may go through the network, see :attr:`Attack.passes`.

    Returns:
        The attack itself if it is short enough. None where fewer steps would not be the same kind of attack: without a
        number of ``steps`` in a ball, as for minimal perturbations (C&W) and ensembles (AutoAttack).

    Example:
        >>> from lightning_adv.attacks import PGD
        >>> short = shortened(PGD(eps="8/255", steps=2000, step_size="1/255", restarts=2), 200)
        >>> short.steps, short.restarts, round(255 * short.step_size)
        (200, 1, 1)
    """
    if attack.passes <= passes:
        return attack
    steps = attack.steps
    if not isinstance(steps, int) or attack.passes != steps * attack.restarts or attack.threat_model.eps is None:
        return None
    short = copy.copy(attack)
    short.restarts = max(1, passes // steps)
    short.steps = min(steps, passes)
    if shortfall(short, "") is not None and isinstance(short.step_size, int | float):
        short.step_size = float(short.step_size) * steps / short.steps
    return short
