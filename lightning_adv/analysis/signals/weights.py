"""A network held still whose weights have gradients all the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from lightning_adv.attacks import held_still
from lightning_adv.core.errors import UsageError


@contextmanager
def weights_of(network: nn.Module) -> Iterator[tuple[nn.Module, list[nn.Parameter]]]:
    """Hold a network still, with gradients to the parameters that are trained, and without autocast.

    Gradients are taken by ``torch.autograd.grad``, which writes to no ``.grad`` and starts no reduction between
    processes. Without autocast, since fp16 rounds gradients of a mean loss to zero and casts that were cached outside
    have no gradient.

    Yields:
        The network to call, and its parameters that require gradients.

    Raises:
        UsageError: None of them does.
    """
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not trained:
        raise UsageError("The network must have weights that are trained, and no parameter of it requires a gradient.")
    with held_still(network) as still, torch.autocast(trained[0].device.type, enabled=False):
        for parameter in trained:
            parameter.requires_grad_(True)  # held_still takes their gradients for the time, and gives them back
        yield still, trained
