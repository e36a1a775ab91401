"""Attacks that a network does not allow are left out and told; the others are run."""

import logging
from importlib.util import find_spec

import pytest
import torch
from torch import nn

from lightning_adv.attacks import APGD, FGSM, PGD, Attack, AutoAttack, RandomNoise
from lightning_adv.evaluation import StepsCurve, evaluate, make_plan
from lightning_adv.evaluation.fitting import leave_out_unfit

NEEDS_AUTOATTACK = pytest.mark.skipif(find_spec("pyautoattack") is None, reason="needs pyautoattack")


class Threshold(nn.Module):
    """Sees which pixels are above a half: class 1 where the first is."""

    def forward(self, x):
        first = (x.flatten(1)[:, 0] > 0.5).to(x)
        return torch.stack([1 - first, first], 1)


def images():
    x = torch.rand(40, 3, 5, 5)
    x[:, 0, 0, 0] = torch.linspace(0.3, 0.7, 40)
    return x, Threshold()(x).argmax(1)


class Own(Attack):
    """Takes torch's gradient without a look at whether there is one."""

    def __init__(self, eps=0.1, norm="linf"):
        self.eps, self.norm = eps, norm

    def __call__(self, model, x, y, *, domain=None, generator=None):
        x = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(model(x)[range(len(x)), y].sum(), x)
        return (x - self.eps * gradient.sign()).clamp(0, 1).detach()


class Shift(Attack):
    """Sees nothing of the network, and does not say so: it is tried."""

    def __init__(self, eps=0.1, norm="linf"):
        self.eps, self.norm = eps, norm

    def __call__(self, model, x, y, *, domain=None, generator=None):
        return (x + self.eps * (1 - 2 * y.view(-1, 1, 1, 1))).clamp(0, 1)


def test_what_needs_no_gradient_is_run_on_a_network_without(caplog):
    x, y = images()
    curve = StepsCurve(PGD(), steps=(1, 10), images=5)
    with caplog.at_level(logging.WARNING, "lightning_adv"):
        found = evaluate(Threshold(), x, y, [FGSM(), Own(), Shift(), RandomNoise()], {"linf": [0.1]}, steps_curve=curve)
    assert [case.case.name for case in found.cases] == ["Shift", "RandomNoise"]
    assert found.cases[0].broken == ((x[:, 0, 0, 0] - 0.5).abs() < 0.1).sum()
    assert not found.curves
    told = [record.message.partition(": The network's logits have no gradient")[0] for record in caplog.records]
    assert told == ["attacks: left out: FGSM", "attacks: left out: Own", "attacks: left out: PGD-7"]


@pytest.mark.slow
@NEEDS_AUTOATTACK
def test_the_parts_of_an_ensemble_that_need_none_are_run(caplog):
    x, y = images()
    with caplog.at_level(logging.WARNING, "lightning_adv"):
        found = evaluate(Threshold(), x, y, [AutoAttack(attacks=["apgd-ce", "fab", "square"])], {"linf": [0.1]})
    (case,) = found.cases
    assert (case.case.name, list(case.case.attack.attacks)) == ("AutoAttack (square)", ["square"])
    assert case.broken > 0
    assert len(caplog.records) == 2


@NEEDS_AUTOATTACK
@pytest.mark.parametrize(("classes", "left"), [(2, ["apgd-ce", "fab-t"]), (3, ["apgd-ce", "apgd-dlr", "fab-t"])])
def test_too_few_classes(classes, left):
    network, x = nn.Sequential(nn.Flatten(), nn.Linear(75, classes)), torch.rand(4, 3, 5, 5)
    ensemble = AutoAttack(attacks=["apgd-ce", "apgd-dlr", "apgd-t", "fab-t"])
    plan = make_plan([ensemble, PGD(loss="dlr"), APGD(loss="dlr")], {"linf": [0.01, 0.02]})
    fitted = leave_out_unfit(plan, network, x, network(x).argmax(1), num_classes=classes)
    assert list(fitted.cases[0].attack.attacks) == left
    assert fitted.cases[0].name == f"AutoAttack ({', '.join(left)})"
    names = [reason.partition(":")[0] for reason in fitted.unfit]  # once, and not for each radius
    lost = ["AutoAttack (apgd-dlr)", "AutoAttack (apgd-t)", "PGD-7", "APGD-100"]
    assert names == (lost if classes == 2 else ["AutoAttack (apgd-t)"])


def test_a_network_that_allows_all_leaves_the_plan_as_it_is():
    network, x = nn.Sequential(nn.Flatten(), nn.Linear(75, 3)), torch.rand(4, 3, 5, 5)
    plan = make_plan([PGD(restarts=3), RandomNoise()], {"linf": [0.01]})
    assert leave_out_unfit(plan, network, x, torch.zeros(4, dtype=torch.long), num_classes=3) == plan


def test_nothing_is_left():
    x, y = images()
    with pytest.raises(
        ValueError, match="attacks: none can be run on this network: FGSM: The network's logits have no"
    ):
        evaluate(Threshold(), x, y, [FGSM()], {"linf": [0.1]})
