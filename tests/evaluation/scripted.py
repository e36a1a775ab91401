"""A network and attacks whose verdicts are known beforehand."""

from __future__ import annotations

import torch
from torch import nn

from lightning_adv.attacks import Attack
from lightning_adv.attacks.balls import get_ball


class FirstPixel(nn.Module):
    """Class 1 where the first pixel is above a half, else class 0."""

    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(10.0))

    def forward(self, x):
        z = self.slope * (x.flatten(1)[:, 0] - 0.5)
        return torch.stack([-z, z], 1)


class Breaks(Attack):
    """Breaks the samples whose last pixel is in ``codes`` (in 255ths), and remembers all that it was given."""

    def __init__(self, codes=(), eps=0.5, norm="linf", steps=1):
        self.codes = list(codes)
        self.eps = eps
        self.norm = get_ball(norm)
        self.steps = steps

    seen: list = []  # noqa: RUF012  (shared on purpose: the attack is copied to each radius)

    def __call__(self, model, x, y, *, domain=None, generator=None):
        codes = (x.flatten(1)[:, -1] * 255).round().int().tolist()
        Breaks.seen.append((round(self.eps, 6), self.steps, codes))
        x_adv = x.clone()
        for i, code in enumerate(codes):
            if code in self.codes:
                step = self.eps if y[i] == 0 else -self.eps
                x_adv.view(len(x), -1)[i, 0] += step
        return x_adv


def images(count=8):
    """Images (N, 1, 2, 2) with their number in the last pixel; even ones are of class 0, at 0.45, odd ones at 0.55."""
    x = torch.zeros(count, 1, 2, 2)
    y = torch.arange(count) % 2
    x[:, 0, 0, 0] = 0.45 + 0.1 * y
    x[:, 0, 1, 1] = torch.arange(count) / 255
    return x, y
