"""Networks that an attack cannot be run on: what comes out is no logits, or has no gradient to the images."""

import re
from importlib.util import find_spec

import pytest
import torch
from torch import nn

from lightning_adv.attacks import (
    APGD,
    FGSM,
    MDIFGSM,
    PGD,
    AutoAttack,
    CarliniWagner,
    CarliniWagnerLinf,
    DCarliniWagner,
    FoolboxAttack,
    LogitEnsemble,
    RandomNoise,
    StAdv,
)  # fmt: skip
from lightning_adv.attacks.forward import NoGradientError

ATTACKS = {
    "FGSM": FGSM, "PGD": lambda: PGD(steps=1), "PGD, batch statistics": lambda: PGD(steps=1, batchnorm="batch"),
    "random targets": lambda: PGD(steps=1, label="random"), "M-DI²-FGSM": lambda: MDIFGSM(steps=1, diversity_scale=0.7),
    "APGD": lambda: APGD(steps=1), "C&W": lambda: CarliniWagner(steps=1, binary_search_steps=1),
    "D-C&W": lambda: DCarliniWagner(steps=1, diversity_scale=0.7), "C&W in Linf": lambda: CarliniWagnerLinf(steps=1),
    "stAdv": lambda: StAdv(steps=1), "AutoAttack": lambda: AutoAttack(attacks=["apgd-ce"]),
    "Foolbox": lambda: FoolboxAttack("LinfPGD"),
}  # fmt: skip
BLACK_BOX = {"random noise": lambda: RandomNoise(draws=1), "Square": lambda: AutoAttack(attacks=["square"])}
PACKAGES = {"AutoAttack": "pyautoattack", "Square": "pyautoattack", "Foolbox": "foolbox"}


def built(name):
    package = PACKAGES.get(name)
    if package is not None and find_spec(package) is None:
        pytest.skip(f"needs {package}")
    return (ATTACKS | BLACK_BOX)[name]()


class Linear(nn.Module):
    """Logits of two classes, and what a subclass makes of them."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(108, 2)

    def forward(self, x):
        return self.give(self.layer(self.see(x).flatten(1)))

    def see(self, x):
        return x

    def give(self, logits):
        return logits


class Two(Linear):
    def give(self, logits):
        return logits, logits


class Named(Linear):
    def give(self, logits):
        return {"logits": logits}


class OneClass(Linear):
    def give(self, logits):
        return logits[:, :1]


class Thresholds(Linear):
    def see(self, x):
        return (x > 0.5).to(x)


class UnderNoGrad(Linear):
    @torch.no_grad()
    def forward(self, x):
        return super().forward(x)


class OwnGraph(Linear):
    """Has a gradient, to something else than the images."""

    def see(self, x):
        return x.detach().clone().requires_grad_(torch.is_grad_enabled())


def batch():
    return torch.rand(6, 3, 6, 6), torch.tensor([0, 1] * 3)


@pytest.mark.parametrize(
    ("network", "told"),
    [
        (Two, "got a tuple of 2: wrap it in a module that returns its logits alone."),
        (Named, "got a dict with the keys logits: wrap it"),
        (OneClass, "got a tensor of shape (6, 1)."),
    ],
)
@pytest.mark.parametrize("name", [*ATTACKS, *BLACK_BOX])
def test_what_comes_out_is_no_logits(name, network, told):
    x, y = batch()
    told = re.escape("The network must give logits (6, K) with K of at least 2, " + told)
    with pytest.raises(ValueError, match=told):
        built(name)(network(), x, y)
    with pytest.raises(ValueError, match=told):
        LogitEnsemble([network(), network()])(x)


@pytest.mark.parametrize("network", [Thresholds, UnderNoGrad, OwnGraph])
@pytest.mark.parametrize("name", ATTACKS)
def test_no_gradient(name, network):
    if name == "stAdv" and network is OwnGraph:
        pytest.skip("its gradient is one with that of the smoothness")
    network, (x, _) = network(), batch()
    with pytest.raises(NoGradientError, match="The network's logits have no gradient to its images"):
        built(name)(network, x, network(x).argmax(1))
    assert all(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", BLACK_BOX)
def test_a_black_box_attack_needs_none(name):
    network, (x, _) = Thresholds(), batch()
    assert built(name)(network, x, network(x).argmax(1)).shape == x.shape


@pytest.mark.parametrize(
    ("x", "y", "told"),
    [
        ([1.0], torch.zeros(1).long(), "x must be a tensor, got a list."),
        (torch.rand(2, 3, 6, 6), [0, 1], "y must be a tensor, got a list."),
    ],
)
def test_what_goes_in_is_no_tensor(x, y, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        FGSM()(Linear(), x, y)
