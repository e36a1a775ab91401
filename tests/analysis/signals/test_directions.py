"""The directions of attacks whose steps are known."""

import pytest
import torch
from torch import nn

from lightning_adv.analysis.signals import direction_agreement, perturbation_cosine
from lightning_adv.attacks import FGSM, PGD


class Zigzag(nn.Module):
    """Loss of class 0 along the first pixel: up to 0.55, then down; along the second always up."""

    def forward(self, x):
        first, second = x.flatten(1).unbind(1)
        score = 10 * (first - 0.55).abs().neg() + 5 * second
        return torch.stack([torch.zeros_like(score), score], 1)


def test_pgd_turns_where_fgsm_overshoots():
    """FGSM goes to (+0.2, +0.2); small steps stay at the ridge, near (+0.05, +0.2)."""
    x, y = torch.full((1, 1, 1, 2), 0.5), torch.tensor([0])
    x_adv = PGD(eps=0.2, steps=100, step_size=0.0025, start="zero")(Zigzag(), x, y)
    assert (x_adv - x).flatten().tolist() == pytest.approx([0.05, 0.2], abs=0.004)
    found = direction_agreement(Zigzag(), x, x_adv, y, 0.2)
    assert found.item() == pytest.approx((0.05 + 0.2) / (2 * (0.05**2 + 0.2**2)) ** 0.5, abs=0.01)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_fgsm_agrees_with_itself(norm):
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))
    x, y = torch.rand(7, 3, 2, 2), torch.arange(7) % 3
    x_adv = FGSM(0.1, norm=norm)(network, x, y)
    found = direction_agreement(network, x, x_adv, y, 0.1, norm=norm, batch_size=3)
    torch.testing.assert_close(found, torch.ones(7))
    torch.testing.assert_close(perturbation_cosine(x, x_adv, 2 * x - x_adv), -torch.ones(7))


def test_cosines():
    x = torch.zeros(3, 1, 1, 2, dtype=torch.float64)
    first = torch.tensor([[1.0, 0], [1e-30, 1e-30], [0, 0]], dtype=torch.float64).view(x.shape)
    second = torch.tensor([[1.0, 3**0.5], [0, 1], [1, 1]], dtype=torch.float64).view(x.shape)
    found = perturbation_cosine(x.float(), first.float(), second.float())
    assert found[:2].tolist() == pytest.approx([0.5, 0.5**0.5], abs=1e-6), "however short"
    assert found[2].isnan()


def test_errors():
    x = torch.rand(2, 1, 1, 2)
    with pytest.raises(ValueError, match=r"shape of x, \(2, 1, 1, 2\), got \(1, 1, 1, 2\)"):
        perturbation_cosine(x, x, x[:1])
    with pytest.raises(ValueError, match="x_adv must have the shape of x"):
        direction_agreement(Zigzag(), x, x[:1], torch.tensor([0, 0]), 0.1)
