import pytest
import torch
from torch import nn

from lightning_adv.attacks import DIFGSM, FGSM, GD, IFGSM, MDIFGSM, MIFGSM, PGD


@pytest.fixture(scope="module")
def setup():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.Tanh(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 5)
    )
    return model, torch.rand(4, 3, 10, 10), torch.arange(4)  # fmt: skip


PAPERS = {
    # Madry et al. 2018, section 5: CIFAR-10
    PGD: {"eps": 8 / 255, "steps": 7, "step_size": 2 / 255, "start": "uniform", "momentum": 0, "restarts": 1},
    # Goodfellow et al. 2015, section 4: one step of length eps
    FGSM: {"eps": 8 / 255, "steps": 1, "step_size": 8 / 255, "start": "zero", "momentum": 0},
    # Kurakin et al. 2017, section 2: alpha = 1 and min(eps + 4, 1.25 eps) = 20 steps for eps = 16
    IFGSM: {"eps": 16 / 255, "steps": 20, "step_size": 1 / 255, "start": "zero", "momentum": 0},
    # Dong et al. 2018, section 4.1: eps = 16, 10 steps of eps / 10, mu = 1
    MIFGSM: {"eps": 16 / 255, "steps": 10, "step_size": 1.6 / 255, "start": "zero", "momentum": 1},
    # Xie et al. 2019, section 3.4.1: eps = 15, alpha = 1, min(19, 18.75) = 18 whole steps, p = 0.5, 299 to 330 pixels
    DIFGSM: {
        "eps": 15 / 255, "steps": 18, "step_size": 1 / 255, "start": "zero", "momentum": 0,
        "diversity_probability": 0.5, "diversity_scale": 330 / 299,
    },
    MDIFGSM: {
        "eps": 15 / 255, "steps": 18, "step_size": 1 / 255, "start": "zero", "momentum": 1,
        "diversity_probability": 0.5, "diversity_scale": 330 / 299,
    },
    # Xie et al. 2020, section 7.5.4: the PGD attacker (eps = 4, 5 steps of 1) without its projection
    GD: {"eps": 4 / 255, "steps": 5, "step_size": 1 / 255, "start": "uniform", "momentum": 0, "project": False},
}  # fmt: skip


@pytest.mark.parametrize("attack", PAPERS)
def test_the_papers_defaults(attack):
    built = attack()
    expected = {"diversity_probability": 0, "clean_start_probability": 0, "project": True, "restarts": 1,
                "loss": "cross_entropy", "label": "true", "batchnorm": "eval"} | PAPERS[attack]  # fmt: skip
    assert {name: getattr(built, name) for name in expected} == pytest.approx(expected, abs=1e-15)
    assert built.norm.name == "linf"


@pytest.mark.parametrize("attack", [IFGSM, DIFGSM, MDIFGSM])
def test_kurakins_number_of_steps(attack):
    for level in range(1, 256):
        steps = min(level + 4, 5 * level // 4)
        assert attack(eps=f"{level}/255").steps == steps
        assert attack(eps=level / 255).steps == steps
    assert attack(eps=0.062745098).steps == 20  # 16/255 as a person types it
    assert attack(eps=0).steps == 1
    assert attack(eps="16/255", steps=3).steps == 3


# Xie et al. 2019, figure 3.2: what each attack becomes when a part of it is switched off.
COMMON = {"eps": 0.1, "steps": 4, "step_size": 0.03}
FIGURE = {
    "p = 0: DI is I": (DIFGSM(**COMMON, diversity_probability=0), IFGSM(**COMMON)),
    "p = 0: M-DI is MI": (MDIFGSM(**COMMON, diversity_probability=0), MIFGSM(**COMMON)),
    "mu = 0: MI is I": (MIFGSM(**COMMON, momentum=0), IFGSM(**COMMON)),
    "mu = 0: M-DI is DI": (MDIFGSM(**COMMON, momentum=0), DIFGSM(**COMMON)),
    "N = 1: I is FGSM": (IFGSM(eps=0.1, steps=1, step_size=0.1), FGSM(eps=0.1)),
    "N = 1: MI is FGSM": (MIFGSM(eps=0.1, steps=1), FGSM(eps=0.1)),
    "all of them": (
        MDIFGSM(eps=0.1, steps=1, step_size=0.1, momentum=0, diversity_probability=0), FGSM(eps=0.1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("relation", FIGURE)
def test_relations_between_the_attacks(setup, relation):
    first, second = (attack(*setup, generator=torch.Generator().manual_seed(0)) for attack in FIGURE[relation])
    assert torch.equal(first, second)
    assert (first != setup[1]).any()


def test_what_is_switched_on_makes_a_difference(setup):
    attacks = (
        IFGSM(**COMMON), MIFGSM(**COMMON), DIFGSM(**COMMON), MDIFGSM(**COMMON), FGSM(eps=0.1), GD(**COMMON)
    )  # fmt: skip
    results = [attack(*setup, generator=torch.Generator().manual_seed(0)) for attack in attacks]
    for i, first in enumerate(results):
        assert not any(torch.equal(first, second) for second in results[:i])


@pytest.mark.parametrize("attack", [FGSM, IFGSM, MIFGSM, DIFGSM, MDIFGSM, GD])
def test_options_reach_the_loop(attack):
    built = attack(norm="l2", label="least_likely", batchnorm="batch")
    assert (built.norm.name, built.label, built.batchnorm) == ("l2", "least_likely", "batch")
