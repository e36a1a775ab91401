"""One interpretation: one crafting, checks before anything, and networks that stay as they were."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_adv.attacks import FGSM, PGD, Attack
from lightning_adv.core.errors import UsageError
from lightning_adv.interpretation import Crafted, Finding, Section, Subject, image_name, interpret
from lightning_adv.interpretation.finding import to_csv
from lightning_adv.nn.batchnorm import convert_batchnorm
from lightning_adv.nn.domain_batchnorm import DomainBatchNorm
from lightning_adv.testing.untouched import Snapshot


def network(seed: int = 0, classes: int = 3) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, classes)
    )


def images(count: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    drawn = torch.Generator().manual_seed(1)
    return torch.rand(count, 1, 8, 8, generator=drawn), torch.arange(count) % 3


class Counting(Attack):
    """FGSM that counts its batches."""

    def __init__(self) -> None:
        self.eps, self.norm, self.calls = 0.1, "linf", 0

    def perturb(self, forward, x, y, generator):
        self.calls += 1
        return FGSM(eps=0.1).perturb(forward, x, y, generator)


class Accuracy(Section):
    name = "accuracy"

    def find(self, subjects, crafted):
        for subject in subjects:
            for attack in crafted.attacks:
                for source in subjects:
                    x = crafted.adversarial(attack, source.name)
                    correct = torch.cat(
                        [subject.network(part).argmax(1) == y for part, y in crafted.batches(x, crafted.y)]
                    )
                    images = image_name(attack, source.name, subject.name)
                    yield Finding(subject.name, images, "", "accuracy", float(correct.double().mean()), count=len(x))


class Again(Accuracy):
    name = "again"


class Noise(Section):
    name = "noise"

    def find(self, subjects, crafted):
        for subject in subjects:
            yield Finding(subject.name, "clean", "", "draw", float(torch.rand(1, generator=crafted.generator("noise"))))


def test_examples_are_crafted_once_for_all_sections() -> None:
    attack = Counting()
    found = interpret(
        {"a": network(), "b": network(1)}, *images(), {"fgsm": attack}, [Accuracy(), Again()], batch_size=2
    )
    assert attack.calls == 2 * 3  # two networks, five images in batches of two
    assert found["accuracy"].findings == found["again"].findings
    assert [row.images for row in found["accuracy"].findings] == ["fgsm", "fgsm of b", "fgsm of a", "fgsm"]


def test_examples_are_those_of_the_attack_itself() -> None:
    x, y = images()
    own, attack = network().eval(), PGD(eps=0.2, steps=3, step_size=0.1)
    crafted = Crafted([Subject("a", own)], {"pgd": attack}, x, y, seed=7, batch_size=3)
    drawn = crafted.generator("attack", "pgd")
    expected = torch.cat([attack(own, x[part], y[part], generator=drawn) for part in (slice(3), slice(3, 5))])
    assert torch.equal(crafted.adversarial("pgd", "a"), expected)


def test_draws_depend_on_the_seed_and_the_purpose_alone() -> None:
    alone = interpret({"a": network(), "b": network(1)}, *images(), {}, [Noise()], seed=3)["noise"].findings
    beside = interpret({"b": network(1), "a": network()}, *images(), {"fgsm": FGSM()}, [Accuracy(), Noise()], seed=3)[
        "noise"
    ].findings
    other = interpret({"a": network()}, *images(), {}, [Noise()], seed=4)["noise"].findings
    assert {row.value for row in alone} == {row.value for row in beside}
    assert alone[0].value != other[0].value


@pytest.mark.parametrize("training", [True, False])
def test_networks_are_left_as_they_were(training: bool) -> None:
    own = network().train(training)
    own[0].weight.requires_grad_(False)
    own[5].weight.grad = torch.ones(3, 144)
    before, drawn = Snapshot(own), torch.get_rng_state()
    interpret({"a": own}, *images(), {"pgd": PGD(steps=2)}, [Accuracy()])
    assert before.difference() is None
    assert torch.equal(torch.get_rng_state(), drawn)


def test_networks_are_in_eval_mode_and_go_through_their_domains() -> None:
    own = convert_batchnorm(network(), ("main", "adversarial"))
    with torch.no_grad():
        norm = own[1]
        assert isinstance(norm, DomainBatchNorm)
        norm.norms["adversarial"].running_mean.fill_(100.0)  # nothing passes the ReLU: every image is the bias's class
    own[5].bias.data.copy_(torch.tensor([0.0, 0.0, 50.0]))
    found = interpret(
        {"main": own, "adversarial": own},
        *images(6),
        {"fgsm": FGSM()},
        [Accuracy()],
        domains={"adversarial": "adversarial"},
    )["accuracy"].findings
    assert found[-1] == Finding("adversarial", "fgsm", "", "accuracy", 2 / 6, count=6)
    assert own[1].domain_switch.active == "main"


class Refuses(Section):
    name = "refuses"

    def check(self, subjects, crafted):
        raise UsageError("layers: there is no layer of that name.")

    def find(self, subjects, crafted):
        raise AssertionError


def test_all_checks_come_before_anything_is_computed() -> None:
    attack = Counting()
    with pytest.raises(UsageError, match="no layer of that name"):
        interpret({"a": network()}, *images(), {"fgsm": attack}, [Accuracy(), Refuses()])
    assert attack.calls == 0


class Nameless(Accuracy):
    name = "two words"


BAD = {
    "no networks": ({"networks": {}}, "networks must be at least one, got none"),
    "a path": ({"networks": {"runs/a": network()}}, r"networks has 'runs/a': a name is that of files too"),
    "hidden": ({"networks": {".a": network()}}, r"networks has '\.a'"),
    "a long name": ({"networks": {"a" * 61: network()}}, "must have 1 to 60 characters"),
    "no name": ({"networks": {"": network()}}, "networks has ''"),
    "an attack's name": ({"attacks": {"a:b": FGSM()}}, "attacks has 'a:b'"),
    "a number for a name": ({"networks": {3: network()}}, "networks has 3: a name is that of files too"),
    "letters of many bytes": ({"networks": {"\U0001f600" * 30: network()}}, "must have 1 to 60 characters"),
    "a surrogate": ({"networks": {"\ud800": network()}}, "a name is that of files too"),
    "two words": ({"attacks": {"fgsm of b": FGSM()}}, "attacks has 'fgsm of b': the name of an attack has no blanks"),
    "clean": ({"attacks": {"clean": FGSM()}}, "attacks has 'clean': that is what images without an attack are called"),
    "other classes": (
        {"networks": {"a": network(), "b": network(classes=4)}},
        "networks must know the same classes, but a has 3, b has 4"
    ),
    "other images": (
        {"x": torch.rand(5, 3, 8, 8)}, r"networks: a does not take images of shape \(3, 8, 8\)"
    ),
    "no logits": ({"networks": {"a": nn.Identity()}},
        r"networks: a must give logits \(n, K\), got shape \(1, 1, 8, 8\)"),
    "labels": ({"y": torch.full((5,), 3)}, r"y must lie in \[0, 3\), got labels from 3 to 3"),
    "no images": ({"x": torch.rand(0, 1, 8, 8), "y": torch.zeros(0, dtype=torch.long)}, "x must be at least one image"),
    "a domain": ({"domains": {"b": "main"}}, "domains has 'b'; the networks are a"),
    "no sections": ({"sections": []}, "sections must be at least one, got none"),
    "a section twice": (
        {"sections": [Accuracy(), Accuracy()]}, r"sections has two of the name 'accuracy' \(Accuracy and Accuracy\)"
    ),
    "a section's name": ({"sections": [Nameless()]}, "sections: Nameless must have an identifier as its name"),
    "batches": ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told_in_one_sentence(case: str) -> None:
    changed, told = BAD[case]
    x, y = images()
    given = {"networks": {"a": network()}, "x": x, "y": y, "attacks": {"fgsm": FGSM()}, "sections": [Accuracy()]}
    with pytest.raises(UsageError, match=told) as caught:
        interpret(**(given | changed))
    assert "\n" not in str(caught.value)


def test_names_of_attacks_and_networks_are_looked_up() -> None:
    crafted = Crafted([Subject("standard", network())], {"pgd20": PGD()}, *images())
    with pytest.raises(UsageError, match=r"attack is 'pgd2'; the attacks are pgd20\. Did you mean 'pgd20'\?"):
        crafted.adversarial("pgd2", "standard")
    with pytest.raises(UsageError, match=r"network is 'madry'; the networks are standard\."):
        crafted.adversarial("pgd20", "madry")


def test_a_table_has_empty_cells_where_there_is_no_interval() -> None:
    rows = [
        Finding("a", "clean", "", "share", 0.5, 0.25, 0.75, 10),
        Finding("a,b", "fgsm", "conv1", "max", 1 / 3, count=1),
    ]
    assert to_csv(rows).splitlines()[1:] == ["a,clean,,share,0.5,0.25,0.75,10", '"a,b",fgsm,conv1,max,0.333333333,,,1']
