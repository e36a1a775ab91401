"""Restarts: an attack is run several times, and of each sample the worst result for the network is kept."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_adv.attacks.balls import per_sample


class Run(NamedTuple):
    """What one run has found.

    Attributes:
        images: The results (N, ...).
        rank: What counts first (N,): whether the attack has succeeded, or how far.
        loss: What counts among equals (N,).
    """

    images: Tensor
    rank: Tensor
    loss: Tensor


def worse(first: Run, second: Run) -> Run:
    """Keep of each sample the result that ranks higher, or, of two equals, the one with the larger loss.

    Of two that are the same in both the first is kept.

    Example:
        >>> runs = [Run(torch.tensor([[i], [i]]), torch.tensor([i, 0]), torch.tensor([0.0, 1.0])) for i in range(2)]
        >>> worse(*runs).images
        tensor([[1],
                [0]])
    """
    better = torch.where(first.rank == second.rank, second.loss > first.loss, second.rank > first.rank)
    return Run(*(where(better, new, old) for new, old in zip(second, first, strict=True)))


def where(mask: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """Return ``new`` (N, ...) for the samples in ``mask`` (N,), and ``old`` (N, ...) for the rest."""
    return torch.where(mask.view(per_sample(new)), new, old)
