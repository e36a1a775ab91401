"""What an evaluation computes on."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from lightning.fabric import Fabric
from lightning.fabric.strategies.ddp import DDPStrategy

from lightning_adv.core.errors import UsageError


def make_fabric(accelerator: str, devices: int | str | list[int], precision: str = "32-true") -> Fabric:
    """Return Lightning's Fabric for the devices that are asked for.

    Raises:
        UsageError: There are no such devices, or no such precision.
    """
    given: dict[str, Any] = {"accelerator": accelerator, "devices": devices, "precision": precision}
    try:
        fabric = Fabric(**given)
        if fabric.world_size > 1:
            # A process that has nothing left waits for the slowest, which may take longer than the default half hour.
            fabric = Fabric(**given, strategy=DDPStrategy(timeout=timedelta(days=7)))
        return fabric
    except (RuntimeError, TypeError, ValueError) as error:  # each of Lightning's accelerators has one of its own
        told = ", ".join(f"{name} {value!r}" for name, value in given.items())
        raise UsageError(
            f"accelerator, devices and precision must be those of this machine, got {told}: {error}"
        ) from error
