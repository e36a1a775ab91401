import logging

import pytest
import torch

from lightning_adv.attacks import FGSM, GD, L1, MIFGSM, PGD, Attack, CarliniWagner, StAdv
from lightning_adv.core.distances import tell_distance
from lightning_adv.evaluation import StepsCurve, ThreatModel, evaluate, make_plan
from lightning_adv.evaluation.plan import fit_attack
from tests.evaluation.scripted import Breaks, FirstPixel, images


def test_cases_run_by_norm_then_radius_then_attack():
    plan = make_plan([FGSM(), PGD(steps=20), CarliniWagner(steps=5)], {"linf": ["4/255", 0.1], "l2": [0.5]})
    assert [case.key for case in plan.cases] == [
        "Linf 4/255: FGSM", "Linf 4/255: PGD-20", "Linf 0.1: FGSM", "Linf 0.1: PGD-20",
        "L2 0.5: FGSM", "L2 0.5: PGD-20", "L2 0.5: CarliniWagner-5",
    ]  # fmt: skip
    assert plan.threats == [ThreatModel("linf", 4 / 255), ThreatModel("linf", 0.1), ThreatModel("l2", 0.5)]
    assert plan.left_out == ()


def test_an_attack_moves_to_the_radius_with_its_step():
    attack = fit_attack(PGD(eps="8/255", steps=3, step_size="2/255", momentum=0.5), ThreatModel("linf", 0.2))
    assert (attack.eps, attack.steps, attack.momentum, attack.norm.name) == (0.2, 3, 0.5, "linf")
    assert attack.step_size == pytest.approx(0.05)
    moved = fit_attack(PGD(eps=1, step_size=0.1), ThreatModel("l2", 3.0))
    assert (moved.eps, moved.norm.name) == (3.0, "l2")
    assert moved.step_size == pytest.approx(0.3)
    assert fit_attack(MIFGSM(eps=1, steps=10), ThreatModel("linf", 0.2)).step_size == pytest.approx(0.02)
    assert fit_attack(CarliniWagner(), ThreatModel("l2", 0.7)).eps == 0.7


def test_a_ball_keeps_its_own_settings():
    assert fit_attack(PGD(eps=5, norm=L1(density=0.3)), ThreatModel("l1", 9.0)).norm.density == 0.3
    assert fit_attack(PGD(eps=1), ThreatModel("l1", 9.0)).norm.density == L1().density


def test_the_same_name_twice_is_told_apart():
    plan = make_plan([PGD(steps=20), PGD(steps=20, loss="margin")], {"linf": [0.1]})
    assert [case.name for case in plan.cases] == ["PGD-20", "PGD-20 (2)"]


def test_an_attack_of_another_norm_is_left_out_and_named():
    plan = make_plan([FGSM(), CarliniWagner(steps=5)], {"linf": [0.1]})
    assert [case.name for case in plan.cases] == ["FGSM"]
    assert plan.left_out == ("CarliniWagner-5 (l2)",)


def test_an_attack_without_a_ball_runs_once_as_it_is():
    plan = make_plan([GD(eps="4/255", steps=3), FGSM()], {"linf": [0.1, 0.2]})
    assert [case.key for case in plan.cases] == ["Linf 0.1: FGSM", "Linf 0.2: FGSM", "no ball of a norm: GD-3"]
    assert plan.cases[-1].attack.eps == 4 / 255


def test_the_curve_is_at_the_largest_radius_of_each_norm():
    curve = StepsCurve(PGD(eps=1, step_size=0.1), steps=(2, 5), images=7)
    plan = make_plan([FGSM()], {"linf": [0.1, 0.2], "l2": [0.5]}, steps_curve=curve)
    assert [case.threat for case in plan.curves] == [ThreatModel("linf", 0.2), ThreatModel("l2", 0.5)]
    assert plan.curves[0].attack.step_size == pytest.approx(0.02)
    assert (plan.steps, plan.curve_images) == ((2, 5), 7)


@pytest.mark.parametrize(
    ("eps", "message"),
    [
        ({"linf": [0.2, 0.1]}, r"eps\.linf must be increasing radii above 0, got \[0\.2, 0\.1\]"),
        ({"linf": [8]}, r"eps\.linf must be between 0 and 1, got 8.*8/255"),
        ({"linf": []}, r"eps\.linf must be a list of radii"),
        ({"linf": "8/255"}, r"eps\.linf must be a list of radii such as \[4/255, 8/255\], got '8/255'"),
        ({"linf": ["a"]}, r"eps\.linf must be a number or a fraction"),
        ({"l3": [0.1]}, r"norm must be one of linf, l2, l1, or a Ball, got 'l3'"),
    ],
)
def test_radii_that_are_not_allowed(eps, message):
    with pytest.raises(ValueError, match=message):
        make_plan([FGSM()], eps)


def test_nothing_to_run():
    with pytest.raises(ValueError, match="attacks must hold at least one attack, got none"):
        make_plan([], {"linf": [0.1]})
    with pytest.raises(ValueError, match=r"eps has linf, but no attack fits: CarliniWagner-9 \(l2\)"):
        make_plan([CarliniWagner(steps=9)], {"linf": [0.1]})


class Missing(FGSM):
    def check_available(self):
        raise ValueError("pip install something")


def test_a_package_that_is_missing_is_told_before_anything_runs():
    with pytest.raises(ValueError, match="pip install something"):
        make_plan([PGD(), Missing()], {"linf": [0.1]})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": (5, 5)}, r"steps_curve\.steps must be increasing"),
        ({"steps": (0, 3)}, r"each at least 1, got \[0, 3\]"),
        ({"images": 0}, r"steps_curve\.images must be at least 1, got 0"),
    ],
)
def test_a_curve_that_is_not_allowed(settings, message):
    with pytest.raises(ValueError, match=message):
        StepsCurve(PGD(), **settings)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"y": torch.tensor([0, 1, 0, 2])}, r"y must lie in \[0, 2\), got labels from 0 to 2"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
    ],
)
def test_what_an_evaluation_refuses_before_the_first_attack(arguments, message):
    x, y = images(4)
    Breaks.seen.clear()
    given = {"y": y, "attacks": [Breaks()], **arguments}
    with pytest.raises(ValueError, match=message):
        evaluate(FirstPixel(), x, eps={"linf": [0.1]}, **given)
    assert Breaks.seen == []


def test_radii_that_would_be_written_alike_are_refused():
    """Their verdicts would be taken for each other's."""
    assert tell_distance(1.5e-9) == "1.5e-09"
    for radii in ([0.1, 0.1000001], [8 / 255, 8 / 255 + 1e-9]):
        with pytest.raises(ValueError, match=r"eps\.linf must be radii that differ in the first six digits"):
            make_plan([FGSM()], {"linf": radii})


class Own(Attack):
    """As the class documents it: one method, the norm by its name, eps as people write it."""

    def __init__(self, eps="8/255", norm="linf", steps=3, step_size=None):
        self.eps, self.norm, self.steps, self.step_size = eps, norm, steps, step_size

    def __call__(self, model, x, y, *, domain=None, generator=None):
        return x


@pytest.mark.parametrize(("given", "moved"), [(None, None), ("eps/4", "eps/4"), ("2/255", 0.05), (2 / 255, 0.05)])
def test_an_attack_that_says_its_norm_by_name_is_moved_to_each_radius(given, moved):
    cases = make_plan([Own(step_size=given)], {"linf": [0.1, 0.2], "l2": [1.0]}).cases
    assert [str(case.threat) for case in cases] == ["Linf 0.1", "Linf 0.2", "L2 1"]
    assert [(case.attack.eps, case.attack.norm) for case in cases] == [(0.1, "linf"), (0.2, "linf"), (1.0, "l2")]
    assert cases[1].attack.step_size == (pytest.approx(moved) if isinstance(moved, float) else moved)


def test_an_attack_of_radius_zero_takes_the_step_of_its_new_radius():
    assert fit_attack(PGD(eps=0), ThreatModel("linf", 0.2)).step_size == pytest.approx(0.05)


def test_what_is_no_attack():
    with pytest.raises(
        ValueError, match=r"attacks must hold instances of lightning_adv\.attacks\.Attack, got .* at index 1"
    ):
        make_plan([FGSM(), lambda model, x, y: x], {"linf": [0.1]})


class Bare(Attack):
    """Says neither norm nor eps."""

    def __call__(self, model, x, y, *, domain=None, generator=None):
        return x


def test_an_attack_outside_every_ball_or_short_of_its_own_is_told(caplog):
    short = PGD(eps=0.2, steps=2, step_size=0.01)
    curve = StepsCurve(PGD(eps=1, step_size=0.001), steps=(1, 10), images=5)
    with caplog.at_level(logging.WARNING, "lightning_adv"):
        make_plan([Bare(), StAdv(), FGSM(), short], {"linf": [0.1]}, steps_curve=curve)
    told = [record.message for record in caplog.records]
    assert [line.partition(":")[0] for line in told] == ["attacks", "attacks", "steps_curve.attack"]
    assert "Bare says neither norm nor eps" in told[0]
    assert "PGD-2 cannot reach the edge" in told[1]
    assert "10 steps go 0.01 far at most, and eps is 1," in told[2]


def test_signed_steps_in_l2_follow_the_radius():
    """Zhang & Zhu (2019), section A.2.1: steps of 2, 4 and 6 /255 at radii of 0.4, 0.8 and 1.2."""
    attack = PGD(eps=0.4, steps=20, step_size="2/255", norm="l2", start="zero", direction="sign")
    for eps, step_size in ((0.4, 2 / 255), (0.8, 4 / 255), (1.2, 6 / 255)):
        moved = fit_attack(Attack.from_config(attack.to_config()), ThreatModel("l2", eps))
        assert (moved.eps, moved.direction) == (eps, "sign")
        assert moved.step_size == pytest.approx(step_size, rel=1e-12)
