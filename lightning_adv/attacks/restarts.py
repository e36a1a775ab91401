"""Restarts: an attack is run several times, and of each sample the worst result for the network is kept."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import torch
from torch import Tensor

from lightning_adv.attacks.balls import per_sample

if TYPE_CHECKING:
    from lightning_adv.attacks.stated import Stated

A = TypeVar("A", bound="Stated")


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


def single_runs(attack: A) -> list[A]:
    """Return the runs of an attack as attacks of one run each; an attack of one run is its own.

    Example:
        >>> from lightning_adv.attacks import PGD
        >>> [run.turn for run in single_runs(PGD(label="most_likely", restarts=3))]
        [0, 1, 2]
    """
    if attack.restarts == 1:
        return [attack]
    once = copy.copy(attack)
    once.restarts = 1
    if attack.label != "most_likely":  # runs that differ by their noise alone are one attack, which counts its calls
        return [once] * attack.restarts
    runs = [copy.copy(once) for _ in range(attack.restarts)]
    for turn, run in enumerate(runs, start=attack.turn):
        run.turn = turn
    return runs


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
