"""What the benchmarks count and compare is what they say: closed forms, and passes counted by hooks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_adv.attacks import FGSM, PGD
from lightning_adv.regimes import AdvPropTraining

EPS = 0.01


def test_ratios_are_taken_round_by_round(timing):
    """By hand: 2/1, 2/2 and 9/3; their median is 2, although the medians' ratio is 1."""
    assert timing.cells([2.0, 2.0, 9.0], [1.0, 2.0, 3.0]) == "2000.0 | 2.000 | 1.000 to 3.000"


def test_the_bounds_make_the_passes_of_the_regimes(script, timing, workload):
    """Counted at the layer that ends all networks: in eval mode one for each step, in train mode one a domain."""
    forwards: list[bool] = []

    def count(module, *_):
        if isinstance(module, nn.Linear):
            forwards.append(module.training)

    benchmark = script("advprop_step")
    step = timing.regime_loop(workload.regime(AdvPropTraining))
    step([workload.batch()])  # in which the view that is attacked is prepared
    with nn.modules.module.register_module_forward_hook(count):
        benchmark.bound_loop(benchmark.pair(workload.regime().network), workload)([workload.batch()])
        step([workload.batch()])
    assert forwards == 2 * [False, False, True, True]


def test_kept_bytes_by_hand(script, workload):
    """A tanh keeps its output, a linear layer with frozen weights nothing but them, a square its input."""

    class Square(nn.Module):
        def forward(self, x):
            return x**2

    features = workload.batch_size * 64
    layers = [nn.Tanh(), nn.Flatten(), nn.Linear(64, 32), Square(), nn.Linear(32, 10)]
    kept = script("memory").kept(nn.Sequential(*layers), workload)
    assert kept == 4 * (features + workload.batch_size * 32)


@pytest.mark.slow
def test_resnet18_takes_the_operations_that_the_literature_says(script):
    """0.56 billion multiplications in a forward pass on CIFAR-10 (He et al.'s network with the CIFAR stem)."""
    benchmark = script("gpu_training")
    assert benchmark.flops_per_image(benchmark.RESNET18) / (2 * 10 + 3) == pytest.approx(2 * 0.56e9, rel=0.02)


class TwoClasses(nn.Module):
    """Logits (w x, -w x) and eight hopeless classes: every gradient of the first two's loss has the signs of w."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.weight = nn.Parameter(0.1 * torch.randn(64, generator=torch.Generator().manual_seed(0)))
        self.forwards = []

    def forward(self, x):
        self.forwards.append(self.training)
        score = self.norm(x).flatten(1) @ self.weight
        return torch.cat([score[:, None], -score[:, None], torch.full((len(x), 8), -1e4)], dim=1)


@pytest.mark.parametrize(
    ("name", "passes"),
    [("plain loop", 4), ("robustness-style loop", 5), ("loop with loss.backward()", 4), ("foolbox LinfPGD", 5)],
)
def test_each_loop_reaches_the_corner_of_the_ball(script, name, passes):
    """Four steps of half the radius reach it from every start: away from the own class in every pixel."""
    x, y = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 0, 1, 1, 0])
    network = TwoClasses().train()
    attacked = script("attack_step").ATTACKS[name](network, PGD(EPS, steps=4, step_size=EPS / 2), x)(x, y)
    away = torch.where(y == 0, -1.0, 1.0)[:, None, None, None] * network.weight.detach().sign().view(1, 1, 8, 8)
    torch.testing.assert_close(attacked, (x + EPS * away).clamp(0, 1))
    assert network.training
    assert network.forwards == [False] * passes


def test_an_evaluation_leaves_out_what_is_broken(script):
    """Two runs of FGSM on a linear network: the second one sees what the first has left, or all."""
    torch.manual_seed(0)
    benchmark, network = script("evaluation"), nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    x, _ = benchmark.digits(60)
    y = network(x).argmax(1)
    plan = benchmark.make_plan([FGSM(eps=0.05), FGSM(eps=0.05)], {"linf": [0.05]})
    attacked: list[int] = []
    network.register_forward_hook(lambda _, inputs, logits: attacked.append(len(logits) * inputs[0].requires_grad))
    benchmark.on_every_sample(network, x, y, plan, 25)
    assert sum(attacked) == 120
    attacked.clear()
    left = round(float(benchmark.skipping(network, x, y, plan, 25)) / 100 * 60)
    assert sum(attacked) == 60 + left < 120
