"""Every section leaves any network as it was, and its numbers depend on nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import lightning_adv.interpretation.sections as offered
from lightning_adv.attacks import PGD
from lightning_adv.interpretation import FeatureSpace, Finding, LocalProperties, Saliency, Section, ShapeTexture
from lightning_adv.nn.batchnorm import convert_batchnorm
from lightning_adv.testing import check_section

MADE = {
    "FeatureSpace": lambda: FeatureSpace(layers="second", positions=4, points=60, perplexity=5),
    "LocalProperties": lambda: LocalProperties(radii=[0.0, 0.7], examples=1),
    "Saliency": lambda: Saliency(transforms={"patch_shuffle": [2]}, images=4, samples=2, pictures=1),
    "ShapeTexture": lambda: ShapeTexture({"patch_shuffle": [2], "random_filter": [0.5]}, pictures=1),
}
ON_FILES = {"ShapeBias"}
"""What looks at images of its own: tested with them."""


class Own(nn.Module):
    """Neither timm's nor torchvision's: a network whose layers have names of its own."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.drop(self.second(self.first(x)).mean((2, 3))))


def test_all_sections_are_here() -> None:
    assert set(offered.__all__) == MADE.keys() | ON_FILES


@pytest.mark.slow
@pytest.mark.parametrize("name", MADE)
def test_a_section_keeps_its_promises_on_any_network(name: str) -> None:
    plain, domains = Own(0), convert_batchnorm(Own(1))
    plain.first.eval()  # frozen, in a network that is trained
    plain.head.weight.grad = torch.ones(3, 6)
    drawn = torch.Generator().manual_seed(0)
    x, y = torch.rand(12, 3, 8, 8, generator=drawn), torch.arange(12) % 3
    networks = {"plain": plain.train(), "domains": domains.train()}
    plain.first.eval()
    attacks = {"pgd": PGD(eps=0.1, steps=2, step_size=0.05)}
    assert check_section(MADE[name], networks, x, y, attacks=attacks, domains={"domains": "adversarial"})


class Breaks(Section):
    """Breaks one promise."""

    name = "breaks"

    def __init__(self, how: str) -> None:
        self.how = how

    def check(self, subjects, crafted):
        if self.how == "crafts":
            crafted.adversarial("fgsm", "a")

    def find(self, subjects, crafted):
        network, value = subjects[0].network, 0.0
        if self.how == "weights":
            network[1].weight.data += 1
        elif self.how == "mode":
            network.train()
        elif self.how == "hooks":
            network[1].register_forward_hook(lambda *_: None)
        elif self.how == "global":
            value = float(torch.rand(1))
        elif self.how == "order":
            value = float(len(crafted._examples))
        elif self.how == "examples":
            crafted.adversarial("fgsm", "a").zero_()
        elif self.how == "images":
            crafted.x.zero_()
        yield Finding("b" if self.how == "name" else "a", "clean", "", "number", value)
        if self.how == "twice":
            yield Finding("a", "clean", "", "number", 1.0)


@pytest.mark.parametrize(
    ("how", "told"),
    [("weights", "weight has other values"), ("mode", "was left in train"), ("hooks", "keeps hooks"),
     ("global", "global random state"), ("order", "numbers differ"), ("examples", "were changed"),
     ("images", "images were changed"), ("crafts", "check crafts"), ("name", "is of no network"),
     ("twice", "Two findings")],
)  # fmt: skip
def test_a_broken_promise_is_told(how: str, told: str) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    x, y = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])
    with pytest.raises(AssertionError, match=told):
        check_section(lambda: Breaks(how), {"a": network}, x, y)


def test_a_section_without_faults_passes() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    assert check_section(lambda: Breaks("not"), {"a": network}, torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0]))
