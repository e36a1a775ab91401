"""APGD against the authors' code, closed forms, and what it says of itself."""

from fractions import Fraction
from math import ceil

import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack
from torch import nn

from lightning_adv.attacks import APGD, L1
from lightning_adv.attacks.apgd import _checkpoints
from tests.seeded import is_correct, seeded

EPS = {"linf": 0.1, "l2": 0.5}  # so that each breaks some of these digits and not others


class Watching(nn.Module):
    """Remembers what it is given, and its answers."""

    def __init__(self, network):
        super().__init__()
        self.network, self.images, self.logits = network, [], []

    def forward(self, x):
        logits = self.network(x)
        self.images.append(x.detach().clone())
        self.logits.append(logits.detach().clone())
        return logits


class StartingAt(APGD):
    """APGD from a given start; of several samples, those that are left."""

    def __init__(self, start, *arguments, **settings):
        super().__init__(*arguments, **settings)
        self.start = start

    def _start(self, clean, generator):
        return self.start


@pytest.fixture(scope="module")
def setup(digits, train):
    """A network trained on 1,500 digits, and 120 other digits."""
    x, y = digits
    return train(x[:1500], y[:1500], epochs=5).double(), x[1500:1620].double(), y[1500:1620]


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["cross_entropy", "dlr"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_authors_code_from_the_same_start(setup, norm, loss):
    network, x, y = setup
    start = APGD(EPS[norm], norm=norm)._start(x, seeded())
    ours = StartingAt(start, EPS[norm], norm=norm, loss=loss)(network, x, y)
    authors = APGDAttack(
        network,
        norm={"linf": "Linf", "l2": "L2"}[norm],
        eps=EPS[norm],
        loss={"cross_entropy": "ce"}.get(loss, loss),
        device="cpu",
    )
    authors.init_hyperparam(x)
    best, correct, _, broken = authors.attack_single_run(x, y, x_init=start)
    theirs = torch.where(correct.view(-1, 1, 1, 1), best, broken)
    same = (ours - theirs).flatten(1).abs().amax(1) < 1e-6
    if loss == "dlr":
        # Where the own class is the third, the loss is 1 whatever the image. The authors' gradient is a rest there, of
        # the 1e-12 in their denominator: broken samples move on along it.
        same = same[correct]
    print(f"{norm}, {loss}: {same.double().mean():.3f} of the results are the same")
    assert same.double().mean() > 0.97
    assert (is_correct(network, ours, y) == correct).all()
    assert 0.05 < correct.double().mean() < 0.95


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_starts_are_drawn_as_by_the_authors(norm):
    # A cube's surface, or a sphere's: one entry at eps, or the same mean of squares.
    x = torch.full((4000, 1, 2, 3), 0.5)
    delta = (APGD(0.3, norm=norm)._start(x, seeded()) - x).flatten(1)
    authors = APGDAttack(None, norm={"linf": "Linf", "l2": "L2"}[norm], eps=0.3)
    authors.init_hyperparam(x)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = authors.normalize(2 * torch.rand(x.shape) - 1 if norm == "linf" else torch.randn(x.shape)) * 0.3
    order = {"linf": torch.inf, "l2": 2}[norm]
    torch.testing.assert_close(delta.norm(order, 1), torch.full((4000,), 0.3))
    for quantile in (0.1, 0.5, 0.9):
        torch.testing.assert_close(delta.quantile(quantile), theirs.quantile(quantile), rtol=0, atol=0.01)


@pytest.mark.parametrize("steps", [1, 2, 7, 10, 20, 50, 100, 137, 1000])
def test_checkpoints_are_those_of_section_3_2(steps):
    shares = [Fraction(0), Fraction(22, 100)]
    while shares[-1] <= 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - Fraction(3, 100), Fraction(6, 100)))
    assert _checkpoints(steps) == {ceil(share * steps) for share in shares[1:] if share <= 1}


def test_checkpoints_at_100_steps_are_those_of_the_authors_code():
    authors, steps, reached = APGDAttack(None, eps=0.1), [], 0
    period = authors.n_iter_2
    while (reached := reached + period) <= 100:
        steps.append(reached)
        period = max(period - authors.size_decr, authors.n_iter_min)
    assert _checkpoints(100) == set(steps)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_worst_point_of_a_linear_network(norm):
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2, bias=False)).double()
    x, y = 0.4 + 0.2 * torch.rand(20, 3, 2, 2, generator=seeded(), dtype=torch.float64), torch.arange(20) % 2
    weight = network[1].weight.detach()
    ascent = (weight[1 - y] - weight[y]).view_as(x)
    unit = ascent.sign() if norm == "linf" else ascent / ascent.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    reach = (ascent * 0.2 * unit).flatten(1).sum(1)
    lead = (ascent * x).flatten(1).sum(1)
    still = torch.arange(20) < 10

    class Biased(nn.Module):
        """Puts each sample's boundary a little beyond its worst point, or a little before."""

        def forward(self, images):
            z = network(images)
            wanted = torch.where(still, -1.01, -0.9) * reach - lead
            return z + wanted[:, None] * nn.functional.one_hot(1 - y, 2)

    x_adv = APGD(0.2, norm=norm)(Biased(), x, y, generator=seeded())
    torch.testing.assert_close(x_adv[still], (x + 0.2 * unit)[still], rtol=0, atol=1e-3 if norm == "l2" else 1e-9)
    assert (is_correct(Biased(), x_adv, y) == still).all()


@pytest.mark.slow
def test_a_confident_network_is_not_taken_for_a_robust_one(setup):
    network, x, y = setup
    network = network.float()
    x = x.float()[is_correct(network, x.float(), y)]
    y = network(x).argmax(1)

    class Confident(nn.Module):
        def forward(self, images):
            return 300 * network(images)

    expected = is_correct(network, APGD(0.1)(network, x, y, generator=seeded()), y).double().mean()
    ours = is_correct(network, APGD(0.1)(Confident(), x, y, generator=seeded()), y).double().mean()
    authors = APGDAttack(Confident().eval(), norm="Linf", eps=0.1, device="cpu")
    with torch.random.fork_rng():
        theirs = is_correct(network, authors.perturb(x, y), y).double().mean()
    network.double()
    print(f"robust accuracy {expected:.3f}, of the confident network {ours:.3f}, by the cross-entropy {theirs:.3f}")
    assert abs(ours - expected) < 0.05
    assert theirs > expected + 0.2


@pytest.mark.slow
def test_a_misclassified_point_met_on_the_way_is_the_result(setup):
    network, x, y = setup
    watching = Watching(network)
    x_adv = APGD(0.04, steps=40)(watching, x, y, generator=seeded())
    wrong = torch.stack(watching.logits).argmax(2) != y
    assert (is_correct(network, x_adv, y) == ~wrong.any(0)).all()
    assert 0 < wrong.any(0).sum() < len(x)
    # RemainingSamples: the point with the largest loss of all seen.
    loss = torch.stack([nn.functional.cross_entropy(logits, y, reduction="none") for logits in watching.logits])
    final = nn.functional.cross_entropy(network(x_adv), y, reduction="none")
    unbroken = ~wrong.any(0)
    torch.testing.assert_close(final[unbroken], loss.amax(0)[unbroken])
    assert len(watching.logits) == 41


@pytest.mark.slow
def test_the_worst_restart_is_kept(setup):
    network, x, y = setup
    attack, generator = APGD(0.1, steps=5), seeded()
    runs = [attack(network, x, y, generator=generator) for _ in range(3)]
    together = APGD(0.1, steps=5, restarts=3)(network, x, y, generator=seeded())
    correct = torch.stack([is_correct(network, run, y) for run in runs])
    assert (is_correct(network, together, y) == correct.all(0)).all()
    assert (correct.sum(1) > correct.all(0).sum()).all()
    losses = torch.stack([nn.functional.cross_entropy(network(run), y, reduction="none") for run in [*runs, together]])
    unbroken = correct.all(0)
    torch.testing.assert_close(losses[3][unbroken], losses[:3].amax(0)[unbroken])


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_few_steps(setup, steps):
    network, x, y = setup
    x_adv = APGD(0.1, steps=steps)(network, x, y, generator=seeded())
    assert ((x_adv - x).abs() <= 0.1 + 1e-12).all()
    assert is_correct(network, x_adv, y).sum() < is_correct(network, x, y).sum()


@pytest.mark.slow
def test_scaled_by_a_warm_up(setup):
    network, x, y = setup
    half = APGD(0.1, steps=5).scaled(0.5)
    assert half.eps == 0.05
    expected = APGD(0.05, steps=5)(network, x, y, generator=seeded())
    assert torch.equal(half(network, x, y, generator=seeded()), expected)
    assert torch.equal(APGD(0)(network, x, y), x)


def test_bad_arguments(setup):
    with pytest.raises(ValueError, match=r"norm must be one of linf, l2, got 'l1'"):
        APGD(norm="l1")
    with pytest.raises(ValueError, match="norm must be one of linf, l2"):
        APGD(norm=L1())
    with pytest.raises(ValueError, match="norm must be one of linf, l2, l1, or a Ball, got 'l3'"):
        APGD(norm="l3")
    with pytest.raises(ValueError, match="loss must be one of cross_entropy, dlr, got 'margin'"):
        APGD(loss="margin")
    with pytest.raises(ValueError, match=r"restarts must be an integer of at least 1, got 1.5"):
        APGD(restarts=1.5)
    _, x, y = setup
    with pytest.raises(ValueError, match="compares three classes"):
        APGD(loss="dlr")(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).double(), x, y % 2)
