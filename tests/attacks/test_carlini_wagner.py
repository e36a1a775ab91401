import copy
import math

import foolbox
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_adv.attacks import PGD, CarliniWagner, CarliniWagnerLinf, DCarliniWagner
from tests.seeded import classes_of, seeded

FAST = {"steps": 100, "learning_rate": 0.05, "binary_search_steps": 7, "initial_const": 0.01}


class Watching(nn.Module):
    """Remembers the shapes of what it is given."""

    def __init__(self, network):
        super().__init__()
        self.network, self.shapes = network, []

    def forward(self, x):
        self.shapes.append(tuple(x.shape))
        return self.network(x)


def _distance(x_adv, x):
    return (x_adv - x).flatten(1).norm(dim=1)


@pytest.fixture(scope="module")
def setup(digits, train):
    """A network trained on 1,500 digits, and 40 other digits that leave the edges of [0, 1] alone."""
    x, y = digits
    return train(x[:1500], y[:1500], epochs=5), 0.8 * x[1500:1540] + 0.1, y[1500:1540]


# The closed form: a linear network


@pytest.fixture(scope="module")
def linear():
    """Two classes, images near the middle of [0, 1], and their signed distances to the plane between the classes."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).double()
    with torch.no_grad():
        network[1].weight.copy_(torch.randn(2, 12, generator=seeded(0)))
        network[1].bias.copy_(torch.tensor([0.1, -0.1]))
    x = 0.3 + 0.4 * torch.rand(20, 3, 2, 2, generator=seeded(1), dtype=torch.float64)
    normal = network[1].weight[0] - network[1].weight[1]
    bias = network[1].bias[0] - network[1].bias[1]
    network.requires_grad_(False)
    return network, x, (x.flatten(1) @ normal + bias).detach(), normal.norm().detach()


@pytest.mark.slow
@pytest.mark.parametrize("label", ["true", "random", "least_likely"])
@pytest.mark.parametrize("confidence", [0.0, 0.5])
def test_a_linear_network_is_crossed_at_its_exact_distance(linear, label, confidence):
    network, x, lead, length = linear
    y = classes_of(network, x)
    x_adv = CarliniWagner(steps=500, confidence=confidence, label=label)(network, x, y)
    exact = (lead.abs() + confidence) / length
    found = _distance(x_adv, x)
    assert (found > exact).all()
    torch.testing.assert_close(found, exact, rtol=0.005, atol=1e-4)
    logits = network(x_adv)
    won = logits.gather(1, 1 - y[:, None]) - logits.gather(1, y[:, None])
    assert (won > confidence).all()
    assert (won < confidence + 0.02).all()


@pytest.mark.slow
def test_a_sample_that_is_wrong_already_is_left_alone(linear):
    network, x, _, _ = linear
    predicted = classes_of(network, x)
    y = predicted.clone()
    y[::2] = 1 - y[::2]
    watching = Watching(network)
    moved = (CarliniWagner(steps=100, binary_search_steps=5)(watching, x, y) != x).flatten(1).any(1)
    assert (moved == (y == predicted)).all()
    assert [shape[0] for shape in watching.shapes[:2]] == [20, 10]  # nor does it cost anything
    x_adv = CarliniWagner(steps=100, label="predicted")(network, x, y)
    assert (classes_of(network, x_adv) != predicted).all()


@pytest.mark.slow
def test_only_examples_within_eps_are_returned(linear):
    network, x, lead, length = linear
    exact = lead.abs() / length
    eps = exact.median().item() * 1.02
    y = classes_of(network, x)
    free, bounded = (CarliniWagner(e, steps=300)(network, x, y) for e in (None, eps))
    within = exact < eps / 1.01
    beyond = exact > eps
    assert within.sum() >= 5
    assert beyond.sum() >= 5
    assert torch.equal(bounded[within], free[within])
    assert torch.equal(bounded[beyond], x[beyond])
    assert (_distance(bounded, x) <= eps).all()
    half = CarliniWagner(2 * eps, steps=300).scaled(0.5)
    assert torch.equal(half(network, x, y), bounded)
    with pytest.raises(ValueError, match="eps must be a distance to be scaled, got None"):
        CarliniWagner().scaled(0.5)


def test_no_success_is_the_clean_image(linear):
    network, x, _, _ = linear
    y = classes_of(network, x)
    x_adv = CarliniWagner(steps=1, binary_search_steps=3)(network, x, y)
    assert torch.equal(x_adv, x)
    hopeless = CarliniWagner(steps=20, confidence=1e4)(network, x, y)
    assert torch.equal(hopeless, x)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_examples_are_those_that_the_network_saw(linear, dtype):
    network, x, lead, length = linear
    network, x = copy.deepcopy(network).to(dtype), x.to(dtype)
    y = classes_of(network, x)
    x_adv = CarliniWagner(steps=300)(network, x, y)
    assert x_adv.dtype == dtype
    assert (classes_of(network, x_adv) != y).all()
    found = _distance(x_adv.double(), x.double())
    assert (found < lead.abs() / length + 0.05).all()
    for eps in (found[::4] * 0.9999).tolist():  # what is measured is the rounded example
        bounded = CarliniWagner(eps, steps=100)(network, x, y)
        assert (_distance(bounded.double(), x.double()) <= eps * (1 + 1e-6)).all()


# Other implementations


def _foolbox(network, x, criterion, *, steps, learning_rate, binary_search_steps, initial_const, **settings):
    attack = foolbox.attacks.L2CarliniWagnerAttack(
        binary_search_steps=binary_search_steps, steps=steps, stepsize=learning_rate, initial_const=initial_const,
        **settings,
    )  # fmt: skip
    return attack.run(foolbox.PyTorchModel(copy.deepcopy(network), bounds=(0, 1), device="cpu"), x, criterion)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "targeted", "edges"),
    [
        # half of the combinations, every pair of values among them
        ({}, False, False),
        ({}, True, True),
        ({"abort_early": False}, False, True),
        ({"abort_early": False}, True, False),
        ({"confidence": 2.0}, False, True),
        ({"confidence": 2.0}, True, False),
    ],
)
def test_agreement_with_foolbox(setup, settings, targeted, edges):
    network, x, y = setup
    if edges:
        x = (x - 0.1) / 0.8
    x, y = x.clamp(0, 1)[:20], classes_of(network, x.clamp(0, 1))[:20]
    with torch.no_grad():
        target = network(x).argmin(1)
    criterion = (
        foolbox.criteria.TargetedMisclassification(target) if targeted else foolbox.criteria.Misclassification(y)
    )
    theirs = _foolbox(network, x, criterion, **FAST, **settings)
    ours = CarliniWagner(**FAST, **settings, label="least_likely" if targeted else "true")(network, x, y)
    for images in (ours, theirs):
        predicted = classes_of(network, images)
        assert ((predicted == target) if targeted else (predicted != y)).all()
    distances = _distance(ours, x), _distance(theirs, x)
    print(f"median {distances[0].median():.4f}, foolbox {distances[1].median():.4f}")
    assert distances[0].median() == pytest.approx(distances[1].median().item(), rel=0.02)
    assert distances[0].mean() <= 1.01 * distances[1].mean()
    torch.testing.assert_close(*distances, rtol=0.06, atol=0)


def test_margin_in_linf_against_madrys_loop(setup):
    """Their loss is cut off at a confidence of 50: -relu(z_y - max of the others + 50)."""
    network, x, y = setup
    attack = CarliniWagnerLinf(eps=0.1, steps=10, step_size=0.02)
    adversarial = PGD(eps=0.1, steps=1, step_size=0)(network, x, y, generator=seeded())  # the random start
    for _ in range(10):
        leaf = adversarial.clone().requires_grad_()
        logits = network(leaf)
        mask = F.one_hot(y, 10).double()
        own, other = (mask * logits).sum(1), ((1 - mask) * logits - 1e4 * mask).amax(1)
        (gradient,) = torch.autograd.grad(-F.relu(own - other + 50).sum(), leaf)
        adversarial = torch.clamp(adversarial + 0.02 * gradient.sign(), x - 0.1, x + 0.1).clamp(0, 1)
    ours = attack(network, x, y, generator=seeded())
    assert (ours - adversarial).abs().gt(1e-5).float().mean() < 0.005
    assert (classes_of(network, ours) != y).equal(classes_of(network, adversarial) != y)
    assert 0.1 < (classes_of(network, ours) != y).float().mean() < 0.95


# Its parts


@pytest.mark.slow
def test_early_stops_save_work_and_little_is_lost(setup):
    network, x, y = setup[0], setup[1][:10], setup[2][:10]
    work, found = [], []
    for abort_early in (True, False):
        watching = Watching(network)
        found.append(_distance(CarliniWagner(**FAST | {"steps": 300}, abort_early=abort_early)(watching, x, y), x))
        work.append(sum(shape[0] for shape in watching.shapes))
    assert work[0] < 0.8 * work[1]
    assert found[0].mean() < 1.01 * found[1].mean()


@pytest.mark.slow
def test_batch_statistics_are_those_of_the_whole_batch(setup):
    watching, x, y = Watching(setup[0]), setup[1][:20], setup[2][:20].clone()
    y[0] = (y[0] + 1) % 10  # wrong already, but a batch mate
    CarliniWagner(**FAST, batchnorm="batch")(watching, x, y)
    assert {shape[0] for shape in watching.shapes} == {20}
    watching.shapes.clear()
    CarliniWagner(**FAST | {"learning_rate": 1e-12}, batchnorm="batch")(watching, x, y)
    assert {shape[0] for shape in watching.shapes} == {20}
    assert len(watching.shapes) == 1 + 7 * 11  # nobody gets on: all stop at the second look, after 11 of 100 steps


def _plainly(network, x, label, targeted, train, *, steps, learning_rate, binary_search_steps, initial_const):
    """Section VI-A as one would write it: autograd on the whole loss, in Python loops over samples."""
    network = copy.deepcopy(network).train(train)
    best, nearest = x.clone(), [math.inf] * len(x)
    const, lower, upper = ([value] * len(x) for value in (initial_const, 0.0, math.inf))

    def offer(images, leads, found):
        for i, lead in enumerate(leads):
            distance = (images[i] - x[i]).norm().item()
            if lead > 0:
                found.add(i)
                if distance < nearest[i]:
                    best[i], nearest[i] = images[i].detach(), distance

    def margins(logits):
        rest = logits.masked_fill(F.one_hot(label, 10).bool(), -1e9).amax(1) - logits[range(len(x)), label]
        return -rest if targeted else rest

    offer(x, margins(network(x)).tolist(), set())
    for _ in range(binary_search_steps):
        w = torch.atanh(0.999999 * (2 * x - 1)).requires_grad_()
        adam, found = torch.optim.Adam([w], lr=learning_rate), set()
        for _ in range(steps):
            images = (torch.tanh(w) + 1) / 2
            leads = margins(network(images))
            loss = (images - x).square().sum() + (torch.tensor(const) * F.relu(-leads)).sum()
            offer(images, leads.tolist(), found)
            adam.zero_grad()
            loss.backward()
            adam.step()
        for i in range(len(x)):
            lower[i], upper[i] = (lower[i], const[i]) if i in found else (const[i], upper[i])
            const[i] = 10 * const[i] if math.isinf(upper[i]) else (lower[i] + upper[i]) / 2
    return best


@pytest.mark.slow
@pytest.mark.parametrize("label", ["true", "least_likely"])
@pytest.mark.parametrize("batchnorm", ["eval", "batch"])
def test_against_a_plain_loop(setup, batchnorm, label):
    network, x, y = copy.deepcopy(setup[0]).double(), setup[1][:6].double(), setup[2][:6]
    train, targeted = batchnorm == "batch", label == "least_likely"
    settings = {"steps": 30, "learning_rate": 0.1, "binary_search_steps": 5, "initial_const": 0.01}
    with torch.no_grad():
        target = copy.deepcopy(network).train(train)(x).argmin(1) if targeted else y
    expected = _plainly(network, x, target, targeted, train, **settings)
    x_adv = CarliniWagner(**settings, abort_early=False, label=label, batchnorm=batchnorm)(network, x, y)
    torch.testing.assert_close(x_adv, expected, rtol=0, atol=1e-6)
    assert (x_adv != x).flatten(1).any(1).sum() >= 5


@pytest.mark.slow
def test_autocast_finds_examples_as_near(setup):
    network, x, y = setup[0], setup[1][:15], setup[2][:15]
    expected = _distance(CarliniWagner(**FAST)(network, x, y), x)
    for precision in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", precision):
            x_adv = CarliniWagner(**FAST)(network, x, y)
            assert (classes_of(network, x_adv) != y).all()
        assert _distance(x_adv, x).median() < 1.1 * expected.median()


@pytest.mark.slow
def test_no_constant_enters_the_backward_pass(setup):
    """In fp16 one of 0.001 would underflow on the way through the network."""
    network, gradients = copy.deepcopy(setup[0]), []
    network.register_full_backward_pre_hook(lambda module, output: gradients.append(output[0].unique().tolist()))
    CarliniWagner(**FAST | {"steps": 30})(network, setup[1][:8], setup[2][:8])
    assert len(gradients) > 7 * 10
    assert all(set(found) <= {-1, 0, 1} for found in gradients)
    assert [-1, 0, 1] in gradients


@pytest.mark.slow
def test_success_is_judged_without_diversity(setup):
    network, x, y = setup
    x = F.interpolate(x, 10)
    network = nn.Sequential(nn.AdaptiveAvgPool2d(8), network).eval()
    watching = Watching(network)
    attack = DCarliniWagner(steps=60, learning_rate=0.05, confidence=1, diversity_scale=1.5, binary_search_steps=5)
    x_adv = attack(watching, x, y, generator=seeded())
    with torch.no_grad():
        logits = network(x_adv)
    own = logits.gather(1, y[:, None])[:, 0]
    moved = (x_adv != x).flatten(1).any(1)
    assert moved.float().mean() > 0.8
    assert (logits.scatter(1, y[:, None], -math.inf).amax(1) - own > 0.99)[moved].all()
    sizes = [shape[-1] for shape in watching.shapes]
    assert set(sizes) == {10, 15}
    transformed, steps = sizes.count(15), 1 + 5 * 60
    # A transformed step takes a plain forward too; who stops early takes fewer steps.
    assert len(sizes) <= steps + transformed
    assert 0.4 < transformed / (len(sizes) - transformed) < 0.6


def test_an_empty_batch(linear):
    network, x, _, _ = linear
    for attack in (CarliniWagner(), CarliniWagner(1, batchnorm="batch", label="random"), DCarliniWagner()):
        assert attack(network, x[:0], torch.zeros(0, dtype=torch.long)).shape == (0, 3, 2, 2)


# Settings

PAPERS = {
    # The authors' code: 9 constants from 0.001, Adam at 0.01; its 10,000 steps are a thousand here
    CarliniWagner: {"eps": None, "steps": 1000, "learning_rate": 0.01, "confidence": 0, "binary_search_steps": 9,
                    "initial_const": 1e-3, "abort_early": True, "diversity_probability": 0},
    # Xie et al. 2019, section 3.4.2
    DCarliniWagner: {"eps": None, "steps": 250, "learning_rate": 0.01, "confidence": 10, "binary_search_steps": 9,
                     "initial_const": 1e-3, "diversity_probability": 0.5, "diversity_scale": 330 / 299},
    # Madry et al. 2018, section 5, table 2: 30 steps of 2 at eps = 8
    CarliniWagnerLinf: {"eps": 8 / 255, "steps": 30, "step_size": 2 / 255, "start": "uniform", "loss": "margin",
                        "momentum": 0, "diversity_probability": 0, "project": True, "restarts": 1},
}  # fmt: skip


@pytest.mark.parametrize("attack", PAPERS)
def test_the_papers_defaults(attack):
    built = attack()
    assert {name: getattr(built, name) for name in PAPERS[attack]} == PAPERS[attack]
    assert (built.norm.name, built.label) == ("linf" if attack is CarliniWagnerLinf else "l2", "true")


@pytest.mark.slow
def test_named_settings_are_settings(setup):
    network, x, y = setup
    common = {"diversity_probability": 0.5, "diversity_scale": 0.8}
    pairs = [
        (
            CarliniWagnerLinf(eps=0.1, steps=3, restarts=2, label="random", batchnorm="batch", **common),
            PGD(eps=0.1, steps=3, restarts=2, label="random", batchnorm="batch", loss="margin", **common),
        ),
        (
            DCarliniWagner(3, steps=10, learning_rate=0.1, confidence=1, label="least_likely", **common),
            CarliniWagner(3, steps=10, learning_rate=0.1, confidence=1, label="least_likely", **common),
        ),
    ]
    for named, plain in pairs:
        first, second = (attack(network, x, y, generator=seeded()) for attack in (named, plain))
        assert torch.equal(first, second)
        assert (first != x).any()


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("eps", -1), ("eps", "8/0"), ("eps", "inf"), ("steps", 0), ("steps", 2.5), ("steps", "7"),
        ("binary_search_steps", 0), ("binary_search_steps", 1.5), ("learning_rate", 0), ("learning_rate", -1),
        ("learning_rate", float("nan")), ("initial_const", 0), ("initial_const", float("inf")), ("confidence", -1),
        ("confidence", float("nan")), ("label", "wrong"), ("label", False), ("diversity_probability", 1.1),
        ("diversity_scale", 0), ("batchnorm", "train"),
    ],
)  # fmt: skip
def test_arguments_outside_their_range(argument, value):
    with pytest.raises(ValueError, match=argument):
        CarliniWagner(**{argument: value})
