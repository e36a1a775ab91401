"""The loops that are set against ours are PGD, by a closed form, and make as many passes as they say."""

from __future__ import annotations

import pytest
import torch

from lightning_adv.attacks import PGD


class TwoClasses(torch.nn.Module):
    """Logits (w x, -w x) and eight hopeless classes: every gradient of the first two's loss has the signs of w."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(1)
        self.weight = torch.nn.Parameter(0.1 * torch.randn(64, generator=torch.Generator().manual_seed(0)))
        self.forwards = []

    def forward(self, x):
        self.forwards.append(self.training)
        score = self.norm(x).flatten(1) @ self.weight
        hopeless = torch.full((len(x), 8), -1e4)
        return torch.cat([score[:, None], -score[:, None], hopeless], dim=1)


@pytest.fixture
def images():
    x = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return x, torch.tensor([0, 1, 0, 1, 1, 0])


EPS = 0.01


def corner(network, x, y):
    """Where the loss is largest: away from the own class in every pixel."""
    away = torch.where(y == 0, -1.0, 1.0)[:, None, None, None] * network.weight.detach().sign().view(1, 1, 8, 8)
    return (x + EPS * away).clamp(0, 1)


@pytest.mark.parametrize(
    "name", ["plain loop", "robustness-style loop", "loop with loss.backward()", "foolbox LinfPGD"]
)
def test_each_loop_reaches_the_corner_of_the_ball(script, images, name):
    """Four steps of half the radius reach it from every start."""
    (x, y), network = images, TwoClasses().train()
    attack = script("attack_step").ATTACKS[name](network, PGD(EPS, steps=4, step_size=EPS / 2), x)
    torch.testing.assert_close(attack(x, y), corner(network, x, y))
    assert network.training
    assert not any(network.forwards)  # all in eval mode


@pytest.mark.parametrize(("name", "count"), [("plain_pgd", 3), ("backward_pgd", 3), ("robustness_pgd", 4)])
def test_passes(script, images, name, count):
    (x, y), network = images, TwoClasses()
    getattr(script("hand_written"), name)(network, PGD(EPS, steps=3, step_size=EPS), x)(x, y)
    assert len(network.forwards) == count
    assert (network.weight.grad is None) == (name != "backward_pgd")


def test_the_best_iterate_is_kept(script):
    """The second sample's loss falls: it keeps what it had."""
    best = script("hand_written").Best(torch.tensor([1.0, 1.0]), torch.tensor([[1.0], [1.0]]))
    best.update(torch.tensor([2.0, 0.5]), torch.tensor([[2.0], [2.0]]))
    assert best.x.tolist() == [[2.0], [1.0]]
    assert best.losses.tolist() == [2.0, 1.0]


def test_the_naive_loop_of_trades_raises_the_divergence_and_predicts_the_clean_images_in_each_step(script, images):
    (x, y), network = images, TwoClasses()
    x_adv = script("hand_written").naive_trades(network, PGD(EPS, steps=3, step_size=EPS / 2), x)(x, y)
    assert len(network.forwards) == 6
    signs = (x_adv - x).sign() * network.weight.detach().sign().view(1, 1, 8, 8)
    inside = (x > EPS) & (x < 1 - EPS)
    for sample, where in zip(signs, inside, strict=True):
        assert len(sample[where].unique()) == 1  # all up or all down the score, away from the clean prediction
    torch.testing.assert_close((x_adv - x)[inside].abs(), torch.full_like(x[inside], EPS))
