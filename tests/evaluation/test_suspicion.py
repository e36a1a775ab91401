"""Networks with a fault are suspected of it, with numbers that are counted here in another way; sound ones of none."""

import json
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_adv.attacks.balls import get_ball
from lightning_adv.evaluation.suspicion.find import covering_radius, find_suspicions
from lightning_adv.nn.normalize import Normalize
from lightning_adv.testing.untouched import Snapshot
from tests.evaluation.suspects import SOUND, Around, probe, trained
from tests.seeded import classes_of, seeded

EPS = 0.2
BLACK, FULL, STEPS = "blackbox_beats_whitebox", "full_eps_leaves_accuracy", "more_steps_do_not_help"
LARGER, FGSM_WINS, ZERO = "larger_eps_does_not_help", "fgsm_beats_pgd", "zero_gradients"


def rugged(x):
    """Ripples with a steep slope that vanish on the digits' own pixels, which are multiples of 1/16."""
    return x + 0.1 * torch.sin(32 * math.pi * x)


def turned(x):
    """The same image, whose gradient points the other way."""
    return 2 * x.detach() - x


def batch_norm(x):
    return F.batch_norm(x, None, None, training=True) * 0.376 + 0.3053


def dropout_left_on():
    return nn.Sequential(trained("standard"), nn.Dropout(0.5)).train()


# What was done to a network, and what it is suspected of: no more and no less.
FAULTS = {
    "rounding": (lambda: Around(trained("standard"), lambda x: (4 * x).round() / 4), {ZERO, BLACK, STEPS, FULL}),
    "detached": (lambda: Around(trained("standard"), torch.detach), {ZERO}),
    "gradients turned around": (lambda: Around(trained("standard"), turned), {BLACK, STEPS, LARGER, FULL}),
    "rugged": (lambda: Around(trained("standard"), rugged), {FGSM_WINS, BLACK, STEPS, LARGER, FULL}),
    "rugged, robust": (lambda: Around(trained("madry"), rugged), {FGSM_WINS, BLACK, STEPS, LARGER, FULL}),
    "clipped": (lambda: Around(trained("standard"), lambda x: x.clamp(0.3, 0.7)), {FULL}),
    "saturated": (
        lambda: Around(trained("standard"), behind=lambda logits: torch.tanh(10 * logits)),
        {ZERO, BLACK, STEPS, LARGER, FULL},
    ),
    "softmax": (lambda: Around(trained("standard"), behind=lambda logits: logits.softmax(1)), {"probabilities"}),
    "noise": (lambda: Around(trained("madry"), lambda x: x + 0.1 * torch.randn_like(x)), {"randomised_output"}),
    "random logits": (
        lambda: Around(trained("madry"), behind=lambda logits: logits + 5 * torch.randn_like(logits)),
        {"randomised_output"},
    ),
    "dropout left in train mode": (dropout_left_on, {"train_mode"}),
    "statistics of the batch": (lambda: Around(trained("madry"), batch_norm), {"batch_statistics"}),
    "normalised twice": (lambda: nn.Sequential(Normalize([0.5], [0.5]), trained("standard")), {"normalised_twice"}),
}  # fmt: skip

QUICK = ("rounding", "softmax", "dropout left in train mode")


def suspect(network, number=128, **settings):
    x, y = probe(number)
    found = find_suspicions(network, x, y, **{"eps": EPS} | settings)
    assert len({suspicion.name for suspicion in found}) == len(found)
    return {suspicion.name: suspicion for suspicion in found}


@pytest.mark.parametrize(
    "fault", [each if each in QUICK else pytest.param(each, marks=pytest.mark.slow) for each in FAULTS]
)
def test_faulty_networks(fault):
    build, names = FAULTS[fault]
    found = suspect(build())
    assert set(found) == names
    for suspicion in found.values():
        assert json.loads(json.dumps(suspicion.evidence, allow_nan=False)) == suspicion.evidence
        assert suspicion.message.endswith(".")


@pytest.mark.slow
@pytest.mark.parametrize("kind", SOUND)
def test_sound_networks(kind):
    assert find_suspicions(trained(kind), *probe(), eps=EPS, generator=seeded()) == []


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "eps"), [("linf", "8/255"), ("l2", 1.0), ("l1", 4.0)])
@pytest.mark.parametrize("kind", ["standard", "madry"])
def test_sound_networks_in_other_balls(kind, norm, eps):
    assert find_suspicions(trained(kind), *probe(64), norm=norm, eps=eps) == []


@pytest.mark.slow
def test_a_confident_network_is_sound():
    """Its cross-entropy has no gradient in fp32; the attacks here do not need one."""
    assert suspect(Around(trained("standard"), behind=lambda logits: 1e4 * logits)) == {}


@pytest.mark.slow
def test_a_sound_network_in_bfloat16():
    with torch.autocast("cpu", torch.bfloat16):
        assert suspect(trained("madry")) == {}


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "eps"), [("l2", 1.0), ("l1", 4.0)])
def test_faults_in_other_norms(norm, eps):
    found = suspect(FAULTS["rounding"][0](), 64, norm=norm, eps=eps)
    assert {ZERO, STEPS, FULL} <= set(found)
    assert (found[STEPS].evidence["norm"], found[STEPS].evidence["eps"]) == (norm, eps)
    assert (found[FULL].evidence["norm"], found[FULL].evidence["eps"]) == ("linf", 1)  # the same images
    assert {STEPS, LARGER, FULL} <= set(suspect(FAULTS["gradients turned around"][0](), 64, norm=norm, eps=eps))


# The evidence


@pytest.mark.slow
def test_where_there_is_no_gradient_nothing_moves():
    network, (x, y) = FAULTS["rounding"][0](), probe()
    found, correct = suspect(network), int((classes_of(network, x) == y).sum())
    assert found[ZERO].evidence["zero"] == len(x)
    steps, full = found[STEPS].evidence, found[FULL].evidence
    assert (steps["images"], steps["loss_grown"], steps["few_steps"], steps["many_steps"]) == (correct, 0, 1, 100)
    assert steps["median_loss_few_steps"] == steps["median_loss_many_steps"]
    assert (full["images"], full["unbroken"], full["eps"]) == (correct, correct, 1.0)
    # PGD stays where it starts: it breaks what one uniform draw breaks
    start = (x + 0.2 * (2 * torch.rand(x.shape, generator=seeded(9)) - 1)).clamp(0, 1)
    by_chance = int(((classes_of(network, start) != y) & (classes_of(network, x) == y)).sum())
    assert abs(found[BLACK].evidence["whitebox_broken"] - by_chance) < 12
    assert found[BLACK].evidence["blackbox_only"] > 30


@pytest.mark.slow
def test_fgsm_by_plain_autograd():
    network, (x, y) = FAULTS["rugged"][0](), probe()
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(network(leaf), y, reduction="sum"), leaf)
    broken = classes_of(network, (x + EPS * gradient.sign()).clamp(0, 1)) != y
    correct = classes_of(network, x) == y
    evidence = suspect(network)[FGSM_WINS].evidence
    assert (evidence["images"], evidence["eps"], evidence["norm"]) == (int(correct.sum()), EPS, "linf")
    assert abs(evidence["fgsm_broken"] - int((broken & correct).sum())) <= 1
    assert evidence["pgd_broken"] < evidence["fgsm_broken"] / 3
    assert evidence["fgsm_only"] - evidence["pgd_only"] == evidence["fgsm_broken"] - evidence["pgd_broken"]


@pytest.mark.slow
def test_a_turned_gradient_leads_to_better_images():
    """Downhill: no image breaks in any ball, and no loss grows."""
    found = suspect(FAULTS["gradients turned around"][0]())
    assert found[BLACK].evidence["whitebox_broken"] == 0
    assert found[STEPS].evidence["loss_grown"] == found[LARGER].evidence["loss_grown"] == 0
    assert found[LARGER].evidence["larger_eps"] == 2 * EPS
    assert found[FULL].evidence["unbroken"] == found[FULL].evidence["images"]


@pytest.mark.slow
def test_pixels_that_a_clipping_network_does_not_see():
    """Of images outside the clipped range no pixel has a gradient, and no attack a way to go."""
    x, y = probe()
    x = (x > 0.5).float()
    network = Around(trained("standard"), lambda x: x.clamp(0.3, 0.7))
    found = {suspicion.name: suspicion.evidence for suspicion in find_suspicions(network, x, y, eps=EPS)}
    assert found[ZERO]["zero"] == len(x)
    assert found[FULL]["unbroken"] == found[FULL]["images"] == int((classes_of(network, x) == y).sum())


@pytest.mark.parametrize(("norm", "radius"), [("linf", 1), ("l2", math.sqrt(192)), ("l1", 192)])
def test_the_radius_that_covers_all_images(norm, radius):
    assert covering_radius(get_ball(norm), torch.rand(3, 8, 8)) == pytest.approx(radius)


@pytest.mark.slow
def test_eps_of_all_images_has_no_larger_one():
    assert suspect(trained("standard"), 64, eps=1) == {}
    assert {STEPS, FULL} == set(suspect(FAULTS["gradients turned around"][0](), 64, eps=1)) - {BLACK}


# What it costs, and what it leaves alone


class Counting(Around):
    """Counts the images that go forward and those whose gradient comes back."""

    def __init__(self, network):
        super().__init__(network)
        self.forwards = self.backwards = self.largest = 0

    def forward(self, x):
        self.forwards, self.largest = self.forwards + len(x), max(self.largest, len(x))
        if x.requires_grad:
            x.register_hook(lambda gradient: setattr(self, "backwards", self.backwards + len(gradient)))
        return super().forward(x)


@pytest.mark.slow
def test_its_cost():
    network, (x, y) = Counting(trained("madry")), probe()
    correct = classes_of(trained("madry"), x) == y
    assert find_suspicions(network, x[correct], y[correct], eps=EPS, batch_size=50) == []
    number = int(correct.sum())
    assert network.backwards == 203 * number
    assert network.forwards <= (203 + 50 + 20) * number
    assert network.largest <= 50


def test_a_network_that_is_always_wrong_is_not_attacked():
    (x, _), network = probe(), Counting(trained("standard"))
    wrong = (classes_of(network, x) + 1) % 10
    assert find_suspicions(network, x, wrong, eps=EPS) == []
    assert network.backwards == len(x)  # by the search for zero gradients


@pytest.mark.slow
def test_everything_is_left_as_it_was():
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(0.5), nn.Linear(144, 10))
    network.train()[1].eval()
    before, state = Snapshot(network), torch.get_rng_state()
    found = suspect(network, 64)
    suspect(FAULTS["noise"][0](), 64)
    assert found["train_mode"].evidence["layers"] == ["3"]
    assert torch.equal(torch.get_rng_state(), state)
    assert before.difference() is None


@pytest.mark.slow
def test_the_same_seed_gives_the_same_evidence():
    network = FAULTS["rounding"][0]()
    first, default, other = (suspect(network, 64, generator=g)[BLACK] for g in (seeded(0), None, seeded(1)))
    assert first == default
    assert first.evidence != other.evidence


@pytest.mark.slow
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode], ids=["no_grad", "inference_mode"])
def test_without_gradients(context):
    network = FAULTS["rugged, robust"][0]()
    expected = suspect(network, 32)
    assert expected
    with context():
        assert suspect(network, 32) == expected


# Bad input


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"eps": 0}, "eps must be above 0"),
        ({"eps": 8}, "eps must be between 0 and 1"),
        ({"norm": "l7"}, "norm must be one of"),
        ({"batch_size": 0}, "batch_size must be"),
    ],
)
def test_bad_arguments_are_named(settings, told):
    with pytest.raises(ValueError, match=told):
        suspect(trained("standard"), **settings)


def test_bad_images_labels_and_networks():
    x, y = probe(8)
    network = trained("standard")
    for arguments, told in (
        ((network, x * 2 + 1, y), "x must lie in"),
        ((network, x, y + 10), "y must lie in"),
        ((network, x[:0], y[:0]), "at least one image"),
        ((Around(network, behind=torch.log), x, y), "NaN logits for . of 8 images"),
        ((Around(network, behind=lambda logits: logits[:, 0]), x, y), "network must give logits"),
    ):
        with pytest.raises(ValueError, match=told):
            find_suspicions(*arguments, eps=EPS)


@pytest.mark.slow
def test_a_gradient_that_is_no_number_ends_in_evidence():
    x, y = probe(32)
    found = find_suspicions(Around(trained("standard"), torch.sqrt), x, y, eps=EPS)
    assert ZERO in {suspicion.name for suspicion in found}
    json.dumps([suspicion.evidence for suspicion in found], allow_nan=False)
