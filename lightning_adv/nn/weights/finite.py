"""Whether a network holds numbers: one of NaN computes something, and would be measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_adv.core.errors import UsageError


def not_finite(tensors: Mapping[str, Any]) -> list[str]:
    """Return the names of the floating tensors that hold NaN or infinite numbers, in order; other values are ignored.

    Each is looked at where it lies, and only one answer for each device is waited for. That is of sums, which cost a
    tenth of a look at each entry: a sum is finite only if all its terms are. Finite terms may overflow, and are looked
    at again.
    """
    floating = {name: value for name, value in tensors.items() if isinstance(value, Tensor) and _is_floating(value)}
    sound = {name: torch.isfinite(value.detach().sum()) for name, value in floating.items()}
    for device in {value.device for value in sound.values()}:
        if not torch.stack([value for value in sound.values() if value.device == device]).all():
            return [name for name, fine in sound.items() if not fine and not torch.isfinite(floating[name]).all()]
    return []


def _is_floating(value: Tensor) -> bool:
    return value.is_floating_point() or value.is_complex()


def check_finite_network(network: nn.Module, argument: str) -> None:
    """Check that a network's weights and running statistics are numbers, before it is measured or given away.

    Args:
        network: The network.
        argument: What gave its weights, for the error.

    Raises:
        UsageError: They are not: it would compute NaN, and be as accurate as a guess of the first class.
    """
    state = network.state_dict()
    if broken := not_finite(state):
        raise UsageError(
            f"{argument}: the network holds NaN or infinite numbers in {broken[0]}, {len(broken)} of {len(state)} "
            "tensors in all: nothing can be measured on it."
        )
