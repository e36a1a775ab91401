"""Against closed forms of linear networks, and against foolbox; its promises are in tests/testing."""

import foolbox
import pytest
import torch
from torch import nn

from lightning_adv.attacks.hold import held_still
from lightning_adv.attacks.random_noise import RandomNoise
from tests.seeded import seeded

RADIUS = {"linf": 0.05, "l2": 0.5, "l1": 4.0}


class Linear(nn.Module):
    """Two classes; the second leads by w·x - offset. Counts the images that it sees."""

    def __init__(self, weight, offset):
        super().__init__()
        self.weight, self.offset, self.seen = torch.tensor(weight), offset, 0

    def forward(self, x):
        self.seen += len(x)
        lead = x.flatten(1) @ self.weight - self.offset
        return torch.stack([torch.zeros_like(lead), lead], 1)


def grey(number=5):
    return torch.full((number, 1, 1, 4), 0.5), torch.zeros(number, dtype=torch.int64)


def unbroken(network, x, batchnorm="eval"):
    """Labels that the network gives: every sample has a way to go."""
    with held_still(network, batchnorm=batchnorm) as still, torch.no_grad():
        return still(x).argmax(1)


# What it finds


def test_in_linf_it_finds_the_best_corner():
    """Of 16 corners, 200 random ones miss the best with a probability of 3e-6. No draw of the inside reaches it."""
    (x, y), weight = grey(), [3.0, -1.0, 0.5, -2.0]
    x_adv = RandomNoise(eps=0.1, draws=400)(Linear(weight, offset=5.0), x, y, generator=seeded())
    torch.testing.assert_close(x_adv, x + 0.1 * torch.tensor(weight).sign().view(1, 1, 1, 4), rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "dual", "close"), [("l2", 2, 0.85), ("l1", torch.inf, 0.65)])
def test_many_draws_come_close_to_the_best_and_not_beyond(norm, dual, close):
    (x, y), weight = grey(20), torch.tensor([3.0, -1.0, 0.5, -2.0])
    network = Linear(weight.tolist(), offset=5.0)
    x_adv = RandomNoise(eps=0.2, draws=2000, norm=norm)(network, x, y, generator=seeded())
    gain = ((x_adv - x).flatten(1) @ weight) / (0.2 * torch.linalg.vector_norm(weight, dual))
    assert gain.min() > close
    assert gain.max() <= 1 + 1e-5


@pytest.mark.parametrize("norm", RADIUS)
def test_more_draws_are_never_weaker(build, images, norm):
    """With the same seed the first draws are the same."""
    network, x = build("cnn").eval(), images[0]
    y, leads = unbroken(network, x), []
    for draws in (1, 5, 20):
        x_adv = RandomNoise(RADIUS[norm], draws, norm=norm)(network, x, y, generator=seeded())
        logits = network(x_adv).detach()
        others = logits.scatter(1, y[:, None], -torch.inf).amax(1)
        leads.append(others - logits.gather(1, y[:, None]).squeeze(1))
    still = leads[0] <= 0  # who is broken draws no more
    assert still.any()
    assert (leads[1] >= leads[0]).all()
    assert (leads[2] >= leads[1]).all()
    assert (leads[2] > leads[0])[still].any()


def test_who_is_broken_draws_no_more():
    """The first is wrong to begin with, the second falls at the first draw, as any change breaks it, the rest never."""

    class Marked(Linear):
        def forward(self, x):
            logits = super().forward(x)
            kind = (x.flatten(1)[:, 0] * 10).floor()
            changed = x.flatten(1)[:, 0] != 0.45
            logits[:, 1] = torch.where(kind == 9, 1.0, torch.where((kind == 4) & changed, 1.0, -1.0))
            return logits

    x = torch.tensor([0.95, 0.45, 0.15, 0.15]).view(4, 1, 1, 1).expand(4, 1, 1, 4).contiguous()
    network = Marked([1.0] * 4, 0.0)
    x_adv = RandomNoise(eps=0.01, draws=7)(network, x, torch.zeros(4, dtype=torch.int64), generator=seeded())
    assert network.seen == 4 + 3 + 6 * 2
    assert torch.equal(x_adv[0], x[0])
    assert (x_adv[1] != x[1]).any()


@pytest.mark.slow
def test_at_least_as_strong_as_foolbox(digits, train):
    """Foolbox draws from the inside of the ball only."""
    network, (x, y) = train(digits[0][300:], digits[1][300:], epochs=3), (digits[0][:300], digits[1][:300])
    theirs = foolbox.attacks.LinfRepeatedAdditiveUniformNoiseAttack(repeats=25)
    torch.manual_seed(0)
    *_, broken = theirs(foolbox.PyTorchModel(network, bounds=(0, 1)), x, y, epsilons=0.3)
    ours = RandomNoise(eps=0.3, draws=25)(network, x, y, generator=seeded())
    assert 0.05 < broken.float().mean() < 0.6
    assert (network(ours).argmax(1) != y).float().mean() > broken.float().mean()


# Its parts


def test_a_sample_does_not_depend_on_the_luck_of_its_mates():
    x, y = grey(6)
    easy = x.clone()
    easy[:3] = 0.9  # these are wrong at once
    network = Linear([3.0, -1.0, 0.5, -2.0], offset=0.4)
    first, second = (RandomNoise(eps=0.05, draws=9)(network, images, y, generator=seeded()) for images in (x, easy))
    assert torch.equal(first[3:], second[3:])


def test_batch_mode_judges_by_the_statistics_of_the_whole_batch(build, images):
    network, sizes = build("cnn"), []
    attack = RandomNoise(eps=0.3, draws=20, batchnorm="batch")
    network.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
    x_adv = attack(network, *images, generator=seeded())
    assert set(sizes) == {len(images[0])}
    assert not torch.equal(x_adv, RandomNoise(eps=0.3, draws=20)(network, *images, generator=seeded()))


# Bad input, and what a checkpoint keeps


@pytest.mark.parametrize(
    "bad", [{"eps": 8}, {"eps": -1}, {"norm": "l7"}, {"draws": 0}, {"draws": 2.5}, {"batchnorm": "train"}]
)
def test_bad_arguments_are_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        RandomNoise(**bad)
