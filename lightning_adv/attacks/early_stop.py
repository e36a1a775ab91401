"""Early stop: a sample that is broken is worked on no further."""

from __future__ import annotations

import torch
from torch import Tensor


class RemainingSamples:
    """The samples of a batch that an attack has not broken yet, among all of them.

    A broken sample stays where it was when it left; the others are moved on.

    Args:
        start: Where each sample starts (N, ...).

    Attributes:
        images: Where each sample is (N, ...). One tensor, which every move writes to.
        rows: The indices (n,) of those that are not broken.
    """

    def __init__(self, start: Tensor) -> None:
        self.images = start.clone()
        self.rows = torch.arange(len(start), device=start.device)

    def leave_out(self, broken: Tensor) -> Tensor:
        """Let samples leave for good; return the positions, among the n, of those that stay.

        The host waits for the device to tell how many they are: once a step, by nature.

        Args:
            broken: Which of the n samples leave (n,).
        """
        staying = (~broken).nonzero().flatten()
        if len(staying) < len(broken):
            self.rows = self.rows[staying]
        return staying

    def move(self, images: Tensor) -> Tensor:
        """Move the samples that are left to ``images`` (n, ...); return where all are (N, ...)."""
        return self.images.index_copy_(0, self.rows, images)
