"""What an evaluation says of its own numbers."""

from __future__ import annotations

import json

import pytest
import torch

from lightning_adv.commands.evaluate.suspicions import look, look_at_verdicts, print_suspicions
from lightning_adv.commands.shared.images import TestImages
from lightning_adv.data import DigitsDataModule
from lightning_adv.evaluation import evaluate_chunk, make_plan
from lightning_adv.evaluation.suspicion.find import find_suspicions
from tests.evaluation.scripted import Breaks, FirstPixel, images


class BlackBox(Breaks):
    @property
    def black_box(self):
        return True


def found_by(*attacks, count=200, eps=(0.1,), exhaustive=False):
    x, y = images(count)
    plan = make_plan(attacks, {"linf": list(eps)}, exhaustive=exhaustive)
    chunks = [
        evaluate_chunk(FirstPixel(), x[start : start + 100], y[start : start + 100], plan, number=number, first=start)
        for number, start in enumerate(range(0, count, 100))
    ]
    return look_at_verdicts(plan, chunks)


def test_a_black_box_attack_that_breaks_what_gradients_did_not():
    (found,) = found_by(Breaks(range(50)), BlackBox(range(80), steps=2))
    assert found["name"] == "blackbox_beats_whitebox"
    assert (found["norm"], found["eps"], found["images"]) == ("linf", 0.1, 200)
    assert 30 in found["evidence"].values()  # it alone broke thirty
    json.dumps(found)


def test_a_black_box_attack_that_breaks_nothing_more():
    assert found_by(Breaks(range(50)), BlackBox(range(50), steps=2)) == []
    assert found_by(Breaks(range(50)), Breaks(range(80), steps=2)) == []


def test_what_a_gradient_broke_in_a_smaller_ball_is_no_merit_of_the_black_box():
    """In the larger ball the gradient attack has nothing left to do, and the black-box attack does not see it."""
    assert found_by(Breaks(range(50)), BlackBox(range(50), steps=2), eps=(0.1, 0.2)) == []


def test_where_no_gradient_attack_was_run_nothing_is_compared():
    """A black-box attack alone, or first: what it breaks is skipped by those after it."""
    assert found_by(BlackBox(range(80))) == []
    assert found_by(BlackBox(range(80)), Breaks(range(120), steps=2)) == []
    assert found_by(BlackBox(range(80)), Breaks(range(120), steps=2), eps=(0.1, 0.2)) == []


def test_a_black_box_attack_that_runs_first_is_compared_where_all_attacks_see_all():
    (found,) = found_by(BlackBox(range(80)), Breaks(range(50), steps=2), exhaustive=True)
    assert (found["images"], found["evidence"]["blackbox_only"]) == (200, 30)


class Rounded(torch.nn.Module):
    """Its gradient is zero."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(64, 10)

    def forward(self, x):
        return self.linear(((x * 4).round() / 4).flatten(1))


@pytest.mark.slow
def test_a_network_without_gradients_is_told_once_for_each_ball():
    data = DigitsDataModule()
    test = TestImages(data, chunk=50, images=None)
    x, _ = test.first(120)
    assert x.shape == (120, 1, 8, 8)
    plan = make_plan([Breaks()], {"linf": [0.1, 0.2], "l2": [1.0]}, seed=1)
    found = look(Rounded(), test, plan, 120, torch.device("cpu"))
    names = [each["name"] for each in found]
    assert "zero_gradients" in names
    told = [(each["name"], each["norm"]) for each in found]
    assert len(told) == len(set(told))
    assert names.count("zero_gradients") == 1  # the network's own, whatever the ball
    assert names.count("more_steps_do_not_help") == 2
    linf = next(each for each in found if each["name"] == "zero_gradients")
    assert (linf["norm"], linf["eps"], linf["images"]) == ("linf", 0.2, 120)
    assert look(Rounded(), test, plan, 0, torch.device("cpu")) == []


@pytest.mark.slow
def test_the_command_finds_a_sound_network_sound_and_a_bad_one_bad(evaluate, monkeypatch, run):
    from lightning_adv.commands.evaluate import suspicions

    results, printed = evaluate()
    assert results["suspicions"] == []
    assert "No sign that the numbers are too good" in printed

    def shattered(network, x, y, **settings):
        return find_suspicions(torch.nn.Sequential(Shatter(), network), x, y, **settings)

    monkeypatch.setattr(suspicions, "find_suspicions", shattered)
    results, printed = evaluate(output="bad")
    assert "zero_gradients" in [each["name"] for each in results["suspicions"]]
    assert printed.count("Suspicious: zero gradients") == 2  # before the attacks, and at the end


class Shatter(torch.nn.Module):
    def forward(self, x):
        return (x * 16).round() / 16


@pytest.mark.slow
def test_a_command_that_did_not_look_says_nothing(evaluate):
    """Nobody looks where there is no ball of a norm."""
    _, printed = evaluate("--attacks=[{class_path: StAdv, init_args: {steps: 1}}]", "--images=5")
    assert "No sign" not in printed


def test_nothing_is_said_where_nobody_looked(capsys):
    print_suspicions([], looked=False)
    assert capsys.readouterr().out == ""
