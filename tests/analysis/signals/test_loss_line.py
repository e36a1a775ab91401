"""Losses along lines, of a network whose loss is known at each point."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_adv.analysis.signals import loss_along_line


class Bump(nn.Module):
    """The score of class 1 over the first pixel p: ``height`` at p = 0.5, falling to ``height - 4`` at 0 and 1."""

    def __init__(self, height):
        super().__init__()
        self.height = height

    def forward(self, x):
        score = self.height - 8 * (x.flatten(1)[:, 0] - 0.5).abs()
        return torch.stack([torch.zeros_like(score), score], 1)


def ends(*pairs):
    x, x_adv = torch.tensor(pairs).T.view(2, -1, 1, 1, 1)
    return x, x_adv, torch.zeros(len(pairs), dtype=torch.long)


def test_losses_are_those_of_the_points():
    x, x_adv, y = ends((0.0, 1.0), (0.2, 0.4))
    line = loss_along_line(Bump(1.0), x, x_adv, y, points=5)
    for column, share in enumerate([0, 0.25, 0.5, 0.75, 1]):
        logits = Bump(1.0)(x + share * (x_adv - x))
        torch.testing.assert_close(line.losses[:, column], F.cross_entropy(logits, y, reduction="none"))
        assert line.correct[:, column].tolist() == (logits.argmax(1) == y).tolist()


def test_distortion():
    """From 0 to 1 both ends are right and the middle is wrong; from 0 to 0.5 the end is the worst point."""
    line = loss_along_line(Bump(1.0), *ends((0.0, 1.0), (0.0, 0.5), (0.0, 0.2)), points=5)
    assert line.withstood.tolist() == [True, False, True]
    assert line.distorted.tolist() == [True, False, False]
    assert line.peaks_inside.tolist() == [True, False, False]
    softplus = F.softplus(torch.tensor([1.0, -3.0]))
    assert line.excess.tolist() == pytest.approx([(softplus[0] - softplus[1]).item(), 0, 0], abs=1e-6)


def test_a_peak_that_stays_right_is_no_distortion():
    line = loss_along_line(Bump(-0.5), *ends((0.0, 1.0)), points=5)
    assert line.peaks_inside.tolist() == [True]
    assert line.distorted.tolist() == [False]


def test_a_loss_that_falls_peaks_at_the_image():
    """The largest loss is at the first point: nothing is hidden inside."""
    line = loss_along_line(Bump(1.0), *ends((0.5, 0.9)), points=3)
    assert line.peaks_inside.tolist() == [False]
    assert line.excess[0] > 0


def test_ends_are_met_to_the_bit():
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    x, x_adv, y = torch.rand(4, 3, 2, 2), torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
    line, there = loss_along_line(network, x, x_adv, y), loss_along_line(network, x_adv, x, y)
    assert line.losses[:, -1].equal(there.losses[:, 0])
    assert line.losses[:, 0].equal(there.losses[:, -1])


def test_errors():
    x, x_adv, y = ends((0.0, 1.0))
    with pytest.raises(ValueError, match="points must be at least 3, both ends and one in between, got 2"):
        loss_along_line(Bump(1.0), x, x_adv, y, points=2)
    with pytest.raises(ValueError, match="x_adv must have the shape of x"):
        loss_along_line(Bump(1.0), x, x_adv[:, :, :, :0], y)
