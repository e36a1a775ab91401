"""Attacks within a training step in autocast, on compiled code, and on networks that keep something for eval mode."""

import shutil
import sysconfig
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_adv.attacks import FGSM, PGD, RandomNoise, held_still
from lightning_adv.testing.untouched import Snapshot
from tests.seeded import seeded

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def _autocast(precision):
    return torch.autocast("cpu", PRECISIONS[precision], enabled=precision != "fp32")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_training_in_the_same_autocast(build, images, precision):
    x, y = images
    network = build("cnn").eval()  # no dropout
    x_adv = FGSM()(network, x, y)
    gradients = []
    for attack in (None, PGD(steps=2)):
        network.zero_grad()
        with _autocast(precision):
            if attack is not None:
                network(x)
                attack(network, x, y)
            F.cross_entropy(network(x_adv), y).backward()
        gradients.append([parameter.grad.clone() for parameter in network.parameters()])
    assert all(torch.equal(*pair) and pair[0].any() for pair in zip(*gradients, strict=True))


@pytest.mark.slow
def test_model_compiled_to_machine_code(build, images):
    # Inductor's CPU kernels need a compiler and Python's headers.
    headers = Path(sysconfig.get_path("include"), "Python.h").exists()
    network = build("cnn")
    compiled = torch.compile(build("cnn"), backend="inductor" if headers and shutil.which("g++") else "aot_eager")
    attack = PGD(eps=0.03, steps=2)
    x_adv = attack(compiled, *images, generator=seeded())
    assert (x_adv == attack(network, *images, generator=seeded())).float().mean() > 0.99


class KeepsForEval(nn.Module):
    """Computes something from its weights once, in eval mode, until it hears of training: as LeViT does."""

    def __init__(self):
        super().__init__()
        self.head, self.frozen, self.kept = nn.Linear(12, 2), nn.Dropout(), None

    def train(self, mode=True):
        super().train(mode)
        if mode:
            self.kept = None
        return self

    def forward(self, x):
        if self.training:
            return self.head(x.flatten(1))
        if self.kept is None:
            self.kept = self.head.weight.detach().clone()
        return x.flatten(1) @ self.kept.T


def test_what_a_network_keeps_for_eval_mode_is_that_of_its_weights():
    network, x = KeepsForEval(), torch.rand(2, 3, 2, 2)
    network.frozen.eval()
    for _ in range(2):
        with held_still(network) as held:
            torch.testing.assert_close(held(x), x.flatten(1) @ network.head.weight.T)
        with torch.no_grad():
            network.head.weight.add_(1)
    assert [module.training for module in network.modules()] == [True, True, False]


def test_a_network_that_was_built_in_inference_mode_is_left_as_it_was():
    """It is not differentiated by torch, which lets nobody set its flags outside."""
    with torch.inference_mode():
        network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    before = Snapshot(network)
    x, y = torch.rand(3, 3, 2, 2), torch.tensor([0, 1, 0])
    assert RandomNoise(eps=0.1)(network, x, y).shape == x.shape
    with pytest.raises(RuntimeError, match="Inference tensors cannot be saved for backward"):
        FGSM(eps=0.1)(network, x, y)
    assert before.difference() is None
