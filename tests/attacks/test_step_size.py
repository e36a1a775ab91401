"""A step that is not given follows the radius, and an attack that cannot reach the edge of its ball is told."""

from importlib.util import find_spec

import pytest
import torch
from torch import nn

from lightning_adv.attacks import (
    APGD,
    DIFGSM,
    FGSM,
    GD,
    IFGSM,
    MDIFGSM,
    MIFGSM,
    PGD,
    Attack,
    CarliniWagnerLinf,
    FoolboxAttack,
    RandomNoise,
    StAdv,
)  # fmt: skip
from lightning_adv.attacks.describe import shortfall
from lightning_adv.attacks.distance import parse_step_size
from lightning_adv.core.distances import tell_distance

ITERATED = [PGD, IFGSM, MIFGSM, DIFGSM, MDIFGSM, GD, CarliniWagnerLinf]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ITERATED)
@pytest.mark.parametrize("eps", [1 / 510, 4 / 255, 0.2, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 5, 30])
def test_steps_that_are_not_given_reach_the_edge(kind, eps, steps):
    attack = kind(eps, steps)
    assert attack.step_size * steps >= eps * (1 - 1e-9)
    assert shortfall(attack, "attack") is None


@pytest.mark.parametrize("kind", [*ITERATED, FGSM, APGD, RandomNoise])
def test_a_radius_of_zero_gives_the_images_back(kind):
    """Where a curve over eps begins. GD has no ball that would hold a step of its own length."""
    x, y = torch.rand(4, 3, 40, 40), torch.tensor([0, 1, 2, 0])
    attack = GD(eps=0, step_size=0) if kind is GD else kind(eps=0)
    model = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3))
    assert torch.equal(attack(model, x, y), x)
    assert shortfall(attack, "attack") is None


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_step_of_zero_leaves_the_start_which_a_run_warns_of(norm):
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    x, y = torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
    attack = PGD(eps=0.2, steps=3, step_size=0, norm=norm)
    started = attack(model, x, y, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(started, x)
    once = PGD(eps=0.2, steps=1, step_size=0, norm=norm)(model, x, y, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(started, once)
    assert torch.equal(PGD(eps=0.2, step_size=0, norm=norm, start="zero")(model, x, y), x)
    assert "cannot reach the edge of its ball: 3 steps go 0 far at most" in shortfall(attack, "attack")


@pytest.mark.parametrize("steps", [5, 7, 10, 20, 100])
def test_the_default_of_before_at_the_default_eps(steps):
    assert PGD(steps=steps).step_size == PGD("8/255", steps, "2/255").step_size == 2 / 255
    assert GD(eps="4/255", steps=steps).step_size == 1 / 255


@pytest.mark.parametrize("steps", [1, 3, 20])
def test_a_linear_network_is_broken_where_its_margin_says_so(steps):
    """From the clean image, the worst point of a linear network's ball is a corner, which all steps together reach."""
    weight = torch.tensor([1.0, -2.0, 0.5, 3.0])
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        network[1].weight.copy_(torch.stack([weight, -weight]))
    x = 0.3 + 0.4 * torch.rand(64, 1, 2, 2)
    y, eps = network(x).argmax(1), 0.2
    lead = (2 * x.flatten(1) @ weight).abs()
    x_adv = PGD(eps=eps, steps=steps, start="zero")(network, x, y)
    assert torch.equal(network(x_adv).argmax(1) != y, lead < 2 * eps * weight.abs().sum())


@pytest.mark.parametrize(
    ("value", "length"),
    [
        (None, 0.05),
        ("eps/8", 0.025),
        ("eps", 0.2),
        (" 1.25 * eps ", 0.25),
        ("3*eps/4", 0.15),
        ("2/255", 2 / 255),
        (0, 0),
    ],
)
def test_how_a_step_is_written(value, length):
    assert PGD(eps=0.2, step_size=value).step_size == parse_step_size(value, 0.2, 7) == pytest.approx(length)


@pytest.mark.parametrize("value", ["eps/0", "eps/x", "eps/-2", "epsilon", "eps*2/3/4", "nan*eps", -1, "nan"])
def test_a_bad_step(value):
    with pytest.raises(ValueError, match=r"step_size must be .*, got"):
        PGD(step_size=value)


def test_a_bad_number_of_steps_is_told_as_such():
    for kind in ITERATED:
        for steps in (0, "3", 2.5):
            with pytest.raises(ValueError, match="steps must be an integer of at least 1, got"):
                kind(eps=0.1, steps=steps)


def test_what_is_written_down_is_a_number():
    assert PGD(eps=0.2, steps=20, step_size="eps/8").to_config()["init_args"]["step_size"] == 0.025
    assert PGD(eps=0.2).scaled(0.5).step_size == 0.025


@pytest.mark.parametrize(
    ("attack", "told"),
    [
        (PGD(eps=0.2, steps=20, step_size="1/255"), "PGD-20 cannot reach the edge of its ball: 20 steps go 20/255 far"),
        (PGD(eps="8/255", steps=1, step_size=0), "PGD cannot reach the edge of its ball: its one step goes 0 far"),
        (CarliniWagnerLinf(eps=1), None),
        (PGD(eps=3, steps=10, step_size=0.2, norm="l2"), "and eps is 3,"),
        (PGD(eps=0, step_size=0), None),
        (GD(eps=0.2, step_size="1/255"), None),  # no ball
        (FGSM(eps=0.3), None),
        (StAdv(), None),
    ],
)
def test_an_attack_that_falls_short(attack, told):
    found = shortfall(attack, "attack")
    if told is None:
        assert found is None
    else:
        assert found.startswith("attack: ")
        assert told in found


@pytest.mark.skipif(find_spec("foolbox") is None, reason="needs Foolbox")
def test_foolboxs_own_steps():
    assert shortfall(FoolboxAttack("LinfPGD", eps=0.2), "attack") is None
    short = FoolboxAttack("LinfPGD", eps=0.2, options={"abs_stepsize": 0.01, "steps": 10})
    assert "10 steps" not in shortfall(short, "attack")  # it has no steps of its own
    assert "go 0.1 far at most" in shortfall(short, "attack")
    assert shortfall(FoolboxAttack("LinfDeepFoolAttack"), "attack") is None


class Own(Attack):
    """An attack of somebody else's that uses the field's names."""

    def __init__(self, eps="8/255", norm="linf", steps=2, step_size=0.01):
        self.eps, self.norm, self.steps, self.step_size = eps, norm, steps, step_size

    def __call__(self, model, x, y, *, domain=None, generator=None):
        return x


def test_somebody_elses_attack():
    assert "2 steps go 0.02 far at most, and eps is 8/255" in shortfall(Own(), "attack")
    assert shortfall(Own(step_size=None), "attack") is None  # nobody can say


def test_distances_as_people_write_them():
    assert [tell_distance(value) for value in (8 / 255, 2.5 / 255, 0.031, 0.2, 1.0)] == [
        "8/255", "2.5/255", "0.031", "0.2", "1",
    ]  # fmt: skip
