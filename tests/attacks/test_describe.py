import re

import pytest

from lightning_adv.attacks import FGSM, GD, PGD, Attack, AutoAttack, CarliniWagner, CarliniWagnerLinf, FoolboxAttack
from lightning_adv.attacks.describe import attack_name


@pytest.mark.parametrize(
    ("attack", "name"),
    [
        (PGD(steps=20), "PGD-20"),
        (FGSM(), "FGSM"),
        (PGD(steps=50, restarts=10), "PGD-50 × 10 restarts"),
        (PGD(steps=20, label="random"), "PGD-20, random targets"),
        (PGD(steps=20, restarts=2, label="least_likely"), "PGD-20 × 2 restarts, least-likely targets"),
        (PGD(steps=20, restarts=9, label="most_likely"), "PGD-20 × 9 restarts, most-likely targets"),
        (PGD(steps=7, label="predicted"), "PGD-7, predicted labels"),
        (PGD(steps=7, early_stop=True), "PGD-7, any iterate"),
        (PGD(steps=7, restarts=2, label="random", early_stop=True), "PGD-7 × 2 restarts, random targets, any iterate"),
        (AutoAttack(), "AutoAttack"),
        (AutoAttack(attacks=["square"]), "AutoAttack (square)"),
        (CarliniWagner(steps=300), "CarliniWagner-300"),
        (CarliniWagnerLinf(restarts=2), "CarliniWagnerLinf-30 × 2 restarts"),
    ],
)
def test_name(attack, name):
    assert attack_name(attack) == name


class Blur(Attack):
    """An attack that knows neither norm nor eps."""

    def __call__(self, model, x, y, *, domain=None, generator=None):
        return x


@pytest.mark.parametrize(
    ("attack", "expected"),
    [
        (PGD(eps=0.5, norm="l2"), {"norm": "L2", "eps": 0.5}),
        (FGSM(eps=0.25), {"norm": "Linf", "eps": 0.25}),
        (GD(eps=0.1), None),
        (PGD(eps=0.1, project=False), None),
        (CarliniWagner(eps=0.5), {"norm": "L2", "eps": 0.5}),
        (CarliniWagner(), None),
        (Blur(), None),
    ],
)
def test_threat_model(attack, expected):
    assert attack.threat_model.to_plain() == expected


def test_attacks_of_another_package_are_told_by_their_own_names():
    assert attack_name(FoolboxAttack("L2DeepFoolAttack")) == "FoolboxAttack (L2DeepFoolAttack)"


class Own(Attack):
    """An attack of somebody else's: one method, and whatever is kept in attributes."""

    def __init__(self, **kept):
        vars(self).update(kept)

    def __call__(self, model, x, y, *, domain=None, generator=None):
        return x


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        ({"norm": "linf", "eps": 0.25}, {"norm": "Linf", "eps": 0.25}),
        ({"norm": "L2", "eps": "8/255"}, {"norm": "L2", "eps": 8 / 255}),
        ({"norm": None, "eps": 3}, None),
        ({"norm": None}, None),
        ({}, None),
    ],
)
def test_norm_and_eps_of_somebody_elses_attack(kept, expected):
    assert Own(**kept).threat_model.to_plain() == expected


@pytest.mark.parametrize(
    ("kept", "told"),
    [
        ({"eps": 0.1}, "Own has eps 0.1, but says no norm"),
        ({"norm": "linf"}, "Own has norm 'linf', but says no eps"),
        ({"norm": "max", "eps": 0.1}, "Own.norm must be one of linf, l2, l1, or a Ball, got 'max'"),
        ({"norm": float("inf"), "eps": 0.1}, "Own.norm must be linf, l2, l1 or a Ball, got inf"),
        ({"norm": "linf", "eps": "much"}, "Own.eps must be a number or a fraction"),
    ],
)
def test_an_attack_that_does_not_say_what_it_stays_in(kept, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        Own(**kept).threat_model  # noqa: B018
